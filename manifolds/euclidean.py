"""Flat space."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ._checks import is_size
from ._vector_space import VectorSpace

Array = Any


@dataclass(frozen=True, init=False, repr=False)
class Euclidean(VectorSpace):
    """ℝ^shape, the dot product: `Euclidean(3)` vectors, `Euclidean(4, 2)` matrices, `Euclidean()` numbers.

    Complex arrays are points too, with the real inner product (the dimension is then twice `dim`).
    """

    fills_space: ClassVar[bool] = True

    sizes: tuple[int, ...]

    def __init__(self, *sizes: int):
        if not all(is_size(size, 0) for size in sizes):
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

    def _restrict(self, a: Array) -> Array:
        return a
