"""Subspaces, represented by orthonormal bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, pi
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction, Quotient
from ._checks import is_size
from ._distances import excess, squared_dist
from ._linalg import batch_full, dot, eye_like, fit, is_complex, mT, qr_unique
from ._polar import Polar
from ._stiefel_retractions import polar
from ._trig import cos_sinc_definite

Array = Any


@dataclass(frozen=True)
class Grassmann(Geodesic, InverseRetraction, Curvature, Quotient):
    """The p-dimensional subspaces of ℝⁿ (of ℂⁿ with complex arrays): {x : xᴴx = I}, x ~ xg for orthogonal (unitary) g.

    x, u, w : (..., n, p), 1 ≤ p ≤ n. Vectors are horizontal lifts at x, xᴴu = 0, with ⟨u, v⟩ₓ = tr uᴴv, so that the
    distance is the root of the sum of the squared principal angles. Edelman, Arias & Smith 1998, §2.5; Bendokat,
    Zimmermann & Absil 2024. `retraction` is `polar` (default, second order) or `qr`. Complex points have the dimension
    2p(n - p).

    Nothing here is differentiated through a decomposition. With y ~ yₓ = yw aligned to x and c = xᴴyₓ = cos Θ ≥ 0, all
    is analytic in c, also for equal subspaces and repeated angles Θ; where an angle reaches π/2 the logarithm
    ends, and its error is that of the polar factor w of yᴴx, eps over the sum of the two smallest cosines.
    """

    n: int
    p: int
    retraction: Callable[[Array, Array], Array] = field(default=polar, repr=False)

    def __post_init__(self) -> None:
        check_sizes("Grassmann", self.n, self.p)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.p)

    @property
    def dim(self) -> int:
        return self.p * (self.n - self.p)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - x xᴴa: onto the horizontal space."""
        return a - x @ (mT(x) @ a)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-u xᴴw. Absil, Mahony & Sepulchre 2008, §6.4.2."""
        return -(u @ (mT(x) @ w))

    def retract(self, x: Array, u: Array) -> Array:
        """The manifold's `retraction`: a basis of the span of x + u."""
        return self.retraction(x, u)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y (xᴴy)⁻¹ - x: the same for every representative of y, and for both retractions."""
        return self.project(x, mT(namespace(x, y).linalg.solve(mT(y) @ x, mT(y))))

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """(I - y yᴴ) u xᴴy: right for every representative of y, and never longer than u."""
        return self.project(y, u @ (mT(x) @ y))

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR: uniform."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᴴx - I|."""
        gap = mT(x) @ x - eye_like(x, self.p)
        squared = dot(gap, gap, 2)
        return namespace(squared).sqrt(squared)

    def align(self, x: Array, y: Array) -> Array:
        """yw, w the unitary polar factor of yᴴx: xᴴyw ≥ 0."""
        return y @ Polar(mT(y) @ x).unitary

    def vertical(self, x: Array, w: Array) -> Array:
        """|skew(xᴴw)|."""
        s = mT(x) @ w
        off = 0.5 * (s - mT(s))
        squared = dot(off, off, 2)
        return namespace(squared).sqrt(squared)

    def exp(self, x: Array, u: Array) -> Array:
        """x cos S + u sin S/S, S² = uᴴu."""
        cosine, sinc = cos_sinc_definite(mT(u) @ u)
        return x @ cosine + u @ sinc

    def log(self, x: Array, y: Array) -> Array:
        """(I - x xᴴ) yₓ Θ/sin Θ. Its exponential is yₓ = `align(x, y)`."""
        factors = Polar(mT(y) @ x)
        return self.project(x, y @ factors.unitary - x) @ factors.angle_over_sine()

    def squared_dist(self, x: Array, y: Array) -> Array:
        """The squared principal angles, summed: |y - x xᴴy|² + Σ (θ² - sin²θ), cos θ the singular values of xᴴy."""
        return squared_dist(self, _squared_angles, 1.0, x, y)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """(u - (x + yₓ)(I + xᴴyₓ)⁻¹ yₓᴴu) wᴴ: the reflection that takes x to -yₓ, turned back to the basis y.

        Edelman, Arias & Smith 1998, eq. (2.68), without its decomposition.
        """
        w = Polar(mT(y) @ x).unitary
        aligned = y @ w
        middle = mT(x) @ aligned + eye_like(x, self.p)
        moved = u - (x + aligned) @ namespace(x, y).linalg.solve(middle, mT(aligned) @ u)
        return moved @ mT(w)

    def injectivity_radius(self, x: Array) -> Array:
        """π/2, exactly (∞ where the manifold is one point)."""
        return subspace_radius(x, self.n, self.p)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Exactly 0, 2 (Wong 1968); 1, 1 for p = 1 and p = n - 1; complex: 0, 4, or 1, 4, or 4, 4 for n = 2."""
        return subspace_curvature(x, self.n, self.p)


def _squared_angles(x: Array, y: Array) -> Array:
    xy = mT(x) @ y
    sine = y - x @ xy
    return dot(sine, sine, 2) + excess(namespace(xy).linalg.svdvals(xy))


def check_sizes(name: str, n: int, p: int) -> None:
    """Raise `ValueError` unless n, p are integers with 1 ≤ p ≤ n."""
    if not (is_size(n) and is_size(p) and p <= n):
        raise ValueError(f"{name}(n, p) needs integers with 1 ≤ p ≤ n, not n = {n}, p = {p}")


def subspace_radius(x: Array, n: int, p: int) -> Array:
    """The injectivity radius of the manifold of subspaces, of batch shape."""
    return batch_full(x, 2, pi / 2 if p < n else inf)


def subspace_curvature(x: Array, n: int, p: int) -> tuple[Array, Array]:
    """The bounds of its sectional curvature, of batch shape."""
    if p == n:
        low, high = 0.0, 0.0
    elif p in (1, n - 1):
        low, high = (4.0 if n == 2 else 1.0, 4.0) if is_complex(x.dtype) else (1.0, 1.0)
    else:
        low, high = 0.0, 4.0 if is_complex(x.dtype) else 2.0
    return batch_full(x, 2, low), batch_full(x, 2, high)
