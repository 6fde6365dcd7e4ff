"""The minimal residual method for self-adjoint operators."""

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
class MINRES(Krylov):
    """The smallest residual over the Krylov space of a self-adjoint operator, which may be indefinite: in the metric.

    One product a step, a handful of vectors. A preconditioner must be positive; the residual that falls in every step
    is then the one in its norm. Of a singular system without solution it finds a least-squares
    solution, and says not converged. Paige & Saunders 1975, §6; Choi, Paige & Saunders 2011. Settings: see `Krylov`.
    """

    @property
    def needs_self_adjoint(self) -> bool:
        """True."""
        return True

    def _cycle(self, system: System, r: Tree, goal: Array, budget: Array) -> Cycle:
        space, xp, raise_ = system.space, system.space.backend.xp, system.raise_
        lift, least = system.precondition or raise_, 100 * epsilon(goal)

        def running(state: Any) -> Array:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, k, (old, w, z), (d1, d2), rest, (beta, cos, sin, bar, below, phi, largest), left, active = state
            image = space.axpy(-beta, old, system.apply(z))  # Lanczos: w, z is the pair of covector and vector
            alpha = space.dot(image, z)
            image = space.axpy(-alpha, w, image)
            raised = lift(image)
            after = xp.sqrt(xp.abs(space.dot(image, raised)))
            # one more column of the tridiagonal matrix, reflected; the diagonal of R is `gamma`
            delta, gbar = cos * bar + sin * alpha, sin * bar - cos * alpha
            bar, upper, below = -cos * after, below, sin * after
            gamma, root = xp.hypot(gbar, after), xp.hypot(gbar, bar)
            largest = xp.maximum(largest, xp.hypot(xp.hypot(alpha, beta), after))
            active = xp.logical_and(active, root > least * largest)  # else A r = 0 to rounding: least squares
            cos, sin = space.ratio(gbar, gamma), space.ratio(after, gamma)
            direction = space.axpy(-upper, d2, space.axpy(-delta, d1, z))
            direction = space.scale(space.ratio(xp.ones_like(gamma), gamma), direction)
            v = space.axpy(xp.where(active, cos * phi, xp.zeros_like(phi)), direction, v)
            phi = sin * phi
            inverse = space.ratio(xp.ones_like(after), after)
            new, up = space.scale(inverse, image), space.scale(inverse, raised)
            if lift is raise_:
                size = phi
            else:
                rest = space.axpy(-phi * cos, new, space.scale(sin**2, rest))
                size = xp.sqrt(xp.abs(space.dot(rest, raise_(rest))))
            left = xp.where(active, xp.abs(size), left)
            k = k + xp.astype(active, k.dtype)
            active = xp.logical_and(active, xp.logical_and(left > goal, k < budget))
            numbers = (after, cos, sin, bar, below, phi, largest)
            return v, k, (w, new, up), (direction, d1), rest, numbers, left, active

        z = lift(r)
        norm = xp.sqrt(xp.abs(space.dot(r, z)))
        inverse, zero, one = space.ratio(xp.ones_like(norm), norm), xp.zeros_like(norm), xp.ones_like(norm)
        nothing, empty = space.zeros(z), space.zeros(r)
        k = space.counts(norm)
        state = (
            nothing,
            k,
            (empty, space.scale(inverse, r), space.scale(inverse, z)),
            (nothing, nothing),
            r if lift is not raise_ else (),
            (zero, -one, zero, zero, zero, norm, zero),
            one,
            xp.logical_and(one > goal, k < budget),
        )
        v, k, *_, left, _ = space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(v, k, left <= goal)
