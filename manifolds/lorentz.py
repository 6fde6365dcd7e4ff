"""The hyperboloid, or Lorentz, model of hyperbolic space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._conformal import check_parameter, check_size
from ._linalg import dot
from ._parameters import expand
from ._smooth import asinh_sqrt_ratio, cosh_sqrt, sinhc_sqrt, squared_asinh_sqrt

Array = Any


@dataclass(frozen=True, eq=False)
class Lorentz(Geodesic, InverseRetraction, Curvature):
    """The hyperboloid ⟨x, x⟩ = -1/c, x₀ > 0 in ℝⁿ⁺¹, ⟨u, v⟩ = -u₀v₀ + u₁v₁ + … + u_nv_n the Minkowski product and,
    on tangent vectors, the metric: hyperbolic space of curvature -c. Nickel & Kiela 2018, §3; Ratcliffe 2019, ch. 3.

    x, u, w : (..., n + 1); c > 0 : a number, or an array of batch shape. Tangent vectors have ⟨x, u⟩ = 0.

    Far from the origin ⟨·, ·⟩ cancels. All products here are sums of squares instead, with ũ = u - (u₀/x₀) x:

        ⟨u, v⟩ = ũ·v = ũ·ṽ + u₀v₀/(c x₀²),   ⟨x - y, x - y⟩ = (|y - (y₀/x₀) x|² + (y₀/x₀ - 1)²/c) x₀/y₀,

    and x₀ is made of the other coordinates. Errors are a few times √c x₀ eps, the length of a unit of rounding there
    (measured up to x₀ = 1e6 in double, 1e3 in single precision); those of dist > 1/√c are a few eps, relative.
    """

    parameters: ClassVar[tuple[str, ...]] = ("c",)
    n: int
    c: Any = 1.0

    def __post_init__(self) -> None:
        check_size("Lorentz", self.n)
        check_parameter("Lorentz", "c", self.c, positive=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n + 1,)

    @property
    def dim(self) -> int:
        return self.n

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """⟨u, v⟩."""
        if v is u:
            return self._squared(x, u)[..., 0]
        s = u[..., :1] / x[..., :1]
        return dot(u[..., 1:] - s * x[..., 1:], v[..., 1:], 1)

    def project(self, x: Array, a: Array) -> Array:
        """a - n (n·a)/|n|², n = (-x₀, x₁, …, x_n): orthogonal in the ambient dot, not in ⟨·, ·⟩."""
        normal = _flip(x)
        return a - (dot(normal, a, 1, keepdims=True) / dot(x, x, 1, keepdims=True)) * normal

    def sharp(self, x: Array, w: Array) -> Array:
        """(-w₀, w₁, …, w_n) + c (x·w) x."""
        return _flip(w) + (self._c * dot(x, w, 1, keepdims=True)) * x

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """c (x·w) (-u₀, u₁, …, u_n)."""
        return (self._c * dot(x, w, 1, keepdims=True)) * _flip(u)

    def retract(self, x: Array, u: Array) -> Array:
        """√(1 + c⟨u, u⟩) x + u: one to one onto the hyperboloid, and `exp` to second order."""
        t = self._c * self._squared(x, u)
        return self._lift(namespace(t).sqrt(1.0 + t), x, 1.0, u)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y + c⟨x, y⟩ x."""
        return (y - x) - (2.0 * self._difference(x, y)[2]) * x

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`parallel_transport`."""
        return self.parallel_transport(x, y, u)

    def from_noise(self, z: Array) -> Array:
        """The point with the spatial coordinates z/√(cn), z₀ left out."""
        return self._lift((self.n * self._c) ** -0.5, z)

    def defect(self, x: Array) -> Array:
        """|x₀ - h|/h with h = √(1/c + x₁² + … + x_n²); inf if not finite."""
        first, spatial = x[..., 0], x[..., 1:]
        xp = namespace(x)
        height = xp.sqrt(1 / self.c + dot(spatial, spatial, 1))
        finite = xp.isfinite(first) & xp.isfinite(height)
        zeros, ones = xp.zeros_like(height), xp.ones_like(height)
        safe = xp.where(finite, height, ones)
        return xp.where(finite, xp.abs(xp.where(finite, first, zeros) - safe) / safe, float("inf") * ones)

    def exp(self, x: Array, u: Array) -> Array:
        """cosh √t x + (sinh √t/√t) u, t = c⟨u, u⟩."""
        t = self._c * self._squared(x, u)
        xp = namespace(t)
        return self._lift(cosh_sqrt(xp, t), x, sinhc_sqrt(xp, t), u)

    def log(self, x: Array, y: Array) -> Array:
        """(θ/sinh θ) (y + c⟨x, y⟩ x), θ = √c dist(x, y)."""
        t = self._difference(x, y)[2]
        ratio = asinh_sqrt_ratio(namespace(t), t)
        return ratio * (y - x) - (2.0 * t * ratio) * x

    def squared_dist(self, x: Array, y: Array) -> Array:
        """(4/c) asinh² √t, t = c⟨x - y, x - y⟩/4."""
        t = self._difference(x, y)[2][..., 0]
        return (4.0 / self.c) * squared_asinh_sqrt(namespace(t), t)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u + c⟨y, u⟩/(1 - c⟨x, y⟩) (x + y)."""
        across, gap, t = self._difference(x, y)
        s = u[..., :1] / x[..., :1]
        # c⟨y, u⟩ = c⟨y - x, u⟩ without cancellation
        yu = s * (gap - 2.0 * t) + self._c * dot(across, u - s * x, 1, keepdims=True)
        return u + (yu / (2.0 + 2.0 * t)) * (x + y)

    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return float("inf") + 0.0 * dot(x, x, 1)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """-c, -c: exact."""
        curvature = 0.0 * dot(x, x, 1) - self.c
        return curvature, curvature

    @property
    def _c(self) -> Any:
        """The parameter c, to be combined with points."""
        return expand(self.c, 1)

    def _squared(self, x: Array, u: Array) -> Array:
        """⟨u, u⟩, shape `(..., 1)`."""
        s = u[..., :1] / x[..., :1]
        rest = u - s * x
        return dot(rest, rest, 1, keepdims=True) + s * s / self._c

    def _difference(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """`y - (y₀/x₀) x, (y₀ - x₀)/x₀, c⟨x - y, x - y⟩/4 = sinh²(√c dist(x, y)/2)`; the last two `(..., 1)`."""
        x0, y0 = x[..., :1], y[..., :1]
        ratio, gap = y0 / x0, (y0 - x0) / x0
        across = y - ratio * x
        return across, gap, 0.25 * (self._c * dot(across, across, 1, keepdims=True) + gap * gap) / ratio

    def _lift(self, s: Array, x: Array, t: Any = 1.0, u: Array | None = None) -> Array:
        """The point with the spatial coordinates of s x + t u."""
        spatial = s * x[..., 1:]
        if u is not None:
            spatial = spatial + t * u[..., 1:]
        xp = namespace(spatial)
        height = xp.sqrt(1.0 / self._c + dot(spatial, spatial, 1, keepdims=True))
        return xp.concat([height, spatial], axis=-1)


def _flip(a: Array) -> Array:
    """(-a₀, a₁, …, a_n)."""
    return namespace(a).concat([-a[..., :1], a[..., 1:]], axis=-1)
