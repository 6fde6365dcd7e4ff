"""Flags of nested subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..backends import backend_of, namespace
from ._base import Exponential, Quotient
from ._checks import is_size
from ._expm import expm
from ._linalg import dot, eye_like, fit, mT, qr_unique
from ._polar import Polar
from ._rotations import skew
from ._stiefel_retractions import cayley

Array = Any


@dataclass(frozen=True)
class Flag(Exponential, Quotient):
    """Nested subspaces V₁ ⊂ V₂ ⊂ … of ℝⁿ (ℂⁿ) with dim Vᵢ = dims[i], the span of the first dims[i] columns of x.

    {x : xᴴx = I}, x ~ xg for block diagonal orthogonal (unitary) g, blocks of the sizes dims[0], dims[1] - dims[0], …
    x, u, w : (..., n, p), p = dims[-1]. Vectors are horizontal lifts at x: xᴴu is skew and its diagonal blocks are 0;
    ⟨u, v⟩ₓ = Re tr uᴴ(I - ½xxᴴ)v, so that for one subspace it is `Grassmann(n, p)`. Ye, Wong & Lim 2022, §4, §6.
    No logarithm is known in closed form.
    """

    n: int
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = (0, *self.dims) if isinstance(self.dims, tuple) else ()
        if not all(is_size(k, 0) for k in (*sizes, self.n)) or len(sizes) < 2:
            raise ValueError(f"Flag(n, dims) needs an integer and a tuple of integers, not n = {self.n}, {self.dims}")
        if any(a >= b for a, b in pairwise(sizes)) or sizes[-1] > self.n:
            raise ValueError(f"Flag(n, dims) needs 0 < dims[0] < dims[1] < … ≤ n, not n = {self.n}, dims = {self.dims}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.dims[-1])

    @property
    def dim(self) -> int:
        p = self.dims[-1]
        return (self.n - p) * p + (p * p - sum(k * k for k in self._blocks)) // 2

    @property
    def _blocks(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in pairwise((0, *self.dims)))

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v - ½ (xᴴu)·(xᴴv)."""
        return dot(fit(u, x), v, 2) - 0.5 * dot(mT(x) @ u, mT(x) @ v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """a - x xᴴa + x off(skew(xᴴa)), where `off` sets the diagonal blocks to 0: onto the horizontal space."""
        xa = mT(x) @ a
        return a + x @ (self._off(skew(xa)) - xa)

    def sharp(self, x: Array, w: Array) -> Array:
        """w - x xᴴw + 2x off(skew(xᴴw))."""
        xw = mT(x) @ w
        return w + x @ (2.0 * self._off(skew(xw)) - xw)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """½ (x aᴴw - a xᴴw + (I - ½xxᴴ)(w uᴴx - u wᴴx)), a = u - ½x xᴴu: w·γ̈ along the geodesics γ of `exp`."""
        xu, xw = mT(x) @ u, mT(x) @ w
        a = u - 0.5 * (x @ xu)
        b = w @ mT(xu) - u @ mT(xw)
        return 0.5 * (x @ (mT(a) @ w) - a @ xw + b - 0.5 * (x @ (mT(x) @ b)))

    def retract(self, x: Array, u: Array) -> Array:
        """(I - W/2)⁻¹(I + W/2) x with the W of `exp`. Second order."""
        return cayley(x, u)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y of u d, d the block diagonal part of xᴴy: right for every representative of y."""
        d = mT(x) @ y
        return self.project(y, u @ (d - self._off(d)))

    def from_noise(self, z: Array) -> Array:
        """The Q of z = QR: uniform."""
        return qr_unique(z)

    def defect(self, x: Array) -> Array:
        """|xᴴx - I|."""
        gap = mT(x) @ x - eye_like(x, self.dims[-1])
        squared = dot(gap, gap, 2)
        return namespace(squared).sqrt(squared)

    def align(self, x: Array, y: Array) -> Array:
        """Block after block, yᵢwᵢ with the unitary polar factor wᵢ of yᵢᴴxᵢ."""
        parts = [(x[..., a:b], y[..., a:b]) for a, b in pairwise((0, *self.dims))]
        return namespace(x, y).concat([q @ Polar(mT(q) @ p).unitary for p, q in parts], axis=-1)

    def vertical(self, x: Array, w: Array) -> Array:
        """|the diagonal blocks of skew(xᴴw)|."""
        s = skew(mT(x) @ w)
        blocks = s - self._off(s)
        squared = dot(blocks, blocks, 2)
        return namespace(squared).sqrt(squared)

    def exp(self, x: Array, u: Array) -> Array:
        """e^W x, W = axᴴ - xaᴴ, a = u - ½x xᴴu: a geodesic that is and stays horizontal. Edelman, Arias & Smith 1998.

        As W = l rᴴ with l = [a, x], r = [x, -a], it is x + l φ(rᴴl) rᴴx with φ(m) = (eᵐ - I)/m, a block of an
        exponential: no decomposition, so that u may have any rank.
        """
        xp = namespace(x, u)
        a = u - 0.5 * (x @ (mT(x) @ u))
        x = fit(x, a)
        left, right = xp.concat([a, x], axis=-1), mT(xp.concat([x, -a], axis=-1))
        top = xp.concat([right @ left, right @ x], axis=-1)
        whole = xp.concat([top, 0.0 * top[..., : self.dims[-1], :]], axis=-2)
        p = self.dims[-1]
        return x + left @ expm(whole)[..., : 2 * p, 2 * p :]

    def _off(self, a: Array) -> Array:
        """`a` (..., p, p) with its diagonal blocks set to 0."""
        xp = namespace(a)
        block = xp.asarray([i for i, k in enumerate(self._blocks) for _ in range(k)], device=backend_of(a).device(a))
        return xp.where(block[:, None] == block[None, :], xp.zeros_like(a), a)
