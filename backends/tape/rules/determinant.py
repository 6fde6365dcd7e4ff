"""The determinant, differentiable to any order at every matrix: it is a polynomial, singular matrices are no exception.

For well-conditioned matrices the rule is that of Jacobi, det(X) tr(X⁻¹ dX), which fails at singular ones and loses
the condition number once with each order. There, with constant unitary U and V from the singular value
decomposition of the value and B = Uᴴ X V,

    det X = det U det Vᴴ det B₁₁ det(B₂₂ - B₂₁ B₁₁⁻¹ B₁₂),

where B₁₁ holds the large singular values and is differentiated by the rule, and the small matrix on the right, which
is almost zero, by the polynomial that its determinant is.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from ..core import Primitive
from .inverses import Inverse, inverse_or_nan, plain

Array = Any
#: Up to this size a determinant is expanded into minors (size · 2^(size - 1) products); exact in each of them.
MOST_EXPANDED = 6


def det(ns: Any, primitive: Primitive, x: Any) -> Any:
    """det X of traced matrices, each of a batch by what its singular values call for."""
    value, n, xp = plain(x), x.shape[-1], ns.xp
    known = _inverse_if_regular(xp, value)
    if known is not None or not bool(xp.all(xp.isfinite(value))):
        return primitive(x, shared=Inverse(known))
    batch = x.shape[:-2]
    flat = ns.reshape(x, (math.prod(batch), n, n))
    u, s, vh = xp.linalg.svd(plain(flat))
    counts = _small_values(xp, s)
    kinds = sorted(set(counts))
    if len(kinds) == 1:
        return ns.reshape(_by_blocks(ns, primitive, flat, u, vh, kinds[0]), batch)
    parts, order = [], []
    for small in kinds:
        places = [i for i, count in enumerate(counts) if count == small]
        index = xp.asarray(places, device=ns.device(value))
        of_u, of_vh = (xp.take(w, index, axis=0) for w in (u, vh))
        parts.append(_by_blocks(ns, primitive, ns.take(flat, index, axis=0), of_u, of_vh, small))
        order += places
    back = xp.asarray(sorted(range(len(order)), key=lambda i: order[i]), device=ns.device(value))
    return ns.reshape(ns.take(ns.concat(parts), back, axis=0), batch)


def _inverse_if_regular(xp: Any, a: Array) -> Array | None:
    """The inverse of plain matrices, if all are so well conditioned that three derivatives keep some digits."""
    if a.shape[-1] == 0 or math.prod(a.shape) == 0:
        return a
    inverse = inverse_or_nan(xp, a)
    of_a, of_inverse = (xp.max(xp.sum(xp.abs(m), axis=-1), axis=-1) for m in (a, inverse))
    return inverse if bool(xp.all(of_a * of_inverse <= float(xp.finfo(of_a.dtype).eps) ** -0.25)) else None


def _small_values(xp: Any, s: Array) -> list[int]:
    """For each matrix how many of its singular values are to be called small."""
    n, eps = s.shape[-1], float(xp.finfo(s.dtype).eps)
    small, none = ((s <= level * s[:, :1]) for level in (eps**0.25, 8 * n * eps))
    counts = []
    for i in range(s.shape[0]):
        of_small, of_none = (int(xp.count_nonzero(found[i, ...])) for found in (small, none))
        counts.append(max(of_none, min(of_small, MOST_EXPANDED)))
    return counts


def _by_blocks(ns: Any, primitive: Primitive, x: Any, u: Array, vh: Array, small: int) -> Any:
    """The determinants of matrices of which each has so many small singular values."""
    if small == 0:
        return primitive(x, shared=Inverse())
    xp, k = ns.xp, x.shape[-1] - small
    adjoint = xp.matrix_transpose
    uh, v = adjoint(u), adjoint(vh)
    if ns.is_complex(u):
        uh, v = xp.conj(uh), xp.conj(v)
    turned = xp.linalg.det(u) * xp.linalg.det(vh)
    b = uh @ x @ v
    corner = b[:, k:, k:]
    if k == 0:
        return turned * _polynomial(ns, corner)
    shared, head = Inverse(), b[:, :k, :k]
    rest = corner - b[:, k:, :k] @ shared.of(ns, head) @ b[:, :k, k:]
    return turned * primitive(head, shared=shared) * _polynomial(ns, rest)


def _polynomial(ns: Any, s: Any) -> Any:
    """The determinants of small matrices by additions and products alone."""
    return _by_minors(ns, s) if s.shape[-1] <= MOST_EXPANDED else _by_traces(ns, s)


def _by_minors(ns: Any, s: Any) -> Any:
    """Laplace's expansion, row after row: the minors of the first k rows from those of the first k - 1."""
    m = s.shape[-1]
    minors: dict[tuple[int, ...], Any] = {(j,): s[..., 0, j] for j in range(m)}
    for k in range(2, m + 1):
        row = [s[..., k - 1, j] for j in range(m)]
        longer = {}
        for columns in itertools.combinations(range(m), k):
            total = None
            for place, j in enumerate(columns):
                term = row[j] * minors[columns[:place] + columns[place + 1 :]]
                odd = (k - 1 + place) % 2
                total = (-term if odd else term) if total is None else total - term if odd else total + term
            longer[columns] = total
        minors = longer
    return minors[tuple(range(m))]


def _by_traces(ns: Any, s: Any) -> Any:
    """Faddeev & LeVerrier: M₁ = S, c_k = -tr(M_k)/k, M_(k+1) = S (M_k + c_k I); det S = (-1)ᵐ c_m."""
    m = s.shape[-1]
    eye = ns.xp.eye(m, dtype=s.dtype, device=ns.device(s))
    product = s
    for k in range(1, m):
        coefficient = ns.sum(product * eye, axis=(-2, -1), keepdims=True) / -k
        product = s @ (product + coefficient * eye)
    last = ns.sum(product * eye, axis=(-2, -1)) / -m
    return last if m % 2 == 0 else -last
