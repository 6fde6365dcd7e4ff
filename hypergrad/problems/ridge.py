"""Ridge regression with one penalty per feature: a quadratic lower level in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import Euclidean
from ..level import Argmin
from ..nested import Bilevel
from ._linear import apply, identity

Array = Any


@dataclass(frozen=True, eq=False)
class Ridge:
    """min 1/2m ‖X' w* - t'‖² over x in Rᵖ, w* = argmin 1/2n ‖X w - t‖² + ½ Σ exp(xⱼ) wⱼ².

    features : X (n, p); targets : t (n,); held_out : X' (m, p) and goals : t' (m,). Every method broadcasts over
    leading axes of x and w. The Hessian of the lower cost is H = XᵀX/n + diag(exp x).
    """

    features: Array
    targets: Array
    held_out: Array
    goals: Array

    def upper(self, x: Array, w: Array) -> Array:
        """1/2m ‖X' w - t'‖², of the shape of the leading axes."""
        return namespace(x, w).sum((apply(self.held_out, w) - self.goals) ** 2, axis=-1) / (2 * self.goals.shape[0])

    def lower(self, x: Array, w: Array) -> Array:
        """1/2n ‖X w - t‖² + ½ Σ exp(xⱼ) wⱼ²."""
        xp = namespace(x, w)
        fit = xp.sum((apply(self.features, w) - self.targets) ** 2, axis=-1) / (2 * self.targets.shape[0])
        return fit + xp.sum(xp.exp(x) * w * w, axis=-1) / 2

    def matrix(self, x: Array) -> Array:
        """H = XᵀX/n + diag(exp x) : (..., p, p)."""
        gram = self.features.mT @ self.features / self.targets.shape[0]
        return gram + identity(gram.shape[-1], like=gram) * namespace(x).exp(x)[..., None, :]

    def solution(self, x: Array) -> Array:
        """w*(x) = H⁻¹ Xᵀt/n : (..., p)."""
        right = self.features.mT @ self.targets / self.targets.shape[0]
        return namespace(x).linalg.solve(self.matrix(x), (0 * x + right)[..., None])[..., 0]

    def objective(self, x: Array) -> Array:
        """The upper cost at w*."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """-exp(xⱼ) wⱼ vⱼ with H v = X'ᵀ(X' w - t')/m : (..., p)."""
        xp, w = namespace(x), self.solution(x)
        slope = apply(self.held_out.mT, apply(self.held_out, w) - self.goals) / self.goals.shape[0]
        return -xp.exp(x) * w * xp.linalg.solve(self.matrix(x), slope[..., None])[..., 0]

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        p = self.features.shape[-1]
        return Bilevel(self.upper, Euclidean(p), Argmin(self.lower, Euclidean(p)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A random x, and w = 0."""
        backend = backend_of(self.features)
        x = backend.noise(rng, (self.features.shape[-1],), like=self.features)
        return x, 0 * x


def ridge(*, like: Array, n: int = 30, p: int = 6, noise: float = 0.1, seed: int = 0) -> Ridge:
    """Random data with the framework, dtype and device of `like`, n samples to train and n held out.

    Half of the true weights are zero. Drawn in float64 by NumPy.
    """
    rng = np.random.default_rng(seed)
    asarray, weights = backend_of(like).asarray, rng.standard_normal(p)
    weights[::2] = 0
    features, held_out = rng.standard_normal((2, n, p))
    targets, goals = (a @ weights + noise * rng.standard_normal(n) for a in (features, held_out))
    return Ridge(*(asarray(a, like=like) for a in (features, targets, held_out, goals)))
