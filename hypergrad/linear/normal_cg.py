"""Conjugate gradients on the normal equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._space import epsilon
from ._base import System
from ._krylov import Krylov
from ._restarts import Cycle

Array = Any
Tree = Any


@dataclass(frozen=True)
class NormalCG(Krylov):
    """Conjugate gradients on AᵀA v = Aᵀ b, the transpose taken in the metric: for any A, about κ(A) steps a digit.

    A step costs two products, one with A and one with Aᵀ. The residual is that of A v = b itself, and falls in every
    step; a preconditioner is not used. Of a singular system without solution it finds a least-squares solution, and
    says not converged. CGNR: Hestenes & Stiefel 1952, §10; Saad 2003, alg. 8.4. Settings: see `Krylov`.
    """

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    def _cycle(self, system: System, r: Tree, goal: Array, budget: Array) -> Cycle:
        space, xp, raise_ = system.space, system.space.backend.xp, system.raise_
        least = (100 * epsilon(goal)) ** 2

        def running(state: Any) -> Array:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, r, z, p, slope, steepest, k, left, active = state
            q = system.apply(p)
            raised = raise_(q)
            alpha = xp.where(active, space.ratio(slope, space.dot(q, raised)), xp.zeros_like(slope))
            v, r, z = space.axpy(alpha, p, v), space.axpy(-alpha, q, r), space.axpy(-alpha, raised, z)
            s = system.transpose(z)
            up = raise_(s)
            new, rest = space.dot(s, up), xp.abs(space.dot(r, z))
            steepest = xp.maximum(steepest, space.ratio(space.dot(raised, raised), space.dot(p, p)))
            p = space.axpy(space.ratio(new, slope), p, up)
            k, left = k + xp.astype(active, k.dtype), xp.where(active, xp.sqrt(rest), left)
            # Aᵀr = 0 to rounding: what is left is orthogonal to the range
            going = xp.logical_and(new > least * steepest * rest, xp.logical_and(left > goal, k < budget))
            return v, r, z, p, new, steepest, k, left, xp.logical_and(active, going)

        z = raise_(r)
        s = system.transpose(z)
        p = raise_(s)
        slope, k, left = space.dot(s, p), space.counts(goal), xp.ones_like(goal)
        active = xp.logical_and(slope > 0, xp.logical_and(left > goal, k < budget))
        state = (space.zeros(p), r, z, p, slope, 0 * slope, k, left, active)
        v, *_, k, left, _ = space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(v, k, left <= goal)
