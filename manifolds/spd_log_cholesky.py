"""Symmetric positive definite matrices with the log-Cholesky metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ..backends import namespace
from ._chart import Chart, FlatChart
from ._cholesky import cholesky, lower_inverse, moved, pulled
from ._linalg import fit, mT, real_diagonal, sym, with_diagonal
from .spd import check_size, indefiniteness

Array = Any


@final
@dataclass(frozen=True)
class SPDLogCholesky(FlatChart):
    """Symmetric positive definite n × n matrices in the chart φ(x) = ⌊l⌋ + log diag(l), x = llᵀ (Cholesky).

    x, u, w : (..., n, n), ⌊l⌋ the part of l below the diagonal. Lin 2019, §3. No eigenvalues anywhere; means of
    matrices have the geometric mean of their determinants. The metric depends on the order of the coordinates.
    """

    n: int

    def __post_init__(self) -> None:
        check_size(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def project(self, x: Array, a: Array) -> Array:
        """sym(a)."""
        return fit(sym(a), x)

    def chart(self, x: Array) -> Chart:
        """⌊l⌋ + log diag(l)."""
        return _LogCholesky(x)

    def point(self, c: Array) -> Array:
        """llᵀ with l = ⌊c⌋ + exp diag(c), c lower triangular."""
        l = with_diagonal(c, namespace(c).exp(real_diagonal(c)))
        return sym(l @ mT(l))

    def from_noise(self, z: Array) -> Array:
        """The point with the coordinates z/√n below and z/√2n on the diagonal."""
        scale = self.n**-0.5
        return self.point(with_diagonal(namespace(z).tril(scale * z), (0.5**0.5 * scale) * real_diagonal(z)))

    def defect(self, x: Array) -> Array:
        """|x - xᵀ|/|x|, plus 1 - λ where the smallest eigenvalue λ is not positive; inf if not finite."""
        return indefiniteness(x)[0]


class _LogCholesky(Chart):
    """φ from one factorization."""

    def __init__(self, x: Array):
        self._l = cholesky(x)
        self._diagonal = real_diagonal(self._l)
        self.coordinates = with_diagonal(self._l, namespace(x).log(self._diagonal))

    def push(self, u: Array) -> Array:
        """⌊lp⌋ + diag(p), p = (l⁻¹u l⁻ᵀ)_½: the factor moves by lp."""
        p = moved(lower_inverse(self._l), u)
        return with_diagonal(self._l @ p, real_diagonal(p))

    def lift(self, c: Array) -> Array:
        """l̇lᵀ + ll̇ᵀ with l̇ = ⌊c⌋ + diag(l) diag(c)."""
        half = self._factor(c) @ mT(self._l)
        return half + mT(half)

    def colift(self, w: Array) -> Array:
        """⌊a⌋ + diag(l) diag(a), a = 2 sym(w) l."""
        return self._factor(namespace(w).tril((w + mT(w)) @ self._l))

    def bend(self, w: Array, u: Array) -> Array:
        """w·(2 sym(l̇ᵤl̇ᵥᵀ) + 2 sym(l̈lᵀ)) with l̈ = diag(l) diag(cᵤ) diag(cᵥ), pulled back from l̇ᵥ to v."""
        inverse, w = lower_inverse(self._l), w + mT(w)
        p = moved(inverse, u)
        slope = namespace(w).tril(w @ (self._l @ p))
        bent = real_diagonal(w @ self._l) * real_diagonal(p)
        return pulled(inverse, mT(self._l) @ with_diagonal(slope, real_diagonal(slope) + bent))

    def _factor(self, c: Array) -> Array:
        return with_diagonal(c, self._diagonal * real_diagonal(c))
