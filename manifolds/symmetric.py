"""Symmetric matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._checks import is_size
from ._vector_space import VectorSpace

Array = Any


@dataclass(frozen=True)
class Symmetric(VectorSpace):
    """Symmetric n × n matrices, x = xᵀ, with ⟨u, v⟩ = tr(uv).

    x, u, w : (..., n, n). Complex arrays with x = xᵀ are points too, with the real inner product (the dimension is
    then twice `dim`); for x = xᴴ see `Hermitian`.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n):
            raise ValueError(f"Symmetric(n) takes an integer n ≥ 1, not {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def _restrict(self, a: Array) -> Array:
        """(a + aᵀ)/2, exactly symmetric."""
        return 0.5 * (a + a.mT)
