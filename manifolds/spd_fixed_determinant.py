"""Symmetric positive definite matrices of one determinant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from ..backends import backend_of, namespace
from ._base import Curvature
from ._linalg import batch_full, dot, eye_like, real_diagonal, sym
from ._parameters import expand, known
from ._spectral import Exp, spectral
from .spd import AffineInvariant, check_size, cholesky, gaussian, indefiniteness, second_order

Array = Any


@final
@dataclass(frozen=True, eq=False)
class SPDFixedDeterminant(AffineInvariant, Curvature):
    """Symmetric positive definite n × n matrices with det x = c and ⟨u, v⟩ₓ = tr(x⁻¹u x⁻¹v), n ≥ 2.

    x, u, w : (..., n, n); tangent vectors have tr(x⁻¹u) = 0. `determinant` is c > 0, a number or of batch shape.
    A totally geodesic part of `SPD(n)`: geodesics, distance and parallel transport are the same. Bhatia 2007, ch. 6.
    """

    parameters: ClassVar[tuple[str, ...]] = ("determinant",)

    n: int
    determinant: Any = 1.0

    def __post_init__(self) -> None:
        check_size(self, 2)
        if known(self.determinant) and not _all_positive(self.determinant):
            raise ValueError(f"SPDFixedDeterminant needs a determinant > 0 and finite, not {self.determinant}")

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2 - 1

    def project(self, x: Array, a: Array) -> Array:
        """sym(a) - (x⁻¹·a) x⁻¹/|x⁻¹|²."""
        inverse, a = sym(namespace(x).linalg.inv(x)), sym(a)
        part = dot(inverse, a, 2, keepdims=True) / dot(inverse, inverse, 2, keepdims=True)
        return a - part * inverse

    def sharp(self, x: Array, w: Array) -> Array:
        """xwx - (tr(xw)/n) x, w symmetrized."""
        w = sym(w)
        return x @ w @ x - dot(x, w, 2, keepdims=True) / self.n * x

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """sym(x⁻¹ u sym(w)), as on `SPD`."""
        return sym(namespace(x).linalg.inv(x) @ u @ sym(w))

    def retract(self, x: Array, u: Array) -> Array:
        """x + u + u x⁻¹u/2, scaled to the determinant. Second order."""
        return self._scaled(second_order(x, u))

    def from_noise(self, z: Array) -> Array:
        """The exponential of sym(z)/√n without its trace, times c^(1/n)."""
        a = gaussian(z)
        mean = namespace(z).sum(real_diagonal(a), axis=-1) / self.n
        return spectral(Exp())(a - mean[..., None, None] * eye_like(a, self.n)) * expand(self._root(), 2)

    def defect(self, x: Array) -> Array:
        """|log det x - log c|, plus the defect of a positive definite matrix; inf if not finite."""
        xp = namespace(x)
        off, values = indefiniteness(x)
        positive = xp.where(values > 0, values, xp.ones_like(values))
        log = xp.sum(xp.log(positive), axis=-1) - self.n * xp.log(self._root() + 0.0 * off)
        return off + xp.where(xp.isfinite(off), xp.abs(log), 0.0 * log)

    def injectivity_radius(self, x: Array) -> Array:
        """Infinity."""
        return batch_full(x, 2, float("inf"))

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """-1/2 and 0, attained; for n = 2 a hyperbolic plane, -1/2 throughout."""
        return batch_full(x, 2, -0.5), batch_full(x, 2, -0.5 if self.n == 2 else 0.0)

    def _root(self) -> Any:
        """c^(1/n)."""
        return self.determinant ** (1 / self.n)

    def _scaled(self, a: Array) -> Array:
        """`a` times a positive number, of determinant c; through logarithms, so that none overflows."""
        xp = namespace(a)
        log = xp.sum(xp.log(real_diagonal(cholesky(a))), axis=-1)
        return a * (xp.exp(log * (-2 / self.n))[..., None, None] * expand(self._root(), 2))


def _all_positive(c: Any) -> bool:
    if not hasattr(c, "shape"):
        return 0 < c < float("inf")
    plain = backend_of(c).to_numpy(c)
    return bool(((plain > 0) & (plain < float("inf"))).all())
