"""Matrices with unit columns."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

from ..backends import namespace
from . import _unit
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import along, batch_full, dot, fit
from ._smooth import squared_angle

Array = Any


@dataclass(frozen=True)
class Oblique(Geodesic, InverseRetraction, Curvature):
    """n × p matrices with unit columns: the product of p spheres, with the metric of ℝⁿˣᵖ.

    x, u, w : (..., n, p). Every formula is that of `Sphere`, column by column; complex columns are points too.
    Absil & Gallivan 2006; Absil, Mahony & Sepulchre 2008, §3.6, §4.1.
    """

    n: int
    p: int

    def __post_init__(self) -> None:
        if not (is_size(self.n) and is_size(self.p)):
            raise ValueError(f"Oblique(n, p) needs integers n, p ≥ 1, not n = {self.n}, p = {self.p}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.p)

    @property
    def dim(self) -> int:
        return (self.n - 1) * self.p

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - x diag(xᵀa)."""
        return _unit.project(x, a, -2)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return _unit.project(x, w, -2)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-u diag(xᵀw)."""
        return _unit.connection(x, w, u, -2)

    def retract(self, x: Array, u: Array) -> Array:
        """x + u with its columns normalized: agrees with `exp` to second order."""
        return _unit.unit(x + u, -2)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y diag(xᵀy)⁻¹ - x, where every column of y is in the open hemisphere about that of x."""
        return _unit.inverse_retract(x, y, -2)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return _unit.project(y, u, -2)

    def from_noise(self, z: Array) -> Array:
        """The normalized columns of z: uniform."""
        return _unit.unit(z, -2)

    def defect(self, x: Array) -> Array:
        """The largest | |column|² - 1 |."""
        squared = along(x, x, -2)
        xp = namespace(squared)
        return xp.max(xp.abs(squared - 1), axis=(-2, -1))

    def exp(self, x: Array, u: Array) -> Array:
        """cos|u| x + (sin|u|/|u|) u in each column."""
        return _unit.exp(x, u, -2)

    def log(self, x: Array, y: Array) -> Array:
        """(θ/sin θ) (y - (x·y) x) in each column. Not finite where a column of y is opposite to that of x."""
        return _unit.log(x, y, -2)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """The sum of θ², θ the angles of the columns."""
        s, c = _unit.chords(x, y, -2)
        xp = namespace(s)
        return xp.sum(squared_angle(xp, s, c), axis=(-2, -1))

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u - 2 (x + y) ((x + y)·u)/|x + y|² in each column."""
        return _unit.parallel_transport(x, y, u, -2)

    def injectivity_radius(self, x: Array) -> Array:
        """π, exactly."""
        return batch_full(x, 2, pi)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """0, 1, exactly (planes that mix columns are flat); 1, 1 for a single column; 0, 0 for circles (n = 2)."""
        high = _unit.curvature(self.n, x)
        return batch_full(x, 2, high if self.p == 1 else 0.0), batch_full(x, 2, high)
