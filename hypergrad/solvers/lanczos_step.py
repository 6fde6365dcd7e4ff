"""The step length of gradient descent from the extreme eigenvalues of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._settings import require_count, require_kind
from .._space import Space
from .._system import tangent_system
from ..level import Argmin
from ..linear._lanczos import extreme_eigenvalues
from ._measured import Measured
from .steps import Armijo

Array = Any
Tree = Any


@dataclass(frozen=True)
class LanczosStep:
    """t = 2/(λ_min + λ_max) of the Riemannian Hessian, the best fixed step: ‖grad‖ shrinks by (κ - 1)/(κ + 1).

    The eigenvalues are those of `steps` Lanczos steps from the gradient at the start; they are taken anew where
    `search` had to shorten a step, and where `steps` steps did worse than they promised. Where the Hessian is not
    positive, t = 1/λ_max, or 1/|λ_min| if that is not positive either. Nesterov 2018, thm. 2.1.15.
    """

    steps: int = 10
    search: Armijo = field(default_factory=Armijo)

    def __post_init__(self) -> None:
        require_count(self, "steps", least=1)
        require_kind(self, "search", Armijo)


class Pace(NamedTuple):
    """The length of the next trial and the factor by which ‖grad‖ should shrink with it; the steps since the last look
    at progress, and ‖grad‖ then.
    """

    length: Array
    factor: Array
    age: Array
    norm: Array


def estimated_pace(rule: LanczosStep, level: Argmin, outer: tuple[Tree, ...], space: Space, at: Measured) -> Pace:
    """The pace that the Hessian at a point suggests."""
    xp = space.backend.xp
    system = tangent_system(space.backend, level, outer, at.point, space)
    low, high = extreme_eigenvalues(system, system.enter(at.covector), rule.steps)
    one, convex = xp.ones_like(high), low > 0
    alone = xp.where(high > 0, high, xp.abs(low))
    length = xp.where(convex, space.ratio(2 * one, low + high), space.ratio(one, alone))
    usable = xp.logical_and(xp.isfinite(length), length > 0)
    length = xp.where(usable, length, rule.search.initial * one)
    factor = xp.where(xp.logical_and(usable, convex), space.ratio(high - low, high + low), one)
    return Pace(length, factor, space.counts(one), at.norm)


def next_pace(
    rule: LanczosStep,
    level: Argmin,
    outer: tuple[Tree, ...],
    space: Space,
    pace: Pace,
    taken: Array,
    new: Measured,
    skip: Array,
) -> Pace:
    """The pace after a step of length `taken` to `new`; the Hessian is looked at only where it must be."""
    xp, age = space.backend.xp, pace.age + 1
    due = age >= rule.steps
    slow = xp.logical_and(due, new.norm > pace.norm * pace.factor**rule.steps)
    renew = xp.logical_and(xp.logical_or(taken < pace.length, slow), ~skip)
    kept = Pace(pace.length, pace.factor, xp.where(due, 0 * age, age), xp.where(due, new.norm, pace.norm))

    def renewed(state: Any) -> Any:
        fresh = estimated_pace(rule, level, outer, space, new)
        return Pace(*(xp.where(renew, a, b) for a, b in zip(fresh, kept, strict=True))), xp.zeros_like(renew)

    return space.backend.while_loop(lambda state: space.any(state[1]), renewed, (kept, renew), max_steps=1)[0]
