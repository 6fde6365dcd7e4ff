"""Riemannian nonlinear conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...backends import Backend
from .._settings import require_count, require_kind, require_number
from .._space import Space
from ..level import Level
from ..solution import Solution
from ._base import Solver, require_argmin
from ._descent import descend
from ._measured import Measured
from ._parts import entry, stack
from .beta import BetaRule, PolakRibiere, Products
from .wolfe import Wolfe, wolfe

Array = Any
Tree = Any


class _Direction(NamedTuple):
    """The direction p, ⟨grad, p⟩, ‖p‖², the first trial along it, whether it is the steepest descent, |cost| at the
    start.
    """

    p: Tree
    slope: Array
    length: Array
    t: Array
    steepest: Array
    first: Array


@dataclass(frozen=True)
class NonlinearCG(Solver):
    """p₊ = -grad₊ + β T p, y ← R_y(t p), with β by one of five rules and t by the strong Wolfe conditions.

    `beta`: `PolakRibiere()` (default), `HestenesStiefel()`, `FletcherReeves()`, `DaiYuan()` or `HagerZhang()`. p is
    the steepest descent again where it does not descend, where the search fails, and where successive gradients are far
    from orthogonal, |⟨grad₊, T grad⟩| ≥ `restart` ‖grad₊‖² (Powell 1977; None: never). Converges as `GradientDescent`
    says; one gradient for each trial of the search. Absil, Mahony & Sepulchre 2008, §8.3; Sato 2022.
    """

    beta: BetaRule = field(default_factory=PolakRibiere)
    tol: float | None = None
    max_steps: int = 5000
    search: Wolfe = field(default_factory=lambda: Wolfe(curvature=0.3))
    restart: float | None = 0.2

    def __post_init__(self) -> None:
        require_kind(self, "beta", BetaRule)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)
        require_kind(self, "search", Wolfe)
        require_number(self, "restart", above=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp

        def begin(at: Measured) -> _Direction:
            p = space.scale(-xp.ones_like(at.norm), at.gradient)
            return _Direction(p, -at.slope, at.slope, cautious(at), space.flags(True, at.norm), xp.abs(at.value))

        def cautious(at: Measured) -> Array:
            return 1 / xp.maximum(at.norm, xp.ones_like(at.norm))

        def advance(at: Measured, last: _Direction, done: Array) -> tuple[Measured, _Direction, Array, Array]:
            size = xp.maximum(last.first, xp.abs(at.value))
            t, new, found, met = wolfe(
                self.search, level, outer, space, at, last.p, slope=last.slope, size=size, t=last.t, skip=done
            )
            moved = manifold.transport(at.point, new.point, stack(backend, last.p, at.gradient))
            along, carried = (space.dot(new.covector, entry(moved, i)) for i in (0, 1))
            products = Products(at.slope, last.slope, last.length, new.slope, carried, along)
            beta = self.beta.beta(space, products)
            beta = xp.where(xp.logical_and(met, xp.isfinite(beta)), beta, xp.zeros_like(beta))
            if self.restart is not None:
                beta = xp.where(xp.abs(carried) >= self.restart * new.slope, xp.zeros_like(beta), beta)
            beta = xp.where(beta * along < new.slope, beta, xp.zeros_like(beta))
            plain = beta == 0
            p = space.subtract(space.scale(beta, entry(moved, 0)), new.gradient)
            slope = beta * along - new.slope
            length = new.slope - 2 * beta * along + beta**2 * last.length
            trial_t = xp.where(found, xp.minimum(space.ratio(t * last.slope, slope), 10 * t), cautious(new))
            over = xp.logical_and(~met, last.steepest)
            return new, _Direction(p, slope, length, trial_t, plain, last.first), found, over

        return descend(backend, level, outer, init, space, self.tol, self.max_steps, begin, advance, searched=True)
