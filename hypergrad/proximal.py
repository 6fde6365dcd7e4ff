"""A proximal term: the answer of a level, tied to a point that is an outer variable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import DTypeError, ShapeError, backend_of, namespace
from ..backends._trees import leaves
from ..manifolds import Logarithmic
from ..manifolds._checks import leaf_shapes
from ._settings import require_callable
from .level import Argmin

Array = Any
Tree = Any


def Proximal(level: Argmin, weight: float | Array, *, anchor: Callable[..., Tree] | None = None) -> Argmin:
    """`Argmin` of cost(*outer, y) + ½ weight dist²(a, y) on the manifold of `level`, dist the geodesic distance.

    The anchor a is the last outer variable, `outer[-1]`, a point of the manifold: `solve(Proximal(level, 2.0), a,
    init=a)`. `anchor(*outer)` takes it from elsewhere. The cost is called as before, with all outer variables; one that
    needs none ignores them. `weight` > 0 is a number, or an array of the shape of the cost's output, which gets its
    derivative as other captured arrays do.

    It makes the derivative of an answer by its starting point what a learner of initializations needs: in ℝⁿ
    (I + Hess cost / weight)⁻¹ (Rajeswaran et al. 2019, iMAML, lemma 1). What was known of the level's Hessian is
    dropped. Raises `TypeError` for a level that is no `Argmin` or whose manifold is not `Logarithmic`, `ValueError`
    for a weight that is not positive, `ShapeError` for an anchor or a weight that does not fit.
    """
    if not isinstance(level, Argmin):
        raise TypeError(f"Proximal takes an Argmin, not a {type(level).__name__}: only a cost has a term added to it")
    if not isinstance(level.manifold, Logarithmic):
        raise TypeError(
            f"Proximal needs a geodesic distance, and {level.manifold!r} has none; take a manifold that is Logarithmic"
        )
    _check_weight(weight)
    cost = ProximalCost(level.cost, level.manifold, weight, anchor)
    return Argmin(cost, level.manifold)


@dataclass(frozen=True)
class ProximalCost:
    """cost(*outer, y) + ½ weight dist²(anchor, y); two that are made alike are equal, so that programs are kept."""

    cost: Callable[..., Array]
    manifold: Logarithmic
    weight: Any
    anchor: Callable[..., Tree] | None = None

    def __post_init__(self) -> None:
        require_callable(self, "anchor")

    def __call__(self, *variables: Tree) -> Array:
        """The value at (*outer, y). Raises `ShapeError`."""
        *outer, y = variables
        if not outer and self.anchor is None:
            raise ShapeError(
                "Proximal: there is no outer variable to be the anchor; call solve(level, anchor, init=...)"
            )
        anchor = outer[-1] if self.anchor is None else self.anchor(*outer)
        shapes = [tuple(a.shape[a.ndim - n :]) for a, n in zip(leaves(anchor), self.manifold.ndims, strict=False)]
        if len(leaves(anchor)) != len(self.manifold.ndims) or shapes != leaf_shapes(self.manifold.shape):
            raise ShapeError(
                f"Proximal: the anchor must be a point of {self.manifold!r}, of shape {self.manifold.shape}; it has "
                f"the shapes {[tuple(a.shape) for a in leaves(anchor)]}"
            )
        value = self.cost(*variables)
        squares, xp = self.manifold.squared_dist(anchor, y), namespace(value)
        inside = tuple(range(value.ndim, squares.ndim))
        squares = xp.sum(squares, axis=inside) if inside else squares
        term = self.weight * squares / 2
        if term.shape != value.shape:
            raise ShapeError(
                f"Proximal: the cost has shape {tuple(value.shape)}, its proximal term {tuple(term.shape)}; anchor and "
                "weight must belong to the same problems"
            )
        return value + term


def _check_weight(weight: Any) -> None:
    """Raise `TypeError`, `DTypeError` or `ValueError` unless it is positive, as far as its values are known."""
    found = weight
    if hasattr(weight, "dtype") and hasattr(weight, "shape"):
        backend = backend_of(weight)
        if not namespace(weight).isdtype(weight.dtype, "real floating"):
            raise DTypeError(f"Proximal: weight has dtype {weight.dtype}; it must be real floating point")
        if not backend.is_eager(weight):
            return
        found = backend.to_numpy(weight)
    elif isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"Proximal: weight must be a positive number or an array of them, not {weight!r}")
    if not (np.all(np.isfinite(found)) and np.all(np.asarray(found) > 0)):
        raise ValueError(f"Proximal: weight must be positive, not {found}")
