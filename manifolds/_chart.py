"""Manifolds that are isometric to a vector space: one chart, and everything in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

from ._base import Curvature, Geodesic, InverseRetraction
from ._linalg import batch_full, dot

Array = Any


class Chart(ABC):
    """The chart φ of a flat manifold at a point x; made once, with what its methods share factorized."""

    coordinates: Any  #: φ(x), an array

    @abstractmethod
    def push(self, u: Array) -> Array:
        """Dφ(x)[u]."""

    @abstractmethod
    def lift(self, c: Array) -> Array:
        """The tangent u with Dφ(x)[u] = c."""

    @abstractmethod
    def colift(self, w: Array) -> Array:
        """The transpose of `lift`: colift(w)·c = w·lift(c)."""

    @abstractmethod
    def bend(self, w: Array, u: Array) -> Array:
        """The covector v ↦ w·D²φ⁻¹[Dφ u, Dφ v]."""


class FlatChart(Geodesic, InverseRetraction, Curvature):
    """A manifold with ⟨u, v⟩ₓ = Dφ(x)[u]·Dφ(x)[v], where φ maps it onto a vector space of n × n matrices."""

    @abstractmethod
    def chart(self, x: Array) -> Chart:
        """φ at x."""

    @abstractmethod
    def point(self, c: Array) -> Array:
        """φ⁻¹(c)."""

    @final
    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Dφ[u]·Dφ[v]."""
        chart = self.chart(x)
        pushed = chart.push(u)
        return dot(pushed, pushed if v is u else chart.push(v), 2)

    @final
    def sharp(self, x: Array, w: Array) -> Array:
        """Dφ⁻¹[Dφ⁻ᵀ[w]]."""
        chart = self.chart(x)
        return chart.lift(chart.colift(w))

    @final
    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """v ↦ w·D²φ⁻¹[Dφ u, Dφ v]: geodesics are straight in the chart."""
        return self.chart(x).bend(w, u)

    @final
    def retract(self, x: Array, u: Array) -> Array:
        """`exp`."""
        return self.exp(x, u)

    @final
    def inverse_retract(self, x: Array, y: Array) -> Array:
        """`log`."""
        return self.log(x, y)

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`parallel_transport`."""
        return self.parallel_transport(x, y, u)

    @final
    def exp(self, x: Array, u: Array) -> Array:
        """φ⁻¹(φ(x) + Dφ[u]), for every u."""
        chart = self.chart(x)
        return self.point(chart.coordinates + chart.push(u))

    @final
    def log(self, x: Array, y: Array) -> Array:
        """Dφ(x)⁻¹[φ(y) - φ(x)]."""
        chart = self.chart(x)
        return chart.lift(self.chart(y).coordinates - chart.coordinates)

    @final
    def squared_dist(self, x: Array, y: Array) -> Array:
        """|φ(y) - φ(x)|²."""
        gap = self.chart(y).coordinates - self.chart(x).coordinates
        return dot(gap, gap, 2)

    @final
    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """Dφ(y)⁻¹[Dφ(x)[u]]."""
        return self.chart(y).lift(self.chart(x).push(u))

    @final
    def injectivity_radius(self, x: Array) -> Array:
        """Infinity."""
        return batch_full(x, 2, float("inf"))

    @final
    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """0 and 0, exactly."""
        zero = batch_full(x, 2, 0.0)
        return zero, zero
