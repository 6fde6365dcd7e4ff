"""The synthetic Stiefel × SPD problem of Han, Mishra, Jawanpuria and Takeda (2024), with exact answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import ShapeError, backend_of, namespace
from ...manifolds import SPD, Stiefel
from ...manifolds._lyapunov import definite_lyapunov
from ..level import Argmin
from ..nested import Bilevel
from ._linear import identity, symmetric

Array = Any


@dataclass(frozen=True, eq=False)
class Synthetic:
    """min -tr(M* XᵀY Wᵀ) over W in St(d, r), where M* = argmin ⟨M, XᵀX⟩ + ⟨M⁻¹, W YᵀY Wᵀ + νI⟩ over SPD(d).

    a : A = XᵀX (d, d), positive definite; c : C = XᵀY (d, r); k : YᵀY (r, r); nu : ν > 0. Every method
    broadcasts over leading axes: w (..., d, r) and m (..., d, d) are a batch of independent problems.

    Han et al. 2024, section 4.1. The closed forms follow from the lower problem's optimality condition
    M A M = B(W) := W YᵀY Wᵀ + νI.
    """

    a: Array
    c: Array
    k: Array
    nu: float

    def upper(self, w: Array, m: Array) -> Array:
        """-tr(M XᵀY Wᵀ), of the shape of the leading axes."""
        return -namespace(w, m).sum((m @ self.c) * w, axis=(-2, -1))

    def lower(self, w: Array, m: Array) -> Array:
        """⟨M, XᵀX⟩ + ⟨M⁻¹, W YᵀY Wᵀ + νI⟩, of the shape of the leading axes."""
        xp = namespace(w, m)
        return xp.sum(m * self.a + xp.linalg.inv(m) * self.target(w), axis=(-2, -1))

    def target(self, w: Array) -> Array:
        """B(W) = W YᵀY Wᵀ + νI : (..., d, d)."""
        return w @ (self.k @ w.mT) + self.nu * identity(self.a.shape[-1], like=self.a)

    def solution(self, w: Array) -> Array:
        """M*(W) = A⁻¹ # B, the geometric mean: with A = L Lᵀ it is L⁻ᵀ (Lᵀ B L)^½ L⁻¹. Solves M A M = B."""
        _, basis, roots = self._decompose(w)
        half = basis * namespace(w).sqrt(roots)[..., None, :]
        return half @ half.mT

    def objective(self, w: Array) -> Array:
        """The upper cost at the lower solution."""
        return self.upper(w, self.solution(w))

    def euclidean_gradient(self, w: Array) -> Array:
        """-M* C + 2 B̄ W YᵀY : (..., d, r), the derivative of `objective` in the ambient space.

        B̄ is the derivative with respect to B: in N = (Lᵀ B L)^½ it is L Z Lᵀ with the Lyapunov equation
        N Z + Z N = -sym(L⁻¹ C Wᵀ L⁻ᵀ), solved in the eigenbasis of N.
        """
        dual, basis, roots = self._decompose(w)
        right = symmetric((basis.mT @ self.c) @ (w.mT @ basis))
        z = -right / (roots[..., :, None] + roots[..., None, :])
        direct = (basis * roots[..., None, :]) @ (basis.mT @ self.c)
        return 2 * (dual @ (z @ (dual.mT @ (w @ self.k)))) - direct

    def hessian(self, w: Array, m: Array, u: Array) -> Array:
        """Hess_M g [U] = ½ (U A M + M A U + U M⁻¹ B + B M⁻¹ U), g the lower cost, at every M : (..., d, d)."""
        half = (m @ self.a + self.target(w) @ namespace(m).linalg.inv(m)) @ u
        return symmetric(half)

    def inverse_hessian(self, w: Array, m: Array, u: Array) -> Array:
        """V with `hessian(w, m, V)` = U, at every M : (..., d, d). One Lyapunov equation.

        With M = L Lᵀ and V = L Z Lᵀ it is S Z + Z S = 2 L⁻¹ U L⁻ᵀ, S = Lᵀ A L + L⁻¹ B L⁻ᵀ (HINV of Han et al. 2024).
        """
        xp = namespace(m)
        factor = xp.linalg.cholesky(m)
        inverse = xp.linalg.inv(factor)
        weights = symmetric(factor.mT @ self.a @ factor + inverse @ self.target(w) @ inverse.mT)
        return factor @ definite_lyapunov(weights, 2 * symmetric(inverse @ u @ inverse.mT)) @ factor.mT

    def _decompose(self, w: Array) -> tuple[Array, Array, Array]:
        """L Q, L⁻ᵀ Q and s with A = L Lᵀ and Lᵀ B L = Q diag(s²) Qᵀ, so that M* = (L⁻ᵀQ) diag(s) (L⁻ᵀQ)ᵀ."""
        xp = namespace(w)
        factor = xp.linalg.cholesky(self.a)
        squares, q = xp.linalg.eigh(symmetric(factor.mT @ self.target(w) @ factor))
        return factor @ q, xp.linalg.inv(factor).mT @ q, xp.sqrt(squares)

    def problem(self, *, known: bool = False) -> Bilevel:
        """The problem as nestfold's other functions take it; with `known` its Hessian and the inverse come with it."""
        d, r = self.c.shape[-2:]
        operators = (self.hessian, self.inverse_hessian) if known else ()
        return Bilevel(self.upper, Stiefel(d, r), Argmin(self.lower, SPD(d), *operators))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A random W on the Stiefel manifold, and M = I, the paper's start."""
        d, r = self.c.shape[-2:]
        return Stiefel(d, r).random_point(rng, like=self.a), identity(d, like=self.a)


def synthetic(*, like: Array, d: int = 50, r: int = 20, n: int = 100, nu: float = 0.01, seed: int = 0) -> Synthetic:
    """The paper's data: X (n, d) and Y (n, r) Gaussian, each divided by its Frobenius norm; n >= d >= r.

    Drawn and multiplied in float64 by NumPy, then given the framework, dtype and device of `like`. Raises
    `ShapeError` where XᵀX would be singular or W could not have orthonormal columns.
    """
    if not n >= d >= r >= 1:
        raise ShapeError(f"the synthetic problem needs n >= d >= r >= 1, got n={n}, d={d}, r={r}")
    rng = np.random.default_rng(seed)
    x, y = (m / np.linalg.norm(m) for m in (rng.standard_normal((n, d)), rng.standard_normal((n, r))))
    asarray = backend_of(like).asarray
    return Synthetic(*(asarray(p, like=like) for p in (x.T @ x, x.T @ y, y.T @ y)), nu=float(nu))
