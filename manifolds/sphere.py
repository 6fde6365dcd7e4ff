"""The unit sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._base import Geodesic
from ._linalg import dot, fit
from ._smooth import angle_over_sine, cos_sqrt, sinc_sqrt, squared_angle

Array = Any


@dataclass(frozen=True)
class Sphere(Geodesic):
    """Unit vectors of ℝⁿ with the metric of ℝⁿ. Absil, Mahony & Sepulchre 2008, §3.6, §4.1, §5.3, §8.1.

    x, u, w : (..., n). Unit vectors of ℂⁿ are points too, as those of ℝ²ⁿ (the dimension is then 2n - 1).
    """

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def dim(self) -> int:
        return self.n - 1

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 1)

    def project(self, x: Array, a: Array) -> Array:
        """a - (x·a) x."""
        return a - dot(x, a, 1, keepdims=True) * x

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-(x·w) u."""
        return -dot(x, w, 1, keepdims=True) * u

    def retract(self, x: Array, u: Array) -> Array:
        """(x + u)/|x + u|: agrees with `exp` to second order."""
        return _unit(x + u)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    def from_noise(self, z: Array) -> Array:
        """z/|z|: uniform."""
        return _unit(z)

    def defect(self, x: Array) -> Array:
        """| |x|² - 1 |."""
        squared = dot(x, x, 1)
        return namespace(squared).abs(squared - 1)

    def exp(self, x: Array, u: Array) -> Array:
        """cos|u| x + (sin|u|/|u|) u, in |u|², so that derivatives at u = 0 are right."""
        t = dot(u, u, 1, keepdims=True)
        xp = namespace(t)
        return cos_sqrt(xp, t) * x + sinc_sqrt(xp, t) * u

    def log(self, x: Array, y: Array) -> Array:
        """(θ/sin θ) (y - (x·y) x), θ the angle of x and y. Not finite at y = -x, which has no logarithm."""
        s, c = _chords(x, y, keepdims=True)
        # 1 - x·y = |x - y|²/2: no digits are lost where y is close to x
        return angle_over_sine(namespace(s), s, c) * self.project(x, (y - x) + 0.5 * s * x)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """θ², θ = 2 atan2(|x - y|, |x + y|)."""
        s, c = _chords(x, y)
        return squared_angle(namespace(s), s, c)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u - 2 (x + y) ((x + y)·u)/|x + y|²: the reflection that takes x to -y and keeps what is normal."""
        middle = x + y
        return u - (2 * dot(middle, u, 1, keepdims=True) / dot(middle, middle, 1, keepdims=True)) * middle


def _unit(a: Array) -> Array:
    squared = dot(a, a, 1, keepdims=True)
    return a / namespace(squared).sqrt(squared)


def _chords(x: Array, y: Array, *, keepdims: bool = False) -> tuple[Array, Array]:
    """|x - y|², |x + y|²."""
    return dot(x - y, x - y, 1, keepdims=keepdims), dot(x + y, x + y, 1, keepdims=keepdims)
