"""The spectrum of a self-adjoint operator as a few Lanczos steps see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...backends._trees import tree_map
from .._space import epsilon
from ._base import System
from ._eigen import eigh_or_nan
from ._flat import flat
from ._relative import covector_norm

Array = Any
Tree = Any


@dataclass(frozen=True)
class Lanczos:
    """The decomposition H V = V T + β v eₖᵀ of the operator H = raise_∘B with T = S diag(values) Sᵀ.

    values : (*batch, k), the Ritz values, ascending · residuals : (*batch, k), ‖H u - θ u‖ of each Ritz pair: an
    eigenvalue lies that close to θ · coefficients : S, (*batch, k, k); column i is the Ritz vector of values[i] ·
    covectors, vectors : (*batch, k, n), rows w and v = raise_(w), which `split` makes trees, w_i · v_j = δ_ij.
    Where the Krylov space is exhausted after fewer than k steps, further rows are zero and T repeats its first entry:
    a number within the range of the others.
    """

    split: Callable[[Array], Tree]
    values: Array
    residuals: Array
    coefficients: Array
    covectors: Array
    vectors: Array

    @property
    def lowest(self) -> Array:
        """The smallest Ritz value, never below the smallest eigenvalue but for rounding."""
        return self.values[..., 0]

    @property
    def lowest_residual(self) -> Array:
        """An eigenvalue lies within this of `lowest`."""
        return self.residuals[..., 0]

    @property
    def highest(self) -> Array:
        """The largest Ritz value plus its residual: nearly always an upper bound. Zhou & Li 2011."""
        return self.values[..., -1] + self.residuals[..., -1]

    @property
    def basis(self) -> list[tuple[Tree, Tree]]:
        """The pairs (w, v) of covectors and vectors, as trees."""
        rows = range(self.values.shape[-1])
        return [(self.split(self.covectors[..., i, :]), self.split(self.vectors[..., i, :])) for i in rows]


def lanczos(system: System, start: Tree, steps: int) -> Lanczos:
    """At most `steps` Lanczos steps from the covector `start`, fully reorthogonalized; one product each.

    Golub & Van Loan 2013, §10.1 and §10.3.
    """
    space, backend, xp = system.space, system.space.backend, system.space.backend.xp
    size, join, split = flat(space, start)
    steps = max(1, min(steps, size))
    row = join(start)
    index = xp.arange(steps, dtype=xp.int32, device=backend.device(row))

    def put(rows: Array, row: Array, i: Array) -> Array:
        return xp.where((index == i)[:, None], row[..., None, :], rows)

    def step(state: Any) -> Any:
        w, v, covectors, vectors, diagonal, off, scale, ended, i = state
        covectors, vectors = put(covectors, join(w), i), put(vectors, join(v), i)
        image = join(system.apply(v))
        alpha = xp.where(ended, diagonal[..., 0], xp.sum(join(v) * image, axis=-1))
        for _ in range(2):  # one pass of Gram-Schmidt leaves rounding errors in the directions of large Ritz values
            image = image - (((vectors @ image[..., None]).mT) @ covectors)[..., 0, :]
        beta, w, v = _normalized(system, split(image))
        scale = xp.maximum(scale, xp.abs(alpha))
        ended = xp.logical_or(ended, beta <= epsilon(beta) ** (2 / 3) * scale)
        zero = xp.zeros_like(beta)
        beta = xp.where(ended, zero, beta)
        w, v = (space.where(ended, space.zeros(a), a) for a in (w, v))
        diagonal = xp.where(index == i, alpha[..., None], diagonal)
        off = xp.where(index == i, beta[..., None], off)
        return w, v, covectors, vectors, diagonal, off, scale, ended, i + 1

    norm, w, v = _normalized(system, start)
    zeros = xp.broadcast_to(xp.zeros_like(row)[..., None, :], (*space.batch, steps, size))
    numbers = xp.broadcast_to(xp.zeros_like(norm)[..., None], (*space.batch, steps))
    state = (w, v, zeros, zeros, numbers, numbers, xp.zeros_like(norm), norm == 0, xp.zeros_like(index[0]))
    _, _, covectors, vectors, diagonal, off, *_ = backend.repeat(step, state, steps=steps)
    side = xp.where(index[:, None] + 1 == index, off[..., :, None], xp.zeros_like(off[..., None]))
    matrix = xp.where(index[:, None] == index, diagonal[..., :, None], side + side.mT)
    values, s = eigh_or_nan(xp, matrix)
    return Lanczos(split, values, off[..., -1:] * xp.abs(s[..., -1, :]), s, covectors, vectors)


def extreme_eigenvalues(system: System, b: Tree, steps: int = 10) -> tuple[Array, Array]:
    """Estimates (lowest, highest) of the eigenvalues of raise_∘B: `Lanczos.lowest` and `Lanczos.highest`.

    The run starts from the covector b and as much noise, always the same: b brings out what matters for its own
    system, the noise what b has nothing of, which a series would blow up. With a preconditioner it takes the place of
    `raise_`.
    """
    if system.precondition is not None:
        system = replace(system, raise_=system.precondition)
    found = lanczos(system, mixed_with_noise(system, b), steps)
    return found.lowest, found.highest


def mixed_with_noise(system: System, b: Tree, seed: int = 0) -> Tree:
    """b / ‖b‖ + n / ‖n‖ with projected standard normal noise n, the same for every problem of a batch."""
    space, backend, xp = system.space, system.space.backend, system.space.backend.xp
    rng = np.random.default_rng(seed)

    def noise(leaf: Array) -> Array:
        return xp.broadcast_to(backend.noise(rng, leaf.shape[space.ndim :], like=leaf), leaf.shape)

    first, second = (_normalized(system, w)[1] for w in (b, system.project(tree_map(noise, b))))
    return space.add(first, second)


def _normalized(system: System, covector: Tree) -> tuple[Array, Tree, Tree]:
    """The norm, and the pair (w, v) of norm 1; zeros remain zeros."""
    space, xp = system.space, system.space.backend.xp
    unit = space.unit(covector)
    w = space.divide(covector, unit)
    v = system.raise_(w)
    norm = covector_norm(system, w, v)
    safe = xp.where(norm > 0, norm, xp.ones_like(norm))
    return unit * norm, space.divide(w, safe), space.divide(v, safe)
