"""Symmetric positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._base import Congruence, Geodesic
from ._linalg import dot, eye_like, fit, sym
from ._spectral import Exp, Log, Sqrt, spectral

Array = Any


@dataclass(frozen=True)
class SPD(Geodesic, Congruence):
    """Symmetric positive definite n × n matrices with ⟨u, v⟩ₓ = tr(x⁻¹u x⁻¹v). Bhatia 2007, ch. 6.

    x, u, w : (..., n, n). With x = llᵀ (Cholesky), a ↦ l⁻¹a l⁻ᵀ is an isometry that takes x to I: exp, log,
    distance and transports there are one function of one symmetric matrix.
    """

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """tr(x⁻¹u x⁻¹v)."""
        inverse = namespace(x).linalg.inv(x)
        left = inverse @ u
        return dot(left, (left if v is u else inverse @ v).mT, 2)

    def project(self, x: Array, a: Array) -> Array:
        """sym(a)."""
        return fit(sym(a), x)

    def sharp(self, x: Array, w: Array) -> Array:
        """x sym(w) x."""
        return x @ sym(w) @ x

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """sym(x⁻¹ u sym(w))."""
        return sym(namespace(x).linalg.inv(x) @ u @ sym(w))

    def factor(self, x: Array) -> Array:
        """The Cholesky factor l, x = llᵀ."""
        return namespace(x).linalg.cholesky(sym(x))

    def retract(self, x: Array, u: Array) -> Array:
        """x + u + u x⁻¹u/2 = x/2 + (x + u) x⁻¹ (x + u)/2: positive for every u. Second order.

        Jeuris, Vandebril & Vandereycken 2012, eq. (3.10).
        """
        return sym(x + u + 0.5 * (u @ namespace(x).linalg.inv(x) @ u))

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """e u eᵀ with e = l_y l_x⁻¹ of the Cholesky factors: an isometry, smooth, without eigenvalues."""
        _, inverse = _factor(x)
        e = namespace(y).linalg.cholesky(sym(y)) @ inverse
        return sym(e @ u @ e.mT)

    def from_noise(self, z: Array) -> Array:
        """The exponential at I of sym(z)/√n: eigenvalues mostly between 1/5 and 5."""
        return spectral(Exp())(z * self.n**-0.5)

    def defect(self, x: Array) -> Array:
        """|x - xᵀ|/|x|, plus 1 - λ where the smallest eigenvalue λ is not positive; inf if not finite."""
        xp = namespace(x)
        finite = xp.all(xp.isfinite(x), axis=(-2, -1))
        safe = xp.where(finite[..., None, None], x, eye_like(x, self.n))
        smallest = xp.min(xp.linalg.eigvalsh(sym(safe)), axis=-1)
        zero = 0.0 * smallest
        skew = safe - safe.mT
        size = xp.sqrt(dot(safe, safe, 2))
        asymmetry = xp.sqrt(dot(skew, skew, 2)) / xp.where(size > 0, size, zero + 1)
        off = asymmetry + xp.where(smallest > 0, zero, 1 - smallest)
        return xp.where(finite, off, zero + float("inf"))

    def exp(self, x: Array, u: Array) -> Array:
        """l exp(l⁻¹u l⁻ᵀ) lᵀ."""
        l, inverse = _factor(x)
        return sym(l @ spectral(Exp())(inverse @ u @ inverse.mT) @ l.mT)

    def log(self, x: Array, y: Array) -> Array:
        """l log(l⁻¹y l⁻ᵀ) lᵀ."""
        l, inverse = _factor(x)
        return sym(l @ spectral(Log())(inverse @ y @ inverse.mT) @ l.mT)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(l⁻¹y l⁻ᵀ)|²: the squared logarithms of the eigenvalues of x⁻¹y, summed."""
        _, inverse = _factor(x)
        log = spectral(Log())(inverse @ y @ inverse.mT)
        return dot(log, log, 2)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """e u eᵀ with e = (y x⁻¹)^(1/2) = l (l⁻¹y l⁻ᵀ)^(1/2) l⁻¹."""
        l, inverse = _factor(x)
        e = l @ spectral(Sqrt())(inverse @ y @ inverse.mT) @ inverse
        return sym(e @ u @ e.mT)


def _factor(x: Array) -> tuple[Array, Array]:
    """`l, l⁻¹` with x = llᵀ."""
    linalg = namespace(x).linalg
    l = linalg.cholesky(sym(x))
    return l, linalg.inv(l)
