"""Constant curvature of either sign in stereographic coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi
from typing import Any, ClassVar

from ..backends import backend_of, namespace
from ._conformal import Conformal, check_parameter, check_size, translate
from ._linalg import dot
from ._smooth import angle_over_sine, asinh_sqrt_ratio, cos_sqrt, sinc_sqrt, squared_sech_sqrt, tanhc_sqrt

Array = Any

#: Added to D, so that θ/sin θ and with it dist are finite at the opposite point.
_LEAST = 1e-30


@dataclass(frozen=True, eq=False)
class Stereographic(Conformal):
    """Vectors of ℝⁿ with 1 + κ|x|² > 0 and ⟨u, v⟩ₓ = λₓ² u·v, λₓ = 2/b, b = 1 + κ|x|²: curvature κ of either sign.

    x, u, w : (..., n); kappa : a number, or an array of batch shape. Everything is smooth in κ, also at κ = 0, so that
    the curvature can be learnt. κ < 0 is `PoincareBall(n, -κ)`; κ = 0 is ℝⁿ with four times its metric (λ = 2); κ > 0
    is the sphere of radius 1/√κ without the point that it is projected from; `log` of the opposite point is NaN.
    Bachmann, Bécigneul & Ganea 2020, §2; Skopek, Ganea & Bécigneul 2020.
    """

    parameters: ClassVar[tuple[str, ...]] = ("kappa",)
    n: int
    kappa: Any

    def __post_init__(self) -> None:
        check_size("Stereographic", self.n)
        check_parameter("Stereographic", "kappa", self.kappa)

    @property
    def curvature(self) -> Any:
        """κ."""
        return self.kappa

    def exp(self, x: Array, u: Array) -> Array:
        """x ⊕ (tan θ/θ) a, a = u/b, θ² = κ|a|²; for κ > 0 as sine and cosine, without the pole of the tangent."""
        b, t = self._scaled(x, u)
        xp = namespace(t)
        if self._sign == -1:
            p = x + (tanhc_sqrt(xp, -t) / b) * u
            return translate(self._kappa, x, b, p, squared_sech_sqrt(xp, -t))
        if self._sign == 1:
            cosine = cos_sqrt(xp, t)
            return translate(self._kappa, x, b, cosine * x + (sinc_sqrt(xp, t) / b) * u, 1.0, cosine)
        below, negative, positive = _signs(xp, t)
        ones = xp.ones_like(t)
        cosine = xp.where(below, ones, cos_sqrt(xp, positive))
        sine = xp.where(below, tanhc_sqrt(xp, negative), sinc_sqrt(xp, positive))
        g = xp.where(below, squared_sech_sqrt(xp, negative), ones)
        return translate(self._kappa, x, b, cosine * x + (sine / b) * u, g, cosine)

    def from_noise(self, z: Array) -> Array:
        """z √(h/n) with log h = asinh(κ|z|²/2n): |z|/√n for κ = 0, inside the ball for κ < 0."""
        t = (0.5 / self.n) * self._kappa * dot(z, z, 1, keepdims=True)
        xp = namespace(t)
        return (self.n**-0.5 * xp.exp(0.5 * xp.asinh(t))) * z

    def defect(self, x: Array) -> Array:
        """0 where b > 0, else 1 - b; inf if not finite."""
        squared = dot(x, x, 1)
        xp = namespace(squared)
        finite, zeros = xp.isfinite(squared), xp.zeros_like(squared)
        b = 1 + self.kappa * xp.where(finite, squared, zeros)
        return xp.where(finite, xp.where(b > 0, xp.zeros_like(b), 1 - b), inf + zeros)

    def injectivity_radius(self, x: Array) -> Array:
        """π/√κ where κ > 0, else ∞."""
        kappa, _ = self.curvature_bounds(x)
        xp = namespace(kappa)
        ones = xp.ones_like(kappa)
        return xp.where(kappa > 0, pi / xp.sqrt(xp.where(kappa > 0, kappa, ones)), inf * ones)

    def _log_factor(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        ratio, bottom = self._ratio(x, y, s, bx, by)
        xp = namespace(ratio)
        # at the opposite point there are many logarithms, and none to prefer
        return xp.where(bottom > 2 * _LEAST, ratio / by, float("nan") * xp.ones_like(ratio))

    def _squared_dist(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        """4s D (θ/(sin θ cos θ) / (b(x) b(y)))²: no division by κ."""
        ratio, bottom = self._ratio(x, y, s, bx, by)
        scaled = ratio / (bx * by)
        return 4.0 * s * bottom * scaled * scaled

    @property
    def _sign(self) -> int:
        """-1 if κ < 0 everywhere, 1 if κ ≥ 0 everywhere: then one branch is enough. Else, or if not known, 0."""
        if not hasattr(self.kappa, "shape"):
            return -1 if self.kappa < 0 else 1
        high, low = (backend_of(self.kappa).largest(k) for k in (self.kappa, -self.kappa))
        if high is None or low is None:
            return 0
        return -1 if high < 0 else 1 if low <= 0 else 0

    def _ratio(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> tuple[Array, Array]:
        """`θ/(sin θ cos θ), D`, where κs/(b(x) b(y)) = sin² θ and κs/D = tan² θ."""
        square, bb = self._kappa * s, bx * by
        xp = namespace(square)
        if self._sign == -1:
            return asinh_sqrt_ratio(xp, -square / bb), bb - square
        opposite = self._opposite(x, y, bx - 1, by - 1)
        if self._sign == 1:
            return angle_over_sine(xp, square, opposite), opposite
        below, negative, positive = _signs(xp, square)
        ones = xp.ones_like(square)
        bottom = xp.where(below, bb + negative, opposite)
        hyperbolic = asinh_sqrt_ratio(xp, negative / xp.where(below, bb, ones))
        spherical = angle_over_sine(xp, positive, xp.where(below, ones, bottom))
        return xp.where(below, hyperbolic, spherical), bottom

    def _opposite(self, x: Array, y: Array, xx: Array, yy: Array) -> Array:
        """D, which is small where y is nearly opposite to x, from xx = κ|x|², yy = κ|y|²:

        (1 + κ x·y)² + κ²(|x|²|y|² - (x·y)²) if |xx yy| < 1/4, else |xx y + x|²/|x|².
        """
        product, xy = xx * yy, self._kappa * dot(x, y, 1, keepdims=True)
        near = 1.0 + 2.0 * xy + product
        largest = backend_of(product).largest(product)
        if largest is not None and largest <= 0.25:
            return near
        off = xx * y + x
        squared = self._kappa * dot(off, off, 1, keepdims=True)
        xp = namespace(product)
        far = product > 0.25
        return _LEAST + xp.where(far, squared / xp.where(far, xx, xp.ones_like(xx)), near)


def _signs(xp: Any, t: Array) -> tuple[Array, Array, Array]:
    """`t < 0, |t| there, t elsewhere`, 0 in other places."""
    below, zeros = t < 0, xp.zeros_like(t)
    return below, xp.where(below, -t, zeros), xp.where(below, zeros, t)
