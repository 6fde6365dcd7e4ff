"""Restarts: what a Krylov method leaves is its next right-hand side, until that is small or shrinks no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...backends._trees import leaves
from .._floats import Floats, from_arrays, quick_numbers, to_arrays
from .._space import Space, epsilon, resolved_tolerance
from ..solution import Solution, is_finite
from ._base import System
from ._relative import helpful

Array = Any
Tree = Any


class Cycle(NamedTuple):
    """One run of a method, from zero: the answer, the steps it took and whether it thinks to have met its goal."""

    value: Tree
    steps: Array
    reached: Array


#: (what numbers are computed with, right-hand side r of norm 1, the norm to leave of it, the steps that are left to
#: each problem) -> Cycle. A problem of goal infinity takes no step.
Method = Callable[[Space | Floats, Tree, Any, Any], Cycle]


def restarted(
    system: System, b: Tree, guess: Tree | None, method: Method, *, tol: float | None, atol: float, max_steps: int
) -> Solution:
    """The system solved by `method`, run again on the true residual as long as that shrinks by a percent at least.

    Done where ‖b - A v‖ ≤ max(tol ‖b‖, atol), norms of covectors in the metric. With `tol=None` that is 10 eps, and
    below eps^(3/4) the method's own word is taken for it; as converged counts what is below that, or below √eps and
    shrinks no more. A run that makes the residual larger is not taken, unless `tol=0` asks for steps.
    """
    space, xp = system.space, system.space.backend.xp
    eps = epsilon(leaves(b)[0])

    def norm(w: Tree) -> Array:
        unit = space.unit(w)
        w = space.divide(w, unit)
        return unit * xp.sqrt(xp.abs(space.dot(w, system.raise_(w))))

    numbers = quick_numbers(space, b)
    start, r = helpful(system, b, guess)
    left = norm(r)
    size = left if guess is None else norm(b)
    goal = xp.maximum(resolved_tolerance(leaves(b)[0], tol) * size, space.full(atol, left))
    near, floor = (xp.maximum(eps**power * size, goal) if tol is None else goal for power in (0.75, 0.5))

    def running(state: Any) -> Array:
        return xp.logical_not(space.all(state[-1]))

    def step(state: Any) -> Any:
        v, r, left, k, settled, done = state
        relative = xp.where(done, xp.full_like(left, float("inf")), space.ratio(goal, left))
        right = space.divide(r, xp.where(left > 0, left, xp.ones_like(left)))
        value, *rest = method(numbers, right, *from_arrays(numbers, relative, max_steps - k))
        run = Cycle(value, *to_arrays(space, leaves(b)[0], *rest))
        moved = space.axpy(left, run.value, v)
        residual = space.subtract(b, system.apply(moved))
        new = norm(residual)
        finite = xp.logical_and(is_finite(space, moved), xp.isfinite(new))
        better = finite if tol == 0 else xp.logical_and(finite, new < left)
        taken = xp.logical_and(better, xp.logical_not(done))
        stuck = ~(new <= 0.99 * left)
        settled = xp.where(done, settled, xp.logical_or(run.reached, stuck))
        v, r = space.where(taken, moved, v), space.where(taken, residual, r)
        left, k = xp.where(taken, new, left), xp.where(done, k, k + run.steps)
        enough = xp.logical_or(left <= goal, xp.logical_and(run.reached, left <= near))
        done = xp.logical_or(xp.logical_or(done, k >= max_steps), xp.logical_or(enough, stuck))
        return v, r, left, k, settled, done

    none = space.counts(left)
    done = xp.logical_or(~(left > goal), none >= max_steps)
    state = (start, r, left, none, space.flags(False, left), done)
    v, _, left, k, settled, _ = space.backend.while_loop(running, step, state, max_steps=max(max_steps, 1))
    small = xp.logical_or(left <= near, xp.logical_and(settled, left <= floor))
    return Solution(v, left, k, xp.logical_and(small, xp.isfinite(left)))
