"""The Lyapunov equation m s + s mᴴ = c, with derivatives of every order: each is such an equation again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import eye_like, mT, sym

Array = Any
#: s from a backend, `m` and `c`: plain arrays
Solver = Callable[[Any, Array, Array], Array]

_MAX_STEPS = 60


def lyapunov(m: Array, c: Array) -> Array:
    """The s with m s + s mᴴ = c, for `m` whose eigenvalues have positive real parts; NaN for other `m`.

    m, c : (..., p, p), broadcast. By Newton's iteration for the sign of [[m, -c], [0, -mᴴ]]: some eight inverses.
    Roberts 1980; Higham 2008, §5.3.
    """
    return _solve(_sign_iteration, m, c)


def definite_lyapunov(m: Array, c: Array) -> Array:
    """The s with m s + s m = c, for positive definite `m`: by its eigenvectors."""
    return _solve(_eigenvectors, m, c)


def _solve(solver: Solver, m: Array, c: Array) -> Array:
    m, c = namespace(m, c).broadcast_arrays(m, c)
    return _rule(backend_of(m, c), solver)(m, c)


@cache
def _rule(backend: Any, solver: Solver) -> Callable[[Array, Array], Array]:
    def function(m: Array, c: Array) -> Array:
        return solver(backend, m, c)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        (m, _), (moved_m, moved_c) = primals, tangents
        right = 0.0 * out if moved_c is None else moved_c
        if moved_m is not None:
            right = right - moved_m @ out - out @ mT(moved_m)
        return _rule(backend, solver)(m, right)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        s = _rule(backend, solver)(mT(primals[0]), cotangent)
        return (-(s @ mT(out) + mT(s) @ out) if needs[0] else None, s if needs[1] else None)

    return backend.custom_derivative(function, pushforward, pullback)


def _eigenvectors(backend: Any, m: Array, c: Array) -> Array:
    values, vectors = namespace(m).linalg.eigh(sym(m))
    adjoint = mT(vectors)
    return vectors @ ((adjoint @ c @ vectors) / (values[..., :, None] + values[..., None, :])) @ adjoint


def _sign_iteration(backend: Any, m: Array, c: Array) -> Array:
    if 0 in m.shape:
        return c
    xp, eye = namespace(m), eye_like(m, m.shape[-1])
    eye = xp.broadcast_to(eye, m.shape)
    # a step doubles the digits: the one that starts from here is the last
    near = 0.1 * float(xp.finfo(m.dtype).eps) ** 0.5

    def gap(m: Array) -> Array:
        return xp.max(xp.abs(m - eye), axis=(-2, -1))

    def step(state: tuple) -> tuple:
        m, c, todo = state
        inverse, off = backend.solve_or_nan(m, eye), gap(m)
        ratio = xp.max(xp.abs(inverse), axis=(-2, -1)) / xp.max(xp.abs(m), axis=(-2, -1))
        # scaled to equal sizes, but not near the end, where that would be in the way
        scale = xp.where(off > 0.5, xp.sqrt(ratio), xp.ones_like(off))[..., None, None]
        moved = 0.5 * (scale * m + inverse / scale)
        changed = 0.5 * (scale * c + inverse @ c @ mT(inverse) / scale)
        open_ = todo[..., None, None]
        return xp.where(open_, moved, m), xp.where(open_, changed, c), todo & (off > near)

    def unfinished(state: tuple) -> Array:
        return xp.any(state[2])

    off = gap(m)
    m, c, _ = backend.while_loop(unfinished, step, (m, c, off == off), max_steps=_MAX_STEPS)
    return xp.where((gap(m) <= 1e-3)[..., None, None], 0.5 * c, float("nan") * xp.ones_like(c))
