"""The derivative rules of `linalg`: inverses and what is built on them.

What is factorised is factorised once: the maps hold matrices to multiply by. The rules of `eigh` and `svd` are in
`spectral.py`, that of `eig` is in `nonsymmetric.py`, that of `qr` in `orthogonal.py`; functions composed of others
are in `composed_linalg.py`.
"""

from __future__ import annotations

from typing import Any

from ..maps import IDENTITY, Linear, Map, Sandwich
from .inverses import Inverse, identity_like, inv, plain
from .inverses import without_private as without_private
from .nonsymmetric import eig
from .orthogonal import qr
from .spectral import eigh, svd

Array = Any


def _solve_matrix(ns: Any, y: Any, a: Any, b: Any, *, shared: Inverse) -> Map:
    """dY = -A⁻¹ dA Y.

    A product with the inverse is as accurate as a solve up to a small factor, of the order of eps times the
    condition number (measured against exact arithmetic up to a condition of 1e8), and costs one third.
    """
    both = Sandwich(ns, shared.of(ns, a), y, negative=True)
    if a.shape[:-2] == y.shape[:-2] and a.dtype == y.dtype:
        return both
    return Linear(both.push, lambda c: ns.fit(both.pull(c), a))


def _solve_right(ns: Any, y: Any, a: Any, b: Any, *, shared: Inverse) -> Map:
    """dY = A⁻¹ dB."""
    left = Sandwich(ns, shared.of(ns, a), None, shape=b.shape)
    if b.shape[:-2] == y.shape[:-2] and b.dtype == y.dtype:
        return left
    return Linear(left.push, lambda c: ns.fit(left.pull(c), b))


def _pinv(ns: Any, y: Any, x: Any, **_: Any) -> Map:
    """dY = -Y dX Y + Y Yᴴ dXᴴ (I - X Y) + (I - Y X) dXᴴ Yᴴ Y, for constant rank (Golub & Pereyra 1973, eq. 4.12).

    No singular value is told from another, so repeated ones do no harm. Where the rank is not constant nearby the
    pseudoinverse jumps, and this is the derivative along matrices of the same rank.
    """
    yh, xy, yx = ns.adjoint(y), x @ y, y @ x
    inner, outer = y @ yh, yh @ y
    of_rows, of_columns = (identity_like(ns.xp, plain(p)) - p for p in (xy, yx))

    def push(t: Any) -> Any:
        th = ns.adjoint(t)
        return inner @ th @ of_rows + of_columns @ th @ outer - y @ t @ y

    def pull(c: Any) -> Any:
        ch = ns.adjoint(c)
        return of_rows @ ch @ inner + outer @ ch @ of_columns - yh @ c @ yh

    return Linear(push, pull)


# -- determinants ------------------------------------------------------------------------------------
def _det(ns: Any, y: Any, x: Any, *, shared: Inverse) -> Map:
    """d det X = det(X) tr(X⁻¹ dX), for regular X; see `determinant.py` for the others."""
    return _trace_with(ns, _matrices(ns, y) * shared.of(ns, x), real=False)


def _trace_with(ns: Any, m: Any, *, real: bool) -> Linear:
    """T ↦ tr(m t), or its real part."""

    def push(t: Any) -> Any:
        value = ns.sum(m.mT * t, axis=(-2, -1))
        return ns.real(value) if real and ns.is_complex(m) else value

    return Linear(push, lambda c: _matrices(ns, c) * ns.adjoint(m))


def _matrices(ns: Any, c: Any) -> Any:
    """`c` with two axes of length one at the end."""
    return ns.reshape(c, (*c.shape, 1, 1))


def _slogdet(ns: Any, outs: Any, x: Any, *, shared: Inverse) -> Any:
    """d log|det X| = Re tr(X⁻¹ dX); the sign of a real determinant is constant.

    The logarithm of the determinant of a singular matrix is -inf and has no derivative: NaN.
    """
    whole = _trace_with(ns, shared.of(ns, x), real=False)
    if not ns.is_complex(x):
        return IDENTITY, [None, whole]
    sign = outs[0]
    turn = Linear(lambda t: ns.imag(t) * 1j * sign, lambda c: ns.imag(ns.conj(sign) * c) * 1j)
    real = Linear(ns.real, lambda c: ns.astype(c, x.dtype))
    return whole, [turn, real]


# -- others ------------------------------------------------------------------------------------------
def _cholesky(ns: Any, y: Any, x: Any, *, shared: Inverse) -> Map:
    """dL = L Φ(L⁻¹ dX L⁻ᴴ), Φ the lower triangle with half the diagonal (Murray 2016, eq. 8).

    The derivative is that of the factor of the Hermitian part of X, though libraries read one triangle only.
    """
    inverse, yh = shared.of(ns, y), ns.adjoint(y)
    inverse_h, half = ns.adjoint(inverse), _half_lower(ns, x)

    def push(t: Any) -> Any:
        return y @ (half * (inverse @ ns.hermitian(t) @ inverse_h))

    return Linear(push, lambda c: ns.hermitian(inverse_h @ (half * (yh @ c)) @ inverse))


def _half_lower(ns: Any, x: Any) -> Array:
    """The weights of Φ: 1 below the diagonal, ½ on it, 0 above."""
    like = plain(x)
    places = ns.xp.arange(
        x.shape[-1], dtype=(ns.xp.real(like) if ns.is_complex(like) else like).dtype, device=ns.device(x)
    )
    return 0.5 * (ns.xp.sign(places[:, None] - places[None, :]) + 1)


def _euclidean(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> Map:
    """d‖x‖ = Re⟨x, dx⟩ / ‖x‖; 0 at 0."""

    def whole(c: Any) -> Any:
        return c if keepdims or axis is None else ns.restore_axes(c, axis, x.shape)

    norm = whole(y)
    unit = x / ns.where(plain(norm) == 0, float("inf"), norm)
    turned = ns.conj(unit) if ns.is_complex(unit) else unit

    def push(t: Any) -> Any:
        product = turned * t
        return ns.sum(ns.real(product) if ns.is_complex(product) else product, axis=axis, keepdims=keepdims)

    return Linear(push, lambda c: whole(c) * unit)


RULES = {
    "inv": (inv,),
    "solve": (_solve_matrix, _solve_right),
    "pinv": (_pinv,),
    "det": (_det,),
    "cholesky": (_cholesky,),
    "vector_norm": (_euclidean,),
}
#: Several outputs: rule(ns, outs, x) -> the map of x to what the outputs share, and the outputs' maps from there.
MULTIPLE = {"eig": eig, "eigh": eigh, "slogdet": _slogdet, "qr": qr, "svd": svd}
