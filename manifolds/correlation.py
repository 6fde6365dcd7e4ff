"""Full-rank correlation matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ..backends import namespace
from ._chart import Chart, FlatChart
from ._cholesky import cholesky, lower_inverse, moved, pulled
from ._linalg import batch_full, dot, eye_like, fit, real_diagonal, sym, with_diagonal
from .spd import check_size, indefiniteness

Array = Any


@final
@dataclass(frozen=True)
class Correlation(FlatChart):
    """Positive definite n × n matrices with unit diagonal, in the chart φ(x) = ⌊diag(l)⁻¹ l⌋, x = llᵀ (Cholesky).

    x, u, w : (..., n, n), n ≥ 2, ⌊·⌋ the part below the diagonal. The Euclidean-Cholesky metric of Thanwerdas & Pennec
    2022 (§4.2): flat and complete, so that means are unique, and rational in l. (The quotient of the affine-invariant
    metric has no logarithm in closed form; the log-Euclidean-Cholesky metric wants a series of n terms for the
    same properties; off-log and log-scaled metrics want an iteration for every point.) Depends on the order of the
    coordinates.
    """

    n: int

    def __post_init__(self) -> None:
        check_size(self, 2)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n - 1) // 2

    def project(self, x: Array, a: Array) -> Array:
        """sym(a) without its diagonal."""
        return fit(_hollow(sym(a)), x)

    def chart(self, x: Array) -> Chart:
        """⌊diag(l)⁻¹ l⌋."""
        return _UnitCholesky(x)

    def point(self, c: Array) -> Array:
        """llᵀ, l the rows of c = I + ⌊c⌋ divided by their lengths."""
        xp = namespace(c)
        l = c / xp.sqrt(dot(c, c, 1, keepdims=True))
        return with_diagonal(sym(l @ l.mT), xp.ones_like(l[..., 0]))

    def from_noise(self, z: Array) -> Array:
        """The point with the coordinates ⌊z⌋/√n."""
        return self.point(namespace(z).tril(z, k=-1) * self.n**-0.5 + eye_like(z, self.n))

    def defect(self, x: Array) -> Array:
        """The largest |x_ii - 1|, plus the defect of a positive definite matrix; inf if not finite."""
        xp = namespace(x)
        off, _ = indefiniteness(x)
        diagonal = xp.max(xp.abs(xp.linalg.diagonal(x) - 1), axis=-1)
        return off + xp.where(xp.isfinite(off), diagonal, batch_full(x, 2, 0.0))


class _UnitCholesky(Chart):
    """φ from one factorization. With γ = diag(l)⁻¹ l, the rows of l are those of γ, divided by their lengths."""

    def __init__(self, x: Array):
        self._l = cholesky(x)
        self._diagonal = real_diagonal(self._l)[..., None]
        # the ones on the diagonal are kept: they are in no difference
        self.coordinates = self._l / self._diagonal

    def push(self, u: Array) -> Array:
        """⌊γp - diag(p)γ⌋, p = (l⁻¹u l⁻ᵀ)_½: the factor moves by lp."""
        return self._pushed(lower_inverse(self._l), u)

    def lift(self, c: Array) -> Array:
        """l̇lᵀ + ll̇ᵀ with l̇ᵢ = l_ii (cᵢ - (lᵢ·cᵢ) lᵢ)."""
        half = self._turned(c) @ self._l.mT
        return _hollow(half + half.mT)

    def colift(self, w: Array) -> Array:
        """⌊b⌋, bᵢ = l_ii (aᵢ - (lᵢ·aᵢ) lᵢ), a = 2 sym(w) l."""
        return namespace(w).tril(self._turned((w + w.mT) @ self._l), k=-1)

    def bend(self, w: Array, u: Array) -> Array:
        """w·(2 sym(l̇ᵤl̇ᵥᵀ) + 2 sym(l̈lᵀ)), pulled back from cᵥ to v; cᵤ = c, cᵥ = e, and row by row

        l̈ = l_ii² (3 (l·c)(l·e) l - (l·e) c - (l·c) e - (c·e) l).
        """
        l, xp = self._l, namespace(w, u)
        inverse, w = lower_inverse(l), w + w.mT
        c, a = self._pushed(inverse, u), w @ l
        lc, la, ca = _rows(l, c), _rows(l, a), _rows(c, a)
        bent = self._diagonal**2 * ((3 * lc * la - ca) * l - la * c - lc * a)
        slope = xp.tril(bent + self._turned(w @ self._turned(c)), k=-1)
        pulled_back = self.coordinates.mT @ slope - _rows(slope, self.coordinates) * eye_like(l, l.shape[-1])
        return _hollow(pulled(inverse, pulled_back))

    def _pushed(self, inverse: Array, u: Array) -> Array:
        p = moved(inverse, u)
        return self.coordinates @ p - real_diagonal(p)[..., None] * self.coordinates

    def _turned(self, c: Array) -> Array:
        """The derivative of rows divided by their lengths; its own transpose."""
        return self._diagonal * (c - _rows(self._l, c) * self._l)


def _rows(a: Array, b: Array) -> Array:
    """The dot products of the rows of `a` and `b`: `(..., n, 1)`."""
    return dot(a, b, 1, keepdims=True)


def _hollow(a: Array) -> Array:
    """`a` with the diagonal 0."""
    return with_diagonal(a, namespace(a).zeros_like(a[..., 0]))
