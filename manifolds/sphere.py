"""The unit sphere."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

from ..backends import namespace
from . import _unit
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import batch_full, dot, fit
from ._smooth import squared_angle

Array = Any


@dataclass(frozen=True)
class Sphere(Geodesic, InverseRetraction, Curvature):
    """Unit vectors of ℝⁿ with the metric of ℝⁿ. Absil, Mahony & Sepulchre 2008, §3.6, §4.1, §5.3, §8.1.

    x, u, w : (..., n). Unit vectors of ℂⁿ are points too, as those of ℝ²ⁿ (the dimension is then 2n - 1).
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n):
            raise ValueError(f"Sphere(n) needs an integer n ≥ 1, not n = {self.n}")

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
        return _unit.project(x, a, -1)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return _unit.project(x, w, -1)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-(x·w) u."""
        return _unit.connection(x, w, u, -1)

    def retract(self, x: Array, u: Array) -> Array:
        """(x + u)/|x + u|: agrees with `exp` to second order."""
        return _unit.unit(x + u, -1)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y/(x·y) - x, for y in the open hemisphere x·y > 0: what `retract` reaches."""
        return _unit.inverse_retract(x, y, -1)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return _unit.project(y, u, -1)

    def from_noise(self, z: Array) -> Array:
        """z/|z|: uniform."""
        return _unit.unit(z, -1)

    def defect(self, x: Array) -> Array:
        """| |x|² - 1 |."""
        squared = dot(x, x, 1)
        return namespace(squared).abs(squared - 1)

    def exp(self, x: Array, u: Array) -> Array:
        """cos|u| x + (sin|u|/|u|) u, in |u|², so that derivatives at u = 0 are right."""
        return _unit.exp(x, u, -1)

    def log(self, x: Array, y: Array) -> Array:
        """(θ/sin θ) (y - (x·y) x), θ the angle of x and y. Not finite at y = -x, which has no logarithm."""
        return _unit.log(x, y, -1)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """θ², θ = 2 atan2(|x - y|, |x + y|)."""
        s, c = _unit.chords(x, y, -1)
        return squared_angle(namespace(s), s, c)[..., 0]

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u - 2 (x + y) ((x + y)·u)/|x + y|²: the reflection that takes x to -y and keeps what is normal."""
        return _unit.parallel_transport(x, y, u, -1)

    def injectivity_radius(self, x: Array) -> Array:
        """π, exactly."""
        return batch_full(x, 1, pi)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """1, 1, exactly; 0, 0 on a circle (n = 2, or complex n = 1), which is flat: there are no planes in T_xM."""
        bound = batch_full(x, 1, _unit.curvature(self.n, x))
        return bound, bound
