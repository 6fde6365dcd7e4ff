"""The derivative rules of elementwise functions, one line for each, and the list of those with derivative zero.

A rule is a tuple with one entry for each array argument, `(ns, out, *args, **static) -> Map or None (zero)`.
Everything is written with operators and the traced namespace `ns`, hence differentiable itself. To add a
function: one line here (or in `structure.py` or `linalg.py`), one line of `tests/test_tape.py`.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

from ..array import raw
from ..maps import IDENTITY, NEGATE, Linear, Map, Scale, scale

Rule = Callable[..., Any]


def _by(derivative: Callable[..., Any]) -> Rule:
    """The rule of an elementwise function from its derivative (ns, out, *args) -> d."""
    return lambda ns, y, *args: scale(ns, derivative(ns, y, *args))


def _tie(compare: str) -> Callable[..., Any]:
    """The derivative of maximum/minimum: 1 where the argument wins, ½ where it ties."""

    def derivative(ns: Any, y: Any, mine: Any, other: Any) -> Any:
        wins = ns.astype(getattr(ns, compare)(mine, other), y.dtype)
        ties = ns.astype(ns.equal(mine, other), y.dtype)
        return wins + 0.5 * ties

    return derivative


def _inverse(b: Any) -> Any:
    """1/b; a Python zero, too, gives infinity."""
    return math.inf if isinstance(b, (int, float)) and b == 0 else 1 / b


def _over(ns: Any, a: Any, size: Any) -> Any:
    """A / size, and 0 where both are 0, with derivative 0."""
    return a / ns.where(size == 0, math.inf, size)


def _one_minus_square(ns: Any, x: Any) -> Any:
    """1 - x²; of complex numbers with the sign of a zero imaginary part, which tells the side of the branch cut."""
    return -(x * x - 1) if ns.is_complex(x) else 1 - x * x


def _power_base(ns: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(b, (int, float, complex)):
        return 2 * a if b == 2 else b * a ** (b - 1) if b else 0.0
    return b * a ** ns.where(b == 0, ns.zeros_like(b), b - 1)


def _power_exponent(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """Aᵇ log a; 0 where a = 0; NaN for a negative a and real b, where the real function has no derivative."""
    if isinstance(a, (int, float, complex)):
        if a == 0:
            return y * 0.0
        if ns.is_complex(y):
            return y * cmath.log(a)
        return y * (math.log(a.real) if a.real > 0 else math.nan)
    return y * ns.log(ns.where(a == 0, ns.ones_like(a), a))


def _share(ns: Any, y: Any, mine: Any, other: Any) -> Any:
    """The derivative of log(exp a + exp b) by a: exp(a - y); where y is infinite its limit, 1, ½ or 0."""
    if not bool(ns.xp.count_nonzero(ns.xp.isinf(raw(y)))):  # infinite values take ten operations more
        return ns.exp(mine - y)
    infinite = ns.isinf(y)
    limit = ns.where(ns.equal(y, mine), ns.where(ns.equal(y, other), 0.5 * ns.ones_like(y), 1.0), 0.0)
    gap = ns.where(infinite, ns.zeros_like(y), mine) - ns.where(infinite, ns.zeros_like(y), y)
    return ns.where(infinite, limit, ns.exp(gap))


def _abs(ns: Any, y: Any, x: Any) -> Map:
    """D|x|[t] = Re(conj(s) t), s = x/|x| (0 at 0)."""
    if not ns.is_complex(x):
        return Scale(ns.sign(x))
    s = _over(ns, x, y)
    return Linear(lambda t: ns.real(ns.conj(s) * t), lambda c: c * s)


def _sign(ns: Any, y: Any, x: Any) -> Map | None:
    """For complex x: D(x/|x|)[t] = i s Im(conj(s) t)/|x|, s = x/|x|."""
    if not ns.is_complex(x):
        return None
    size = ns.abs(x)
    d = 1 / ns.where(size == 0, ns.ones_like(size), size)
    return Linear(lambda t: 1j * y * (ns.imag(ns.conj(y) * t) * d), lambda c: 1j * y * (ns.imag(ns.conj(y) * c) * d))


def _real(ns: Any, y: Any, x: Any) -> Map:
    return Linear(ns.real, lambda c: ns.astype(c, x.dtype)) if ns.is_complex(x) else IDENTITY


def _imag(ns: Any, y: Any, x: Any) -> Map | None:
    return Linear(ns.imag, lambda c: 1j * ns.astype(c, x.dtype)) if ns.is_complex(x) else None


def _conj(ns: Any, y: Any, x: Any) -> Any:
    return Linear(ns.conj, ns.conj) if ns.is_complex(x) else IDENTITY


def _chosen(ns: Any, condition: Any, of_true: bool) -> Linear:
    def keep(t: Any) -> Any:
        return ns.where(condition, t, 0.0) if of_true else ns.where(condition, 0.0, t)

    return Linear(keep, keep)


# -- elementwise: shapes broadcast, dtypes promote; see Primitive ----------------------------------
_LN2, _LN10 = math.log(2.0), math.log(10.0)
ELEMENTWISE: dict[str, tuple[Rule, ...]] = {
    "abs": (_abs,),
    "acos": (_by(lambda ns, y, x: -1 / ns.sqrt(_one_minus_square(ns, x))),),
    "acosh": (_by(lambda ns, y, x: 1 / (ns.sqrt(x - 1) * ns.sqrt(x + 1))),),
    "add": (lambda ns, y, a, b: IDENTITY, lambda ns, y, a, b: IDENTITY),
    "asin": (_by(lambda ns, y, x: 1 / ns.sqrt(_one_minus_square(ns, x))),),
    "asinh": (_by(lambda ns, y, x: 1 / ns.sqrt(x * x + 1)),),
    "atan": (_by(lambda ns, y, x: 1 / (1 + x * x)),),
    "atan2": (
        _by(lambda ns, y, a, b: b / (a * a + b * b)),
        _by(lambda ns, y, a, b: -a / (a * a + b * b)),
    ),
    "atanh": (_by(lambda ns, y, x: 1 / (1 - x * x)),),
    "conj": (_conj,),
    "copysign": (_by(lambda ns, y, a, b: ns.sign(a) * ns.sign(y)), lambda ns, y, a, b: None),
    "cos": (_by(lambda ns, y, x: -ns.sin(x)),),
    "cosh": (_by(lambda ns, y, x: ns.sinh(x)),),
    "divide": (_by(lambda ns, y, a, b: _inverse(b)), _by(lambda ns, y, a, b: -y / b)),
    "exp": (_by(lambda ns, y, x: y),),
    "expm1": (_by(lambda ns, y, x: y + 1),),
    "hypot": (_by(lambda ns, y, a, b: _over(ns, a, y)), _by(lambda ns, y, a, b: _over(ns, b, y))),
    "imag": (_imag,),
    "log": (_by(lambda ns, y, x: 1 / x),),
    "log10": (_by(lambda ns, y, x: 1 / (_LN10 * x)),),
    "log1p": (_by(lambda ns, y, x: 1 / (1 + x)),),
    "log2": (_by(lambda ns, y, x: 1 / (_LN2 * x)),),
    "logaddexp": (_by(_share), _by(lambda ns, y, a, b: _share(ns, y, b, a))),
    "maximum": (_by(_tie("greater")), _by(lambda ns, y, a, b: _tie("greater")(ns, y, b, a))),
    "minimum": (_by(_tie("less")), _by(lambda ns, y, a, b: _tie("less")(ns, y, b, a))),
    "multiply": (lambda ns, y, a, b: scale(ns, b), lambda ns, y, a, b: scale(ns, a)),
    "negative": (lambda ns, y, x: NEGATE,),
    "nextafter": (lambda ns, y, a, b: IDENTITY, lambda ns, y, a, b: None),
    "positive": (lambda ns, y, x: IDENTITY,),
    "pow": (_by(_power_base), _by(_power_exponent)),
    "real": (_real,),
    "reciprocal": (_by(lambda ns, y, x: -y * y),),
    "remainder": (lambda ns, y, a, b: IDENTITY, _by(lambda ns, y, a, b: -ns.floor_divide(a, b))),
    "sign": (_sign,),
    "sin": (_by(lambda ns, y, x: ns.cos(x)),),
    "sinh": (_by(lambda ns, y, x: ns.cosh(x)),),
    "sqrt": (_by(lambda ns, y, x: 0.5 / y),),
    "square": (_by(lambda ns, y, x: 2 * x),),
    "subtract": (lambda ns, y, a, b: IDENTITY, lambda ns, y, a, b: NEGATE),
    "tan": (_by(lambda ns, y, x: 1 + y * y),),
    "tanh": (_by(lambda ns, y, x: 1 - y * y),),
    "where": (
        lambda ns, y, c, a, b: None,
        lambda ns, y, c, a, b: _chosen(ns, c, True),
        lambda ns, y, c, a, b: _chosen(ns, c, False),
    ),
}


#: Functions whose derivative is zero wherever it exists, or whose value has no derivative by its kind.
CONSTANT = frozenset(
    "all allclose any argmax argmin argpartition argsort argwhere array_equal array_equiv bitwise_and "
    "bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor can_cast ceil "
    "count_nonzero digitize empty_like equal finfo fix flatnonzero floor floor_divide greater "
    "greater_equal heaviside iinfo isclose iscomplex iscomplexobj isdtype isfinite isin isinf isnan "
    "isneginf isposinf isreal isrealobj less less_equal lexsort logical_and logical_not logical_or "
    "logical_xor matrix_rank may_share_memory ndim nonzero not_equal ones_like result_type rint round "
    "searchsorted shape shares_memory signbit size trunc zeros_like".split()
)
