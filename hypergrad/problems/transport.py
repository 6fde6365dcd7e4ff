"""A level on couplings: entropic optimal transport, whose cost matrix moves with x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import DoublyStochastic, Euclidean
from ..level import Argmin
from ..nested import Bilevel
from ._linear import apply, identity

Array = Any
#: Sinkhorn steps to rounding: the costs are of the size of ε, and each step contracts by less than tanh(1)².
_SINKHORN_STEPS = 120


@dataclass(frozen=True, eq=False)
class EntropicTransport:
    """min ⟨G, Γ*⟩ + ½ ‖x‖² over x in R^l, Γ* = argmin ⟨C(x), Γ⟩ + ε ⟨Γ, log Γ⟩ over couplings of p and q.

    C(x) = C₀ + Σ xᵢ Cᵢ. base : C₀ (n, m); slopes : (l, n, m); goal : G (n, m); p : (n,), q : (m,) positive, of sum 1.
    Every method broadcasts over leading axes of x and Γ. Γ* = diag(a) exp(-C/ε) diag(b): Sinkhorn 1967, Cuturi 2013.
    """

    base: Array
    slopes: Array
    goal: Array
    p: Array
    q: Array
    epsilon: float

    def upper(self, x: Array, coupling: Array) -> Array:
        """⟨G, Γ⟩ + ½ ‖x‖², of the shape of the leading axes."""
        xp = namespace(x, coupling)
        return xp.sum(self.goal * coupling, axis=(-2, -1)) + xp.sum(x * x, axis=-1) / 2

    def lower(self, x: Array, coupling: Array) -> Array:
        """⟨C(x), Γ⟩ + ε ⟨Γ, log Γ⟩."""
        xp = namespace(x, coupling)
        return xp.sum(coupling * (self.cost(x) + self.epsilon * xp.log(coupling)), axis=(-2, -1))

    def cost(self, x: Array) -> Array:
        """C(x) : (..., n, m)."""
        l, n, m = self.slopes.shape
        xp = namespace(x, self.slopes)
        return self.base + xp.reshape(x @ xp.reshape(self.slopes, (l, n * m)), (*x.shape[:-1], n, m))

    def solution(self, x: Array) -> Array:
        """Γ*(x) : (..., n, m), by a fixed number of Sinkhorn steps, to rounding."""
        xp = namespace(x)
        kernel = xp.exp(-self.cost(x) / self.epsilon)
        b = xp.ones_like(kernel[..., 0, :])
        a = xp.ones_like(kernel[..., :, 0])
        for _ in range(_SINKHORN_STEPS):
            a = self.p / (kernel @ b[..., None])[..., 0]
            b = self.q / (kernel.mT @ a[..., None])[..., 0]
        return a[..., :, None] * kernel * b[..., None, :]

    def objective(self, x: Array) -> Array:
        """The upper cost at Γ*."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """x - ⟨Cᵢ, Γ ⊙ (G - α1ᵀ - 1βᵀ)⟩/ε, where the product has marginals 0 : (..., l).

        dΓ = -P[Γ ⊙ dC]/ε, P the projection U ↦ U - (α1ᵀ + 1βᵀ) ⊙ Γ onto marginals 0, which is symmetric in ⟨U, V/Γ⟩.
        """
        xp, (l, n, m) = namespace(x), self.slopes.shape
        coupling = self.solution(x)
        weighted = coupling * self.goal
        rows, columns = xp.sum(weighted, axis=-1), xp.sum(weighted, axis=-2)
        # α = (rows - Γβ)/p leaves a system for β whose kernel are the constants; q·β = 0 makes it unique
        spread = coupling / self.p[:, None]
        diagonal = identity(m, like=self.q) * self.q
        schur = diagonal - coupling.mT @ spread + self.q[:, None] * self.q[None, :]
        beta = xp.linalg.solve(schur, (columns - apply(spread.mT, rows))[..., None])[..., 0]
        alpha = (rows - apply(coupling, beta)) / self.p
        projected = weighted - (alpha[..., :, None] + beta[..., None, :]) * coupling
        flat = xp.reshape(projected, (*x.shape[:-1], n * m)) @ xp.reshape(self.slopes, (l, n * m)).mT
        return x - flat / self.epsilon

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        l = self.slopes.shape[0]
        return Bilevel(self.upper, Euclidean(l), Argmin(self.lower, DoublyStochastic(self.p, self.q)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A random x, and the independent coupling p qᵀ."""
        backend = backend_of(self.base)
        x = 0.3 * backend.noise(rng, (self.slopes.shape[0],), like=self.base)
        return x, self.p[:, None] * self.q[None, :]


def entropic_transport(
    *, like: Array, n: int = 5, m: int = 4, terms: int = 3, epsilon: float = 0.5, seed: int = 0
) -> EntropicTransport:
    """Random data with the framework, dtype and device of `like`: costs of the size of ε. Drawn in float64 by NumPy."""
    rng = np.random.default_rng(seed)
    p, q = (0.5 + rng.random(size) for size in (n, m))
    base, slopes = epsilon * rng.random((n, m)), epsilon * rng.uniform(-0.5, 0.5, (terms, n, m))
    asarray = backend_of(like).asarray
    arrays = [asarray(a, like=like) for a in (base, slopes, rng.standard_normal((n, m)), p / p.sum(), q / q.sum())]
    return EntropicTransport(*arrays, epsilon=float(epsilon))
