"""Conjugate gradients on the normal equations."""

from __future__ import annotations

import math
from collections.abc import Callable
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

    def _cycle(self, system: System, space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
        raise_, zero, one = system.raise_, space.constant(0.0, goal), space.constant(1.0, goal)
        least = (100 * epsilon(leaves(r)[0])) ** 2

        def running(state: Any) -> Any:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            v, r, z, p, slope, steepest, k, left, active = state
            q = space.divide(system.apply(p), unit)
            raised = raise_(q)
            squared = space.dot(q, raised)
            alpha = space.select(active, space.ratio(slope, squared), zero)
            v, r, same = space.axpy(alpha, p, v), space.axpy(-alpha, q, r), z is r
            z = r if same else space.axpy(-alpha, raised, z)
            s = space.divide(system.transpose(z), unit)
            up = raise_(s)
            new, rest = space.dot(s, up), abs(space.dot(r, z))
            long = squared if same else space.dot(raised, raised)
            steepest = space.larger(steepest, space.ratio(long, space.dot(p, p)))
            p = space.axpy(space.ratio(new, slope), p, up)
            k, left = space.tally(k, active), space.select(active, space.root(rest), left)
            # Aᵀr = 0 to rounding: what is left is orthogonal to the range
            going = (new > least * steepest * rest) & (left > goal) & (k < budget)
            return v, r, z, p, new, steepest, k, left, active & going

        z = raise_(r)
        s = system.transpose(z)
        unit = _size(raise_, space, s)  # A is measured in it: squares of squares of A are taken
        s = space.divide(s, unit)
        p = raise_(s)
        slope, k = space.dot(s, p), space.counts(goal)
        active = (slope > 0) & (one > goal) & (k < budget)
        state = (system.space.zeros(p), r, z, p, slope, zero, k, one, active)
        v, *_, k, left, _ = system.space.backend.while_loop(running, step, state, max_steps=self.max_steps)
        return Cycle(space.divide(v, unit), k, left <= goal)


def _size(raise_: Callable[[Tree], Tree], space: Space | Floats, s: Tree) -> Any:
    """The norm of a covector without its square; 1 for what is 0 or not finite."""
    largest = space.unit(s)
    s = space.divide(s, largest)
    size = largest * space.root(space.dot(s, raise_(s)))
    return space.select((size > 0) & (size < math.inf), size, space.constant(1.0, size))
