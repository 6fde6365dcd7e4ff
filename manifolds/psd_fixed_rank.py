"""Positive semidefinite matrices of fixed rank, with the Bures-Wasserstein metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._base import Curvature, InverseRetraction, Logarithmic
from ._linalg import dot, fit, is_complex
from ._procrustes import Factored, conditioned, rank_defect, vertical_part

Array = Any


@dataclass(frozen=True)
class PSDFixedRank(Factored, Logarithmic, InverseRetraction, Curvature):
    """Positive semidefinite n × n matrices xxᵀ of rank k, x ∈ ℝⁿˣᵏ of full rank modulo O(k), with the metric of ℝⁿˣᵏ.

    x, u, w : (..., n, k), n ≥ k; horizontal vectors have xᵀu symmetric. The distance is that of Bures and Wasserstein:
    its square is tr a + tr b - 2 tr(a^½ b a^½)^½. Journée, Bach, Absil & Sepulchre 2010; Massart & Absil 2020. Complex
    x modulo U(k) are points too (the dimension is then 2nk - k²). Costs must be functions of xxᵀ (see `Quotient`).
    """

    @property
    def dim(self) -> int:
        return self.n * self.k - self.k * (self.k - 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - xΩ, Ω skew with xᵀxΩ + Ωxᵀx = xᵀa - aᵀx."""
        return a - vertical_part(x, a)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """0: the gradient of an invariant cost is horizontal, and its derivative need only be projected."""
        return namespace(x).zeros_like(fit(w, x) + u)

    def retract(self, x: Array, u: Array) -> Array:
        """x + u: `exp`."""
        return x + u

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """`log`."""
        return self.log(x, y)

    def from_noise(self, z: Array) -> Array:
        """z + √n q, z = qr: noise, kept away from matrices of lower rank."""
        return conditioned(z)

    def defect(self, x: Array) -> Array:
        """0 where x has full numerical rank, else 1; inf where not finite."""
        return rank_defect(x)

    def exp(self, x: Array, u: Array) -> Array:
        """x + u: a geodesic for as long as its rank is k. Massart & Absil 2020."""
        return x + u

    def log(self, x: Array, y: Array) -> Array:
        """yq - x with q the polar factor of yᵀx; unique where yᵀx is invertible."""
        return self.align(x, y) - x

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|yq - x|² with the nearest representative yq of y."""
        off = self.align(x, y) - x
        return dot(off, off, 2)

    def injectivity_radius(self, x: Array) -> Array:
        """σₖ(x), exact: within it xᵀy stays positive definite. Massart & Absil 2020."""
        return namespace(x).linalg.svdvals(x)[..., -1]

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """0, 3/(σₖ² + σₖ₋₁²); complex x: 0, 3/σₖ². Attained for n > k ≥ 2. Massart, Hendrickx & Absil 2019."""
        return bures_bounds(x)


def bures_bounds(x: Array) -> tuple[Array, Array]:
    """0 and the largest value of 3|xΩ|² (O'Neill 1966) for xᵀxΩ + Ωxᵀx = uᵀv - vᵀu, u and v orthonormal."""
    squared = namespace(x).linalg.svdvals(x) ** 2
    low = 0.0 * squared[..., -1]
    if is_complex(x.dtype):
        return low, 3 / squared[..., -1]
    return low, low if x.shape[-1] == 1 else 3 / (squared[..., -1] + squared[..., -2])
