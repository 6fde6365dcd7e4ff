"""Fixed-point iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from ...manifolds import Quotient
from .._settings import require_count, require_number
from .._space import Space
from ..level import FixedPoint, Level
from ..solution import Solution, is_finite
from ._base import Unrollable, default_tolerance, first_leaf, point_norm

Tree = Any


@dataclass(frozen=True)
class Picard(Unrollable):
    """y ← map(outer, y).

    Converged where |map(y) - y| ≤ tol · max(1, |y|); `tol=None` is eps^(3/4) of the dtype, and no tolerance is taken
    below 10 eps. A run that meets a non-finite value stops at the last finite point.
    """

    tol: float | None = None
    max_steps: int = 5000

    def __post_init__(self) -> None:
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not a `FixedPoint`."""
        level, xp = _require_fixed_point(level), backend.xp
        tol, image = default_tolerance(first_leaf(init), self.tol), image_of(level, outer, space)

        def gap(y: Tree, moved: Tree) -> tuple[Any, Any]:
            difference = space.subtract(moved, y)
            size = point_norm(space, y)
            norm = point_norm(space, difference)
            return norm, xp.logical_and(norm <= tol * xp.maximum(size, xp.ones_like(size)), xp.isfinite(size))

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            y, moved, norm, k, _, done = state
            again = image(moved)
            new_norm, converged = gap(moved, again)
            good = xp.logical_and(is_finite(space, again), ~done)
            y, moved = space.where(good, moved, y), space.where(good, again, moved)
            norm = xp.where(good, new_norm, norm)
            k = k + xp.astype(good, k.dtype)
            converged = xp.logical_or(xp.logical_and(good, converged), state[4])
            return y, moved, norm, k, converged, xp.logical_or(done, xp.logical_or(converged, ~good))

        moved = image(init)
        norm, converged = gap(init, moved)
        stop = xp.logical_or(converged, ~is_finite(space, moved))
        state = (init, moved, norm, space.counts(norm), converged, stop)
        y, _, norm, k, converged, _ = backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Solution(y, norm, k, converged)

    def begin(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Tree:
        """See `Unrollable`: the point."""
        _require_fixed_point(level)
        return init

    def advance(self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree) -> Tree:
        """See `Unrollable`: ITD of Grazzi et al. 2020."""
        return image_of(_require_fixed_point(level), outer, space)(state)

    def finish(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree, steps: int
    ) -> Solution:
        """See `Unrollable`."""
        level, xp, y = _require_fixed_point(level), backend.xp, state
        plain = backend.stop_gradient(y)
        norm = point_norm(space, space.subtract(image_of(level, backend.stop_gradient(outer), space)(plain), plain))
        tol = default_tolerance(first_leaf(norm), self.tol)
        converged = norm <= tol * xp.maximum(point_norm(space, plain), xp.ones_like(norm))
        return Solution(y, norm, space.counts(norm) + steps, converged)


def image_of(level: FixedPoint, outer: tuple[Tree, ...], space: Space) -> Callable[[Tree], Tree]:
    """y ↦ map(outer, y), put back on the manifold, which rounding would leave: a formula of a map may amplify what is
    normal to the manifold (the exponential map of the sphere does); on a quotient, aligned with y.
    """
    manifold = level.manifold

    def image(y: Tree) -> Tree:
        moved = level.map(*outer, y)
        moved = manifold.retract(moved, space.zeros(moved))
        return manifold.align(y, moved) if isinstance(manifold, Quotient) else moved

    return image


def _require_fixed_point(level: Level) -> FixedPoint:
    if not isinstance(level, FixedPoint):
        raise TypeError(
            f"Picard iterates a map; a {type(level).__name__} needs TrustRegion(), GradientDescent() or Newton()"
        )
    return level
