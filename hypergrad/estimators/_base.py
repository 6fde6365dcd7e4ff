"""What an estimator is: a way to differentiate a solution map, separate from how the solution is had."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ...backends import Backend
from .._space import Space
from ..level import Level
from ..solution import Solution
from ..solvers import Solver

Tree = Any
#: (cotangent of the answer, first guess of the adjoint) -> cotangents of the outer variables, the adjoint solve
Pull = Callable[[Tree, Tree | None], tuple[tuple[Tree, ...], Solution | None]]


class Estimator(ABC):
    """A way to differentiate outer ↦ y*(outer)."""

    @abstractmethod
    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """The answer, differentiable in `outer` and in what the level's function captured."""

    @abstractmethod
    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """The answer for constant `outer`, and the transpose of its derivative as a function to call."""
