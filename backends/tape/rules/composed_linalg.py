"""Functions of `linalg` that are composed of others; see `composed.py`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..array import Traced, substituted
from ..core import MultiPrimitive, Primitive
from .composed import one_axis
from .determinant import det
from .inverses import Inverse, plain
from .spectral import tolerance


def trace(ns: Any, x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of a diagonal."""
    return ns.sum(diagonal(ns, x, offset=offset), axis=-1, dtype=dtype)


def diagonal(ns: Any, x: Any, *, offset: int = 0) -> Any:
    """The entries of a diagonal."""
    if len(x.shape) < 2:
        raise ShapeError(f"the diagonal of matrices; this array has shape {x.shape}")
    offset, (rows, columns) = operator.index(offset), x.shape[-2:]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = offset if offset >= 0 else -offset * columns
    flat = ns.reshape(x, (*x.shape[:-2], rows * columns))
    return flat[..., start : start + (n - 1) * (columns + 1) + 1 : columns + 1] if n else flat[..., :0]


def outer(ns: Any, a: Any, b: Any) -> Any:
    """A bᵀ."""
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise ShapeError(f"outer takes vectors; these arrays have shapes {a.shape} and {b.shape}")
    return ns.expand_dims(a, axis=1) * ns.expand_dims(b, axis=0)


def cross(ns: Any, a: Any, b: Any, *, axis: int = -1) -> Any:
    """The vector product."""
    if any(v.shape[one_axis(axis, len(v.shape))] != 3 for v in (a, b)):
        raise ShapeError(f"cross takes vectors of 3 entries along axis {axis}; the shapes are {a.shape} and {b.shape}")
    if axis != -1:
        return ns.moveaxis(cross(ns, *(ns.moveaxis(v, axis, -1) for v in (a, b))), -1, axis)
    i, j = [ns.roll(v, shift=-1, axis=-1) for v in (a, b)]
    return ns.roll(a * j - i * b, shift=-1, axis=-1)


def vector_norm(ns: Any, x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The p-norm for p other than 2; where it has no derivative, at entries that are 0, that is taken as 0."""
    if not isinstance(ord, (int, float)) or math.isnan(ord):
        raise ShapeError(f"no norm of vectors is called {ord!r}")
    size, how = ns.abs(x), {"axis": axis, "keepdims": keepdims}
    if ord == math.inf:
        return ns.max(size, **how)
    if ord == -math.inf:
        return ns.min(size, **how)
    if ord == 1:
        return ns.sum(size, **how)
    zero = plain(size) == 0
    if ord == 0:
        return ns.sum(ns.astype(ns.logical_not(zero), plain(size).dtype), **how)
    powers = ns.where(zero, ns.ones_like(size), size) ** ord
    total = ns.sum(ns.where(zero, ns.zeros_like(size), powers), **how)
    nothing = ns.xp.any(zero, **how) if ord < 0 else plain(total) == 0
    return ns.where(nothing, ns.zeros_like(total), ns.where(nothing, ns.ones_like(total), total) ** (1 / ord))


def matrix_norm(ns: Any, x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """A norm of entries ("fro"), of sums of rows or columns (±1, ±inf), or of singular values (±2, "nuc")."""
    if ord in ("fro", None):
        return ns.linalg.vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    axis = {1: -2, -1: -2, math.inf: -1, -math.inf: -1}.get(ord)
    if 0 in x.shape[-2:] or (axis is None and ord not in _CHOSEN):  # a constant, or refused
        return ns.xp.linalg.matrix_norm(plain(x), keepdims=keepdims, ord=ord)
    if axis is None:
        value = _norm_of_singular_values(ns, x, _CHOSEN[ord])
        return ns.reshape(value, (*value.shape, 1, 1)) if keepdims else value
    pick = ns.max if ord > 0 else ns.min
    return pick(ns.sum(ns.abs(x), axis=axis, keepdims=True), axis=(-2, -1), keepdims=keepdims)


def _norm_of_singular_values(ns: Any, x: Any, chosen: Callable[..., Any]) -> Any:
    """The sum, or the mean over a repeated one, of the chosen singular values.

    The spaces of the chosen values are not looked into. Zero singular values have the derivative 0, as |x| has at 0.
    """
    _, s, _ = ns.linalg.svd(x, full_matrices=False, cluster=chosen)
    xp, value = ns.xp, plain(s)
    picked = xp.astype(chosen(xp, value, tolerance(xp, value, max(x.shape[-2:]))), value.dtype)
    if chosen is not _nonzero:
        count = xp.sum(picked, axis=-1, keepdims=True)
        picked = picked / xp.where(count == 0, xp.ones_like(count), count)
    return ns.sum(s * picked, axis=-1)


def _nonzero(xp: Any, s: Any, equal: Any) -> Any:
    return s > equal


def _largest(xp: Any, s: Any, equal: Any) -> Any:
    return (s >= s[..., :1] - equal) & (s > equal)


def _smallest(xp: Any, s: Any, equal: Any) -> Any:
    return (s <= s[..., -1:] + equal) & (s > equal)


_CHOSEN: dict[Any, Callable[..., Any]] = {"nuc": _nonzero, 2: _largest, -2: _smallest}


def svdvals(ns: Any, x: Any) -> Any:
    """The singular values; where one is repeated, symmetric functions of them have a derivative (`spectral.py`)."""
    return ns.linalg.svd(x, full_matrices=False)[1]


def _pinv_above(ns: Any, x: Any, kept: Any) -> Any:
    """V M (M L M + I - M)⁻¹ M Uᴴ, L = Uᴴ X V, M the projector on the singular values that are kept.

    For a tolerance that drops singular values which are not zero: no function of the pseudoinverse alone.
    """
    u, s, vh = ns.linalg.svd(x, full_matrices=False, cluster=lambda *_: kept)
    v, uh = ns.adjoint(vh), ns.adjoint(u)
    xp, of_s = ns.xp, plain(s)
    keep = xp.astype(kept, of_s.dtype)
    rows, columns = keep[..., :, None], keep[..., None, :]
    eye = xp.eye(of_s.shape[-1], dtype=of_s.dtype, device=ns.device(of_s))
    middle = ns.linalg.inv(rows * (uh @ x @ v) * columns + eye * (1 - rows))
    return v @ (rows * middle * columns) @ uh


def matrix_power(ns: Any, x: Any, n: int) -> Any:
    """Xⁿ by squaring."""
    n = operator.index(n)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power takes square matrices; these have shape {x.shape}")
    if n < 0:
        return matrix_power(ns, ns.linalg.inv(x), -n)
    if n == 0:
        return ns.zeros_like(x) + ns.eye(x.shape[-1], dtype=x.dtype, device=ns.device(x))
    half = matrix_power(ns, x, n // 2) if n > 1 else None
    if half is None:
        return x
    return half @ half @ x if n % 2 else half @ half


# -- around primitives: what a rule does not say -----------------------------------------------------
def _solve(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def solve(a: Any, b: Any) -> Any:
        if len(b.shape) == 1:
            return primitive(a, root.expand_dims(b, axis=1), shared=Inverse())[..., 0]
        return primitive(a, b, shared=Inverse())

    return solve


def _cholesky(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def cholesky(x: Any, *, upper: bool = False) -> Any:
        lower = primitive(x, shared=Inverse())
        return root.adjoint(lower) if upper else lower

    return cholesky


def _is_traced(root: Any, x: Any) -> bool:
    return isinstance(x, Traced) and root.backend.is_inexact(x)


def _det(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def call(x: Any) -> Any:
        x = substituted(x)
        return det(root, primitive, x) if _is_traced(root, x) and x.shape else primitive(x)

    return call


def _with_inverse(root: Any, primitive: MultiPrimitive) -> Callable[..., Any]:
    return lambda x: primitive(x, shared=Inverse())


def _qr(root: Any, primitive: MultiPrimitive) -> Callable[..., Any]:
    """Of a wide matrix (X₁, X₂) with X₁ square: Q R₁ = X₁, R₂ = Qᴴ X₂; X₁ must be regular."""

    def qr(x: Any, *, mode: str = "reduced") -> Any:
        rows, columns = x.shape[-2:] if len(x.shape) > 1 else (0, 0)
        if columns <= rows or not _is_traced(root, x):
            return primitive(x, mode=mode, shared=Inverse())
        pair = primitive(x[..., :, :rows], mode=mode, shared=Inverse())
        q, r = pair
        return type(pair)(q, root.concat([r, root.adjoint(q) @ x[..., :, rows:]], axis=-1))

    return qr


def _pinv(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def pinv(x: Any, *, rtol: Any = None) -> Any:
        x = substituted(x)
        if rtol is not None and _is_traced(root, x) and math.prod(x.shape):
            xp, s = root.xp, root.xp.linalg.svdvals(plain(x))
            level = root.backend.asarray(plain(rtol), like=s)[..., None] * s[..., :1]
            kept, zero = s > level, s <= tolerance(xp, s, max(x.shape[-2:]))
            if not bool(xp.all(kept | zero)):
                return _pinv_above(root, x, kept)
        return primitive(x, rtol=plain(rtol))

    return pinv


def _vector_norm(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
        ord = 2 if ord is None else ord
        if ord == 2 or not _is_traced(root, x):
            return primitive(x, axis=axis, keepdims=keepdims, ord=ord)
        return vector_norm(root, x, axis=axis, keepdims=keepdims, ord=ord)

    return norm


LINALG_AROUND: dict[str, Callable[..., Any]] = {
    "cholesky": _cholesky,
    "det": _det,
    "eig": _with_inverse,
    "pinv": _pinv,
    "qr": _qr,
    "slogdet": _with_inverse,
    "solve": _solve,
    "vector_norm": _vector_norm,
}
LINALG: dict[str, Callable[..., Any]] = {
    "cross": cross,
    "diagonal": diagonal,
    "eigvals": lambda ns, x: ns.linalg.eig(x)[0],
    "eigvalsh": lambda ns, x: ns.linalg.eigh(x)[0],
    "matrix_norm": matrix_norm,
    "matrix_power": matrix_power,
    "outer": outer,
    "svdvals": svdvals,
    "trace": trace,
}
