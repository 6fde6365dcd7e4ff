"""What Krylov methods with restarts have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, final

from .._floats import Floats
from .._settings import require_count, require_number
from .._space import Space
from ..solution import Solution
from ._base import LinearSolver, System
from ._restarts import Cycle, restarted

Tree = Any


@dataclass(frozen=True)
class WithTolerance(LinearSolver):
    """The three settings of Krylov methods: stop where ‖b - A v‖ ≤ max(tol ‖b‖, atol), or after `max_steps` steps."""

    tol: float | None = None
    max_steps: int = 500
    atol: float = 0.0

    def __post_init__(self) -> None:
        require_number(self, "tol", least=0)
        require_number(self, "atol", least=0)
        require_count(self, "max_steps", least=0)

    @property
    @final
    def has_tolerance(self) -> bool:
        """Unless `tol=0`: then `max_steps` steps were asked for."""
        return self.tol != 0


@dataclass(frozen=True)
class Krylov(WithTolerance):
    """A Krylov method that is restarted on what it leaves.

    Stops where ‖b - A v‖ ≤ max(tol ‖b‖, atol). `tol=None` is 10 eps of the dtype, or what rounding and `max_steps` let
    it reach if that is below eps^(3/4), or below √eps where it shrinks no more; no tolerance is taken below 10 eps.
    `tol=0` asks for `max_steps` steps, as far as they make sense, and warns of nothing. The returned residual is
    computed from the answer: one product more.
    """

    @final
    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""

        def method(space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
            return self._cycle(system, space, r, goal, budget)

        return restarted(system, b, guess, method, tol=self.tol, atol=self.atol, max_steps=self.max_steps)

    @abstractmethod
    def _cycle(self, system: System, space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
        """One run, from zero, on the right-hand side r of norm 1; see `_restarts.Method`."""
