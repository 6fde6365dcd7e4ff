"""Unit vectors along one axis, each a point of a round sphere: what `Sphere` and `Oblique` share.

Real or complex; `axis` is -1 (vectors) or -2 (columns of matrices). Absil, Mahony & Sepulchre 2008, ch. 3 to 5.
"""

from __future__ import annotations

from typing import Any

from ..backends import namespace
from ._linalg import along, is_complex
from ._smooth import angle_over_sine, cos_sqrt, sinc_sqrt

Array = Any


def unit(a: Array, axis: int) -> Array:
    """a/|a|."""
    length = along(a, a, axis)
    return a / namespace(length).sqrt(length)


def squared(a: Array, axis: int) -> Array:
    """|a|²; the memory of a temporary `a` is free again before the next one is made, which is half the time of many."""
    return along(a, a, axis)


def project(x: Array, a: Array, axis: int) -> Array:
    """a - (x·a) x."""
    return a - along(x, a, axis) * x


def connection(x: Array, w: Array, u: Array, axis: int) -> Array:
    """-(x·w) u."""
    return -along(x, w, axis) * u


def exp(x: Array, u: Array, axis: int) -> Array:
    """cos|u| x + (sin|u|/|u|) u, in |u|², so that derivatives at u = 0 are right."""
    t = along(u, u, axis)
    xp = namespace(t)
    return cos_sqrt(xp, t) * x + sinc_sqrt(xp, t) * u


def chords(x: Array, y: Array, axis: int) -> tuple[Array, Array]:
    """|x - y|², |x + y|²."""
    return squared(x - y, axis), squared(x + y, axis)


def log(x: Array, y: Array, axis: int) -> Array:
    """(θ/sin θ) (d - (x·d) x) with d = y - x, which loses no digits where y is close to x; θ the angle of x and y."""
    c = squared(x + y, axis)
    d = y - x
    s = along(d, d, axis)
    return angle_over_sine(namespace(s), s, c) * project(x, d, axis)


def parallel_transport(x: Array, y: Array, u: Array, axis: int) -> Array:
    """u - 2 (x + y) ((x + y)·u)/|x + y|²: the reflection that takes x to -y and keeps what is normal."""
    middle = x + y
    return u - (2.0 * along(middle, u, axis) / along(middle, middle, axis)) * middle


def inverse_retract(x: Array, y: Array, axis: int) -> Array:
    """y/(x·y) - x = (d - (x·d) x)/(1 + x·d) with d = y - x, accurate where y is close to x."""
    d = y - x
    q = along(x, d, axis)
    return (d - q * x) / (1.0 + q)


def curvature(n: int, x: Array) -> float:
    """The curvature of the unit sphere of ℝⁿ (ℂⁿ for complex `x`): 1; 0 where its dimension is at most one."""
    return float((2 if is_complex(x.dtype) else 1) * n > 2)
