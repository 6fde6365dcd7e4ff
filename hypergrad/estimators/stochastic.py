"""Implicit derivatives from minibatches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends import Backend
from ...backends._trees import tree_map
from .._settings import require_kind
from .._space import Space
from .._system import solve_system, tangent_system
from ..level import Apply, Argmin, Level
from ..linear import LinearSolver, default_linear
from ..solution import Solution
from ..solvers import Solver, Unrollable
from .sampled_solvers import SampledSolver, fold, mean

Tree = Any


class Batches(NamedTuple):
    """Minibatches for the four parts of a hypergradient: draw them independently, or its mean is not the truth.

    lower: for the lower level's solver · hessian: for its second derivative by y · cross: for the mixed one · upper:
    for the upper cost. Each is what the cost gets, `cost(x, y, batch=...)`: an array of indices, or data, an array, a
    tuple or a dict of arrays. A *list* is several batches, one for each step of a solver (lower, hessian), to be
    averaged over (cross, upper). None: the function is called without `batch`.
    """

    lower: Tree = None
    hessian: Tree = None
    cross: Tree = None
    upper: Tree = None

    def check(self) -> None:
        """Raise `ValueError` for an empty list."""
        for name, value in self._asdict().items():
            if isinstance(value, list) and not value:
                raise ValueError(f"Batches: {name} is an empty list; give one batch, a list of batches, or None")


@dataclass(frozen=True, eq=False)
class Sampled:
    """A function with the batch that it is to see."""

    function: Callable[..., Tree]
    batch: Tree

    def __call__(self, *variables: Tree) -> Tree:
        """The value there."""
        return self.function(*variables) if self.batch is None else self.function(*variables, batch=self.batch)


def sampled(level: Level, batch: Tree) -> Level:
    """The level on one batch; what was known of it is dropped."""
    return level if batch is None else level.with_function(Sampled(level.function, batch))


def first_batch(batches: Tree) -> Tree:
    """The only batch, or the first of a list."""
    return batches[0] if isinstance(batches, list) else batches


@dataclass(frozen=True)
class StochasticImplicit:
    """The implicit function theorem on minibatches: `hypergradient(problem, x, y0, batches=..., estimator=...)`.

    linear : `ProductNeumann(step)` or `DecreasingSteps(scale, offset)` with a list of Hessian batches, or a linear
        solver as for `Implicit` with one batch: the inverse of that batch's Hessian, which is biased, as the mean of
        inverses is not the inverse of the mean. By default the latter (see `default_linear`).
    """

    linear: LinearSolver | SampledSolver | None = None

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver, SampledSolver)

    def check(self, level: Level, solver: Solver | None, batches: Batches) -> None:
        """Raise `TypeError` where lists of batches and solvers do not go together."""
        if isinstance(batches.lower, list) and not isinstance(solver, Unrollable):
            raise TypeError(
                "a list of lower batches is one step each: give a solver of single steps, such as "
                f"GradientDescent(step) with a fixed step or Adam(step), not {solver!r}"
            )
        several, by_samples = isinstance(batches.hessian, list), isinstance(self.linear, SampledSolver)
        if several and not by_samples:
            raise TypeError(
                "a list of Hessian batches needs StochasticImplicit(ProductNeumann(step)), or DecreasingSteps, not "
                f"{self.linear!r}: a linear solver takes one batch"
            )
        if by_samples and not several:
            raise TypeError(f"{self.linear!r} takes a list of Hessian batches, one for each product")
        if isinstance(self.linear, LinearSolver) and self.linear.needs_self_adjoint and not level.self_adjoint:
            raise TypeError(f"{self.linear!r} needs a symmetric operator; that of a {type(level).__name__} is not")

    def answer(
        self,
        backend: Backend,
        level: Level,
        solver: Solver,
        outer: tuple[Tree, ...],
        init: Tree,
        space: Space,
        batches: Tree,
    ) -> Solution:
        """The lower level's answer on one batch, or after one step for each of a list."""
        if not isinstance(batches, list):
            return solver.solve(backend, sampled(level, batches), outer, init, space)
        assert isinstance(solver, Unrollable)

        def step(state: Tree, batch: Tree) -> Tree:
            return solver.advance(backend, sampled(level, batch), outer, space, state)

        start = solver.begin(backend, sampled(level, batches[0]), outer, init, space)
        end = fold(backend, batches, step, start)
        return solver.finish(backend, sampled(level, batches[-1]), outer, space, end, len(batches))

    def adjoint(
        self,
        backend: Backend,
        level: Level,
        outer: tuple[Tree, ...],
        y: Tree,
        space: Space,
        cotangent: Tree,
        guess: Tree | None,
        batches: Tree,
    ) -> Solution:
        """The adjoint variable for the cotangent of y."""
        manifold = level.manifold
        b = manifold.project(y, cotangent)
        if not isinstance(self.linear, SampledSolver):
            at_batch = sampled(level, batches)
            linear = default_linear(at_batch) if self.linear is None else self.linear
            system = tangent_system(backend, at_batch, outer, y, space, transpose=True)
            return solve_system(linear, system, b, guess)

        def at(batch: Tree) -> Apply:
            transpose = sampled(level, batch).operator(backend, outer, y)[1]
            return lambda v: manifold.project(y, transpose(v))

        def raise_(w: Tree) -> Tree:
            return manifold.sharp(y, w) if isinstance(level, Argmin) else w

        return self.linear.solve(space, at, raise_, b, guess, batches)

    def pull(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, adjoint: Tree, batches: Tree
    ) -> tuple[Tree, ...]:
        """-∂_outer⟨F(outer, y), adjoint⟩, the mean over a list."""

        def one(batch: Tree) -> tuple[Tree, ...]:
            at_batch = sampled(level, batch)
            _, pull = backend.vjp(lambda *o: at_batch.residual(backend, o, y), *outer)
            return tree_map(lambda a: -a, pull(adjoint))

        return mean(backend, batches, one)
