"""Cosine and sine of the root of a matrix, with derivatives of every order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import factorial
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import eye_like, few, mT

Array = Any

#: Taylor coefficients of (1 - cos √a)/a and sin √a/√a; at a 1-norm of 1 the first omitted terms are below 1e-18.
_VERSINE = [(-1.0) ** k / factorial(2 * k + 2) for k in range(9)]
_SINC = [(-1.0) ** k / factorial(2 * k + 1) for k in range(10)]
_MAX_DOUBLINGS = 600
#: Up to so many entries, a decomposition takes less time than the calls for the series.
_SMALL = 256
#: Added to a square that is divided by the root of.
_TINY = 1e-36


def cos_sinc(a: Array) -> tuple[Array, Array]:
    """`cos √a, sin √a/√a` for square matrices `(..., n, n)`: both are entire functions of `a`, no root is taken.

    By Taylor series and doubling: 1 - cos 2θ = 4(1 - cos θ) - 2(1 - cos θ)², sin 2θ/2θ = cos θ sin θ/θ (Higham 2008,
    §12.4). The derivative in the direction e is the upper right block of the functions of [[a, e], [0, a]].
    """
    backend = backend_of(a)
    return _double(backend, a) if backend.is_constant(a) else _rule(backend)(a)


def cos_sinc_definite(a: Array) -> tuple[Array, Array]:
    """`cos_sinc` of symmetric a ≥ 0; few small constants go by eigenvectors, for that takes fewer calls."""
    if not few(a, _SMALL):
        return cos_sinc(a)
    xp = namespace(a)
    squares, vectors = xp.linalg.eigh(a)
    angles, adjoint = xp.sqrt(abs(squares) + _TINY), mT(vectors)
    cosine, sinc = xp.cos(angles), xp.sin(angles) / angles
    return (vectors * cosine[..., None, :]) @ adjoint, (vectors * sinc[..., None, :]) @ adjoint


@cache
def _rule(backend: Any) -> Callable[[Array], tuple[Array, Array]]:
    def function(a: Array) -> tuple[Array, Array]:
        return _double(backend, a)

    def pushforward(primals: tuple, out: tuple, tangents: tuple) -> tuple[Array, Array]:
        return _frechet(backend, primals[0], tangents[0])

    def pullback(primals: tuple, out: tuple, cotangent: tuple, needs: tuple[bool, ...]) -> tuple:
        adjoint = mT(primals[0])
        return (_frechet(backend, adjoint, cotangent[0])[0] + _frechet(backend, adjoint, cotangent[1])[1],)

    return backend.custom_derivative(function, pushforward, pullback)


def _frechet(backend: Any, a: Array, e: Array) -> tuple[Array, Array]:
    """The derivatives at `a` in the direction `e`, which is scaled so that it asks for no more doublings."""
    xp, n = namespace(a, e), a.shape[-1]
    a, e = xp.broadcast_arrays(a, e)
    size = _norm(backend.stop_gradient(e))[..., None, None]
    size = xp.where(size > 0, size, xp.ones_like(size))
    top, bottom = xp.concat([a, e / size], axis=-1), xp.concat([xp.zeros_like(a), a], axis=-1)
    cosine, sinc = _rule(backend)(xp.concat([top, bottom], axis=-2))
    return size * cosine[..., :n, n:], size * sinc[..., :n, n:]


def _norm(a: Array) -> Array:
    xp = namespace(a)
    return xp.max(xp.sum(xp.abs(a), axis=-2), axis=-1)


def _double(backend: Any, a: Array) -> tuple[Array, Array]:
    xp = namespace(a)
    if 0 in a.shape:
        return a, a
    norm = _norm(a)
    large = xp.isfinite(norm) & (norm > 1)
    ones = xp.ones_like(norm)
    count = xp.where(large, xp.ceil(0.5 * xp.log2(xp.where(large, norm, ones))), 0.0 * ones)
    eye = eye_like(a, a.shape[-1])
    versine, sinc = _series(a * (0.25**count)[..., None, None], eye)

    def body(state: tuple) -> tuple:
        k, v, s = state
        more = (k < count)[..., None, None]
        return k + 1, xp.where(more, 4 * v - 2 * (v @ v), v), xp.where(more, s - s @ v, s)

    state = (xp.zeros_like(xp.max(count)), versine, sinc)
    if backend.is_eager(count):
        for _ in range(int(xp.max(count))):
            state = body(state)
    else:
        state = backend.while_loop(lambda s: xp.any(s[0] < count), body, state, max_steps=_MAX_DOUBLINGS)
    return eye - state[1], state[2]


def _series(a: Array, eye: Array) -> tuple[Array, Array]:
    """`1 - cos √a, sin √a/√a` by seven products (Paterson & Stockmeyer 1973)."""
    a2 = a @ a
    a3 = a2 @ a

    def part(c: list[float]) -> Array:
        return c[0] * eye + c[1] * a + c[2] * a2

    versine = part(_VERSINE[:3]) + a3 @ (part(_VERSINE[3:6]) + a3 @ part(_VERSINE[6:9]))
    sinc = part(_SINC[:3]) + a3 @ (part(_SINC[3:6]) + a3 @ (part(_SINC[6:9]) + _SINC[9] * a3))
    return a @ versine, sinc
