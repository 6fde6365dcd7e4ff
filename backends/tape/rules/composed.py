"""Functions of the standard that are composed of others.

On traced arrays these definitions run, and derivatives of every order and mode follow. On plain arrays the
namespace's own functions run instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..array import raw, substituted
from ..core import Primitive
from . import creation
from .structure import concat_map

#: Plain operators: faster than a namespace's functions, and they take Python numbers.
RAW: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "divide": operator.truediv,
    "matmul": operator.matmul,
    "multiply": operator.mul,
    "negative": operator.neg,
    "pow": operator.pow,
    "remainder": operator.mod,
    "subtract": operator.sub,
}


def one_axis(axis: Any, ndim: int) -> int:
    """`axis`, counted from the front; raises `ShapeError` where the array has no such axis."""
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} of an array of {ndim} axes")
    return axis % ndim


def counted_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """An axis, several or (for None) all of them, from the front; raises `ShapeError` for one that is not there."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(one_axis(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ShapeError(f"the axes {axis} name one of {ndim} axes twice")
    return axes


def _count(x: Any, axis: Any) -> int:
    return math.prod(x.shape[a] for a in counted_axes(axis, x.ndim))


def mean(ns: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Σ x / n."""
    return ns.sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


def var(ns: Any, x: Any, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """Σ (x - mean)² / (n - correction)."""
    d = x - mean(ns, x, axis=axis, keepdims=True)
    square = ns.real(d) ** 2 + ns.imag(d) ** 2 if ns.is_complex(d) else d * d
    return ns.sum(square, axis=axis, keepdims=keepdims) / (_count(x, axis) - correction)


def std(ns: Any, x: Any, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    """√var."""
    return root_of_variance(ns, var(ns, x, axis=axis, correction=correction, keepdims=keepdims))


def root_of_variance(ns: Any, square: Any) -> Any:
    """√square; where all entries were equal, a corner of the standard deviation, its derivative is taken as 0."""
    still = raw(substituted(square)) == 0
    if not bool(ns.xp.any(still)):
        return ns.sqrt(square)
    return ns.where(still, ns.zeros_like(square), ns.sqrt(ns.where(still, ns.ones_like(square), square)))


def prod(ns: Any, x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Π x by halves, so that zeros among the factors are no exception."""
    axes = counted_axes(axis, x.ndim)
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
    if axis is None and x.ndim != 1:
        raise ShapeError(f"cumulative_prod of an array of {x.ndim} axes needs to be told along which of them")
    axis = one_axis(0 if axis is None else axis, x.ndim)
    y, n, step = x, x.shape[axis], 1
    while step < n:
        head = ns.take_slice(y, axis, slice(0, step))
        later = ns.take_slice(y, axis, slice(step, None)) * ns.take_slice(y, axis, slice(0, n - step))
        y = ns.concat([head, later], axis=axis)
        step *= 2
    if include_initial:
        shape = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
        y = ns.concat([ns.ones(shape, dtype=x.dtype, device=ns.device(x)), y], axis=axis)
    return y if dtype is None else ns.astype(y, dtype)


def clip(ns: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    """`x` between `min` and `max`; at a bound the derivative is that of x."""
    if min is not None:
        x = ns.where(ns.less(x, min), min, x)
    if max is not None:
        x = ns.where(ns.greater(x, max), max, x)
    return x


def concat(ns: Any, arrays: Any, *, axis: int | None = 0) -> Any:
    """Blocks side by side."""
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [ns.reshape(a, (-1,)) for a in arrays], 0
    axis = one_axis(axis, len(arrays[0].shape))
    dtype = ns.result_type(*arrays)
    arrays = [ns.fit_dtype(a, dtype) for a in arrays]

    def rule(index: int) -> Callable[..., Any]:
        return lambda ns, out, *blocks: concat_map(ns, out, blocks, index, axis)

    rules = tuple(rule(i) for i in range(len(arrays)))
    return Primitive("concat", lambda *blocks: ns.xp.concat(list(blocks), axis=axis), rules)(*arrays)


def stack(ns: Any, arrays: Any, *, axis: int = 0) -> Any:
    """Arrays along a new axis."""
    return concat(ns, [ns.expand_dims(a, axis=axis) for a in arrays], axis=axis)


def unstack(ns: Any, x: Any, *, axis: int = 0) -> tuple:
    """The slices along an axis."""
    axis = one_axis(axis, x.ndim)
    x = ns.moveaxis(x, axis, 0)
    return tuple(x[i, ...] for i in range(x.shape[0]))


def moveaxis(ns: Any, x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to new places."""
    if source is None or destination is None:
        raise ShapeError("moveaxis needs to be told which axes, and where to")
    sources, targets = counted_axes(source, x.ndim), counted_axes(destination, x.ndim)
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

    def call(ns: Any, x: Any, /, *args: Any, **keywords: Any) -> Any:
        own = getattr(ns.xp, xp_function)
        return ns.gather(x, pick=lambda a: own(a, *args, **keywords))

    return call


def sort(ns: Any, x: Any, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The entries in order; they keep their derivatives."""
    order = ns.argsort(x, axis=axis, descending=descending, stable=stable)
    return ns.take_along_axis(x, order, axis=axis)


def diff(ns: Any, x: Any, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours."""
    axis = one_axis(axis, x.ndim)
    parts = [part for part in (prepend, x, append) if part is not None]
    x = ns.concat(parts, axis=axis) if len(parts) > 1 else x
    for _ in range(n):
        x = ns.take_slice(x, axis, slice(1, None)) - ns.take_slice(x, axis, slice(None, -1))
    return x


def vecdot(ns: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """Σ conj(a) b along an axis of each, of the same length."""
    a, b = (v if hasattr(v, "shape") else ns.asarray(v) for v in (a, b))
    if axis != -1:
        a, b = (ns.moveaxis(v, axis, -1) for v in (a, b))
    if not a.shape or a.shape[-1:] != b.shape[-1:]:
        raise ShapeError(f"vecdot of axes of different lengths: the shapes are {a.shape} and {b.shape}")
    return ns.sum((ns.conj(a) if ns.is_complex(a) else a) * b, axis=-1)


def tensordot(ns: Any, a: Any, b: Any, *, axes: Any = 2) -> Any:
    """Contraction of several axes, by one matrix product."""
    if isinstance(axes, int):
        axes = tuple(range(-axes, 0)), tuple(range(axes))
    of_a, of_b = counted_axes(tuple(axes[0]), a.ndim), counted_axes(tuple(axes[1]), b.ndim)
    if [a.shape[i] for i in of_a] != [b.shape[i] for i in of_b]:
        raise ShapeError(f"tensordot over the axes {of_a} of shape {a.shape} and {of_b} of shape {b.shape}")
    left = tuple(i for i in range(a.ndim) if i not in of_a)
    right = tuple(i for i in range(b.ndim) if i not in of_b)
    n = math.prod(a.shape[i] for i in of_a)
    rows, columns = tuple(a.shape[i] for i in left), tuple(b.shape[i] for i in right)
    matrix_a = ns.reshape(ns.permute_dims(a, left + of_a), (math.prod(rows), n))
    matrix_b = ns.reshape(ns.permute_dims(b, of_b + right), (n, math.prod(columns)))
    return ns.reshape(matrix_a @ matrix_b, rows + columns)


def _unique(name: str) -> Callable[..., Any]:
    """The values of `unique_all` and its relatives: each is picked where it first occurs."""

    def call(ns: Any, x: Any) -> Any:
        found = ns.xp.unique_all(raw(x))
        values = ns.take(ns.reshape(x, (-1,)), ns.xp.reshape(found.indices, (-1,)), axis=0)
        if name == "unique_values":
            return values
        whole = found if name == "unique_all" else getattr(ns.xp, name)(raw(x))
        return whole._replace(values=values)

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **creation.FUNCTIONS,
    "broadcast_arrays": broadcast_arrays,
    "clip": clip,
    "concat": concat,
    "cumulative_prod": cumulative_prod,
    "diff": diff,
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
    **{name: _unique(name) for name in ("unique_all", "unique_counts", "unique_inverse", "unique_values")},
    "var": var,
    "vecdot": vecdot,
}
