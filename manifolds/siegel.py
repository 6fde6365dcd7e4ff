"""The Siegel upper half space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._conformal import check_size
from ._linalg import batch_full, dot, eye_like, sym
from ._spectral import Exp, Log, Sqrt, spectral

Array = Any


@dataclass(frozen=True)
class SiegelUpperHalfSpace(Geodesic, InverseRetraction, Curvature):
    """Complex symmetric n × n matrices x + iy with y positive definite, ⟨u, v⟩ = Re tr(y⁻¹ u y⁻¹ v̄). Siegel 1943.

    z, u, w : (..., n, n), complex; z = x + iy is the point here. For n = 1 the half plane with |dz|²/y², of
    curvature -1. With y = llᵀ, a ↦ l⁻¹(a - x)l⁻ᵀ is an isometry that takes z to iI, where u + iv stands for the
    symmetric matrix s = (v, u; u, -v): there geodesics are those of positive definite 2n × 2n matrices,

        exp(s) = (y + x y⁻¹x, x y⁻¹; y⁻¹x, y⁻¹).

    Distances d cost e²ᵈ eps digits: the small half of the eigenvalues of exp(s) is lost in the large one.
    """

    n: int

    def __post_init__(self) -> None:
        check_size("SiegelUpperHalfSpace", self.n)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Re tr(y⁻¹ u y⁻¹ v̄)."""
        inverse = _complex(namespace(x).linalg.inv(_parts(x)[1]), x)
        return dot(_symmetric(v), inverse @ u @ inverse, 2)

    def project(self, x: Array, a: Array) -> Array:
        """(a + aᵀ)/2, without conjugation."""
        return _symmetric(a) + 0 * x

    def sharp(self, x: Array, w: Array) -> Array:
        """y (w + wᵀ) y/2."""
        y = _complex(_parts(x)[1], x)
        return y @ _symmetric(w) @ y

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """i (y⁻¹ ū w + w ū y⁻¹)/2 for symmetric w: geodesics have z̈ = -i ż y⁻¹ ż."""
        xp = namespace(x)
        half = _complex(xp.linalg.inv(_parts(x)[1]), x) @ xp.conj(u) @ _symmetric(w)
        return 1j * _symmetric(half)

    def retract(self, x: Array, u: Array) -> Array:
        """`exp`."""
        return self.exp(x, u)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """`log`."""
        return self.log(x, y)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """e u eᵀ with e = l_y l_x⁻¹ of the Cholesky factors of the imaginary parts: an isometry."""
        linalg = namespace(x).linalg
        e = _complex(linalg.cholesky(_parts(y)[1]) @ linalg.inv(linalg.cholesky(_parts(x)[1])), x)
        return _symmetric(e @ u @ e.mT)

    def from_noise(self, z: Array) -> Array:
        """x + i exp(y) for the symmetric parts x + iy of z/√n."""
        real, imaginary = _parts(z * self.n**-0.5)
        return _join(real, spectral(Exp())(imaginary), z)

    def defect(self, x: Array) -> Array:
        """|z - zᵀ|/|z|, plus 1 - λ where the smallest eigenvalue λ of y is not positive; inf if not finite."""
        xp = namespace(x)
        finite = xp.all(xp.isfinite(x), axis=(-2, -1))
        safe = xp.where(finite[..., None, None], x, 1j * eye_like(x, self.n))
        smallest = xp.min(xp.linalg.eigvalsh(_parts(safe)[1]), axis=-1)
        skew, zeros = safe - safe.mT, xp.zeros_like(smallest)
        size = dot(safe, safe, 2)
        asymmetry = xp.sqrt(dot(skew, skew, 2) / xp.where(size > 0, size, zeros + 1))
        off = asymmetry + xp.where(smallest > 0, zeros, 1 - smallest)
        return xp.where(finite, off, zeros + float("inf"))

    def exp(self, x: Array, u: Array) -> Array:
        """x + l z lᵀ with z read off exp(s), s of l⁻¹u l⁻ᵀ."""
        l, inverse = _whitening(x)
        u, v = _parts(inverse @ u @ inverse.mT)
        moved = _read(spectral(Exp())(_blocks(v, u, -v)), x)
        return _symmetric(_real(x) + l @ moved @ l.mT)

    def log(self, x: Array, y: Array) -> Array:
        """l (u + iv) lᵀ with s = log of the matrix of l⁻¹(y - Re x)l⁻ᵀ."""
        l, _ = _whitening(x)
        s = spectral(Log())(self._seen_from(x, y))
        n = self.n
        v, u = 0.5 * (s[..., :n, :n] - s[..., n:, n:]), s[..., :n, n:]
        return _symmetric(l @ _join(u, v, x) @ l.mT)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|s|²/2: the sum of (2 artanh r)² over the singular values r of the cross ratio."""
        s = spectral(Log())(self._seen_from(x, y))
        return 0.5 * dot(s, s, 2)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """As of positive definite matrices: t ↦ e t e with e = exp(s/2), for the matrix t of l⁻¹u l⁻ᵀ."""
        l, inverse = _whitening(x)
        there = self._seen_from(x, y)
        e = spectral(Sqrt())(there)
        u, v = _parts(inverse @ u @ inverse.mT)
        t = e @ _blocks(v, u, -v) @ e
        n, linalg = self.n, namespace(e).linalg
        height = linalg.inv(sym(there[..., n:, n:]))
        right = t[..., n:, n:] @ height
        real = t[..., :n, n:] @ height - there[..., :n, n:] @ height @ right
        return _symmetric(l @ _join(real, -(height @ right), x) @ l.mT)

    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return batch_full(x, 2, float("inf"))

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """-1 and 0, both attained for n > 1; -1 for n = 1."""
        return batch_full(x, 2, -1.0), batch_full(x, 2, 0.0 if self.n > 1 else -1.0)

    def _seen_from(self, x: Array, y: Array) -> Array:
        """The positive definite matrix of l⁻¹(y - Re x)l⁻ᵀ."""
        _, inverse = _whitening(x)
        real, imaginary = _parts(inverse @ (y - _real(x)) @ inverse.mT)
        low = namespace(real).linalg.inv(imaginary)
        side = real @ low
        return _blocks(imaginary + side @ real, side, low)


def _symmetric(a: Array) -> Array:
    return 0.5 * (a + a.mT)


def _parts(a: Array) -> tuple[Array, Array]:
    """The real and imaginary parts, symmetric."""
    xp = namespace(a)
    return sym(xp.real(a)), sym(xp.imag(a))


def _complex(a: Array, like: Array) -> Array:
    return namespace(a).astype(a, like.dtype)


def _join(real: Array, imaginary: Array, like: Array) -> Array:
    return _complex(real, like) + 1j * _complex(imaginary, like)


def _real(x: Array) -> Array:
    """Re x as a complex array."""
    return _complex(_parts(x)[0], x)


def _whitening(x: Array) -> tuple[Array, Array]:
    """`l, l⁻¹` of Im x = llᵀ, complex."""
    linalg = namespace(x).linalg
    l = linalg.cholesky(_parts(x)[1])
    return _complex(l, x), _complex(linalg.inv(l), x)


def _blocks(a: Array, b: Array, d: Array) -> Array:
    """(a, b; bᵀ, d)."""
    xp = namespace(a)
    return xp.concat([xp.concat([a, b], axis=-1), xp.concat([b.mT, d], axis=-1)], axis=-2)


def _read(p: Array, like: Array) -> Array:
    """The point x + iy of a matrix (y + x y⁻¹x, x y⁻¹; y⁻¹x, y⁻¹)."""
    n = like.shape[-1]
    y = namespace(p).linalg.inv(sym(p[..., n:, n:]))
    return _join(sym(p[..., :n, n:] @ y), sym(y), like)
