"""Methods for nested problems: values with `init` and `step`. `run` is the only loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

from ..backends import Backend, namespace
from ._checks import check_cost
from ._settings import require_kind, require_number
from ._space import Space, epsilon
from .estimators import Estimator, Implicit
from .hypergradient import Hypergradient, plain_hypergradient
from .nested import Bilevel
from .solution import is_finite
from .solve import default_solver
from .solvers import BarzilaiBorwein, Solver
from .solvers.steps import StepRule, backtrack, first_step, next_trial, require_step_rule

Array = Any
Tree = Any


class State(NamedTuple):
    """Where a method stands: outer and inner point, the hypergradient there, and what the next step needs.

    `slope` is ‖gradient‖²; `noise` = ‖lower residual‖ ‖adjoint‖ bounds, to first order, the error of `value` that the
    lower level's own error makes; `trial` is the next step length to try, `length` the last taken.
    """

    x: Tree
    y: Tree
    value: Array
    gradient: Tree
    covector: Tree
    adjoint: Tree
    slope: Array
    noise: Array
    trial: Array
    length: Array
    inner_steps: Array
    products: Array
    good: Array


class Method(ABC):
    """An algorithm for a `Bilevel` problem."""

    @abstractmethod
    def init(self, backend: Backend, problem: Bilevel, x: Tree, y: Tree) -> State:
        """The state at the start."""

    @abstractmethod
    def step(self, backend: Backend, problem: Bilevel, state: State) -> State:
        """One outer step."""

    @abstractmethod
    def tolerance(self, like: Array) -> float:
        """The norm of the hypergradient, relative to the size of the value, at which the run is done."""


@dataclass(frozen=True)
class RHGD(Method):
    """Riemannian hypergradient descent: x ← R_x(-t G), G the hypergradient. Han et al. 2024, algorithm 1.

    The lower level starts from the last answer, the adjoint solve from the last adjoint, carried along. `step_size` is
    a number, `Armijo()` or `BarzilaiBorwein()` (default); the searches compare values of the upper cost at lower
    answers, and know how inexact those are. `solver` is by default the one that suits the lower level. `tol`: done
    where ‖G‖ ≤ tol · (the size of the value, or of the first gradient), by default the root of the dtype's eps.
    """

    step_size: StepRule = field(default_factory=BarzilaiBorwein)
    solver: Solver | None = None
    estimator: Estimator = field(default_factory=Implicit)
    tol: float | None = None

    def __post_init__(self) -> None:
        require_step_rule(self, "step_size")
        require_kind(self, "solver", Solver)
        require_kind(self, "estimator", Estimator)
        require_number(self, "tol", least=0)

    def tolerance(self, like: Array) -> float:
        """See `Method`."""
        return epsilon(like) ** 0.5 if self.tol is None else self.tol

    def init(self, backend: Backend, problem: Bilevel, x: Tree, y: Tree) -> State:
        """See `Method`."""
        found = self._hypergradient(backend, problem, x, y, None)
        space = self._space(backend, problem, x, found.lower.value)
        t = space.full(first_step(self.step_size), found.value)
        return self._state(problem, space, x, found, t, 0 * t, space.flags(True, t), 0)

    def step(self, backend: Backend, problem: Bilevel, state: State) -> State:
        """See `Method`. A search that finds no descent leaves the point where it was, with `good` false."""
        manifold, inner, solver = problem.manifold, problem.lower.manifold, self._solver(problem)
        space = self._space(backend, problem, state.x, state.y)

        def trial(t: Array) -> tuple[Array, Tree, Array]:
            x = manifold.retract(state.x, space.scale(-t, state.gradient))
            lower = Space(backend, problem.lower.batch((x,), state.y))
            found = solver.solve(backend, problem.lower, (x,), state.y, lower)
            return problem.upper(x, found.value), (x, found.value), backend.xp.max(found.steps)

        if isinstance(self.step_size, Real):
            t, good, certain = state.trial, space.flags(True, state.trial), None
            _, (x, y), work = trial(t)
        else:
            none = space.flags(False, state.trial)
            t, _, (x, y), good, certain, work = backtrack(
                space, self.step_size, trial, state.value, state.slope, state.trial, none, state.noise
            )
        guess = None if state.adjoint is None else inner.transport(state.y, y, state.adjoint)
        found = self._hypergradient(backend, problem, x, y, guess)
        carried = manifold.transport(state.x, x, state.gradient)
        t_next = next_trial(space, self.step_size, t, space.dot(found.covector, carried), state.slope, certain)
        good = namespace(good).logical_and(good, is_finite(space, (found.value, found.gradient)))
        return self._state(problem, space, x, found, t_next, t, good, work)

    def _space(self, backend: Backend, problem: Bilevel, x: Tree, y: Tree) -> Space:
        return Space(backend, check_cost(problem.upper(x, y), x, problem.manifold, "the upper cost"))

    def _hypergradient(self, backend: Backend, problem: Bilevel, x: Tree, y: Tree, guess: Tree) -> Hypergradient:
        return plain_hypergradient(backend, problem, self._solver(problem), self.estimator)(x, y, guess)

    def _solver(self, problem: Bilevel) -> Solver:
        return default_solver(problem.lower, self.estimator) if self.solver is None else self.solver

    def _state(
        self,
        problem: Bilevel,
        space: Space,
        x: Tree,
        found: Hypergradient,
        trial: Array,
        length: Array,
        good: Array,
        work: Any,
    ) -> State:
        adjoint, xp = found.adjoint, namespace(found.value)
        steps, noise = xp.max(found.lower.steps), xp.zeros_like(found.value)
        if adjoint is not None:
            y, v = found.lower.value, adjoint.value
            size = xp.sum(problem.lower.manifold.inner(y, v, v))
            noise = noise + xp.sqrt(xp.abs(size)) * xp.sqrt(xp.sum(found.lower.residual**2))
        return State(
            x=x,
            y=found.lower.value,
            value=found.value,
            gradient=found.gradient,
            covector=found.covector,
            adjoint=None if adjoint is None else adjoint.value,
            slope=space.dot(found.covector, found.gradient),
            noise=noise,
            trial=trial,
            length=length,
            inner_steps=steps + work,
            products=0 * steps if adjoint is None else xp.max(adjoint.steps),
            good=good,
        )
