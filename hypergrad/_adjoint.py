"""A level linearized at a point: what the implicit function theorem needs there, for constant arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..backends import Backend
from ..backends._trees import tree_map
from ._space import Space
from ._system import tangent_system
from .level import Level
from .linear import System

Tree = Any


@dataclass(frozen=True)
class Linearized:
    """F(outer, y) = 0 at y: the tangent `residual`, a covector; the adjoint `system` Aᵀ; and the cross term.

    `pull(λ)` = -∂_outer⟨F(outer, y), λ⟩, one cotangent for each outer variable.
    """

    residual: Tree
    system: System
    pull: Callable[[Tree], tuple[Tree, ...]]

    @property
    def forward(self) -> System:
        """The system A of Newton's method, A v = F."""
        if self.system.self_adjoint:
            return self.system
        return replace(self.system, apply=self.system.transpose, transpose=self.system.apply, precondition=None)


def linearized(backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space) -> Linearized:
    """One record of the equation serves the operator and the cross term."""
    record = None
    if level.records_residual:
        residual, (*pulls, curve) = backend.vjp_each(lambda *a: level.residual(backend, a[:-1], a[-1]), *outer, y)
        record = residual, curve
    else:
        residual, pulls = backend.vjp_each(lambda *o: level.residual(backend, o, y), *outer)
    system = tangent_system(backend, level, outer, y, space, transpose=True, record=record)

    def pull(v: Tree) -> tuple[Tree, ...]:
        return tuple(tree_map(lambda a: -a, pull_one(v)) for pull_one in pulls)

    return Linearized(level.manifold.project(y, residual), system, pull)
