"""How long a step of gradient descent is: values, shared by solvers and outer methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._space import Space, epsilon

Array = Any
Tree = Any


@dataclass(frozen=True)
class Armijo:
    """Backtracking until f(R(-t grad)) ≤ f - slope · t ‖grad‖²; the first trial is `initial`, later ones twice the
    last step. Armijo 1966; on manifolds Absil, Mahony & Sepulchre 2008, def. 4.2.2."""

    initial: float = 1.0
    shrink: float = 0.5
    slope: float = 1e-4
    max_halvings: int = 40


@dataclass(frozen=True)
class BarzilaiBorwein:
    """The first trial of each search is ⟨s, s⟩/⟨s, y⟩ of the last step and change of gradient, made safe by `search`.

    Barzilai & Borwein 1988; on manifolds Iannazzo & Porcelli 2018.
    """

    search: Armijo = Armijo()
    longest: float = 1e6


StepRule = float | Armijo | BarzilaiBorwein


def search_of(rule: StepRule) -> Armijo:
    """The backtracking that a rule uses."""
    return rule.search if isinstance(rule, BarzilaiBorwein) else rule if isinstance(rule, Armijo) else Armijo()


def first_step(rule: StepRule) -> float:
    """The length of the first trial."""
    return float(rule) if isinstance(rule, (int, float)) else search_of(rule).initial


class Found(NamedTuple):
    """What a line search ended with: the step, the value there, what `trial` gave with it, whether it descends
    enough, and the work of all trials."""

    t: Array
    value: Array
    extra: Tree
    enough: Array
    work: Array


def backtrack(
    space: Space,
    rule: StepRule,
    trial: Callable[[Array], tuple[Array, Tree, Array]],
    value: Array,
    slope: Array,
    t: Array,
    skip: Array,
    noise: Array | float = 0.0,
) -> Found:
    """Shorten `t` until `trial(t) = (value, extra, work)` descends enough.

    `slope` is ‖grad‖². Rounding of the value, 10 eps of it, and twice its `noise` are forgiven. Problems in `skip` are
    left alone.
    """
    xp, search = space.backend.xp, search_of(rule)
    forgiven = 10 * epsilon(value) * xp.abs(value) + 2 * noise

    def enough(t: Array, new: Array) -> Array:
        return xp.logical_and(xp.isfinite(new), new <= value - search.slope * t * slope + forgiven)

    def running(state: Any) -> Any:
        return xp.logical_not(space.all(state[1]))

    def step(state: Any) -> Any:
        at, done = state
        t = xp.where(done, at.t, search.shrink * at.t)
        new, extra, work = trial(t)
        extra = space.freeze(done, at.extra, extra)
        new = xp.where(done, at.value, new)
        ok = enough(t, new)
        return Found(t, new, extra, ok, at.work + work), xp.logical_or(done, ok)

    new, extra, work = trial(t)
    ok = enough(t, new)
    state = (Found(t, new, extra, ok, work), xp.logical_or(skip, ok))
    return space.backend.while_loop(running, step, state, max_steps=search.max_halvings)[0]


def next_trial(space: Space, rule: StepRule, t: Array, carried_dot: Array, size: Array) -> Array:
    """The first trial of the next search, after a step of length `t` along -u.

    With T u the last gradient carried to the new point by an isometry, `size` = ‖u‖² and `carried_dot` = ⟨grad, T u⟩
    there. BB: s = -t T u, y = grad - T u, t' = ⟨s, s⟩/⟨s, y⟩ = t ‖u‖²/(‖u‖² - ⟨grad, T u⟩).
    """
    xp = space.backend.xp
    if isinstance(rule, (int, float)):
        return t
    if isinstance(rule, Armijo):
        return 2 * t
    change = size - carried_dot
    longest = xp.full_like(t, rule.longest)
    quotient = xp.where(change > 0, space.ratio(t * size, change), 2 * t)
    return xp.minimum(quotient, longest)
