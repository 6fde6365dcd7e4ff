"""Positive matrices with given row and column sums: scaling to them (Sinkhorn), and their tangent spaces.

For x > 0 with row sums r and column sums c, the pairs (α, β) with given sums of (αᵢ + βⱼ) xᵢⱼ over rows and columns,

    r α + x β = a,    xᵀα + c β = b,    Σa = Σb,

are one up to (α + t, β - t). Eliminating α leaves S β = b - xᵀ(a/r) with S = diag(c) - xᵀ diag(1/r) x, the Laplacian of
a graph: its off-diagonal entries are sums of positive numbers, and its diagonal is taken as minus their sum, not by
the subtraction, so that no digits are lost however badly x is scaled. Its null vector 1 is completed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import eye_like, fit

Array = Any

#: sweeps of Sinkhorn's iteration at least, and steps of either iteration at most
_SWEEPS, _STEPS = 4, 200


def potentials(x: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """α, β with (αᵢ + βⱼ) xᵢⱼ summing to `a` over rows and to `b` over columns; x : (..., n, m), Σa = Σb."""
    if x.shape[-2] < x.shape[-1]:
        beta, alpha = potentials(x.mT, b, a)
        return alpha, beta
    r = namespace(x).sum(x, axis=-1)
    k = x / r[..., None]
    beta = _laplacian_solve(x, k, b - _apply(x.mT, a / r))
    return a / r - _apply(k, beta), beta


def balance(x: Array, w: Array) -> tuple[Array, Array, Array]:
    """w - α - βᵀ, α, β where x (w - α - βᵀ), entry by entry, has zero row and column sums."""
    if x.shape[-2] < x.shape[-1]:
        balanced, beta, alpha = balance(x.mT, w.mT)
        return balanced.mT, alpha, beta
    xp = namespace(x, w)
    k = x / xp.sum(x, axis=-1, keepdims=True)
    # bⱼ = Σ xᵢⱼ (wᵢⱼ - Σ kᵢₗ wᵢₗ), summed from differences wᵢⱼ - wᵢₗ: no digits are lost where one entry rules its row
    flow = (x * w).mT @ k
    beta = _laplacian_solve(x, k, xp.sum(flow - flow.mT, axis=-1))
    rest = w - beta[..., None, :]
    alpha = xp.sum(k * rest, axis=-1, keepdims=True)
    return rest - alpha, alpha[..., 0], beta


def scaled(logits: Array, p: Array, q: Array) -> Array:
    """exp(logits + f + gᵀ), with f, g such that the row sums are p and the column sums q Σp/Σq.

    logits : (..., n, m), p : (..., n), q : (..., m). Differentiable in all three to any order, by the implicit
    function theorem: the differential in `logits` is u ↦ x balance(x, u).
    """
    xp = namespace(logits, p, q)
    q = q * (xp.sum(p, axis=-1, keepdims=True) / xp.sum(q, axis=-1, keepdims=True))
    if logits.shape[-2] < logits.shape[-1]:
        return scaled(logits.mT, q, p).mT
    if p.ndim > 1 or q.ndim > 1:
        logits = fit(logits, p[..., :, None] + q[..., None, :])
    p, q = p + 0.0 * logits[..., 0], q + 0.0 * logits[..., 0, :]
    return _scaling(backend_of(logits, p, q))(logits, p, q)


@cache
def _scaling(backend: Any) -> Callable[..., Array]:
    """`scaled` for arguments of one batch shape, n ≥ m, Σp = Σq, with its derivative."""

    def function(logits: Array, p: Array, q: Array) -> Array:
        return _iterate(backend, logits, p, q)

    def pushforward(primals: tuple, x: Array, tangents: tuple) -> Array:
        d_logits, d_p, d_q = tangents
        moved = None if d_logits is None else balance(x, d_logits)[0]
        if d_p is not None or d_q is not None:
            d_p = 0.0 * primals[1] if d_p is None else d_p
            d_q = 0.0 * primals[2] if d_q is None else d_q
            alpha, beta = potentials(x, d_p, d_q)
            part = alpha[..., :, None] + beta[..., None, :]
            moved = part if moved is None else moved + part
        return 0.0 * x if moved is None else x * moved

    def pullback(primals: tuple, x: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        balanced, alpha, beta = balance(x, cotangent)
        parts = (x * balanced if needs[0] else None, alpha, beta)
        return tuple(part if needed else None for part, needed in zip(parts, needs, strict=True))

    return backend.custom_derivative(function, pushforward, pullback, transposable=True)


def _iterate(backend: Any, logits: Array, p: Array, q: Array) -> Array:
    """Sweeps, as long as each takes off three quarters of the error; then Newton's method for the convex function

    g ↦ Σᵢ pᵢ log Σⱼ exp(logitsᵢⱼ + gⱼ) - q·g. Along a step d with r = max d - min d its third derivative is at most r
    times its second, so that a step of length log(1 + r)/r decreases it, from anywhere; near the solution the length
    tends to 1 and the convergence is quadratic.
    """
    xp = backend.xp
    eps, tiny = float(xp.finfo(logits.dtype).eps), float(xp.finfo(logits.dtype).smallest_normal)
    size = xp.maximum(xp.max(logits, axis=(-2, -1)), -xp.min(logits, axis=(-2, -1)))
    rounding = eps * (sum(logits.shape[-2:]) + 16 + size)

    def rows(x: Array) -> Array:
        return x * (p / xp.sum(x, axis=-1))[..., None]

    def evaluate(a: Array) -> Array:
        return rows(xp.exp(a - xp.max(a, axis=-1, keepdims=True)))

    def error(c: Array) -> Array:
        return xp.max(xp.abs(c / q - 1), axis=-1)

    def sweep(state: tuple[Array, ...]) -> tuple[Array, ...]:
        g, x, c, before, _ = state
        ratio = q / (c + tiny)
        x = rows(x * ratio[..., None, :])
        c = xp.sum(x, axis=-2)
        after = error(c)
        done = after <= 0.25 * rounding
        return g + xp.log(ratio), x, c, after, ~xp.all(done) & xp.all(done | (after < 0.25 * before))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        g, x, c, _ = state
        d = _laplacian_solve(x, x / p[..., None], q - c)
        r = xp.max(d, axis=-1) - xp.min(d, axis=-1)
        # after a step with r² < eps nothing is left to do; nor where rounding is all that is left of the error
        going = xp.any((r > eps**0.5) & (error(c) > rounding))
        g = g + d * _damping(xp, r)[..., None]
        x = evaluate(logits + g[..., None, :])
        return g, x, xp.sum(x, axis=-2), going

    x = evaluate(logits)
    state = (0.0 * q, x, xp.sum(x, axis=-2), rounding, xp.any(q > 0))
    for _ in range(_SWEEPS):
        state = sweep(state)
    g, x, c, left, _ = backend.while_loop(lambda state: state[4], sweep, state, max_steps=_STEPS)
    start = (g, x, c, xp.any(left > rounding))
    return backend.while_loop(lambda state: state[3], step, start, max_steps=_STEPS)[1]


def _damping(xp: Any, r: Array) -> Array:
    """log(1 + r)/r."""
    positive = r > 0
    safe = xp.where(positive, r, xp.ones_like(r))
    return xp.where(positive, xp.log1p(safe) / safe, xp.ones_like(r))


def _laplacian_solve(x: Array, k: Array, b: Array) -> Array:
    """The β with S β = b and d·β = 0; k = diag(1/r) x and d the diagonal of S. Σb = 0."""
    if b.shape[-1] == 1:
        return 0.0 * b
    xp = namespace(x, b)
    info, eye = xp.finfo(x.dtype), eye_like(x, x.shape[-1])
    off = (x.mT @ k) * (1 - eye)
    # a column that shares no row with another, to rounding, gets a number that can be divided by
    d = xp.sum(off, axis=-1) + float(info.smallest_normal) ** 0.75
    root = xp.sqrt(d)
    # unit diagonal; √d spans the null space, and is given the eigenvalue 1. Where x falls apart into blocks
    # the matrix is singular to rounding: the last term lets it be solved still
    weights = root[..., :, None] * root[..., None, :]
    matrix = (weights / xp.sum(d, axis=-1)[..., None, None] - off / weights) + (1 + 4 * float(info.eps)) * eye
    return xp.linalg.solve(matrix, (b / root)[..., None])[..., 0] / root


def _apply(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]
