"""The linear system of a level at a point, as linear solvers take it."""

from __future__ import annotations

from typing import Any

from ..backends import Backend
from ..manifolds import Congruence
from ._space import Space
from .level import Apply, Argmin, FixedPoint, Level
from .linear import LinearSolver, System
from .linear._base import unchanged
from .solution import Solution

Tree = Any


def tangent_system(
    backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space, *, transpose: bool = False
) -> System:
    """P D P at y, or its transpose, with the metric where D is a symmetric form; all arguments are constants.

    Where the backend can fold the form into a few matrix products, it is written in coordinates in which the metric
    is the dot product.
    """
    manifold = level.manifold
    forward, backward = level.operator(backend, outer, y)
    if not isinstance(level, Argmin):
        apply, other = (backward, forward) if transpose else (forward, backward)
        return System(
            space=space,
            apply=lambda v: manifold.project(y, apply(v)),
            transpose=lambda v: manifold.project(y, other(v)),
            raise_=unchanged,
            project=lambda v: manifold.project(y, v),
            self_adjoint=level.self_adjoint,
            contraction=isinstance(level, FixedPoint),
        )
    if isinstance(manifold, Congruence) and not space.ndim:
        l = manifold.factor(y)
        folded = backend.symmetric_products(forward, l)
        if folded is not None:
            return _in_coordinates(backend, folded, l, space)

    def form(v: Tree) -> Tree:
        return manifold.project(y, forward(v))

    return System(
        space=space,
        apply=form,
        transpose=form,
        raise_=lambda w: manifold.sharp(y, w),
        project=lambda v: manifold.project(y, v),
        self_adjoint=True,
    )


def _in_coordinates(backend: Backend, folded: Apply, l: Any, space: Space) -> System:
    """The system of a folded form, in the coordinates v of the tangent vectors l v lᵀ."""

    def coordinates(u: Tree) -> Tree:
        inverse = backend.xp.linalg.inv(l)
        return inverse @ u @ inverse.mT

    return System(
        space=space,
        apply=folded,
        transpose=folded,
        raise_=unchanged,
        project=lambda v: 0.5 * (v + v.mT),
        self_adjoint=True,
        enter=lambda w: l.mT @ w @ l,
        enter_guess=coordinates,
        leave=lambda v: l @ v @ l.mT,
    )


def solve_system(linear: LinearSolver, system: System, b: Tree, guess: Tree | None = None) -> Solution:
    """The solution, a tangent vector, for the projected covector `b`."""
    found = linear.solve(system, system.enter(b), None if guess is None else system.enter_guess(guess))
    return found._replace(value=system.leave(found.value))
