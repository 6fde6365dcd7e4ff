"""`np.linalg` on traced arrays, where its signatures are not those of the standard's `linalg`."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..refusals import no_rule
from ..rules.composed import one_axis
from .ufuncs import as_array, plain


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)


def norm(ns: Any, x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms over one axis, matrix norms over two, the 2-norm of all entries without either."""
    axes = _axes(axis, x.ndim)
    if len(axes) == 1 and isinstance(ord, str):
        raise ValueError(f"the norm {ord!r} is one of matrices, not of vectors")
    if ord is None and axis is not None and len(axes) > 2:
        raise ShapeError(f"a norm is taken over one axis or two, not over {axis}")
    if ord is None or (ord == "fro" and len(axes) == 2) or len(axes) == 1:
        return ns.linalg.vector_norm(x, axis=None if axis is None else axes, keepdims=keepdims, ord=_two(ord))
    value = ns.linalg.matrix_norm(ns.moveaxis(x, axes, (-2, -1)), ord=ord)
    if not keepdims:
        return value
    axes = tuple(a % x.ndim for a in axes)
    return ns.reshape(value, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def _two(ord: Any) -> Any:
    return 2 if ord in (None, "fro") else ord


def cond(ns: Any, x: Any, p: Any = None) -> Any:
    """‖x‖ ‖x⁻¹‖; without p, and for 2, the quotient of the largest and the smallest singular value."""
    if p in (None, 2, -2):
        s = ns.linalg.svdvals(x)
        first, last = s[..., 0], s[..., -1]
        return last / first if p == -2 else first / last
    return ns.linalg.matrix_norm(x, ord=p) * ns.linalg.matrix_norm(ns.linalg.inv(x), ord=p)


def tensorinv(ns: Any, x: Any, ind: int = 2) -> Any:
    """The inverse of x as a map from its last axes to its first `ind`."""
    if ind <= 0:
        raise ValueError(f"np.linalg.tensorinv needs at least one axis in front, but ind is {ind}")
    rows = math.prod(x.shape[:ind])
    return ns.reshape(ns.linalg.inv(ns.reshape(x, (rows, -1))), (*x.shape[ind:], *x.shape[:ind]))


def tensorsolve(ns: Any, a: Any, b: Any, axes: Any = None) -> Any:
    """The y with a y = b, the last axes of a contracted with y."""
    if axes is not None:
        axes = [one_axis(k, len(a.shape)) for k in axes]
        a = ns.permute_dims(a, (*(k for k in range(len(a.shape)) if k not in axes), *axes))
    shape = a.shape[len(b.shape) :]
    n = math.prod(shape)
    return ns.reshape(ns.linalg.solve(ns.reshape(a, (-1, n)), ns.reshape(b, (-1,))), shape)


def pinv(ns: Any, x: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """The pseudoinverse; `rcond` is the older name of `rtol`."""
    rtol = rcond if rtol is None else rtol
    return ns.linalg.pinv(x) if rtol is None else ns.linalg.pinv(x, rtol=rtol)


def svd(ns: Any, x: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """The singular value decomposition; that of a Hermitian matrix may differ from NumPy's by signs."""
    return ns.linalg.svd(x, full_matrices=full_matrices) if compute_uv else ns.linalg.svdvals(x)


def lstsq(ns: Any, a: Any, b: Any, rcond: Any = None) -> tuple:
    """(a⁺ b, sums of squares left over, rank, singular values); the rank is taken as constant."""
    if a.ndim != 2 or b.ndim not in (1, 2) or b.shape[0] != a.shape[0]:
        raise ShapeError(f"np.linalg.lstsq of a matrix of shape {a.shape} and a right side of shape {b.shape}")
    rows, columns = a.shape
    plain_a = plain(a)
    rcond = ns.xp.finfo(plain_a.dtype).eps * max(rows, columns) if rcond is None else max(rcond, 0.0)
    s = ns.linalg.svdvals(a)
    rank = int(ns.xp.sum(plain(s) > rcond * plain(s)[0])) if min(rows, columns) else 0
    y = ns.linalg.pinv(a, rtol=rcond) @ b
    if rank == columns < rows:
        left = b - a @ y
        square = ns.real(left) ** 2 + ns.imag(left) ** 2 if ns.is_complex(left) else left * left
        residuals = ns.reshape(ns.sum(square, axis=0), (-1,))
    else:
        residuals = ns.xp.zeros((0,), dtype=ns.xp.real(plain(y)).dtype)
    return y, residuals, rank, s


def qr(ns: Any, x: Any, mode: str = "reduced") -> Any:
    """Q and R, or for mode="r" R alone."""
    if mode == "raw":
        raise no_rule("np.linalg.qr with mode='raw'")
    return ns.linalg.qr(x)[1] if mode == "r" else ns.linalg.qr(x, mode=mode)


def _one_half(name: str) -> Callable[..., Any]:
    """`eigh` and `eigvalsh`, which read one triangle of a Hermitian matrix."""

    def function(ns: Any, x: Any, UPLO: str = "L") -> Any:  # noqa: N803, RUF100
        if UPLO.upper() not in ("L", "U"):
            raise ValueError(f"UPLO is 'L' or 'U', not {UPLO!r}")
        return getattr(ns.linalg, name)(x if UPLO.upper() == "L" else ns.adjoint(x))

    return function


def cross(ns: Any, a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    """`np.cross` of vectors of three entries."""
    a, b = as_array(ns, a), as_array(ns, b)
    if axis is not None:
        axisa = axisb = axisc = axis
    if not {a.shape[axisa], b.shape[axisb]} <= {2, 3}:
        raise ShapeError(f"np.cross of vectors of {a.shape[axisa]} and {b.shape[axisb]} entries")
    if a.shape[axisa] != 3 or b.shape[axisb] != 3:
        raise no_rule("np.cross of vectors of two entries")
    a, b = ns.broadcast_arrays(ns.moveaxis(a, axisa, -1), ns.moveaxis(b, axisb, -1))
    return ns.moveaxis(ns.linalg.cross(a, b), -1, axisc)


def multi_dot(ns: Any, arrays: Any, **_: Any) -> Any:
    """The product of several matrices, the cheapest pair first; the first and the last may be vectors."""
    arrays = list(arrays)
    if len(arrays) < 2:
        raise ValueError("np.linalg.multi_dot needs two arrays at least")
    shapes = [tuple(a.shape) for a in arrays]
    fit = all(left[-1:] == right[-2:][:1] for left, right in itertools.pairwise(shapes))
    if (
        not fit
        or (len(shapes) > 2 and any(len(s) not in (1, 2) for s in shapes))
        or any(len(s) != 2 for s in shapes[1:-1])
    ):
        raise ShapeError(f"np.linalg.multi_dot of arrays of shapes {shapes}")
    if len(arrays) < 3:
        return functools.reduce(ns.matmul, arrays)
    labels = [[k, k + 1] for k in range(len(arrays))]
    for k, label in ((0, 0), (-1, len(arrays))):
        if len(arrays[k].shape) == 1:
            labels[k].remove(label)
    ends = [label for k, label in ((0, 0), (-1, len(arrays))) if label in labels[k]]
    return ns.einsum(*(v for pair in zip(arrays, labels, strict=True) for v in pair), ends)


OWN: dict[str, Callable[..., Any]] = {
    "cond": cond,
    "eigh": _one_half("eigh"),
    "eigvalsh": _one_half("eigvalsh"),
    "lstsq": lstsq,
    "multi_dot": multi_dot,
    "norm": norm,
    "pinv": pinv,
    "qr": qr,
    "svd": svd,
    "tensorinv": tensorinv,
    "tensorsolve": tensorsolve,
}
