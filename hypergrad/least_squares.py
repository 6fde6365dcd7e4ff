"""Least squares: costs that are half a sum of squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backends import DTypeError, ShapeError, backend_of
from ..backends._trees import leaves
from ..manifolds import Manifold
from ._settings import require_callable, require_count
from ._space import Space
from .level import Argmin

Array = Any
Tree = Any


def LeastSquares(residuals: Callable[..., Tree], manifold: Manifold, *, batch_ndim: int = 0) -> Argmin:
    """`Argmin` of ½ ‖residuals(*outer, y)‖², for `GaussNewton` and every other solver and estimator.

    residuals : an array, or a tree of arrays, of any shape; complex entries count by their squared moduli. With
    `batch_ndim = k` the first k axes of every one of them are independent problems, as they are of y; by default all
    is one problem. Derivatives of the answer are those of the exact minimizer, with the whole Hessian, not JᵀJ.
    Raises `TypeError` for residuals that cannot be called; the cost raises `ShapeError` and `DTypeError`.
    """
    return Argmin(SumOfSquares(residuals, batch_ndim), manifold, residuals=residuals)


@dataclass(frozen=True)
class SumOfSquares:
    """The cost ½ ‖residuals(*outer, y)‖²; two that are made alike are equal, so that programs are kept."""

    residuals: Callable[..., Tree]
    batch_ndim: int = 0

    def __post_init__(self) -> None:
        require_callable(self, "residuals")
        require_count(self, "batch_ndim", least=0)

    def __call__(self, *variables: Tree, **data: Tree) -> Array:
        """The value at (*outer, y), of the shape of the batch. Raises `ShapeError` or `DTypeError`."""
        found = self.residuals(*variables, **data)
        parts, n = leaves(found), self.batch_ndim
        for part in parts:
            if not hasattr(part, "shape") or not hasattr(part, "dtype"):
                raise DTypeError(f"the residuals hold a {type(part).__name__}, not an array of the framework")
        if not parts or len({tuple(part.shape[:n]) for part in parts}) != 1 or parts[0].ndim < n:
            raise ShapeError(
                f"residuals of shapes {[tuple(part.shape) for part in parts]} have not the {n} batch axes in common "
                "that LeastSquares(batch_ndim=...) says"
            )
        space = Space(backend_of(found), tuple(parts[0].shape[:n]))
        return space.dot(found, found) / 2
