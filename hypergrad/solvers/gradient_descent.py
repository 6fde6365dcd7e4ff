"""Riemannian gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from ...backends import Backend
from .._settings import require_count, require_number
from .._space import Space
from ..level import Argmin, Level
from ..solution import Solution, is_finite
from ._base import Unrollable, cost_scale, default_tolerance, first_leaf, require_argmin
from ._measured import Measured, choose, measure
from .steps import BarzilaiBorwein, StepRule, backtrack, first_step, next_trial, require_step_rule

Array = Any
Tree = Any


@dataclass(frozen=True)
class GradientDescent(Unrollable):
    """y ← R_y(-t grad), t a fixed `step`, or by `Armijo()` or `BarzilaiBorwein()` (default).

    Converged where ‖grad‖ ≤ tol · scale (see `cost_scale`: the size of the cost); `tol=None` is eps^(3/4) of the dtype,
    and no tolerance is taken below 10 eps. A run that meets a non-finite value stops at the last finite point.
    """

    step: StepRule = field(default_factory=BarzilaiBorwein)
    tol: float | None = None
    max_steps: int = 5000

    def __post_init__(self) -> None:
        require_step_rule(self, "step")
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, xp = require_argmin(self, level), backend.xp
        tol = default_tolerance(first_leaf(init), self.tol)

        start = measure(backend, level, outer, space, init)

        def within(at: Measured) -> Array:
            return at.norm <= tol * cost_scale(xp, at.value, start.value, start.norm)

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            at, t, k, done = state
            _, moved, t_next, good = self._advance(backend, level, outer, space, at, t, done)
            finished = xp.logical_or(within(moved), ~good)
            taken = xp.logical_and(good, ~done)
            at = choose(space, taken, moved, at)
            return at, xp.where(done, t, t_next), k + xp.astype(taken, k.dtype), xp.logical_or(done, finished)

        t = space.full(first_step(self.step), start.slope)
        stop = xp.logical_or(within(start), ~xp.isfinite(start.slope))
        state = (start, t, space.counts(t), stop)
        at, _, k, _ = backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Solution(at.point, at.norm, k, within(at))

    def unroll(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space, steps: int
    ) -> Solution:
        """See `Unrollable`. The step lengths are constants of the derivative; `init` is differentiated through."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp
        fixed = backend.stop_gradient(outer)

        def step(state: Any) -> Any:
            y, t = state
            at = measure(backend, level, fixed, space, backend.stop_gradient(y))
            taken, _, t, _ = self._advance(backend, level, fixed, space, at, t, space.flags(False, t))
            u = manifold.sharp(y, level.residual(backend, outer, y))
            return manifold.retract(y, space.scale(-taken, u)), t

        start = measure(backend, level, fixed, space, backend.stop_gradient(init))
        y, _ = backend.repeat(step, (init, space.full(first_step(self.step), start.value)), steps=steps)
        end = measure(backend, level, fixed, space, backend.stop_gradient(y))
        tol = default_tolerance(end.slope, self.tol)
        converged = end.norm <= tol * cost_scale(xp, end.value, start.value, start.norm)
        return Solution(y, end.norm, space.counts(end.slope) + steps, converged)

    def _advance(
        self, backend: Backend, level: Argmin, outer: tuple, space: Space, at: Measured, t: Array, skip: Array
    ) -> tuple[Array, Measured, Array, Array]:
        """One step from a measured point: the length taken, the next measured point, the next trial length, and
        whether all is well.
        """
        manifold, xp = level.manifold, backend.xp
        y, value, _, u, slope = at

        def trial(t: Array) -> tuple[Array, Tree, Array]:
            moved = manifold.retract(y, space.scale(-t, u))
            return level.cost(*outer, moved), moved, space.counts(t) + 1

        if isinstance(self.step, Real):
            moved, found, certain = manifold.retract(y, space.scale(-t, u)), space.flags(True, slope), None
        else:
            t, _, moved, found, certain, _ = backtrack(space, self.step, trial, value, slope, t, skip)
        new = measure(backend, level, outer, space, moved)
        good = xp.logical_and(found, xp.logical_and(xp.isfinite(new.value), is_finite(space, new.gradient)))
        carried_dot = space.dot(new.covector, manifold.transport(y, moved, u))
        return t, new, next_trial(space, self.step, t, carried_dot, slope, certain), good
