"""The polar decomposition of square matrices, with derivatives of every order, and the angles that it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from math import comb
from typing import Any

from ..backends import backend_of, namespace
from ._divided import ScalarFunction
from ._linalg import mT, sym
from ._smooth import angle_over_sine
from ._spectral import _derivative

Array = Any


class Polar:
    """m = w h with w unitary and h Hermitian, h ≥ 0, for square `m` (..., n, n), from one singular value decomposition.

    Derivatives need h to have at most one eigenvalue 0. With X = w⁻¹ẇ, hX + Xh = wᴴṁ - ṁᴴw (Higham 2008, §8.3).
    """

    def __init__(self, m: Array):
        self._backend = backend_of(m)
        constant = self._backend.is_constant(m)
        plain = m if constant else self._backend.stop_gradient(m)
        left, self._values, right = namespace(plain).linalg.svd(plain, full_matrices=False)
        self._vectors = mT(right)
        unitary = None if constant else _unitary(self._backend)
        self.unitary = left @ right if unitary is None else unitary(m, left, self._values, self._vectors)
        self._m = m

    @cached_property
    def hermitian(self) -> Array:
        """The factor h."""
        return sym(mT(self.unitary) @ self._m)

    @cached_property
    def unique(self) -> Array:
        """1 where `m` has full rank, so that there is but one w; NaN where it has not, to rounding: `(..., 1, 1)`."""
        xp = namespace(self._values)
        least = xp.min(self._values, axis=-1, keepdims=True)[..., None]
        eps = float(xp.finfo(least.dtype).eps)
        return xp.where(least > self._values.shape[-1] * eps, xp.ones_like(least), float("nan") * xp.ones_like(least))

    def angle_over_sine(self, scale: float = 1.0) -> Array:
        """Θ/sin Θ where `scale` h = cos Θ."""
        if self._backend.is_constant(self._m):
            angles = AngleOverSine().value(namespace(self._m), scale * self._values)
            return (self._vectors * angles[..., None, :]) @ mT(self._vectors)
        function = _derivative(self._backend, AngleOverSine(), 0)
        return sym(function(scale * self.hermitian, scale * self._values, self._vectors))


@cache
def _unitary(backend: Any) -> Callable[..., Array]:
    """The factor w of `m, left, values, vectors`, all but m constants."""

    def function(m: Array, left: Array, values: Array, vectors: Array) -> Array:
        return left @ mT(vectors)

    def turned(primals: tuple, w: Array, e: Array) -> Array:
        m, _, values, vectors = primals
        b = mT(w) @ e
        return w @ _sylvester(backend)(mT(w) @ m, values, vectors, b - mT(b))

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        return turned(primals, out, tangents[0])

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        return turned(primals, out, cotangent), None, None, None

    return backend.custom_derivative(function, pushforward, pullback)


@cache
def _sylvester(backend: Any) -> Callable[..., Array]:
    """The X with hX + Xh = k for Hermitian h ≥ 0, decomposed as `values, vectors`, and any k: self-adjoint in k."""

    def function(h: Array, values: Array, vectors: Array, k: Array) -> Array:
        xp, adjoint = namespace(values), mT(vectors)
        sums = values[..., :, None] + values[..., None, :]
        positive = sums > 0
        inverse = xp.where(positive, 1 / xp.where(positive, sums, xp.ones_like(sums)), 0.0 * sums)
        return vectors @ ((adjoint @ k @ vectors) * inverse) @ adjoint

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        moved_h, _, _, right = tangents
        if moved_h is not None:
            turned = moved_h @ out + out @ moved_h
            right = -turned if right is None else right - turned
        return 0.0 * out if right is None else _sylvester(backend)(*primals[:3], right)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        pulled = _sylvester(backend)(*primals[:3], cotangent)
        adjoint = mT(out)
        return -(pulled @ adjoint + adjoint @ pulled) if needs[0] else None, None, None, pulled

    return backend.custom_derivative(function, pushforward, pullback)


def _coefficients(terms: int) -> tuple[float, ...]:
    """Of θ/sin θ in powers of (1 - cos θ) - 1/2: the series in 1 - cos θ, all positive, taken elsewhere."""
    about_zero = [1.0]
    for k in range(200):
        about_zero.append(about_zero[-1] * (k + 1) / (2 * k + 3))
    return tuple(sum(a * comb(k, j) * 0.5 ** (k - j) for k, a in enumerate(about_zero) if k >= j) for j in range(terms))


@dataclass(frozen=True)
class AngleOverSine(ScalarFunction):
    """θ/sin θ as a function of c = cos θ, 0 ≤ c ≤ 1: analytic also at c = 1."""

    def value(self, xp: Any, a: Array) -> Array:
        # a singular value may exceed 1 by rounding
        return angle_over_sine(xp, xp.abs(1 - a), 1 + a)

    def divided(self, xp: Any, *nodes: Array) -> Array:
        """Of a polynomial that is exact to 3⁻⁴⁰, by synthetic division: no differences, so no digits are lost."""
        y = [0.5 - a for a in nodes]
        quotients = [0.0 * sum(y[1:], y[0])] * len(y)
        for coefficient in reversed(_SERIES):
            for k in range(len(y) - 1, 0, -1):
                quotients[k] = y[k] * quotients[k] + quotients[k - 1]
            quotients[0] = y[0] * quotients[0] + coefficient
        return quotients[-1] if len(y) % 2 else -quotients[-1]


_SERIES = _coefficients(40)
