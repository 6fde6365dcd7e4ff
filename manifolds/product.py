"""Products of manifolds, over trees."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import optree

from ..backends import ShapeError
from ..backends._trees import NAMESPACE
from ._base import Geodesic, Manifold, Point, total
from ._checks import leaf_shapes

Array = Any


def Product(tree: Any) -> ProductManifold | GeodesicProduct:
    """The product of a tree (dict, list, tuple, …) of manifolds; its points are trees of the same structure.

    `Product({"w": Stiefel(5, 2), "b": Euclidean(3)})`. It is `Geodesic` where all factors are.
    All factors share one inner product, the sum of theirs; their leading axes must agree.
    """
    factors, structure = optree.tree_flatten(tree, _is_manifold, namespace=NAMESPACE)
    if not factors:
        raise ValueError("Product needs at least one manifold")
    for factor in factors:
        if not isinstance(factor, Manifold):
            raise TypeError(f"Product takes a tree of manifolds; found a {type(factor).__name__}")
    kind = GeodesicProduct if all(isinstance(f, Geodesic) for f in factors) else ProductManifold
    result = kind(tuple(factors), structure)
    if len(leaf_shapes(result.shape)) != sum(len(leaf_shapes(f.shape)) for f in factors):
        raise ValueError("Product: an empty container in the tree holds no manifold; leave it out")
    return result


def _is_manifold(tree: Any) -> bool:
    return isinstance(tree, Manifold)


@dataclass(frozen=True, repr=False)
class _Factors(Manifold, ABC):
    """What both kinds of product share: every method, factor by factor."""

    factors: tuple[Any, ...]
    structure: Any

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


@final
class ProductManifold(_Factors):
    """A product with a factor whose geodesics are not known; made by `Product`."""


@final
class GeodesicProduct(_Factors, Geodesic):
    """A product of `Geodesic` factors; made by `Product`."""

    def exp(self, x: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.exp(*a), x, u)

    def log(self, x: Point, y: Point) -> Point:
        return self._map(lambda m, *a: m.log(*a), x, y)

    def squared_dist(self, x: Point, y: Point) -> Array:
        """The sum of the factors' squared distances."""
        return total(self._each(lambda m, *a: m.squared_dist(*a), x, y), self, "squared_dist")

    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        return self._map(lambda m, *a: m.parallel_transport(*a), x, y, u)
