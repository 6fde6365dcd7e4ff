"""Matrices with orthonormal columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..backends import namespace
from ._base import Manifold
from ._linalg import dot, eye_like, fit, qr_unique, sym
from ._spectral import InverseSqrt, spectral

Array = Any


def qr(x: Array, u: Array) -> Array:
    """The Q of x + u = QR, R's diagonal positive. First order. Absil, Mahony & Sepulchre 2008, eq. (4.8)."""
    return qr_unique(x + u)


def polar(x: Array, u: Array) -> Array:
    """(x + u)((x + u)ᵀ(x + u))^(-1/2), the nearest point to x + u. Second order. Ibid., eq. (4.7)."""
    y = x + u
    return y @ spectral(InverseSqrt())(y.mT @ y)


def cayley(x: Array, u: Array) -> Array:
    """(I - W/2)⁻¹(I + W/2) x with W = axᵀ - xaᵀ, a = u - x xᵀu/2. Wen & Yin 2013, eq. (19).

    Through a 2p × 2p system: x + l (I - rᵀl/2)⁻¹ rᵀx with l = [a, x], r = [x, -a].
    """
    xp = namespace(x, u)
    a = u - 0.5 * (x @ (x.mT @ u))
    x = fit(x, a)
    left, right = xp.concat([a, x], axis=-1), xp.concat([x, -a], axis=-1).mT
    matrix = eye_like(x, left.shape[-1]) - 0.5 * (right @ left)
    return x + left @ xp.linalg.solve(matrix, right @ x)


@dataclass(frozen=True)
class Stiefel(Manifold):
    """{x ∈ ℝⁿˣᵖ : xᵀx = I} with the metric of ℝⁿˣᵖ. Absil, Mahony & Sepulchre 2008, §3.3, §4.1, §5.3.

    x, u, w : (..., n, p), n ≥ p. `retraction` is a function of x and u: `qr` (default), `polar`, `cayley`.
    """

    n: int
    p: int
    retraction: Callable[[Array, Array], Array] = field(default=qr, repr=False)

    def __post_init__(self) -> None:
        if self.n < self.p:
            raise ValueError(f"Stiefel(n, p) needs n ≥ p, not n = {self.n}, p = {self.p}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.p)

    @property
    def dim(self) -> int:
        return self.n * self.p - self.p * (self.p + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - x sym(xᵀa)."""
        return a - x @ sym(x.mT @ a)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-u sym(xᵀw)."""
        return -(u @ sym(x.mT @ w))

    def retract(self, x: Array, u: Array) -> Array:
        """The manifold's `retraction`."""
        return self.retraction(x, u)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR: uniform (Haar)."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᵀx - I|."""
        gap = x.mT @ x - eye_like(x, self.p)
        squared = dot(gap, gap, 2)
        return namespace(squared).sqrt(squared)
