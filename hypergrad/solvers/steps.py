"""How long a step of gradient descent is: values, shared by solvers and outer methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ...backends import ShapeError, namespace
from .._settings import require_count, require_kind, require_number
from .._space import Space, epsilon

Array = Any
Tree = Any


@dataclass(frozen=True)
class Armijo:
    """Backtracking until f(R(-t grad)) ≤ f - slope · t ‖grad‖²; the first trial is `initial`, later ones twice the
    last step. Armijo 1966; on manifolds Absil, Mahony & Sepulchre 2008, def. 4.2.2.
    """

    initial: float = 1.0
    shrink: float = 0.5
    slope: float = 1e-4
    max_halvings: int = 40

    def __post_init__(self) -> None:
        require_number(self, "initial", above=0)
        require_number(self, "shrink", above=0, below=1)
        require_number(self, "slope", least=0, below=1)
        require_count(self, "max_halvings", least=0)


@dataclass(frozen=True)
class BarzilaiBorwein:
    """The first trial of each search is ⟨s, s⟩/⟨s, y⟩ of the last step and change of gradient, made safe by `search`.

    Barzilai & Borwein 1988; on manifolds Iannazzo & Porcelli 2018.
    """

    search: Armijo = Armijo()
    longest: float = 1e30

    def __post_init__(self) -> None:
        require_kind(self, "search", Armijo)
        require_number(self, "longest", above=0)


StepRule = float | Armijo | BarzilaiBorwein


def is_fixed(rule: Any) -> bool:
    """Whether a rule is one length for all steps: a number, or an array of them."""
    return isinstance(rule, Real) or _is_array(rule)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and not isinstance(value, Real)


def require_step_rule(owner: Any, name: str, *, arrays: bool = False) -> None:
    """Raise unless the field `name` of `owner` is a positive number or a rule, or an array where they are allowed."""
    rule = getattr(owner, name)
    if isinstance(rule, (Armijo, BarzilaiBorwein)) or (arrays and _is_array(rule)):
        return
    if isinstance(rule, bool) or not isinstance(rule, Real):
        rules = "Armijo(), BarzilaiBorwein(), LanczosStep() or an array" if arrays else "Armijo() or BarzilaiBorwein()"
        raise TypeError(f"{type(owner).__name__}: {name} must be a number, {rules}, not {rule!r}")
    require_number(owner, name, above=0)


def require_number_or_array(owner: Any, name: str, *, least: float, below: float) -> None:
    """Raise unless the field `name` of `owner` is a number ≥ `least` and < `below`, or an array, whatever it holds."""
    if not _is_array(getattr(owner, name)):
        require_number(owner, name, least=least, below=below)


def resolved_number(space: Space, number: Any, like: Array) -> Array:
    """A number of batch shape. Raises `ShapeError` for an array of another shape."""
    if not _is_array(number):
        return space.full(float(number), like)
    if tuple(number.shape) not in ((), space.batch):
        raise ShapeError(f"a step of shape {tuple(number.shape)} for a batch of problems of shape {space.batch}")
    return namespace(number, like).broadcast_to(number, space.batch)


def search_of(rule: StepRule) -> Armijo:
    """The backtracking that a rule uses."""
    return rule.search if isinstance(rule, BarzilaiBorwein) else rule if isinstance(rule, Armijo) else Armijo()


def first_step(rule: StepRule) -> float:
    """The length of the first trial."""
    return float(rule) if isinstance(rule, Real) else search_of(rule).initial


def quietly() -> Any:
    """A context, or decorator, without NumPy's warnings: what is not finite is looked at, and told in the answer."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


class Found(NamedTuple):
    """What a line search ended with: the step, the value there, what `trial` gave with it, whether it descends
    enough, whether that is certain and not within rounding, and the work of all trials.
    """

    t: Array
    value: Array
    extra: Tree
    enough: Array
    certain: Array
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

    def enough(t: Array, new: Array) -> tuple[Array, Array]:
        goal = value - search.slope * t * slope
        ok = xp.logical_and(xp.isfinite(new), new <= goal + forgiven)
        return ok, xp.logical_and(ok, value - new > forgiven)

    def running(state: Any) -> Any:
        return xp.logical_not(space.all(state[1]))

    def step(state: Any) -> Any:
        at, done = state
        t = xp.where(done, at.t, search.shrink * at.t)
        new, extra, work = trial(t)
        extra = space.freeze(done, at.extra, extra)
        new = xp.where(done, at.value, new)
        ok, certain = enough(t, new)
        return Found(t, new, extra, ok, certain, at.work + work), xp.logical_or(done, ok)

    with quietly():  # the first trial is outside of any loop
        new, extra, work = trial(t)
        ok, certain = enough(t, new)
        state = (Found(t, new, extra, ok, certain, work), xp.logical_or(skip, ok))
        return space.backend.while_loop(running, step, state, max_steps=search.max_halvings)[0]


def next_trial(space: Space, rule: StepRule, t: Array, carried_dot: Array, size: Array, certain: Array | None) -> Array:
    """The first trial of the next search, after a step of length `t` along -u.

    With T u the last gradient carried to the new point by an isometry, `size` = ‖u‖² and `carried_dot` = ⟨grad, T u⟩
    there. Armijo: twice the step, but where the descent was not `certain` the slopes tell: the same, or half of it
    if the gradient has turned. BB: s = -t T u, y = grad - T u, t' = ⟨s, s⟩/⟨s, y⟩ = t ‖u‖²/(‖u‖² - ⟨grad, T u⟩).
    """
    xp = space.backend.xp
    if isinstance(rule, Armijo):
        return xp.where(certain, 2 * t, xp.where(carried_dot < 0, 0.5 * t, t))
    if not isinstance(rule, BarzilaiBorwein):
        return t
    change = size - carried_dot
    longest = xp.full_like(t, rule.longest)
    quotient = xp.where(change > 0, space.ratio(t * size, change), 2 * t)
    return xp.minimum(quotient, longest)
