"""Somebody else's solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from ...backends._trees import leaves
from .._settings import require_number
from .._space import Space, epsilon
from ..level import Level
from ..solution import Solution
from ._base import Solver, first_leaf, point_norm, residual_norm

Tree = Any


@dataclass(frozen=True)
class External(Solver):
    """`function(*outer, init) -> y`: any code at all, autodiff need not be able to pass it.

    Its answer is checked: the structure and shape of `init`, and the level's residual there, which counts as converged
    up to tol · max(1, |y|); `tol=None` is the root of the dtype's eps. The derivative of an implicit estimator is that
    of the level's exact answer near y, so an inexact y costs accuracy in proportion. Under `jax.jit` it is called back
    from another thread: switch 64 bits on with `jax.config`, the context manager `jax.enable_x64` does not reach it.
    """

    function: Callable[..., Tree]
    tol: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"External takes a function (*outer, init) -> y, not {self.function!r}")
        require_number(self, "tol", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `ShapeError` or `NotOnManifoldError` for an answer that is no point."""
        xp = backend.xp
        y = backend.call_external(self.function, init, *outer, init)
        level.manifold.check_point(y, "the external solver's answer")
        norm = residual_norm(backend, level, outer, y, space)
        tol = epsilon(first_leaf(leaves(init))) ** 0.5 if self.tol is None else self.tol
        size = point_norm(space, y)
        return Solution(y, norm, space.counts(norm), norm <= tol * xp.maximum(size, xp.ones_like(size)))
