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
        return Solution(space.scale(self.unit, value), self.unit * norm, steps, converged)


def relative(system: System, b: Tree, guess: Tree | None = None) -> Relative:
    """The system in units of the largest entry of b and of the first residual."""
    space = system.space
    if guess is None:
        unit = space.unit(b)
        b = space.divide(b, unit)
        return Relative(unit, b, space.zeros(b), b)
    r = space.subtract(b, system.apply(guess))
    unit = space.unit((b, r))
    return Relative(unit, *(space.divide(a, unit) for a in (b, guess, r)))


def direction_and_norm(system: System, r: Tree) -> tuple[Tree, Array]:
    """The preconditioned residual, `raise_(r)` without a preconditioner, and the norm of r in the metric."""
    raised = system.raise_(r)
    return raised if system.precondition is None else system.precondition(r), covector_norm(system, r, raised)


def covector_norm(system: System, r: Tree, raised: Tree) -> Array:
    """√(r · raise_(r))."""
    return system.space.backend.xp.sqrt(abs(system.space.dot(r, raised)))
