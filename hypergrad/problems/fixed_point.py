"""A fixed point that is no minimum: a contracting map with W ≠ Wᵀ, with exact derivatives to order two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import backend_of, namespace
from ...manifolds import Euclidean
from ..level import FixedPoint
from ..nested import Bilevel
from ._linear import apply, identity

Array = Any
#: Enough for rounding: plain steps bring the error below 0.8⁸, Newton steps then square it.
_PLAIN_STEPS, _NEWTON_STEPS = 8, 7


@dataclass(frozen=True, eq=False)
class TanhFixedPoint:
    """min ½ ‖y* - t‖² + ½ (e·x) ‖y*‖² + ½ ‖x‖² over x in Rᵖ, where y* = tanh(W y* + U x + b).

    weight : W (n, n), not symmetric, ‖W‖₂ < 1; inputs : U (n, p); bias : b (n,); goal : t (n,); e : (p,).
    Every method broadcasts over leading axes of x and y. W is not symmetric, so that an operator mistaken
    for its transpose is seen.
    """

    weight: Array
    inputs: Array
    bias: Array
    goal: Array
    e: Array

    def upper(self, x: Array, y: Array) -> Array:
        """½ ‖y - t‖² + ½ (e·x) ‖y‖² + ½ ‖x‖², of the shape of the leading axes."""
        xp = namespace(x, y)
        scale = xp.sum(self.e * x, axis=-1)
        fit = xp.sum((y - self.goal) ** 2, axis=-1) + scale * xp.sum(y * y, axis=-1)
        return (fit + xp.sum(x * x, axis=-1)) / 2

    def map(self, x: Array, y: Array) -> Array:
        """tanh(W y + U x + b) : (..., n)."""
        return namespace(x, y).tanh(apply(self.weight, y) + apply(self.inputs, x) + self.bias)

    def solution(self, x: Array) -> Array:
        """y*(x) : (..., n), to rounding: a fixed number of plain steps, then of Newton steps."""
        xp = namespace(x)
        y = xp.tanh(apply(self.inputs, x) + self.bias)
        for _ in range(_PLAIN_STEPS):
            y = self.map(x, y)
        for _ in range(_NEWTON_STEPS):
            after = self.map(x, y)
            y = y + _solve(xp, self._jacobian(after), after - y)
        return y

    def objective(self, x: Array) -> Array:
        """The upper cost at the fixed point."""
        return self.upper(x, self.solution(x))

    def euclidean_gradient(self, x: Array) -> Array:
        """∂ₓf + Uᵀ D μ with (I - D W)ᵀ μ = ∂_y f and D = diag(1 - y²) : (..., p). One dense linear solve."""
        xp, y = namespace(x), self.solution(x)
        f_x, f_y = self._derivatives(x, y)
        return f_x + apply(self.inputs.mT, (1 - y * y) * _solve(xp, self._jacobian(y).mT, f_y))

    def hessian_product(self, x: Array, u: Array) -> Array:
        """The derivative of `euclidean_gradient` along u : (..., p). Two more dense linear solves."""
        xp, y = namespace(x, u), self.solution(x)
        slope, jacobian = 1 - y * y, self._jacobian(y)
        _, f_y = self._derivatives(x, y)
        adjoint = _solve(xp, jacobian.mT, f_y)
        y_dot = _solve(xp, jacobian, slope * apply(self.inputs, u))
        slope_dot = -2 * y * y_dot
        f_x_dot, f_y_dot = self._second_derivatives(x, y, u, y_dot)
        right = f_y_dot + apply(self.weight.mT, slope_dot * adjoint)
        adjoint_dot = _solve(xp, jacobian.mT, right)
        return f_x_dot + apply(self.inputs.mT, slope_dot * adjoint + slope * adjoint_dot)

    def problem(self) -> Bilevel:
        """The problem as nestfold's other functions take it."""
        n, p = self.inputs.shape[-2:]
        return Bilevel(self.upper, Euclidean(p), FixedPoint(self.map, Euclidean(n)))

    def start(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """A random x, and y = 0."""
        backend = backend_of(self.e)
        return backend.noise(rng, tuple(self.e.shape), like=self.e), 0 * self.bias

    def _jacobian(self, y: Array) -> Array:
        """I - D W, D = diag(1 - y²), the derivative of y - map(x, y) where y = map(x, y) : (..., n, n)."""
        return identity(self.bias.shape[-1], like=self.bias) - (1 - y * y)[..., None] * self.weight

    def _derivatives(self, x: Array, y: Array) -> tuple[Array, Array]:
        """∂ₓf (..., p) and ∂_y f (..., n)."""
        xp = namespace(x, y)
        f_x = x + self.e * xp.sum(y * y, axis=-1, keepdims=True) / 2
        return f_x, y * (1 + xp.sum(self.e * x, axis=-1, keepdims=True)) - self.goal

    def _second_derivatives(self, x: Array, y: Array, u: Array, v: Array) -> tuple[Array, Array]:
        """The derivatives of ∂ₓf and ∂_y f along (u, v)."""
        xp = namespace(x, y)
        along_x, along_u = (xp.sum(self.e * a, axis=-1, keepdims=True) for a in (x, u))
        return u + self.e * xp.sum(y * v, axis=-1, keepdims=True), v * (1 + along_x) + y * along_u


def _solve(xp: Any, a: Array, b: Array) -> Array:
    """a⁻¹ b for vectors b : (..., n) over leading axes."""
    return xp.linalg.solve(a, b[..., None])[..., 0]


def tanh_fixed_point(*, like: Array, n: int = 8, p: int = 3, contraction: float = 0.8, seed: int = 0) -> TanhFixedPoint:
    """Random data with the framework, dtype and device of `like`; ‖W‖₂ = contraction < 1.

    Drawn in float64 by NumPy.
    """
    if not 0 <= contraction < 1:
        raise ValueError(f"the map contracts only if 0 <= contraction < 1, got {contraction}")
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n, n))
    inputs = rng.standard_normal((n, p)) / p**0.5
    vectors = (0.5 * rng.standard_normal(n), rng.standard_normal(n), 0.3 * rng.standard_normal(p))
    asarray = backend_of(like).asarray
    parts = (contraction * weight / np.linalg.norm(weight, 2), inputs, *vectors)
    return TanhFixedPoint(*(asarray(part, like=like) for part in parts))
