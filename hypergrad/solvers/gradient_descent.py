"""Riemannian gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...backends import Backend
from .._settings import require_count, require_number
from .._space import Space, epsilon
from ..level import Argmin, Level
from ..solution import Solution
from ._base import Unrollable, require_argmin
from ._descent import carry, descend, is_good, unrolled
from ._measured import Measured, measure
from .lanczos_step import LanczosStep, estimated_pace, next_pace
from .steps import (
    BarzilaiBorwein,
    StepRule,
    backtrack,
    first_step,
    is_fixed,
    next_trial,
    quietly,
    require_number_or_array,
    require_step_rule,
    resolved_number,
)

Array = Any
Tree = Any


@dataclass(frozen=True)
class GradientDescent(Unrollable):
    """y ← R_y(-t grad), t a fixed `step`, or by `Armijo()`, `BarzilaiBorwein()` (default) or `LanczosStep()`.

    Each trial of a search costs one gradient. That of `BarzilaiBorwein` is not monotone, but where it is unrolled: it
    compares with a mean of the costs so far (Zhang & Hager 2004, η = 0.99).

    A fixed step may have `momentum` μ (heavy ball, Polyak 1964): v ← μ T v - t grad, y ← R_y(v), with v carried to each
    new tangent space by `transport`. Both numbers may be arrays of the framework, of batch shape or of no axes, and
    unrolled answers are differentiable in them. Converged where ‖grad‖ ≤ tol · scale (see `cost_scale`: the size of
    the cost); `tol=None` is eps^(3/4) of the dtype, and no tolerance is taken below 10 eps. A run that meets a
    non-finite value stops at the last finite point. Raises `ValueError` for momentum with a rule that searches.
    """

    step: StepRule | LanczosStep | Array = field(default_factory=BarzilaiBorwein)
    tol: float | None = None
    max_steps: int = 5000
    momentum: float | Array = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.step, LanczosStep):
            require_step_rule(self, "step", arrays=True)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)
        require_number_or_array(self, "momentum", least=0, below=1)
        if self._has_momentum and not is_fixed(self.step):
            raise ValueError("GradientDescent: momentum goes with a fixed step; a search along -grad ignores it")

    @property
    def _has_momentum(self) -> bool:
        return hasattr(self.momentum, "dtype") or self.momentum != 0

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`. Raises `TypeError` for a level that is not an `Argmin`."""
        level = require_argmin(self, level)

        def begin(at: Measured) -> Tree:
            return self._memory(level, outer, space, at)

        def advance(at: Measured, memory: Tree, done: Array) -> tuple[Measured, Tree, Array, Array]:
            if not is_fixed(self.step):
                _, new, memory, good = self._searched(backend, level, outer, space, at, memory, done)
                return new, memory, good, ~good
            moved, v = self._moved(level, space, at.point, at.gradient, memory, backend.stop_gradient)
            new = measure(backend, level, outer, space, moved)
            good = is_good(space, new)
            v = carry(level.manifold, space, at.point, new, good, v) if self._has_momentum else ()
            return new, v, good, ~good

        searched = not is_fixed(self.step)
        return descend(backend, level, outer, init, space, self.tol, self.max_steps, begin, advance, searched=searched)

    def begin(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Any:
        """See `Unrollable`: the start, the point, and what the steps carry."""
        level, fixed, plain = require_argmin(self, level), backend.stop_gradient(outer), backend.stop_gradient(init)
        with quietly():
            memory = self._memory(level, fixed, space, measure(backend, level, fixed, space, plain))
            return plain, init, backend.stop_gradient(memory)

    def advance(self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Any) -> Any:
        """See `Unrollable`. Lengths that were searched for are constants of the derivative, those given are not."""
        level, manifold = require_argmin(self, level), level.manifold
        start, y, memory = state
        with quietly():
            u = manifold.sharp(y, level.residual(backend, outer, y))
            if is_fixed(self.step):
                moved, v = self._moved(level, space, y, u, memory, lambda number: number)
                return start, moved, manifold.transport(y, moved, v) if self._has_momentum else ()
            fixed, memory = backend.stop_gradient((outer, memory))
            at = measure(backend, level, fixed, space, backend.stop_gradient(y))
            if isinstance(memory, _Trial):  # steps that ascend contract less, and so does what is differentiated
                memory = memory._replace(reference=at.value)
            t, _, memory, _ = self._searched(backend, level, fixed, space, at, memory, space.flags(False, at.slope))
            t, memory = backend.stop_gradient((t, memory))  # they may depend on arrays that the cost captured
            return start, manifold.retract(y, space.scale(-t, u)), memory

    def finish(
        self, backend: Backend, level: Level, outer: tuple[Tree, ...], space: Space, state: Any, steps: int
    ) -> Solution:
        """See `Unrollable`."""
        start, y, _ = state
        return unrolled(backend, require_argmin(self, level), outer, start, y, space, steps, self.tol)

    def _memory(self, level: Argmin, outer: tuple, space: Space, at: Measured) -> Tree:
        """What the steps carry: a velocity, what the next search needs, or the pace."""
        xp = space.backend.xp
        if isinstance(self.step, LanczosStep):
            return estimated_pace(self.step, level, outer, space, at)
        if not is_fixed(self.step):
            return _Trial(space.full(first_step(self.step), at.slope), at.value, xp.ones_like(at.slope))
        return space.zeros(at.gradient) if self._has_momentum else ()

    def _moved(
        self, level: Argmin, space: Space, y: Tree, u: Tree, velocity: Tree, number: Callable[[Array], Array]
    ) -> tuple[Tree, Tree]:
        """One step of fixed length, and the velocity that made it."""
        like = space.dot(u, u)
        v = space.scale(-number(resolved_number(space, self.step, like)), u)
        if self._has_momentum:
            v = space.axpy(number(resolved_number(space, self.momentum, like)), velocity, v)
        return level.manifold.retract(y, v), v

    def _searched(
        self, backend: Backend, level: Argmin, outer: tuple, space: Space, at: Measured, memory: Tree, skip: Array
    ) -> tuple[Array, Measured, Tree, Array]:
        """One step by a search: the length taken, the next measured point, the next memory, whether all is well."""
        manifold, xp, rule = level.manifold, backend.xp, self.step
        y, value, _, u, slope = at

        def trial(t: Array) -> tuple[Array, Measured, Array]:
            new = measure(backend, level, outer, space, manifold.retract(y, space.scale(-t, u)))
            return new.value, new, space.counts(t) + 1

        by_pace = isinstance(rule, LanczosStep)
        search, reference = (rule.search, value) if by_pace else (rule, memory.reference)
        noise = 500 * epsilon(value) * xp.abs(value)
        t, _, new, found, certain, _ = backtrack(space, search, trial, reference, slope, memory.length, skip, noise)
        good = xp.logical_and(found, is_good(space, new))
        if by_pace:
            return t, new, next_pace(rule, level, outer, space, memory, t, new, xp.logical_or(skip, ~good)), good
        carried_dot = space.dot(new.covector, carry(manifold, space, y, new, good, u))
        old = _kept(rule) * memory.weight
        length = next_trial(space, rule, t, carried_dot, slope, certain)
        after = _Trial(length, (old * reference + new.value) / (old + 1), old + 1)
        return t, new, _Trial(*(xp.where(skip, a, b) for a, b in zip(memory, after, strict=True))), good


class _Trial(NamedTuple):
    """The length of the next trial, and the value that it must lower: a mean of the last ones, of so much weight."""

    length: Array
    reference: Array
    weight: Array


def _kept(rule: Any) -> float:
    """How much of the mean of the costs is kept from step to step: Barzilai-Borwein steps must be free to ascend."""
    return 0.99 if isinstance(rule, BarzilaiBorwein) else 0.0
