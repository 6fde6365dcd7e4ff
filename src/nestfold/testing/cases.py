"""The table of manifolds that tests go through: one line for each.

`manifold_case` of the plugin is a test's argument that runs over it; a `Case` makes its manifold like an array (array
parameters follow that array's framework, dtype and device) and knows what the laws need to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import backend_of
from ..manifolds import SPD, Euclidean, Manifold, Product, Sphere, Stiefel, cayley, polar
from .laws import ROUNDING, Cost, check_manifold

Array = Any


@dataclass(frozen=True)
class Case:
    """A manifold, and what its laws need to be told; see `check_manifold`."""

    make: Callable[[Array], Manifold]
    retraction_order: int = 1
    cost: Cost | None = None
    reach: float = 0.75
    rounding: float = ROUNDING
    complex: bool = False
    #: random numbers, shaped like the array parameters, as a direction in which these may move
    parameter_direction: Callable[[list[Any]], list[Any]] = lambda noise: noise

    def like(self, like: Array) -> Array:
        """`like`, complex of the same precision where the case is one of complex points."""
        if not self.complex:
            return like
        backend = backend_of(like)
        double = "64" in str(like.dtype)
        return backend.asarray(np.zeros((), np.complex128 if double else np.complex64))

    def check(self, like: Array, rng: Any, batch: tuple[int, ...] = (3,)) -> dict[str, float]:
        """Assert all laws, in the framework, precision and device of `like`; return the residuals."""
        like = self.like(like)
        return check_manifold(
            self.make(like),
            like,
            rng,
            batch=batch,
            cost=self.cost,
            retraction_order=self.retraction_order,
            reach=self.reach,
            rounding=self.rounding,
        )


def fixed(manifold: Manifold, retraction_order: int = 1, **options: Any) -> Case:
    """A case of a manifold without array parameters."""
    return Case(lambda like: manifold, retraction_order, **options)


#: name -> case. One line for each manifold.
CASES: dict[str, Case] = {
    # vector spaces and constructions
    "numbers": fixed(Euclidean(), 2),
    "matrices": fixed(Euclidean(3, 2), 2),
    "product": fixed(Product({"w": Stiefel(5, 2), "b": Euclidean(3)}), 1),
    "geodesic product": fixed(Product([Sphere(3), {"c": (Euclidean(2), Euclidean())}]), 2),
    "nested product": fixed(Product((SPD(2), Product({"s": Sphere(3)}))), 2),
    # spheres and simplices
    "sphere": fixed(Sphere(4), 2),
    # orthonormal columns
    "Stiefel": fixed(Stiefel(5, 2), 1),
    "Stiefel, polar": fixed(Stiefel(5, 2, polar), 2),
    "Stiefel, Cayley": fixed(Stiefel(5, 2, cayley), 1),
    "square Stiefel": fixed(Stiefel(3, 3), 1),
    # groups and subspaces
    # positive definite
    "SPD": fixed(SPD(3), 2),
    # low rank
    # hyperbolic
}
