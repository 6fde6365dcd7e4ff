"""Logistic regression with one penalty per feature: the experiment of Grazzi et al. (2020)."""

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
#: Newton steps from w = 0, damped by halves at first: far more than these well-conditioned problems need.
_NEWTON_STEPS = 12


@dataclass(frozen=True, eq=False)
class Logistic:
    """min mean log(1 + exp(-t' X' w*)) over x in Rᵖ, w* = argmin mean log(1 + exp(-t X w)) + ½ Σ exp(xⱼ) wⱼ².

    features : X (n, p) and labels : t (n,) of ±1; held_out : X' (m, p) and goals : t' (m,). Every method broadcasts
    over leading axes of x and w.
    """

    features: Array
    labels: Array
    held_out: Array
    goals: Array

    def upper(self, x: Array, w: Array) -> Array:
        """The mean logistic loss of w on the data held out, of the shape of the leading axes."""
        return self._loss(self.held_out, self.goals, w)

    def lower(self, x: Array, w: Array) -> Array:
        """The mean logistic loss on the training data + ½ Σ exp(xⱼ) wⱼ²."""
        xp = namespace(x, w)
        return self._loss(self.features, self.labels, w) + xp.sum(xp.exp(x) * w * w, axis=-1) / 2

    def matrix(self, x: Array, w: Array) -> Array:
        """The Hessian of the lower cost at w, Xᵀ diag(s (1 - s)) X/n + diag(exp x) : (..., p, p)."""
        s = self._doubt(self.features, self.labels, w)
        weights = (s * (1 - s))[..., None] * self.features / self.labels.shape[0]
        diagonal = identity(x.shape[-1], like=self.features) * namespace(x).exp(x)[..., None, :]
        return self.features.mT @ weights + diagonal

    def solution(self, x: Array) -> Array:
        """w*(x) : (..., p), to rounding: a fixed number of Newton steps from w = 0."""
        xp, w = namespace(x), 0 * x
        for _ in range(_NEWTON_STEPS):
            slope = self._slope(self.features, self.labels, w) + xp.exp(x) * w
            w = w - _solve(xp, self.matrix(x, w), slope)
        return w

    def objective(self, x: Array) -> Array:
        """The upper cost at w*."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """-exp(xⱼ) wⱼ vⱼ, v the Hessian's solution for the slope of the upper cost : (..., p)."""
        xp, w = namespace(x), self.solution(x)
        v = _solve(xp, self.matrix(x, w), self._slope(self.held_out, self.goals, w))
        return -xp.exp(x) * w * v

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        p = self.features.shape[-1]
        return Bilevel(self.upper, Euclidean(p), Argmin(self.lower, Euclidean(p)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """X near -1, penalties near exp(-1), and w = 0."""
        backend = backend_of(self.features)
        x = backend.noise(rng, (self.features.shape[-1],), like=self.features)
        return 0.5 * x - 1, 0 * x

    def _loss(self, features: Array, labels: Array, w: Array) -> Array:
        xp = namespace(w)
        margins = labels * apply(features, w)
        return xp.mean(xp.logaddexp(xp.zeros_like(margins), -margins), axis=-1)

    def _doubt(self, features: Array, labels: Array, w: Array) -> Array:
        """1 / (1 + exp(t X w)), the probability of the other label."""
        return 0.5 - 0.5 * namespace(w).tanh(labels * apply(features, w) / 2)

    def _slope(self, features: Array, labels: Array, w: Array) -> Array:
        """The gradient of the mean loss."""
        return apply(features.mT, -labels * self._doubt(features, labels, w)) / labels.shape[0]


def _solve(xp: Any, a: Array, b: Array) -> Array:
    return xp.linalg.solve(a, b[..., None])[..., 0]


def logistic(*, like: Array, n: int = 50, p: int = 6, noise: float = 0.1, seed: int = 0) -> Logistic:
    """Random data with the framework, dtype and device of `like`: t = sign(X w + noise ε), n to train, n held out.

    Drawn in float64 by NumPy.
    """
    rng = np.random.default_rng(seed)
    asarray, weights = backend_of(like).asarray, rng.standard_normal(p)
    features, held_out = rng.standard_normal((2, n, p))
    labels, goals = (np.sign(a @ weights + noise * rng.standard_normal(n)) for a in (features, held_out))
    return Logistic(*(asarray(a, like=like) for a in (features, labels, held_out, goals)))
