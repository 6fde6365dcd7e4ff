"""Matrices x of full rank modulo x ~ xq, q orthogonal (unitary): what is horizontal, and the nearest representative.

Both need the operator Ω ↦ gΩ + Ωg (a Lyapunov equation), which is inverted in the eigenbasis of g. Its derivatives are
such solves again, so nothing is differentiated through a decomposition and equal eigenvalues do no harm.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, final

from ..backends import backend_of, namespace
from ._base import Quotient
from ._checks import is_size
from ._linalg import dot, eye_like, fit, is_complex, mT, qr_unique, sym
from ._smooth import root

Array = Any


@dataclass(frozen=True)
class Factored(Quotient, ABC):
    """Manifolds of matrices x xᵀ of rank k, given by factors x : (..., n, k) of full rank modulo O(k)."""

    n: int
    k: int

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_sizes(name, n=self.n, k=self.k)
        if self.k > self.n:
            raise ValueError(f"{name}(n, k): the rank k = {self.k} is at most n = {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.k)

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    @final
    def align(self, x: Array, y: Array) -> Array:
        """The yq nearest to x: q is the polar factor of yᵀx (orthogonal Procrustes). Schönemann 1966."""
        return y @ polar_factor(mT(y) @ x)

    @final
    def vertical(self, x: Array, w: Array) -> Array:
        """|xΩ|, the part of `w` in the vertical space {xΩ : Ω skew}."""
        part = vertical_part(x, w)
        squared = dot(part, part, 2)
        return root(namespace(squared), squared)


def check_sizes(name: str, **sizes: Any) -> None:
    """Raise `ValueError` unless all `sizes` are integers ≥ 1."""
    if not all(map(is_size, sizes.values())):
        given = ", ".join(f"{letter} = {size!r}" for letter, size in sizes.items())
        raise ValueError(f"{name}({', '.join(sizes)}) takes integers ≥ 1, not {given}")


def conditioned(z: Array) -> Array:
    """z + √n q = q (r + √n I) with z = qr : (..., n, k): noise, kept away from matrices of lower rank."""
    return z + z.shape[-2] ** 0.5 * qr_unique(z)


def rank_defect(x: Array) -> Array:
    """0 where x : (..., n, k) has numerical rank k: σₖ > n eps σ₁; else 1, and inf where x is not finite."""
    xp = namespace(x)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1))
    safe = xp.where(finite[..., None, None], x, xp.zeros_like(x))
    values = xp.linalg.svdvals(safe)
    zero = 0.0 * values[..., 0]
    full = values[..., -1] > x.shape[-2] * float(xp.finfo(x.dtype).eps) * values[..., 0]
    return xp.where(finite, xp.where(full, zero, zero + 1), zero + float("inf"))


def vertical_part(x: Array, a: Array) -> Array:
    """xΩ with Ω skew and xᵀ(a - xΩ) symmetric: gΩ + Ωg = xᵀa - aᵀx, g = xᵀx."""
    adjoint = mT(x)
    g, c = adjoint @ x, adjoint @ a
    return x @ lyapunov(g, c - mT(c))


def lyapunov(g: Array, c: Array, decomposition: tuple[Array, Array] | None = None) -> Array:
    """The Ω with gΩ + Ωg = c, for positive definite g and skew c : (..., k, k).

    `decomposition` holds the eigenvalues and -vectors of g, as constants, where they are known.
    """
    k, xp = g.shape[-1], namespace(g, c)
    if k == 1 or (k == 2 and not is_complex(c.dtype)):
        # all skew matrices are multiples of one: gΩ + Ωg = tr(g) Ω
        return c / ((3 - k) * xp.linalg.trace(g))[..., None, None]
    backend = backend_of(g, c)
    values, vectors = decomposition or _eigh(backend.stop_gradient(g))
    return _lyapunov(backend)(fit(g, c), fit(c, g), values, vectors)


def _eigh(a: Array) -> tuple[Array, Array]:
    values, vectors = namespace(a).linalg.eigh(sym(a))
    return values, vectors


@cache
def _lyapunov(backend: Any) -> Callable[..., Array]:
    """The solution for `g, c, values, vectors`; linear in c and, in the real dot, its own transpose."""

    def function(g: Array, c: Array, values: Array, vectors: Array) -> Array:
        adjoint = mT(vectors)
        return vectors @ ((adjoint @ c @ vectors) / (values[..., :, None] + values[..., None, :])) @ adjoint

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        g, _, *decomposition = primals
        moved_g, moved_c, *_ = tangents
        right = None if moved_g is None else -(moved_g @ out + out @ moved_g)
        if moved_c is not None:
            right = moved_c if right is None else right + moved_c
        return 0.0 * out if right is None else _lyapunov(backend)(g, right, *decomposition)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        g, _, *decomposition = primals
        pulled = _lyapunov(backend)(g, cotangent, *decomposition)
        adjoint = mT(out)
        return (-(pulled @ adjoint + adjoint @ pulled) if needs[0] else None, pulled, None, None)

    return backend.custom_derivative(function, pushforward, pullback)


def polar_factor(m: Array) -> Array:
    """The orthonormal q of m = qh, h positive definite, for m : (..., n, k) of rank k ≤ n.

    The nearest matrix with orthonormal columns. Derivatives to every order, at equal singular values too: with
    a = qᵀm' it is q' = q Ω + (I - qqᵀ) m' h⁻¹, hΩ + Ωh = a - aᵀ. Higham 2008, ch. 8.
    """
    n, k = m.shape[-2:]
    if k == 1:
        return _normalized(m, dot(m, m, 2, keepdims=True))
    if n == k == 2 and not is_complex(m.dtype):
        return _polar_factor_2(m)
    backend = backend_of(m)
    plain = backend.stop_gradient(m)
    return _polar(backend)(m, *namespace(plain).linalg.svd(plain, full_matrices=False))


def _polar_factor_2(m: Array) -> Array:
    """m ± its cofactors, normalized: a multiple of a rotation or reflection. Higham 2008, ch. 8."""
    xp = namespace(m)
    signs = 2 * eye_like(m, 2) - 1
    determinant = m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]
    ones = xp.ones_like(determinant)
    side = xp.where(determinant < 0, -ones, ones)[..., None, None]
    q = m + side * (signs * xp.flip(m, axis=(-2, -1)))
    return _normalized(q, 0.5 * dot(q, q, 2, keepdims=True))


def _normalized(q: Array, squared: Array) -> Array:
    """q/√squared; I where q = 0, of which every orthonormal matrix is a polar factor."""
    xp, nothing = namespace(q), squared == 0
    eye = xp.eye(*q.shape[-2:], dtype=q.dtype, device=backend_of(q).device(q))
    return xp.where(nothing, eye, q) / xp.sqrt(xp.where(nothing, xp.ones_like(squared), squared))


@cache
def _polar(backend: Any) -> Callable[..., Array]:
    """The factor for `m, left, values, right` with m = left diag(values) right."""

    def function(m: Array, left: Array, values: Array, right: Array) -> Array:
        return left @ right

    def derivative(primals: tuple, q: Array, e: Array) -> Array:
        """q' in the direction e; as a function of e it is its own transpose."""
        m, _, values, right = primals
        adjoint = mT(q)
        h, a = sym(adjoint @ m), adjoint @ e
        result = q @ lyapunov(h, a - mT(a), (values, mT(right)))
        if m.shape[-2] == m.shape[-1]:
            return result
        return result + (e - q @ a) @ namespace(h).linalg.inv(h)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        return 0.0 * out if tangents[0] is None else derivative(primals, out, tangents[0])

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        return derivative(primals, out, cotangent), None, None, None

    return backend.custom_derivative(function, pushforward, pullback)
