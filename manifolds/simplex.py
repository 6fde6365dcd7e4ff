"""Probability distributions with the Fisher metric."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from math import prod
from typing import Any, final

from ..backends import backend_of, namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import batch_full, dot, fit, row_sum
from ._smooth import angle_over_sine, cos_sqrt, log_ratio, sinc_sqrt, squared_angle

Array = Any

#: exponentials of numbers up to this size are far from over- and underflow, in single precision too
_SMALL = 50.0


class Distributions(Geodesic, InverseRetraction, Curvature, ABC):
    """Arrays whose last axis is a point of the open probability simplex: what `Simplex` and `Multinomial` share.

    ⟨u, v⟩ₓ = Σ uv/x, the Fisher metric. x = (s/2)², entry by entry, takes the positive part of the sphere |s| = 2 to it
    isometrically: everything here is a formula of the sphere, written in x.
    """

    @property
    def dim(self) -> int:
        return prod(self.shape) // self.shape[-1] * (self.shape[-1] - 1)

    @final
    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Σ uv/x."""
        return dot(u / x, v, len(self.shape))

    @final
    def project(self, x: Array, a: Array) -> Array:
        """`a` less its mean (of each row)."""
        return fit(a - row_sum(a) / self.shape[-1], x)

    @final
    def sharp(self, x: Array, w: Array) -> Array:
        """x (w - Σxw)."""
        return x * (w - dot(x, w, 1, keepdims=True))

    @final
    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """(w - Σxw) u/(2x)."""
        return (w - dot(x, w, 1, keepdims=True)) * (0.5 * u / x)

    @final
    def retract(self, x: Array, u: Array) -> Array:
        """x exp(u/x)/Σ: positive for every u. First order (its curve bends twice as much as a geodesic).

        The geodesic of the exponential connection; Amari & Nagaoka 2000.
        """
        y = x * _exp(u / x)
        return y / row_sum(y)

    @final
    def inverse_retract(self, x: Array, y: Array) -> Array:
        """x (l - Σxl), l = log(y/x); defined everywhere."""
        l = log_ratio(namespace(x, y), y, x)
        return x * (l - dot(x, l, 1, keepdims=True))

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself: all tangent spaces are the same (the mixture connection)."""
        return fit(u, y)

    @final
    def from_noise(self, z: Array) -> Array:
        """exp(z)/Σ."""
        e = _exp(z)
        return e / row_sum(e)

    @final
    def defect(self, x: Array) -> Array:
        """The largest |Σx - 1|, plus 1 - min x where that is not positive."""
        xp, ndim = namespace(x), len(self.shape)
        axes = tuple(range(-ndim, 0))
        smallest = xp.min(x, axis=axes)
        off = xp.max(xp.abs(row_sum(x) - 1), axis=axes)
        return off + xp.where(smallest > 0, xp.zeros_like(smallest), 1 - smallest)

    @final
    def exp(self, x: Array, u: Array) -> Array:
        """(cos θ x + (sin θ/θ) u/2)²/x with θ = ‖u‖/2.

        Where ‖u‖ exceeds `injectivity_radius` the geodesic may meet the boundary; it is reflected there.
        """
        t = 0.25 * dot(u / x, u, 1, keepdims=True)
        xp = namespace(t)
        root = cos_sqrt(xp, t) * x + sinc_sqrt(xp, t) * (0.5 * u)
        return root * root / x

    @final
    def log(self, x: Array, y: Array) -> Array:
        """2 (θ/sin θ) (√(xy) - cos θ x), cos θ = Σ√(xy); defined everywhere."""
        rx, _, d, s = _chords(x, y)
        # √y - cos θ √x with d = √y - √x and cos θ = 1 + Σ√x d: no digits are lost where y is close to x
        step = rx * d
        return 2.0 * angle_over_sine(namespace(s), s, 4.0 - s) * (step - row_sum(step) * x)

    @final
    def squared_dist(self, x: Array, y: Array) -> Array:
        """4θ², θ = 2 atan2(|√y - √x|, |√x + √y|) = arccos Σ√(xy)."""
        s = _chords(x, y)[3]
        squared = 4.0 * squared_angle(namespace(s), s, 4.0 - s)[..., 0]
        return squared if len(self.shape) == 1 else dot(squared, 1.0, len(self.shape) - 1)

    @final
    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """√(y/x) u - 2√y m (m·u/√x)/|m|², m = √x + √y: the reflection of the sphere."""
        rx, m, d, s = _chords(x, y)
        v = u / rx
        # m·v = (d + 2√x)·v = d·v, for u sums to zero
        return (rx + d) * (v - (2.0 * dot(d, v, 1, keepdims=True) / (4.0 - s)) * m)

    @final
    def injectivity_radius(self, x: Array) -> Array:
        """2 arcsin √(min x), exactly: the distance from the boundary, where geodesics end."""
        xp = namespace(x)
        smallest = xp.min(x, axis=tuple(range(-len(self.shape), 0)))
        return 2 * xp.atan2(xp.sqrt(smallest), xp.sqrt(xp.abs(1 - smallest)))

    @final
    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """1/4, 1/4, exactly; 0, 1/4 for several rows (planes that mix rows are flat); 0, 0 for rows of two entries."""
        high, rows = 0.25 * (self.shape[-1] > 2), prod(self.shape[:-1])
        ndim = len(self.shape)
        return batch_full(x, ndim, high if rows == 1 else 0.0), batch_full(x, ndim, high)


@final
@dataclass(frozen=True)
class Simplex(Distributions):
    """{x ∈ ℝⁿ : x > 0, Σx = 1} with the Fisher metric ⟨u, v⟩ₓ = Σ uv/x. Åström et al. 2017.

    x, u, w : (..., n). x = (s/2)², entry by entry, takes the positive part of the sphere |s| = 2 to it isometrically:
    its curvature is 1/4, and dist = 2 arccos Σ√(xy) ≤ π. It is open: geodesics reach the boundary in finite time, and
    `exp` reflects them there.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n):
            raise ValueError(f"Simplex(n) needs an integer n ≥ 1, not n = {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)


def _exp(a: Array) -> Array:
    """exp(a) times a constant of each row such that nothing overflows, which is about to be divided by."""
    xp, backend = namespace(a), backend_of(a)
    size = backend.largest(xp.abs(a))
    if size is not None and size < _SMALL:
        return xp.exp(a)
    return xp.exp(a - xp.max(backend.stop_gradient(a), axis=-1, keepdims=True))


def _chords(x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """√x, m = √x + √y, d = √y - √x, s = |d|²; |m|² = 4 - s, never below 2.

    The difference is had from y - x: no digits are lost where y is close to x.
    """
    xp = namespace(x, y)
    rx = xp.sqrt(x)
    m = rx + xp.sqrt(y)
    d = (y - x) / m
    return rx, m, d, dot(d, d, 1, keepdims=True)
