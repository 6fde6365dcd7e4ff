"""NumPy's own functions and methods on traced arrays: `np.exp(y)`, `np.sum(y, 0)`, `np.linalg.inv(y)`, `y.T.dot(a)`.

NumPy hands such a call over through `__array_ufunc__` and `__array_function__`. Here it is translated to the traced
namespace: most names are the standard's, some have another name, some another signature (below, with NumPy's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import NoDerivativeError
from .core import Traced, raw

#: NumPy's name -> the standard's
_RENAMED = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "concatenate": "concat", "conjugate": "conj", "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift", "power": "pow", "right_shift": "bitwise_right_shift", "true_divide": "divide",
    "mod": "remainder", "amax": "max", "amin": "min", "around": "round", "float_power": "pow",
}  # fmt: skip


def array_ufunc(self: Traced, ufunc: Any, method: str, *inputs: Any, out: Any = None, **keywords: Any) -> Any:
    """A universal function of NumPy met a traced array."""
    if out is not None:
        raise NoDerivativeError(
            f"np.{ufunc.__name__} was asked to write into an array what is being differentiated; "
            "write `a = a + b` in place of `a += b` or of out="
        )
    ns = self._tape.ns
    if method != "__call__":
        if method == "reduce" and ufunc.__name__ in ("add", "multiply", "maximum", "minimum"):
            name = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}[ufunc.__name__]
            keywords.setdefault("axis", 0)
            return call(name, ns, *inputs, **keywords)
        raise NoDerivativeError(f"np.{ufunc.__name__}.{method} has no derivative rule")
    return call(ufunc.__name__, ns, *inputs, **keywords)


def array_function(self: Traced, function: Any, types: Any, args: Any, keywords: Any) -> Any:
    """Another function of NumPy met a traced array."""
    ns = self._tape.ns
    module = getattr(function, "__module__", "") or ""
    if module.startswith("numpy.linalg"):
        return call_linalg(function.__name__, ns, *args, **keywords)
    return call(function.__name__, ns, *args, **keywords)


def call(name: str, ns: Any, *args: Any, **keywords: Any) -> Any:
    """NumPy's function `name` on traced arrays."""
    own = _OWN.get(name)
    if own is not None:
        return own(ns, *args, **keywords)
    name = _RENAMED.get(name, name)
    try:
        function = getattr(ns, name)
    except AttributeError:
        raise NoDerivativeError(f"np.{name} has no derivative rule for arrays of {ns.backend.name}") from None
    return function(*args, **keywords)


def call_linalg(name: str, ns: Any, *args: Any, **keywords: Any) -> Any:
    """NumPy's function `linalg.name` on traced arrays."""
    own = _OWN_LINALG.get(name)
    return own(ns, *args, **keywords) if own is not None else getattr(ns.linalg, name)(*args, **keywords)


def _tuple(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _reduction(name: str) -> Callable[..., Any]:
    def reduce(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, **k: Any) -> Any:
        if out is not None or k:
            raise NoDerivativeError(f"np.{name} with {', '.join(k) or 'out'} has no derivative rule")
        value = getattr(ns, name)(x, axis=_tuple(axis), keepdims=bool(keepdims))
        return value if dtype is None else ns.astype(value, dtype)

    return reduce


def _spread(name: str) -> Callable[..., Any]:
    def spread(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False) -> Any:
        return getattr(ns, name)(x, axis=_tuple(axis), correction=ddof, keepdims=bool(keepdims))

    return spread


def _extreme(name: str) -> Callable[..., Any]:
    def extreme(ns: Any, x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **k: Any) -> Any:
        return getattr(ns, name)(x, axis=_tuple(axis), keepdims=bool(keepdims), **k)

    return extreme


def _reshape(ns: Any, x: Any, *shape: Any, order: str = "C", **_: Any) -> Any:
    if order != "C":
        raise NoDerivativeError(f"reshape with order={order!r} has no derivative rule")
    (shape,) = shape if len(shape) == 1 else (shape,)
    return ns.reshape(x, (shape,) if isinstance(shape, int) else tuple(shape))


def _transpose(ns: Any, x: Any, *axes: Any) -> Any:
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = tuple(axes[0] or ())
    return ns.permute_dims(x, axes or tuple(range(x.ndim))[::-1])


def _swapaxes(ns: Any, x: Any, a: int, b: int) -> Any:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return ns.permute_dims(x, tuple(order))


def _squeeze(ns: Any, x: Any, axis: Any = None) -> Any:
    if axis is None:
        axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
    return ns.squeeze(x, axis)


def _dot(ns: Any, a: Any, b: Any, out: Any = None) -> Any:
    if not a.shape or not b.shape:
        return ns.multiply(a, b)
    if len(a.shape) <= 2 and len(b.shape) <= 2:
        return ns.matmul(a, b)
    return ns.tensordot(a, b, axes=((-1,), (-2 if len(b.shape) > 1 else 0,)))


def _diagonal(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return ns.linalg.diagonal(ns.moveaxis(x, (axis1, axis2), (-2, -1)), offset=offset)


def _trace(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    return ns.sum(_diagonal(ns, x, offset, axis1, axis2), axis=-1)


def _diag(ns: Any, x: Any, k: int = 0) -> Any:
    if x.ndim == 2:
        return ns.linalg.diagonal(x, offset=k)
    n = x.shape[0]
    square = x[:, None] * ns.eye(n, dtype=x.dtype, device=ns.device(x))
    if k == 0:
        return square
    side = ns.zeros((n, abs(k)), dtype=x.dtype, device=ns.device(x))
    wide = ns.concat([side, square] if k > 0 else [square, side], axis=1)
    end = ns.zeros((abs(k), n + abs(k)), dtype=x.dtype, device=ns.device(x))
    return ns.concat([wide, end] if k > 0 else [end, wide], axis=0)


def _cumulative(name: str) -> Callable[..., Any]:
    def cumulate(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return getattr(ns, name)(ns.reshape(x, (-1,)) if axis is None else x, axis=0 if axis is None else axis)

    return cumulate


def _clip(ns: Any, x: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return ns.clip(x, a_min if min is None else min, a_max if max is None else max)


def _take(ns: Any, x: Any, indices: Any, axis: Any = None, **_: Any) -> Any:
    x, axis = (ns.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    return x[(slice(None),) * axis + (raw(indices),)]


def _norm(ns: Any, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    matrix = (axis is None and ord is not None and x.ndim == 2) or isinstance(axis, tuple)
    if matrix and ord not in (None, "fro"):
        return ns.linalg.matrix_norm(x, ord=ord, keepdims=keepdims)
    return ns.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord)


def _joined(axis: int, least: int) -> Callable[..., Any]:
    def join(ns: Any, arrays: Any) -> Any:
        arrays = [a if len(a.shape) >= least else ns.reshape(a, (1,) * (least - len(a.shape)) + tuple(a.shape)) for a in arrays]
        return ns.concat(arrays, axis=0 if len(arrays[0].shape) == 1 else axis)

    return join


_OWN: dict[str, Callable[..., Any]] = {
    "amax": _extreme("max"),
    "amin": _extreme("min"),
    "array": lambda ns, x, dtype=None, **_: ns.asarray(x, dtype=dtype),
    "astype": lambda ns, x, dtype, **_: ns.astype(x, ns.xp.zeros(0, dtype=dtype).dtype),
    "clip": _clip,
    "concatenate": lambda ns, arrays, axis=0, **_: ns.concat(arrays, axis=axis),
    "conjugate": lambda ns, x: ns.conj(x),
    "copy": lambda ns, x, **_: ns.positive(x),
    "cumprod": _cumulative("cumulative_prod"),
    "cumsum": _cumulative("cumulative_sum"),
    "diag": _diag,
    "diagonal": _diagonal,
    "dot": _dot,
    "expand_dims": lambda ns, x, axis: ns.expand_dims(x, axis=axis),
    "flatten": lambda ns, x, **_: ns.reshape(x, (-1,)),
    "hstack": _joined(1, 1),
    "inner": lambda ns, a, b: ns.tensordot(a, b, axes=((-1,), (-1,))),
    "max": _extreme("max"),
    "mean": _reduction("mean"),
    "min": _extreme("min"),
    "ndim": lambda ns, x: x.ndim,
    "outer": lambda ns, a, b, out=None: ns.reshape(a, (-1,))[:, None] * ns.reshape(b, (-1,))[None, :],
    "prod": _reduction("prod"),
    "ravel": lambda ns, x, **_: ns.reshape(x, (-1,)),
    "reshape": _reshape,
    "shape": lambda ns, x: x.shape,
    "size": lambda ns, x: x.size,
    "squeeze": _squeeze,
    "stack": lambda ns, arrays, axis=0, **_: ns.stack(arrays, axis=axis),
    "std": _spread("std"),
    "sum": _reduction("sum"),
    "swapaxes": _swapaxes,
    "take": _take,
    "tensordot": lambda ns, a, b, axes=2: ns.tensordot(a, b, axes=axes),
    "trace": _trace,
    "transpose": _transpose,
    "var": _spread("var"),
    "vdot": lambda ns, a, b: ns.vecdot(ns.reshape(a, (-1,)), ns.reshape(b, (-1,))),
    "vstack": _joined(0, 2),
}
_OWN_LINALG: dict[str, Callable[..., Any]] = {
    "norm": _norm,
    "solve": lambda ns, a, b: ns.linalg.solve(a, b),
    "cholesky": lambda ns, x, *, upper=False: ns.linalg.cholesky(x, upper=upper),
    "eigh": lambda ns, x, UPLO="L": ns.linalg.eigh(x),
    "eigvalsh": lambda ns, x, UPLO="L": ns.linalg.eigvalsh(x),
}
