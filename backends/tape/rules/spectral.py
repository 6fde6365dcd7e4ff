"""The derivative rules of `eigh` and `svd`, to any order, at repeated eigenvalues and singular values too.

What these functions return is not determined by the matrix alone: a vector may be multiplied by a phase, and where
values repeat any basis of their common space will do. A function that does not see such a change of frame may be
differentiable all the same. The rules give its derivatives, of every order: they turn each vector as little as
possible, not at all within a space of equal values, and treat the values inside a rule as what they are in a frame
that has stopped following the eigenvectors there, a matrix L = Uᴴ X V which is diagonal at the point only.

So spectral projectors, polar factors and sums over all of a repeated value are right. The gradient of any other
symmetric function of the values, such as Σ log λ or Σ √(s² + 1), is right too, and so is its second derivative if
the first one was pulled (as `hvp` and `hessian` do), but not its third. Two things cannot be had where values
repeat: derivatives of one of them by itself, and those of Q g(Λ) Qᴴ inside the repeated space, where vectors and
values would have to move together: what is known here are numbers, not the function g. They come out as if g were
constant there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..array import Traced
from ..core import Primitive
from ..maps import Chain, Linear, Map, Sandwich
from ..program import Program
from .inverses import plain

Array = Any
#: Values closer than this times eps times the size of the matrix and its norm are equal.
EQUAL = 8


# -- Z L + σ L Z = E ---------------------------------------------------------------------------------
def _of_right_side(ns: Any, z: Any, e: Any, l: Any, *, weights: Array, sign: int) -> Map:
    def divide(t: Any) -> Any:
        return _DIVIDE(t, l, weights=weights, sign=sign)

    return Linear(divide, divide)


def _of_frame(ns: Any, z: Any, e: Any, l: Any, *, weights: Array, sign: int) -> Map:
    """dZ L + σ L dZ = -(Z dL + σ dL Z)."""
    zh = ns.adjoint(z)

    def push(t: Any) -> Any:
        moved = z @ t + sign * (t @ z) if sign else z @ t
        return _DIVIDE(-moved, l, weights=weights, sign=sign)

    def pull(c: Any) -> Any:
        w = _DIVIDE(-c, l, weights=weights, sign=sign)
        return zh @ w + sign * (w @ zh) if sign else zh @ w

    return Linear(push, pull)


#: The Z that solves Z L + σ L Z = E for a matrix L with diagonal value: E ∘ weights. Entries without an answer are 0.
_DIVIDE = Primitive("linalg.svd", lambda e, l, weights, sign: e * weights, (_of_right_side, _of_frame))


class _Frame:
    """A frame of vectors and its matrix L, diagonal with the entries `values` at the point."""

    def __init__(self, ns: Any, matrix: Any, traced: Any, size: int, cluster: Callable[..., Array] | None = None):
        self.ns, self.xp, self.matrix, self.traced = ns, ns.xp, matrix, traced
        self.values = plain(traced)
        self.size, self.cluster = size, cluster

    def _division(self, sign: int, quotients: Callable[[], tuple[Array, Array]]) -> Callable[[Any], Any]:
        """E ↦ Z; `quotients` gives the denominators and where there is an answer, and is asked at the first use."""
        xp, weights = self.xp, None

        def divide(e: Any) -> Any:
            nonlocal weights
            if weights is None:
                denominator, answered = quotients()
                safe = xp.where(answered, denominator, xp.ones_like(denominator))
                weights = xp.where(answered, 1 / safe, xp.zeros_like(denominator))
            return _DIVIDE(e, self.matrix, weights=weights, sign=sign)

        return divide

    def by_differences(self) -> Callable[[Any], Any]:
        """E ↦ Z with Z L - L Z = E between different values; 0 between equal ones, or those of one cluster."""
        rows, columns = self._pairs(self.values)
        return self._division(-1, lambda: (columns - rows, self._apart()))

    def by_sums(self) -> Callable[[Any], Any]:
        """E ↦ Z with Z L + L Z = E; 0 where both values are zero."""
        rows, columns = self._pairs(self.values)
        return self._division(1, lambda: (rows + columns, rows + columns > self.equal()[..., None]))

    def by_values(self) -> Callable[[Any], Any]:
        """E ↦ Z with Z L = E; 0 where the value is zero."""
        return self._division(0, lambda: tuple(v[..., None, :] for v in (self.values, self.values > self.equal())))

    def equal(self) -> Array:
        """How far apart equal values may be."""
        return tolerance(self.xp, self.values, self.size)

    def _apart(self) -> Array:
        if self.cluster is None:
            rows, columns = self._pairs(self.values)
            return self.xp.abs(columns - rows) > self.equal()[..., None]
        rows, columns = self._pairs(self.cluster(self.xp, self.values, self.equal()))
        return rows != columns

    def split(self, c: Any, also: bool = False) -> Any:
        """∂c(λ) for ∂λ = (1, 2, …, k), by the tape on which the cotangent c of the values was computed from them.

        The direction splits equal values, and so tells how c depends on each. None where that is not asked for:
        c is no function of the values, or none are equal (nor `also` anything else).
        """
        tape = self.traced._tape if isinstance(self.traced, Traced) else None
        while isinstance(c, Traced) and c._tape is not tape:
            c = c.value
        if tape is None or not tape.level or not isinstance(c, Traced) or self.cluster is not None:
            return None
        ramp = self._ramp()
        rows, columns = self._pairs(ramp)
        if not also and bool(self.xp.all(self._apart() | (rows == columns))):
            return None
        return Program(tape, [self.traced._index], [c._index]).push([self.xp.broadcast_to(ramp, self.values.shape)])[0]

    def between_equal(self, moved: Any, zero: Array | None = None) -> Any:
        """α_ij L_ij for equal values i and j, but `zero` ones; α_ij = (∂c_i - ∂c_j)/(∂λ_i - ∂λ_j) with ∂c = `moved`.

        It is zero at the point, and stands beside the diagonal c(λ) for its derivative (Daleckii & Krein 1965).
        """
        xp, (rows, columns) = self.xp, self._pairs(self._ramp())
        gap = rows - columns
        equal = ~self._apart() & (gap != 0)
        if zero is not None:
            equal = equal & ~zero[..., None]
        weights = xp.astype(equal, gap.dtype) / xp.where(gap == 0, xp.ones_like(gap), gap)
        rows, columns = self._pairs(moved)
        return weights * (rows - columns) * self.matrix

    def at_zeros(self, moved: Any, zero: Array) -> Any:
        """α_j = ∂c_j/∂λ_j for zero values j, 0 for others; ∂c = `moved`."""
        return moved * (self.xp.astype(zero, self.values.dtype) / self._ramp())

    def _ramp(self) -> Array:
        return self.xp.arange(1, self.values.shape[-1] + 1, dtype=self.values.dtype, device=self.ns.device(self.values))

    @staticmethod
    def _pairs(values: Array) -> tuple[Array, Array]:
        return values[..., :, None], values[..., None, :]


def tolerance(xp: Any, values: Array, size: int) -> Array:
    """The distance below which values of matrices of this size are equal, with one axis of length one at the end."""
    if values.shape[-1] == 0:
        return xp.sum(values, axis=-1, keepdims=True)
    largest = xp.max(xp.abs(values), axis=-1, keepdims=True)
    return EQUAL * size * float(xp.finfo(values.dtype).eps) * largest


# -- eigh --------------------------------------------------------------------------------------------
def eigh(ns: Any, outs: Any, x: Any, **_: Any) -> Any:
    """With E = Qᴴ dX Q: dλ = diag E, dQ = Q Ω, Ω Λ - Λ Ω = E between different eigenvalues, Ω = 0 otherwise.

    The derivative is that of the function of the Hermitian part of X, though libraries read one triangle only
    (NumPy the lower one). Eigenvalues have a rule of their own, in which no difference of two appears.
    """
    values, q = outs
    qh = ns.adjoint(q)
    matrix = ns.hermitian(qh @ x @ q) if isinstance(x, Traced) else values
    frame = _Frame(ns, matrix, values, x.shape[-1])
    turn = frame.by_differences()
    shared = Chain(Linear(ns.hermitian, ns.hermitian), Sandwich(ns, qh, q))
    eye = ns.xp.eye(q.shape[-1], dtype=values.dtype, device=ns.device(values))

    def of_values(e: Any) -> Any:
        return ns.sum((ns.real(e) if ns.is_complex(e) else e) * eye, axis=-1)

    def of_values_adjoint(c: Any) -> Any:
        whole, moved = ns.expand_dims(c, axis=-1) * eye, frame.split(c)
        return ns.fit_dtype(whole, q.dtype) if moved is None else whole + frame.between_equal(moved)

    of_vectors = Linear(lambda e: q @ turn(e), lambda c: turn(qh @ c))
    return shared, [Linear(of_values, of_values_adjoint), of_vectors]


# -- svd ---------------------------------------------------------------------------------------------
def svd(ns: Any, outs: Any, x: Any, *, full_matrices: bool = True, cluster: Any = None) -> Any:
    """With P = Uᴴ dX V, H and K its Hermitian and anti-Hermitian parts (Townsend 2016; Wan & Zhang 2019):

        dS = Re diag P,   dU = U (Z + Y) + (I - U Uᴴ) dX V S⁻¹,   dV = V (Z - Y) + (I - V Vᴴ) dXᴴ U S⁻¹,
        Z S - S Z = H between different singular values, 0 otherwise;   Y S + S Y = K.

    In a complex decomposition the phase is shared between U and V. The further columns of U or V that
    `full_matrices` brings turn only as far as it takes to stay orthogonal to the others: right for functions that
    see no more of them than the space that they span. `cluster` marks the singular values (a boolean function of
    the namespace, the values and a tolerance) whose spaces the caller will not look into.
    """
    u, s, vh = outs
    k = min(x.shape[-2:])
    us, vs = (u[..., :, :k], u[..., :, k:]), (ns.adjoint(vh[..., :k, :]), ns.adjoint(vh[..., k:, :]))
    adjoint = Linear(ns.adjoint, ns.adjoint)
    if x.shape[-1] > k:  # of a wide matrix, the decomposition of its adjoint
        of_v, of_u, of_s = _tall_svd(ns, ns.adjoint(x), vs[0], s, us[0], cluster)
        shared = Chain(adjoint, Sandwich(ns, None, us[0]))
    else:
        of_u, of_v, of_s = _tall_svd(ns, x, us[0], s, vs[0], cluster)
        shared = Sandwich(ns, None, vs[0], shape=x.shape)
    if full_matrices:
        of_u, of_v = completed(ns, of_u, *us), completed(ns, of_v, *vs)
    return shared, [of_u, of_s, Chain(of_v, adjoint)]


def _tall_svd(ns: Any, x: Any, u: Any, s: Any, v: Any, cluster: Any) -> tuple[Map, Map, Map]:
    """The maps of B = dX V to dU, dV and dS."""
    uh, vh, is_tall = ns.adjoint(u), ns.adjoint(v), x.shape[-2] > x.shape[-1]
    image = x @ v if isinstance(x, Traced) else None
    frame = _Frame(ns, s if image is None else ns.hermitian(uh @ image), s, max(x.shape[-2:]), cluster)
    turn, twist, stretch = frame.by_differences(), frame.by_sums(), frame.by_values()

    def parts(b: Any) -> tuple[Any, Any]:
        p = uh @ b
        h = ns.hermitian(p)
        return turn(h), twist(p - h)

    def gathered(z: Any, y: Any) -> Any:
        h = turn(z)
        k = twist(y)
        return u @ (ns.hermitian(h) + 0.5 * (k - ns.adjoint(k)))

    def of_u(b: Any) -> Any:
        z, y = parts(b)
        moved = u @ (z + y)
        return moved + stretch(b - u @ (uh @ b)) if is_tall else moved

    def of_u_adjoint(c: Any) -> Any:
        w = uh @ c
        back = gathered(w, w)
        if not is_tall:
            return back
        d = stretch(c)
        return back + d - u @ (uh @ d)

    def of_v(b: Any) -> Any:
        z, y = parts(b)
        return v @ (z - y)

    def of_v_adjoint(c: Any) -> Any:
        w = vh @ c
        return gathered(w, -w)

    return Linear(of_u, of_u_adjoint), Linear(of_v, of_v_adjoint), _of_values(ns, u, image, frame)


def _of_values(ns: Any, u: Any, image: Any, frame: _Frame) -> Map:
    """The map of B = dX V to dS; `image` is X V, where X is traced."""
    conjugate = ns.conj(u) if ns.is_complex(u) else u

    def push(b: Any) -> Any:
        product = conjugate * b
        return ns.sum(ns.real(product) if ns.is_complex(product) else product, axis=-2)

    def pull(c: Any) -> Any:
        """U diag c; and what has no value but a derivative, where singular values are equal or zero."""
        whole, zero = ns.expand_dims(c, axis=-2) * u, frame.values <= frame.equal()
        moved = frame.split(c, also=bool(frame.xp.any(zero)))
        if moved is None:
            return whole
        others = u * frame.xp.astype(~zero, frame.values.dtype)[..., None, :]
        rest = image - others @ (ns.adjoint(others) @ image) - ns.expand_dims(frame.traced, axis=-2) * u
        of_zeros = rest * ns.expand_dims(frame.at_zeros(moved, zero), axis=-2)
        return whole + u @ frame.between_equal(moved, zero) + of_zeros

    return Linear(push, pull)


def completed(ns: Any, of_first: Map, first: Any, rest: Any) -> Map:
    """The map to orthonormal columns (Q₁, Q₂) from that to Q₁: dQ₂ = -Q₁ dQ₁ᴴ Q₂, the least that keeps them so."""
    if rest.shape[-1] == 0:
        return of_first
    count = first.shape[-1]

    def push(t: Any) -> Any:
        return ns.concat([t, -(first @ (ns.adjoint(t) @ rest))], axis=-1)

    def pull(c: Any) -> Any:
        return c[..., :, :count] - rest @ (ns.adjoint(c[..., :, count:]) @ first)

    return Chain(of_first, Linear(push, pull))
