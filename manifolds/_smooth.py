"""Functions of a squared length t ≥ 0, smooth at t = 0, with derivatives of every order finite and right.

Near 0 each is a power series, whose own derivatives are those of the function; elsewhere the closed form,
at an argument kept away from 0. (`where` between a closed form and its limit alone gives a second derivative
of 0.) The first argument is always the array namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

Array = Any

#: Where series and closed forms meet: low enough for the series to be short, high enough for three
#: derivatives of the closed form to lose no more than two or three digits.
_ENTIRE, _ATAN = 1.0, 0.15
_COS = tuple((-1) ** k / factorial(2 * k) for k in range(12))
_SINC = tuple((-1) ** k / factorial(2 * k + 1) for k in range(12))
_ATANC = tuple((-1) ** k / (2 * k + 1) for k in range(25))


def root(xp: Any, t: Array) -> Array:
    """√t, and 0 with the derivative 0 where t ≤ 0: for norms and distances, which have a kink there."""
    positive = t > 0
    ones = xp.ones_like(t)
    # `t != t` lets NaN through: a norm of something not finite is not 0
    return xp.where(positive, xp.sqrt(xp.where(positive, t, ones)), xp.where(t != t, t, 0.0 * ones))


def cos_sqrt(xp: Any, t: Array) -> Array:
    """cos √t."""
    return _blend(xp, t, _ENTIRE, _COS, lambda s: xp.cos(xp.sqrt(s)))


def sinc_sqrt(xp: Any, t: Array) -> Array:
    """sin √t / √t."""

    def closed(s: Array) -> Array:
        r = xp.sqrt(s)
        return xp.sin(r) / r

    return _blend(xp, t, _ENTIRE, _SINC, closed)


def squared_angle(xp: Any, s: Array, c: Array) -> Array:
    """θ² for unit vectors at the angle θ, from s = |x - y|² and c = |x + y|²: tan²(θ/2) = s/c.

    θ = 2 atan2(√s, √c) loses no digits at either end (Kahan 2006, §12).
    """
    near, s1, c1, r = _half_angle(xp, s, c)
    ratio = _horner(xp, r, _ATANC)
    far = xp.atan2(root(xp, s1), root(xp, c1))
    return 4 * xp.where(near, r * ratio * ratio, far * far)


def angle_over_sine(xp: Any, s: Array, c: Array) -> Array:
    """θ/sin θ with θ as in `squared_angle`; infinite or NaN at θ = π, where it has its pole."""
    near, s1, c1, r = _half_angle(xp, s, c)
    root_s, root_c = xp.sqrt(s1), xp.sqrt(c1)
    far = xp.atan2(root_s, root_c) * (s1 + c1) / (root_s * root_c)
    return xp.where(near, (1 + r) * _horner(xp, r, _ATANC), far)


def _half_angle(xp: Any, s: Array, c: Array) -> tuple[Array, Array, Array, Array]:
    """`near, s, c, r`: r = s/c = tan²(θ/2) for the series, s, c for the closed form; harmless elsewhere."""
    near = s < _ATAN * c
    ones = xp.ones_like(s)
    r = xp.where(near, s, 0.0 * ones) / xp.where(near, c, ones)
    return near, xp.where(near, ones, s), xp.where(near, ones, c), r


def _blend(
    xp: Any, t: Array, threshold: float, coefficients: tuple[float, ...], closed: Callable[[Array], Array]
) -> Array:
    near = t < threshold
    ones = xp.ones_like(t)
    series = _horner(xp, xp.where(near, t, 0.0 * ones), coefficients)
    return xp.where(near, series, closed(xp.where(near, ones, t)))


def _horner(xp: Any, t: Array, coefficients: tuple[float, ...]) -> Array:
    """Σ coefficients[k] tᵏ."""
    result = coefficients[-1] + 0.0 * t
    for coefficient in coefficients[-2::-1]:
        result = coefficient + t * result
    return result
