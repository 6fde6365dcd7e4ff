"""Nested problems: an upper cost over a manifold, the answers of the lower levels substituted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import ShapeError
from ...manifolds import Manifold
from ..level import Level
from ..solution import Solution
from .settings import Chain, ReducedCost, Settings, Solvers, make_chain

Array = Any
Tree = Any


@dataclass(frozen=True)
class Bilevel:
    """Minimize `upper(x, y*(x))` over x in `manifold`, y*(x) the answer of `lower`.

    `upper(x, y)` returns a real number, or one for each problem of a batch (its output's axes are x's first). Raises
    `TypeError` for arguments of another kind.
    """

    upper: Callable[..., Array]
    manifold: Manifold
    lower: Level

    def __post_init__(self) -> None:
        _check_parts("Bilevel", self.upper, self.manifold, (self.lower,))


@dataclass(frozen=True, init=False)
class Nested:
    """n levels: minimize f₁(x₁, x₂*, …, xₙ*) over x₁ in `manifold`, each xₖ* the answer of a lower level.

    `Nested(f1, M1, Argmin(f2, M2), Argmin(f3, M3), ...)`, from the outermost level inward. Every function takes all n
    variables in that order, the responses of the levels below its own substituted: x₃*(x₁, x₂) is the answer of the
    third level for given x₁, x₂; x₂*(x₁) = argmin of f₂(x₁, ·, x₃*(x₁, ·)), and so on. A lower level may as well be a
    `Root` or a `FixedPoint`: its field or map takes all variables too. `Bilevel` is the case n = 2.

    Gu & Chen 2024; Sato, Tanaka & Takeda 2021.
    """

    upper: Callable[..., Array]
    manifold: Manifold
    levels: tuple[Level, ...]

    def __init__(self, upper: Callable[..., Array], manifold: Manifold, *levels: Level):
        if not levels:
            raise ValueError("Nested needs at least one lower level")
        _check_parts("Nested", upper, manifold, levels)
        object.__setattr__(self, "upper", upper)
        object.__setattr__(self, "manifold", manifold)
        object.__setattr__(self, "levels", tuple(levels))

    def chain(self, solver: Solvers = None, estimator: Settings = None) -> Chain:
        """The lower levels, those below substituted in each, with their solvers and estimators."""
        return make_chain(self.levels, solver, estimator)

    def solve(
        self, x: Tree, starts: tuple[Tree, ...], *, solver: Solvers = None, estimator: Settings = None
    ) -> tuple[Solution, ...]:
        """The answers x₂*(x), x₃*(x, x₂*), … of all lower levels, differentiable in x to any order.

        `starts`: where the solvers begin, a tuple from the outermost lower level inward; constants of every derivative.
        `solver`, `estimator`: one for all lower levels or a tuple with one for each, None for the default;
        `estimator=Flattened()` takes all levels together.
        """
        self.check_starts(starts)
        return self.chain(solver, estimator).solutions((x,), starts)

    def reduced(self, *, solver: Solvers = None, estimator: Settings = None) -> ReducedCost:
        """F(x, starts) = f₁(x, x₂*(x), …), differentiable in x as the answers of `solve` are."""
        return ReducedCost(self.upper, self.chain(solver, estimator))

    def check_starts(self, starts: Tree) -> None:
        """Raise `ShapeError` unless `starts` is a tuple with a point for each lower level."""
        if not isinstance(starts, tuple) or len(starts) != len(self.levels):
            found = f"{len(starts)} of them" if isinstance(starts, (tuple, list)) else f"a {type(starts).__name__}"
            raise ShapeError(
                f"the starts of a Nested problem are a tuple with one point for each of its {len(self.levels)} lower "
                f"levels, from the outermost inward; found {found}"
            )
        for number, (level, start) in enumerate(zip(self.levels, starts, strict=True), start=2):
            level.manifold.check_point(start, f"the start of level {number}")


def _check_parts(name: str, upper: Any, manifold: Any, levels: tuple[Any, ...]) -> None:
    """Raise `TypeError` unless a problem is made of a function, a manifold and levels."""
    if not callable(upper):
        raise TypeError(f"{name}: the upper cost must be callable, not {upper!r}")
    if not isinstance(manifold, Manifold):
        raise TypeError(f"{name}: the second argument is the upper manifold, not {manifold!r}")
    for level in levels:
        if isinstance(level, (Bilevel, Nested)):
            raise TypeError(
                f"{name}: a lower level is no problem of its own; give all levels to Nested(f1, M1, Argmin(f2, M2), "
                "Argmin(f3, M3), ...)"
            )
        if not isinstance(level, Level):
            raise TypeError(f"{name}: a lower level is an Argmin, Root or FixedPoint, not {level!r}")
