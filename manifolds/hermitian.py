"""Hermitian matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._checks import is_size
from ._linalg import sym
from ._vector_space import VectorSpace

Array = Any


@dataclass(frozen=True)
class Hermitian(VectorSpace):
    """Complex n × n matrices with x = xᴴ and ⟨u, v⟩ = tr(uv), which is real.

    x, u, w : (..., n, n), complex. Of real arrays it is `Symmetric(n)`, whose dimension is smaller.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n):
            raise ValueError(f"Hermitian(n) takes an integer n ≥ 1, not {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n**2

    def _restrict(self, a: Array) -> Array:
        """(a + aᴴ)/2, exactly Hermitian."""
        return sym(a)
