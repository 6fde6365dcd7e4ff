"""Orthogonal and rotation matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import Any

from ..backends import namespace
from ._distances import squared_dist
from ._linalg import batch_full, eye_like, mT, qr_unique
from ._rotations import MatrixGroup, rotation_log, squared_angles, unitary_defect

Array = Any


@dataclass(frozen=True)
class SpecialOrthogonal(MatrixGroup):
    """Rotations {x ∈ ℝⁿˣⁿ : xᵀx = I, det x = 1} with the bi-invariant metric ⟨u, v⟩ₓ = tr uᵀv. Hall 2015, ch. 2, 3.

    x, u, w : (..., n, n); tangent vectors are u = xa with a skew, in ambient coordinates. The metric is that of ℝⁿˣⁿ: a
    rotation by θ in one plane is √2 θ away (½ tr uᵀv, which others use, gives θ). `retraction` is `cayley` (default,
    second order), `polar` (second order) or `qr`.

    `log` is the principal one; it ends where a rotation angle of xᵀy reaches π. For n ≤ 3 it is exact to rounding up to
    there; else its relative error is about eps/(2π - θ₁ - θ₂), θ₁ and θ₂ the two largest of the angles, as is the
    condition of the problem. `squared_dist` keeps all its digits.
    """

    @property
    def dim(self) -> int:
        return self.n * (self.n - 1) // 2

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR with the last column turned where det Q < 0: uniform (Haar)."""
        q = qr_unique(z)
        xp = namespace(q)
        sign = xp.sign(xp.linalg.det(q))[..., None, None]
        return xp.concat([q[..., :-1], q[..., -1:] * sign], axis=-1)

    def defect(self, x: Array) -> Array:
        """|xᵀx - I| + 1 - sign det x."""
        xp = namespace(x)
        finite = xp.all(xp.isfinite(x), axis=(-2, -1))[..., None, None]
        return unitary_defect(x) + 1 - xp.sign(xp.linalg.det(xp.where(finite, x, eye_like(x, self.n))))

    def log(self, x: Array, y: Array) -> Array:
        """x log(xᵀy)."""
        return x @ rotation_log(mT(x) @ y)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(xᵀy)|²: twice the squared rotation angles, summed."""
        return squared_dist(self, squared_angles, 1.0, x, y)

    def injectivity_radius(self, x: Array) -> Array:
        """√2 π, exactly (∞ for n = 1)."""
        return _radius(x, self.n)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Exactly 0, 1/4 (Bloch & Iserles 2005; K = |[a, b]|²/4); 1/8, 1/8 for n = 3 and 0, 0 for n ≤ 2."""
        return _bounds(x, self.n)


@dataclass(frozen=True)
class Orthogonal(MatrixGroup):
    """{x ∈ ℝⁿˣⁿ : xᵀx = I} with the metric of `SpecialOrthogonal`: its two components are det x = 1 and det x = -1.

    Between the components there is no geodesic: `log` and `parallel_transport` mean nothing there (`log` is NaN), and
    `dist` is ∞.
    """

    @property
    def dim(self) -> int:
        return self.n * (self.n - 1) // 2

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR: uniform (Haar), in both components."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᵀx - I|."""
        return unitary_defect(x)

    def log(self, x: Array, y: Array) -> Array:
        """x log(xᵀy); NaN across components."""
        r = mT(x) @ y
        result = x @ rotation_log(r)
        xp = namespace(r)
        return xp.where((xp.linalg.det(r) < 0)[..., None, None], xp.full_like(result, float("nan")), result)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(xᵀy)|²; ∞ across components."""
        squared = squared_dist(self, squared_angles, 1.0, x, y)
        xp = namespace(squared)
        apart = xp.linalg.det(x) * xp.linalg.det(y) < 0
        return xp.where(apart, xp.full_like(squared, inf), squared)

    def injectivity_radius(self, x: Array) -> Array:
        """√2 π, exactly (∞ for n = 1)."""
        return _radius(x, self.n)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """As of `SpecialOrthogonal`."""
        return _bounds(x, self.n)


def _radius(x: Array, n: int) -> Array:
    return batch_full(x, 2, sqrt(2) * pi if n > 1 else inf)


def _bounds(x: Array, n: int) -> tuple[Array, Array]:
    low, high = (0.0, 0.0) if n < 3 else (0.125, 0.125) if n == 3 else (0.0, 0.25)
    return batch_full(x, 2, low), batch_full(x, 2, high)
