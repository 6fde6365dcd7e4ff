"""Symmetric positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Any, final

from ..backends import namespace
from ._base import Congruence, Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._cholesky import cholesky as cholesky
from ._cholesky import whitening as whitening
from ._linalg import batch_full, dot, eye_like, fit, is_complex, mT, sym
from ._spectral import Exp, Log, Sqrt, congruent, spectral, squared_log

Array = Any


def check_size(manifold: Any, least: int = 1) -> None:
    """Raise `ValueError` unless `manifold.n` is an integer ≥ `least`."""
    n = manifold.n
    if not is_size(n, least):
        raise ValueError(f"{type(manifold).__name__}(n) needs an integer n ≥ {least}, not {n!r}")


class AffineInvariant(Geodesic):
    """What is the same on all positive definite matrices with ⟨u, v⟩ₓ = tr(x⁻¹u x⁻¹v), real or complex.

    With x = llᵀ (Cholesky), a ↦ l⁻¹a l⁻ᵀ is an isometry that takes x to I: exp, log, distance and transports
    there are one function of one symmetric matrix.
    """

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @final
    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """tr(x⁻¹u x⁻¹v)."""
        linalg = namespace(x, u).linalg
        if v is u and u.shape == x.shape:
            left = linalg.solve(x, u)
            return dot(left, mT(left), 2)
        inverse = linalg.inv(x)
        return dot(inverse @ u @ inverse, v, 2)

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """e u eᵀ with e = l_y l_x⁻¹ of the Cholesky factors: an isometry, smooth, without eigenvalues."""
        e = cholesky(y) @ whitening(x)[1]
        return sym(e @ u @ mT(e))

    @final
    def exp(self, x: Array, u: Array) -> Array:
        """l exp(l⁻¹u l⁻ᵀ) lᵀ."""
        l, inverse = whitening(x)
        return congruent(Exp(), inverse @ u @ mT(inverse), l)

    @final
    def log(self, x: Array, y: Array) -> Array:
        """l log(l⁻¹y l⁻ᵀ) lᵀ."""
        l, inverse = whitening(x)
        return congruent(Log(), inverse @ y @ mT(inverse), l)

    @final
    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(l⁻¹y l⁻ᵀ)|²: the squared logarithms of the eigenvalues of x⁻¹y, summed."""
        _, inverse = whitening(x)
        return squared_log(inverse @ y @ mT(inverse))

    @final
    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """e u eᵀ with e = (y x⁻¹)^(1/2) = l (l⁻¹y l⁻ᵀ)^(1/2) l⁻¹."""
        l, inverse = whitening(x)
        e = l @ spectral(Sqrt())(inverse @ y @ mT(inverse)) @ inverse
        return sym(e @ u @ mT(e))


@dataclass(frozen=True)
class AllPositiveDefinite(AffineInvariant, Congruence, InverseRetraction, Curvature, ABC):
    """All of them, of one size: SPD(n) and HPD(n), which differ by their dimension."""

    n: int

    def __post_init__(self) -> None:
        check_size(self)

    @final
    def project(self, x: Array, a: Array) -> Array:
        """sym(a)."""
        return fit(sym(a), x)

    @final
    def sharp(self, x: Array, w: Array) -> Array:
        """x sym(w) x."""
        return x @ sym(w) @ x

    @final
    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """sym(x⁻¹ u sym(w))."""
        return sym(namespace(x).linalg.inv(x) @ u @ sym(w))

    @final
    def factor(self, x: Array) -> Array:
        """The Cholesky factor l, x = llᵀ."""
        return cholesky(x)

    @final
    def retract(self, x: Array, u: Array) -> Array:
        """x + u + u x⁻¹u/2 = x/2 + (x + u) x⁻¹ (x + u)/2: positive for every u. Second order.

        Jeuris, Vandebril & Vandereycken 2012, eq. (3.10).
        """
        return second_order(x, u)

    @final
    def inverse_retract(self, x: Array, y: Array) -> Array:
        """l ((2 l⁻¹y l⁻ᵀ - I)^(1/2) - I) lᵀ, where 2y - x is positive definite (NaN elsewhere).

        `retract` is s ↦ ((I + s)² + I)/2 at I: of the vectors that go to y, this is the one with I + s > 0.
        """
        l, inverse = whitening(x)
        gap = inverse @ (y - x) @ mT(inverse)
        eye = eye_like(x, self.n)
        root = spectral(Sqrt())(eye + 2 * gap)
        # not root - I: no digits are lost where y is close to x
        return sym(2 * (l @ gap @ namespace(root).linalg.inv(eye + root) @ mT(l)))

    @final
    def from_noise(self, z: Array) -> Array:
        """The exponential at I of sym(z)/√n: eigenvalues mostly between 1/5 and 5."""
        return spectral(Exp())(gaussian(z))

    @final
    def defect(self, x: Array) -> Array:
        """|x - xᵀ|/|x|, plus 1 - λ where the smallest eigenvalue λ is not positive; inf if not finite."""
        return indefiniteness(x)[0]

    @final
    def injectivity_radius(self, x: Array) -> Array:
        """Infinity."""
        return batch_full(x, 2, float("inf"))

    @final
    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """-1/2 and 0, attained for n > 1: K = -|[u, v]|²/4 for orthonormal u, v at I, and |[u, v]|² ≤ 2."""
        return batch_full(x, 2, -0.5), batch_full(x, 2, 0.0)


@final
class SPD(AllPositiveDefinite):
    """Symmetric positive definite n × n matrices with ⟨u, v⟩ₓ = tr(x⁻¹u x⁻¹v). Bhatia 2007, ch. 6.

    x, u, w : (..., n, n). All methods take Hermitian matrices too; `HPD` has their dimension.
    """

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2


def second_order(x: Array, u: Array) -> Array:
    """x + u + u x⁻¹u/2."""
    linalg = namespace(x, u).linalg
    quotient = linalg.solve(x, u) if u.shape == x.shape else linalg.inv(x) @ u
    return sym(x + u + 0.5 * (u @ quotient))


def gaussian(z: Array) -> Array:
    """sym(z)/√n, for complex noise (of twice the variance) sym(z)/√2n: a matrix with eigenvalues mostly in ±√2."""
    return sym(z) * ((2 if is_complex(z.dtype) else 1) * z.shape[-1]) ** -0.5


def indefiniteness(x: Array) -> tuple[Array, Array]:
    """How far `x` is from a positive definite matrix, as in `SPD.defect`, and its eigenvalues (1 if not finite)."""
    xp = namespace(x)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1))
    safe = xp.where(finite[..., None, None], x, eye_like(x, x.shape[-1]))
    values = xp.linalg.eigvalsh(sym(safe))
    smallest = xp.min(values, axis=-1)
    zero = 0.0 * smallest
    skew = safe - mT(safe)
    size = xp.sqrt(dot(safe, safe, 2))
    asymmetry = xp.sqrt(dot(skew, skew, 2)) / xp.where(size > 0, size, zero + 1)
    off = asymmetry + xp.where(smallest > 0, zero, 1 - smallest)
    return xp.where(finite, off, zero + float("inf")), values
