"""The conjugate gradient method in the metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._settings import require_count, require_number
from .._space import resolved_tolerance
from ..solution import Solution
from ._base import LinearSolver, System

Tree = Any


@dataclass(frozen=True)
class CG(LinearSolver):
    """Conjugate gradients on the Hessian form, preconditioned with `sharp`: this is CG in the metric.

    Stops where ‖b - B v‖ ≤ max(tol ‖b‖, atol), norms of covectors in the metric. `tol=None` is 10 eps of the dtype, and
    no tolerance but 0, which never stops, is taken below that.
    A direction of negative or zero curvature on the way leaves `converged` false: there is no isolated minimum.
    Error after k steps ≤ 2 ((√κ - 1)/(√κ + 1))ᵏ in the energy norm. Hestenes & Stiefel 1952; Saad 2003, alg. 9.1.
    """

    tol: float | None = None
    max_steps: int = 500
    atol: float = 0.0

    def __post_init__(self) -> None:
        require_number(self, "tol", least=0)
        require_number(self, "atol", least=0)
        require_count(self, "max_steps", least=0)

    @property
    def needs_self_adjoint(self) -> bool:
        """True."""
        return True

    @property
    def has_tolerance(self) -> bool:
        """Unless `tol=0`: then exactly `max_steps` steps were asked for."""
        return self.tol != 0

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        space, apply, raise_ = system.space, system.apply, system.raise_
        xp = space.backend.xp
        start, r = (space.zeros(b), b) if guess is None else (guess, space.subtract(b, apply(guess)))
        z = raise_(r)
        rho = space.dot(r, z)
        scale = rho if guess is None else space.dot(b, raise_(b))
        tol = resolved_tolerance(leaves(b)[0], self.tol)
        limit = xp.maximum(tol**2 * scale, space.full(self.atol**2, rho))

        def running(state: Any) -> Any:
            return space.any(state[4] > limit)

        def step(state: Any) -> Any:
            v, r, p, k, rho, least = state
            q = apply(p)
            alpha = space.ratio(rho, space.dot(p, q))
            if space.ndim:
                alpha = xp.where(rho > limit, alpha, xp.zeros_like(alpha))
            v, r = space.axpy(alpha, p, v), space.axpy(-alpha, q, r)
            z = raise_(r)
            new = space.dot(r, z)
            p = space.axpy(space.ratio(new, rho), p, z)
            return (
                v,
                r,
                p,
                k + (1 if not space.ndim else xp.astype(rho > limit, k.dtype)),
                new,
                xp.minimum(least, alpha),
            )

        state = (start, r, z, space.counts(rho), rho, xp.zeros_like(rho))
        v, _, _, k, rho, least = space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Solution(v, xp.sqrt(xp.abs(rho)), k, xp.logical_and(least >= 0, rho <= limit))
