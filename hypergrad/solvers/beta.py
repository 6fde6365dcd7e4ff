"""How much of the last direction nonlinear conjugate gradients keep: five rules.

All by Sato 2022, "Riemannian conjugate gradient methods: general framework and specific algorithms with convergence
analyses" (eqs. 4.6-4.11 there have the Euclidean originals), with ⟨T grad, T p⟩ taken as ⟨grad, p⟩. Negative
coefficients of Polak-Ribière and Hestenes-Stiefel count as 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._space import Space

Array = Any


class Products(NamedTuple):
    """Inner products before and after a step: `before` = ‖grad‖², `slope` = ⟨grad, p⟩, `length` = ‖p‖² at the old
    point; `after` = ‖grad₊‖², `carried` = ⟨grad₊, T grad⟩, `along` = ⟨grad₊, T p⟩ at the new one.
    """

    before: Array
    slope: Array
    length: Array
    after: Array
    carried: Array
    along: Array


class BetaRule(ABC):
    """The β of p₊ = -grad₊ + β T p."""

    @abstractmethod
    def beta(self, space: Space, products: Products) -> Array:
        """The coefficient, of batch shape."""


@dataclass(frozen=True)
class FletcherReeves(BetaRule):
    """β = ‖grad₊‖² / ‖grad‖². Fletcher & Reeves 1964; on manifolds Ring & Wirth 2012."""

    def beta(self, space: Space, products: Products) -> Array:
        """See `BetaRule`."""
        return space.ratio(products.after, products.before)


@dataclass(frozen=True)
class PolakRibiere(BetaRule):
    """β = max(0, ⟨grad₊, grad₊ - T grad⟩ / ‖grad‖²). Polak & Ribière 1969, Powell 1984."""

    def beta(self, space: Space, products: Products) -> Array:
        """See `BetaRule`."""
        return _positive(space, space.ratio(products.after - products.carried, products.before))


@dataclass(frozen=True)
class HestenesStiefel(BetaRule):
    """β = max(0, ⟨grad₊, grad₊ - T grad⟩ / (⟨grad₊, T p⟩ - ⟨grad, p⟩)). Hestenes & Stiefel 1952."""

    def beta(self, space: Space, products: Products) -> Array:
        """See `BetaRule`."""
        return _positive(space, space.ratio(products.after - products.carried, products.along - products.slope))


@dataclass(frozen=True)
class DaiYuan(BetaRule):
    """β = ‖grad₊‖² / (⟨grad₊, T p⟩ - ⟨grad, p⟩). Dai & Yuan 1999; on manifolds Sato 2016."""

    def beta(self, space: Space, products: Products) -> Array:
        """See `BetaRule`."""
        return space.ratio(products.after, products.along - products.slope)


@dataclass(frozen=True)
class HagerZhang(BetaRule):
    """β = max(η, (⟨grad₊, z⟩ - 2 ‖z‖² ⟨grad₊, T p⟩/d) / d) with z = grad₊ - T grad, d = ⟨grad₊, T p⟩ - ⟨grad, p⟩ and
    η = -1/(‖p‖ min(0.01, ‖grad‖)). Hager & Zhang 2005, (1.3) and (1.5)-(1.6); on manifolds Sakai & Iiduka 2021.
    """

    def beta(self, space: Space, products: Products) -> Array:
        """See `BetaRule`."""
        before, slope, length, after, carried, along = products
        xp, change = space.backend.xp, along - slope
        squared = xp.abs(after - 2 * carried + before)
        beta = space.ratio(after - carried - 2 * space.ratio(squared * along, change), change)
        least = xp.sqrt(xp.abs(length)) * xp.minimum(xp.sqrt(xp.abs(before)), 0.01 + 0 * before)
        return xp.maximum(beta, -space.ratio(xp.ones_like(least), least))


def _positive(space: Space, beta: Array) -> Array:
    return space.backend.xp.maximum(beta, 0 * beta)
