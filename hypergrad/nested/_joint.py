"""A nested problem as a bilevel one: all lower levels together are one level, on the product of their manifolds.

So methods and `run`, which know one lower level, serve any number: the inner point is the tuple of all answers, which
is also where the next solve starts from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ...backends import Backend, ShapeError
from ...manifolds import Product
from .._space import Space
from ..estimators import Estimator, Pull
from ..level import Apply, Level, derivative
from ..methods import Method
from ..solution import Solution
from ..solvers import Solver
from .flattened import variables
from .problem import Bilevel, Nested
from .settings import Chain

Array = Any
Tree = Any


@dataclass(frozen=True)
class TakesTuple:
    """f(x, (x₂, …, xₙ)) for a function of n variables."""

    function: Callable[..., Tree]

    def __call__(self, *args: Tree) -> Tree:
        """The function, its last argument spread out."""
        return self.function(*args[:-1], *args[-1])


@dataclass(frozen=True)
class Every:
    """The values of the functions of all levels, a tuple."""

    functions: tuple[Callable[..., Tree], ...]

    def __call__(self, *args: Tree) -> tuple[Tree, ...]:
        """f₂(x, …), f₃(x, …), …"""
        return tuple(function(*args) for function in self.functions)


@dataclass(frozen=True)
class Part:
    """One of the values of a function of (outer, (x₂, …, xₙ)), as a function of n variables."""

    function: Callable[..., tuple[Tree, ...]]
    number: int
    count: int

    def __call__(self, *args: Tree) -> Tree:
        """The value of this number."""
        outer, own = args[: -self.count], args[-self.count :]
        return self.function(*outer, own)[self.number]


@dataclass(frozen=True)
class Joint(Level):
    """x₂*, …, xₙ* as one point: each level's equation with the responses of those below it.

    Its derivative is block triangular; `ByLevels` uses that, and nothing else should be needed.
    """

    levels: tuple[Level, ...]
    chain: Chain
    manifold: Product

    @property
    def function(self) -> Callable[..., tuple[Tree, ...]]:
        """The functions of all levels, of (*outer, (x₂, …, xₙ))."""
        return TakesTuple(Every(tuple(level.function for level in self.levels)))

    @property
    def self_adjoint(self) -> bool:
        """False: it is block triangular."""
        return False

    def with_function(self, function: Callable[..., tuple[Tree, ...]]) -> Joint:
        """See `Level`."""
        count = len(self.levels)
        return self._with([level.with_function(Part(function, i, count)) for i, level in enumerate(self.levels)])

    def with_manifold(self, manifold: Any) -> Joint:
        """See `Level`."""
        pairs = zip(self.levels, manifold.factors, strict=True)
        return self._with([level.with_manifold(factor) for level, factor in pairs])

    def _with(self, levels: list[Level]) -> Joint:
        return Joint(tuple(levels), self.chain.with_levels(tuple(levels)), joint_manifold(levels))

    def batch(self, outer: tuple[Tree, ...], y: Tree) -> tuple[int, ...]:
        """See `Level`. Raises `ShapeError` where two levels tell of different batches."""
        shapes = []
        for i, layer in enumerate(self.chain.layers):
            shapes.append(layer.space((*outer, *y[:i]), y[i], y[i + 1 :]).batch)
        if len(set(shapes)) > 1:
            raise ShapeError(f"the lower levels tell of different batches of problems: {shapes}")
        return shapes[0]

    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        """See `Level`: the equations of all levels, those below each solved from y."""
        found = []
        for i, layer in enumerate(self.chain.layers):
            before = layer.outer((*outer, *y[:i]), y[i + 1 :])
            found.append(layer.level.residual(backend, before, y[i]))
        return tuple(found)

    def operator(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> tuple[Apply, Apply]:
        """See `Level`: that of the projected equations."""

        def projected(p: Tree) -> Tree:
            return self.manifold.project(p, self.residual(backend, outer, p))

        return derivative(backend, projected, y)


@dataclass(frozen=True)
class LevelByLevel(Solver):
    """The answers of all levels of a `Joint`, by the solvers that it was made with."""

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        return _together(space, require_joint(level).chain.answers(backend, outer, init))


@dataclass(frozen=True)
class ByLevels(Estimator):
    """The derivative of a `Joint`, by the estimators that it was made with."""

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`."""
        return _together(space, require_joint(level).chain.solutions(outer, init))

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`. The adjoint is a tuple too, where every level has its own."""
        chain = require_joint(level).chain
        found, pull_chain = chain.pullback(backend, outer, init)

        def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], Solution | None]:
            back, adjoints = pull_chain(cotangent, None if chain.flattened is not None else guess)
            known = tuple(adjoint for adjoint in adjoints if adjoint is not None)
            if chain.flattened is not None:  # of the adjoints of all equations, those of the levels' own
                levels = tuple(layer.plain for layer in chain.layers)
                return back, known[0]._replace(value=variables(levels, known[0].value))
            return back, _together(space, known) if len(known) == len(found) else None

        return _together(space, found), pull


def require_joint(level: Level) -> Joint:
    """The level, if it is a `Joint`."""
    if not isinstance(level, Joint):
        raise TypeError(f"for the lower levels of a Nested problem together, not for a {type(level).__name__}")
    return level


def joint_manifold(levels: Any) -> Product:
    """The product of the levels' manifolds."""
    return Product(tuple(level.manifold for level in levels))


def as_bilevel(problem: Nested, chain: Chain) -> Bilevel:
    """min over x of f₁(x, (x₂*, …, xₙ*)), the lower level a `Joint`."""
    lower = Joint(problem.levels, chain, joint_manifold(problem.levels))
    return Bilevel(TakesTuple(problem.upper), problem.manifold, lower)


def reduce_method(problem: Nested, method: Method) -> tuple[Bilevel, Method]:
    """The bilevel problem, and the method with a solver and an estimator for it.

    `method.solver` and `method.estimator`, settings of `Nested.solve`, are for the lower levels of `problem`. Raises
    `TypeError` for a method that has not these two.
    """
    settings: Any = method
    if not {"solver", "estimator"} <= {setting.name for setting in fields(settings)}:
        raise TypeError(f"{type(method).__name__} is for Bilevel problems; RHGD runs Nested ones")
    chain = problem.chain(settings.solver, settings.estimator)
    return as_bilevel(problem, chain), replace(settings, solver=LevelByLevel(), estimator=ByLevels())


def _together(space: Space, found: tuple[Solution, ...]) -> Solution:
    """Several solutions as one: norms add like lengths, steps add, and it converged where all did."""
    xp, first = space.backend.xp, found[0]
    squared, steps, converged = first.residual**2, first.steps, first.converged
    for other in found[1:]:
        squared, steps = squared + other.residual**2, steps + other.steps
        converged = xp.logical_and(converged, other.converged)
    return Solution(tuple(solution.value for solution in found), xp.sqrt(squared), steps, converged)
