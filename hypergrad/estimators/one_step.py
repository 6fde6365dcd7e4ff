"""The derivative of one step at the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Backend
from ...backends._trees import tree_map
from .._implicit_rule import LevelAt, constant_solution, opened
from .._settings import require_kind, require_number
from .._space import Space
from .._system import tangent_system
from .._traps import warn_if_independent
from ..level import Argmin, FixedPoint, Level, Root
from ..linear import LinearSolver
from ..linear._lanczos import extreme_eigenvalues
from ..solution import Solution
from ..solvers import Solver
from ._base import Estimator, Pull
from .implicit import Implicit

Array = Any
Tree = Any


@dataclass(frozen=True)
class OneStep(Estimator):
    """The derivative of one step T(x, y) at the answer, as if y did not depend on x: ẏ = ∂ₓT(x, y) ẋ, one product.

    T(x, y) is `map(x, y)` for a `FixedPoint`, R_y(-t grad) for an `Argmin`, R_y(-t field) for a `Root`; with ρ the
    norm of ∂_yT there, the derivative's error is ≤ ρ/(1 - ρ) ‖∂ₓT‖. Bolte, Pauwels & Vaiter 2023; Fung et al. 2022.

    step : t; by default 1 for a `FixedPoint`, 2/(h_min + h_max) from ten Lanczos steps for an `Argmin`. A `Root`
        has no step of its own: there `step` or `linear` must be given, or `TypeError` is raised.
    linear : make it a Newton step, R_y(-H⁻¹ grad), for which ρ = 0: exact, the derivative of `Implicit(linear)`.

    The solver may be any, and its answer is returned as it is. The second derivative is the derivative of
    ẏ = ∂ₓT(x, y) ẋ with y moving as this very rule says, and so on: exact with a Newton step, otherwise as
    approximate as the first, with an error of order ρ.
    """

    step: float | None = None
    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        require_number(self, "step", above=0)
        require_kind(self, "linear", LinearSolver)
        if self.step is not None and self.linear is not None:
            raise ValueError("OneStep: a Newton step (linear=) has no length; give step or linear, not both")

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`. Raises `TypeError` for a `Root` without `step` and `linear`."""
        if self.linear is not None:
            return Implicit(self.linear).solution(backend, level, solver, outer, init, space)
        self._require_step(level)
        init = backend.stop_gradient(init)
        level_at, captured = opened(backend, level, outer, init)
        found = constant_solution(backend, level_at, solver, space, captured, outer, init)
        return found._replace(value=self._rule(backend, level_at, space, (captured, outer), found.value))

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        if self.linear is not None:
            return Implicit(self.linear).pullback(backend, level, solver, outer, init, space)
        self._require_step(level)
        found = solver.solve(backend, level, outer, init, space)
        y = found.value

        def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], None]:
            t = self._length(backend, level, outer, y, space)
            _, pull_outer = backend.vjp(lambda *o: _stepped(backend, level, o, y, space, t), *outer)
            back = pull_outer(cotangent)
            warn_if_independent(backend, lambda _: level, ((), outer), y, cotangent, back)
            return back, None

        return found, pull

    def _rule(self, backend: Backend, level_at: LevelAt, space: Space, parameters: Tree, y: Tree) -> Tree:
        """`y`, a constant, as a function of `parameters` whose derivative is that of the step at y."""

        def step(primals: tuple, y: Tree) -> Callable[[Tree], Tree]:
            (captured, outer), plain = backend.stop_gradient((primals[0], y))
            t = self._length(backend, level_at(captured), outer, plain, space)
            return lambda p: _stepped(backend, level_at(p[0]), p[1], y, space, t)

        def pushforward(primals: tuple, y: Tree, tangents: tuple) -> Tree:
            return backend.jvp(step(primals, y), primals[:1], tangents[:1])[1]

        def pullback(primals: tuple, y: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
            found = backend.vjp(step(primals, y), primals[0])[1](cotangent)[0]
            warn_if_independent(backend, level_at, primals[0], y, cotangent, found)
            return found, None

        return backend.custom_derivative(lambda _, y: y, pushforward, pullback)(parameters, y)

    def _length(self, backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space) -> Array | float:
        """T, for each problem where it is estimated; all arguments are constants."""
        if self.step is not None or not isinstance(level, Argmin):
            return 1.0 if self.step is None else self.step
        with backend.constants():
            system, rng = tangent_system(backend, level, outer, y, space), np.random.default_rng(0)
            noise = tree_map(lambda a: backend.noise(rng, tuple(a.shape), like=a), y)
            low, high = extreme_eigenvalues(system, system.enter(level.manifold.project(y, noise)), 10)
            both = backend.xp.maximum(low, backend.xp.zeros_like(low)) + high
            return backend.stop_gradient(space.ratio(2 + 0 * both, both))

    def _require_step(self, level: Level) -> None:
        if isinstance(level, (Argmin, FixedPoint)) or self.step is not None:
            return
        name = type(level).__name__
        advice = "give the length of one, OneStep(step=...), or take Newton's, OneStep(linear=Dense())"
        kind = "a field" if isinstance(level, Root) else "its equation"
        raise TypeError(f"OneStep: a {name} has no step of its own, {kind} can be of any scale: {advice}")


def _stepped(backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space, t: Array | float) -> Tree:
    """Y - t grad, which agrees with R_y(-t grad) to first order where the gradient vanishes; y is put on the manifold
    first, which may move with the parameters.
    """
    manifold = level.manifold
    if backend.split(manifold)[0]:
        y = manifold.retract(y, manifold.zero_tangent(y))
    w = manifold.project(y, level.residual(backend, outer, y))
    u = manifold.sharp(y, w) if isinstance(level, Argmin) else w
    scaled = tree_map(lambda a: t * a, u) if isinstance(t, float) else space.scale(t, u)
    return space.subtract(y, scaled)
