"""Nested problems: an upper cost over a manifold, the lower level's answer substituted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..manifolds import Manifold
from .level import Level

Array = Any


@dataclass(frozen=True)
class Bilevel:
    """Minimise `upper(x, y*(x))` over x in `manifold`, y*(x) the answer of `lower`.

    `upper(x, y)` returns a real number, or one for each problem of a batch (its output's axes are x's first).
    """

    upper: Callable[[Any, Any], Array]
    manifold: Manifold
    lower: Level
