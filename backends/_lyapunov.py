"""A symmetric form found out by asking it, for frameworks that keep no record to read.

In coordinates in which the metric is the dot product, many Hessians on positive definite matrices are t ↦ sym(t K) with
one symmetric K (the operator of a Lyapunov equation). Then K is the image of the identity, and one more product tells
whether it is so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Array = Any


Apply = Callable[[Array], Array]


def lyapunov_form(xp: Any, linear: Apply, factor: Array, device: Any) -> tuple[Array, Apply, Apply]:
    """`holds, short, long`: long(t) = sym(lᵀ linear(l t lᵀ) l), l = `factor`; short(t) = sym(t K).

    `holds` says whether the two are the same for symmetric t: to rounding, 30 n eps, on a matrix without structure.
    Costs two applications of `linear`.
    """
    n, l = factor.shape[-1], factor
    eps = float(xp.finfo(factor.dtype).eps)

    def long(t: Array) -> Array:
        value = l.mT @ linear(l @ t @ l.mT) @ l
        return 0.5 * (value + value.mT)

    half = 0.5 * long(xp.eye(n, dtype=factor.dtype, device=device))

    def short(t: Array) -> Array:
        product = t @ half
        return product + product.mT

    ramp = xp.arange(1, n + 1, dtype=factor.dtype, device=device)
    probe = xp.cos(ramp[:, None] * ramp[None, :])
    expected = long(probe)
    error, size = xp.max(xp.abs(short(probe) - expected)), xp.max(xp.abs(expected))
    return error <= 30 * n * eps * size, short, long
