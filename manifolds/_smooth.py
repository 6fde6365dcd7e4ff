"""Functions of a squared length t ≥ 0, smooth at t = 0, with derivatives of every order finite and right.

Near 0 each is a power series, whose own derivatives are those of the function; elsewhere the closed form,
at an argument kept away from 0. (`where` between a closed form and its limit alone gives a second derivative
of 0.) Where no derivative is taken, and its value is accurate for every t ≥ 0, the closed form alone serves. The
first argument is always the array namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import factorial
from typing import Any

from ..backends import backend_of, namespace

Array = Any

#: Where series and closed forms meet: low enough for the series to be short, high enough for three
#: derivatives of the closed form to lose no more than two or three digits.
_ENTIRE, _ATAN, _TANH = 1.0, 0.15, 0.3
_COS = tuple((-1) ** k / factorial(2 * k) for k in range(12))
_SINC = tuple((-1) ** k / factorial(2 * k + 1) for k in range(12))
_ATANC = tuple((-1) ** k / (2 * k + 1) for k in range(25))
#: Added to a squared length that is divided by: it changes no digit above 1e-20, and 0/0 into 1.
_TINY = 1e-36


def root(xp: Any, t: Array) -> Array:
    """√t, and 0 with the derivative 0 where t ≤ 0: for norms and distances, which have a kink there."""
    if backend_of(t).is_constant(t):
        return xp.sqrt(xp.maximum(t, xp.zeros_like(t)))
    positive = t > 0
    ones = xp.ones_like(t)
    # `t != t` lets NaN through: a norm of something not finite is not 0
    return xp.where(positive, xp.sqrt(xp.where(positive, t, ones)), xp.where(t != t, t, 0.0 * ones))


def cos_sqrt(xp: Any, t: Array) -> Array:
    """cos √t."""
    return _blend(xp, t, _ENTIRE, _COS, lambda s: xp.cos(xp.sqrt(s)), accurate=True)


def sinc_sqrt(xp: Any, t: Array) -> Array:
    """sin √t / √t."""

    def closed(s: Array) -> Array:
        r = xp.sqrt(s + _TINY)
        return xp.sin(r) / r

    return _blend(xp, t, _ENTIRE, _SINC, closed, accurate=True)


def squared_angle(xp: Any, s: Array, c: Array) -> Array:
    """θ² for unit vectors at the angle θ, from s = |x - y|² and c = |x + y|²: tan²(θ/2) = s/c.

    θ = 2 atan2(√s, √c) loses no digits at either end (Kahan 2006, §12).
    """
    if backend_of(s).is_constant(s, c):
        half = xp.atan2(xp.sqrt(s), xp.sqrt(c))
        angle = half + half
        return angle * angle
    near, s1, c1, r = _half_angle(xp, s, c)
    ratio = _horner(xp, r, _ATANC)
    far = xp.atan2(root(xp, s1), root(xp, c1))
    return 4 * xp.where(near, r * ratio * ratio, far * far)


def angle_over_sine(xp: Any, s: Array, c: Array) -> Array:
    """θ/sin θ with θ as in `squared_angle`; infinite or NaN at θ = π, where it has its pole."""
    if backend_of(s).is_constant(s, c):
        root_s, root_c = xp.sqrt(s + _TINY), xp.sqrt(c)
        return xp.atan2(root_s, root_c) * (s + c) / (root_s * root_c)
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
    xp: Any,
    t: Array,
    threshold: float,
    coefficients: tuple[float, ...],
    closed: Callable[[Array], Array],
    *,
    accurate: bool = False,
) -> Array:
    """The series below the threshold, else `closed`, which is `accurate` if its value is right for every t ≥ 0."""
    if accurate and backend_of(t).is_constant(t):
        return closed(t)
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


def log_ratio(xp: Any, a: Array, b: Array) -> Array:
    """log(a/b) of positive numbers, without losing digits where a is close to b."""
    backend = backend_of(a)
    if backend.is_constant(a, b):
        return _log_ratio(xp, a, b)
    if a.shape != b.shape:
        a, b = xp.broadcast_arrays(a, b)
    return _log_ratio_rule(backend_of(a, b))(a, b)


@cache
def _log_ratio_rule(backend: Any) -> Callable[[Array, Array], Array]:
    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        moved = [None if t is None else t / p for p, t in zip(primals, tangents, strict=True)]
        if moved[1] is None:
            return moved[0]
        return -moved[1] if moved[0] is None else moved[0] - moved[1]

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        a, b = primals
        return cotangent / a if needs[0] else None, -cotangent / b if needs[1] else None

    def function(a: Array, b: Array) -> Array:
        return _log_ratio(namespace(a, b), a, b)

    return backend.custom_derivative(function, pushforward, pullback, transposable=True)


def _log_ratio(xp: Any, a: Array, b: Array) -> Array:
    """± log(1 + |a - b|/min(a, b)): right for every ratio, by one logarithm."""
    d = a - b
    return xp.copysign(xp.log1p(xp.abs(d) / xp.minimum(a, b)), d)


# -- hyperbolic: the value in closed form, the derivative by a rule, whose own derivatives are smooth at t = 0 --
_SINHC = tuple(1 / factorial(2 * k + 1) for k in range(14))
#: asinh √t/√(t(1 + t)) = Σ (-4)ᵏ k!²/(2k + 1)! tᵏ
_ASINH = tuple((-4) ** k * factorial(k) ** 2 / factorial(2 * k + 1) for k in range(28))


def _tangent_numbers(count: int) -> tuple[float, ...]:
    """The coefficients of tanh √t/√t, from tanh' = 1 - tanh²."""
    found: list[float] = [1.0]
    for k in range(1, count):
        found.append(-sum(found[i] * found[k - 1 - i] for i in range(k)) / (2 * k + 1))
    return tuple(found)


_TANHC = _tangent_numbers(24)


def cosh_sqrt(xp: Any, t: Array) -> Array:
    """cosh √t."""
    return _ruled(xp, t, _cosh, _cosh_slope)


def sinhc_sqrt(xp: Any, t: Array) -> Array:
    """sinh √t/√t."""
    return _ruled(xp, t, _sinhc, _sinhc_slope)


def tanhc_sqrt(xp: Any, t: Array) -> Array:
    """tanh √t/√t."""
    return _ruled(xp, t, _tanhc, _tanhc_slope)


def squared_sech_sqrt(xp: Any, t: Array) -> Array:
    """1/cosh² √t, which does not overflow and keeps its digits where it is small."""
    return _ruled(xp, t, _squared_sech, _squared_sech_slope)


def squared_asinh_sqrt(xp: Any, t: Array) -> Array:
    """asinh² √t: (θ/2)² where t = sinh²(θ/2)."""
    return _ruled(xp, t, _squared_asinh, asinh_sqrt_ratio)


def asinh_sqrt_ratio(xp: Any, t: Array) -> Array:
    """asinh √t/√(t(1 + t)): θ/sinh θ where t = sinh²(θ/2)."""
    return _ruled(xp, t, _asinh_ratio, _asinh_ratio_slope)


def _ruled(xp: Any, t: Array, value: Callable[..., Array], slope: Callable[..., Array]) -> Array:
    """`value` at t, with `slope` as its derivative."""
    backend = backend_of(t)
    return value(xp, t) if backend.is_constant(t) else _rule(backend, value, slope)(t)


@cache
def _rule(backend: Any, value: Callable[..., Array], slope: Callable[..., Array]) -> Callable[[Array], Array]:
    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        (t,) = primals
        return slope(namespace(t), t) * tangents[0]

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        (t,) = primals
        return (slope(namespace(t), t) * cotangent,)

    return backend.custom_derivative(lambda t: value(namespace(t), t), pushforward, pullback, transposable=True)


def _cosh(xp: Any, t: Array) -> Array:
    return xp.cosh(xp.sqrt(t))


def _cosh_slope(xp: Any, t: Array) -> Array:
    return 0.5 * sinhc_sqrt(xp, t)


def _sinhc(xp: Any, t: Array) -> Array:
    r = xp.sqrt(t + _TINY)
    return xp.sinh(r) / r


def _sinhc_slope(xp: Any, t: Array) -> Array:
    def closed(s: Array) -> Array:
        r = xp.sqrt(s)
        return (xp.cosh(r) - xp.sinh(r) / r) / (2 * s)

    return _blend(xp, t, _ENTIRE, _derivative(_SINHC), closed)


def _tanhc(xp: Any, t: Array) -> Array:
    r = xp.sqrt(t + _TINY)
    return xp.tanh(r) / r


def _tanhc_slope(xp: Any, t: Array) -> Array:
    def closed(s: Array) -> Array:
        r = xp.sqrt(s)
        return (_squared_sech(xp, s) - xp.tanh(r) / r) / (2 * s)

    return _blend(xp, t, _TANH, _derivative(_TANHC), closed)


def _squared_sech(xp: Any, t: Array) -> Array:
    e = xp.exp(-2.0 * xp.sqrt(t))
    bottom = 1.0 + e
    return 4.0 * e / (bottom * bottom)


def _squared_sech_slope(xp: Any, t: Array) -> Array:
    return -squared_sech_sqrt(xp, t) * tanhc_sqrt(xp, t)


def _squared_asinh(xp: Any, t: Array) -> Array:
    r = _asinh(xp, t, xp.sqrt(t), xp.sqrt(1.0 + t))
    return r * r


def _asinh_ratio(xp: Any, t: Array) -> Array:
    r, q = xp.sqrt(t + _TINY), xp.sqrt(1.0 + t)
    return _asinh(xp, t, r, q) / (r * q)


def _asinh(xp: Any, t: Array, r: Array, q: Array) -> Array:
    """asinh r from t = r², q = √(1 + t): what libraries call asinh is slow, in PyTorch six times as slow as this."""
    return xp.log1p(r + t / (1.0 + q))


def _asinh_ratio_slope(xp: Any, t: Array) -> Array:
    def closed(s: Array) -> Array:
        # 1/(1 + s) in place of products: s may be as large as 1e30
        inverse, r = 1 / (1 + s), xp.sqrt(s)
        ratio = xp.asinh(r) * xp.sqrt(inverse) / r
        return (inverse - (2 - inverse) * ratio) / (2 * s)

    return _blend(xp, t, _ATAN, _derivative(_ASINH), closed)


def _derivative(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """The coefficients of a power series' derivative."""
    return tuple(k * c for k, c in enumerate(coefficients))[1:]
