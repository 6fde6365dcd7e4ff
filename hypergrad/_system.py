"""The linear system of a level at a point, as linear solvers take it."""

from __future__ import annotations

from typing import Any

from ..backends import Backend
from ._space import Space
from .level import Argmin, Level
from .linear import System

Tree = Any


def tangent_system(
    backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space, *, transpose: bool = False
) -> System:
    """P D P at y, or its transpose, with the metric where D is a symmetric form."""
    forward, backward = level.operator(backend, outer, y)
    return system_of(level, backward if transpose else forward, y, space)


def system_of(level: Level, apply: Any, y: Tree, space: Space) -> System:
    """The system with the operator `apply`, projected after every product."""
    manifold = level.manifold
    in_metric = isinstance(level, Argmin)
    return System(
        space=space,
        apply=lambda v: manifold.project(y, apply(v)),
        raise_=(lambda w: manifold.sharp(y, w)) if in_metric else (lambda w: w),
        project=lambda v: manifold.project(y, v),
        self_adjoint=level.self_adjoint,
    )
