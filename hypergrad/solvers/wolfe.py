"""A line search along any direction of descent, by cost and slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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
    t: Array
    k: Array
    low: _End
    high: _End
    best: Searched
    done: Array


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
    backend = space.backend

    def curve(t: Array) -> Tree:
        return level.manifold.retract(at.point, space.scale(t, p))

    def trial(t: Array) -> tuple[Measured, Array]:
        moved, velocity = backend.jvp(curve, (t,), (backend.xp.ones_like(t),))
        new = measure(backend, level, outer, space, moved)
        return new, space.dot(new.covector, velocity)

    xp = backend.xp
    eps = epsilon(at.value)

    def running(state: _State) -> Any:
        return xp.logical_not(space.all(state.done))

    def step(state: _State) -> _State:
        t, low, high, best, done = state.t, state.low, state.high, state.best, state.done
        new, along = trial(t)
        finite = xp.logical_and(is_good(space, new), xp.isfinite(along))
        lower = new.value <= at.value + rule.slope * t * slope + 10 * eps * xp.abs(at.value)
        level = xp.logical_and(new.value <= at.value + 1e3 * eps * size, xp.abs(along) <= (2 * rule.slope - 1) * slope)
        descends = xp.logical_and(finite, xp.logical_or(lower, level))
        met = xp.logical_and(descends, xp.abs(along) <= rule.curvature * xp.abs(slope))
        better = xp.logical_and(descends, xp.logical_or(~best.found, new.value < best.new.value))
        better = xp.logical_and(xp.logical_or(met, better), ~done)
        best = Searched(
            xp.where(better, t, best.t),
            choose(space, better, new, best.new),
            xp.logical_or(best.found, better),
            xp.logical_or(best.met, xp.logical_and(met, ~done)),
        )
        end, short = _End(t, new.value, along), xp.logical_and(descends, along < 0)
        stretched = _stretched(space, low, end)
        low = _End(*(xp.where(short, a, b) for a, b in zip(end, low, strict=True)))
        high = _End(*(xp.where(short, b, a) for a, b in zip(end, high, strict=True)))
        margin = xp.minimum(0.01 * 3.0 ** xp.astype(state.k, t.dtype), 0.5 + 0 * t)
        inside = _between(space, low, high, margin)
        done = xp.logical_or(done, met)
        t = xp.where(done, t, xp.where(xp.isfinite(high.t), inside, stretched))
        return _State(t, state.k + 1, low, high, best, done)

    nothing, far = xp.zeros_like(t), space.full(float("inf"), t)
    best = Searched(nothing, at, space.flags(False, t), space.flags(False, t))
    state = _State(t, space.counts(t), _End(nothing, at.value, slope), _End(far, far, far), best, skip)
    return backend.while_loop(running, step, state, max_steps=rule.max_trials).best


def _stretched(space: Space, low: _End, end: _End) -> Array:
    """A longer step than `end`: where the slope of the last two vanishes, at most ten times as long."""
    xp = space.backend.xp
    bend = end.along - low.along
    secant = end.t + space.ratio(xp.abs(end.along) * (end.t - low.t), bend)
    return xp.where(bend > 0, xp.minimum(xp.maximum(secant, 1.1 * end.t), 10 * end.t), 4 * end.t)


def _between(space: Space, low: _End, high: _End, margin: Array) -> Array:
    """A step inside the bracket, `margin` of its width or more from either end."""
    xp = space.backend.xp
    width = high.t - low.t
    turned = xp.logical_and(high.along > 0, xp.isfinite(high.along))
    secant = space.ratio(low.along, low.along - high.along)
    parabola = space.ratio(-0.5 * low.along * width, high.value - low.value - low.along * width)
    part = xp.where(xp.isfinite(high.value), xp.where(turned, secant, parabola), 0.1 + 0 * width)
    part = xp.where(xp.isfinite(part), part, 0.1 + 0 * width)
    return low.t + width * xp.minimum(xp.maximum(part, xp.minimum(margin, 0.5 + 0 * part)), 1 - margin)
