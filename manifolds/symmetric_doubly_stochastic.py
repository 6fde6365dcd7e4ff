"""Symmetric positive matrices with given row sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..backends import namespace
from ._base import InverseRetraction
from ._checks import is_size
from ._linalg import dot, fit, sym
from ._scaling import balance, scaled
from ._smooth import log_ratio
from .doubly_stochastic import doubly_centered, like_points, marginal, size

Array = Any


@dataclass(frozen=True, eq=False, init=False)
class SymmetricDoublyStochastic(InverseRetraction):
    """{x ∈ ℝⁿˣⁿ : x = xᵀ > 0, x1 = p} with the Fisher metric ⟨u, v⟩ₓ = Σ uv/x. Douik & Hassibi 2019.

    `SymmetricDoublyStochastic(n)`: rows that sum to 1; `SymmetricDoublyStochastic(p)`: to p, an array of shape (..., n)
    of the points' framework, batched and differentiated as one likes, or a sequence of numbers. x, u, w : (..., n, n).
    What transposition leaves fixed in `DoublyStochastic(p, p)`, where it is an isometry: a totally geodesic part, on
    which the formulas are those of the whole, with one vector of multipliers, α = β.
    """

    p: Any

    parameters: ClassVar[tuple[str, ...]] = ("p",)

    def __init__(self, p: Any):
        if isinstance(p, int):
            if not is_size(p):
                raise ValueError(f"SymmetricDoublyStochastic(n) needs an integer n ≥ 1, not n = {p}")
            p = (1.0,) * p
        object.__setattr__(self, "p", marginal("SymmetricDoublyStochastic(p): p", p))

    @property
    def shape(self) -> tuple[int, ...]:
        return (size(self.p), size(self.p))

    @property
    def dim(self) -> int:
        n = size(self.p)
        return n * (n - 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Σ uv/x."""
        return dot(u / x, v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """sym(a) less the means of its rows and of its columns, plus its mean."""
        return fit(sym(doubly_centered(a)), x)

    def sharp(self, x: Array, w: Array) -> Array:
        """x (sym(w) - α - αᵀ), with α such that its rows sum to zero."""
        return x * _balance(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """(sym(w) - α - αᵀ) u/(2x), with α as in `sharp`."""
        return _balance(x, w) * (0.5 * u / x)

    def retract(self, x: Array, u: Array) -> Array:
        """d (x exp(u/x)) dᵀ with d > 0 such that the row sums are p: positive for every u. First order."""
        return self._scaled(namespace(x).log(x) + u / x)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """sharp(x, log(y/x)): defined everywhere."""
        return self.sharp(x, log_ratio(namespace(x, y), y, x))

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself: all tangent spaces are the same."""
        return fit(u, y)

    def from_noise(self, z: Array) -> Array:
        """exp(sym(z)), scaled to p."""
        return self._scaled(z)

    def defect(self, x: Array) -> Array:
        """The largest relative error of a row or column sum and of the symmetry, plus 1 - min x if not positive."""
        p = like_points(self.p, x)
        xp = namespace(x, p)
        off = xp.max(xp.abs(xp.sum(x, axis=-1) / p - 1), axis=-1)
        asymmetry = xp.max(xp.abs(x - x.mT) / p[..., None], axis=(-2, -1))
        smallest = xp.min(x, axis=(-2, -1))
        return xp.maximum(off, asymmetry) + xp.where(smallest > 0, xp.zeros_like(smallest), 1 - smallest)

    def _scaled(self, logits: Array) -> Array:
        p = like_points(self.p, logits)
        return sym(scaled(sym(logits), p, p))


def _balance(x: Array, w: Array) -> Array:
    return sym(balance(x, sym(w))[0])
