"""Functions of NumPy whose signature or name the array API standard does not have, in terms of those it has.

Here: shapes, products, diagonals and simple functions of entries. The other families have files of their own, and
`OWN` gathers all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..refusals import no_rule
from ..rules.composed import one_axis
from ..rules.einsum import einsum
from ..rules.special_sums import sinc
from . import calculus, choosing, joining, linalg, order, padding, polynomials, reductions
from .reductions import no_out
from .ufuncs import as_array, cast, is_traced, plain


# -- shapes ----------------------------------------------------------------------------------------
def astype(ns: Any, x: Any, dtype: Any, *_: Any, **__: Any) -> Any:
    """`x` in a dtype that NumPy understands, `float` or "f4" as well."""
    return cast(ns, x, dtype)


def reshape(ns: Any, x: Any, *shape: Any, order: str = "C", **k: Any) -> Any:
    """`reshape(2, 3)` and `reshape((2, 3))`, with the entries in C's or Fortran's order."""
    if len(shape) == 2 and isinstance(shape[1], str):  # np.reshape(x, shape, order)
        shape, order = shape[:1], shape[1]
    shape = shape or (k.pop("shape", None) or k.pop("newshape"),)
    (shape,) = shape if len(shape) == 1 else (shape,)
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if order in ("A", "K"):  # the order in memory
        flags = plain(x).flags
        order = "F" if flags.fnc else "C" if flags.c_contiguous or order == "A" else order
    if order == "F":
        return ns.reshape(x.T, shape[::-1]).T
    if order != "C":
        raise no_rule(f"reshape with order={order!r}")
    return ns.reshape(x, shape)


def ravel(ns: Any, x: Any, order: str = "C") -> Any:
    """All entries along one axis."""
    return reshape(ns, x, -1, order=order)


def transpose(ns: Any, x: Any, *axes: Any, **k: Any) -> Any:
    """`transpose()`, `transpose(1, 0)` and `transpose((1, 0))`."""
    axes = axes or (k.get("axes"),)
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = tuple(axes[0] or ())
    return ns.permute_dims(x, axes or tuple(range(x.ndim))[::-1])


def moveaxis(ns: Any, x: Any, source: Any, destination: Any) -> Any:
    """`np.moveaxis`, which takes lists of axes too."""
    return ns.moveaxis(x, *(tuple(v) if isinstance(v, list) else v for v in (source, destination)))


def swapaxes(ns: Any, x: Any, axis1: int, axis2: int) -> Any:
    """Two axes in each other's place."""
    order = list(range(x.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return ns.permute_dims(x, tuple(order))


def rollaxis(ns: Any, x: Any, axis: int, start: int = 0) -> Any:
    """`np.rollaxis`: one axis before another."""
    axis, start = one_axis(axis, x.ndim), one_axis(start, x.ndim + 1) if start >= 0 else one_axis(start, x.ndim)
    return ns.moveaxis(x, axis, start - 1 if axis < start else start)


def squeeze(ns: Any, x: Any, axis: Any = None) -> Any:
    """Without axes of length one."""
    if axis is None:
        axis = tuple(i for i, n in enumerate(x.shape) if n == 1)
    return ns.squeeze(x, axis)


def broadcast_to(ns: Any, x: Any, shape: Any, subok: bool = False) -> Any:
    """`np.broadcast_to`."""
    return ns.broadcast_to(x, tuple(shape) if hasattr(shape, "__len__") else (shape,))


def full_like(ns: Any, x: Any, fill_value: Any, dtype: Any = None, *_: Any, shape: Any = None, **__: Any) -> Any:
    """An array like x, of one perhaps traced number."""
    dtype = x.dtype if dtype is None else ns.xp.zeros(0, dtype=dtype).dtype
    shape = x.shape if shape is None else tuple(shape) if hasattr(shape, "__len__") else (shape,)
    if not is_traced(fill_value):
        return ns.xp.full(shape, plain(fill_value), dtype=dtype, device=ns.device(x))
    return ns.broadcast_to(ns.astype(fill_value, dtype), shape)


# -- products --------------------------------------------------------------------------------------
def dot(ns: Any, a: Any, b: Any, out: Any = None) -> Any:
    """The product of vectors and matrices, and NumPy's generalisation."""
    no_out("dot", out)
    a, b = as_array(ns, a), as_array(ns, b)
    axes_a, axes_b = (len(getattr(v, "shape", ())) for v in (a, b))
    if not axes_a or not axes_b:
        return ns.multiply(a, b)
    if axes_a <= 2 and axes_b <= 2:
        return ns.matmul(a, b)
    return ns.tensordot(a, b, axes=((-1,), (-2 if axes_b > 1 else 0,)))


def inner(ns: Any, a: Any, b: Any) -> Any:
    """The contraction of the last axes."""
    a, b = as_array(ns, a), as_array(ns, b)
    scalar = not getattr(a, "shape", ()) or not getattr(b, "shape", ())
    return ns.multiply(a, b) if scalar else ns.tensordot(a, b, axes=((-1,), (-1,)))


def tensordot(ns: Any, a: Any, b: Any, axes: Any = 2) -> Any:
    """Contraction of several axes; `axes` may be a pair of integers too."""
    if not isinstance(axes, int):
        axes = tuple((pair,) if isinstance(pair, int) else tuple(pair) for pair in axes)
    return ns.tensordot(as_array(ns, a), as_array(ns, b), axes=axes)


def outer(ns: Any, a: Any, b: Any, out: Any = None) -> Any:
    """All products of an entry of a and one of b."""
    no_out("outer", out)
    a, b = joining.arrays_of(ns, (a, b))
    return ns.reshape(a, (-1, 1)) * ns.reshape(b, (1, -1))


def kron(ns: Any, a: Any, b: Any) -> Any:
    """The Kronecker product."""
    a, b = joining.arrays_of(ns, (a, b))
    n = max(a.ndim, b.ndim)
    shapes = [(1,) * (n - v.ndim) + tuple(v.shape) for v in (a, b)]
    left = ns.reshape(a, tuple(m for size in shapes[0] for m in (size, 1)))
    right = ns.reshape(b, tuple(m for size in shapes[1] for m in (1, size)))
    return ns.reshape(left * right, tuple(i * j for i, j in zip(*shapes, strict=True)))


def vecdot(ns: Any, a: Any, b: Any, axis: int = -1) -> Any:
    """Σ conj(a) b along an axis."""
    return ns.vecdot(a, b, axis=axis)


# -- diagonals -------------------------------------------------------------------------------------
def diagonal(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The entries of a diagonal of two axes, along a new last axis."""
    return ns.linalg.diagonal(ns.moveaxis(x, (axis1, axis2), (-2, -1)), offset=offset)


def trace(ns: Any, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """The sum of a diagonal."""
    return reductions.total(ns, diagonal(ns, x, offset, axis1, axis2), -1, dtype, out)


def diag(ns: Any, x: Any, k: int = 0) -> Any:
    """The matrix with this diagonal, or the diagonal of this matrix."""
    if x.ndim == 2:
        return ns.linalg.diagonal(x, offset=k)
    if x.ndim != 1:
        raise ShapeError(f"np.diag of an array of {x.ndim} axes; it takes one or two")
    n = x.shape[0] + abs(k)
    return ns.scatter(x, pick=lambda a: ns.xp.diagonal(a, k), shape=(n, n))


# -- functions of entries --------------------------------------------------------------------------
def clip(ns: Any, x: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **k: Any) -> Any:
    """`x` between two bounds, `min=` and `max=` by their newer names too."""
    a_min, a_max = k.pop("min", a_min), k.pop("max", a_max)
    no_out("clip", out)
    return ns.clip(x, a_min, a_max)


def angle(ns: Any, z: Any, deg: bool = False) -> Any:
    """The argument of complex numbers, which is constant for real ones."""
    if not ns.is_complex(z):
        return ns.xp.angle(plain(z), deg)
    y = ns.atan2(ns.imag(z), ns.real(z))
    return y * (180 / math.pi) if deg else y


def nan_to_num(ns: Any, x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """`np.nan_to_num`: constants in the place of NaN and infinities."""
    if ns.is_complex(x):
        parts = (nan_to_num(ns, part, copy, nan, posinf, neginf) for part in (ns.real(x), ns.imag(x)))
        return sum(part * unit for part, unit in zip(parts, (1, 1j), strict=True))
    return ns.where(ns.isfinite(x), x, ns.xp.nan_to_num(plain(x), nan=nan, posinf=posinf, neginf=neginf))


def real_if_close(ns: Any, x: Any, tol: Any = 100) -> Any:
    """`np.real_if_close`: the real part where all imaginary ones are about zero."""
    is_real = ns.is_complex(x) and not ns.xp.iscomplexobj(ns.xp.real_if_close(plain(x), tol))
    return ns.real(x) if is_real else x


def in_scimath(ns: Any, function: Any, args: tuple) -> Any:
    """A function of `np.emath`: complex where the real one is not defined."""
    values, first = function(*(plain(a) for a in args)), args[0]
    dtype = values.dtype if ns.is_complex(values) else None
    args = tuple(cast(ns, a, dtype) for a in args)
    name = function.__name__
    if name == "logn":
        return ns.log(args[1]) / ns.log(ns.xp.asarray(args[0], dtype=dtype) if not is_traced(args[0]) else args[0])
    if (
        dtype is not None and name in ("arccos", "arcsin") and not ns.is_complex(first)
    ):  # on the branch cut, where arccos x = -i arcosh x
        y = -1j * ns.acosh(args[0])
        return y if name == "arccos" else 0.5 * math.pi - y
    return getattr(ns, {"power": "pow", "arccos": "acos", "arcsin": "asin", "arctanh": "atanh"}.get(name, name))(*args)


OWN: dict[str, Callable[..., Any]] = {
    "angle": angle,
    "astype": astype,
    "broadcast_to": broadcast_to,
    "clip": clip,
    "copy": lambda ns, x, *_, **__: ns.positive(x),
    "cross": linalg.cross,
    "diag": diag,
    "diagflat": lambda ns, x, k=0: diag(ns, ravel(ns, x), k),
    "diagonal": diagonal,
    "dot": dot,
    "einsum": einsum,
    "flatten": ravel,
    "full_like": full_like,
    "imag": lambda ns, x: ns.imag(x) if ns.is_complex(x) else ns.xp.zeros_like(plain(x)),
    "inner": inner,
    "kron": kron,
    "moveaxis": moveaxis,
    "nan_to_num": nan_to_num,
    "outer": outer,
    "ravel": ravel,
    "real": lambda ns, x: ns.real(x),
    "real_if_close": real_if_close,
    "reshape": reshape,
    "rollaxis": rollaxis,
    "sinc": sinc,
    "squeeze": squeeze,
    "swapaxes": swapaxes,
    "tensordot": tensordot,
    "trace": trace,
    "transpose": transpose,
    "vdot": lambda ns, a, b: ns.vecdot(*(ns.reshape(v, (-1,)) for v in joining.arrays_of(ns, (a, b)))),
    "vecdot": vecdot,
}
for _family in (
    calculus,
    choosing,
    joining,
    order,
    padding,
    polynomials,
    reductions,
):
    OWN |= _family.OWN
LINALG = linalg.OWN
