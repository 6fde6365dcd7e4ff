"""Newton's method for fields and maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...backends import Backend
from .._settings import require_count, require_kind, require_number
from .._space import Space
from .._system import solve_system, tangent_system
from ..level import Argmin, Level
from ..linear import Dense, LinearSolver
from ..solution import Solution, is_finite
from ._base import Solver, default_tolerance, first_leaf, point_norm

Tree = Any


@dataclass(frozen=True)
class Newton(Solver):
    """Solve P D P v = -P F, y ← R_y(t v), t halved while the residual does not shrink.

    For `Root` and `FixedPoint`. Converged where |P F| ≤ tol · max(1, |y|); `tol=None` is eps^(3/4) of the dtype.
    Absil, Mahony & Sepulchre 2008, alg. 4.
    """

    linear: LinearSolver = field(default_factory=Dense)
    tol: float | None = None
    max_steps: int = 50
    max_halvings: int = 20

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for an `Argmin`: `TrustRegion` is Newton's method with descent."""
        if isinstance(level, Argmin):
            raise TypeError("Newton finds any critical point of a cost; use TrustRegion() for an Argmin")
        manifold, xp = level.manifold, backend.xp
        tol = default_tolerance(first_leaf(init), self.tol)

        def measure(y: Tree) -> tuple[Tree, Any]:
            r = manifold.project(y, level.residual(backend, outer, y))
            return r, point_norm(space, r)

        def within(y: Tree, norm: Any) -> Any:
            return norm <= tol * xp.maximum(point_norm(space, y), xp.ones_like(norm))

        def step(state: Any) -> Any:
            y, norm, k, done = state
            r, _ = measure(y)
            v = solve_system(self.linear, tangent_system(backend, level, outer, y, space), r).value

            def trial(t: Any) -> tuple[Tree, Any]:
                moved = manifold.retract(y, space.scale(-t, v))
                return moved, measure(moved)[1]

            def too_long(state: Any) -> Any:
                return xp.logical_not(space.all(xp.logical_or(done, state[2] < norm)))

            def halve(state: Any) -> Any:
                t, _, new = state
                t = xp.where(new < norm, t, 0.5 * t)
                return (t, *trial(t))

            t = xp.ones_like(norm)
            t, moved, new = backend.while_loop(too_long, halve, (t, *trial(t)), max_steps=self.max_halvings)
            better = xp.logical_and(xp.logical_and(new < norm, is_finite(space, moved)), ~done)
            y, norm = space.where(better, moved, y), xp.where(better, new, norm)
            return y, norm, k + xp.astype(better, k.dtype), xp.logical_or(~better, within(y, norm))

        _, norm = measure(init)
        state = (init, norm, space.counts(norm), xp.logical_or(within(init, norm), ~xp.isfinite(norm)))
        state = backend.while_loop(lambda s: xp.logical_not(space.all(s[-1])), step, state, max_steps=self.max_steps)
        y, norm, k, _ = state
        return Solution(y, norm, k, within(y, norm))
