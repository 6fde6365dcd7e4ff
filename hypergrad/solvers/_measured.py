"""A point with all that a descent method asks of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends import Backend, namespace
from .._floats import Floats
from .._space import Space
from ..level import Argmin

Array = Any
Tree = Any


class Measured(NamedTuple):
    """A point, the cost there, its projected differential, the gradient, and `slope` = ‖gradient‖²."""

    point: Tree
    value: Array
    covector: Tree
    gradient: Tree
    slope: Array

    @property
    def norm(self) -> Array:
        """‖gradient‖."""
        xp = namespace(self.slope)
        return xp.sqrt(xp.abs(self.slope))


def measure(backend: Backend, level: Argmin, outer: tuple[Tree, ...], space: Space, y: Tree) -> Measured:
    """Evaluate cost and gradient at `y`: constants, also where the cost captured what is being differentiated."""
    value, w = level.value_and_residual(backend, outer, y)
    w = level.manifold.project(y, w)
    u = level.manifold.sharp(y, w)
    return Measured(*backend.stop_gradient((y, value, w, u, space.dot(w, u))))


def choose(space: Space | Floats, condition: Array, a: Measured, b: Measured) -> Measured:
    """`a` for the problems that meet the condition, `b` for the others."""
    return Measured(*(space.where(condition, x, y) for x, y in zip(a, b, strict=True)))
