"""The derivative by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._adjoint import Linearized, linearized
from .._implicit_rule import constant_solution, implicit_solution, opened
from .._known import check_known
from .._settings import require_kind
from .._space import Space
from .._system import solve_system
from .._traps import warn_if_independent
from ..level import Level
from ..linear import LinearSolver, default_linear
from ..solution import Solution
from ..solvers import Solver
from ._base import Estimator, Pull

Tree = Any


@dataclass(frozen=True)
class ImplicitPull:
    """The pullback by one linear solve; the level, linearized `at` the answer y, is there for others to use."""

    level: Level
    linear: LinearSolver
    at: Linearized
    y: Tree
    outer: tuple[Tree, ...]

    def __call__(self, cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], Solution]:
        """See `Pull`."""
        right = self.level.manifold.project(self.y, cotangent)
        adjoint = solve_system(self.linear, self.at.system, right, guess)
        back, backend = self.at.pull(adjoint.value), self.at.system.space.backend
        warn_if_independent(backend, lambda _: self.level, ((), self.outer), self.y, adjoint.value, back)
        return back, adjoint


@dataclass(frozen=True)
class Implicit(Estimator):
    """The implicit function theorem, with one linear solve (see `_implicit_rule.py`).

    `linear`: by default `CG()` for an `Argmin`, `NeumannGMRES()` for a `FixedPoint`, `MINRES()` or `GMRES()` for a
    `Root`, by whether it is self-adjoint (see `default_linear`). Derivatives of higher order are those of the true
    solution map also where the first is truncated (`Neumann(terms)`, `CG(max_steps=…)`).
    """

    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`."""
        linear, init = self.linear_for(level), backend.stop_gradient(init)
        level_at, captured = opened(backend, level, outer, init)
        plain_captured, plain_outer = backend.stop_gradient((captured, outer))
        found = constant_solution(backend, level_at, solver, space, captured, outer, init)
        check_known(backend, level_at(plain_captured), plain_outer, found.value)
        y = implicit_solution(backend, level_at, linear, space, (captured, outer), found.value)
        return found._replace(value=y)

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        linear = self.linear_for(level)
        found = solver.solve(backend, level, outer, init, space)
        at = linearized(backend, level, outer, found.value, space)
        return found, ImplicitPull(level, linear, at, found.value, outer)

    def has_tolerance_for(self, level: Level) -> bool:
        """Whether the linear solve was asked to reach a tolerance (else it was asked for a number of steps)."""
        return self.linear_for(level).has_tolerance

    def linear_for(self, level: Level) -> LinearSolver:
        """The linear solver for a level. Raises `TypeError` for one that needs more symmetry than the level has."""
        if self.linear is None:
            return default_linear(level)
        if self.linear.needs_self_adjoint and not level.self_adjoint:
            raise TypeError(
                f"{type(self.linear).__name__} needs a symmetric operator; the derivative of a {type(level).__name__} "
                "is not known to be one: use Implicit(GMRES()) or Implicit(Neumann())"
            )
        return self.linear
