"""The lower levels of a nested problem, one inside the other.

A level whose deeper answers are substituted is again an ordinary level: `Reduced` is its function. Where the deeper
solvers start is an argument, an outer variable without derivative, so that a compiled program serves all starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend, backend_of
from .._space import Space
from ..estimators import Estimator, Implicit
from ..level import Level
from ..solution import Solution
from ..solve import default_solver
from ..solvers import Solver

Array = Any
Tree = Any


@dataclass(frozen=True)
class Layer:
    """A lower level with its solver and estimator. `level` takes (*outer, starts, y) where levels are below it."""

    level: Level
    solver: Solver
    estimator: Estimator
    plain: Level
    deepest: bool

    def outer(self, outer: tuple[Tree, ...], starts: tuple[Tree, ...]) -> tuple[Tree, ...]:
        """The outer variables of `level`; `starts` are those of the levels below."""
        return outer if self.deepest else (*outer, starts)

    def space(self, outer: tuple[Tree, ...], y: Tree, starts: tuple[Tree, ...]) -> Space:
        """The batch of problems, told by the level's own function at the starts of the levels below: no solve."""
        backend = backend_of(outer, y)
        fixed = self.plain.with_function(Fixed(self.plain.function, starts))
        return Space(backend, fixed.batch(outer, y))

    def solution(self, outer: tuple[Tree, ...], y: Tree, starts: tuple[Tree, ...]) -> Solution:
        """The answer from `y`, differentiable in `outer`."""
        space = self.space(outer, y, starts)
        return self.estimator.solution(space.backend, self.level, self.solver, self.outer(outer, starts), y, space)


@dataclass(frozen=True, eq=False)
class Fixed:
    """f(*outer, y, *deeper) for given `deeper`: a level's function without the responses of the levels below."""

    function: Callable[..., Tree]
    deeper: tuple[Tree, ...]

    def __call__(self, *args: Tree) -> Tree:
        return self.function(*args, *self.deeper)


@dataclass(frozen=True)
class Reduced:
    """f(*outer, y, responses): a level's function with the deeper answers substituted; called (*outer, starts, y)."""

    function: Callable[..., Tree]
    layers: tuple[Layer, ...]

    def __call__(self, *args: Tree) -> Tree:
        *outer, starts, y = args
        found = solve_layers(self.layers, (*outer, y), starts)
        return self.function(*outer, y, *(solution.value for solution in found))


@dataclass(frozen=True, eq=False)
class Hoisted:
    """f((captured, x), …) for a function that closes over arrays: these are an argument, packed with the first one."""

    function: Callable[..., Tree]
    number: int

    def __call__(self, *args: Tree) -> Tree:
        """The function, with what stands for its captured arrays."""
        (captured, first), *rest = args
        return self.function(captured[self.number], first, *rest)


def hoisted_levels(
    backend: Backend, levels: tuple[Level, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[tuple[Level, ...] | None, tuple[Tree, ...]]:
    """Levels whose first outer variable holds the arrays that their functions captured, and the outer variables so.

    None, and `outer` as it is, where they captured none that is being differentiated. An array that a level deep inside
    captured would else have to be found anew in every level around it.
    """
    hoisted = [backend.hoist(level.function, *outer, *starts) for level in levels]
    if not any(captured for _, captured in hoisted):
        return None, outer
    found = tuple(
        level.with_function(Hoisted(function, i))
        for i, (level, (function, _)) in enumerate(zip(levels, hoisted, strict=True))
    )
    return found, ((tuple(captured for _, captured in hoisted), outer[0]), *outer[1:])


def make_layers(
    levels: tuple[Level, ...], solvers: tuple[Solver | None, ...], estimators: tuple[Estimator | None, ...]
) -> tuple[Layer, ...]:
    """The levels, each with those below it substituted, and defaults where None stands."""
    made: tuple[Layer, ...] = ()
    for level, solver, estimator in reversed(list(zip(levels, solvers, estimators, strict=True))):
        estimator = Implicit() if estimator is None else estimator
        solver = default_solver(level, estimator) if solver is None else solver
        reduced = level.with_function(Reduced(level.function, made)) if made else level
        made = (Layer(reduced, solver, estimator, level, not made), *made)
    return made


def solve_layers(layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]) -> tuple[Solution, ...]:
    """The answers of all levels from the outermost inward, differentiable in `outer`; `starts` are constants."""
    starts = backend_of(outer, starts).stop_gradient(starts)
    found: list[Solution] = []
    for i, layer in enumerate(layers):
        found.append(layer.solution(outer, starts[i], starts[i + 1 :]))
        outer = (*outer, found[-1].value)
    return tuple(found)
