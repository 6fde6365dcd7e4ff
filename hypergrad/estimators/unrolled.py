"""The derivative through the steps of a solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._settings import require_count
from .._space import Space
from ..level import Level
from ..solution import Solution
from ..solvers import Solver, Unrollable
from ._base import Estimator, Pull

Tree = Any


@dataclass(frozen=True)
class Unrolled(Estimator):
    """Differentiate through `steps` steps of the solver, from `init`, whose own derivative counts too (ITD, AD).

    The solver must have steps to unroll: `GradientDescent` (step lengths are constants) or `Picard`.
    """

    steps: int

    def __post_init__(self) -> None:
        require_count(self, "steps", least=0)

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`. Raises `TypeError` for a solver without steps."""
        if not isinstance(solver, Unrollable):
            raise TypeError(
                f"Unrolled goes back through the steps of a solver; {type(solver).__name__} has none to differentiate: "
                "use GradientDescent() or Picard(), or the estimator Implicit()"
            )
        found = solver.unroll(backend, level, outer, init, space, self.steps)
        rest = backend.stop_gradient(tuple(found[1:]))
        return Solution(found.value, *rest)

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        rest: list[tuple] = []

        def run(*outer: Tree) -> Tree:
            found = self.solution(backend, level, solver, outer, init, space)
            rest.append(tuple(found[1:]))
            return found.value

        y, pull_outer = backend.vjp(run, *outer)
        return Solution(y, *rest[0]), lambda cotangent, guess: (pull_outer(cotangent), None)
