"""The Riemannian trust-region method: Newton's method that is safe far from the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._space import Space, epsilon
from ..level import Level
from ..solution import Solution, is_finite
from ._base import Solver, default_tolerance, first_leaf, require_argmin

Array = Any
Tree = Any


@dataclass(frozen=True)
class TrustRegion(Solver):
    """Steihaug-CG on the exact Riemannian Hessian, in the metric; quadratic convergence.

    Converged where ‖grad‖ ≤ tol · max(1, |cost|); `tol=None` is eps^(3/4) of the dtype, and no tolerance is taken
    below 10 eps. `radius` is the first trust radius in the metric, by default half the root of the dimension. The
    ratio of actual to predicted decrease is regularised by 10³ eps |cost|, so that rounding does not reject the
    last steps. Absil, Baker & Gallivan 2007; regularisation as in Conn, Gould & Toint 2000, §17.4.2.
    """

    tol: float | None = None
    max_steps: int = 100
    radius: float | None = None
    max_products: int | None = None

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, manifold, xp = require_argmin(self, level), level.manifold, backend.xp
        noise, tol = 1e3 * epsilon(first_leaf(init)), default_tolerance(first_leaf(init), self.tol)
        size = space.size(init)
        max_products = self.max_products or min(size, 1000)
        first, w0 = level.value_and_residual(backend, outer, init)
        w0 = manifold.project(init, w0)
        start_norm = xp.sqrt(xp.abs(space.dot(w0, manifold.sharp(init, w0))))

        def running(state: Any) -> Any:
            return xp.logical_not(xp.all(state[-1]))

        def step(state: Any) -> Any:
            y, _, radius, k, before, at_floor, _, done = state
            value, w = level.value_and_residual(backend, outer, y)
            w = manifold.project(y, w)
            g = manifold.sharp(y, w)
            norm = xp.sqrt(xp.abs(space.dot(w, g)))
            limit = tol * xp.maximum(xp.abs(value), xp.ones_like(value))
            converged = norm <= limit
            stalled = xp.logical_and(at_floor, norm > 0.5 * before)
            done = xp.logical_or(xp.logical_or(done, xp.logical_or(converged, stalled)), ~xp.isfinite(norm))
            form, _ = level.operator(backend, outer, y)
            goal = xp.maximum(norm * xp.minimum(0.1 + 0 * norm, space.ratio(norm, start_norm)), 0.1 * limit)
            eta, image, at_boundary = _steihaug(
                space,
                lambda v: manifold.project(y, form(v)),
                lambda c: manifold.sharp(y, c),
                (w, g),
                radius,
                goal,
                done,
                max_products,
            )
            moved = manifold.retract(y, eta)
            new_value = level.cost(*outer, moved)
            predicted = -(space.dot(w, eta) + 0.5 * space.dot(image, eta))
            slack = noise * xp.maximum(xp.abs(value), xp.abs(first))
            ratio = space.ratio(value - new_value + slack, predicted + slack)
            good = xp.logical_and(xp.isfinite(new_value), is_finite(space, moved))
            accepted = xp.logical_and(xp.logical_and(good, ratio > 0.1), ~done)
            shrink = xp.logical_or(~good, ratio < 0.25)
            grow = xp.logical_and(ratio > 0.75, at_boundary)
            new_radius = xp.where(shrink, 0.25 * radius, xp.where(grow, 2 * radius, radius))
            return (
                space.where(accepted, moved, y),
                norm,
                xp.where(done, radius, new_radius),
                k + xp.astype(~done, k.dtype),
                norm,
                predicted <= slack,
                converged,
                done,
            )

        radius = 0.5 * size**0.5 if self.radius is None else self.radius
        no = space.flags(False, start_norm)
        state = (init, start_norm, space.full(radius, start_norm), space.counts(start_norm), start_norm, no, no, no)
        y, norm, _, k, _, _, converged, _ = backend.while_loop(running, step, state, max_steps=self.max_steps + 1)
        return Solution(y, norm, k, converged)


def _steihaug(
    space: Space,
    apply: Callable[[Tree], Tree],
    raise_: Callable[[Tree], Tree],
    gradient: tuple[Tree, Tree],
    radius: Array,
    goal: Array,
    skip: Array,
    max_products: int,
) -> tuple[Tree, Tree, Array]:
    """The step η that lowers w·η + ½ η·Bη within ‖η‖ ≤ radius, with Bη and whether it ends at the boundary.

    Norms of η in the metric by recurrence: ‖η + a p‖² = ‖η‖² + 2a⟨η, p⟩ + a²‖p‖² (Conn, Gould & Toint 2000,
    alg. 7.5.1), so that only products with B and `sharp` are needed.
    """
    xp = space.backend.xp
    r, z = gradient
    zero = space.zeros(z)
    rho = space.dot(r, z)
    nothing = xp.zeros_like(rho)

    def running(state: Any) -> Any:
        return xp.logical_not(xp.all(state[-1]))

    def step(state: Any) -> Any:
        eta, image, r, p, rho, eta_p, p_p, eta_eta, at_boundary, done = state
        q = apply(p)
        curvature = space.dot(p, q)
        alpha = space.ratio(rho, curvature)
        reach = eta_eta + 2 * alpha * eta_p + alpha**2 * p_p
        leaves_region = xp.logical_or(curvature <= 0, reach >= radius**2)
        root = xp.sqrt(xp.maximum(eta_p**2 + p_p * (radius**2 - eta_eta), nothing))
        to_boundary = space.ratio(root - eta_p, p_p)
        alpha = xp.where(done, nothing, xp.where(leaves_region, to_boundary, alpha))
        eta, image, r = space.axpy(alpha, p, eta), space.axpy(alpha, q, image), space.axpy(alpha, q, r)
        z = raise_(r)
        new = space.dot(r, z)
        beta = space.ratio(new, rho)
        small = new <= goal**2
        p = space.axpy(beta, p, space.scale(-xp.ones_like(beta), z))
        return (
            eta,
            image,
            r,
            p,
            new,
            beta * (eta_p + alpha * p_p),
            new + beta**2 * p_p,
            reach,
            xp.logical_or(at_boundary, xp.logical_and(leaves_region, ~done)),
            xp.logical_or(done, xp.logical_or(leaves_region, xp.logical_or(small, ~xp.isfinite(new)))),
        )

    p = space.scale(-xp.ones_like(rho), z)
    state = (zero, zero, r, p, rho, nothing, rho, nothing, space.flags(False, rho), skip)
    state = space.backend.while_loop(running, step, state, max_steps=max_products)
    return state[0], state[1], state[8]
