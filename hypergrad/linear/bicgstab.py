"""The stabilized biconjugate gradient method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._floats import Floats
from .._space import Space, epsilon
from ._base import System
from ._krylov import Krylov
from ._restarts import Cycle

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

    def _cycle(self, system: System, space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
        raise_, zero, one = system.raise_, space.constant(0.0, goal), space.constant(1.0, goal)
        lift, least = system.precondition or raise_, 10 * epsilon(leaves(r)[0])

        def norm(w: Tree) -> Any:
            return space.root(space.dot(w, raise_(w)))

        # the shadow residual is r, of norm 1, unless that is orthogonal to its image: then any that is not
        image = system.apply(lift(r))
        size = norm(image)
        usable = space.select(abs(space.dot(image, raise_(r))) > least * size, zero, one)
        shadow = raise_(space.axpy(usable * space.ratio(one, size), image, r))

        def running(state: Any) -> Any:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, r, p, rho, k, left, active = state
            up = lift(p)
            q = system.apply(up)
            sigma = space.dot(q, shadow)
            sound = abs(sigma) > least * norm(q)
            alpha = space.select(active & sound, space.ratio(rho, sigma), zero)
            r = space.axpy(-alpha, q, r)
            raised = lift(r)
            t = system.apply(raised)
            tz = raise_(t)
            omega = space.select(active, space.ratio(space.dot(r, tz), space.dot(t, tz)), zero)
            v = space.axpy(omega, raised, space.axpy(alpha, up, v))
            r = space.axpy(-omega, t, r)
            new, size = space.dot(r, shadow), norm(r)
            beta = space.ratio(new, rho) * space.ratio(alpha, omega)
            p = space.axpy(beta, space.axpy(-omega, q, p), r)
            k, left = space.tally(k, active), space.select(active, size, left)
            going = sound & (abs(new) > least * size) & (omega != 0) & (left > goal) & (k < budget)
            return v, r, p, new, k, left, active & going

        k = space.counts(goal)
        state = (system.space.zeros(shadow), r, r, space.dot(r, shadow), k, one, (one > goal) & (k < budget))
        v, *_, k, left, _ = system.space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(v, k, left <= goal)
