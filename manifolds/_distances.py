"""Squared distances from cosines of angles, without the logarithm, which is their derivative."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import dot
from ._smooth import angle_over_sine

Array = Any


def squared_dist(manifold: Any, value: Callable[[Array, Array], Array], scale: float, x: Array, y: Array) -> Array:
    """dist(x, y)² = value(x, y) on a manifold of matrices whose metric is `scale` times the ambient one.

    The derivatives are covectors, -2 `scale` log(x, y) in x and likewise in y; so `value` is never differentiated.
    """
    backend = backend_of(x, y)
    if backend.is_constant(x, y):
        return value(x, y)
    if x.shape != y.shape:
        # a rule gives to each argument what has its shape
        x, y = namespace(x, y).broadcast_arrays(x, y)
    return _rule(backend, manifold, value, scale)(x, y)


@cache
def _rule(backend: Any, manifold: Any, value: Callable[[Array, Array], Array], scale: float) -> Callable[..., Array]:
    def slope(x: Array, y: Array) -> Array:
        return (-2.0 * scale) * manifold.log(x, y)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        (x, y), (moved_x, moved_y) = primals, tangents
        parts = [] if moved_x is None else [dot(slope(x, y), moved_x, 2)]
        parts += [] if moved_y is None else [dot(slope(y, x), moved_y, 2)]
        return sum(parts[1:], parts[0]) if parts else 0.0 * out

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        (x, y), c = primals, cotangent[..., None, None]
        return c * slope(x, y) if needs[0] else None, c * slope(y, x) if needs[1] else None

    return backend.custom_derivative(value, pushforward, pullback)


def excess(c: Array) -> Array:
    """Σ (θ² - sin²θ) over the last axis of c = cos θ ≥ 0. An error of c counts θ²-fold: small angles are exact."""
    xp = namespace(c)
    # a cosine may exceed 1 by rounding
    gap = xp.abs(1 - c)
    ratio = angle_over_sine(xp, gap, 1 + c)
    return xp.sum(gap * (1 + c) * (ratio * ratio - 1), axis=-1)
