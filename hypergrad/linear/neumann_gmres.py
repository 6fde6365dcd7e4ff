"""The fixed-point series while it contracts, GMRES where it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._settings import require_count, require_number
from .._space import resolved_tolerance
from ..solution import Solution, is_finite
from ._base import LinearSolver, System
from .gmres import GMRES

Array = Any
Tree = Any


@dataclass(frozen=True)
class NeumannGMRES(LinearSolver):
    """v ← v + (b - A v) as long as every step leaves at most `contraction` of the residual; GMRES from there.

    For A = I - J the series Σ Jⁱ b of a map that contracts: a step is one product and two additions. Where the residual
    shrinks more slowly, or grows, GMRES goes on from where it was smallest: with the same number of products, none
    is better. A step costs one product in both, at most `max_steps` of each. Other settings: see `GMRES`.
    """

    contraction: float = 0.5
    tol: float | None = None
    max_steps: int = 500
    atol: float = 0.0
    restart: int | None = None

    def __post_init__(self) -> None:
        require_number(self, "contraction", above=0, below=1)
        require_number(self, "tol", least=0)
        require_number(self, "atol", least=0)
        require_count(self, "max_steps", least=0)
        require_count(self, "restart", least=1)

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    @property
    def has_tolerance(self) -> bool:
        """Unless `tol=0`: then `max_steps` steps were asked for."""
        return self.tol != 0

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        space, xp = system.space, system.space.backend.xp
        unit = space.unit(b)
        right = space.divide(b, unit)
        start = space.zeros(b)
        r, size = right, space.dot(right, system.raise_(right))
        if guess is not None:
            offered = space.divide(guess, unit)
            r = space.subtract(right, system.apply(offered))
            rho = space.dot(r, system.raise_(r))
            helps = rho < size
            start, r = space.where(helps, offered, start), space.where(helps, r, right)
        rho = space.dot(r, system.raise_(r))
        goal = resolved_tolerance(leaves(b)[0], self.tol) ** 2 * size
        goal = xp.maximum(goal, (space.full(self.atol, size) / unit) ** 2)

        def running(state: Any) -> Array:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, r, rho, k, active = state
            raised = system.raise_(r)
            moved, left = space.add(v, raised), space.subtract(r, system.apply(raised))
            new = space.dot(left, system.raise_(left))
            finite = xp.logical_and(is_finite(space, moved), xp.isfinite(new))
            taken = xp.logical_and(active, xp.logical_and(finite, new < rho))
            v, r = space.where(taken, moved, v), space.where(taken, left, r)
            k = k + xp.astype(active, k.dtype)
            active = xp.logical_and(taken, xp.logical_and(new <= self.contraction**2 * rho, new > goal))
            return v, r, xp.where(taken, new, rho), k, active

        state = (start, r, rho, space.counts(rho), rho > goal)
        v, _, _, k, _ = space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        rest = GMRES(tol=self.tol, max_steps=self.max_steps, atol=self.atol, restart=self.restart)
        found = rest.solve(system, b, space.scale(unit, v))
        return found._replace(steps=found.steps + k)
