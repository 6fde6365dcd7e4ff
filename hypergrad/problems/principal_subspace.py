"""A level on the Grassmann manifold: the principal subspace of a matrix that moves with x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import ShapeError, backend_of, namespace
from ...manifolds import Euclidean, Grassmann
from ..level import Argmin
from ..nested import Bilevel
from ._linear import symmetric

Array = Any


@dataclass(frozen=True, eq=False)
class PrincipalSubspace:
    """min ½ tr(Y*ᵀ B Y*)² + ½ ‖x‖² over x in Rᵖ, Y* = argmax tr(Yᵀ A(x) Y)/2 over the k-dimensional subspaces of Rⁿ.

    A(x) = A₀ + Σ xᵢ Aᵢ. base : A₀ (n, n); slopes : A₁ … A_p (p, n, n); weight : B (n, n), all symmetric. Every method
    broadcasts over leading axes of x and y. Both costs depend on the subspace alone.
    """

    base: Array
    slopes: Array
    weight: Array
    k: int

    def upper(self, x: Array, y: Array) -> Array:
        """½ tr(Yᵀ B Y)² + ½ ‖x‖², of the shape of the leading axes."""
        xp = namespace(x, y)
        return (xp.sum(y * (self.weight @ y), axis=(-2, -1)) ** 2 + xp.sum(x * x, axis=-1)) / 2

    def lower(self, x: Array, y: Array) -> Array:
        """-½ tr(Yᵀ A(x) Y)."""
        return -namespace(x, y).sum(y * (self.matrix(x) @ y), axis=(-2, -1)) / 2

    def matrix(self, x: Array) -> Array:
        """A(x) = A₀ + Σ xᵢ Aᵢ : (..., n, n)."""
        p, n = self.slopes.shape[:2]
        xp = namespace(x, self.slopes)
        return self.base + xp.reshape(x @ xp.reshape(self.slopes, (p, n * n)), (*x.shape[:-1], n, n))

    def solution(self, x: Array) -> Array:
        """The eigenvectors of the k largest eigenvalues : (..., n, k)."""
        return namespace(x).linalg.eigh(symmetric(self.matrix(x)))[1][..., -self.k :]

    def objective(self, x: Array) -> Array:
        """The upper cost at the principal subspace."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """x + 2 tr(YᵀBY) Σᵢⱼ (uᵢᵀ B zⱼ)(zⱼᵀ Aₖ uᵢ)/(μᵢ - νⱼ), uᵢ, μᵢ inside of the subspace, zⱼ, νⱼ outside.

        The derivative of the projector Y Yᵀ, by first-order perturbation theory: (..., p).
        """
        xp, (p, n) = namespace(x), self.slopes.shape[:2]
        values, vectors = xp.linalg.eigh(symmetric(self.matrix(x)))
        inside, outside = vectors[..., -self.k :], vectors[..., : -self.k]
        gaps = values[..., None, -self.k :] - values[..., : -self.k, None]
        coupling = outside @ ((outside.mT @ self.weight @ inside) / gaps) @ inside.mT
        trace = xp.sum(inside * (self.weight @ inside), axis=(-2, -1))
        flat = xp.reshape(coupling, (*x.shape[:-1], n * n)) @ xp.reshape(self.slopes, (p, n * n)).mT
        return x + 2 * trace[..., None] * flat

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        p, n = self.slopes.shape[:2]
        return Bilevel(self.upper, Euclidean(p), Argmin(self.lower, Grassmann(n, self.k)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A small random x, and the principal subspace of A₀."""
        backend = backend_of(self.base)
        x = 0.2 * backend.noise(rng, (self.slopes.shape[0],), like=self.base)
        return x, self.solution(0 * x)


def principal_subspace(*, like: Array, n: int = 6, k: int = 2, p: int = 3, seed: int = 0) -> PrincipalSubspace:
    """Random data with the framework, dtype and device of `like`: A₀ has the eigenvalues 1, 2, …, n; 1 ≤ k < n.

    The slopes are symmetric, of spectral norm 1, so that the subspace stays unique while ‖x‖₁ < ½. Drawn in float64 by
    NumPy. Raises `ShapeError` for another k.
    """
    if not 1 <= k < n:
        raise ShapeError(f"a principal subspace needs 1 <= k < n, got k={k}, n={n}")
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    slopes, weight = rng.standard_normal((p, n, n)), rng.standard_normal((n, n))
    slopes = slopes + slopes.transpose(0, 2, 1)
    slopes /= np.linalg.norm(slopes, 2, axis=(1, 2))[:, None, None]
    asarray = backend_of(like).asarray
    base, weight = (q * np.arange(1.0, n + 1)) @ q.T, (weight + weight.T) / 2
    return PrincipalSubspace(asarray(base, like=like), asarray(slopes, like=like), asarray(weight, like=like), k)
