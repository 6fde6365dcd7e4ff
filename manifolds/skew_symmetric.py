"""Skew-symmetric matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._checks import is_size
from ._vector_space import VectorSpace

Array = Any


@dataclass(frozen=True)
class SkewSymmetric(VectorSpace):
    """Skew-symmetric n × n matrices, x = -xᵀ, with ⟨u, v⟩ = tr(uᵀv): the Lie algebra of the rotations.

    x, u, w : (..., n, n), n ≥ 2. Complex arrays with x = -xᵀ are points too, with the real inner product (the
    dimension is then twice `dim`).
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n, 2):
            raise ValueError(f"SkewSymmetric(n) takes an integer n ≥ 2, not {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n - 1) // 2

    def _restrict(self, a: Array) -> Array:
        """(a - aᵀ)/2, exactly skew."""
        return 0.5 * (a - a.mT)
