"""How the derivative of a solution map is had: values, separate from how the solution is had."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backends import Backend
from ..backends._trees import tree_map
from ._settings import require_count, require_kind
from ._space import Space
from ._system import solve_system, tangent_system
from .implicit import implicit_solution, opened
from .level import FixedPoint, Level
from .linear import CG, Dense, LinearSolver, Neumann
from .solution import Solution
from .solvers import Solver, Unrollable

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


@dataclass(frozen=True)
class Implicit(Estimator):
    """The implicit function theorem, with one linear solve (see `implicit.py`).

    `linear`: by default `CG()` where the derivative is symmetric, the fixed-point series for a `FixedPoint`,
    `Dense()` for a `Root`. Derivatives of higher order are those of the true solution map also where the first is
    truncated (`Neumann(terms)`, `CG(max_steps=…)`).
    """

    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`."""
        linear, init = self._linear_for(level), backend.stop_gradient(init)
        level_at, captured = opened(backend, level, outer, init)
        plain_captured, plain_outer = backend.stop_gradient((captured, outer))
        plain = level_at(plain_captured)
        with backend.constants():
            found = Solution(*backend.stop_gradient(tuple(solver.solve(backend, plain, plain_outer, init, space))))
        y = implicit_solution(backend, level_at, linear, space, (captured, outer), found.value)
        return found._replace(value=y)

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        linear, manifold = self._linear_for(level), level.manifold
        found = solver.solve(backend, level, outer, init, space)
        y = found.value

        def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], Solution]:
            system = tangent_system(backend, level, outer, y, space, transpose=True)
            adjoint = solve_system(linear, system, manifold.project(y, cotangent), guess)
            _, pull_outer = backend.vjp(lambda *o: level.residual(backend, o, y), *outer)
            return tuple(tree_map(lambda a: -a, t) for t in pull_outer(adjoint.value)), adjoint

        return found, pull

    def has_tolerance_for(self, level: Level) -> bool:
        """Whether the linear solve was asked to reach a tolerance (else it was asked for a number of steps)."""
        return self._linear_for(level).has_tolerance

    def _linear_for(self, level: Level) -> LinearSolver:
        if self.linear is None:
            if level.self_adjoint:
                return CG()
            return Neumann() if isinstance(level, FixedPoint) else Dense()
        if self.linear.needs_self_adjoint and not level.self_adjoint:
            raise TypeError(
                f"{type(self.linear).__name__} needs a symmetric operator; the derivative of a {type(level).__name__} "
                "is not known to be one: use Implicit(Neumann()) or Implicit(Dense())"
            )
        return self.linear


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
