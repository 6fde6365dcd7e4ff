"""Functions of `linalg` that are composed of others; see `composed.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._errors import NoDerivativeError
from .core import Primitive


def trace(ns: Any, x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of a diagonal."""
    return ns.sum(diagonal(ns, x, offset=offset), axis=-1, dtype=dtype)


def diagonal(ns: Any, x: Any, *, offset: int = 0) -> Any:
    """The entries of a diagonal."""
    rows, columns = x.shape[-2:]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = offset if offset >= 0 else -offset * columns
    flat = ns.reshape(x, (*x.shape[:-2], rows * columns))
    return flat[..., start : start + (n - 1) * (columns + 1) + 1 : columns + 1] if n else flat[..., :0]


def outer(ns: Any, a: Any, b: Any) -> Any:
    """A bᵀ."""
    return ns.expand_dims(a, axis=1) * ns.expand_dims(b, axis=0)


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
        square = ns.real(x) ** 2 + ns.imag(x) ** 2 if ns.is_complex(x) else x * x
        square = ns.sum(square, axis=axis, keepdims=keepdims)
        zero = square == 0
        root = ns.sqrt(ns.where(zero, ns.ones_like(square), square))
        return ns.where(zero, ns.zeros_like(square), root)
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
        return ns.zeros_like(x) + ns.eye(x.shape[-1], dtype=x.dtype, device=ns.device(x))
    half = matrix_power(ns, x, n // 2) if n > 1 else None
    if half is None:
        return x
    return half @ half @ x if n % 2 else half @ half


def _solve(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def solve(a: Any, b: Any) -> Any:
        return primitive(a, root.expand_dims(b, axis=1))[..., 0] if len(b.shape) == 1 else primitive(a, b)

    return solve


def _cholesky(root: Any, primitive: Primitive) -> Callable[..., Any]:
    def cholesky(x: Any, *, upper: bool = False) -> Any:
        lower = primitive(x)
        return root.adjoint(lower) if upper else lower

    return cholesky


LINALG_AROUND = {"solve": _solve, "cholesky": _cholesky}
LINALG: dict[str, Callable[..., Any]] = {
    "cross": cross,
    "diagonal": diagonal,
    "eigvalsh": lambda ns, x: ns.linalg.eigh(x)[0],
    "matrix_norm": matrix_norm,
    "matrix_power": matrix_power,
    "outer": outer,
    "trace": trace,
    "vector_norm": vector_norm,
}
