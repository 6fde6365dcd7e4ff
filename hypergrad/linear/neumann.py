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
from ._relative import covector_norm, direction_and_norm, relative

Tree = Any


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """v = γ Σ_{i < terms} (I - γ H)ⁱ b, H = sharp∘B; for a map v = Σ_{i < terms} (P Jᵀ P)ⁱ b.

    The series of Fan et al. 2025 (alg. 1), of Han et al. 2024 (NS) and of Grazzi et al. 2020 (AID-FP). It stops before
    `terms` where the residual is within `tol`, relative; `tol=None`: 10 eps of the dtype, or below eps^(3/4) where
    rounding lets it shrink no more; `tol=0`: 10 eps too, and no warning. By default `terms` is as many as that takes,
    5000 at most; a number given is what was asked for, and no warning comes of it.
    `step` is γ; None: for a symmetric operator 2/(h_min + h_max) from ten Lanczos steps, ten products more, and
    reduced by a tenth where the residual grows all the same; for a map it is 1. The error shrinks like
    (max |1 - γ h|)ⁱ. For a `Root` that is not symmetric nothing is estimated and γ is 1 too: the series then converges
    only if all eigenvalues of the derivative lie within 1 of 1; give a step, or take another solver.
    A preconditioner M, where the system has one, stands before every residual: v ← v + γ M (b - B v).
    A divergent series ends at its last finite value, with `converged` false.
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
        scaled = relative(system, b, guess)
        b = scaled.b
        size = covector_norm(system, b, system.raise_(b))
        goal = resolved_tolerance(leaves(b)[0], self.tol) * size
        enough = epsilon(size) ** 0.75 * size if self.tol is None else goal
        estimated = self.step is None and system.self_adjoint

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            v, z, gamma, energy, k, norm, done = state
            moved = space.axpy(gamma, z, v)
            left = space.subtract(b, system.apply(moved))
            onward, new = direction_and_norm(system, left)
            finite = xp.logical_and(is_finite(space, moved), xp.isfinite(new))
            at_floor = xp.logical_and(norm <= enough, new >= norm)
            taken = xp.logical_and(finite, ~xp.logical_or(done, at_floor))
            if estimated:
                # r · M r grows only if γ h > 2 for some h: one that the Lanczos run has not seen
                now = space.dot(left, onward)
                gamma = xp.where(xp.logical_and(taken, now > energy), 0.9 * gamma, gamma)
                energy = xp.where(taken, now, energy)
            v, z = space.where(taken, moved, v), space.where(taken, onward, z)
            norm = xp.where(taken, new, norm)
            done = xp.logical_or(xp.logical_or(done, ~taken), norm <= goal)
            return v, z, gamma, energy, k + xp.astype(taken, k.dtype), norm, done

        z, norm = direction_and_norm(system, scaled.r)
        gamma, energy = self._step(system, b, size), space.dot(scaled.r, z)
        done = xp.logical_or(norm <= goal, ~xp.isfinite(norm))
        state = (scaled.start, z, gamma, energy, space.counts(size), norm, done)
        terms = 5000 if self.terms is None else self.terms
        v, _, _, _, k, norm, _ = space.backend.while_loop(running, step, state, max_steps=terms)
        return scaled.solution(space, v, norm, k, norm <= enough)

    def _step(self, system: System, b: Tree, size: Any) -> Any:
        xp = system.space.backend.xp
        if self.step is not None or not system.self_adjoint:
            return xp.full_like(size, 1.0 if self.step is None else self.step)
        low, high = extreme_eigenvalues(system, b)
        return system.space.ratio(xp.full_like(size, 2.0), xp.maximum(low, xp.zeros_like(low)) + high)
