"""Functions of one real variable with their divided differences f[a], f[a, b], … of orders up to three.

f[a, b] = (f(a) - f(b))/(a - b), and so on up; where arguments meet, derivatives: f[a, a] = f'(a),
f[a, a, a] = f''(a)/2. These are the derivatives of f as a function of matrices (`_spectral`), and are
wanted to full accuracy for close and equal arguments. Nothing here is differentiated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any, final

Array = Any

#: Up to this spread of its arguments (in units of `scale`) a divided difference of order ≥ 2 is summed as a
#: series; beyond it the quotient loses at most two digits for each order.
_NEAR = 0.2
_TERMS = 18


class ScalarFunction(ABC):
    """A function of eigenvalues. `xp` is the array namespace; arguments broadcast."""

    @abstractmethod
    def value(self, xp: Any, a: Array) -> Array:
        """f(a)."""

    @abstractmethod
    def divided(self, xp: Any, *nodes: Array) -> Array:
        """f[nodes], a divided difference of order 1 to 3 (two to four arguments)."""


class _Analytic(ScalarFunction):
    """Divided differences from an accurate f[a, b] and a power series about any point m:

    f(m + s t) = amplitude(m) Σ coefficient(j) tʲ with the scale s = scale(m).
    """

    @abstractmethod
    def first(self, xp: Any, low: Array, high: Array) -> Array:
        """f[low, high], accurate for close and equal arguments."""

    @abstractmethod
    def amplitude(self, xp: Any, m: Array) -> Array:
        """What all coefficients of the series about `m` share."""

    @abstractmethod
    def scale(self, xp: Any, m: Array) -> Array:
        """The unit of length at `m`."""

    @abstractmethod
    def coefficient(self, j: int) -> float:
        """The j-th coefficient of the series, j ≥ 1."""

    @final
    def divided(self, xp: Any, *nodes: Array) -> Array:
        """f[nodes]: a quotient of differences where the nodes are apart, else a series about their mean."""
        return self._sorted(xp, _ascending(xp, list(nodes)))

    def _sorted(self, xp: Any, nodes: list[Array]) -> Array:
        low, high = nodes[0], nodes[-1]
        if len(nodes) == 2:
            return self.first(xp, low, high)
        mean = sum(nodes[1:], nodes[0]) / len(nodes)
        scale = self.scale(xp, mean)
        spread = high - low
        near = spread < _NEAR * scale
        ones = xp.ones_like(spread)
        apart = (self._sorted(xp, nodes[1:]) - self._sorted(xp, nodes[:-1])) / xp.where(near, ones, spread)
        series = self._series(xp, [xp.where(near, (a - mean) / scale, 0.0 * ones) for a in nodes])
        return xp.where(near, series * self.amplitude(xp, mean) / scale ** (len(nodes) - 1), apart)

    def _series(self, xp: Any, nodes: list[Array]) -> Array:
        """Σⱼ coefficient(k + j) hⱼ(nodes), hⱼ the complete homogeneous polynomials of k + 1 nodes."""
        order = len(nodes) - 1
        partial = [xp.ones_like(nodes[0])] * len(nodes)  # hⱼ of the first 1, 2, … nodes
        result = self.coefficient(order) * partial[-1]
        for j in range(1, _TERMS):
            partial[0] = nodes[0] * partial[0]
            for i in range(1, len(nodes)):
                partial[i] = partial[i - 1] + nodes[i] * partial[i]
            result = result + self.coefficient(order + j) * partial[-1]
        return result


@dataclass(frozen=True)
class Exp(_Analytic):
    """eᵃ."""

    def value(self, xp: Any, a: Array) -> Array:
        return xp.exp(a)

    def first(self, xp: Any, low: Array, high: Array) -> Array:
        """eʰ (1 - e⁻ᵈ)/d, d = h - l."""
        gap, safe = _gap(xp, low, high)
        return xp.exp(high) * xp.where(gap > 0, -xp.expm1(-safe) / safe, xp.ones_like(gap))

    def amplitude(self, xp: Any, m: Array) -> Array:
        return xp.exp(m)

    def scale(self, xp: Any, m: Array) -> Array:
        return xp.ones_like(m)

    def coefficient(self, j: int) -> float:
        return 1.0 / factorial(j)


@dataclass(frozen=True)
class Log(_Analytic):
    """log a, a > 0."""

    def value(self, xp: Any, a: Array) -> Array:
        return xp.log(a)

    def first(self, xp: Any, low: Array, high: Array) -> Array:
        """log(1 + d/l)/d, d = h - l."""
        gap, safe = _gap(xp, low, high)
        return xp.where(gap > 0, xp.log1p(safe / low) / safe, 1 / low)

    def amplitude(self, xp: Any, m: Array) -> Array:
        return xp.ones_like(m)

    def scale(self, xp: Any, m: Array) -> Array:
        return m

    def coefficient(self, j: int) -> float:
        return (-1.0) ** (j - 1) / j


@dataclass(frozen=True)
class LogRatio(ScalarFunction):
    """log a/a, a > 0."""

    def value(self, xp: Any, a: Array) -> Array:
        return xp.log(a) / a

    def divided(self, xp: Any, *nodes: Array) -> Array:
        """Σⱼ log[a₀ … aⱼ] r[aⱼ … aₖ] (Leibniz), where r = 1/a has r[aⱼ … aₖ] = (-1)^(k-j)/(aⱼ ⋯ aₖ)."""
        nodes_up = _ascending(xp, list(nodes))
        result, inverse = None, 1.0
        for j in range(len(nodes) - 1, -1, -1):
            inverse = (inverse if j == len(nodes) - 1 else -inverse) / nodes_up[j]
            head = xp.log(nodes_up[0]) if j == 0 else Log().divided(xp, *nodes_up[: j + 1])
            result = head * inverse if result is None else result + head * inverse
        return result


@dataclass(frozen=True)
class Power(_Analytic):
    """aᵖ, a > 0."""

    exponent: float

    def value(self, xp: Any, a: Array) -> Array:
        return a**self.exponent

    def first(self, xp: Any, low: Array, high: Array) -> Array:
        """lᵖ ((1 + d/l)ᵖ - 1)/d, d = h - l."""
        gap, safe = _gap(xp, low, high)
        growth = xp.expm1(self.exponent * xp.log1p(safe / low)) / safe
        return low**self.exponent * xp.where(gap > 0, growth, self.exponent / low)

    def amplitude(self, xp: Any, m: Array) -> Array:
        return m**self.exponent

    def scale(self, xp: Any, m: Array) -> Array:
        return m

    def coefficient(self, j: int) -> float:
        result = 1.0
        for i in range(j):
            result *= (self.exponent - i) / (i + 1)
        return result


@dataclass(frozen=True)
class Sqrt(ScalarFunction):
    """√a, a ≥ 0."""

    def value(self, xp: Any, a: Array) -> Array:
        return xp.sqrt(a)

    def divided(self, xp: Any, *nodes: Array) -> Array:
        """With rᵢ = √aᵢ and Π the product of all rᵢ + rⱼ: 1/Π, -1/Π, Σrᵢ/Π for orders 1, 2, 3."""
        roots = [xp.sqrt(a) for a in nodes]
        pairs = _pair_sums(roots)
        if len(roots) == 2:
            return 1 / pairs
        return -1 / pairs if len(roots) == 3 else sum(roots[1:], roots[0]) / pairs


@dataclass(frozen=True)
class InverseSqrt(ScalarFunction):
    """1/√a, a > 0."""

    def value(self, xp: Any, a: Array) -> Array:
        return 1 / xp.sqrt(a)

    def divided(self, xp: Any, *nodes: Array) -> Array:
        """With rᵢ = √aᵢ, eₖ their elementary polynomials and Π the product of all rᵢ + rⱼ:

        -1/(e₂ Π), e₁/(e₃ Π), -(e₁e₂ - e₃)/(e₄ Π) for orders 1, 2, 3.
        """
        roots = [xp.sqrt(a) for a in nodes]
        e = _elementary(roots)
        bottom = e[-1] * _pair_sums(roots)
        if len(roots) == 2:
            return -1 / bottom
        return e[1] / bottom if len(roots) == 3 else (e[3] - e[1] * e[2]) / bottom


def _gap(xp: Any, low: Array, high: Array) -> tuple[Array, Array]:
    """`d, d or 1`: the difference, and the same with 1 in place of 0 to divide by."""
    gap = high - low
    return gap, xp.where(gap > 0, gap, xp.ones_like(gap))


def _ascending(xp: Any, nodes: list[Array]) -> list[Array]:
    """The nodes in ascending order, entry by entry (a sorting network), broadcast against each other."""
    nodes = list(xp.broadcast_arrays(*nodes))
    for end in range(len(nodes) - 1, 0, -1):
        for i in range(end):
            a, b = nodes[i], nodes[i + 1]
            nodes[i], nodes[i + 1] = xp.minimum(a, b), xp.maximum(a, b)
    return nodes


def _pair_sums(roots: list[Array]) -> Array:
    """Π_{i<j} (rᵢ + rⱼ)."""
    result = None
    for a, b in combinations(roots, 2):
        result = a + b if result is None else result * (a + b)
    return result


def _elementary(roots: list[Array]) -> list[Any]:
    """e₀ = 1, e₁ = Σ rᵢ, e₂ = Σ rᵢrⱼ, …"""
    e: list[Any] = [1.0]
    for r in roots:
        e = [a + r * b for a, b in zip([*e, 0.0], [0.0, *e], strict=True)]
    return e
