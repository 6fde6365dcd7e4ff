"""How the lower levels of a nested problem are solved and differentiated, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...backends import Backend, backend_of
from .._settings import require_kind
from ..estimators import Estimator, Implicit
from ..level import Level
from ..linear import LinearSolver
from ..solution import Solution
from ..solvers import Solver
from ._chain import PullChain, descend, pull_chain, pull_path_sum
from ._layers import Layer, hoisted_levels, make_layers, solve_layers
from .flattened import Flattened, flattened_answer, flattened_solutions, pull_flattened

Array = Any
Tree = Any


@dataclass(frozen=True)
class PathSum:
    """For comparison only: the gradient summed over the paths x → y → z, the middle Hessian incomplete.

    The levels below are held fixed in every operator: the middle Hessian is ∂²f₂/∂y² alone, as in libraries that
    multiply best-response Jacobians along the paths of a graph. That is wrong for three levels and more, right for
    two. Choe et al. 2023 (Betty).
    """

    linear: LinearSolver | None = None

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)


#: one solver for all lower levels, or one for each; None for the default
Solvers = Solver | tuple[Solver | None, ...] | None
#: one estimator for all lower levels, one for each, or one that takes all levels together
Settings = Estimator | Flattened | PathSum | tuple[Estimator | None, ...] | None


@dataclass(frozen=True)
class Chain:
    """The lower levels of a problem with all that is needed to go down, and back up."""

    layers: tuple[Layer, ...]
    flattened: Flattened | None = None
    path_sum: bool = False

    def solutions(self, outer: tuple[Tree, ...], starts: tuple[Tree, ...]) -> tuple[Solution, ...]:
        """The answers of all levels, differentiable in `outer`. Raises `TypeError` for `PathSum`."""
        if self.path_sum:
            raise TypeError("PathSum is a formula for the hypergradient only; it has no differentiable solution")
        backend = backend_of(outer, starts)
        levels, outer = hoisted_levels(backend, tuple(layer.plain for layer in self.layers), outer, starts)
        layers = self.layers if levels is None else self.with_levels(levels).layers
        if self.flattened is not None:
            return flattened_solutions(backend, self.flattened, layers, outer, starts)
        return solve_layers(layers, outer, starts)

    def pullback(
        self, backend: Backend, outer: tuple[Tree, ...], starts: tuple[Tree, ...]
    ) -> tuple[tuple[Solution, ...], PullChain]:
        """The answers of all levels for constant `outer`, and the transpose of their derivative."""
        if self.flattened is not None:
            return pull_flattened(backend, self.flattened, self.layers, outer, starts)
        return (pull_path_sum if self.path_sum else pull_chain)(backend, self.layers, outer, starts)

    def answers(self, backend: Backend, outer: tuple[Tree, ...], starts: tuple[Tree, ...]) -> tuple[Solution, ...]:
        """The answers of all levels for constant `outer`, without derivative."""
        if self.flattened is not None:
            return flattened_answer(backend, self.flattened, self.layers, outer, starts)[0]
        return descend(backend, self.layers, outer, starts)

    def with_levels(self, levels: tuple[Level, ...]) -> Chain:
        """The same settings for other levels."""
        solvers, estimators = zip(*((layer.solver, layer.estimator) for layer in self.layers), strict=True)
        return replace(self, layers=make_layers(levels, solvers, estimators))

    @property
    def wanted(self) -> tuple[bool, ...]:
        """Of each adjoint solve, whether it was asked to reach a tolerance."""
        if self.flattened is not None:
            return (self.flattened.method.has_tolerance,)
        return tuple(
            isinstance(layer.estimator, Implicit) and layer.estimator.has_tolerance_for(layer.level)
            for layer in self.layers
        )


@dataclass(frozen=True)
class ReducedCost:
    """F(x, starts): the upper cost with the answers of all lower levels substituted."""

    function: Callable[..., Array]
    chain: Chain

    def __call__(self, x: Tree, starts: tuple[Tree, ...]) -> Array:
        """F at x."""
        found = self.chain.solutions((x,), starts)
        return self.function(x, *(solution.value for solution in found))


def make_chain(levels: tuple[Level, ...], solver: Solvers, estimator: Settings) -> Chain:
    """The settings of a user as one hashable value. Raises `TypeError` or `ValueError` for settings of another kind."""
    solvers = per_level(solver, Solver, len(levels), "solver")

    def layers(estimator: Any) -> tuple[Layer, ...]:
        return make_layers(levels, solvers, per_level(estimator, Estimator, len(levels), "estimator"))

    if isinstance(estimator, Flattened):
        return Chain(layers(None), flattened=estimator)
    if isinstance(estimator, PathSum):
        return Chain(layers(Implicit(estimator.linear)), path_sum=True)
    return Chain(layers(estimator))


def per_level(value: Any, kind: type, count: int, name: str) -> tuple[Any, ...]:
    """One setting for each of `count` levels. Raises `TypeError`, or `ValueError` for another number of them."""
    if value is None or isinstance(value, kind):
        return (value,) * count
    if not isinstance(value, (tuple, list)) or not all(v is None or isinstance(v, kind) for v in value):
        raise TypeError(
            f"{name} must be a {kind.__name__}, or a tuple of them, one for each lower level; not {value!r}"
        )
    if len(value) != count:
        raise ValueError(f"{len(value)} values of {name} for {count} lower levels: give one for each, or one for all")
    return tuple(value)
