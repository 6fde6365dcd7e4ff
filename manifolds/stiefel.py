"""Matrices with orthonormal columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import batch_full, dot, eye_like, fit, is_complex, mT, qr_unique, sym
from ._parameters import expand, known
from ._stiefel_geodesics import ends, logarithm, transported
from ._stiefel_retractions import Retraction as Retraction
from ._stiefel_retractions import cayley as cayley
from ._stiefel_retractions import polar as polar
from ._stiefel_retractions import qr as qr

Array = Any

#: the metrics with names, as values of `beta`
EUCLIDEAN, CANONICAL = 1.0, 0.5


@dataclass(frozen=True, eq=False, repr=False)
class Stiefel(Geodesic, InverseRetraction, Curvature):
    """{x : xᴴx = I}, real or complex, with ⟨u, v⟩ₓ = Re tr uᴴ(I - (1 - β) x xᴴ)v.

    x, u, w : (..., n, p), n ≥ p. β > 0, a number or an array of batch shape, is 1 (`EUCLIDEAN`, the metric of ℝⁿˣᵖ) or
    1/2 (`CANONICAL`) or any other: Hüper, Markina & Silva Leite 2021. `retraction` is `qr` (default), `polar`,
    `cayley`, or any function of x and u, which then has no inverse. Absil, Mahony & Sepulchre 2008, §3.3, §4.1, §5.3.
    """

    n: int
    p: int
    retraction: Callable[[Array, Array], Array] = qr
    beta: Any = EUCLIDEAN

    parameters: ClassVar[tuple[str, ...]] = ("beta",)

    def __post_init__(self) -> None:
        check_sizes("Stiefel", self.n, self.p)
        if not callable(self.retraction):
            raise ValueError(
                f"Stiefel: retraction is qr, polar, cayley or a function of x and u, not {self.retraction!r}"
            )
        if known(self.beta) and not _positive(self.beta):
            raise ValueError(f"Stiefel: beta must be positive (1 Euclidean, 1/2 canonical), not {self.beta}")

    def __repr__(self) -> str:
        """With the parameters that are not the default."""
        beta = "" if isinstance(self.beta, float) and self.beta == EUCLIDEAN else f", beta={self.beta}"
        return f"Stiefel(n={self.n}, p={self.p}{beta})"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.p)

    @property
    def dim(self) -> int:
        return self.n * self.p - self.p * (self.p + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v - (1 - β) (xᴴu)·(xᴴv)."""
        value = dot(fit(u, x), v, 2)
        if self._euclidean:
            return value
        a = mT(x) @ u
        return value - (1 - self.beta) * dot(a, a if v is u else mT(x) @ v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - x sym(xᴴa)."""
        return a - x @ sym(mT(x) @ a)

    def sharp(self, x: Array, w: Array) -> Array:
        """w - x sym(xᴴw) + (1/β - 1) x skew(xᴴw)."""
        xw = mT(x) @ w
        if self._euclidean:
            return w - x @ sym(xw)
        return w - x @ (sym(xw) - (1 / expand(self.beta, 2) - 1) * _skew(xw))

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-u sym(xᴴw) + (1 - β) (x uᴴ(w - x xᴴw) - (w - x xᴴw) xᴴu)."""
        xw = mT(x) @ w
        if self._euclidean:
            return -(u @ sym(xw))
        normal = w - x @ xw
        return (1 - expand(self.beta, 2)) * (x @ (mT(u) @ normal) - normal @ (mT(x) @ u)) - u @ sym(xw)

    def retract(self, x: Array, u: Array) -> Array:
        """The manifold's `retraction`."""
        return self.retraction(x, u)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """The inverse of the manifold's `retraction`, in closed form. Raises `TypeError` if that has none.

        Not finite, or no inverse, where y is too far from x.
        """
        inverse = getattr(self.retraction, "inverse", None)
        if inverse is None:
            raise TypeError(
                f"{self}: the retraction {self.retraction!r} is a plain function without an inverse; "
                "pass Retraction(function, inverse)"
            )
        return inverse(x, y)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR: uniform (Haar)."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᴴx - I|."""
        gap = mT(x) @ x - eye_like(x, self.p)
        squared = dot(gap, gap, 2)
        return namespace(squared).sqrt(squared)

    def exp(self, x: Array, u: Array) -> Array:
        """[x, b] exp([[2βa, -bᴴb], [I, 0]]) [I; 0] exp((1 - 2β)a), a = xᴴu, b = u - xa: no QR of b, smooth at u = 0.

        Hüper, Markina & Silva Leite 2021; Zimmermann & Hüper 2022, eq. (10).
        """
        a = _skew(mT(x) @ u)
        b = u - x @ a
        e, f = ends(self.beta, a, mT(b) @ b)
        return x @ e + b @ f

    def log(self, x: Array, y: Array) -> Array:
        """By Newton's method for a p × p matrix, time O(p⁶ + n p²) a step; NaN where it does not converge.

        It is the shortest one where it is shorter than the injectivity radius, and may be another beyond.
        """
        a, b = self._log(x, y)
        return x @ a + b

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(x, y)|², NaN where `log` is."""
        a, b = self._log(x, y)
        return self.beta * dot(a, a, 2) + dot(b, b, 2)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """Along `log`, by the exponential of a skew operator. Nguyen & Sommer 2022; Edelman, Arias & Smith 1998."""
        a, b = self._log(x, y)
        return transported(self.beta, a, b, x, u)

    def injectivity_radius(self, x: Array) -> Array:
        """A lower bound: π for β = 1, 2π/√5 for β = 1/2, 1/√2 of these for complex points; else NaN, not known.

        Zimmermann & Stoye 2025 (β = 1); Rentmeesters 2013, §5 (β = 1/2). Complex points are real ones of twice the
        size, totally geodesic in them, with half the metric.
        """
        pi = 3.141592653589793
        return self._by_metric(x, pi, 2 * pi / 5**0.5, float("nan"), -0.5)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """[-1/2, 1] for β = 1, [0, 5/4] for β = 1/2, twice that for complex points; else not known: (-∞, ∞).

        Zimmermann & Stoye 2025.
        """
        infinite = float("inf")
        return self._by_metric(x, -0.5, 0.0, -infinite, 1.0), self._by_metric(x, 1.0, 1.25, infinite, 1.0)

    def _log(self, x: Array, y: Array) -> tuple[Array, Array]:
        """`a, b` of log(x, y) = x a + b."""
        # y - x xᴴy, in two small differences
        moved = y - x
        return logarithm(self.beta, mT(x) @ y, moved - x @ (mT(x) @ moved))

    @property
    def _euclidean(self) -> bool:
        return isinstance(self.beta, float) and self.beta == EUCLIDEAN

    def _by_metric(self, x: Array, euclidean: float, canonical: float, other: float, power: float) -> Array:
        factor = 2.0**power if is_complex(x.dtype) else 1.0
        values = [batch_full(x, 2, factor * value) for value in (euclidean, canonical, other)]
        if not hasattr(self.beta, "shape"):
            return values[0 if self.beta == EUCLIDEAN else 1 if self.beta == CANONICAL else 2]
        xp = namespace(values[0])
        return xp.where(self.beta == EUCLIDEAN, values[0], xp.where(self.beta == CANONICAL, values[1], values[2]))


def check_sizes(name: str, n: Any, p: Any) -> None:
    """Raise `ValueError` unless n ≥ p ≥ 1 are integers."""
    if not (is_size(n) and is_size(p) and n >= p):
        raise ValueError(f"{name}(n, p) needs integers n ≥ p ≥ 1, not n = {n!r}, p = {p!r}")


def _skew(a: Array) -> Array:
    return 0.5 * (a - mT(a))


def _positive(beta: Any) -> bool:
    return bool(namespace(beta).all(beta > 0)) if hasattr(beta, "shape") else beta > 0
