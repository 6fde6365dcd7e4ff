"""Matrices whose rows are probability distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ._checks import is_size
from .simplex import Distributions


@final
@dataclass(frozen=True, init=False, repr=False)
class Multinomial(Distributions):
    """Positive arrays whose last axis sums to one, with the Fisher metric ⟨u, v⟩ₓ = Σ uv/x. Douik & Hassibi 2019.

    `Multinomial(m, n)`: m × n matrices with rows in `Simplex(n)`, their product; x, u, w : (..., m, n).
    More axes in front, `Multinomial(*shape)`, hold more distributions.
    """

    sizes: tuple[int, ...]

    def __init__(self, *sizes: int):
        if not sizes or not all(map(is_size, sizes)):
            raise ValueError(f"Multinomial(*shape) takes one or more sizes that are integers ≥ 1, not {sizes}")
        object.__setattr__(self, "sizes", sizes)

    def __repr__(self) -> str:
        return f"Multinomial({', '.join(map(str, self.sizes))})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes
