"""Unitary matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

from ._distances import squared_dist
from ._linalg import batch_full, mT, qr_unique
from ._rotations import MatrixGroup, rotation_log, squared_angles, unitary_defect

Array = Any


@dataclass(frozen=True)
class Unitary(MatrixGroup):
    """{x ∈ ℂⁿˣⁿ : xᴴx = I} with the bi-invariant metric ⟨u, v⟩ₓ = Re tr uᴴv, of (real) dimension n².

    x, u, w : (..., n, n), complex; tangent vectors are u = xa with a skew-Hermitian, in ambient coordinates.
    `retraction` is `cayley` (default, second order), `polar` (second order) or `qr`. Hall 2015, ch. 2, 3. `log` ends
    where an eigenvalue of xᴴy reaches -1, and errs near there as that of `SpecialOrthogonal`.
    """

    @property
    def dim(self) -> int:
        return self.n**2

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR, R's diagonal positive: uniform (Haar)."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᴴx - I|."""
        return unitary_defect(x)

    def log(self, x: Array, y: Array) -> Array:
        """x log(xᴴy)."""
        return x @ rotation_log(mT(x) @ y)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(xᴴy)|²: the squared angles of the eigenvalues of xᴴy, summed."""
        return squared_dist(self, squared_angles, 1.0, x, y)

    def injectivity_radius(self, x: Array) -> Array:
        """π, exactly."""
        return batch_full(x, 2, pi)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Exactly 0, 1/2 (Böttcher & Wenzel 2008; K = |[a, b]|²/4); 0, 0 for n = 1."""
        return batch_full(x, 2, 0.0), batch_full(x, 2, 0.5 if self.n > 1 else 0.0)
