"""A line search along any direction of descent, by cost and slope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._floats import Floats, from_arrays, quick_numbers, to_arrays
from .._settings import require_count, require_number
from .._space import Space, epsilon
from ..level import Argmin
from ._descent import is_good
from ._measured import Measured, choose, measure

Array = Any
Tree = Any


@dataclass(frozen=True)
class Wolfe:
    """The strong Wolfe conditions on φ(t) = f(R(t p)), whose slope is that of the retracted curve itself:

    φ(t) ≤ φ(0) + slope · t φ'(0)   and   |φ'(t)| ≤ curvature · |φ'(0)|.

    Where rounding may hide the descent, which is within 10³ eps of the cost, slopes alone decide: |φ'(t)| ≤
    (1 - 2 slope) |φ'(0)| stands for the first condition (Hager & Zhang 2005, "approximate Wolfe"). Each trial costs one
    gradient. Nocedal & Wright 2006, §3.1; on manifolds Ring & Wirth 2012, Sato 2022, §3.
    """

    slope: float = 1e-4
    curvature: float = 0.9
    max_trials: int = 30

    def __post_init__(self) -> None:
        require_number(self, "slope", above=0, below=0.5)
        require_number(self, "curvature", above=0, below=1)
        require_count(self, "max_trials", least=1)
        if not self.slope < self.curvature <= 1 - 2 * self.slope:
            raise ValueError(
                f"Wolfe: curvature must lie between slope = {self.slope!r} and 1 - 2 slope, not {self.curvature!r}"
            )


class Searched(NamedTuple):
    """The step, the point there, whether the cost is lower there, and whether the rule is met."""

    t: Array
    new: Measured
    found: Array
    met: Array


class _End(NamedTuple):
    """One end of the bracket: the step, the cost and the slope there."""

    t: Array
    value: Array
    along: Array


class _State(NamedTuple):
    """The next trial, how far it must stay from the ends of the bracket, these, the best so far and its cost."""

    t: Array
    margin: Array
    low: _End
    high: _End
    best: Searched
    lowest: Array
    going: Array


def wolfe(
    rule: Wolfe,
    level: Argmin,
    outer: tuple[Tree, ...],
    space: Space,
    at: Measured,
    p: Tree,
    *,
    slope: Array,
    size: Array,
    t: Array,
    skip: Array,
) -> Searched:
    """A step t along `p` from `at` that meets the rule, else the best one found that descends enough.

    `slope` = ⟨grad, p⟩ < 0 at the point `at`; `size` is that of the cost, for rounding; `t` is the first trial. Between
    a step that is too short and one that is too long: secants of the slopes, or a parabola where there is no such, ever
    closer to bisection.
    """
    numbers, backend, like = quick_numbers(space, at.gradient), space.backend, at.value
    slope, size, t, going, start = from_arrays(numbers, slope, size, t, backend.xp.logical_not(skip), at.value)
    eps = epsilon(like)

    def curve(t: Array) -> Tree:
        return level.manifold.retract(at.point, space.scale(t, p))

    def trial(t: Any) -> tuple[Measured, Any, Any, Any]:
        moved, pull = backend.vjp(curve, *to_arrays(space, like, t))
        new = measure(backend, level, outer, space, moved)
        along = backend.stop_gradient(pull(new.covector)[0])
        return new, *from_arrays(numbers, new.value, along, is_good(space, new))

    def running(state: _State) -> Any:
        return numbers.any(state.going)

    def step(state: _State) -> _State:
        t, margin, low, high, best, lowest, going = state
        new, value, along, good = trial(t)
        lower = value <= start + rule.slope * t * slope + 10 * eps * abs(start)
        flat = (value <= start + 1e3 * eps * size) & (abs(along) <= (2 * rule.slope - 1) * slope)
        descends = good & (abs(along) < math.inf) & (lower | flat)
        met = descends & (abs(along) <= rule.curvature * abs(slope))
        better = (met | (descends & (value < lowest))) & going
        best = Searched(
            numbers.select(better, t, best.t),
            choose(numbers, better, new, best.new),
            best.found | better,
            best.met | (met & going),
        )
        end, short = _End(t, value, along), descends & (along < 0)
        stretched = _stretched(numbers, low, end)
        low, high = _chosen(numbers, short, end, low), _chosen(numbers, short, high, end)
        inside = _between(numbers, low, high, margin)
        onward = numbers.select(high.t < math.inf, inside, stretched)
        margin = numbers.smaller(3 * margin, numbers.constant(0.5, t))
        going, lowest = going & numbers.negated(met), numbers.select(better, value, lowest)
        return _State(numbers.select(going, onward, t), margin, low, high, best, lowest, going)

    nothing, far = numbers.constant(0.0, t), numbers.constant(math.inf, t)
    best = Searched(nothing, at, numbers.flags(False, t), numbers.flags(False, t))
    margin, ends = numbers.constant(0.01, t), (_End(nothing, start, slope), _End(far, far, far))
    state = _State(t, margin, *ends, best, far, going)
    best = backend.while_loop(running, step, state, max_steps=rule.max_trials).best
    t, found, met = to_arrays(space, like, best.t, best.found, best.met)
    return Searched(t, best.new, found, met)


def _chosen(space: Space | Floats, condition: Array, a: _End, b: _End) -> _End:
    return _End(*(space.select(condition, x, y) for x, y in zip(a, b, strict=True)))


def _stretched(space: Space | Floats, low: _End, end: _End) -> Array:
    """A longer step than `end`: where the slope of the last two vanishes, at most ten times as long."""
    bend = end.along - low.along
    secant = end.t + space.ratio(abs(end.along) * (end.t - low.t), bend)
    return space.select(bend > 0, space.smaller(space.larger(secant, 1.1 * end.t), 10 * end.t), 4 * end.t)


def _between(space: Space | Floats, low: _End, high: _End, margin: Array) -> Array:
    """A step inside the bracket, `margin` of its width or more from either end."""
    width, tenth = high.t - low.t, space.constant(0.1, margin)
    turned = (high.along > 0) & (high.along < math.inf)
    secant = space.ratio(low.along, low.along - high.along)
    parabola = space.ratio(-0.5 * low.along * width, high.value - low.value - low.along * width)
    part = space.select(abs(high.value) < math.inf, space.select(turned, secant, parabola), tenth)
    part = space.select(abs(part) < math.inf, part, tenth)
    return low.t + width * space.smaller(space.larger(part, margin), 1 - margin)
