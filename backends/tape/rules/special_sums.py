"""logsumexp, softmax and other special functions that are more than one universal function of SciPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..core import Primitive
from ..maps import Linear
from ..refusals import no_rule


def _finite_shift(xp: Any, largest: Any) -> Any:
    return xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))


def _raw(ns: Any, x: Any, *, axis: Any, keepdims: bool) -> Any:
    """max x + log Σ exp(x - max x), of a plain array; -∞ for a sum of nothing."""
    xp = ns.xp
    real = xp.real(x) if ns.is_complex(x) else x
    if 0 in x.shape:
        return xp.sum(x, axis=axis, keepdims=keepdims) - math.inf
    shift = _finite_shift(xp, xp.max(real, axis=axis, keepdims=True))
    total = xp.sum(xp.exp(x - shift), axis=axis, keepdims=True)
    nothing = total == 0
    y = xp.where(nothing, xp.full_like(total, -math.inf), xp.log(xp.where(nothing, 1.0, total)) + shift)
    return y if keepdims else xp.reshape(y, xp.sum(real, axis=axis).shape)


def _rule(ns: Any, y: Any, x: Any, *, axis: Any, keepdims: bool) -> Linear:
    """D log Σ exp x = Σ w dx, w = exp(x - y). Where y = -∞, w = 0; where y = ∞, the infinite entries share it."""
    whole = y if keepdims or axis is None else ns.restore_axes(y, axis, x.shape)
    finite = ns.isfinite(whole)
    w = ns.exp(ns.where(finite, x - ns.where(finite, whole, ns.zeros_like(whole)), -math.inf))
    if not ns.is_complex(x):
        largest = ns.astype(ns.logical_and(ns.equal(x, whole), ns.greater(x, 0)), x.dtype)
        share = largest / ns.xp.clip(ns.sum(largest, axis=axis, keepdims=True), 1, None)
        w = ns.where(ns.isinf(whole), share, w)
    adjoint = ns.conj(w) if ns.is_complex(w) else w

    def pull(c: Any) -> Any:
        return adjoint * (c if keepdims or axis is None else ns.restore_axes(c, axis, x.shape))

    return Linear(lambda t: ns.sum(w * t, axis=axis, keepdims=keepdims), pull)


def logsumexp(
    ns: Any, x: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False
) -> Any:
    """Log Σ b exp(x), without overflow, differentiable where entries are ±1000 or -∞ too.

    Raises `NoDerivativeError` for weights b or the sign, which SciPy offers besides.
    """
    if b is not None or return_sign:
        raise no_rule("logsumexp with b or return_sign")
    axis = tuple(axis) if isinstance(axis, list) else axis
    return Primitive("logsumexp", functools.partial(_raw, ns), (_rule,))(x, axis=axis, keepdims=keepdims)


def softmax(ns: Any, x: Any, axis: Any = None) -> Any:
    """exp(x)/Σ exp(x)."""
    return ns.exp(log_softmax(ns, x, axis))


def log_softmax(ns: Any, x: Any, axis: Any = None) -> Any:
    """X - log Σ exp(x)."""
    return x - logsumexp(ns, x, axis, keepdims=True)


def polygamma(ns: Any, n: int, x: Any) -> Any:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n+1, x)."""
    return ns.special.psi(x) if n == 0 else (-1.0) ** (n + 1) * math.factorial(n) * ns.special.zeta(n + 1, x)


def multigammaln(ns: Any, a: Any, d: int) -> Any:
    """Log Γ_d(a) = d(d-1)/4 log π + Σ_j log Γ(a - j/2), j = 0, ..., d-1."""
    return 0.25 * d * (d - 1) * math.log(math.pi) + sum(ns.special.gammaln(a - 0.5 * j) for j in range(d))


#: Radius of the series of sin(u)/u, and the number of its terms: what is left out, differentiated six times, is
#: below 1e-16.
_RADIUS, _TERMS = 1.0, 11


def sinc(ns: Any, x: Any) -> Any:
    """sin(πx)/(πx), and the even power series near 0: derivatives of every order are right there too."""
    u = math.pi * x
    near = ns.abs(u) < _RADIUS
    small, large = ns.where(near, u, ns.zeros_like(u)), ns.where(near, ns.ones_like(u), u)
    square = small * small
    series = square * 0.0
    for k in range(_TERMS, 0, -1):
        series = square * (series + 1.0) * (-1.0 / (2 * k * (2 * k + 1)))
    return ns.where(near, series + 1.0, ns.sin(large) / large)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "multigammaln": multigammaln,
    "polygamma": polygamma,
    "sinc": sinc,
    "softmax": softmax,
}
