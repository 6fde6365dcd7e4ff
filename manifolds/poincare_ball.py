"""The Poincaré ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import namespace
from ._conformal import Conformal, check_parameter, check_size, translate
from ._linalg import dot
from ._parameters import expand
from ._smooth import asinh_sqrt_ratio, squared_asinh_sqrt, squared_sech_sqrt, tanhc_sqrt

Array = Any


@dataclass(frozen=True, eq=False)
class PoincareBall(Conformal):
    """Vectors of ℝⁿ with c|x|² < 1 and ⟨u, v⟩ₓ = λₓ² u·v, λₓ = 2/b, b = 1 - c|x|²: hyperbolic space of curvature -c.

    x, u, w : (..., n); c > 0 : a number, or an array of batch shape. Ganea, Bécigneul & Hofmann 2018, §2.

    Coordinates near the sphere are coarse: a unit of rounding moves a point by λ eps/√c, and all errors are a few times
    that (λ = 1e6 where 1 - √c|x| = 1e-6; the relative error of dist is far less). Nearer to the sphere than 4 eps,
    that is farther from 0 than 35/√c in double and 15/√c in single precision, exp and retract round into the ball;
    the coordinates of `Lorentz` have no such edge. From a point to what is no point, dist and log are not finite.
    """

    parameters: ClassVar[tuple[str, ...]] = ("c",)
    n: int
    c: Any = 1.0

    def __post_init__(self) -> None:
        check_size("PoincareBall", self.n)
        check_parameter("PoincareBall", "c", self.c, positive=True)

    @property
    def curvature(self) -> Any:
        """-c."""
        return -self.c

    def exp(self, x: Array, u: Array) -> Array:
        """x ⊕ (tanh √(c|a|²)/√(c|a|²)) a, a = u/b."""
        b, negative = self._scaled(x, u)
        xp, t = namespace(b), -negative
        p = x + (tanhc_sqrt(xp, t) / b) * u
        return translate(self._kappa, x, b, p, squared_sech_sqrt(xp, t))

    def from_noise(self, z: Array) -> Array:
        """z/√(c(n + |z|²)): mostly at distances between 1/√c and 3/√c from 0."""
        squared = dot(z, z, 1, keepdims=True)
        return z / namespace(squared).sqrt(expand(self.c, 1) * (self.n + squared))

    def defect(self, x: Array) -> Array:
        """0 where c|x|² < 1, else c|x|²."""
        squared = self.c * dot(x, x, 1)
        xp = namespace(squared)
        return xp.where(squared < 1, xp.zeros_like(squared), squared)

    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return float("inf") + 0.0 * dot(x, x, 1)

    def _log_factor(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        t = expand(self.c, 1) * s / (bx * by)
        return asinh_sqrt_ratio(namespace(t), t) / by

    def _squared_dist(self, x: Array, y: Array, s: Array, bx: Array, by: Array) -> Array:
        """(4/c) asinh² √t, t = c|x - y|²/(b(x) b(y))."""
        c = expand(self.c, 1)
        t = c * s / (bx * by)
        return (4.0 / c) * squared_asinh_sqrt(namespace(t), t)
