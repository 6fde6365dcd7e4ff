"""Isometries between the models of hyperbolic space."""

from __future__ import annotations

from typing import Any

from ..backends import namespace
from ._linalg import dot
from ._parameters import expand

Array = Any


def ball_to_lorentz(x: Array, c: Any = 1.0) -> Array:
    """((1 + c|x|²)/√c, 2x)/(1 - c|x|²): the point of `Lorentz(n, c)` that stands for `x` of `PoincareBall(n, c)`.

    x : (..., n); the value : (..., n + 1). It undoes `lorentz_to_ball`. Ratcliffe 2019, §4.5.
    """
    c = expand(c, 1)
    squared = c * dot(x, x, 1, keepdims=True)
    b = 1 - squared
    return namespace(b).concat([(1 + squared) / (c**0.5 * b), (2 / b) * x], axis=-1)


def lorentz_to_ball(x: Array, c: Any = 1.0) -> Array:
    """(x₁, …, x_n)/(1 + √c x₀): stereographic projection from (-1/√c, 0, …, 0).

    x : (..., n + 1) of `Lorentz(n, c)`; the value : (..., n) of `PoincareBall(n, c)`.
    """
    return x[..., 1:] / (1 + expand(c, 1) ** 0.5 * x[..., :1])
