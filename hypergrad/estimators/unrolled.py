"""The derivative through the steps of a solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from .._settings import require_count
from .._space import Space
from ..level import Level
from ..solution import Solution
from ..solvers import Solver, Unrollable
from ._base import Estimator, Pull
from ._forward import forward_pullback, forward_solution
from ._segment import recomputed

Tree = Any


@dataclass(frozen=True)
class Unrolled(Estimator):
    """Differentiate through `steps` steps of the solver, from `init`, whose own derivative counts too (ITD, AD).

    The solver must have steps to unroll: `GradientDescent` (step lengths found by a search are constants) or `Picard`.
    With a contraction factor q the derivative's error after t steps is O(t qᵗ) (Grazzi et al. 2020, theorem 2.1).
    Where the steps start at the answer (warm starts) or go on after it, lengths that are searched for go by rounding:
    those of `BarzilaiBorwein` then contract by chance, or not at all, so that `GradientDescent(step=Armijo())` is the
    default with this estimator; a fixed `step` is surest.

    steps : how many are taken, and differentiated. The memory of a derivative grows in proportion.
    truncate : differentiate the last so many steps only; those before run as constants, and what they arrive at is a
        constant start. The error that this adds is O(q^truncate) (Shaban et al. 2019).
    checkpoint : keep the state after every so many steps, with True after about √steps, and run the steps between
        again on the way back: memory grows like √steps, for one more run (Griewank & Walther 2008, §12).
    forward : carry the derivative along with the steps instead, one tangent for each entry of what is differentiated
        (outer variables, `init` in `solve`, leading axes included): memory does not depend on `steps`, time grows with
        the entries. Forward-mode derivatives of a `solve` take one tangent.

    Derivatives of every order are those of the truncated iteration itself; under `forward` those above the first are
    stored like any other. Raises `ValueError` for `forward` with `checkpoint`, which has nothing left to save.
    """

    steps: int
    truncate: int | None = None
    checkpoint: bool | int | None = None
    forward: bool = False

    def __post_init__(self) -> None:
        require_count(self, "steps", least=0)
        require_count(self, "truncate", least=0)
        if not isinstance(self.checkpoint, bool):
            require_count(self, "checkpoint", least=1)
        if not isinstance(self.forward, bool):
            raise TypeError(f"Unrolled: forward must be True or False, not {self.forward!r}")
        if self.forward and self.checkpoint:
            raise ValueError("Unrolled: forward keeps no steps, so that there are none to checkpoint: choose one")

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`. Raises `TypeError` for a solver without steps."""
        solver = _require_unrollable(solver)
        constant, moving = self._split()
        if self.forward:
            return forward_solution(backend, level, solver, outer, init, space, constant, moving)
        state = solver.begin(backend, level, outer, init, space)

        def advance(outer: tuple[Tree, ...], state: Tree) -> Tree:
            return solver.advance(backend, level, outer, space, state)

        if constant:
            state, fixed = backend.stop_gradient((state, outer))
            state = backend.repeat(lambda at: backend.stop_gradient(advance(fixed, at)), state, steps=constant)
        if self.checkpoint and moving > 1:
            state = self._segments(backend, advance, outer, state, moving)
        else:
            state = backend.repeat(lambda at: advance(outer, at), state, steps=moving)
        found = solver.finish(backend, level, outer, space, state, self.steps)
        return Solution(found.value, *backend.stop_gradient(tuple(found[1:])))

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        if self.forward:
            constant, moving = self._split()
            solver = _require_unrollable(solver)
            return forward_pullback(backend, level, solver, outer, init, space, constant, moving)
        rest: list[tuple] = []

        def run(*outer: Tree) -> Tree:
            found = self.solution(backend, level, solver, outer, init, space)
            rest.append(tuple(found[1:]))
            return found.value

        y, pull_outer = backend.vjp(run, *outer)
        return Solution(y, *rest[0]), lambda cotangent, guess: (pull_outer(cotangent), None)

    def _split(self) -> tuple[int, int]:
        """How many steps are constants, and how many are differentiated."""
        moving = self.steps if self.truncate is None else min(self.truncate, self.steps)
        return self.steps - moving, moving

    def _segments(
        self, backend: Backend, advance: Callable[..., Tree], outer: tuple[Tree, ...], state: Tree, steps: int
    ) -> Tree:
        """So many steps, in segments that are run again on the way back."""
        length = math.isqrt(steps - 1) + 1 if self.checkpoint is True else min(self.checkpoint or 1, steps)
        hoisted, captured = backend.hoist(advance, outer, state)
        parameters = (tuple(captured), outer)

        def segment(length: int) -> Callable[[Tree], Tree]:
            return recomputed(backend, lambda p, at: hoisted(p[0], p[1], at), parameters, length)

        whole, left = divmod(steps, length)
        state = backend.repeat(segment(length), state, steps=whole)
        return segment(left)(state) if left else state


def _require_unrollable(solver: Solver) -> Unrollable:
    if not isinstance(solver, Unrollable):
        raise TypeError(
            f"Unrolled goes back through the steps of a solver; {type(solver).__name__} has none to differentiate: "
            "use GradientDescent() or Picard(), or the estimator Implicit()"
        )
    return solver
