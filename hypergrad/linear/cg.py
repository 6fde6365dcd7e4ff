"""The conjugate gradient method in the metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._floats import quick_numbers, to_arrays
from .._space import resolved_tolerance
from ..solution import Solution
from ._base import System
from ._krylov import WithTolerance
from ._relative import helpful

Tree = Any


@dataclass(frozen=True)
class CG(WithTolerance):
    """Conjugate gradients on the Hessian form, preconditioned with `sharp`: this is CG in the metric.

    Where the system brings a preconditioner, it takes the place of `sharp` in the recurrence.
    Stops where ‖b - B v‖ ≤ max(tol ‖b‖, atol), norms of covectors in the metric. `tol=None` is 10 eps of the dtype, and
    no tolerance is taken below that; `tol=0` asks for `max_steps` steps, as far as they make sense, and warns of
    nothing.
    A direction of negative or zero curvature on the way leaves `converged` false: there is no isolated minimum.
    Error after k steps ≤ 2 ((√κ - 1)/(√κ + 1))ᵏ in the energy norm. Hestenes & Stiefel 1952; Saad 2003, alg. 9.1.
    """

    @property
    def needs_self_adjoint(self) -> bool:
        """True."""
        return True

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        whole, apply, raise_ = system.space, system.apply, system.raise_
        xp, space, lift = whole.backend.xp, quick_numbers(whole, b), system.precondition or system.raise_
        start, r = (None, b) if guess is None else helpful(system, b, guess)
        # all is measured in units of the first residual: its square may be 0
        unit = space.unit(r)
        r = space.divide(r, unit)
        p = lift(r)
        rho = space.dot(r, p)
        size = scale = rho if lift is raise_ else space.dot(r, raise_(r))
        if start is not None:
            own = space.unit(b)
            right = space.divide(b, own)
            scale = space.dot(right, raise_(right)) * (own / unit) ** 2
        limit = resolved_tolerance(leaves(b)[0], self.tol) ** 2 * scale
        if self.atol:
            limit = space.larger(limit, (space.constant(self.atol, rho) / unit) ** 2)

        def running(state: Any) -> Any:
            return space.any(state[-1] > limit)

        def step(state: Any) -> Any:
            v, r, p, k, rho, least, size = state
            q = apply(p)
            alpha = space.ratio(rho, space.dot(p, q))
            if space.ndim:
                alpha = xp.where(size > limit, alpha, xp.zeros_like(alpha))
            v, r = space.axpy(alpha, p, v), space.axpy(-alpha, q, r)
            z = lift(r)
            new = space.dot(r, z)
            return (
                v,
                r,
                space.axpy(space.ratio(new, rho), p, z),
                k + (1 if not space.ndim else xp.astype(size > limit, k.dtype)),
                new,
                space.smaller(least, alpha),
                new if lift is raise_ else space.dot(r, raise_(r)),
            )

        state = (whole.zeros(b), r, p, space.counts(rho), rho, space.constant(0.0, rho), size)
        v, _, _, k, _, least, size = whole.backend.while_loop(running, step, state, max_steps=self.max_steps)
        v = space.scale(unit, v) if start is None else space.axpy(unit, v, start)
        good = (least >= 0) & (size <= limit) & space.is_finite(unit * space.root(size))
        return Solution(v, *to_arrays(whole, leaves(b)[0], space.root(size) * unit, k, good))
