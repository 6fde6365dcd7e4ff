"""The hypergradient of a bilevel problem, in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ..backends import Backend, namespace
from ..backends._trees import tree_map
from ._checks import check_cost
from ._space import Space
from .estimators import Estimator, Implicit
from .nested import Bilevel
from .solution import Solution, warn_unless_converged
from .solve import one_backend, prepare
from .solvers import Solver

Array = Any
Tree = Any


#: What to do instead of differentiating a hypergradient or a run.
NOT_DIFFERENTIABLE = (
    "hypergradient and run are not differentiable; differentiate upper(x, solve(lower, x, init=y).value) instead"
)


class Hypergradient(NamedTuple):
    """The gradient of F(x) = upper(x, y*(x)), and the two solves that it rests on.

    value: F(x) · gradient: the Riemannian gradient, tangent at x · covector: the ambient derivative that it is `sharp`
    of · lower: the lower level's answer · adjoint: the linear solve, None for estimators without one.
    """

    value: Array
    gradient: Tree
    covector: Tree
    lower: Solution
    adjoint: Solution | None


def hypergradient(
    problem: Bilevel,
    x: Tree,
    y0: Tree,
    *,
    solver: Solver | None = None,
    estimator: Estimator | None = None,
    adjoint: Tree | None = None,
) -> Hypergradient:
    """Solve the lower level from `y0`, one linear system at its answer, and pull back to `x`.

    `adjoint` is a first guess for the linear system: the `adjoint.value` of a nearby hypergradient. With JAX the whole
    is compiled, once for each problem, solver, estimator and shape; arrays that the costs close over are
    constants of the compiled program. The result is not differentiable: for that differentiate
    `upper(x, solve(lower, x, init=y0).value)`.

    Raises as `solve` does, and `ShapeError` for an upper cost whose output is no batch of problems.
    """
    backend = check_problem(problem, x, y0)
    x, y0, adjoint = backend.forbid_gradient((x, y0, adjoint), NOT_DIFFERENTIABLE)
    _, solver, estimator, _ = prepare(problem.lower, (x,), y0, solver, estimator, "y0")
    check_captured(backend, problem, x, y0)
    make = _compiled if backend.is_eager(x, y0) else plain_hypergradient
    compute = prepared(make, backend, problem, solver, estimator)
    with backend.constants():
        result = compute(x, y0, adjoint)
    warn_about(backend, result, solver, estimator, problem)
    return result


def check_problem(problem: Bilevel, x: Tree, y: Tree) -> Backend:
    """The backend of a problem's points, which are checked. Raises as `hypergradient` does."""
    if not isinstance(problem, Bilevel):
        raise TypeError(f"expected a Bilevel problem, not a {type(problem).__name__}")
    backend = one_backend(x, y)
    problem.manifold.check_point(x, "x")
    return backend


def check_captured(backend: Backend, problem: Bilevel, x: Tree, y: Tree) -> None:
    """Raise `NoDerivativeError` where costs or manifolds hold arrays that are being differentiated."""

    def both() -> tuple[Tree, ...]:
        parameters = [backend.split(manifold)[0] for manifold in (problem.manifold, problem.lower.manifold)]
        return problem.lower.function(x, y), problem.upper(x, y), parameters

    backend.forbid_captured(both, NOT_DIFFERENTIABLE)


def warn_about(backend: Backend, result: Hypergradient, solver: Solver, estimator: Estimator, problem: Bilevel) -> None:
    """Warn of solves that did not reach what they were asked for."""
    if isinstance(estimator, Implicit):
        warn_unless_converged(backend, result.lower, f"{type(solver).__name__} on the lower level")
        if result.adjoint is not None and estimator.has_tolerance_for(problem.lower):
            warn_unless_converged(backend, result.adjoint, "the linear solve of the hypergradient")


def plain_hypergradient(
    backend: Backend, problem: Bilevel, solver: Solver, estimator: Estimator
) -> Callable[[Tree, Tree, Tree | None], Hypergradient]:
    """The computation as a function of arrays alone."""

    def compute(x: Tree, y0: Tree, guess: Tree | None) -> Hypergradient:
        space = Space(backend, problem.lower.batch((x,), y0))
        lower, pull = estimator.pullback(backend, problem.lower, solver, (x,), y0, space)
        value, pull_upper = backend.vjp(problem.upper, x, lower.value)
        check_cost(value, x, problem.manifold, "the upper cost")
        direct, cotangent = pull_upper(namespace(value).ones_like(value))
        (through,), adjoint = pull(cotangent, guess)
        covector = problem.manifold.project(x, tree_map(lambda a, b: a + b, direct, through))
        return Hypergradient(value, problem.manifold.sharp(x, covector), covector, lower, adjoint)

    return compute


def prepared(make: Callable[..., Any], backend: Backend, *values: Any) -> Any:
    """`make(backend, *values)`, kept for the next call where making means compiling and the values can be keys.

    What is kept keeps its problem alive, data included. A cost may be a callable without hash.
    """
    plain = getattr(make, "__wrapped__", make)
    if not backend.compiles:
        return plain(backend, *values)
    try:
        hash(values)
    except TypeError:
        return plain(backend, *values)
    return make(backend, *values)


@lru_cache(maxsize=16)
def _compiled(
    backend: Backend, problem: Bilevel, solver: Solver, estimator: Estimator
) -> Callable[[Tree, Tree, Tree | None], Hypergradient]:
    return backend.jit(plain_hypergradient(backend, problem, solver, estimator))
