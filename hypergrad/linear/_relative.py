"""Systems in units of their right-hand side, so that no square of a very small or large number is taken."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._space import Space
from ..solution import Solution
from ._base import System

Array = Any
Tree = Any


class Relative(NamedTuple):
    """`b`, a first guess `start` and its residual `r` = b - A start, all divided by `unit`, a number per problem."""

    unit: Array
    b: Tree
    start: Tree
    r: Tree

    def solution(self, space: Space, value: Tree, norm: Array, steps: Array, converged: Array) -> Solution:
        """The solution in the units of the system."""
        converged = space.backend.xp.logical_and(converged, space.backend.xp.isfinite(norm))
        return Solution(space.scale(self.unit, value), self.unit * norm, steps, converged)


def relative(system: System, b: Tree, guess: Tree | None = None) -> Relative:
    """The system in units of the largest entry of b."""
    space, unit = system.space, system.space.unit(b)
    start, r = helpful(system, b, guess)
    return Relative(unit, *(space.divide(a, unit) for a in (b, start, r)))


def helpful(system: System, b: Tree, guess: Tree | None) -> tuple[Tree, Tree]:
    """The first guess and what it leaves of b; 0 and b where that is not less than b, or not finite.

    From a guess that is far off, rounding of its own size would stay in the answer.
    """
    space, unit = system.space, system.space.unit(b)
    if guess is None:
        return space.zeros(b), b

    def size(w: Tree) -> Array:
        w = space.divide(w, unit)
        return covector_norm(system, w, system.raise_(w))

    r = space.subtract(b, system.apply(guess))
    helps = size(r) < size(b)
    return space.where(helps, guess, space.zeros(guess)), space.where(helps, r, b)


def direction_and_norm(system: System, r: Tree) -> tuple[Tree, Array]:
    """The preconditioned residual, `raise_(r)` without a preconditioner, and the norm of r in the metric."""
    raised = system.raise_(r)
    return raised if system.precondition is None else system.precondition(r), covector_norm(system, r, raised)


def covector_norm(system: System, r: Tree, raised: Tree) -> Array:
    """√(r · raise_(r))."""
    return system.space.backend.xp.sqrt(abs(system.space.dot(r, raised)))
