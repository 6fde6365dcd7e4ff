"""Three small pieces of linear algebra that the ready-made problems share."""

from __future__ import annotations

from typing import Any

from ...backends import backend_of

Array = Any


def identity(size: int, *, like: Array) -> Array:
    """The identity matrix (size, size) with the dtype and device of `like`."""
    backend = backend_of(like)
    return backend.xp.eye(size, dtype=like.dtype, device=backend.device(like))


def symmetric(a: Array) -> Array:
    """½ (a + aᵀ), a : (..., n, n)."""
    return (a + a.mT) / 2


def apply(a: Array, v: Array) -> Array:
    """The matrix-vector product a v over leading axes; a : (..., m, n), v : (..., n)."""
    return (a @ v[..., None])[..., 0]
