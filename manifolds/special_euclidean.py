"""Rigid motions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._expm import expm
from ._linalg import batch_full, dot, eye_like, fit, mT
from ._rotations import rotation_log
from .orthogonal import SpecialOrthogonal

Array = Any


@dataclass(frozen=True)
class SpecialEuclidean(Geodesic, InverseRetraction, Curvature):
    """Rigid motions of ℝⁿ as matrices x = [[r, t], [0, 1]], r a rotation, with ⟨u, v⟩ₓ = tr uᵀv.

    x, u, w : (..., n + 1, n + 1); tangent vectors u = [[ra, s], [0, 0]] with a skew, in ambient coordinates. The metric
    is left-invariant and that of the product `SpecialOrthogonal(n)` × ℝⁿ: geodesics turn and shift at constant speed,
    each on its own. Park 1995; Zefran, Kumar & Croke 1998. The screw motions of the Lie group are other curves:
    `group_exp` and `group_log`. Logarithms end where a rotation angle reaches π.
    """

    n: int

    def __post_init__(self) -> None:
        if not is_size(self.n):
            raise ValueError(f"SpecialEuclidean(n) needs an integer n ≥ 1, not n = {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n + 1, self.n + 1)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """tr uᵀv."""
        return dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """[[r skew(rᵀa₁₁), a₁₂], [0, 0]]."""
        (r, _), (turn, shift) = self._split(x), self._split(a)
        return _join(self._rotations.project(r, turn), shift)

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """That of the rotation, -u₁₁ sym(rᵀw₁₁); 0 elsewhere."""
        (r, _), (turn, _), (moved, shift) = self._split(x), self._split(w), self._split(u)
        return _join(self._rotations.connection(r, turn, moved), 0.0 * shift)

    def retract(self, x: Array, u: Array) -> Array:
        """Cayley's retraction of the rotation, t + s of the translation. Second order."""
        (r, t), (turn, shift) = self._split(x), self._split(u)
        return _join(self._rotations.retract(r, turn), t + shift, 1.0)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """The inverse of Cayley's retraction, and the difference of the translations."""
        (r, t), (q, s) = self._split(x), self._split(y)
        return _join(self._rotations.inverse_retract(r, q), s - t)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """[[qrᵀu₁₁, u₁₂], [0, 0]] with the rotations r of x and q of y: an isometry."""
        (r, _), (q, _), (turn, shift) = self._split(x), self._split(y), self._split(u)
        return _join(self._rotations.transport(r, q, turn), shift)

    def from_noise(self, z: Array) -> Array:
        """A uniform rotation, and a normal translation."""
        turn, shift = self._split(z)
        return _join(self._rotations.from_noise(turn), shift, 1.0)

    def defect(self, x: Array) -> Array:
        """The defect of the rotation, plus that of the last row."""
        xp = namespace(x)
        row = x[..., self.n :, :] - eye_like(x, self.n + 1)[self.n :, :]
        off = self._rotations.defect(self._split(x)[0]) + xp.sqrt(dot(row, row, 2))
        return xp.where(xp.all(xp.isfinite(x), axis=(-2, -1)), off, xp.full_like(off, inf))

    def exp(self, x: Array, u: Array) -> Array:
        """[[r exp(rᵀu₁₁), t + s], [0, 1]]."""
        (r, t), (turn, shift) = self._split(x), self._split(u)
        return _join(self._rotations.exp(r, turn), t + shift, 1.0)

    def log(self, x: Array, y: Array) -> Array:
        """[[r log(rᵀq), s - t], [0, 0]]."""
        (r, t), (q, s) = self._split(x), self._split(y)
        return _join(self._rotations.log(r, q), s - t)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|log(rᵀq)|² + |s - t|²; the first is twice the squared rotation angles, summed."""
        (r, t), (q, s) = self._split(x), self._split(y)
        return self._rotations.squared_dist(r, q) + dot(s - t, s - t, 2)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """That of the rotations; the translation stays."""
        (r, _), (q, _), (turn, shift) = self._split(x), self._split(y), self._split(u)
        return _join(self._rotations.parallel_transport(r, q, turn), shift)

    def injectivity_radius(self, x: Array) -> Array:
        """√2 π, exactly: that of the rotations (∞ for n = 1)."""
        return self._rotations.injectivity_radius(self._split(x)[0])

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Exactly 0 and the upper bound of the rotations: planes that hold a translation are flat."""
        high = self._rotations.curvature_bounds(self._split(x)[0])[1]
        return batch_full(x, 2, 0.0), high

    def group_exp(self, x: Array, u: Array) -> Array:
        """x e^(x⁻¹u): the screw motion that leaves x with velocity u. Murray, Li & Sastry 1994, §2.3."""
        r, _ = self._split(x)
        (turn, shift), adjoint = self._split(u), mT(r)
        return x @ expm(_join(adjoint @ turn, adjoint @ shift))

    def group_log(self, x: Array, y: Array) -> Array:
        """The u with `group_exp`(x, u) = y and rotation angles below π. Ibid., eq. (2.37).

        x⁻¹y = [[q, s], [0, 1]] has the logarithm [[a, v⁻¹s], [0, 0]] with a = log q, v = ∫₀¹ e^(τa) dτ.
        """
        (r, t), (q, s) = self._split(x), self._split(y)
        adjoint = mT(r)
        a = rotation_log(adjoint @ q)
        # e^[[a, I], [0, 0]] = [[e^a, v], [0, I]] (Van Loan 1978)
        eye = 0.0 * a + eye_like(a, self.n)
        xp = namespace(a)
        top = xp.concat([a, eye], axis=-1)
        v = expm(xp.concat([top, xp.zeros_like(top)], axis=-2))[..., : self.n, self.n :]
        shift = xp.linalg.solve(v, adjoint @ (s - t))
        return _join(r @ a, r @ shift)

    @cached_property
    def _rotations(self) -> SpecialOrthogonal:
        return SpecialOrthogonal(self.n)

    def _split(self, a: Array) -> tuple[Array, Array]:
        """`a₁₁, a₁₂`: (..., n, n) and (..., n, 1)."""
        n = self.n
        return a[..., :n, :n], a[..., :n, n:]


def _join(turn: Array, shift: Array, corner: float = 0.0) -> Array:
    """[[turn, shift], [0, corner]], with the leading axes of both."""
    xp = namespace(turn, shift)
    if turn.shape[:-2] != shift.shape[:-2]:
        turn, shift = turn + 0.0 * shift, shift + 0.0 * turn[..., :1]
    zero = 0.0 * turn[..., :1, :]
    bottom = xp.concat([zero, xp.full_like(zero[..., :1], corner)], axis=-1)
    return xp.concat([xp.concat([turn, shift], axis=-1), bottom], axis=-2)
