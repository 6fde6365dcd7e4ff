"""Riemannian gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...backends import Backend
from .._settings import require_count, require_number
from .._space import Space
from ..level import Argmin, Level
from ..solution import Solution, is_finite
from ._base import Unrollable, cost_scale, default_tolerance, first_leaf, require_argmin
from .steps import BarzilaiBorwein, StepRule, backtrack, first_step, next_trial, require_step_rule

Array = Any
Tree = Any


@dataclass(frozen=True)
class GradientDescent(Unrollable):
    """y ← R_y(-t grad), t a fixed `step`, or by `Armijo()` or `BarzilaiBorwein()` (default).

    Converged where ‖grad‖ ≤ tol · scale (see `cost_scale`: the size of the cost); `tol=None` is eps^(3/4) of the dtype,
    and no tolerance is taken below 10 eps. A run that meets a non-finite value stops at the
    last finite point.
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

        start = self._measure(backend, level, outer, space, init)
        start_norm = xp.sqrt(xp.abs(start[4]))

        def norm_and_limit(value: Array, slope: Array) -> tuple[Array, Array]:
            return xp.sqrt(xp.abs(slope)), tol * cost_scale(xp, value, start[1], start_norm)

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            at, t, k, done = state
            _, moved, t_next, good = self._advance(backend, level, outer, space, at, t, done)
            norm, limit = norm_and_limit(moved[1], moved[4])
            finished = xp.logical_or(norm <= limit, ~good)
            frozen = xp.logical_or(done, ~good)
            at = tuple(space.where(frozen, a, b) for a, b in zip(at, moved, strict=True))
            taken = xp.logical_and(good, ~done)
            return at, xp.where(done, t, t_next), k + xp.astype(taken, k.dtype), xp.logical_or(done, finished)

        norm, limit = norm_and_limit(start[1], start[4])
        t = space.full(first_step(self.step), norm)
        state = (start, t, space.counts(norm), xp.logical_or(norm <= limit, ~xp.isfinite(norm)))
        at, _, k, _ = backend.while_loop(running, step, state, max_steps=self.max_steps)
        norm, limit = norm_and_limit(at[1], at[4])
        return Solution(at[0], norm, k, norm <= limit)

    def unroll(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space, steps: int
    ) -> Solution:
        """See `Unrollable`. The step lengths are constants of the derivative; `init` is differentiated through."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp
        fixed = backend.stop_gradient(outer)

        def step(state: Any) -> Any:
            y, t = state
            at = self._measure(backend, level, fixed, space, backend.stop_gradient(y))
            taken, _, t, _ = self._advance(backend, level, fixed, space, at, t, space.flags(False, t))
            u = manifold.sharp(y, level.residual(backend, outer, y))
            return manifold.retract(y, space.scale(-taken, u)), t

        start = self._measure(backend, level, fixed, space, backend.stop_gradient(init))
        y, _ = backend.repeat(step, (init, space.full(first_step(self.step), start[1])), steps=steps)
        end = self._measure(backend, level, fixed, space, backend.stop_gradient(y))
        norm = xp.sqrt(xp.abs(end[4]))
        tol = default_tolerance(norm, self.tol)
        converged = norm <= tol * cost_scale(xp, end[1], start[1], xp.sqrt(xp.abs(start[4])))
        return Solution(y, norm, space.counts(norm) + steps, converged)

    def _measure(self, backend: Backend, level: Argmin, outer: tuple, space: Space, y: Tree) -> tuple:
        """Point, value, covector, gradient and its squared norm."""
        value, w = level.value_and_residual(backend, outer, y)
        w = level.manifold.project(y, w)
        u = level.manifold.sharp(y, w)
        return y, value, w, u, space.dot(w, u)

    def _advance(
        self, backend: Backend, level: Argmin, outer: tuple, space: Space, at: tuple, t: Array, skip: Array
    ) -> tuple[Array, tuple, Array, Array]:
        """One step from a measured point: the length taken, the next measured point, the next trial length, and
        whether all is well.
        """
        manifold, xp = level.manifold, backend.xp
        y, value, _, u, slope = at

        def trial(t: Array) -> tuple[Array, Tree, Array]:
            moved = manifold.retract(y, space.scale(-t, u))
            return level.cost(*outer, moved), moved, space.counts(t) + 1

        if isinstance(self.step, (int, float)):
            moved, found, certain = manifold.retract(y, space.scale(-t, u)), space.flags(True, slope), None
        else:
            t, _, moved, found, certain, _ = backtrack(space, self.step, trial, value, slope, t, skip)
        new = self._measure(backend, level, outer, space, moved)
        good = xp.logical_and(found, xp.logical_and(xp.isfinite(new[1]), is_finite(space, new[3])))
        carried_dot = space.dot(new[2], manifold.transport(y, moved, u))
        return t, new, next_trial(space, self.step, t, carried_dot, slope, certain), good
