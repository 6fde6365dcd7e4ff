"""Linear spaces of arrays, with the inner product that they inherit from ℝ^shape or ℂ^shape."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._linalg import dot, fit, trailing

Array = Any


class VectorSpace(Geodesic, InverseRetraction, Curvature):
    """A linear subspace of the arrays of one shape; only its orthogonal projector is its own."""

    @abstractmethod
    def _restrict(self, a: Array) -> Array:
        """The orthogonal projection of `a` onto the subspace."""

    @final
    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Re⟨u, v⟩, entry by entry."""
        return dot(fit(u, x), v, len(self.shape))

    @final
    def project(self, x: Array, a: Array) -> Array:
        """The part of `a` in the subspace."""
        return fit(self._restrict(a), x)

    @final
    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return fit(self._restrict(w), x)

    @final
    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """Zero."""
        return namespace(u).zeros_like(fit(u, x))

    @final
    def retract(self, x: Array, u: Array) -> Array:
        """x + u."""
        return x + u

    @final
    def inverse_retract(self, x: Array, y: Array) -> Array:
        """y - x."""
        return y - x

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)

    @final
    def from_noise(self, z: Array) -> Array:
        """The part of the noise in the subspace: standard normal there."""
        return self._restrict(z)

    @final
    def defect(self, x: Array) -> Array:
        """max |x - its part in the subspace| / max |x|; NaN where `x` is not finite."""
        xp, axes = namespace(x), trailing(len(self.shape))
        if not axes or 0 in self.shape:
            zero = xp.abs(x - x)
            return xp.sum(zero, axis=axes) if axes else zero
        size = xp.max(xp.abs(x), axis=axes)
        off = xp.max(xp.abs(x - self._restrict(x)), axis=axes)
        return off / xp.where(size > 0, size, xp.ones_like(size))

    @final
    def exp(self, x: Array, u: Array) -> Array:
        """x + u."""
        return x + u

    @final
    def log(self, x: Array, y: Array) -> Array:
        """y - x."""
        return y - x

    @final
    def squared_dist(self, x: Array, y: Array) -> Array:
        """|y - x|²."""
        gap = y - x
        return dot(gap, gap, len(self.shape))

    @final
    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself."""
        return fit(u, y)

    @final
    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return self._zero(x) + float("inf")

    @final
    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Zero, exactly."""
        zero = self._zero(x)
        return zero, zero

    def _zero(self, x: Array) -> Array:
        still = namespace(x).zeros_like(x)
        return dot(still, still, len(self.shape))
