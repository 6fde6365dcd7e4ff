"""Small linear algebra that the array API standard leaves out; everything over leading (batch) axes."""

from __future__ import annotations

from functools import cache
from math import isfinite, prod
from typing import Any

from ..backends import backend_of, namespace

Array = Any


def mT(a: Array) -> Array:
    """The conjugate transpose of the last two axes: aᵀ for real, aᴴ for complex `a`."""
    return namespace(a).conj(a.mT) if is_complex(a.dtype) else a.mT


def sym(a: Array) -> Array:
    """(a + aᵀ)/2, exactly symmetric (Hermitian for complex `a`); shape `(..., n, n)`."""
    return 0.5 * (a + mT(a))


def dot(a: Array, b: Array, ndim: int, *, keepdims: bool = False) -> Array:
    """Re⟨conj(a), b⟩ over the last `ndim` axes: the real inner product of the ambient space."""
    if ndim and type(a) is type(b):
        found = backend_of(a).dots(a, b, ndim, keepdims)
        if found is not None:
            return found
    product = a * b
    if is_complex(product.dtype):
        xp = namespace(product)
        product = xp.real(xp.conj(a) * b if is_complex(a.dtype) else product)
    if ndim == 0:
        return product
    return namespace(product).sum(product, axis=trailing(ndim), keepdims=keepdims)


@cache
def trailing(ndim: int) -> tuple[int, ...]:
    """(-ndim, …, -1)."""
    return tuple(range(-ndim, 0))


def is_complex(dtype: Any) -> bool:
    """Whether `dtype` is a complex one; cheap, for it is asked in every inner product."""
    return _is_complex(type(dtype), dtype)


@cache
def _is_complex(kind: type, dtype: Any) -> bool:
    # `kind` comes first in the key: dtypes of two libraries must not be compared
    return "complex" in str(dtype)


def fit(a: Array, x: Array) -> Array:
    """`a`, broadcast over the leading axes of `x` where it has fewer."""
    return a if a.shape == x.shape else a + namespace(x).zeros_like(x)


def eye_like(a: Array, n: int) -> Array:
    """The n × n identity with the dtype and device of `a`."""
    return namespace(a).eye(n, dtype=a.dtype, device=backend_of(a).device(a))


def qr_unique(a: Array) -> Array:
    """The Q of a = QR with R's diagonal positive: smooth, and the same on every backend.

    a : (..., n, p) of full rank, n ≥ p.
    """
    xp = namespace(a)
    q, r = xp.linalg.qr(a)
    diagonal = xp.linalg.diagonal(r)
    if is_complex(a.dtype):
        size = xp.abs(diagonal)
        return q * (diagonal / size)[..., None, :]
    ones = xp.ones_like(diagonal)
    return q * xp.where(diagonal < 0, -ones, ones)[..., None, :]


def along(a: Array, b: Array, axis: int) -> Array:
    """Re⟨conj(a), b⟩ along one axis, -1 or -2, which is kept with size 1."""
    if axis == -1:
        return dot(a, b, 1, keepdims=True)
    if type(a) is type(b):
        found = backend_of(a).dots(a.mT, b.mT, 1, False)
        if found is not None:
            return found[..., None, :]
    product = dot(a, b, 0)
    return namespace(product).sum(product, axis=axis, keepdims=True)


def row_sum(a: Array) -> Array:
    """The sum over the last axis of a real array, which is kept with size 1."""
    found = backend_of(a).dots(a, None, 1, True)
    return namespace(a).sum(a, axis=-1, keepdims=True) if found is None else found


def batch_full(x: Array, ndim: int, value: float) -> Array:
    """`value` as a real array of batch shape, for points `x` that have `ndim` axes of their own."""
    first = x[(..., *(0,) * ndim)] if ndim else x
    xp = namespace(first)
    return xp.full_like(xp.real(first) if is_complex(first.dtype) else first, value)


def real_diagonal(a: Array) -> Array:
    """The real part of the diagonal of matrices: `(..., n)`."""
    xp = namespace(a)
    diagonal = xp.linalg.diagonal(a)
    return xp.real(diagonal) if is_complex(a.dtype) else diagonal


def with_diagonal(a: Array, d: Array) -> Array:
    """Square matrices `a` with the diagonal `d`, which may be real where `a` is complex."""
    found = backend_of(a).with_diagonal(a, d) if type(a) is type(d) else None
    if found is not None:
        return found
    xp = namespace(a, d)
    return xp.where(eye_like(a, a.shape[-1]) != 0, xp.astype(d, a.dtype)[..., None], a)


def few(a: Array, limit: int) -> bool:
    """Whether `a` is a constant of at most `limit` numbers, all finite (decompositions raise where they are not)."""
    return prod(a.shape) <= limit and backend_of(a).is_constant(a) and isfinite(float(dot(a, a, a.ndim)))
