"""No solve at all: the operator taken for a multiple of the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._settings import require_number
from .._space import epsilon
from ..solution import Solution
from ._base import LinearSolver, System
from ._relative import covector_norm, direction_and_norm, relative

Tree = Any


@dataclass(frozen=True)
class Identity(LinearSolver):
    """v = scale · raise_(b) for a Hessian, v = scale · b else: T1-T2 of Luketina et al. 2016, Jacobian-free for a map.

    A preconditioner of the system, where there is one, takes the place of raise_. One product, for the residual, which
    is the true one: it says how far from the answer this is. There is no tolerance to miss, so no warning;
    `converged` is ‖b - B v‖ ≤ √eps ‖b‖. `scale` is best near 1/h for eigenvalues near h.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require_number(self, "scale", above=0)

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    @property
    def has_tolerance(self) -> bool:
        """False: whatever comes out was asked for."""
        return False

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`. `guess` is not needed."""
        space = system.space
        scaled = relative(system, b)
        z, size = direction_and_norm(system, scaled.b)
        v = space.scale(space.full(self.scale, size), z)
        r = space.subtract(scaled.b, system.apply(v))
        norm = covector_norm(system, r, system.raise_(r))
        return scaled.solution(space, v, norm, space.counts(size) + 1, norm <= epsilon(size) ** 0.5 * size)
