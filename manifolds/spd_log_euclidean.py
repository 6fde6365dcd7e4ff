"""Symmetric positive definite matrices with the log-Euclidean metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from ._chart import Chart, FlatChart
from ._linalg import fit, sym
from ._spectral import Decomposition, Exp, Log, exponential, spectral
from .spd import check_size, gaussian, indefiniteness

Array = Any


@final
@dataclass(frozen=True)
class SPDLogEuclidean(FlatChart):
    """Symmetric positive definite n × n matrices with ⟨u, v⟩ₓ = tr(Dlog(x)[u] Dlog(x)[v]).

    x, u, w : (..., n, n). The logarithm is an isometry onto the symmetric matrices. Arsigny, Fillard, Pennec & Ayache
    2007, §3.3. Derivatives of Dlog and Dexp are divided differences, right at equal eigenvalues too.
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
        """The matrix logarithm."""
        return _Logarithm(x)

    def point(self, c: Array) -> Array:
        """The exponential of c."""
        return exponential(c)

    def from_noise(self, z: Array) -> Array:
        """The exponential of sym(z)/√n: normally distributed in the chart."""
        return spectral(Exp())(gaussian(z))

    def defect(self, x: Array) -> Array:
        """|x - xᵀ|/|x|, plus 1 - λ where the smallest eigenvalue λ is not positive; inf if not finite."""
        return indefiniteness(x)[0]


class _Logarithm(Chart):
    """φ = log, from one decomposition."""

    def __init__(self, x: Array):
        self._x = Decomposition(x)

    @cached_property
    def coordinates(self) -> Array:
        """log x."""
        return self._x(Log())

    def push(self, u: Array) -> Array:
        """Dlog(x)[u]."""
        found = self._x.slope(Log(), u)
        return self._x.derivative(Log(), u) if found is None else found

    def lift(self, c: Array) -> Array:
        """Dexp(log x)[c]."""
        found = self._x.inverse_slope(Log(), c)
        return self._x.image(Log(), self.coordinates).derivative(Exp(), c) if found is None else found

    def colift(self, w: Array) -> Array:
        """Dexp(log x)[w]: its own transpose."""
        return self.lift(w)

    def bend(self, w: Array, u: Array) -> Array:
        """-D²log(x)[u, Dexp(log x)[w]], as D²exp[Dlog u, Dlog v] = -Dexp[D²log[u, v]]."""
        return -self._x.derivative(Log(), u, self.lift(w))
