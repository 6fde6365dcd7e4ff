"""The Neumann series: the fixed-point iteration of the adjoint equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._settings import require_count, require_number
from .._space import epsilon, resolved_tolerance
from ..solution import Solution, is_finite
from ._base import LinearSolver, System
from ._lanczos import extreme_eigenvalues

Tree = Any


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """v = γ Σ_{i < terms} (I - γ H)ⁱ b, H = sharp∘B; for a map v = Σ_{i < terms} (P Jᵀ P)ⁱ b.

    The series of Fan et al. 2025 (alg. 1), of Han et al. 2024 (NS) and of Grazzi et al. 2020 (AID-FP). It stops before
    `terms` where the residual is within `tol`, relative; `tol=None`: 10 eps of the dtype, or below eps^(3/4) where
    rounding lets it shrink no more; `tol=0`: never. By default `terms` is as many as that takes, 5000 at most; a number
    given is what was asked for, and no warning comes of it.
    `step` is γ; None: for a Hessian 2/(h_min + h_max) from ten Lanczos steps, for a map 1. The error shrinks
    like (max |1 - γ h|)ⁱ. A divergent series is returned as it is, with `converged` false.
    """

    terms: int | None = None
    step: float | None = None
    tol: float | None = None

    def __post_init__(self) -> None:
        require_count(self, "terms", least=1)
        require_number(self, "step", above=0)
        require_number(self, "tol", least=0)

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    @property
    def has_tolerance(self) -> bool:
        """Where no number of terms was given, or a tolerance with it."""
        return self.terms is None or bool(self.tol)

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        space, xp = system.space, system.space.backend.xp
        size = space.dot(b, system.raise_(b))
        eps = epsilon(leaves(b)[0])
        goal = resolved_tolerance(leaves(b)[0], self.tol) ** 2 * size
        enough = eps**1.5 * size if self.tol is None else goal
        gamma = self._step(system, b, size)
        start, r = (space.zeros(b), b) if guess is None else (guess, space.subtract(b, system.apply(guess)))

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            v, r, z, k, rho, done = state
            moved = space.axpy(gamma, z, v)
            left = space.subtract(b, system.apply(moved))
            raised = system.raise_(left)
            new = space.dot(left, raised)
            finite = xp.logical_and(is_finite(space, moved), xp.isfinite(new))
            at_floor = xp.logical_and(rho <= enough, new >= rho)
            taken = xp.logical_and(finite, ~xp.logical_or(done, at_floor))
            v, r, z = (space.where(taken, a, b) for a, b in ((moved, v), (left, r), (raised, z)))
            rho = xp.where(xp.logical_or(taken, ~xp.logical_or(finite, done)), new, rho)
            done = xp.logical_or(xp.logical_or(done, ~taken), rho <= goal)
            return v, r, z, k + xp.astype(taken, k.dtype), rho, done

        z = system.raise_(r)
        rho = space.dot(r, z)
        state = (start, r, z, space.counts(size), rho, xp.logical_or(rho <= goal, ~xp.isfinite(rho)))
        terms = 5000 if self.terms is None else self.terms
        v, _, _, k, rho, _ = space.backend.while_loop(running, step, state, max_steps=terms)
        return Solution(v, xp.sqrt(xp.abs(rho)), k, rho <= enough)

    def _step(self, system: System, b: Tree, size: Any) -> Any:
        xp = system.space.backend.xp
        if self.step is not None or not system.self_adjoint:
            return xp.full_like(size, 1.0 if self.step is None else self.step)
        low, high = extreme_eigenvalues(system, b, steps=10)
        return system.space.ratio(xp.full_like(size, 2.0), xp.maximum(low, xp.zeros_like(low)) + high)
