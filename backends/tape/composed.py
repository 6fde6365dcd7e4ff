"""Functions of the standard that are composed of others: on traced arrays these definitions run, and derivatives of
every order and mode follow. On plain arrays the namespace's own functions run instead."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from .._errors import NoDerivativeError
from .core import Primitive, raw
from .rules import concat_map

#: Plain operators: faster than a namespace's functions, and they take Python numbers.
RAW: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "divide": operator.truediv,
    "multiply": operator.mul,
    "negative": operator.neg,
    "pow": operator.pow,
    "remainder": operator.mod,
    "subtract": operator.sub,
}


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _count(x: Any, axis: Any) -> int:
    return math.prod(x.shape[a] for a in _axes(axis, x.ndim))


def mean(ns: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Σ x / n."""
    return ns.sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


def var(ns: Any, x: Any, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Σ (x - mean)² / (n - correction)."""
    d = x - mean(ns, x, axis=axis, keepdims=True)
    return ns.sum(d * d, axis=axis, keepdims=keepdims) / (_count(x, axis) - correction)


def std(ns: Any, x: Any, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """√var."""
    return ns.sqrt(var(ns, x, axis=axis, correction=correction, keepdims=keepdims))


def prod(ns: Any, x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Π x by halves, so that zeros among the factors are no exception."""
    axes = _axes(axis, x.ndim)
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    y = ns.permute_dims(x, kept + axes) if axes else x
    y = ns.reshape(y, tuple(x.shape[a] for a in kept) + (_count(x, axes),))
    if y.shape[-1] == 0:
        y = ns.ones(y.shape[:-1] + (1,), dtype=x.dtype, device=ns.device(x))
    while y.shape[-1] > 1:
        n = y.shape[-1] // 2
        product = y[..., :n] * y[..., n : 2 * n]
        y = ns.concat([product, y[..., 2 * n :]], axis=-1) if y.shape[-1] % 2 else product
    y = y[..., 0]
    y = y if dtype is None else ns.astype(y, dtype)
    return ns.reshape(y, tuple(1 if a in axes else n for a, n in enumerate(x.shape))) if keepdims else y


def cumulative_prod(ns: Any, x: Any, *, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """Running products by doubling (Hillis & Steele 1986)."""
    axis = (0 if axis is None else axis) % x.ndim
    y, n, step = x, x.shape[axis], 1
    while step < n:
        head = ns.take_slice(y, axis, slice(0, step))
        y = ns.concat([head, ns.take_slice(y, axis, slice(step, None)) * ns.take_slice(y, axis, slice(0, n - step))], axis=axis)
        step *= 2
    if include_initial:
        y = ns.concat([ns.ones_like(ns.take_slice(x, axis, slice(0, 1))), y], axis=axis)
    return y if dtype is None else ns.astype(y, dtype)


def clip(ns: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    """`x` between `min` and `max`; at a bound the derivative is that of x."""
    if min is not None:
        x = ns.where(ns.less(x, min), min + 0 * x, x)
    if max is not None:
        x = ns.where(ns.greater(x, max), max + 0 * x, x)
    return x


def concat(ns: Any, arrays: Any, *, axis: int | None = 0) -> Any:
    """Blocks side by side."""
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [ns.reshape(a, (-1,)) for a in arrays], 0
    axis = axis % len(arrays[0].shape)
    dtype = ns.result_type(*arrays)
    arrays = [ns.fit_dtype(a, dtype) for a in arrays]

    def rule(index: int) -> Callable[..., Any]:
        return lambda ns, out, *blocks: concat_map(ns, out, blocks, index, axis)

    rules = tuple(rule(i) for i in range(len(arrays)))
    return Primitive("concat", lambda *blocks: ns.xp.concat(list(blocks), axis=axis), rules, False)(*arrays)


def stack(ns: Any, arrays: Any, *, axis: int = 0) -> Any:
    """Arrays along a new axis."""
    return concat(ns, [ns.expand_dims(a, axis=axis) for a in arrays], axis=axis)


def unstack(ns: Any, x: Any, *, axis: int = 0) -> tuple:
    """The slices along an axis."""
    x = ns.moveaxis(x, axis, 0)
    return tuple(x[i, ...] for i in range(x.shape[0]))


def moveaxis(ns: Any, x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to new places."""
    sources, targets = _axes(source, x.ndim), _axes(destination, x.ndim)
    order = [a for a in range(x.ndim) if a not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return ns.permute_dims(x, tuple(order))


def broadcast_arrays(ns: Any, *arrays: Any) -> Any:
    """Arrays broadcast against each other."""
    shape = ns.xp.broadcast_arrays(*[raw(a) for a in arrays])[0].shape
    return tuple(ns.broadcast_to(a, shape) for a in arrays)


def _picked(xp_function: str) -> Callable[..., Any]:
    """A function that only picks entries of its first argument."""

    def call(ns: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        args = tuple(raw(a) for a in args)
        own = getattr(ns.xp, xp_function)
        return ns.gather(x, pick=lambda a: own(a, *args, **keywords))

    return call


def sort(ns: Any, x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The entries in order; they keep their derivatives."""
    order = ns.xp.argsort(raw(x), axis=axis, descending=descending, stable=stable)
    return ns.take_along_axis(x, order, axis=axis)


def diff(ns: Any, x: Any, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours."""
    parts = [p for p in (prepend, x, append) if p is not None]
    x = ns.concat(parts, axis=axis) if len(parts) > 1 else x
    for _ in range(n):
        x = ns.take_slice(x, axis, slice(1, None)) - ns.take_slice(x, axis, slice(None, -1))
    return x


def vecdot(ns: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """Σ conj(a) b along an axis."""
    return ns.sum((ns.conj(a) if ns.is_complex(a) else a) * b, axis=axis)


def tensordot(ns: Any, a: Any, b: Any, *, axes: Any = 2) -> Any:
    """Contraction of several axes, by one matrix product."""
    if isinstance(axes, int):
        of_a, of_b = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        of_a, of_b = _axes(tuple(axes[0]), a.ndim), _axes(tuple(axes[1]), b.ndim)
    left = tuple(i for i in range(a.ndim) if i not in of_a)
    right = tuple(i for i in range(b.ndim) if i not in of_b)
    n = math.prod(a.shape[i] for i in of_a)
    rows, columns = tuple(a.shape[i] for i in left), tuple(b.shape[i] for i in right)
    matrix_a = ns.reshape(ns.permute_dims(a, left + of_a), (math.prod(rows), n))
    matrix_b = ns.reshape(ns.permute_dims(b, of_b + right), (n, math.prod(columns)))
    return ns.reshape(matrix_a @ matrix_b, rows + columns)


def asarray(ns: Any, value: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """A traced array is an array already; a list of them is stacked."""
    if isinstance(value, (list, tuple)):
        value = stack(ns, [asarray(ns, v) if isinstance(v, (list, tuple)) else v for v in value])
    return value if dtype is None or value.dtype == dtype else ns.astype(value, dtype)


def full_like(ns: Any, x: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """An array of the shape of x filled with one, perhaps traced, number."""
    return ns.broadcast_to(fill_value + ns.zeros_like(x, dtype=dtype), x.shape)


def linalg_trace(ns: Any, x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of a diagonal."""
    return ns.sum(linalg_diagonal(ns, x, offset=offset), axis=-1)


def linalg_diagonal(ns: Any, x: Any, *, offset: int = 0) -> Any:
    """The entries of a diagonal."""
    rows, columns = x.shape[-2:]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = offset if offset >= 0 else -offset * columns
    flat = ns.reshape(x, (*x.shape[:-2], rows * columns))
    return flat[..., start : start + (n - 1) * (columns + 1) + 1 : columns + 1] if n else flat[..., :0]


def outer(ns: Any, a: Any, b: Any) -> Any:
    """A bᵀ."""
    return a[:, None] * b[None, :]


def cross(ns: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """The vector product."""
    i, j = [ns.roll(v, shift=-1, axis=axis) for v in (a, b)]
    return ns.roll(a * j - i * b, shift=-1, axis=axis)


def vector_norm(ns: Any, x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The p-norm; at 0 the derivative of the 2-norm is taken as 0."""
    size = ns.abs(x)
    if ord == math.inf:
        return ns.max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return ns.min(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return ns.sum(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return ns.sum(ns.astype(ns.not_equal(x, 0), size.dtype), axis=axis, keepdims=keepdims)
    if ord == 2:
        square = ns.sum(ns.real(x) ** 2 + ns.imag(x) ** 2 if ns.is_complex(x) else x * x, axis=axis, keepdims=keepdims)
        zero = square == 0
        return ns.where(zero, 0 * square, ns.sqrt(ns.where(zero, ns.ones_like(square), square)))
    return ns.sum(size**ord, axis=axis, keepdims=keepdims) ** (1 / ord)


def matrix_norm(ns: Any, x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The Frobenius norm, or the largest or smallest sum of a row or a column."""
    if ord == "fro":
        return vector_norm(ns, x, axis=(-2, -1), keepdims=keepdims)
    axis = {1: -2, -1: -2, math.inf: -1, -math.inf: -1}.get(ord)
    if axis is None:
        raise NoDerivativeError(f"linalg.matrix_norm has no derivative rule for ord={ord!r}")
    pick = ns.max if ord > 0 else ns.min
    return pick(ns.sum(ns.abs(x), axis=axis, keepdims=True), axis=(-2, -1), keepdims=keepdims)


def matrix_power(ns: Any, x: Any, n: int) -> Any:
    """Xⁿ by squaring."""
    if n < 0:
        return matrix_power(ns, ns.linalg.inv(x), -n)
    if n == 0:
        return 0 * x + ns.eye(x.shape[-1], dtype=x.dtype, device=ns.device(x))
    half = matrix_power(ns, x, n // 2) if n > 1 else None
    square = x if half is None else half @ half
    return square @ x if n > 1 and n % 2 else square


def _solve(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def solve(a: Any, b: Any) -> Any:
        return primitive(a, b[:, None])[..., 0] if len(b.shape) == 1 else primitive(a, b)

    return solve


def _cholesky(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def cholesky(x: Any, *, upper: bool = False) -> Any:
        lower = primitive(x)
        return root.adjoint(lower) if upper else lower

    return cholesky


LINALG_AROUND = {"solve": _solve, "cholesky": _cholesky}
LINALG: dict[str, Callable[..., Any]] = {
    "cross": cross,
    "diagonal": linalg_diagonal,
    "eigvalsh": lambda ns, x: ns.linalg.eigh(x)[0],
    "matrix_norm": matrix_norm,
    "matrix_power": matrix_power,
    "matrix_rank": lambda ns, x, **k: ns.xp.linalg.matrix_rank(raw(x), **k),
    "outer": outer,
    "trace": linalg_trace,
    "vector_norm": vector_norm,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "asarray": asarray,
    "broadcast_arrays": broadcast_arrays,
    "clip": clip,
    "concat": concat,
    "cumulative_prod": cumulative_prod,
    "diff": diff,
    "full_like": full_like,
    "mean": mean,
    "moveaxis": moveaxis,
    "prod": prod,
    "repeat": _picked("repeat"),
    "sort": sort,
    "stack": stack,
    "std": std,
    "take": _picked("take"),
    "take_along_axis": _picked("take_along_axis"),
    "tensordot": tensordot,
    "tile": _picked("tile"),
    "unstack": unstack,
    "var": var,
    "vecdot": vecdot,
}
