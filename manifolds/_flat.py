"""Which manifolds are linear spaces with a constant metric: there the connection is zero and `sharp` a projection."""

from __future__ import annotations

from ._base import Manifold
from ._vector_space import VectorSpace
from .product import Product


def is_linear_space(manifold: Manifold) -> bool:
    """Whether it is a vector space with the ambient inner product, or a product of such."""
    if isinstance(manifold, Product):
        return all(is_linear_space(factor) for factor in manifold.factors)
    return isinstance(manifold, VectorSpace)
