"""The derivative rule of `qr`."""

from __future__ import annotations

from typing import Any

from ..maps import Chain, Linear, Map
from .inverses import Inverse
from .spectral import completed


def qr(ns: Any, outs: Any, x: Any, *, mode: str = "reduced", shared: Inverse) -> Any:
    """With B = dX R⁻¹, C = Qᴴ B, Ω = low(C) - low(C)ᴴ + i Im diag C: dR = (C - Ω) R, dQ = B - Q (C - Ω).

    For matrices of full column rank, at least as tall as wide (Walter & Lehmann 2018); a rank that is not full
    gives NaN. The further columns of Q in complete form turn only as far as it takes to stay orthogonal to the
    others: right for functions that see no more of them than the space that they span.
    """
    q, r = outs
    n = x.shape[-1]
    first, top = q[..., :, :n], r[..., :n, :]
    inverse = shared.of(ns, top)
    inverse_h = ns.adjoint(inverse)
    of_q, of_r = _maps(ns, first, top)
    if mode == "complete" and x.shape[-2] > n:
        of_q, of_r = completed(ns, of_q, first, q[..., :, n:]), Chain(of_r, _padded(ns, r))
    return Linear(lambda t: t @ inverse, lambda c: c @ inverse_h), [of_q, of_r]


def _padded(ns: Any, r: Any) -> Map:
    """Rows of zeros put below a square matrix."""
    n, rows = r.shape[-1], r.shape[-2]

    def push(t: Any) -> Any:
        below = ns.zeros((*t.shape[:-2], rows - n, n), dtype=t.dtype, device=ns.device(t))
        return ns.concat([t, below], axis=-2)

    return Linear(push, lambda c: c[..., :n, :])


def _maps(ns: Any, q: Any, r: Any) -> tuple[Map, Map]:
    """The maps of B to dQ and dR."""
    qh, rh = ns.adjoint(q), ns.adjoint(r)
    eye = ns.xp.eye(r.shape[-1], dtype=r.dtype, device=ns.device(r))

    def skew(c: Any) -> Any:
        low = ns.tril(c, k=-1)
        return low - ns.adjoint(low) + phase(c) if ns.is_complex(c) else low - ns.adjoint(low)

    def skew_adjoint(c: Any) -> Any:
        low = ns.tril(c - ns.adjoint(c), k=-1)
        return low + phase(c) if ns.is_complex(c) else low

    def phase(c: Any) -> Any:
        return ns.imag(c) * (1j * eye)

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

    return Linear(of_q, of_q_adjoint), Linear(of_r, of_r_adjoint)
