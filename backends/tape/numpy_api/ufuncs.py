"""NumPy's universal functions: those that the array API standard does not have, and their methods.

A ufunc may be called, `np.add(a, b)`, or used as `np.add.outer`, `.reduce`, `.accumulate` and `.reduceat`. The
methods are written for any function of two arguments; sums, products, extremes and logaddexp have better ways.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..array import Traced, is_moving, raw, substituted
from ..core import Primitive
from ..maps import IDENTITY, Map, Scale, scale
from ..refusals import leaked, no_rule
from ..rules import special
from ..rules.special_sums import logsumexp

#: NumPy's name -> the standard's
RENAMED = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh",
    "arctan": "atan", "arctan2": "atan2", "arctanh": "atanh", "around": "round", "conjugate": "conj",
    "invert": "bitwise_invert", "left_shift": "bitwise_left_shift", "mod": "remainder", "power": "pow",
    "right_shift": "bitwise_right_shift", "true_divide": "divide",
}  # fmt: skip
_LN2 = math.log(2.0)


# -- rules: (ns, out, *args) -> Map or None --------------------------------------------------------
def _by(derivative: Callable[..., Any]) -> Callable[..., Map]:
    return lambda ns, y, *args: scale(ns, derivative(ns, y, *args))


def _frexp(ns: Any, y: Any, x: Any) -> Scale:
    exponent = ns.xp.frexp(raw(x))[1]
    return Scale(ns.xp.ldexp(ns.xp.ones((), dtype=y.dtype, device=ns.device(y)), -exponent))


def _ldexp(ns: Any, y: Any, x: Any, e: Any) -> Scale:
    return Scale(ns.xp.ldexp(ns.xp.ones((), dtype=y.dtype, device=ns.device(y)), e))


def _heaviside(ns: Any, y: Any, x: Any, at_zero: Any) -> Scale:
    return Scale(ns.astype(ns.equal(x, 0), y.dtype))


_RULES: dict[str, tuple[Any, ...]] = {
    "cbrt": (_by(lambda ns, y, x: 1 / (3 * y * y)),),
    "exp2": (_by(lambda ns, y, x: _LN2 * y),),
    "fabs": (_by(lambda ns, y, x: ns.sign(x)),),
    "fmod": (lambda ns, y, a, b: IDENTITY, _by(lambda ns, y, a, b: -ns.trunc(a / b))),
    "heaviside": (lambda ns, y, a, b: None, _heaviside),
    "ldexp": (_ldexp, lambda ns, y, a, b: None),
}


def _primitive(ns: Any, name: str) -> Primitive:
    return Primitive(f"np.{name}", getattr(ns.xp, name), _RULES[name], elementwise=True)


# -- functions -------------------------------------------------------------------------------------
def _fextreme(name: str) -> Callable[..., Any]:
    """Fmax and fmin: maximum and minimum of which NaN loses."""

    def extreme(ns: Any, a: Any, b: Any) -> Any:
        return ns.where(ns.isnan(a), b, ns.where(ns.isnan(b), a, getattr(ns, name)(a, b)))

    return extreme


def _float_power(ns: Any, a: Any, b: Any) -> Any:
    """Aᵇ in double precision at least."""
    dtype = ns.xp.float_power(ns.xp.ones((), dtype=ns.xp.result_type(plain(a), plain(b))), 1).dtype
    return ns.pow(*(ns.astype(v, dtype) if hasattr(v, "dtype") else v for v in (a, b)))


def _modf(ns: Any, x: Any) -> tuple:
    """The fractional part, which moves with x, and the whole one."""
    own = ns.xp.modf
    return Primitive("np.modf", lambda v: own(v)[0], (lambda ns, y, x: IDENTITY,))(x), own(plain(x))[1]


def _split_exponent(ns: Any, x: Any) -> tuple:
    """The mantissa x 2⁻ᵉ and the exponent e."""
    own = ns.xp.frexp
    return Primitive("np.frexp", lambda v: own(v)[0], (_frexp,))(x), own(plain(x))[1]


def _check_product(name: str, a: Any, x: Any, inner: int) -> None:
    left, right = (tuple(getattr(v, "shape", ())) for v in (a, x))
    if len(left) < 2 or not right or left[inner] != right[-1]:
        raise ShapeError(f"np.{name} of a matrix of shape {left} and a vector of shape {right}")


def _matvec(ns: Any, a: Any, x: Any) -> Any:
    _check_product("matvec", a, x, -1)
    return ns.matmul(a, ns.expand_dims(x, axis=-1))[..., 0]


def _vecmat(ns: Any, x: Any, a: Any) -> Any:
    _check_product("vecmat", a, x, -2)
    x = ns.conj(x) if ns.is_complex(x) else x
    return ns.matmul(ns.expand_dims(x, axis=-2), a)[..., 0, :]


def _scaled(factor: float) -> Callable[..., Any]:
    return lambda ns, x: ns.multiply(x, factor)


OWN: dict[str, Callable[..., Any]] = {
    name: lambda ns, *args, name=name: _primitive(ns, name)(*args) for name in _RULES
} | {
    "deg2rad": _scaled(math.pi / 180),
    "degrees": _scaled(180 / math.pi),
    "divmod": lambda ns, a, b: (ns.floor_divide(a, b), ns.remainder(a, b)),
    "float_power": _float_power,
    "fmax": _fextreme("maximum"),
    "fmin": _fextreme("minimum"),
    "frexp": _split_exponent,
    "logaddexp2": lambda ns, a, b: ns.logaddexp(_LN2 * a, _LN2 * b) / _LN2,
    "matvec": _matvec,
    "modf": _modf,
    "rad2deg": _scaled(180 / math.pi),
    "radians": _scaled(math.pi / 180),
    "vecmat": _vecmat,
}

#: Universal functions with derivative zero besides those of the standard.
ZERO = frozenset("bitwise_count gcd isnat lcm spacing".split())


def found(ns: Any, ufunc: Any) -> Callable[..., Any]:
    """The differentiable function of a universal function of NumPy, CuPy or SciPy; raises `NoDerivativeError`."""
    name = str(ufunc.__name__).removeprefix("cupy_")
    if name in OWN:
        return functools.partial(OWN[name], ns)
    own = special.find(ns, name)
    if own is None:
        own = getattr(ns, RENAMED.get(name, name), None)
    if own is None:
        raise no_rule(f"the universal function {ufunc.__name__}")
    return own


# -- methods ---------------------------------------------------------------------------------------
def outer(ns: Any, f: Callable[..., Any], a: Any, b: Any) -> Any:
    """F(aᵢ, bⱼ) for all pairs of entries."""
    a, b = as_array(ns, a), as_array(ns, b)
    if len(getattr(b, "shape", ())) and hasattr(a, "shape"):
        a = ns.reshape(a, (*a.shape, *[1] * len(b.shape)))
    return f(a, b)


def fold(ns: Any, f: Callable[..., Any], x: Any, axis: int, start: Any = None) -> list[Any]:
    """The running results of f along an axis."""
    results = [] if start is None else [start]
    for part in ns.unstack(x, axis=axis):
        results.append(f(results[-1], part) if results else part)
    return results


def accumulate(ns: Any, name: str, f: Callable[..., Any], x: Any, axis: int = 0) -> Any:
    """The running results of f along an axis, as an array."""
    if not x.shape:
        raise TypeError(f"np.{name}.accumulate needs an axis, and an array without axes has none")
    if name in ("add", "multiply"):
        return getattr(ns, "cumulative_sum" if name == "add" else "cumulative_prod")(x, axis=axis)
    return ns.stack(fold(ns, f, x, axis), axis=axis) if x.shape[axis] else x


def reduceat(ns: Any, f: Callable[..., Any], x: Any, indices: Any, axis: int = 0) -> Any:
    """Reductions of the slices between neighbouring indices; a single entry where they do not increase."""
    starts = [int(i) for i in plain(indices)]
    if any(not 0 <= i < x.shape[axis] for i in starts):
        raise IndexError(f"reduceat: the indices {starts} along an axis of {x.shape[axis]} entries")
    stops = [*starts[1:], x.shape[axis]]
    pieces = [slice(i, j) if i < j else slice(i, i + 1) for i, j in zip(starts, stops, strict=True)]
    return ns.stack([fold(ns, f, ns.take_slice(x, axis, p), axis)[-1] for p in pieces], axis=axis)


def log_sum(ns: Any, x: Any, axis: Any, keepdims: bool, initial: Any, where: Any) -> Any:
    """`np.logaddexp.reduce`."""
    if where is not True:
        x = ns.where(where, x, -math.inf)
    y = logsumexp(ns, x, axis, keepdims=keepdims)
    return y if initial is None else ns.logaddexp(y, initial)


def is_traced(value: Any) -> bool:
    """Whether `value`, or anything in a tuple, list or dict of that name, is being differentiated."""
    return is_moving(list(value.values()) if type(value) is dict else value)


def plain(value: Any) -> Any:
    """`value`, or a tuple, list or dict of such, without any tracing; of what stands in for captured arrays."""
    if isinstance(value, Traced):
        value = substituted(value)
        if isinstance(value, Traced) and not value._tape.is_open:
            raise leaked("a function of NumPy")
        return raw(value)
    if type(value) in (tuple, list):
        return type(value)([plain(v) for v in value])
    return {k: plain(v) for k, v in value.items()} if type(value) is dict else value


def as_array(ns: Any, value: Any) -> Any:
    """Lists and tuples of numbers and arrays as arrays; arrays and numbers as they are."""
    if type(value) not in (list, tuple):
        return value
    return ns.asarray(value) if _holds_arrays(value) else ns.xp.asarray(value)


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(hasattr(v, "dtype") or _holds_arrays(v) for v in value)


def cast(ns: Any, x: Any, dtype: Any) -> Any:
    """`x` in a dtype that NumPy understands, `float` or "f4" as well; x itself for None."""
    if dtype is None or not hasattr(x, "dtype"):
        return x
    return ns.astype(x, ns.xp.zeros(0, dtype=dtype).dtype)
