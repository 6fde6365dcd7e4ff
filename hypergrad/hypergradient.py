"""The hypergradient of a bilevel problem, in one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple, overload

from ..backends import Backend, namespace
from ..backends._trees import tree_map
from ._adaptive import adaptive
from ._adjoint import linearized
from ._checks import check_cost
from ._known import check_known
from ._space import Space
from ._traps import warn_if_constant, warn_if_independent
from ._warn_about import warn_about
from .certificate import Certificate, Effort, Parts, certificate_of
from .estimators import Batches, Estimator, FirstOrder, Implicit, StochasticImplicit
from .estimators.implicit import ImplicitPull
from .nested import Bilevel, Nested
from .nested.hypergradient import NestedHypergradient, nested_hypergradient
from .nested.settings import Settings, Solvers
from .solution import Solution
from .solve import one_backend, prepare
from .solvers import Solver

Array = Any
Tree = Any


#: What to do instead of differentiating a hypergradient or a run.
NOT_DIFFERENTIABLE = (
    "hypergradient and run are not differentiable; differentiate upper(x, solve(lower, x, init=y).value) instead"
)


class Hypergradient(NamedTuple):
    """The gradient of F(x) = upper(x, y*(x)), the two solves that it rests on, and how good it is.

    value: F(x) · gradient: the Riemannian gradient, tangent at x · covector: the ambient derivative that it is `sharp`
    of · lower: the lower level's answer · adjoint: the linear solve, None for estimators without one · certificate:
    the estimated error and what it comes from, None where none was asked for.
    """

    value: Array
    gradient: Tree
    covector: Tree
    lower: Solution
    adjoint: Solution | None
    certificate: Certificate | None = None


@overload
def hypergradient(
    problem: Bilevel,
    x: Tree,
    y0: Tree,
    *,
    solver: Solver | None = None,
    estimator: Estimator | StochasticImplicit | None = None,
    adjoint: Tree | None = None,
    certify: bool | None = None,
    tol: float | None = None,
    batches: Batches | None = None,
) -> Hypergradient: ...


@overload
def hypergradient(
    problem: Nested,
    x: Tree,
    y0: tuple[Tree, ...],
    *,
    solver: Solvers = None,
    estimator: Settings = None,
    adjoint: Tree | None = None,
    certify: bool | None = None,
) -> NestedHypergradient: ...


def hypergradient(
    problem: Bilevel | Nested,
    x: Tree,
    y0: Tree,
    *,
    solver: Any = None,
    estimator: Any = None,
    adjoint: Tree | None = None,
    certify: bool | None = None,
    tol: float | None = None,
    batches: Batches | None = None,
) -> Hypergradient | NestedHypergradient:
    """Solve the lower level from `y0`, one linear system at its answer, and pull back to `x`.

    `adjoint` is a first guess for the linear system: the `adjoint.value` of a nearby hypergradient. `certify`: estimate
    the error (see `Certificate`), at the price of a second, rougher adjoint solve; by default with every estimator but
    `FirstOrder`, which is there to do without second derivatives, and not of a `Nested` problem, where it takes up to
    three solves of the flattened root.

    `tol`: both solves go just as far as it takes for `certificate.error` ≤ tol · `certificate.size`, from loose solves
    to tight ones, each from where the last one ended; the tolerances of `solver` and of the estimator's linear solver
    are set aside, and the estimator must be `Implicit`. Each round looks at values: under `jax.jit` give the solvers
    their tolerances instead. With JAX each pair of tolerances, powers of ten, is compiled once.

    `batches`: costs that take a minibatch, `cost(x, y, *, batch)`, see those of `Batches`; the estimator is a
    `StochasticImplicit`, and there is no certificate.

    With JAX the whole is compiled, once for each problem, solver, estimator and shape; arrays that the costs close over
    are constants of the compiled program. The result is not differentiable: for that differentiate
    `upper(x, solve(lower, x, init=y0).value)`.

    Raises as `solve` does, and `ShapeError` for an upper cost whose output is no batch of problems.
    """
    if isinstance(problem, Nested):
        if tol is not None or batches is not None:
            raise TypeError("tol= and batches= are for two levels; give the solvers of a Nested problem tolerances")
        return nested_hypergradient(
            problem, x, y0, solver=solver, estimator=estimator, adjoint=adjoint, certify=bool(certify)
        )
    if batches is not None or isinstance(estimator, StochasticImplicit):
        from ._stochastic_hypergradient import stochastic_hypergradient

        if certify or tol is not None:
            raise ValueError("chance leaves nothing to certify: no certify= or tol= with batches=")
        return stochastic_hypergradient(problem, x, y0, batches, solver=solver, estimator=estimator, adjoint=adjoint)
    backend = check_problem(problem, x, y0)
    x, y0, adjoint = backend.forbid_gradient((x, y0, adjoint), NOT_DIFFERENTIABLE)
    _, solver, estimator, space = prepare(problem.lower, (x,), y0, solver, estimator, "y0")
    check_captured(backend, problem, x, y0)
    certify = not isinstance(estimator, FirstOrder) if certify is None else certify
    make = _compiled if backend.is_eager(x, y0) else plain_hypergradient

    def evaluate(
        solver: Solver, estimator: Estimator, y0: Tree, adjoint: Tree | None, effort: Effort | None
    ) -> Hypergradient:
        return prepared(make, backend, problem, solver, estimator, effort, space.batch)(x, y0, adjoint)

    with backend.constants():
        if tol is None:
            result = evaluate(solver, estimator, y0, adjoint, Effort() if certify else None)
        else:
            implicit = _require_adaptive(backend, estimator, certify, tol, (x, y0))
            result = adaptive(backend, evaluate, problem.lower, solver, implicit, y0, adjoint, tol)
    check_known(backend, problem.lower, (x,), result.lower.value)
    warn_if_constant(backend, problem.lower, (x,), result.lower, result.adjoint)
    if backend.compiles and result.adjoint is not None:  # elsewhere the estimator itself sees values
        answer = result.lower.value, result.adjoint.value, result.covector
        warn_if_independent(backend, lambda _: problem.lower, ((), (x,)), *answer)
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


def _require_adaptive(backend: Backend, estimator: Estimator, certify: bool, tol: float, arrays: Tree) -> Implicit:
    """The estimator, if accuracy can be adapted. Raises `TypeError` or `ValueError` otherwise."""
    if not isinstance(estimator, Implicit):
        raise TypeError(f"tol= drives the two solves of Implicit; {type(estimator).__name__} has not two")
    if isinstance(tol, bool) or not isinstance(tol, Real):
        raise TypeError(f"tol must be a number, not {tol!r}")
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, not {tol!r}: it is relative to the gradient")
    if not certify:
        raise ValueError("tol= goes by the certificate: leave certify=True")
    if not backend.is_eager(*arrays):
        raise ValueError(
            "tol= looks at values between the rounds, and under jax.jit or jax.vmap there are none: give the solver "
            "and the linear solver tolerances instead, or call hypergradient outside"
        )
    return estimator


def plain_hypergradient(
    backend: Backend,
    problem: Bilevel,
    solver: Solver,
    estimator: Estimator,
    effort: Effort | None = None,
    batch: tuple[int, ...] | None = None,
) -> Callable[[Tree, Tree, Tree | None], Hypergradient]:
    """The computation as a function of arrays alone; `batch` is that of the lower level, found out where None."""

    def compute(x: Tree, y0: Tree, guess: Tree | None) -> Hypergradient:
        level = problem.lower
        space = Space(backend, level.batch((x,), y0) if batch is None else batch)
        lower, pull = estimator.pullback(backend, level, solver, (x,), y0, space)
        value, pull_upper = backend.vjp(problem.upper, x, lower.value)
        check_cost(value, x, problem.manifold, "the upper cost")
        direct, cotangent = pull_upper(namespace(value).ones_like(value))
        (through,), adjoint = pull(cotangent, guess)
        covector = problem.manifold.project(x, tree_map(lambda a, b: a + b, direct, through))
        certificate = None
        if effort is not None:
            at = pull.at if isinstance(pull, ImplicitPull) else linearized(backend, level, (x,), lower.value, space)
            parts = Parts(value, direct, cotangent, covector, None if adjoint is None else adjoint.value)
            certificate = certificate_of(backend, problem, x, lower.value, space, at, parts, effort)
        return Hypergradient(value, problem.manifold.sharp(x, covector), covector, lower, adjoint, certificate)

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
    backend: Backend,
    problem: Bilevel,
    solver: Solver,
    estimator: Estimator,
    effort: Effort | None,
    batch: tuple[int, ...],
) -> Callable[[Tree, Tree, Tree | None], Hypergradient]:
    return backend.jit(plain_hypergradient(backend, problem, solver, estimator, effort, batch))
