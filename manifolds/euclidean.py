"""Flat space."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ..backends import namespace
from ._base import Geodesic
from ._linalg import dot, fit

Array = Any


@dataclass(frozen=True, init=False, repr=False)
class Euclidean(Geodesic):
    """ℝ^shape, the dot product: `Euclidean(3)` vectors, `Euclidean(4, 2)` matrices, `Euclidean()` numbers.

    Complex arrays are points too, with the real inner product (the dimension is then twice `dim`).
    """

    sizes: tuple[int, ...]

    def __init__(self, *sizes: int):
        if any(not isinstance(size, int) or size < 0 for size in sizes):
            raise ValueError(f"Euclidean(*shape) takes sizes that are integers ≥ 0, not {sizes}")
        object.__setattr__(self, "sizes", sizes)

    def __repr__(self) -> str:
        return f"Euclidean({', '.join(map(str, self.sizes))})"

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

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)

    def from_noise(self, z: Array) -> Array:
        """The noise itself."""
        return z

    def defect(self, x: Array) -> Array:
        """Zero where `x` is finite, NaN where it is not."""
        zero = x - x
        return dot(zero, zero, len(self.sizes))

    def exp(self, x: Array, u: Array) -> Array:
        """x + u."""
        return x + u

    def log(self, x: Array, y: Array) -> Array:
        """y - x."""
        return y - x

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|y - x|²."""
        return dot(y - x, y - x, len(self.sizes))

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)
