"""Functions of NumPy whose signature or name the array API standard does not have, in terms of those it
has.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from .einsum import einsum
from .numpy_joining import arrays_of, column_stack, cut, joined, picked
from .refusals import no_rule


def _tuple(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _only(name: str, keywords: dict[str, Any]) -> None:
    """Raise `NoDerivativeError` for keywords that only NumPy's own function understands."""
    given = [key for key, value in keywords.items() if value is not None]
    if given:
        raise no_rule(f"np.{name} with {', '.join(given)}")


def _reduction(name: str) -> Callable[..., Any]:
    def reduce(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, **k: Any) -> Any:
        keepdims = bool(k.pop("keepdims", False))
        _only(name, {"out": out, **k})
        value = getattr(ns, name)(x, axis=_tuple(axis), keepdims=keepdims)
        return value if dtype is None else astype(ns, value, dtype)

    return reduce


def _spread(name: str) -> Callable[..., Any]:
    def spread(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, **k: Any) -> Any:
        keepdims, ddof = bool(k.pop("keepdims", False)), k.pop("correction", ddof)
        _only(name, {"dtype": dtype, "out": out, **k})
        return getattr(ns, name)(x, axis=_tuple(axis), correction=ddof, keepdims=keepdims)

    return spread


def _extreme(name: str) -> Callable[..., Any]:
    def extreme(ns: Any, x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **k: Any) -> Any:
        _only(name, {"out": out, **k})
        return getattr(ns, name)(x, axis=_tuple(axis), keepdims=bool(keepdims))

    return extreme


def _cumulative(name: str) -> Callable[..., Any]:
    def cumulate(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        _only(name, {"out": out})
        flat = ns.reshape(x, (-1,)) if axis is None else x
        return getattr(ns, name)(flat, axis=0 if axis is None else axis, dtype=dtype)

    return cumulate


def astype(ns: Any, x: Any, dtype: Any, **_: Any) -> Any:
    """`x` in a dtype that NumPy understands, `float` or "f4" as well."""
    return ns.astype(x, ns.xp.zeros(0, dtype=dtype).dtype)


def reshape(ns: Any, x: Any, *shape: Any, order: str = "C", **_: Any) -> Any:
    """`reshape(2, 3)` and `reshape((2, 3))`."""
    if order != "C":
        raise no_rule(f"reshape with order={order!r}")
    (shape,) = shape if len(shape) == 1 else (shape,)
    return ns.reshape(x, tuple(shape) if isinstance(shape, (tuple, list)) else (shape,))


def ravel(ns: Any, x: Any, order: str = "C") -> Any:
    """All entries along one axis."""
    return reshape(ns, x, -1, order=order)


def transpose(ns: Any, x: Any, *axes: Any) -> Any:
    """`transpose()`, `transpose(1, 0)` and `transpose((1, 0))`."""
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = tuple(axes[0] or ())
    return ns.permute_dims(x, axes or tuple(range(x.ndim))[::-1])


def swapaxes(ns: Any, x: Any, axis1: int, axis2: int) -> Any:
    """Two axes in each other's place."""
    order = list(range(x.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return ns.permute_dims(x, tuple(order))


def squeeze(ns: Any, x: Any, axis: Any = None) -> Any:
    """Without axes of length one."""
    if axis is None:
        axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
    return ns.squeeze(x, axis)


def dot(ns: Any, a: Any, b: Any, out: Any = None) -> Any:
    """The product of vectors and matrices, and NumPy's generalisation."""
    _only("dot", {"out": out})
    axes_a, axes_b = (len(getattr(v, "shape", ())) for v in (a, b))
    if not axes_a or not axes_b:
        return ns.multiply(a, b)
    if axes_a <= 2 and axes_b <= 2:
        return ns.matmul(a, b)
    return ns.tensordot(a, b, axes=((-1,), (-2 if axes_b > 1 else 0,)))


def inner(ns: Any, a: Any, b: Any) -> Any:
    """The contraction of the last axes."""
    scalar = not getattr(a, "shape", ()) or not getattr(b, "shape", ())
    return ns.multiply(a, b) if scalar else ns.tensordot(a, b, axes=((-1,), (-1,)))


def tensordot(ns: Any, a: Any, b: Any, axes: Any = 2) -> Any:
    """Contraction of several axes; `axes` may be a pair of integers too."""
    if not isinstance(axes, int):
        axes = tuple((pair,) if isinstance(pair, int) else tuple(pair) for pair in axes)
    return ns.tensordot(a, b, axes=axes)


def outer(ns: Any, a: Any, b: Any, out: Any = None) -> Any:
    """All products of an entry of a and one of b."""
    _only("outer", {"out": out})
    return ns.reshape(a, (-1, 1)) * ns.reshape(b, (1, -1))


def kron(ns: Any, a: Any, b: Any) -> Any:
    """The Kronecker product."""
    n = max(a.ndim, b.ndim)
    shapes = [(1,) * (n - v.ndim) + tuple(v.shape) for v in (a, b)]
    left = ns.reshape(a, tuple(m for size in shapes[0] for m in (size, 1)))
    right = ns.reshape(b, tuple(m for size in shapes[1] for m in (1, size)))
    return ns.reshape(left * right, tuple(i * j for i, j in zip(*shapes, strict=True)))


def diagonal(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The entries of a diagonal of two axes, along a new last axis."""
    return ns.linalg.diagonal(ns.moveaxis(x, (axis1, axis2), (-2, -1)), offset=offset)


def trace(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """The sum of a diagonal."""
    return _reduction("sum")(ns, diagonal(ns, x, offset, axis1, axis2), axis=-1, dtype=dtype, out=out)


def diag(ns: Any, x: Any, k: int = 0) -> Any:
    """The matrix with this diagonal, or the diagonal of this matrix."""
    if x.ndim == 2:
        return ns.linalg.diagonal(x, offset=k)
    n = x.shape[0] + abs(k)
    return ns.scatter(x, pick=lambda a: ns.xp.diagonal(a, k), shape=(n, n))


def clip(ns: Any, x: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **k: Any) -> Any:
    """`x` between two bounds, `min=` and `max=` by their newer names too."""
    a_min, a_max = k.pop("min", a_min), k.pop("max", a_max)
    _only("clip", {"out": out, **k})
    return ns.clip(x, a_min, a_max)


def take(ns: Any, x: Any, indices: Any, axis: Any = None, **k: Any) -> Any:
    """Entries by integer indices of any shape."""
    x, axis = (ns.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    own = ns.xp.take
    return ns.gather(x, pick=lambda a: own(a, indices, axis=axis, **k))


def sort(ns: Any, x: Any, axis: Any = -1, **_: Any) -> Any:
    """The entries in order."""
    return ns.sort(ns.reshape(x, (-1,)) if axis is None else x, axis=-1 if axis is None else axis)


def norm(ns: Any, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector and matrix norms."""
    axes = axis if isinstance(axis, tuple) else tuple(range(x.ndim)) if axis is None else (axis,)
    if ord in (None, "fro") or len(axes) == 1:
        return ns.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=2 if ord in (None, "fro") else ord)
    value = ns.linalg.matrix_norm(ns.moveaxis(x, axes, (-2, -1)), ord=ord)
    if not keepdims:
        return value
    axes = {a % x.ndim for a in axes}
    return ns.reshape(value, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def average(ns: Any, x: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    """The mean, with weights of the shape of x or of one axis."""
    if weights is None:
        return ns.mean(x, axis=axis, keepdims=keepdims)
    if weights.shape != x.shape:
        weights = ns.reshape(weights, tuple(n if i == axis % x.ndim else 1 for i, n in enumerate(x.shape)))
        weights = ns.broadcast_to(weights, x.shape)
    total = ns.sum(weights, axis=axis, keepdims=keepdims)
    return ns.sum(x * weights, axis=axis, keepdims=keepdims) / total


def trapezoid(ns: Any, y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral by the trapezoidal rule."""
    y = ns.moveaxis(y, axis, -1)
    if x is not None:
        dx = ns.diff(x if len(x.shape) == 1 else ns.moveaxis(x, axis, -1))
    return ns.sum(dx * (y[..., 1:] + y[..., :-1]) / 2, axis=-1)


def _scaled(factor: float) -> Callable[..., Any]:
    return lambda ns, x: ns.multiply(x, factor)


def _lower(name: str) -> Callable[..., Any]:
    def function(ns: Any, x: Any, UPLO: str = "L") -> Any:  # noqa: N803, RUF100
        if UPLO != "L":
            raise no_rule(f"np.linalg.{name} with UPLO={UPLO!r}")
        return getattr(ns.linalg, name)(x)

    return function


OWN: dict[str, Callable[..., Any]] = {
    "amax": _extreme("max"),
    "amin": _extreme("min"),
    "astype": astype,
    "average": average,
    "cbrt": lambda ns, x: ns.sign(x) * ns.abs(x) ** (1 / 3),
    "clip": clip,
    "column_stack": column_stack,
    "concatenate": lambda ns, arrays, axis=0, **_: ns.concat(arrays_of(ns, arrays), axis=axis),
    "copy": lambda ns, x, **_: ns.positive(x),
    "cross": lambda ns, a, b, axis=-1: ns.linalg.cross(a, b, axis=axis),
    "cumprod": _cumulative("cumulative_prod"),
    "cumsum": _cumulative("cumulative_sum"),
    "deg2rad": _scaled(math.pi / 180),
    "degrees": _scaled(180 / math.pi),
    "diag": diag,
    "diagonal": diagonal,
    "diff": lambda ns, x, n=1, axis=-1, **k: ns.diff(x, axis=axis, n=n, **k),
    "dot": dot,
    "einsum": einsum,
    "exp2": lambda ns, x: ns.pow(2.0, x),
    "flatten": ravel,
    "hstack": joined(1, 1),
    "inner": inner,
    "kron": kron,
    "max": _extreme("max"),
    "mean": _reduction("mean"),
    "min": _extreme("min"),
    "outer": outer,
    "prod": _reduction("prod"),
    "ptp": lambda ns, x, axis=None: ns.max(x, axis=axis) - ns.min(x, axis=axis),
    "rad2deg": _scaled(180 / math.pi),
    "radians": _scaled(math.pi / 180),
    "ravel": ravel,
    "reshape": reshape,
    "sort": sort,
    "squeeze": squeeze,
    "stack": lambda ns, arrays, axis=0, **_: ns.stack(arrays_of(ns, arrays), axis=axis),
    "std": _spread("std"),
    "sum": _reduction("sum"),
    "swapaxes": swapaxes,
    "take": take,
    "tensordot": tensordot,
    "trace": trace,
    "transpose": transpose,
    "trapezoid": trapezoid,
    "var": _spread("var"),
    "vdot": lambda ns, a, b: ns.vecdot(ns.reshape(a, (-1,)), ns.reshape(b, (-1,))),
    "vstack": joined(0, 2),
}
OWN |= {name: picked(name) for name in ("atleast_1d", "atleast_2d", "atleast_3d", "fliplr", "flipud", "rot90")}
OWN |= {name: cut(name) for name in ("array_split", "dsplit", "hsplit", "split", "vsplit")}
LINALG: dict[str, Callable[..., Any]] = {
    "eigh": _lower("eigh"),
    "eigvalsh": _lower("eigvalsh"),
    "multi_dot": lambda ns, arrays, **_: functools.reduce(ns.matmul, arrays),
    "norm": norm,
}
