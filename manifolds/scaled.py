"""A manifold with its metric times a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from ..backends import backend_of
from ._base import (
    Congruence,
    Curvature,
    Exponential,
    Geodesic,
    InverseRetraction,
    Logarithmic,
    Manifold,
    Point,
    Quotient,
)
from ._kinds import Composite, Kind, kinds_of, part
from ._parameters import expand, known

Array = Any


@dataclass(frozen=True, eq=False)
class Scaled(Composite):
    """`manifold` with the metric weight · ⟨u, v⟩ₓ, weight > 0; of all the kinds that `manifold` is of.

    Distances grow with √weight, gradients shrink with 1/weight; points, geodesics and transports are the same. `weight`
    is a number, or an array of batch shape that may be learned: `Product([M, Scaled(N, t)])` weighs N against M,
    `Scaled(Sphere(3), r**2)` is as curved as a sphere of radius r.
    """

    parameters: ClassVar[tuple[str, ...]] = ("manifold", "weight")

    manifold: Any
    weight: Any

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold):
            raise TypeError(f"Scaled(manifold, weight) takes a manifold, not a {type(self.manifold).__name__}")
        if known(self.weight) and not _positive(self.weight):
            raise ValueError(f"Scaled(manifold, weight) needs weight > 0, not {self.weight}")

    @staticmethod
    def kinds(manifold: Any, weight: Any) -> frozenset[Kind]:
        """Those of `manifold`."""
        return kinds_of(manifold)

    @property
    def shape(self) -> Any:
        return self.manifold.shape

    @property
    def dim(self) -> int:
        return self.manifold.dim

    @final
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        """weight · ⟨u, v⟩ₓ."""
        return self.weight * self.manifold.inner(x, u, v)

    @final
    def project(self, x: Point, a: Point) -> Point:
        return self.manifold.project(x, a)

    @final
    def sharp(self, x: Point, w: Point) -> Point:
        """sharp(x, w)/weight."""
        return self.scale(1 / self.weight, self.manifold.sharp(x, w))

    @final
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        return self.manifold.connection(x, w, u)

    @final
    def retract(self, x: Point, u: Point) -> Point:
        return self.manifold.retract(x, u)

    @final
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        return self.manifold.transport(x, y, u)

    @final
    def from_noise(self, z: Point) -> Point:
        return self.manifold.from_noise(z)

    @final
    def defect(self, x: Point) -> Array:
        return self.manifold.defect(x)


@part(Scaled, Exponential)
class _Exponential(Scaled, Exponential):
    @final
    def exp(self, x: Point, u: Point) -> Point:
        return self.manifold.exp(x, u)


@part(Scaled, Logarithmic)
class _Logarithmic(_Exponential, Logarithmic):
    @final
    def log(self, x: Point, y: Point) -> Point:
        return self.manifold.log(x, y)

    @final
    def squared_dist(self, x: Point, y: Point) -> Array:
        """weight · dist(x, y)²."""
        return self.weight * self.manifold.squared_dist(x, y)


@part(Scaled, Geodesic)
class _Geodesic(_Logarithmic, Geodesic):
    @final
    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        return self.manifold.parallel_transport(x, y, u)


@part(Scaled, InverseRetraction)
class _InverseRetraction(Scaled, InverseRetraction):
    @final
    def inverse_retract(self, x: Point, y: Point) -> Point:
        return self.manifold.inverse_retract(x, y)


@part(Scaled, Curvature)
class _Curvature(Scaled, Curvature):
    @final
    def injectivity_radius(self, x: Point) -> Array:
        """√weight times that of `manifold`."""
        return self.weight**0.5 * self.manifold.injectivity_radius(x)

    @final
    def curvature_bounds(self, x: Point) -> tuple[Array, Array]:
        """Those of `manifold` over weight."""
        low, high = self.manifold.curvature_bounds(x)
        return low / self.weight, high / self.weight


@part(Scaled, Quotient)
class _Quotient(Scaled, Quotient):
    @final
    def align(self, x: Point, y: Point) -> Point:
        return self.manifold.align(x, y)

    @final
    def vertical(self, x: Point, w: Point) -> Array:
        return self.manifold.vertical(x, w)


@part(Scaled, Congruence)
class _Congruence(Scaled, Congruence):
    @final
    def factor(self, x: Array) -> Array:
        """l weight^(-1/4), for l of `manifold`."""
        l = self.manifold.factor(x)
        return expand(self.weight**-0.25, 2) * l


def _positive(weight: Any) -> bool:
    if not hasattr(weight, "shape"):
        return weight > 0
    return bool((backend_of(weight).to_numpy(weight) > 0).all())
