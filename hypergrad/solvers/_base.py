"""What a solver is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ...backends import Backend, namespace
from ...backends._trees import leaves
from .._space import Space, epsilon
from ..level import Argmin, Level
from ..solution import Solution

Array = Any
Tree = Any


class Solver(ABC):
    """Makes a point at which a level's residual vanishes. Never differentiated through, unless unrolled."""

    @abstractmethod
    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """The answer from `init`; all arrays are constants of every derivative."""


class Unrollable(Solver):
    """A solver whose steps can be differentiated one by one: `begin`, `advance` as often as wanted, `finish`.

    What goes from step to step is a tree of arrays, whose structure, shapes and dtypes stay the same.
    """

    @abstractmethod
    def begin(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Tree:
        """The state before the first step, differentiable in `init`."""

    @abstractmethod
    def advance(self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree) -> Tree:
        """The state one step later, differentiable in `outer` and `state`."""

    @abstractmethod
    def finish(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Tree, steps: int
    ) -> Solution:
        """The answer after `steps` steps, differentiable in `state`; only `value` has a derivative."""


def require_argmin(solver: Solver, level: Level) -> Argmin:
    """The level, if it is a minimization. Raises `TypeError` otherwise."""
    if not isinstance(level, Argmin):
        raise TypeError(
            f"{type(solver).__name__} minimizes a cost; a {type(level).__name__} needs Picard(), Newton() or "
            "External(...)"
        )
    return level


def default_tolerance(like: Array, tol: float | None) -> float:
    """`tol`, or eps^(3/4) of the dtype; never below what the dtype can resolve, 10 eps."""
    eps = epsilon(like)
    return eps**0.75 if tol is None else max(tol, 10 * eps)


def cost_scale(xp: Any, value: Array, first: Array, first_norm: Array) -> Array:
    """What a gradient is small against: |cost|, or ‖grad‖ at the start where that is larger, but less than 1.

    |cost| counts no more than it and the gradient did at the start, or a cost without minimum would look converged far
    out; and there is no absolute unit, or a cost in small units would look converged at once.
    """
    largest = xp.minimum(xp.abs(value), xp.maximum(xp.abs(first), first_norm))
    return xp.maximum(largest, xp.minimum(first_norm, xp.ones_like(first_norm)))


def residual_norm(backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space) -> Array:
    """The norm of the level's equation at y: of the Riemannian gradient (`Argmin`), else of the tangent residual."""
    manifold = level.manifold
    w = manifold.project(y, level.residual(backend, outer, y))
    u = manifold.sharp(y, w) if isinstance(level, Argmin) else w
    squared = space.dot(w, u)
    return namespace(squared).sqrt(backend.xp.abs(squared))


def point_norm(space: Space, y: Tree) -> Array:
    """The ambient norm of a problem's point."""
    return space.backend.xp.sqrt(space.dot(y, y))


def first_leaf(tree: Tree) -> Array:
    """Any array of the tree: what numbers are made like."""
    return leaves(tree)[0]
