"""The Neumann series: the fixed-point iteration of the adjoint equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._space import epsilon
from ..solution import Solution, is_finite
from ._base import LinearSolver, System
from ._lanczos import extreme_eigenvalues

Tree = Any


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """v = γ Σ_{i < terms} (I - γ H)ⁱ b, H = sharp∘B; for a map v = Σ_{i < terms} (P Jᵀ P)ⁱ b.

    The series of Fan et al. 2025 (alg. 1), of Han et al. 2024 (NS) and of Grazzi et al. 2020 (AID-FP). It stops before
    `terms` where the residual is within `tol`, relative; `tol=None` is 10 eps of the dtype, `tol=0` never.
    `step` is γ; None: for a Hessian 2/(h_min + h_max) from ten Lanczos steps, for a map 1. The error shrinks
    like (max |1 - γ h|)ⁱ. A divergent series is returned as it is, with `converged` false.
    """

    terms: int = 1000
    step: float | None = None
    tol: float | None = None

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    @property
    def has_tolerance(self) -> bool:
        """Where `tol` was given: by default the number of terms is what was asked for."""
        return bool(self.tol)

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        space, xp = system.space, system.space.backend.xp
        size = space.dot(b, system.raise_(b))
        tol = 10 * epsilon(leaves(b)[0]) if self.tol is None else self.tol
        limit = tol**2 * size
        gamma = self._step(system, b, size)
        start, r = (space.zeros(b), b) if guess is None else (guess, space.subtract(b, system.apply(guess)))

        def running(state: Any) -> Any:
            return space.any(xp.logical_and(state[4] > limit, xp.isfinite(state[4])))

        def step(state: Any) -> Any:
            v, r, z, k, rho = state
            moved = space.axpy(gamma, z, v)
            left = space.subtract(b, system.apply(moved))
            raised = system.raise_(left)
            new = space.dot(left, raised)
            wanted = xp.logical_and(rho > limit, xp.isfinite(rho))
            taken = xp.logical_and(wanted, xp.logical_and(is_finite(space, moved), xp.isfinite(new)))
            v, r, z = (space.where(taken, a, b) for a, b in ((moved, v), (left, r), (raised, z)))
            rho = xp.where(wanted, new, rho)
            return v, r, z, k + xp.astype(taken, k.dtype), rho

        z = system.raise_(r)
        state = (start, r, z, space.counts(size), space.dot(r, z))
        v, _, _, k, rho = space.backend.while_loop(running, step, state, max_steps=self.terms)
        return Solution(v, xp.sqrt(xp.abs(rho)), k, rho <= limit)

    def _step(self, system: System, b: Tree, size: Any) -> Any:
        xp = system.space.backend.xp
        if self.step is not None or not system.self_adjoint:
            return xp.full_like(size, 1.0 if self.step is None else self.step)
        low, high = extreme_eigenvalues(system, b, steps=10)
        return system.space.ratio(xp.full_like(size, 2.0), xp.maximum(low, xp.zeros_like(low)) + high)
