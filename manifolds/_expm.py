"""The exponential of any square matrix, with derivatives of every order."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil, factorial, isfinite, log2, prod
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import eye_like, mT

Array = Any

#: Scaled to this 1-norm, the series up to the 15th power is exact to 2^-16/16! = 7e-19.
_SCALED = 0.5
_SERIES = [1.0 / factorial(k) for k in range(16)]
#: As many numbers at a time stay in the processor's cache, with what is computed on the way.
_BLOCK = 16384
_MAX_SQUARINGS = 1100


def expm(a: Array) -> Array:
    """e^a for matrices `(..., n, n)`, real or complex, by scaling and squaring of the Taylor series.

    Higham 2008, ch. 10. The derivative in the direction e is the upper right block of exp [[a, e], [0, a]]
    (Najfeld & Havel 1995, eq. 17), and so on to every order; nothing is differentiated through the squarings.
    """
    backend = backend_of(a)
    if not backend.is_constant(a):
        return _rule(backend)(a)
    n = a.shape[-1]
    if prod(a.shape) <= 2 * _BLOCK or n * n > _BLOCK or str(backend.device(a)) != "cpu":
        return _scale_and_square(backend, a)
    xp, count = namespace(a), _BLOCK // (n * n)
    flat = xp.reshape(a, (-1, n, n))
    blocks = [_scale_and_square(backend, flat[k : k + count, ...]) for k in range(0, flat.shape[0], count)]
    return xp.reshape(xp.concat(blocks, axis=0), a.shape)


@cache
def _rule(backend: Any) -> Callable[[Array], Array]:
    def function(a: Array) -> Array:
        return _scale_and_square(backend, a)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        return _frechet(backend, primals[0], tangents[0])

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        return (_frechet(backend, mT(primals[0]), cotangent),)

    return backend.custom_derivative(function, pushforward, pullback)


def _frechet(backend: Any, a: Array, e: Array) -> Array:
    """The derivative of the exponential at `a`, in the direction `e`."""
    xp, n = namespace(a, e), a.shape[-1]
    a, e = xp.broadcast_arrays(a, e)
    top, bottom = xp.concat([a, e], axis=-1), xp.concat([xp.zeros_like(a), a], axis=-1)
    return _rule(backend)(xp.concat([top, bottom], axis=-2))[..., :n, n:]


def _scale_and_square(backend: Any, a: Array) -> Array:
    xp = namespace(a)
    if 0 in a.shape:
        return a
    norm = xp.max(xp.sum(xp.abs(a), axis=-2), axis=-1)
    if backend.is_constant(norm):
        # numbers of Python, where one suffices
        largest = float(xp.max(norm))
        if largest <= _SCALED:
            return _series(a)
        if prod(norm.shape) == 1 and isfinite(largest):
            halvings = ceil(log2(largest / _SCALED))
            result = _series(a * 0.5**halvings)
            for _ in range(halvings):
                result = result @ result
            return result
    finite = xp.isfinite(norm) & (norm > _SCALED)
    halvings = xp.ceil(xp.log2(xp.where(finite, norm, xp.ones_like(norm)) / _SCALED))
    count = xp.where(finite, halvings, xp.zeros_like(norm))
    result = _series(a * (0.5**count)[..., None, None])
    if backend.is_eager(count):
        most, least = int(xp.max(count)), int(xp.min(count))
        for k in range(most):
            squared = result @ result
            result = squared if k < least else xp.where((k < count)[..., None, None], squared, result)
        return result

    def body(state: tuple) -> tuple:
        k, r = state
        return k + 1, xp.where((k < count)[..., None, None], r @ r, r)

    start = xp.zeros_like(xp.max(count))
    return backend.while_loop(lambda state: xp.any(state[0] < count), body, (start, result), max_steps=_MAX_SQUARINGS)[
        1
    ]


def _series(a: Array) -> Array:
    """Σ aᵏ/k!, k ≤ 15, by six products (Paterson & Stockmeyer 1973)."""
    eye = eye_like(a, a.shape[-1])
    a2 = a @ a
    a3 = a2 @ a
    a4 = a2 @ a2
    result = None
    for c0, c1, c2, c3 in (_SERIES[k : k + 4] for k in (12, 8, 4, 0)):
        part = c0 * eye + c1 * a + c2 * a2 + c3 * a3
        result = part if result is None else part + result @ a4
    return result
