"""The Nystrom method: a low-rank inverse from products with random vectors, all of them independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from ...backends import ShapeError
from ...backends._trees import leaves, tree_map
from .._settings import require_count, require_number
from .._space import Space, epsilon
from ..solution import Solution
from ._base import LinearSolver, System
from ._eigen import eigh_or_nan
from ._flat import flat
from ._relative import covector_norm, relative
from .preconditioned import Preconditioner

Array = Any
Tree = Any


class LowRank(NamedTuple):
    """H ≈ Σ values_i v_i v_i·: values (*batch, k), and the rows v_i of `vectors` (*batch, k, n), orthonormal or zero.

    `kept` tells which rows count: the others are directions that the sketch, or the operator, does not have.
    """

    values: Array
    vectors: Array
    kept: Array


@dataclass(frozen=True)
class Nystrom(LinearSolver, Preconditioner):
    """v = U (Λ + ρ)⁻¹ Uᵀ b + (b - U Uᵀ b) / τ in the metric, with H ≈ U Λ Uᵀ from `rank` products H Ω.

    H ≈ (HΩ)(ΩᵀHΩ)⁻¹(HΩ)ᵀ for noise Ω, tangent and orthonormalized, computed with the shift of Frangella, Tropp &
    Udell 2023, alg. 2.1; U is orthonormal. With a `shift` ρ > 0, τ = ρ: this is (H_k + ρ I)⁻¹ b of Hataya & Yamada
    2023. By default ρ = 0 and τ is the smallest eigenvalue in Λ, as in the first authors' preconditioner (with μ = 0):
    exact where `rank` reaches the dimension; below it, the error is what H has outside of U. A rank far below the
    dimension pays as a preconditioner: `Preconditioned(CG(), by=Nystrom(20))`.

    rank : the number of products, independent of each other (one batch on JAX); None: 20, or as many as noise has.
        A shape, so it cannot be chosen from the spectrum inside of a compiled function; more than there are
        coordinates is never taken.
    shift : ρ, in units of the eigenvalues.
    noise : a seed, then the noise is the same on every backend and for every problem of a batch; or the noise, shaped
        like the right-hand side with an axis of length rank in front.

    For positive self-adjoint operators; directions of negative curvature are left out of U. `steps` is the rank, and
    there is no tolerance to miss: the residual is the true one, `converged` is ‖b - B v‖ ≤ √eps ‖b‖.
    """

    rank: int | None = None
    shift: float | None = None
    noise: int | Tree = 0

    def __post_init__(self) -> None:
        require_count(self, "rank", least=1)
        require_number(self, "shift", above=0)
        if isinstance(self.noise, (bool, Integral)):
            require_count(self, "noise", least=0)

    @property
    def needs_self_adjoint(self) -> bool:
        """True."""
        return True

    @property
    def has_tolerance(self) -> bool:
        """False: a number of products was asked for."""
        return False

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`. From a guess: one step of refinement. Raises `ShapeError` for noise of another shape."""
        space = system.space
        scaled = relative(system, b, guess)
        size = covector_norm(system, scaled.b, system.raise_(scaled.b))
        v = space.add(scaled.start, self.preconditioner(system, scaled.b)(scaled.r))
        r = space.subtract(scaled.b, system.apply(v))
        norm = covector_norm(system, r, system.raise_(r))
        steps = space.counts(size) + self._rank(flat(space, b)[0])
        return scaled.solution(space, v, norm, steps, norm <= epsilon(size) ** 0.5 * size)

    def preconditioner(self, system: System, like: Tree) -> Callable[[Tree], Tree]:
        """See `Preconditioner`. Raises `ShapeError` for noise of another shape."""
        space, xp = system.space, system.space.backend.xp
        n, join, split = flat(space, like)
        if n == 0:
            return system.raise_
        noise = self._drawn(space, like, self._rank(n))
        rows = [join(tree_map(lambda a, i=i: a[i, ...], noise)) for i in range(self._rank(n))]
        found = low_rank(system, like, xp.stack(rows, axis=-2))
        one = xp.ones_like(found.values)
        values = xp.where(found.kept, found.values, one)
        if self.shift is None:
            tail = xp.min(xp.where(found.kept, values, xp.full_like(values, float("inf"))), axis=-1)
            tail = xp.where(xp.isfinite(tail), tail, one[..., 0])
        else:
            values, tail = values + self.shift, self.shift * one[..., 0]
        extra = xp.where(found.kept, 1 / values - 1 / tail[..., None], xp.zeros_like(values))

        def inverse(r: Tree) -> Tree:
            inside = extra * (found.vectors @ join(r)[..., None])[..., 0]
            outside = space.scale(1 / tail, system.raise_(r))
            return space.add(outside, split((inside[..., None, :] @ found.vectors)[..., 0, :]))

        return inverse

    def _rank(self, size: int) -> int:
        if self.rank is None and not isinstance(self.noise, Integral):
            return leaves(self.noise)[0].shape[0]
        return min(20 if self.rank is None else self.rank, size)

    def _drawn(self, space: Space, like: Tree, rank: int) -> Tree:
        """The noise, a tree with an axis of length `rank` in front."""
        if not isinstance(self.noise, Integral):
            shapes, wanted = ([tuple(a.shape) for a in leaves(t)] for t in (self.noise, like))
            if shapes != [(rank, *shape) for shape in wanted]:
                raise ShapeError(
                    f"Nystrom: noise has the shapes {shapes}; wanted is {rank} in front of each of {wanted}"
                )
            return self.noise
        rng, xp = np.random.default_rng(int(self.noise)), space.backend.xp

        def drawn(leaf: Array) -> Array:
            own = leaf.shape[space.ndim :]
            values = space.backend.noise(rng, (rank, *own), like=leaf)
            return xp.broadcast_to(xp.reshape(values, (rank, *(1,) * space.ndim, *own)), (rank, *leaf.shape))

        return tree_map(drawn, like)


def low_rank(system: System, like: Tree, sketch: Array) -> LowRank:
    """The Nystrom approximation of H = raise_∘B from the sketch, rows (*batch, k, n) of coordinates.

    Everything comes in pairs, covectors w and vectors v = raise_(w), so that Gram matrices in the metric are w vᵀ.
    """
    space, xp = system.space, system.space.backend.xp
    _, join, split = flat(space, like)
    eps, k = epsilon(sketch), sketch.shape[-2]

    def images(function: Callable[[Tree], Tree], rows: Array) -> Array:
        """`function` of every row, all at once where the backend can."""

        def image(weights: Array) -> Array:
            return join(function(split((weights[..., None, :] @ rows)[..., 0, :])))

        return space.backend.matrix(image, xp.zeros_like(rows[..., 0])).mT

    w = images(system.project, sketch)
    v = images(system.raise_, w)
    for _ in range(2):  # once leaves an error of eps times the condition of the sketch
        basis = _inverse_root(xp, w @ v.mT, 10 * k * eps)
        w, v = basis @ w, basis @ v
    image = images(system.apply, v)
    unit = xp.max(xp.abs(image), axis=(-2, -1), keepdims=True)
    unit = xp.where(unit > 0, unit, xp.ones_like(unit))
    image = image / unit
    raised = images(system.raise_, image)
    shift = eps * xp.sqrt(xp.sum(image * raised, axis=(-2, -1), keepdims=True))
    image, raised = image + shift * w, raised + shift * v
    # w vᵀ is I, but for rows of zeros where the tangent space is smaller than the sketch
    basis = _inverse_root(xp, image @ v.mT, 0.5 * eps)
    image, raised = basis @ image, basis @ raised
    values, turn = eigh_or_nan(xp, image @ raised.mT)
    kept = values > 100 * k * eps * xp.max(values, axis=-1, keepdims=True)
    values = xp.where(kept, values, xp.ones_like(values))
    root = xp.where(kept, 1 / xp.sqrt(values), xp.zeros_like(values))[..., None]
    image, raised = root * (turn.mT @ image), root * (turn.mT @ raised)
    # one step towards (w vᵀ)^-½, so that the inverse is positive whatever rounding did to small values
    gram = image @ raised.mT
    vectors = 1.5 * raised - 0.25 * (gram + gram.mT) @ raised
    return LowRank(unit[..., 0] * (values - shift[..., 0]), vectors, kept)


def _inverse_root(xp: Any, gram: Array, least: float) -> Array:
    """R with R gram Rᵀ = I where gram has eigenvalues above `least` times its largest, rows of zeros for the others."""
    values, turn = eigh_or_nan(xp, gram)
    kept = values > least * xp.max(values, axis=-1, keepdims=True)
    roots = 1 / xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    return xp.where(kept, roots, xp.zeros_like(roots))[..., None] * turn.mT
