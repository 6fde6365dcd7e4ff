"""The loop of all descent methods: from one measured point to the next, until the gradient is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends import Backend
from ...manifolds import Manifold
from .._space import Space, epsilon
from ..level import Argmin
from ..solution import Solution, is_finite
from ._base import cost_scale, default_tolerance, first_leaf, point_norm
from ._measured import Measured, choose, measure
from .steps import quietly

Array = Any
Tree = Any
#: (point, memory, finished problems) -> next point, memory, whether the step is to be taken, whether no other will be
Advance = Callable[[Measured, Tree, Array], tuple[Measured, Tree, Array, Array]]


def descend(
    backend: Backend,
    level: Argmin,
    outer: tuple[Tree, ...],
    init: Tree,
    space: Space,
    tol: float | None,
    max_steps: int,
    begin: Callable[[Measured], Tree],
    advance: Advance,
    *,
    searched: bool,
) -> Solution:
    """Repeat `advance` from `init` until ‖grad‖ ≤ tol · scale (see `cost_scale`), or until no problem can go on.

    Where lengths are `searched` for they are about 1/h: three steps in a row within rounding of the point say that it
    is exact to rounding, even if the cost, and with it the scale, is next to 0. Points of finished problems are kept;
    `advance` keeps what it wants of their memory.
    """
    xp, tol, eps = backend.xp, default_tolerance(first_leaf(init), tol), epsilon(first_leaf(init))
    patience = 3 if searched else max_steps + 1
    with quietly():
        start = measure(backend, level, outer, space, init)

        def within(at: Measured) -> Array:
            small = at.norm <= tol * cost_scale(xp, at.value, start.value, start.norm)
            return xp.logical_and(small, xp.isfinite(at.norm))

        def running(state: Any) -> Any:
            return xp.logical_not(space.all(state[-1]))

        def step(state: Any) -> Any:
            at, memory, k, still, done = state
            new, memory, good, over = advance(at, memory, done)
            taken = xp.logical_and(good, ~done)
            size = point_norm(space, at.point)
            length = point_norm(space, space.subtract(new.point, at.point))
            still = xp.where(done, still, xp.where(length <= 10 * eps * size, still + 1, 0 * still))
            finished = xp.logical_or(xp.logical_and(taken, within(new)), over)
            finished = xp.logical_or(finished, still >= patience)
            at = choose(space, taken, new, at)
            return at, memory, k + xp.astype(taken, k.dtype), still, xp.logical_or(done, finished)

        stop = xp.logical_or(within(start), ~xp.isfinite(start.slope))
        none = space.counts(start.slope)
        state = (start, begin(start), none, none, stop)
        at, _, k, still, _ = backend.while_loop(running, step, state, max_steps=max_steps)
        # not of a cost without minimum, far out: its gradient has not shrunk
        settled = xp.logical_and(still >= patience, xp.logical_or(at.norm <= 0.5 * start.norm, k <= patience))
        return Solution(at.point, at.norm, k, xp.logical_or(within(at), settled))


def is_good(space: Space, new: Measured) -> Array:
    """Whether cost and gradient are finite."""
    return space.backend.xp.logical_and(space.backend.xp.isfinite(new.value), is_finite(space, new.gradient))


def carry(manifold: Manifold, space: Space, y: Tree, new: Measured, good: Array, v: Tree) -> Tree:
    """`v` transported from y to the new point, where that is good: factorizations may raise at what is no point."""
    return manifold.transport(y, space.where(good, new.point, y), v)


def unrolled(
    backend: Backend, level: Argmin, outer: tuple[Tree, ...], init: Tree, y: Tree, space: Space, steps: int, tol: Any
) -> Solution:
    """The record of `y`, reached from `init` in a number of steps; all but `y` itself is a constant."""
    fixed, xp = backend.stop_gradient(outer), backend.xp
    with quietly():
        start = measure(backend, level, fixed, space, backend.stop_gradient(init))
        end = measure(backend, level, fixed, space, backend.stop_gradient(y))
        limit = default_tolerance(end.slope, tol) * cost_scale(xp, end.value, start.value, start.norm)
        return Solution(
            y, end.norm, space.counts(end.slope) + steps, xp.logical_and(end.norm <= limit, xp.isfinite(end.norm))
        )
