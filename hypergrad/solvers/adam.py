"""Riemannian Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends import Backend, namespace
from ...backends._trees import tree_map
from ...manifolds import Euclidean, Manifold
from .._settings import require_count, require_number
from .._space import Space
from ..level import Level
from ..solution import Solution
from ._base import Unrollable, require_argmin
from ._descent import carry, descend, is_good, unrolled
from ._measured import Measured, measure
from ._parts import on_factors
from .steps import quietly

Array = Any
Tree = Any


class _Moments(NamedTuple):
    """The mean of the gradient, that of its square and the largest so far, and the powers of β₁ and β₂."""

    first: Tree
    second: Tree
    largest: Tree
    powers: tuple[Array, Array]


@dataclass(frozen=True)
class Adam(Unrollable):
    """m ← T(β₁ m + (1 - β₁) grad), v ← β₂ v + (1 - β₂) ‖grad‖², y ← R_y(-step m̂/(√v̂ + eps)), for noisy costs.

    m̂ = m/(1 - β₁ᵏ) and v̂ = v/(1 - β₂ᵏ) after k steps. m is carried by `transport`. v is one number for each point of
    each factor of a `Product` (its norm in the factor's metric), and one for each coordinate of a `Euclidean` factor
    where `coordinatewise`. `amsgrad`: the largest v̂ so far. The step does not shrink by itself: near the answer y moves
    by about `step`, so give it a tolerance that this can meet, or take the number of steps as given. Converges as
    `GradientDescent` says. Kingma & Ba 2015; Reddi, Kale & Kumar 2018; on manifolds Bécigneul & Ganea 2019, alg. 1.
    """

    step: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    amsgrad: bool = False
    coordinatewise: bool = True
    tol: float | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        require_number(self, "step", above=0)
        require_number(self, "beta1", least=0, below=1)
        require_number(self, "beta2", least=0, below=1)
        require_number(self, "eps", above=0)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level = require_argmin(self, level)

        def begin(at: Measured) -> _Moments:
            return self._zeros(level.manifold, space, at.covector, at.gradient, at.slope)

        def advance(at: Measured, moments: _Moments, done: Array) -> tuple[Measured, _Moments, Array, Array]:
            moved, moments = self._moved(level.manifold, space, at.point, at.covector, at.gradient, moments)
            new = measure(backend, level, outer, space, moved)
            good = is_good(space, new)
            first = carry(level.manifold, space, at.point, new, good, moments.first)
            return new, moments._replace(first=first), good, ~good

        return descend(backend, level, outer, init, space, self.tol, self.max_steps, begin, advance, searched=False)

    def begin(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Any:
        """See `Unrollable`: the start, the point and the moments."""
        level, fixed, plain = require_argmin(self, level), backend.stop_gradient(outer), backend.stop_gradient(init)
        at = measure(backend, level, fixed, space, plain)
        return plain, init, self._zeros(level.manifold, space, at.covector, at.gradient, at.slope)

    def advance(self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Any) -> Any:
        """See `Unrollable`."""
        level, (start, y, moments) = require_argmin(self, level), state
        with quietly():
            w = level.manifold.project(y, level.residual(backend, outer, y))
            moved, moments = self._moved(level.manifold, space, y, w, level.manifold.sharp(y, w), moments)
            return start, moved, moments._replace(first=level.manifold.transport(y, moved, moments.first))

    def finish(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Any, steps: int
    ) -> Solution:
        """See `Unrollable`."""
        start, y, _ = state
        return unrolled(backend, require_argmin(self, level), outer, start, y, space, steps, self.tol)

    def _zeros(self, manifold: Manifold, space: Space, w: Tree, u: Tree, like: Array) -> _Moments:
        second, one = space.zeros(self._squares(manifold, w, u)), namespace(like).ones_like(like)
        return _Moments(space.zeros(u), second, second, (one, one))

    def _moved(
        self, manifold: Manifold, space: Space, y: Tree, w: Tree, u: Tree, moments: _Moments
    ) -> tuple[Tree, _Moments]:
        """One step along the means, and the means where it began."""
        b1, b2 = self.beta1, self.beta2
        powers = (b1 * moments.powers[0], b2 * moments.powers[1])
        first = tree_map(lambda m, g: b1 * m + (1 - b1) * g, moments.first, u)
        second = tree_map(lambda v, s: b2 * v + (1 - b2) * s, moments.second, self._squares(manifold, w, u))
        unbiased = space.scale(1 / (1 - powers[1]), second)
        largest = tree_map(_larger, moments.largest, unbiased) if self.amsgrad else moments.largest
        root = tree_map(lambda v: _root(v) + self.eps, largest if self.amsgrad else unbiased)
        mean = space.scale(-self.step / (1 - powers[0]), first)
        moved = manifold.retract(y, on_factors(manifold, self._divided, mean, root))
        return moved, _Moments(first, second, largest, powers)

    def _squares(self, manifold: Manifold, w: Tree, u: Tree) -> Tree:
        """‖grad‖² for each point of each factor, or the square of each coordinate."""

        def square(factor: Manifold, w: Tree, u: Tree) -> Array:
            if not self._by_coordinate(factor):
                return factor.pair(w, u)
            xp = namespace(u)
            return xp.real(u) ** 2 + xp.imag(u) ** 2 if xp.isdtype(u.dtype, "complex floating") else u * u

        return on_factors(manifold, square, w, u)

    def _divided(self, factor: Manifold, mean: Tree, root: Array) -> Tree:
        return mean / root if self._by_coordinate(factor) else factor.scale(1 / root, mean)

    def _by_coordinate(self, factor: Manifold) -> bool:
        return self.coordinatewise and isinstance(factor, Euclidean)


def _larger(a: Array, b: Array) -> Array:
    return namespace(a, b).maximum(a, b)


def _root(v: Array) -> Array:
    """√v, with derivative 0 at 0."""
    xp, positive = namespace(v), v > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, v, xp.ones_like(v))), xp.zeros_like(v))
