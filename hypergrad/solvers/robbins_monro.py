"""Steps that decrease: for levels that are seen through minibatches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._settings import require_count, require_number
from .._space import Space
from ..level import Argmin, Level
from ..solution import Solution, is_finite
from ._base import Unrollable, default_tolerance, first_leaf, point_norm, residual_norm
from .steps import quietly

Array = Any
Tree = Any


@dataclass(frozen=True)
class RobbinsMonro(Unrollable):
    """y ← R_y(-ηᵢ F), ηᵢ = scale / (offset + i), i = 0, 1, …; F the gradient, the field, or y - map(y), projected.

    With `hypergradient(..., batches=...)` each step sees a batch of its own: the mean square error is O(1/steps) for
    scale > 1/h_min of an `Argmin`, > 1/(1 - q) of a map that contracts by q (Robbins & Monro 1951; Grazzi, Pontil &
    Salzo 2021). Alone it stops where |F| ≤ tol · max(1, |y|), which takes long; `tol=None` is eps^(3/4) of the dtype.
    A run that meets a non-finite value stops at the last finite point.
    """

    scale: float
    offset: float
    tol: float | None = None
    max_steps: int = 5000

    def __post_init__(self) -> None:
        require_number(self, "scale", above=0)
        require_number(self, "offset", above=0)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        xp = backend.xp

        def step(state: Any) -> Any:
            (y, i), norm, done = state
            moved, after = self.advance(backend, level, outer, space, (y, i))
            new = residual_norm(backend, level, outer, moved, space)
            good = xp.logical_and(xp.logical_and(is_finite(space, moved), xp.isfinite(new)), ~done)
            y, norm, i = space.where(good, moved, y), xp.where(good, new, norm), xp.where(good, after, i)
            return (y, i), norm, xp.logical_or(done, xp.logical_or(~good, self._met(space, y, norm)))

        with quietly():
            start = self.begin(backend, level, outer, init, space)
            norm = residual_norm(backend, level, outer, init, space)
            done = xp.logical_or(self._met(space, init, norm), ~xp.isfinite(norm))
            (y, i), norm, _ = backend.while_loop(
                lambda s: xp.logical_not(space.all(s[-1])), step, (start, norm, done), max_steps=self.max_steps
            )
        return Solution(y, norm, xp.astype(i, xp.int32), self._met(space, y, norm))

    def begin(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Tree:
        """See `Unrollable`: the point, and the number of steps."""
        return init, space.zero(first_leaf(init))

    def advance(self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree) -> Tree:
        """See `Unrollable`."""
        (y, i), manifold = state, level.manifold
        w = manifold.project(y, level.residual(backend, outer, y))
        u = manifold.sharp(y, w) if isinstance(level, Argmin) else w
        return manifold.retract(y, space.scale(-self.scale / (self.offset + i), u)), i + 1

    def finish(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree, steps: int
    ) -> Solution:
        """See `Unrollable`."""
        outer, y = backend.stop_gradient((outer, state[0]))
        norm = residual_norm(backend, level, outer, y, space)
        return Solution(state[0], norm, space.counts(norm) + steps, self._met(space, y, norm))

    def _met(self, space: Space, y: Tree, norm: Array) -> Array:
        size = point_norm(space, y)
        return norm <= default_tolerance(norm, self.tol) * space.backend.xp.maximum(size, 0 * size + 1)
