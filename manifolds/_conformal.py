"""What all conformal models of constant curvature share: the metric 4|u|²/(1 + κ|x|²)² on ℝⁿ or a ball in it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from ..backends import backend_of, namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import dot, fit
from ._parameters import expand, known

Array = Any


class Conformal(Geodesic, InverseRetraction, Curvature):
    """Vectors of ℝⁿ with ⟨u, v⟩ₓ = λₓ² u·v, λₓ = 2/b(x), b(x) = 1 + κ|x|²: of sectional curvature κ.

    Nothing here subtracts where b is small: with d = y - x and s = |d|²,

        D = |1 + κ x̄y|² = b(x) b(y) - κs,   tan²(√κ dist(x, y)/2) = κs/D,   (-x) ⊕ y = (b(x) d + κs x)/D,

    where x ⊕ y is Möbius addition (Ungar 2008, ch. 3) and tan √κ is tanh √-κ where κ < 0.
    """

    n: int

    @property
    @abstractmethod
    def curvature(self) -> Any:
        """κ: a number, or an array of batch shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def dim(self) -> int:
        return self.n

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """4 u·v/b²."""
        scale = 2.0 / (1.0 + self.curvature * dot(x, x, 1))
        return scale * scale * dot(u, v, 1)

    def project(self, x: Array, a: Array) -> Array:
        """All vectors are tangent."""
        return fit(a, x)

    def sharp(self, x: Array, w: Array) -> Array:
        """b² w/4."""
        half = 0.5 * self._b(x)
        return half * half * w

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """κλ ((x·u) w + (w·u) x - (x·w) u): the Christoffel symbols of a conformal metric."""
        first, second, third = (dot(p, q, 1, keepdims=True) for p, q in ((x, u), (w, u), (x, w)))
        return (2 * self._kappa / self._b(x)) * (first * w + second * x - third * u)

    def retract(self, x: Array, u: Array) -> Array:
        """x ⊕ √h a with a = u/b and log h = asinh(κ|a|²/2): inside the ball for every u, `exp` to second order."""
        b, t = self._scaled(x, u)
        xp = namespace(t)
        h = xp.exp(xp.asinh(0.5 * t))
        return translate(self._kappa, x, b, x + (xp.sqrt(h) / b) * u, h * h)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """b(x) (b(x) d + κs x)/D · (D/(b(x) b(y)))^(1/4)."""
        d, s, bx, by = self._difference(x, y)
        square, bb = self._kappa * s, bx * by
        bottom = bb - square
        xp = namespace(bottom)
        factor = xp.sqrt(xp.sqrt(bottom / bb)) * bx / bottom
        return (factor * bx) * d + (factor * square) * x

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """(λₓ/λ_y) u: an isometry."""
        return (self._b(y) / self._b(x)) * u

    def log(self, x: Array, y: Array) -> Array:
        """θ/(sin θ cos θ) (b(x) d + κs x)/b(y), θ = √κ dist(x, y)/2."""
        d, s, bx, by = self._difference(x, y)
        factor = self._log_factor(x, y, s, bx, by)
        return (factor * bx) * d + (factor * self._kappa * s) * x

    def squared_dist(self, x: Array, y: Array) -> Array:
        """4θ²/κ with tan² θ = κs/D."""
        _, s, bx, by = self._difference(x, y)
        return self._squared_dist(x, y, s, bx, by)[..., 0]

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """(λₓ/λ_y) gyr[y, -x] u. With a = κ(d xᵀ - x dᵀ) and m = 1 + κ x·y the gyration is the rotation

        (mI - a)⁻¹(mI + a) = I + 2 (m a + a²)/D: orthogonal to rounding, for D is found from m and a.
        """
        kappa, d = self._kappa, y - x
        xx, xd, dd = (dot(p, q, 1, keepdims=True) for p, q in ((x, x), (x, d), (d, d)))
        xu, du = dot(x, u, 1, keepdims=True), dot(d, u, 1, keepdims=True)
        xx, xd, dd = kappa * xx, kappa * xd, kappa * dd
        bx = 1.0 + xx
        m = bx + xd
        factor = (2.0 * kappa) / (m * m + (xx * dd - xd * xd))
        along_d = factor * ((m + xd) * xu - xx * du)
        along_x = factor * ((m - xd) * du + dd * xu)
        return (self._b(y) / bx) * (u + along_d * d - along_x * x)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """κ, κ: exact."""
        kappa = self.curvature + 0.0 * dot(x, x, 1)
        return kappa, kappa

    @abstractmethod
    def _log_factor(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        """θ/(sin θ cos θ b(y)), shape `(..., 1)`."""

    @abstractmethod
    def _squared_dist(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        """4θ²/κ, shape `(..., 1)`."""

    @property
    def _kappa(self) -> Any:
        """κ, to be combined with points."""
        return expand(self.curvature, 1)

    def _b(self, x: Array) -> Array:
        """1 + κ|x|², shape `(..., 1)`."""
        return 1.0 + self._kappa * dot(x, x, 1, keepdims=True)

    def _scaled(self, x: Array, u: Array) -> tuple[Array, Array]:
        """`b, κ|u/b|²`."""
        b = self._b(x)
        return b, (self._kappa / (b * b)) * dot(u, u, 1, keepdims=True)

    def _difference(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
        """`d, s, b(x), b(y)`."""
        d = y - x
        return d, dot(d, d, 1, keepdims=True), self._b(x), self._b(y)


def translate(kappa: Any, x: Array, b: Array, p: Array, g: Array, c: Any = 1.0) -> Array:
    """x ⊕ v for p = c(x + v), b = b(x), g = c² b(v): (bcp - κ|p|²x)/(bg - κ|p|²), rounded into the ball.

    What rounding puts on the sphere |y|² = -1/κ, or nearer to it than 4 eps, is drawn back by that much.
    """
    opposite = -kappa * dot(p, p, 1, keepdims=True)
    bottom = b * g + opposite
    y = (opposite / bottom) * x + (b * c / bottom) * p
    if not hasattr(kappa, "shape") and kappa >= 0:
        return y
    squared = -kappa * dot(y, y, 1, keepdims=True)
    xp, largest = namespace(squared), backend_of(squared).largest(squared)
    eps = float(xp.finfo(squared.dtype).eps)
    if largest is not None and largest <= 1 - 8 * eps:
        return y
    ones, outside = xp.ones_like(squared), squared > 1 - 8 * eps
    return y * xp.where(outside, (1 - 4 * eps) / xp.sqrt(xp.where(outside, squared, ones)), ones)


def check_size(name: str, n: Any, low: int = 1) -> None:
    """Raise `ValueError` unless `n` is an integer, at least `low`."""
    if not is_size(n, low):
        raise ValueError(f"{name} needs an integer n of at least {low}, not {n!r}")


def check_parameter(name: str, what: str, value: Any, *, positive: bool = False) -> None:
    """Raise `ValueError` where the value of a parameter is known and not finite, or not positive where it must be."""
    if known(value):
        values = np.asarray(backend_of(value).to_numpy(value) if hasattr(value, "shape") else value)
        if not (np.isfinite(values) & ((values > 0) | (not positive))).all():
            raise ValueError(f"{name} needs a finite {what}{' > 0' if positive else ''}, not {value}")
