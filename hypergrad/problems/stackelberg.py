"""The generalized Stackelberg model: n firms choose their outputs in turn; exact answers for any costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import Euclidean
from ..level import Argmin
from ..nested import Nested

Array = Any


@dataclass(frozen=True, eq=False)
class Stackelberg:
    """Firm k minimizes f_k(q₁, …, qₙ) = -q_k (a - b Σ_j q_j) + c_k q_k + ½ d_k q_k², knowing q₁ … q_{k-1}.

    a - b Σ q is the price, c_k and d_k are firm k's marginal cost and its slope (money per unit of output, and per unit
    squared). a, b : (); c, d : (n,). Equal costs and d = 0: q_k = (a - c) / (b 2ᵏ). Sato, Tanaka & Takeda 2021.
    """

    a: Array
    b: Array
    c: Array
    d: Array

    @property
    def firms(self) -> int:
        """The number of levels."""
        return int(self.c.shape[0])

    def problem(self) -> Nested:
        """One level for each firm, the first to move outermost; each variable is a number."""
        line = Euclidean()
        first, *others = (Firm(self, k) for k in range(self.firms))
        return Nested(first, line, *(Argmin(firm, line) for firm in others))

    def start(self) -> tuple[Array, tuple[Array, ...]]:
        """Nothing is produced: the first firm's output, and those of the others."""
        zero = namespace(self.a).zeros_like(self.a)
        return zero, (zero,) * (self.firms - 1)

    def responses(self, first: Array) -> tuple[Array, ...]:
        """The outputs of firms 2 … n for the first one's."""
        found, before = [], first
        for k in range(1, self.firms):
            leader, share, _ = self._reaction(k)
            found.append(leader - share * before)
            before = before + found[-1]
        return tuple(found)

    def derivative(self, first: Array) -> Array:
        """F'(q₁), F(q₁) the first firm's cost with the responses of the others."""
        leader, _, curvature = self._reaction(0)
        return curvature * (first - leader)

    def solution(self) -> tuple[Array, ...]:
        """The outputs q₁, …, qₙ of all firms."""
        first = self._reaction(0)[0]
        return first, *self.responses(first)

    def _reaction(self, firm: int) -> tuple[Array, Array, Array]:
        """A, β and D: the firm's output is A - β S after others have put S on the market; D is its cost's curvature.

        From the last firm up: those behind firm k together produce L - s S.
        """
        total = slope = 0 * self.a
        for k in range(self.firms - 1, firm - 1, -1):
            kept = 1 - slope
            curvature = 2 * self.b * kept + self.d[k]
            leader = (self.a - self.b * total - self.c[k]) / curvature
            share = self.b * kept / curvature
            total, slope = total + kept * leader, slope + kept * share
        return leader, share, curvature


@dataclass(frozen=True)
class Firm:
    """The cost of one firm of a model, a function of all outputs."""

    model: Stackelberg
    number: int

    def __call__(self, *outputs: Array) -> Array:
        """f_k(q₁, …, qₙ)."""
        m, own = self.model, outputs[self.number]
        price = m.a - m.b * sum(outputs[1:], outputs[0])
        return -own * price + m.c[self.number] * own + 0.5 * m.d[self.number] * own**2


def stackelberg(
    firms: int,
    *,
    like: Array,
    a: float = 10.0,
    b: float = 1.0,
    costs: tuple[float, ...] | float = 2.0,
    slopes: tuple[float, ...] | float = 0.0,
) -> Stackelberg:
    """A model with the framework, dtype and device of `like`; `costs` and `slopes`: c and d, for all firms or for each.

    Raises `ValueError` for fewer than two firms, for b ≤ 0, for a negative slope, and for another number of costs.
    """
    if firms < 2:
        raise ValueError(f"stackelberg needs at least two firms, not {firms}")
    if b <= 0:
        raise ValueError(f"b must be more than 0, not {b}: a market's price falls with the quantity")
    numbers = []
    for name, values in (("costs", costs), ("slopes", slopes)):
        found = np.asarray(values, dtype=float)
        if found.shape not in ((), (firms,)):
            raise ValueError(f"{name} must be one number or {firms} of them; found the shape {found.shape}")
        numbers.append(np.broadcast_to(found, (firms,)).copy())
    if (numbers[1] < 0).any():
        raise ValueError(f"slopes must not be negative: {slopes}")
    asarray = backend_of(like).asarray
    return Stackelberg(*(asarray(np.asarray(part), like=like) for part in (a, b, *numbers)))
