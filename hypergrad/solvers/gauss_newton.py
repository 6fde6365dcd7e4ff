"""The Gauss-Newton method, damped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...backends import Backend
from ...backends._trees import tree_map
from ...manifolds import Manifold
from ...manifolds._flat import is_linear_space
from .._settings import require_count, require_kind, require_number
from .._space import Space, epsilon
from ..level import Apply, Argmin, Level, derivative
from ..linear import CG, LinearSolver, System
from ..solution import Solution, is_finite
from ._base import Solver, cost_scale, default_tolerance, first_leaf, point_norm
from ._parts import flat
from .steps import quietly

Array = Any
Tree = Any
#: 2ⁿ, n the steps in a row that may fail where rounding hides any decrease of the cost
_PATIENCE = 2**6


class _Measured(NamedTuple):
    """A point, ½ ‖r‖² there, its projected differential Jᵀ r, and the norm of that in the metric."""

    point: Tree
    value: Array
    covector: Tree
    norm: Array


@dataclass(frozen=True)
class GaussNewton(Solver):
    """Solve (Jᵀ J + μ g) v = -Jᵀ r in the tangent space, y ← R_y(v): least squares without second derivatives.

    For a `LeastSquares` level; and for a `Root` or a `FixedPoint`, of which it minimizes ½ |field|² or
    ½ |y - map(y)|² in the ambient norm (Fan et al. 2025, §2): no contraction is needed. J, the derivative of the
    residuals r along tangent vectors, is recorded once a step, g is the metric, and a product with the matrix costs
    one with J and one with Jᵀ. `linear` solves the system; roughly will do, `CG` to 10⁻³ by default.

    μ starts at `damping` times the curvature of the model along the gradient, shrinks by up to 3 where the model
    predicts well, and grows by 2, 4, 8, … where it fails (Nielsen 1999; Madsen, Nielsen & Tingleff 2004, alg. 3.16;
    Levenberg 1944, Marquardt 1963). Convergence is superlinear where the residuals vanish and `linear` is exact, else
    linear.

    Least squares have converged where ‖grad‖ ≤ tol · scale (see `cost_scale`: the size of the cost); a `Root` or
    `FixedPoint` where |residual| ≤ tol · max(1, |y|), not at a minimum that is no answer. `tol=None` is eps^(3/4)
    of the dtype, and no tolerance is taken below 10 eps. A run that meets a non-finite value stops at the last finite
    point. Raises `TypeError` for an `Argmin` that is no `LeastSquares`.
    """

    linear: LinearSolver = field(default_factory=lambda: CG(tol=1e-3))
    damping: float = 1e-3
    tol: float | None = None
    max_steps: int = 500

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)
        require_number(self, "damping", above=0)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        xp, manifold, residuals = backend.xp, level.manifold, _residuals(backend, level, outer)
        fits = isinstance(level, Argmin)
        noise, tol = 1e3 * epsilon(first_leaf(init)), default_tolerance(first_leaf(init), self.tol)

        def measure(y: Tree) -> _Measured:
            r, pull = backend.vjp(residuals, y)
            w = manifold.project(y, pull(r)[0])
            slope = space.dot(w, manifold.sharp(y, w))
            return _Measured(*backend.stop_gradient((y, space.dot(r, r) / 2, w, xp.sqrt(xp.abs(slope)))))

        def within(at: _Measured, start: _Measured) -> Array:
            if fits:
                return at.norm <= tol * cost_scale(xp, at.value, start.value, start.norm)
            size = point_norm(space, at.point)
            return xp.logical_and(
                xp.sqrt(2 * at.value) <= tol * xp.maximum(size, xp.ones_like(size)), xp.isfinite(size)
            )

        def step(state: Any) -> Any:
            at, mu, factor, k, done = state
            push, pull = derivative(backend, residuals, at.point)
            system = _system(level.manifold, push, pull, at.point, space, mu)
            v = self.linear.solve(system, tree_map(lambda a: -a, at.covector)).value
            new = measure(manifold.retract(at.point, v))
            image = push(v)
            predicted = -(space.dot(at.covector, v) + space.dot(image, image) / 2)
            slack = noise * at.value
            ratio = space.ratio(at.value - new.value + slack, predicted + slack)
            good = xp.logical_and(
                xp.logical_and(xp.isfinite(new.value), xp.isfinite(new.norm)), is_finite(space, new.point)
            )
            at_floor = predicted <= slack  # rounding of the cost hides any decrease: only the gradient can tell
            worse = xp.logical_and(at_floor, new.norm > at.norm)
            taken = xp.logical_and(xp.logical_and(good, ratio > 1e-3), ~xp.logical_or(done, worse))
            stalled = xp.logical_and(xp.logical_and(at_floor, ~taken), factor > _PATIENCE)
            shrink = xp.maximum(1 - (2 * ratio - 1) ** 3, xp.full_like(ratio, 1 / 3))
            kept = _Measured(*(space.where(taken, a, b) for a, b in zip(new, at, strict=True)))
            mu = xp.where(taken, mu * xp.minimum(shrink, xp.full_like(ratio, 2.0)), mu * factor)
            factor = xp.where(taken, xp.full_like(factor, 2.0), 2 * factor)
            over = xp.logical_or(xp.logical_or(within(kept, start), stalled), ~xp.isfinite(mu))
            return kept, mu, factor, k + xp.astype(~done, k.dtype), xp.logical_or(done, over)

        with quietly():
            start = measure(init)
            stop = xp.logical_or(within(start, start), ~xp.isfinite(start.norm + start.value))
            mu = self.damping * _curvature(backend, level, residuals, start, space)
            state = (start, mu, xp.full_like(mu, 2.0), space.counts(mu), stop)
            at, _, _, k, _ = backend.while_loop(
                lambda s: xp.logical_not(space.all(s[-1])), step, state, max_steps=self.max_steps
            )
            left = at.norm if fits else xp.sqrt(2 * at.value)
            return Solution(at.point, left, k, xp.logical_and(within(at, start), xp.isfinite(left)))


def _residuals(backend: Backend, level: Level, outer: tuple[Tree, ...]) -> Callable[[Tree], Tree]:
    """What is to be small, as a function of y."""
    if not isinstance(level, Argmin):
        return lambda y: level.residual(backend, outer, y)
    if level.residuals is None:
        raise TypeError(
            "GaussNewton needs the residuals of which a cost is the sum of squares: give LeastSquares(residuals, "
            "manifold), or take TrustRegion() for another Argmin"
        )
    function = level.residuals
    return lambda y: function(*outer, y)


def _system(manifold: Manifold, push: Apply, pull: Apply, y: Tree, space: Space, mu: Array) -> System:
    """v ↦ P Jᵀ J v + μ g v at y."""

    def lower(v: Tree) -> Tree:
        return v if is_linear_space(manifold) else flat(manifold, y, v)

    def apply(v: Tree) -> Tree:
        return space.axpy(mu, lower(v), manifold.project(y, pull(push(v))))

    return System(
        space=space,
        apply=apply,
        transpose=apply,
        raise_=lambda w: manifold.sharp(y, w),
        project=lambda v: manifold.project(y, v),
        self_adjoint=True,
    )


def _curvature(backend: Backend, level: Level, residuals: Callable[[Tree], Tree], at: _Measured, space: Space) -> Array:
    """‖J u‖²/‖u‖² along the gradient u."""
    unit = space.unit(at.covector)
    w = space.divide(at.covector, unit)
    u = level.manifold.sharp(at.point, w)
    image = backend.jvp(residuals, (at.point,), (u,))[1]
    return backend.stop_gradient(space.ratio(space.dot(image, image), space.dot(w, u)))
