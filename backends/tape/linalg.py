"""The derivative rules of `linalg`. What is factorised is factorised once: the maps hold matrices to
multiply by.
"""

from __future__ import annotations

from typing import Any

from .maps import IDENTITY, Chain, Linear, Sandwich


def _inv(ns: Any, y: Any, x: Any) -> Any:
    """dY = -Y dX Y."""
    return Sandwich(ns, y, y, negative=True)


def _solve_matrix(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """dY = -A⁻¹ dA Y."""
    inverse = ns.linalg.inv(a)
    both = Sandwich(ns, inverse, y, negative=True)
    if a.shape[:-2] == y.shape[:-2] and a.dtype == y.dtype:
        return both
    return Linear(both.push, lambda c: ns.fit(both.pull(c), a))


def _solve_right(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """dY = A⁻¹ dB."""
    inverse = ns.linalg.inv(a)
    return Linear(lambda t: inverse @ t, lambda c: ns.fit(ns.adjoint(inverse) @ c, b))


def _det(ns: Any, y: Any, x: Any) -> Any:
    """d det X = det(X) tr(X⁻¹ dX)."""
    return _trace_with(ns, _matrices(ns, y) * ns.linalg.inv(x), real=False)


def _trace_with(ns: Any, m: Any, *, real: bool) -> Linear:
    """T ↦ tr(m t), or its real part."""

    def push(t: Any) -> Any:
        value = ns.sum(m.mT * t, axis=(-2, -1))
        return ns.real(value) if real and ns.is_complex(m) else value

    return Linear(push, lambda c: _matrices(ns, c) * ns.adjoint(m))


def _matrices(ns: Any, c: Any) -> Any:
    """`c` with two axes of length one at the end."""
    return ns.reshape(c, (*c.shape, 1, 1))


def _half_lower(ns: Any, m: Any) -> Any:
    """The lower triangle with half the (real part of the) diagonal."""
    eye = ns.eye(m.shape[-1], dtype=m.dtype, device=ns.device(m))
    return ns.tril(m) - 0.5 * (m * eye)


def _cholesky(ns: Any, y: Any, x: Any) -> Any:
    """dL = L Φ(L⁻¹ dX L⁻ᴴ), Φ the lower triangle with half the diagonal (Murray 2016, eq. 8)."""
    inverse = ns.linalg.inv(y)
    inverse_h, yh = ns.adjoint(inverse), ns.adjoint(y)

    def push(t: Any) -> Any:
        return y @ _half_lower(ns, inverse @ ns.hermitian(t) @ inverse_h)

    return Linear(push, lambda c: ns.hermitian(inverse_h @ _half_lower(ns, yh @ c) @ inverse))


RULES = {
    "inv": (_inv,),
    "solve": (_solve_matrix, _solve_right),
    "det": (_det,),
    "cholesky": (_cholesky,),
}


# -- several outputs: rule(ns, outs, x) -> the map of x to what the outputs share, and the outputs' maps
# from there
def _eigh(ns: Any, outs: Any, x: Any) -> Any:
    """With E = Qᴴ dX Q: dλ = diag E, dQ = Q (F∘E), F_ij = 1/(λ_j - λ_i), 0 for equal eigenvalues."""
    values, q = outs
    qh = ns.adjoint(q)
    gap = ns.expand_dims(values, axis=-2) - ns.expand_dims(values, axis=-1)
    apart = gap != 0
    f = ns.where(apart, 1 / ns.where(apart, gap, ns.ones_like(gap)), ns.zeros_like(gap))
    shared = Chain(Linear(ns.hermitian, ns.hermitian), Sandwich(ns, qh, q))
    eye = ns.eye(q.shape[-1], dtype=q.dtype, device=ns.device(q))
    real = ns.real if ns.is_complex(q) else lambda t: t
    of_values = Linear(lambda e: real(ns.sum(e * eye, axis=-1)), lambda c: ns.expand_dims(c, axis=-1) * eye)
    of_vectors = Linear(lambda e: q @ (f * e), lambda c: f * (qh @ c))
    return shared, [of_values, of_vectors]


def _slogdet(ns: Any, outs: Any, x: Any) -> Any:
    """d log|det X| = Re tr(X⁻¹ dX); the sign of a real determinant is constant."""
    inverse = ns.linalg.inv(x)
    if not ns.is_complex(x):
        return IDENTITY, [None, _trace_with(ns, inverse, real=False)]
    sign, whole = outs[0], _trace_with(ns, inverse, real=False)
    turn = Linear(lambda t: 1j * ns.imag(t) * sign, lambda c: 1j * ns.imag(ns.conj(sign) * c))
    return IDENTITY, [Chain(whole, turn), _trace_with(ns, inverse, real=True)]


def _qr(ns: Any, outs: Any, x: Any, *, mode: str = "reduced") -> Any:
    """With B = dX R⁻¹, C = Qᴴ B, Ω = low(C) - low(C)ᴴ + i Im diag C: dR = (C - Ω) R, dQ = B - Q (C - Ω).

    For full column rank, reduced form (Walter & Lehmann 2018).
    """
    q, r = outs
    qh, rh, inverse = ns.adjoint(q), ns.adjoint(r), ns.linalg.inv(r)
    inverse_h = ns.adjoint(inverse)
    eye = ns.eye(r.shape[-1], dtype=r.dtype, device=ns.device(r))

    def phase(c: Any) -> Any:
        return 1j * ns.imag(c) * eye if ns.is_complex(c) else ns.zeros_like(c)

    def skew(c: Any) -> Any:
        low = ns.tril(c, k=-1)
        return low - ns.adjoint(low) + phase(c)

    def skew_adjoint(c: Any) -> Any:
        return ns.tril(c - ns.adjoint(c), k=-1) + phase(c)

    def of_q(b: Any) -> Any:
        c = qh @ b
        return b - q @ (c - skew(c))

    def of_q_adjoint(c: Any) -> Any:
        w = qh @ c
        return c - q @ (w - skew_adjoint(w))

    def of_r(b: Any) -> Any:
        c = qh @ b
        return (c - skew(c)) @ r

    def of_r_adjoint(c: Any) -> Any:
        w = c @ rh
        return q @ (w - skew_adjoint(w))

    shared = Linear(lambda t: t @ inverse, lambda c: c @ inverse_h)
    return shared, [Linear(of_q, of_q_adjoint), Linear(of_r, of_r_adjoint)]


MULTIPLE = {"eigh": _eigh, "slogdet": _slogdet, "qr": _qr}
