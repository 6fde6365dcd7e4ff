"""A level on the sphere: the eigenvector of the smallest eigenvalue, with two exact derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import Euclidean, Sphere
from ..level import Argmin
from ..nested import Bilevel
from ._linear import apply, symmetric

Array = Any


@dataclass(frozen=True, eq=False)
class SmallestEigenvector:
    """min (1 + e·x) c·y* + ⅓ (d·y*)³ + ½ ‖x‖² over x in Rᵖ, y* = argmin ½ yᵀ A(x) y over the unit sphere.

    A(x) = A₀ + Σ xᵢ Aᵢ. base : A₀ (n, n); slopes : A₁ … A_p (p, n, n); c, d : (n,); e : (p,);
    reference : (n,). Of the two minima ±y* the one with y*·reference > 0 is meant. Every method broadcasts
    over leading axes of x and y.

    The lower cost's derivative at y* is λ y*, not zero: it is the connection that makes the Hessian A - λI,
    and a derivative of the solve that forgets how the tangent space turns with y is right to first order and
    wrong to second.
    """

    base: Array
    slopes: Array
    c: Array
    d: Array
    e: Array
    reference: Array

    def upper(self, x: Array, y: Array) -> Array:
        """(1 + e·x) c·y + ⅓ (d·y)³ + ½ ‖x‖², of the shape of the leading axes."""
        xp = namespace(x, y)
        linear = (1 + xp.sum(self.e * x, axis=-1)) * xp.sum(self.c * y, axis=-1)
        return linear + xp.sum(self.d * y, axis=-1) ** 3 / 3 + xp.sum(x * x, axis=-1) / 2

    def lower(self, x: Array, y: Array) -> Array:
        """½ yᵀ A(x) y, of the shape of the leading axes."""
        return namespace(x, y).sum(y * apply(self.matrix(x), y), axis=-1) / 2

    def matrix(self, x: Array) -> Array:
        """A(x) = A₀ + Σ xᵢ Aᵢ : (..., n, n)."""
        return self.base + self._combine(x)

    def solution(self, x: Array) -> Array:
        """y*(x) : (..., n), the unit eigenvector of the smallest eigenvalue, on the side of `reference`."""
        return self._decompose(x)[0]

    def objective(self, x: Array) -> Array:
        """The upper cost at the lower solution."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """∂ₓf - (zᵀ Aᵢ y)ᵢ with z = (A - λI)⁺ ∂_y f : (..., p). First-order perturbation theory."""
        y, vectors, gaps = self._decompose(x)
        f_x, f_y = self._derivatives(x, y)
        return f_x - self._couple(_pseudo(vectors, gaps, f_y), y)

    def hessian_product(self, x: Array, u: Array) -> Array:
        """The derivative of `euclidean_gradient` along u : (..., p). Second-order perturbation theory.

        ẏ = -(A - λI)⁺ Ȧ y, and z solves (A - λI) z = (I - y yᵀ) ∂_y f with y·z = 0. Both equations of z are
        differentiated; the tangent space turns, which gives the terms - ẏ (y·∂_y f) and - y (ẏ·z).
        """
        y, vectors, gaps = self._decompose(x)
        xp = namespace(x, u)
        _, f_y = self._derivatives(x, y)
        z = _pseudo(vectors, gaps, f_y)
        turn = self._combine(u)
        y_dot = -_pseudo(vectors, gaps, apply(turn, y))
        f_x_dot, f_y_dot = self._second_derivatives(x, y, u, y_dot)
        smallest_dot = _dot(xp, y, apply(turn, y))
        right = f_y_dot - y_dot * _dot(xp, y, f_y) - (apply(turn, z) - smallest_dot * z)
        z_dot = _pseudo(vectors, gaps, right) - y * _dot(xp, y_dot, z)
        return f_x_dot - self._couple(z_dot, y) - self._couple(z, y_dot)

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        p, n = self.slopes.shape[:2]
        return Bilevel(self.upper, Euclidean(p), Argmin(self.lower, Sphere(n)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A small random x, and `reference` as the first y: the descent from it ends at `solution(x)`."""
        backend = backend_of(self.e)
        return 0.2 * backend.noise(rng, tuple(self.e.shape), like=self.e), self.reference

    def _combine(self, x: Array) -> Array:
        """Σ xᵢ Aᵢ : (..., n, n)."""
        p, n = self.slopes.shape[:2]
        xp = namespace(x, self.slopes)
        return xp.reshape(x @ xp.reshape(self.slopes, (p, n * n)), (*x.shape[:-1], n, n))

    def _couple(self, z: Array, y: Array) -> Array:
        """(zᵀ Aᵢ y)ᵢ : (..., p)."""
        p, n = self.slopes.shape[:2]
        xp = namespace(z, y)
        outer = z[..., :, None] * y[..., None, :]
        return xp.reshape(outer, (*outer.shape[:-2], n * n)) @ xp.reshape(self.slopes, (p, n * n)).mT

    def _decompose(self, x: Array) -> tuple[Array, Array, Array]:
        """y*, the other eigenvectors (..., n, n-1), and their eigenvalues less the smallest one."""
        xp = namespace(x)
        values, vectors = xp.linalg.eigh(symmetric(self.matrix(x)))
        first = vectors[..., :, 0]
        side = xp.sign(xp.sum(first * self.reference, axis=-1))[..., None]
        return first * side, vectors[..., :, 1:], values[..., 1:] - values[..., :1]

    def _derivatives(self, x: Array, y: Array) -> tuple[Array, Array]:
        """∂ₓf (..., p) and ∂_y f (..., n)."""
        xp = namespace(x, y)
        f_x = x + self.e * _dot(xp, self.c, y)
        return f_x, self.c * (1 + _dot(xp, self.e, x)) + self.d * _dot(xp, self.d, y) ** 2

    def _second_derivatives(self, x: Array, y: Array, u: Array, v: Array) -> tuple[Array, Array]:
        """The derivatives of ∂ₓf and ∂_y f along (u, v)."""
        xp = namespace(x, y)
        bend = 2 * _dot(xp, self.d, y) * _dot(xp, self.d, v)
        return u + self.e * _dot(xp, self.c, v), self.c * _dot(xp, self.e, u) + self.d * bend


def _dot(xp: Any, a: Array, b: Array) -> Array:
    """a·b over the last axis, which is kept: (..., 1)."""
    return xp.sum(a * b, axis=-1, keepdims=True)


def _pseudo(vectors: Array, gaps: Array, b: Array) -> Array:
    """(A - λI)⁺ b : (..., n)."""
    return apply(vectors, apply(vectors.mT, b) / gaps)


def smallest_eigenvector(*, like: Array, n: int = 6, p: int = 3, seed: int = 0) -> SmallestEigenvector:
    """Random data with the framework, dtype and device of `like`: A₀ has the eigenvalues 1, 2, …, n.

    The slopes are symmetric, of spectral norm 1, so that the smallest eigenvalue stays simple while
    ‖x‖₁ < ½. `reference` is the smallest eigenvector of A₀. Drawn in float64 by NumPy.
    """
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    slopes = rng.standard_normal((p, n, n))
    slopes = slopes + slopes.transpose(0, 2, 1)
    slopes /= np.linalg.norm(slopes, 2, axis=(1, 2))[:, None, None]
    vectors = (rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(p), q[:, 0])
    asarray = backend_of(like).asarray
    parts = ((q * np.arange(1.0, n + 1)) @ q.T, slopes, *vectors)
    return SmallestEigenvector(*(asarray(part, like=like) for part in parts))
