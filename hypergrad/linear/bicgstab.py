"""The stabilized biconjugate gradient method."""

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
class BiCGStab(Krylov):
    """Biconjugate gradients with a minimal residual step after each: any A, a handful of vectors, no transpose.

    A step costs two products. Preconditioned from the right. A breakdown (the residual orthogonal to the shadow
    residual, or to its own image) ends a run, and the next begins at what it left; a skew-symmetric A,
    whose residuals are orthogonal to their images, it cannot solve, and says so. van der Vorst 1992; Saad 2003,
    alg. 7.7. Settings: see `Krylov`.
    """

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    def _cycle(self, system: System, r: Tree, goal: Array, budget: Array) -> Cycle:
        space, xp, raise_ = system.space, system.space.backend.xp, system.raise_
        lift, least = system.precondition or raise_, 10 * epsilon(goal)

        def norm(w: Tree) -> Array:
            return xp.sqrt(xp.abs(space.dot(w, raise_(w))))

        # the shadow residual is r, of norm 1, unless that is orthogonal to its image: then any that is not
        image = system.apply(lift(r))
        size = norm(image)
        other = space.axpy(space.ratio(xp.ones_like(size), size), image, r)
        shadow = raise_(space.where(xp.abs(space.dot(image, raise_(r))) > least * size, r, other))

        def running(state: Any) -> Array:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, r, p, rho, k, left, active = state
            up = lift(p)
            q = system.apply(up)
            sigma, zero = space.dot(q, shadow), xp.zeros_like(rho)
            sound = xp.abs(sigma) > least * norm(q)
            alpha = xp.where(xp.logical_and(active, sound), space.ratio(rho, sigma), zero)
            r = space.axpy(-alpha, q, r)
            raised = lift(r)
            t = system.apply(raised)
            tz = raise_(t)
            omega = xp.where(active, space.ratio(space.dot(r, tz), space.dot(t, tz)), zero)
            v = space.axpy(omega, raised, space.axpy(alpha, up, v))
            r = space.axpy(-omega, t, r)
            new, size = space.dot(r, shadow), norm(r)
            beta = space.ratio(new, rho) * space.ratio(alpha, omega)
            p = space.axpy(beta, space.axpy(-omega, q, p), r)
            k, left = k + xp.astype(active, k.dtype), xp.where(active, size, left)
            sound = xp.logical_and(sound, xp.logical_and(xp.abs(new) > least * size, omega != 0))
            going = xp.logical_and(sound, xp.logical_and(left > goal, k < budget))
            return v, r, p, new, k, left, xp.logical_and(active, going)

        k, one = space.counts(goal), xp.ones_like(goal)
        active = xp.logical_and(one > goal, k < budget)
        state = (space.zeros(shadow), r, r, space.dot(r, shadow), k, one, active)
        v, *_, k, left, _ = space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(v, k, left <= goal)
