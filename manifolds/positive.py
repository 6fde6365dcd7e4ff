"""Arrays of positive numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import dot, fit
from ._smooth import log_ratio

Array = Any


@dataclass(frozen=True, init=False, repr=False)
class Positive(Geodesic, InverseRetraction, Curvature):
    """Arrays of positive numbers with ⟨u, v⟩ₓ = Σ uv/x²: relative changes count, and x ↦ log x is an isometry to ℝⁿ.

    `Positive(3)` vectors, `Positive(4, 2)` matrices, `Positive()` numbers. Entry by entry SPD(1). It is flat.
    """

    sizes: tuple[int, ...]

    def __init__(self, *sizes: int):
        if not all(is_size(size, 0) for size in sizes):
            raise ValueError(f"Positive(*shape) takes sizes that are integers ≥ 0, not {sizes}")
        object.__setattr__(self, "sizes", sizes)

    def __repr__(self) -> str:
        return f"Positive({', '.join(map(str, self.sizes))})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dim(self) -> int:
        return prod(self.sizes)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Σ uv/x²."""
        left = u / x
        return dot(left, left if v is u else v / x, len(self.sizes))

    def project(self, x: Array, a: Array) -> Array:
        """`a` itself."""
        return fit(a, x)

    def sharp(self, x: Array, w: Array) -> Array:
        """x² w."""
        return x * x * w

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """w u/x."""
        return w * u / x

    def retract(self, x: Array, u: Array) -> Array:
        """x exp(2 asinh(s/2)) = x (s/2 + √(1 + s²/4))², s = u/x: positive for every u, and grows as s², not as eˢ.

        Of second order (exp(2 asinh(s/2)) = eˢ up to s³/24), and one to one for all u.
        """
        xp = namespace(x, u)
        half = xp.asinh(u / (x + x))
        return x * xp.exp(half + half)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """(y - x) √(x/y)."""
        return (y - x) * namespace(x, y).sqrt(x / y)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """u y/x: parallel."""
        return u * (y / x)

    def from_noise(self, z: Array) -> Array:
        """eᶻ."""
        return namespace(z).exp(z)

    def defect(self, x: Array) -> Array:
        """Σ 1 + |x| over the entries that are not positive, or not finite."""
        xp = namespace(x)
        off = xp.where((x > 0) & xp.isfinite(x), xp.zeros_like(x), 1 + xp.abs(x))
        return dot(off, xp.ones_like(off), len(self.sizes))

    def exp(self, x: Array, u: Array) -> Array:
        """x exp(u/x)."""
        return x * namespace(x, u).exp(u / x)

    def log(self, x: Array, y: Array) -> Array:
        """x log(y/x)."""
        return x * log_ratio(namespace(x, y), y, x)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """Σ log(y/x)²."""
        log = log_ratio(namespace(x, y), y, x)
        return dot(log, log, len(self.sizes))

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u y/x."""
        return u * (y / x)

    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return self._zero(x) + float("inf")

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Zero, exactly."""
        return self._zero(x), self._zero(x)

    def _zero(self, x: Array) -> Array:
        still = namespace(x).zeros_like(x)
        return dot(still, still, len(self.sizes))
