"""Products of manifolds, over trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import optree

from ..backends import ShapeError, namespace
from ..backends._trees import NAMESPACE
from ._base import Curvature, Exponential, Geodesic, InverseRetraction, Logarithmic, Manifold, Point, Quotient, total
from ._checks import leaf_shapes
from ._kinds import Composite, Kind, part, shared
from ._smooth import root

Array = Any


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Product(Composite):
    """The product of a tree (dict, list, tuple, …) of manifolds; its points are trees of the same structure.

    `Product({"w": Stiefel(5, 2), "b": Euclidean(3)})`. It is `Geodesic`, `InverseRetraction`, … where all factors
    are, and a `Quotient` where one of them is. All factors share one inner product, the sum of theirs; their leading
    axes must agree.
    """

    parameters: ClassVar[tuple[str, ...]] = ("factors",)

    factors: tuple[Any, ...]
    structure: Any

    def __init__(self, tree: Any):
        factors, structure = _split(tree)
        if not factors:
            raise ValueError("Product needs at least one manifold")
        for factor in factors:
            if not isinstance(factor, Manifold):
                raise TypeError(f"Product takes a tree of manifolds; found a {type(factor).__name__}")
        object.__setattr__(self, "factors", tuple(factors))
        object.__setattr__(self, "structure", structure)
        if len(leaf_shapes(self.shape)) != sum(len(leaf_shapes(f.shape)) for f in factors):
            raise ValueError("Product: an empty container in the tree holds no manifold; leave it out")

    @staticmethod
    def kinds(tree: Any) -> frozenset[Kind]:
        """What all factors are, and `Quotient` where one is."""
        factors = _split(tree)[0]
        if not factors:
            return frozenset()
        quotient = {Quotient} if any(isinstance(f, Quotient) for f in factors) else set()
        return shared(factors) | quotient

    @final
    def __repr__(self) -> str:
        return f"Product({self._join(list(self.factors))})"

    @property
    def shape(self) -> Any:
        return self._join([factor.shape for factor in self.factors])

    @property
    def dim(self) -> int:
        return sum(factor.dim for factor in self.factors)

    @final
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        """The sum of the factors' inner products."""
        return total(self._each(lambda m, *a: m.inner(*a), x, u, v), self, "inner")

    @final
    def project(self, x: Point, a: Point) -> Point:
        return self._map(lambda m, *a: m.project(*a), x, a)

    @final
    def sharp(self, x: Point, w: Point) -> Point:
        return self._map(lambda m, *a: m.sharp(*a), x, w)

    @final
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.connection(*a), x, w, u)

    @final
    def retract(self, x: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.retract(*a), x, u)

    @final
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.transport(*a), x, y, u)

    @final
    def from_noise(self, z: Point) -> Point:
        return self._map(lambda m, *a: m.from_noise(*a), z)

    @final
    def defect(self, x: Point) -> Array:
        """The sum of the factors' defects."""
        return total(self._each(lambda m, *a: m.defect(*a), x), self, "defect")

    @final
    def split(self, x: Point) -> list[Any]:
        """The part of each factor. Raises `ShapeError` where `x` has another structure."""
        try:
            return self.structure.flatten_up_to(x)
        except (ValueError, TypeError) as error:
            raise ShapeError(f"not a point or vector of {self}: {error}") from None

    def _join(self, parts: list[Any]) -> Any:
        return self.structure.unflatten(parts)

    def _each(self, method: Callable[..., Any], *args: Point) -> list[Any]:
        parts = zip(self.factors, *(self.split(a) for a in args), strict=True)
        return [method(factor, *rest) for factor, *rest in parts]

    def _map(self, method: Callable[..., Any], *args: Point) -> Point:
        return self._join(self._each(method, *args))


@part(Product, Exponential)
class _Exponential(Product, Exponential):
    @final
    def exp(self, x: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.exp(*a), x, u)


@part(Product, Logarithmic)
class _Logarithmic(_Exponential, Logarithmic):
    @final
    def log(self, x: Point, y: Point) -> Point:
        return self._map(lambda m, *a: m.log(*a), x, y)

    @final
    def squared_dist(self, x: Point, y: Point) -> Array:
        """The sum of the factors' squared distances."""
        return total(self._each(lambda m, *a: m.squared_dist(*a), x, y), self, "squared_dist")


@part(Product, Geodesic)
class _Geodesic(_Logarithmic, Geodesic):
    @final
    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.parallel_transport(*a), x, y, u)


@part(Product, InverseRetraction)
class _InverseRetraction(Product, InverseRetraction):
    @final
    def inverse_retract(self, x: Point, y: Point) -> Point:
        return self._map(lambda m, *a: m.inverse_retract(*a), x, y)


@part(Product, Curvature)
class _Curvature(Product, Curvature):
    @final
    def injectivity_radius(self, x: Point) -> Array:
        """The smallest of the factors'."""
        return _extreme("minimum", self._each(lambda m, *a: m.injectivity_radius(*a), x))

    @final
    def curvature_bounds(self, x: Point) -> tuple[Array, Array]:
        """The factors' extremes, and 0, the curvature of a plane spanned by vectors of two factors."""
        bounds = self._each(lambda m, *a: m.curvature_bounds(*a), x)
        low, high = _extreme("minimum", [b[0] for b in bounds]), _extreme("maximum", [b[1] for b in bounds])
        if len(bounds) == 1:
            return low, high
        return _extreme("minimum", [low, 0.0 * low]), _extreme("maximum", [high, 0.0 * high])


@part(Product, Quotient)
class _Quotient(Product, Quotient):
    @final
    def align(self, x: Point, y: Point) -> Point:
        """Factor by factor; points of factors that are no quotients as they are."""
        return self._map(lambda m, a, b: m.align(a, b) if isinstance(m, Quotient) else b, x, y)

    @final
    def vertical(self, x: Point, w: Point) -> Array:
        """The root of the sum of the squares."""
        found = self._each(lambda m, *a: m.vertical(*a) ** 2 if isinstance(m, Quotient) else None, x, w)
        squared = total([part for part in found if part is not None], self, "vertical")
        return root(namespace(squared), squared)


def _split(tree: Any) -> tuple[list[Any], Any]:
    return optree.tree_flatten(tree, lambda node: isinstance(node, Manifold), namespace=NAMESPACE)


def _extreme(name: str, parts: list[Array]) -> Array:
    result = parts[0]
    for other in parts[1:]:
        result = getattr(namespace(result, other), name)(result, other)
    return result
