"""Riemannian limited-memory BFGS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...backends import Backend
from ...backends._trees import tree_map
from .._settings import require_count, require_kind, require_number
from .._space import Space
from ..level import Level
from ..solution import Solution
from ._base import Solver, require_argmin
from ._descent import descend
from ._measured import Measured
from ._parts import concatenate, entry, flat, rows, stack
from .wolfe import Wolfe, wolfe

Array = Any
Tree = Any
#: a pair counts where ⟨s, y⟩ is more than this part of ‖s‖ ‖y‖
_CAUTION = 1e-8


class _Memory(NamedTuple):
    """The last steps s and changes of the gradient y, oldest first, zero where unused, and |cost| at the start."""

    s: Tree
    y: Tree
    empty: Array
    first: Array


@dataclass(frozen=True)
class LBFGS(Solver):
    """y ← R_y(-t H grad), H the BFGS inverse Hessian of the last `memory` steps s and changes of gradient y.

    All pairs are carried to each new tangent space by `transport`, and count there where ⟨s, y⟩ > 1e-8 ‖s‖ ‖y‖ in its
    metric: so H is positive whatever the transport. The first H is ⟨s, y⟩/⟨y, y⟩ of the last pair; t = 1 is the first
    trial of the search (`Wolfe`); one that fails clears the memory. Converges as `GradientDescent` says; about one
    gradient a step. Huang, Gallivan & Absil 2015; Huang, Absil & Gallivan 2018, alg. 2 (cautious update).
    """

    memory: int = 10
    tol: float | None = None
    max_steps: int = 2000
    search: Wolfe = field(default_factory=Wolfe)

    def __post_init__(self) -> None:
        require_count(self, "memory", least=1)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)
        require_kind(self, "search", Wolfe)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp

        def begin(at: Measured) -> _Memory:
            zeros = tree_map(lambda a: xp.zeros_like(xp.stack([a] * self.memory)), at.gradient)
            return _Memory(zeros, zeros, space.flags(True, at.slope), xp.abs(at.value))

        def advance(at: Measured, memory: _Memory, done: Array) -> tuple[Measured, _Memory, Array, Array]:
            p = self._direction(backend, level.manifold, space, at, memory)
            slope = space.dot(at.covector, p)

            size = xp.maximum(memory.first, xp.abs(at.value))
            t, new, found, met = wolfe(
                self.search, level, outer, space, at, p, slope=slope, size=size, t=xp.ones_like(slope), skip=done
            )
            own = stack(backend, space.scale(t, p), at.gradient)
            moved = manifold.transport(at.point, new.point, concatenate(backend, own, memory.s, memory.y))
            s, y, n = entry(moved, 0), space.subtract(new.gradient, entry(moved, 1)), self.memory
            pairs = Space(backend, (n, *space.batch))
            keep = xp.broadcast_to(met, pairs.batch)
            s, y = (
                pairs.where(keep, concatenate(backend, rows(moved, first, first + n - 1), stack(backend, last)), zero)
                for first, last, zero in ((3, s, pairs.zeros(memory.s)), (3 + n, y, pairs.zeros(memory.y)))
            )
            return new, _Memory(s, y, ~met, memory.first), found, xp.logical_and(~met, memory.empty)

        return descend(backend, level, outer, init, space, self.tol, self.max_steps, begin, advance, searched=True)

    def _direction(self, backend: Backend, manifold: Any, space: Space, at: Measured, memory: _Memory) -> Tree:
        """-H grad by two loops over the pairs (Nocedal & Wright 2006, alg. 7.4).

        The y are lowered to covectors, so that ⟨s, q⟩ = s·q♭ and ⟨y, r⟩ = y♭·r need no metric.
        """
        xp, n = backend.xp, self.memory
        pairs = Space(backend, (n, *space.batch))
        lowered = flat(manifold, at.point, concatenate(backend, memory.s, memory.y))
        y_flat = rows(lowered, n, 2 * n)
        s_s = pairs.dot(rows(lowered, 0, n), memory.s)
        s_y, y_y = pairs.dot(y_flat, memory.s), pairs.dot(y_flat, memory.y)
        curved = s_y > _CAUTION * xp.sqrt(xp.abs(s_s * y_y))
        rho = xp.where(curved, pairs.ratio(xp.ones_like(s_y), s_y), xp.zeros_like(s_y))
        quotients = pairs.ratio(s_y, y_y)
        gamma = 1 / xp.maximum(at.norm, xp.ones_like(at.norm))
        for i in range(n):
            gamma = xp.where(curved[i, ...], quotients[i, ...], gamma)
        q, parts = at.covector, []
        for i in reversed(range(n)):
            a = rho[i, ...] * space.dot(q, entry(memory.s, i))
            q = space.axpy(-a, entry(y_flat, i), q)
            parts.append(a)
        r = space.scale(gamma, manifold.sharp(at.point, q))
        for i, a in zip(range(n), reversed(parts), strict=True):
            b = rho[i, ...] * space.dot(entry(y_flat, i), r)
            r = space.axpy(a - b, entry(memory.s, i), r)
        return space.scale(-xp.ones_like(gamma), r)
