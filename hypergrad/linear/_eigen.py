"""Eigenvalues of small symmetric matrices, where a failure is data."""

from __future__ import annotations

from typing import Any

Array = Any


def eigh_or_nan(xp: Any, a: Array) -> tuple[Array, Array]:
    """Ascending eigenvalues and eigenvectors of the symmetric part; the values are NaN where `a` is not finite."""
    finite = xp.all(xp.isfinite(a), axis=(-2, -1))
    a = xp.where(finite[..., None, None], a, xp.zeros_like(a))
    values, vectors = xp.linalg.eigh(0.5 * (a + a.mT))
    return xp.where(finite[..., None], values, xp.full_like(values, float("nan"))), vectors
