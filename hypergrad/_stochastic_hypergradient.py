"""The hypergradient of a bilevel problem from minibatches."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..backends import Backend, namespace
from ..backends._trees import tree_map
from ._checks import check_cost
from ._space import Space
from .estimators.sampled_solvers import SampledSolver, mean
from .estimators.stochastic import Batches, Sampled, StochasticImplicit, first_batch, sampled
from .hypergradient import NOT_DIFFERENTIABLE, Hypergradient, check_captured, check_problem, prepared
from .linear import default_linear
from .nested import Bilevel
from .solution import warn_unless_converged
from .solve import prepare
from .solvers import Solver

Tree = Any
#: (x, y0, guess of the adjoint, batches) -> hypergradient
Compute = Callable[[Tree, Tree, Tree | None, Batches], Hypergradient]


def stochastic_hypergradient(
    problem: Bilevel,
    x: Tree,
    y0: Tree,
    batches: Batches | None,
    *,
    solver: Solver | None,
    estimator: StochasticImplicit | None,
    adjoint: Tree | None,
) -> Hypergradient:
    """See `hypergradient`, of which this is the case with `batches`."""
    if not isinstance(batches, Batches):
        raise TypeError(f"batches must be Batches(lower, hessian, cross, upper), not {batches!r}")
    if estimator is not None and not isinstance(estimator, StochasticImplicit):
        raise TypeError(f"with batches the estimator must be a StochasticImplicit, not {estimator!r}")
    estimator = StochasticImplicit() if estimator is None else estimator
    batches.check()
    backend = check_problem(problem, x, y0)
    x, y0, adjoint = backend.forbid_gradient((x, y0, adjoint), NOT_DIFFERENTIABLE)
    first = Bilevel(
        Sampled(problem.upper, first_batch(batches.upper)),
        problem.manifold,
        sampled(problem.lower, first_batch(batches.lower)),
    )
    estimator.check(problem.lower, solver, batches)
    _, solver, _, space = prepare(first.lower, (x,), y0, solver, None, "y0")
    check_captured(backend, first, x, y0)
    make = _compiled if backend.is_eager(x, y0) else plain_stochastic_hypergradient
    with backend.constants():
        result = prepared(make, backend, problem, solver, estimator, space.batch)(x, y0, adjoint, batches)
    assert result.adjoint is not None
    if not isinstance(batches.lower, list):
        warn_unless_converged(backend, result.lower, f"{type(solver).__name__} on the lower level's batch")
    linear = default_linear(problem.lower) if estimator.linear is None else estimator.linear
    if isinstance(linear, SampledSolver) or linear.has_tolerance:
        warn_unless_converged(backend, result.adjoint, "the linear solve of the hypergradient")
    return result


def plain_stochastic_hypergradient(
    backend: Backend, problem: Bilevel, solver: Solver, estimator: StochasticImplicit, batch: tuple[int, ...]
) -> Compute:
    """The computation as a function of arrays alone; `batch` is the shape of the lower level's problems."""

    def compute(x: Tree, y0: Tree, guess: Tree | None, batches: Batches) -> Hypergradient:
        level, outer, space = problem.lower, (x,), Space(backend, batch)
        lower = estimator.answer(backend, level, solver, outer, y0, space, batches.lower)
        y = lower.value

        def upper(batch: Tree) -> tuple[Tree, ...]:
            value, pull = backend.vjp(Sampled(problem.upper, batch), x, y)
            check_cost(value, x, problem.manifold, "the upper cost")
            return value, *pull(namespace(value).ones_like(value))

        value, direct, cotangent = mean(backend, batches.upper, upper)
        adjoint = estimator.adjoint(backend, level, outer, y, space, cotangent, guess, batches.hessian)
        (through,) = estimator.pull(backend, level, outer, y, adjoint.value, batches.cross)
        covector = problem.manifold.project(x, tree_map(lambda a, b: a + b, direct, through))
        return Hypergradient(value, problem.manifold.sharp(x, covector), covector, lower, adjoint)

    return compute


@lru_cache(maxsize=16)
def _compiled(
    backend: Backend, problem: Bilevel, solver: Solver, estimator: StochasticImplicit, batch: tuple[int, ...]
) -> Compute:
    return backend.jit(plain_stochastic_hypergradient(backend, problem, solver, estimator, batch))
