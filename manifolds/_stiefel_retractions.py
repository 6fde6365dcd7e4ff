"""Retractions of matrices with orthonormal columns, each with its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._linalg import eye_like, few, fit, is_complex, mT, qr_unique
from ._lyapunov import lyapunov
from ._spectral import InverseSqrt, spectral

Array = Any

#: Up to so many entries, a singular value decomposition takes less time than the calls it saves.
_SMALL = 256


@dataclass(frozen=True)
class Retraction:
    """A retraction and its inverse: r(x, u) is a point y, and r.inverse(x, y) the tangent u, for y near x."""

    forward: Callable[[Array, Array], Array]
    inverse: Callable[[Array, Array], Array]

    def __call__(self, x: Array, u: Array) -> Array:
        """R_x(u)."""
        return self.forward(x, u)


def _qr(x: Array, u: Array) -> Array:
    return qr_unique(x + u)


def _qr_inverse(x: Array, y: Array) -> Array:
    """Y r - x, with r upper triangular and xᴴy r + rᴴyᴴx = 2I: one column after the other.

    Kaneko, Fiori & Tanaka 2013, §III.B. Column j of r solves with the leading j × j block of xᴴy.
    """
    m = mT(x) @ y
    xp, p = namespace(m), m.shape[-1]
    columns: list[Array] = []
    for j in range(p):
        last = xp.ones_like(m[..., :1, :1])
        if columns:
            # the entries above the diagonal of m r are minus the conjugates of those below it
            above = [
                -xp.sum(m[..., j, : k + 1] * c[..., : k + 1, 0], axis=-1)[..., None] for k, c in enumerate(columns)
            ]
            above_ = xp.concat(above, axis=-1)[..., None]
            right = xp.concat([xp.conj(above_) if is_complex(m.dtype) else above_, last], axis=-2)
        else:
            right = last
        block = m[..., : j + 1, : j + 1]
        if is_complex(m.dtype):
            # the imaginary part of the last right side is free: it makes the diagonal of r real
            right = xp.concat([right, 1j * xp.concat([0.0 * right[..., :-1, :], last], axis=-2)], axis=-1)
            both = xp.linalg.solve(block, right)
            s, t = both[..., :1], both[..., 1:]
            column = s - t * (xp.imag(s[..., -1:, :]) / xp.imag(t[..., -1:, :]))
        else:
            column = xp.linalg.solve(block, right)
        columns.append(column)
    zero = xp.zeros_like(m[..., :1])
    r = xp.concat([xp.concat([c, zero[..., c.shape[-2] :, :]], axis=-2) for c in columns], axis=-1)
    return y @ r - x


def _polar(x: Array, u: Array) -> Array:
    y = x + u
    if few(y, _SMALL):
        left, _, right = namespace(y).linalg.svd(y, full_matrices=False)
        return left @ right
    return y @ spectral(InverseSqrt())(mT(y) @ y)


def _polar_inverse(x: Array, y: Array) -> Array:
    """Y s - x with s symmetric and xᴴy s + s yᴴx = 2I. Kaneko, Fiori & Tanaka 2013, §III.C."""
    m = mT(x) @ y
    return y @ lyapunov(m, 2.0 * eye_like(m, m.shape[-1])) - x


def _cayley(x: Array, u: Array) -> Array:
    xp = namespace(x, u)
    a = u - 0.5 * (x @ (mT(x) @ u))
    x = fit(x, a)
    left, right = xp.concat([a, x], axis=-1), mT(xp.concat([x, -a], axis=-1))
    matrix = eye_like(a, left.shape[-1]) - 0.5 * (right @ left)
    return x + left @ xp.linalg.solve(matrix, right @ x)


def _cayley_inverse(x: Array, y: Array) -> Array:
    """2 (c + x n⁻ᴴ(m - mᴴ)) n⁻¹ with m = xᴴy, n = I + m, c = y - x m: the u of y - x = W (x + y)/2."""
    m = mT(x) @ y
    inverse = namespace(m).linalg.inv(eye_like(m, m.shape[-1]) + m)
    return 2.0 * ((y - x @ m) + x @ (mT(inverse) @ (m - mT(m)))) @ inverse


#: The Q of x + u = QR, R's diagonal positive. First order. Absil, Mahony & Sepulchre 2008, eq. (4.8).
qr = Retraction(_qr, _qr_inverse)

#: (x + u)((x + u)ᴴ(x + u))^(-1/2), the nearest point to x + u. Second order. Ibid., eq. (4.7).
polar = Retraction(_polar, _polar_inverse)

#: (I - W/2)⁻¹(I + W/2) x with W = axᴴ - xaᴴ, a = u - x xᴴu/2. Wen & Yin 2013, eq. (19).
#: Through a 2p × 2p system: x + l (I - rᴴl/2)⁻¹ rᴴx with l = [a, x], r = [x, -a].
cayley = Retraction(_cayley, _cayley_inverse)
