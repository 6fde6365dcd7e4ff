"""The derivative by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from ...backends._trees import tree_map
from .._implicit_rule import implicit_solution, opened
from .._settings import require_kind
from .._space import Space
from .._system import solve_system, tangent_system
from ..level import FixedPoint, Level
from ..linear import CG, Dense, LinearSolver, Neumann
from ..solution import Solution
from ..solvers import Solver
from ._base import Estimator, Pull

Tree = Any


@dataclass(frozen=True)
class Implicit(Estimator):
    """The implicit function theorem, with one linear solve (see `_implicit_rule.py`).

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
