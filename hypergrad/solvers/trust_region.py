"""The Riemannian trust-region method: Newton's method that is safe far from the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends import Backend
from .._floats import from_arrays, quick_numbers, to_arrays
from .._settings import require_count, require_number
from .._space import Space, epsilon
from .._system import tangent_system
from ..level import Level
from ..linear import System
from ..solution import Solution, is_finite
from ._base import Solver, cost_scale, default_tolerance, first_leaf, require_argmin
from ._measured import Measured, choose, measure
from .steps import quietly

Array = Any
Tree = Any


@dataclass(frozen=True)
class TrustRegion(Solver):
    """Steihaug-CG on the exact Riemannian Hessian, in the metric; quadratic convergence.

    Converged where ‖grad‖ ≤ tol · scale (see `cost_scale`: the size of the cost), or after a Newton step of length
    ≤ tol in the metric; `tol=None` is eps^(3/4) of the dtype, and no tolerance is taken below 10 eps. `radius` is the
    first trust radius in the metric, by default half the root of the number of coordinates. The ratio of actual to
    predicted decrease is regularized by 10³ eps |cost|, so that rounding does not reject the last steps. Absil, Baker &
    Gallivan 2007; regularization as in Conn, Gould & Toint 2000, §17.4.2.
    """

    tol: float | None = None
    max_steps: int = 100
    radius: float | None = None
    max_products: int | None = None

    def __post_init__(self) -> None:
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)
        require_number(self, "radius", above=0)
        require_count(self, "max_products", least=1)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp
        noise, tol = 1e3 * epsilon(first_leaf(init)), default_tolerance(first_leaf(init), self.tol)
        size = space.size(init)
        max_products = self.max_products or min(size, 1000)

        with quietly():
            start = measure(backend, level, outer, space, init)

        def limit(at: Measured) -> Array:
            return tol * cost_scale(xp, at.value, start.value, start.norm)

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            at, radius, k, met, done = state
            system = tangent_system(backend, level, outer, at.point, space)
            w = system.enter(at.covector)
            goal = at.norm * xp.minimum(0.1 + 0 * at.norm, space.ratio(at.norm, start.norm))
            goal = xp.maximum(goal, 0.1 * limit(at))
            eta, image, eta_eta, at_boundary = _steihaug(system, w, radius, goal, done, max_products)
            predicted = -(space.dot(w, eta) + 0.5 * space.dot(image, eta))
            new = measure(backend, level, outer, space, manifold.retract(at.point, system.leave(eta)))
            slack = noise * xp.maximum(xp.abs(at.value), xp.abs(start.value))
            ratio = space.ratio(at.value - new.value + slack, predicted + slack)
            good = xp.logical_and(
                xp.logical_and(xp.isfinite(new.value), xp.isfinite(new.norm)), is_finite(space, new.point)
            )
            at_floor = predicted <= slack  # rounding of the cost hides any decrease: only the gradient can tell
            worse = xp.logical_and(at_floor, new.norm > at.norm)
            accepted = xp.logical_and(xp.logical_and(good, ratio > 0.1), ~xp.logical_or(done, worse))
            shrink = xp.logical_or(~good, ratio < 0.25)
            grow = xp.logical_and(ratio > 0.75, at_boundary)
            new_radius = xp.where(shrink, 0.25 * radius, xp.where(grow, 2 * radius, radius))
            kept = choose(space, accepted, new, at)
            stalled = xp.logical_and(at_floor, new.norm > 0.5 * at.norm)
            short = xp.logical_and(xp.logical_and(good, eta_eta <= tol**2), ~xp.logical_or(at_boundary, done))
            met = xp.logical_or(met, short)
            finished = xp.logical_or(xp.logical_or(kept.norm <= limit(kept), met), stalled)
            radius = xp.where(done, radius, new_radius)
            return kept, radius, k + xp.astype(~done, k.dtype), met, xp.logical_or(done, finished)

        radius = space.full(0.5 * size**0.5 if self.radius is None else self.radius, start.norm)
        stop = xp.logical_or(start.norm <= limit(start), ~xp.isfinite(start.norm))
        state = (start, radius, space.counts(start.norm), space.flags(False, start.norm), stop)
        at, _, k, met, _ = backend.while_loop(running, step, state, max_steps=self.max_steps)
        small = xp.logical_and(at.norm <= limit(at), xp.isfinite(at.norm))
        return Solution(at.point, at.norm, k, xp.logical_or(met, small))


class _Inner(NamedTuple):
    """The state of truncated CG: η and Bη, the residual r and direction p, ‖r‖² in the metric, ⟨η, p⟩, ‖p‖², ‖η‖²."""

    eta: Tree
    image: Tree
    r: Tree
    p: Tree
    rho: Array
    eta_p: Array
    p_p: Array
    eta_eta: Array
    at_boundary: Array
    going: Array


def _steihaug(
    system: System, w: Tree, radius: Array, goal: Array, skip: Array, max_products: int
) -> tuple[Tree, Tree, Array, Array]:
    """The step η that lowers w·η + ½ η·Bη within ‖η‖ ≤ radius, with Bη, ‖η‖² and whether it ends at the boundary.

    Norms of η in the metric by recurrence: ‖η + a p‖² = ‖η‖² + 2a⟨η, p⟩ + a²‖p‖² (Conn, Gould & Toint 2000,
    alg. 7.5.1), so that only products with B and `sharp` are needed.
    """
    whole, space, apply, raise_ = system.space, quick_numbers(system.space, w), system.apply, system.raise_
    radius, goal, going = from_arrays(space, radius, goal, whole.backend.xp.logical_not(skip))
    r, z, zero = w, raise_(w), whole.zeros(w)
    rho = space.dot(r, z)
    nothing = space.constant(0.0, rho)

    def running(state: _Inner) -> Any:
        return space.any(state.going)

    def step(state: _Inner) -> _Inner:
        eta, image, r, p, rho, eta_p, p_p, eta_eta, at_boundary, going = state
        q = apply(p)
        curvature = space.dot(p, q)
        alpha = space.ratio(rho, curvature)
        reach = eta_eta + 2 * alpha * eta_p + alpha * alpha * p_p
        leaves_region = (curvature <= 0) | (reach >= radius * radius)
        root = space.root(space.larger(eta_p * eta_p + p_p * (radius * radius - eta_eta), nothing))
        to_boundary = space.ratio(root - eta_p, p_p)
        alpha = space.select(going, space.select(leaves_region, to_boundary, alpha), nothing)
        eta, image, r = space.axpy(alpha, p, eta), space.axpy(alpha, q, image), space.axpy(alpha, q, r)
        z = raise_(r)
        new = space.dot(r, z)
        beta = space.ratio(new, rho)
        inside = (curvature > 0) & (reach < radius * radius)
        return _Inner(
            eta,
            image,
            r,
            space.subtract(space.scale(beta, p), z),
            new,
            beta * (eta_p + alpha * p_p),
            new + beta * beta * p_p,
            space.select(going, reach, eta_eta),
            at_boundary | (leaves_region & going),
            going & inside & (new > goal * goal) & (new < math.inf),
        )

    p = space.scale(space.constant(-1.0, rho), z)
    state = _Inner(zero, zero, r, p, rho, nothing, rho, nothing, space.flags(False, rho), going)
    end = whole.backend.while_loop(running, step, state, max_steps=max_products)
    return end.eta, end.image, *to_arrays(whole, first_leaf(w), end.eta_eta, end.at_boundary)
