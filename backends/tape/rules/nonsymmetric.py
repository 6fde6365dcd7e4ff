"""The derivative rule of `eig`, which is NumPy's and CuPy's and not the standard's."""

from __future__ import annotations

from typing import Any

from ..maps import Linear
from .inverses import Inverse, plain

Array = Any


def eig(ns: Any, outs: Any, x: Any, *, shared: Inverse) -> Any:
    """With E = V⁻¹ dX V: dλ = diag E, dV = V (C - diag(Vᴴ V C)), C_ij = E_ij/(λ_j - λ_i), C_ii = 0.

    The columns of V keep their length 1 and turn as little as possible: right for functions that do not see the phase
    of a vector. What is asked of equal eigenvalues is NaN, except for first derivatives of the eigenvalues, which are
    right where the function is symmetric in the equal ones and there is a basis of eigenvectors (Magnus 1985; Giles
    2008, §3.1).
    """
    values, v = outs
    inverse, vh = shared.of(ns, v), ns.adjoint(v)
    inverse_h, like = ns.adjoint(inverse), plain(v)
    eye = ns.xp.eye(v.shape[-1], dtype=like.dtype, device=ns.device(like))

    def similar(t: Any) -> Any:
        return inverse @ ns.fit_dtype(t, v.dtype) @ v

    def similar_adjoint(c: Any) -> Any:
        return ns.fit_dtype(inverse_h @ c @ vh, x.dtype)

    def of_values(e: Any) -> Any:
        return ns.sum(e * eye, axis=-1)

    def parallel(m: Any) -> Any:
        """The part of each column of m along the eigenvector, as a factor of it."""
        return ns.sum(ns.conj(v) * m if ns.is_complex(v) else v * m, axis=-2, keepdims=True)

    quotients = _quotients(ns, values)

    def of_vectors(e: Any) -> Any:
        turned = v @ (e * quotients)
        return turned - v * parallel(turned)

    def of_vectors_adjoint(c: Any) -> Any:
        across = vh @ (c - v * parallel(c))
        return across * (ns.conj(quotients) if ns.is_complex(quotients) else quotients)

    shared_map = Linear(similar, similar_adjoint)
    return shared_map, [
        Linear(of_values, lambda c: ns.expand_dims(c, axis=-1) * eye),
        Linear(of_vectors, of_vectors_adjoint),
    ]


def _quotients(ns: Any, values: Any) -> Any:
    """1/(λ_j - λ_i), 0 on the diagonal, NaN for equal eigenvalues."""
    xp, like = ns.xp, plain(values)
    gaps = ns.expand_dims(values, axis=-2) - ns.expand_dims(values, axis=-1)
    same = xp.eye(like.shape[-1], dtype=like.dtype, device=ns.device(like)) == 1
    equal = (plain(gaps) == 0) & ~same
    known = ns.where(same, 0.0, 1 / ns.where(same | equal, 1.0, gaps))
    return ns.where(equal, float("nan"), known)
