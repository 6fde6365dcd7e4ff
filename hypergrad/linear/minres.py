"""The minimal residual method for self-adjoint operators."""

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

    def _cycle(self, system: System, space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
        raise_, zeros = system.raise_, system.space.zeros
        lift, least = system.precondition or raise_, 100 * epsilon(leaves(r)[0])
        zero, one = space.constant(0.0, goal), space.constant(1.0, goal)

        def paired(factor: Any, w: Tree, z: Tree) -> tuple[Tree, Tree]:
            w, same = space.scale(factor, w), w is z
            return w, w if same else space.scale(factor, z)

        def running(state: Any) -> Any:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, k, (old, w, z), (d1, d2), rest, (beta, cos, sin, bar, below, phi, largest), left, active = state
            image = space.axpy(-beta, old, system.apply(z))  # Lanczos: w, z is the pair of covector and vector
            alpha = space.dot(image, z)
            image = space.axpy(-alpha, w, image)
            raised = lift(image)
            after = space.root(space.dot(image, raised))
            # one more column of the tridiagonal matrix, reflected; the diagonal of R is `gamma`
            delta, gbar = cos * bar + sin * alpha, sin * bar - cos * alpha
            bar, upper, below = -cos * after, below, sin * after
            gamma, root = space.hypot(gbar, after), space.hypot(gbar, bar)
            largest = space.larger(largest, space.hypot(space.hypot(alpha, beta), after))
            active = active & (root > least * largest)  # else A r = 0 to rounding: least squares
            inverse = space.ratio(one, gamma)
            cos, sin = gbar * inverse, after * inverse
            direction = space.axpy(-upper, d2, space.axpy(-delta, d1, z))
            direction = space.scale(inverse, direction)
            v = space.axpy(space.select(active, cos * phi, zero), direction, v)
            phi = sin * phi
            new, up = paired(space.ratio(one, after), image, raised)
            if lift is raise_:
                size = phi
            else:
                rest = space.axpy(-phi * cos, new, space.scale(sin * sin, rest))
                size = space.root(space.dot(rest, raise_(rest)))
            left = space.select(active, abs(size), left)
            k = space.tally(k, active)
            active = active & (left > goal) & (k < budget)
            numbers = (after, cos, sin, bar, below, phi, largest)
            return v, k, (w, new, up), (direction, d1), rest, numbers, left, active

        z = lift(r)
        norm = space.root(space.dot(r, z))
        nothing, empty, k = zeros(z), zeros(r), space.counts(norm)
        state = (
            nothing,
            k,
            (empty, *paired(space.ratio(one, norm), r, z)),
            (nothing, nothing),
            r if lift is not raise_ else (),
            (zero, -one, zero, zero, zero, norm, zero),
            one,
            (one > goal) & (k < budget),
        )
        v, k, *_, left, _ = system.space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(v, k, left <= goal)
