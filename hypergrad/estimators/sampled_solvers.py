"""Linear solvers that see a new sample of the operator in every step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from ...backends._trees import flatten, tree_map
from .._settings import require_number
from .._space import Space
from ..level import Apply
from ..solution import Solution, is_finite

Array = Any
Tree = Any


class SampledSolver(ABC):
    """Solves E[A] v = b from independent samples of A, one product with each."""

    @abstractmethod
    def solve(
        self,
        space: Space,
        at: Callable[[Tree], Apply],
        raise_: Apply,
        b: Tree,
        guess: Tree | None,
        batches: list[Tree],
    ) -> Solution:
        """`at(batch)` is A on one batch, from vectors to covectors; `raise_` turns a covector into a vector."""


@dataclass(frozen=True)
class ProductNeumann(SampledSolver):
    """v = γ Σ_{i=0}^{Q} Π_{j≤i} (I - γ H(·; Bⱼ)) b, each factor with a batch of its own; Q = the number of batches.

    γ is `step`: less than 2/h_max for an `Argmin`, 1 for a `FixedPoint` whose map contracts. The mean over independent
    batches is the series of the mean, γ Σ (I - γ E[H])ⁱ b, of Q + 1 terms; `residual` is the norm of the last product.
    A first guess is not used. Ji, Yang & Liang 2021 (stocBiO); Han et al. 2024.
    """

    step: float

    def __post_init__(self) -> None:
        require_number(self, "step", above=0)

    def solve(
        self,
        space: Space,
        at: Callable[[Tree], Apply],
        raise_: Apply,
        b: Tree,
        guess: Tree | None,
        batches: list[Tree],
    ) -> Solution:
        """See `SampledSolver`."""

        def step(state: tuple[Tree, Tree], batch: Tree) -> tuple[Tree, Tree]:
            r, total = state
            product = at(batch)(raise_(r))
            r = tree_map(lambda a, c: a - self.step * c, r, product)
            return r, space.add(total, r)

        r, total = fold(space.backend, batches, step, (b, b))
        v = tree_map(lambda a: self.step * a, raise_(total))
        return _unjudged(space, v, space.dot(r, raise_(r)), len(batches))


@dataclass(frozen=True)
class DecreasingSteps(SampledSolver):
    """v ← v + ηᵢ (b - H(·; Bᵢ) v), ηᵢ = scale / (offset + i), i = 0, 1, …, one step for each batch.

    From the first guess, or from 0. For a `FixedPoint`: v ← (1 - ηᵢ) v + ηᵢ (J(·; Bᵢ)ᵀ v + b). With scale > 1/(1 - q)
    for a map of contraction q, or > 1/h_min for an `Argmin`, the mean square error is O(1/steps), and so is that of the
    hypergradient where the lower level (`RobbinsMonro`) and the number of cross batches keep pace: SID, Grazzi, Pontil
    & Salzo 2021, AISTATS. `residual` is that of the last sample.
    """

    scale: float
    offset: float

    def __post_init__(self) -> None:
        require_number(self, "scale", above=0)
        require_number(self, "offset", above=0)

    def solve(
        self,
        space: Space,
        at: Callable[[Tree], Apply],
        raise_: Apply,
        b: Tree,
        guess: Tree | None,
        batches: list[Tree],
    ) -> Solution:
        """See `SampledSolver`."""

        def step(state: tuple[Tree, Tree, Array], batch: Tree) -> tuple[Tree, Tree, Array]:
            v, _, i = state
            r = space.subtract(b, at(batch)(v))
            return space.axpy(self.scale / (self.offset + i), raise_(r), v), r, i + 1

        raised = raise_(b)
        start = space.zeros(raised) if guess is None else guess
        v, r, _ = fold(space.backend, batches, step, (start, b, 0 * space.dot(b, raised)))
        return _unjudged(space, v, space.dot(r, raise_(r)), len(batches))


def fold(backend: Backend, batches: list[Tree], body: Callable[[Tree, Tree], Tree], state: Tree) -> Tree:
    """`body(state, batch)` for one batch after the other; compiled once where they are alike."""
    found = [flatten(batch)[0] for batch in batches]
    shapes = {tuple((tuple(a.shape), str(a.dtype)) if hasattr(a, "shape") else None for a in batch) for batch in found}
    if not backend.compiles or len(batches) == 1 or len(shapes) > 1 or None in next(iter(shapes)):
        for batch in batches:
            state = body(state, batch)
        return state
    xp = backend.xp
    stacked = tree_map(lambda *a: xp.stack(a), *batches)

    def step(numbered: tuple[Array, Tree]) -> tuple[Array, Tree]:
        i, state = numbered
        return i + 1, body(state, tree_map(lambda a: a[i, ...], stacked))

    first = xp.asarray(0, dtype=xp.int32)
    return backend.repeat(step, (first, state), steps=len(batches))[1]


def mean(backend: Backend, batches: Tree, function: Callable[[Tree], Tree]) -> Tree:
    """`function(batch)`, the mean over a list."""
    if not isinstance(batches, list):
        return function(batches)
    total = function(batches[0])
    total = fold(backend, batches[1:], lambda sum, batch: tree_map(lambda a, b: a + b, sum, function(batch)), total)
    return tree_map(lambda a: a / len(batches), total)


def _unjudged(space: Space, v: Tree, squared: Array, steps: int) -> Solution:
    """Chance leaves no residual to judge by: all steps asked for were made, and the numbers are finite or not."""
    xp = space.backend.xp
    norm = xp.sqrt(xp.abs(squared))
    return Solution(v, norm, space.counts(norm) + steps, xp.logical_and(is_finite(space, v), xp.isfinite(norm)))
