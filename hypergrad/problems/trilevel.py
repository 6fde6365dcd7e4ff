"""Problems with three levels and no closed form: for comparison with finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import SPD, Euclidean, Sphere, Stiefel
from ..level import Argmin
from ..nested import Nested

Array = Any


@dataclass(frozen=True, eq=False)
class QuarticTrilevel:
    """Three variables x, y, z in Rᵈ; every level knows all of them.

    f₃ = ¼ Σ (z - A x)⁴ + ½ ‖z - B y‖² + ½ ‖z‖² + e Σ x y z, f₂ = ¼ Σ (y - C x)⁴ + ‖y - D z‖² + ‖y‖²,
    f₁ = ‖x - 1‖² + zᵀ E y + ‖z - x‖². a … e : (d, d), `twist` = e : (). How z answers to y is a good part of the middle
    Hessian: a gradient that leaves it out is between a few percent and several times off.
    """

    a: Array
    b: Array
    c: Array
    d: Array
    e: Array
    twist: Array

    def upper(self, x: Array, y: Array, z: Array) -> Array:
        """f₁."""
        xp = namespace(x, y, z)
        return xp.sum((x - 1) ** 2) + xp.sum((self.e @ y) * z) + xp.sum((z - x) ** 2)

    def middle(self, x: Array, y: Array, z: Array) -> Array:
        """f₂."""
        xp = namespace(x, y, z)
        return xp.sum((y - self.c @ x) ** 4) / 4 + xp.sum((y - self.d @ z) ** 2) + xp.sum(y * y)

    def lower(self, x: Array, y: Array, z: Array) -> Array:
        """f₃."""
        xp = namespace(x, y, z)
        squares = (xp.sum((z - self.b @ y) ** 2) + xp.sum(z * z)) / 2
        return xp.sum((z - self.a @ x) ** 4) / 4 + squares + self.twist * xp.sum(x * y * z)

    def problem(self) -> Nested:
        """The problem as nestfold's other functions take it."""
        space = Euclidean(self.a.shape[-1])
        return Nested(self.upper, space, Argmin(self.middle, space), Argmin(self.lower, space))

    def start(self, rng: np.random.Generator) -> tuple[Array, tuple[Array, Array]]:
        """A random x, and y = z = 0."""
        backend = backend_of(self.a)
        x = 0.5 * backend.noise(rng, (self.a.shape[-1],), like=self.a)
        return x, (0 * x, 0 * x)


@dataclass(frozen=True, eq=False)
class ManifoldTrilevel:
    """A curved space at every level: x on Stiefel(n, p), y in SPD(p), z on the unit sphere of Rⁿ.

    f₃ = ½ zᵀ (A + x y xᵀ) z - g·z, f₂ = tr(y (C + xᵀ z zᵀ x)) + tr(y⁻¹ D) + zᵀ x y h,
    f₁ = tr(xᵀ B x N) + zᵀ x k + tr(y E).
    A, B : (n, n); g : (n,); C, D, E, N : (p, p); h, k : (p,).
    """

    a: Array
    b: Array
    c: Array
    d: Array
    e: Array
    n: Array
    g: Array
    h: Array
    k: Array

    def upper(self, x: Array, y: Array, z: Array) -> Array:
        """f₁."""
        xp = namespace(x, y, z)
        return xp.sum((self.b @ x @ self.n) * x) + xp.sum(z * (x @ self.k)) + xp.sum(y * self.e)

    def middle(self, x: Array, y: Array, z: Array) -> Array:
        """f₂."""
        xp, t = namespace(x, y, z), z @ x
        return xp.sum(y * self.c) + t @ y @ (t + self.h) + xp.sum(xp.linalg.inv(y) * self.d)

    def lower(self, x: Array, y: Array, z: Array) -> Array:
        """f₃."""
        xp, t = namespace(x, y, z), z @ x
        return (z @ self.a @ z + t @ y @ t) / 2 - xp.sum(self.g * z)

    def problem(self) -> Nested:
        """The problem as nestfold's other functions take it."""
        n, p = self.g.shape[0], self.h.shape[0]
        return Nested(self.upper, Stiefel(n, p), Argmin(self.middle, SPD(p)), Argmin(self.lower, Sphere(n)))

    def start(self, rng: np.random.Generator) -> tuple[Array, tuple[Array, Array]]:
        """A random x, y = I and z = g / ‖g‖."""
        n, p = self.g.shape[0], self.h.shape[0]
        backend = backend_of(self.g)
        x = Stiefel(n, p).random_point(rng, like=self.g)
        one = backend.xp.eye(p, dtype=self.g.dtype, device=backend.device(self.g))
        return x, (one, self.g / backend.xp.sqrt(backend.xp.sum(self.g * self.g)))


def quartic_trilevel(*, like: Array, d: int = 3, seed: int = 0) -> QuarticTrilevel:
    """Random data, drawn in float64 by NumPy, with the framework, dtype and device of `like`."""
    rng = np.random.default_rng(seed)
    asarray = backend_of(like).asarray
    parts = (*(rng.standard_normal((d, d)) for _ in range(5)), np.asarray(0.1))
    return QuarticTrilevel(*(asarray(part, like=like) for part in parts))


def manifold_trilevel(*, like: Array, n: int = 4, p: int = 2, seed: int = 0) -> ManifoldTrilevel:
    """Random data, drawn in float64 by NumPy, with the framework, dtype and device of `like`.

    The eigenvalues of A lie within [1, 2] and g is long, so that the answer on the sphere is isolated.
    """
    rng = np.random.default_rng(seed)

    def positive(size: int) -> Any:
        q = np.linalg.qr(rng.standard_normal((size, size)))[0]
        return (q * np.linspace(1.0, 2.0, size)) @ q.T

    parts = (
        positive(n),
        rng.standard_normal((n, n)),
        positive(p),
        positive(p),
        rng.standard_normal((p, p)),
        rng.standard_normal((p, p)),
        3 * rng.standard_normal(n),
        0.5 * rng.standard_normal(p),
        rng.standard_normal(p),
    )
    asarray = backend_of(like).asarray
    return ManifoldTrilevel(*(asarray(part, like=like) for part in parts))
