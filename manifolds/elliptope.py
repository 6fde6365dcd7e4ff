"""Correlation matrices of fixed rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..backends import namespace
from ._base import Exponential
from ._linalg import dot, fit
from ._procrustes import Factored, conditioned, rank_defect, vertical_part
from .sphere import Sphere

Array = Any


@dataclass(frozen=True)
class Elliptope(Factored, Exponential):
    """Correlation matrices xxᵀ of rank k: x ∈ ℝⁿˣᵏ of full rank with unit rows, modulo O(k), with the metric of ℝⁿˣᵏ.

    x, u, w : (..., n, k), n ≥ k. Tangent vectors are orthogonal to x row by row, horizontal ones have xᵀu symmetric
    besides. Burer & Monteiro 2003; Journée, Bach, Absil & Sepulchre 2010. Complex x modulo U(k) are points
    too. Costs must be functions of xxᵀ (see `Quotient`).
    """

    @property
    def dim(self) -> int:
        return self.n * (self.k - 1) - self.k * (self.k - 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - diag(xaᵀ) x - xΩ: the rows' radial parts and the vertical part are orthogonal to each other."""
        return a - dot(x, a, 1, keepdims=True) * x - vertical_part(x, a)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-diag(xwᵀ) u: that of the sphere, row by row."""
        return self._rows.connection(x, w, u)

    def retract(self, x: Array, u: Array) -> Array:
        """The rows of x + u, normalized: agrees with `exp` to second order."""
        return self._rows.retract(x, u)

    def from_noise(self, z: Array) -> Array:
        """The rows of z + √n q, z = qr, normalized."""
        return self._rows.from_noise(conditioned(z))

    def defect(self, x: Array) -> Array:
        """The largest | |row|² - 1 |, plus 1 where x has not full numerical rank."""
        off = self._rows.defect(x)
        return namespace(off).max(off, axis=-1) + rank_defect(x)

    def exp(self, x: Array, u: Array) -> Array:
        """The rows' geodesics on the sphere: a horizontal geodesic of the product of spheres is one of the quotient."""
        return self._rows.exp(x, u)

    @cached_property
    def _rows(self) -> Sphere:
        return Sphere(self.k)
