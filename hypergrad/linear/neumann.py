"""The Neumann series: the fixed-point iteration of the adjoint equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._floats import from_arrays, quick_numbers, to_arrays
from .._settings import require_count, require_number
from .._space import epsilon, resolved_tolerance
from ..solution import Solution
from ._base import LinearSolver, System
from ._lanczos import extreme_eigenvalues
from ._relative import relative

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
        whole, apply, raise_ = system.space, system.apply, system.raise_
        space, scaled = quick_numbers(whole, b), relative(system, b, guess)
        b, lift = scaled.b, system.precondition
        size = space.root(space.dot(b, raise_(b)))
        goal = resolved_tolerance(leaves(b)[0], self.tol) * size
        enough = epsilon(leaves(b)[0]) ** 0.75 * size if self.tol is None else goal
        estimated = self.step is None and system.self_adjoint

        def measured(r: Tree) -> tuple[Tree, Any]:
            """The preconditioned residual, and the norm of r in the metric."""
            raised = raise_(r)
            return raised if lift is None else lift(r), space.root(space.dot(r, raised))

        def running(state: Any) -> Any:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, z, gamma, energy, k, norm, going = state
            moved = space.axpy(gamma, z, v)
            left = space.subtract(b, apply(moved))
            onward, new = measured(left)
            at_floor = (norm <= enough) & (new >= norm)
            taken = going & space.is_finite(new) & space.negated(at_floor)
            if estimated:
                # r · M r grows only if γ h > 2 for some h: one that the Lanczos run has not seen
                now = space.dot(left, onward)
                gamma = space.select(taken & (now > energy), 0.9 * gamma, gamma)
                energy = space.select(taken, now, energy)
            v, z, norm = space.where(taken, moved, v), space.where(taken, onward, z), space.select(taken, new, norm)
            return v, z, gamma, energy, space.tally(k, taken), norm, taken & (norm > goal)

        z, norm = measured(scaled.r)
        (gamma,) = from_arrays(space, self._step(system, b))
        going = (norm > goal) & space.is_finite(norm)
        state = (scaled.start, z, gamma, space.dot(scaled.r, z), space.counts(norm), norm, going)
        terms = 5000 if self.terms is None else self.terms
        v, _, _, _, k, norm, _ = whole.backend.while_loop(running, step, state, max_steps=terms)
        return scaled.solution(whole, v, *to_arrays(whole, leaves(b)[0], norm, k, norm <= enough))

    def _step(self, system: System, b: Tree) -> Any:
        space, xp, like = system.space, system.space.backend.xp, system.space.zero(leaves(b)[0])
        if self.step is not None or not system.self_adjoint:
            return space.full(1.0 if self.step is None else self.step, like)
        low, high = extreme_eigenvalues(system, b)
        return space.ratio(xp.full_like(high, 2.0), xp.maximum(low, xp.zeros_like(low)) + high)
