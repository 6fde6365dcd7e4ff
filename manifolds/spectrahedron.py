"""Positive semidefinite matrices of fixed rank and unit trace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..backends import namespace
from ._base import Curvature, InverseRetraction, Logarithmic
from ._linalg import dot, fit
from ._procrustes import Factored, conditioned, rank_defect, vertical_part
from .psd_fixed_rank import bures_bounds
from .sphere import Sphere

Array = Any


@dataclass(frozen=True)
class Spectrahedron(Factored, Logarithmic, InverseRetraction, Curvature):
    """Positive semidefinite n × n matrices xxᵀ of rank k and trace 1: x on the unit sphere of ℝⁿˣᵏ, modulo O(k).

    x, u, w : (..., n, k), n ≥ k; horizontal vectors have xᵀu symmetric and x·u = 0. Journée, Bach, Absil & Sepulchre
    2010. Complex x modulo U(k) are points too: density matrices of rank k with the Bures angle
    (Bengtsson & Życzkowski 2006, ch. 9; the dimension is then 2nk - k² - 1). Costs must be functions of xxᵀ.
    """

    @property
    def dim(self) -> int:
        return self.n * self.k - self.k * (self.k - 1) // 2 - 1

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - (x·a) x - xΩ: the radial and the vertical part are orthogonal to each other."""
        return a - dot(x, a, 2, keepdims=True) * x - vertical_part(x, a)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-(x·w) u, that of the sphere."""
        return -dot(x, w, 2, keepdims=True) * u

    def retract(self, x: Array, u: Array) -> Array:
        """(x + u)/|x + u|: agrees with `exp` to second order."""
        return self._matrix(self._sphere.retract(_vector(x), _vector(u)))

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """yq/(x·yq) - x with the nearest representative yq of y."""
        y = self.align(x, y)
        return y / dot(x, y, 2, keepdims=True) - x

    def from_noise(self, z: Array) -> Array:
        """z + √n q, z = qr, normalized."""
        return self._matrix(self._sphere.from_noise(_vector(conditioned(z))))

    def defect(self, x: Array) -> Array:
        """| |x|² - 1 |, plus 1 where x has not full numerical rank."""
        return self._sphere.defect(_vector(x)) + rank_defect(x)

    def exp(self, x: Array, u: Array) -> Array:
        """That of the sphere: a geodesic for as long as its rank is k."""
        return self._matrix(self._sphere.exp(_vector(x), _vector(u)))

    def log(self, x: Array, y: Array) -> Array:
        """That of the sphere, to the nearest representative of y; unique where yᵀx is invertible."""
        return self._matrix(self._sphere.log(_vector(x), _vector(self.align(x, y))))

    def squared_dist(self, x: Array, y: Array) -> Array:
        """θ², cos θ = the sum of the singular values of xᵀy (the square root of the fidelity)."""
        return self._sphere.squared_dist(_vector(x), _vector(self.align(x, y)))

    def injectivity_radius(self, x: Array) -> Array:
        """asin σₖ(x), exact: within it xᵀy stays positive definite, and at it a geodesic reaches lower rank."""
        xp = namespace(x)
        values = xp.linalg.svdvals(x)
        # asin(σₖ/|x|), which is π/2 for k = 1, without an argument above 1
        others = xp.sum(values[..., :-1] ** 2, axis=-1)
        return xp.atan2(values[..., -1], xp.sqrt(others))

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """1, 1 + 3/(σₖ² + σₖ₋₁²); complex x: 1, 1 + 3/σₖ²: the sphere's, and what O'Neill's formula can add."""
        low, high = bures_bounds(x)
        return 1 + low, 1 + high

    @cached_property
    def _sphere(self) -> Sphere:
        return Sphere(self.n * self.k)

    def _matrix(self, a: Array) -> Array:
        return namespace(a).reshape(a, (*a.shape[:-1], self.n, self.k))


def _vector(a: Array) -> Array:
    """The matrix as a point of the sphere."""
    return namespace(a).reshape(a, (*a.shape[:-2], a.shape[-2] * a.shape[-1]))
