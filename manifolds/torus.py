"""Angles."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, prod
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction, Quotient
from ._checks import is_size
from ._linalg import batch_full, dot, fit

Array = Any


@dataclass(frozen=True, init=False, repr=False)
class Torus(Geodesic, InverseRetraction, Curvature, Quotient):
    """Arrays of angles modulo 2π, flat: ℝ^shape / (2πℤ)^shape. `Torus()` is the circle, `Torus(3)` three angles.

    x, u, w : (..., *shape), real. Every finite array is a point, and x ~ x + 2πk for integers k: the group is discrete,
    so every vector is horizontal, `project` keeps everything and no covector has a vertical part; costs must be
    periodic. Points are left as they are, not wrapped; `align` picks the angles of y within π of x.
    """

    sizes: tuple[int, ...]

    def __init__(self, *sizes: int):
        if not all(is_size(size, 0) for size in sizes):
            raise ValueError(f"Torus(*shape) takes sizes that are integers ≥ 0, not {sizes}")
        object.__setattr__(self, "sizes", sizes)

    def __repr__(self) -> str:
        return f"Torus({', '.join(map(str, self.sizes))})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dim(self) -> int:
        return prod(self.sizes)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        return dot(fit(u, x), v, len(self.sizes))

    def project(self, x: Array, a: Array) -> Array:
        """`a` itself."""
        return fit(a, x)

    def sharp(self, x: Array, w: Array) -> Array:
        """`w` itself."""
        return fit(w, x)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """Zero."""
        return namespace(u).zeros_like(fit(u, x))

    def retract(self, x: Array, u: Array) -> Array:
        """x + u."""
        return x + u

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """`log`."""
        return wrap(y - x)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)

    def from_noise(self, z: Array) -> Array:
        """2πz: uniform to 6e-9."""
        return 2 * pi * z

    def defect(self, x: Array) -> Array:
        """Zero where `x` is finite, NaN where it is not."""
        zero = x - x
        return dot(zero, zero, len(self.sizes))

    def align(self, x: Array, y: Array) -> Array:
        """y + 2πk within [-π, π) of x: x + wrap(y - x)."""
        return x + wrap(y - x)

    def vertical(self, x: Array, w: Array) -> Array:
        """Zero: nothing is vertical."""
        zero = fit(w, x) - fit(w, x)
        return dot(zero, zero, len(self.sizes))

    def exp(self, x: Array, u: Array) -> Array:
        """x + u."""
        return x + u

    def log(self, x: Array, y: Array) -> Array:
        """y - x, wrapped into [-π, π)."""
        return wrap(y - x)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log|²: smooth but where an angle of y is opposite to that of x (the cut locus), where it has a kink."""
        d = wrap(y - x)
        return dot(d, d, len(self.sizes))

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)

    def injectivity_radius(self, x: Array) -> Array:
        """π, exactly."""
        return batch_full(x, len(self.sizes), pi)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """0, 0, exactly."""
        zero = batch_full(x, len(self.sizes), 0.0)
        return zero, zero


def wrap(a: Array) -> Array:
    """`a` + 2πk in [-π, π)."""
    return a - (2 * pi) * namespace(a).floor((a + pi) / (2 * pi))
