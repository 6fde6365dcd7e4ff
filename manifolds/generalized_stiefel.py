"""Matrices whose columns are orthonormal in a given inner product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import backend_of, namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._linalg import dot, eye_like, fit, mT, qr_unique, sym
from ._lyapunov import definite_lyapunov, lyapunov
from ._parameters import known
from ._spectral import InverseSqrt, spectral
from ._stiefel_geodesics import ends, logarithm, transported
from .stiefel import EUCLIDEAN, Stiefel, check_sizes

Array = Any


@dataclass(frozen=True, eq=False)
class GeneralizedStiefel(Geodesic, InverseRetraction, Curvature):
    """{x : xᴴBx = I}, real or complex, with ⟨u, v⟩ₓ = Re tr uᴴBv, for a positive definite B.

    x, u, w : (..., n, p), n ≥ p; B : (..., n, n). With B = llᴴ, x ↦ lᴴx is an isometry onto Stiefel(n, p) with the
    Euclidean metric; all but `sharp` and `from_noise` are products with B alone. Absil, Mahony & Sepulchre 2008,
    §4.5.2 (the problem); Shustin & Avron 2023 (the geometry).
    """

    n: int
    p: int
    B: Array

    parameters: ClassVar[tuple[str, ...]] = ("B",)

    def __post_init__(self) -> None:
        check_sizes("GeneralizedStiefel", self.n, self.p)
        shape = tuple(getattr(self.B, "shape", ()))
        if shape[-2:] != (self.n, self.n):
            raise ValueError(f"GeneralizedStiefel: B has shape {shape}; it must end in ({self.n}, {self.n})")
        if known(self.B) and not _definite(self.B):
            raise ValueError("GeneralizedStiefel: B must be symmetric (Hermitian) and positive definite")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.p)

    @property
    def dim(self) -> int:
        return self.n * self.p - self.p * (self.p + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·(Bv)."""
        return dot(fit(u, x), self.B @ v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - Bxs with s symmetric and xᴴB²x s + s xᴴB²x = 2 sym(xᴴBa): orthogonal in the ambient dot."""
        y = self.B @ x
        adjoint = mT(y)
        return a - y @ definite_lyapunov(adjoint @ y, 2 * sym(adjoint @ a))

    def sharp(self, x: Array, w: Array) -> Array:
        """B⁻¹w - x sym(xᴴw)."""
        return namespace(self.B, w).linalg.solve(self.B, w) - x @ sym(mT(x) @ w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-Bu sym(xᴴw)."""
        return -(self.B @ (u @ sym(mT(x) @ w)))

    def retract(self, x: Array, u: Array) -> Array:
        """(x + u)((x + u)ᴴB(x + u))^(-1/2), the polar retraction of lᴴx: second order."""
        y = x + u
        return y @ spectral(InverseSqrt())(mT(y) @ self.B @ y)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y s - x with s symmetric and ms + smᴴ = 2I, m = xᴴBy; NaN where y is too far."""
        m = mT(x) @ self.B @ y
        return y @ lyapunov(m, 2.0 * eye_like(m, self.p)) - x

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """u - y sym(yᴴBu): the projection at y that is orthogonal in the metric."""
        return u - y @ sym(mT(y) @ (self.B @ u))

    def from_noise(self, z: Array) -> Array:
        """l⁻ᴴq, B = llᴴ, with the Q of z = QR: uniform on Stiefel(n, p), brought here."""
        xp = namespace(self.B, z)
        return xp.linalg.solve(mT(xp.linalg.cholesky(sym(self.B))), qr_unique(z))

    def defect(self, x: Array) -> Array:
        """|xᴴBx - I|."""
        gap = mT(x) @ self.B @ x - eye_like(x, self.p)
        squared = dot(gap, gap, 2)
        return namespace(squared).sqrt(squared)

    def exp(self, x: Array, u: Array) -> Array:
        """That of `Stiefel`, with xᴴBu in place of xᴴu and bᴴBb in place of bᴴb."""
        a = self._skew(x, u)
        b = u - x @ a
        e, f = ends(EUCLIDEAN, a, mT(b) @ self.B @ b)
        return x @ e + b @ f

    def log(self, x: Array, y: Array) -> Array:
        """That of `Stiefel`, which see, with xᴴBy in place of xᴴy."""
        a, b = self._log(x, y)
        return x @ a + b

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(x, y)|²."""
        a, b = self._log(x, y)
        return dot(a, a, 2) + dot(b, self.B @ b, 2)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """That of `Stiefel`, along `log`."""
        a, b = self._log(x, y)
        return transported(EUCLIDEAN, a, b, x, u, self.B)

    def injectivity_radius(self, x: Array) -> Array:
        """That of `Stiefel` with the Euclidean metric: a lower bound."""
        return Stiefel(self.n, self.p).injectivity_radius(x)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Those of `Stiefel` with the Euclidean metric."""
        return Stiefel(self.n, self.p).curvature_bounds(x)

    def _skew(self, x: Array, u: Array) -> Array:
        a = mT(x) @ (self.B @ u)
        return 0.5 * (a - mT(a))

    def _log(self, x: Array, y: Array) -> tuple[Array, Array]:
        """`a, b` of log(x, y) = x a + b."""
        dual = mT(x) @ self.B
        moved = y - x
        return logarithm(EUCLIDEAN, dual @ y, moved - x @ (dual @ moved), self.B)


def _definite(b: Array) -> bool:
    xp, b = namespace(b), backend_of(b).stop_gradient(b)
    if not bool(xp.all(xp.isfinite(b))):
        return False
    size, eps = xp.max(xp.abs(b)), float(xp.finfo(b.dtype).eps)
    symmetric = xp.max(xp.abs(b - mT(b))) <= 100 * eps * size
    return bool(symmetric & xp.all(xp.linalg.eigvalsh(sym(b)) > 0))
