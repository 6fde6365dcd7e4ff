"""The solver that has nothing to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._space import Space
from ..level import Level
from ..solution import Solution
from ._base import Solver, residual_norm

Tree = Any


@dataclass(frozen=True)
class Given(Solver):
    """The start is the answer: for points that came from elsewhere, and cannot be asked to be better."""

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        norm = residual_norm(backend, level, outer, init, space)
        return Solution(init, norm, space.counts(norm), space.flags(True, norm))
