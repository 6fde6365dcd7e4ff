"""Costs of a linear predictor, whose second derivative is two matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backends import Backend, ShapeError, namespace
from ._settings import require_callable

Array = Any
Tree = Any


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """The cost Σᵢ loss(*outer, A y)ᵢ + regularizer(*outer, y), for `Argmin(LinearPredictor(A, loss), Euclidean(n))`.

    matrix : A (m, n), or (..., m, n) with a batch of problems, or a function of the outer variables that gives it ·
    y : (..., n), one problem each · loss : `loss(*outer, z)` of the predictions z = A y (..., m), entry by entry:
    (..., m) · regularizer : `regularizer(*outer, y)`, entry by entry (..., n), or one number for each problem (...).

    Its second derivative Aᵀ D A + R, D = diag loss''(A y), has D computed once at a point, so that a product costs two
    matrix products; R is a diagonal, computed once, or the product of a regularizer that gives one number. On manifolds
    that are no vector spaces the generic operator is used. Derivatives of every order go through both. A loss that does
    not act entry by entry is found out once for each level, where values are known: `ValueError`.
    """

    matrix: Any
    loss: Callable[..., Array]
    regularizer: Callable[..., Array] | None = None

    def __post_init__(self) -> None:
        require_callable(self, "loss")
        require_callable(self, "regularizer")

    def __call__(self, *variables: Tree) -> Array:
        """The cost of (*outer, y), of the shape of y's leading axes. Raises `ShapeError`."""
        *outer, y = variables
        z = self._products(outer, y)[0](y)
        losses = self.loss(*outer, z)
        if losses.shape != z.shape:
            raise ShapeError(
                f"LinearPredictor: loss gave shape {tuple(losses.shape)} for predictions of shape {tuple(z.shape)}; it "
                "must act entry by entry, unsummed"
            )
        total = namespace(losses).sum(losses, axis=-1)
        if self.regularizer is None:
            return total
        penalty = self.regularizer(*outer, y)
        return total + (namespace(penalty).sum(penalty, axis=-1) if penalty.shape == y.shape else penalty)

    def second_derivative(self, backend: Backend, outer: tuple[Tree, ...], y: Array) -> Callable[[Array], Array]:
        """v ↦ Aᵀ D A v + R v at y; all that is not linear is computed here."""
        forward, backward = self._products(outer, y)
        slope = _diagonal(backend, lambda z: self.loss(*outer, z), forward(y))
        if self.regularizer is None:
            return lambda v: backward(slope * forward(v))
        regularizer = self.regularizer
        if regularizer(*outer, y).shape == y.shape:
            shift = _diagonal(backend, lambda p: regularizer(*outer, p), y)
            return lambda v: backward(slope * forward(v)) + shift * v

        def gradient(p: Array) -> Array:
            value, pull = backend.vjp(lambda q: regularizer(*outer, q), p)
            return pull(namespace(value).ones_like(value))[0]

        _, curve = backend.vjp(gradient, y)
        return lambda v: backward(slope * forward(v)) + curve(v)[0]

    def _products(self, outer: Any, y: Array) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """v ↦ A v and w ↦ Aᵀ w."""
        a: Any = self.matrix
        if callable(a):
            a = a(*outer)
        if a.ndim < 2 or y.ndim < 1 or a.shape[-1] != y.shape[-1]:
            raise ShapeError(
                f"LinearPredictor: a matrix of shape {tuple(a.shape)} does not multiply y of shape {tuple(y.shape)}"
            )
        if a.ndim == 2:
            transposed = a.mT
            return lambda v: v @ transposed, lambda w: w @ a
        return lambda v: (a @ v[..., None])[..., 0], lambda w: (a.mT @ w[..., None])[..., 0]


def _diagonal(backend: Backend, function: Callable[[Array], Array], z: Array) -> Array:
    """The second derivative of a function that acts entry by entry."""

    def slope(z: Array) -> Array:
        value, pull = backend.vjp(function, z)
        return pull(namespace(value).ones_like(value))[0]

    value, pull = backend.vjp(slope, z)
    return pull(namespace(value).ones_like(value))[0]
