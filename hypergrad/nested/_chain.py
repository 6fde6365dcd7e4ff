"""Going down a chain of levels, and back up: one adjoint solve for each level.

With the answers x₂, …, xₙ and G_i the equation of level i, the levels below it substituted, the cotangents λ of all
variables go back from the innermost level outward: G_i' v_i = λ_i, then λ_j ← λ_j - (∂_j G_i)ᵀ v_i for all j < i.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends import Backend
from ...backends._trees import tree_map
from .._space import Space
from ..estimators import Implicit, Pull
from ..solution import Solution
from ..solvers._given import Given
from ._layers import Fixed, Layer

Tree = Any
#: (cotangents of all answers, guesses for the adjoints or None) -> cotangents of the outer variables, adjoint solves
PullChain = Callable[[tuple[Tree, ...], tuple[Tree, ...] | None], tuple[tuple[Tree, ...], tuple[Solution | None, ...]]]


def descend(
    backend: Backend, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[Solution, ...]:
    """The answers of all levels for constant `outer`, from the outermost level inward, without derivative."""
    found: list[Solution] = []
    for i, layer in enumerate(layers):
        deeper = starts[i + 1 :]
        space = layer.space(outer, starts[i], deeper)
        found.append(layer.solver.solve(backend, layer.level, layer.outer(outer, deeper), starts[i], space))
        outer = (*outer, found[-1].value)
    return tuple(found)


def pull_chain(
    backend: Backend, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[tuple[Solution, ...], PullChain]:
    """The answers of all levels for constant `outer`, and the transpose of their derivative.

    Where the estimators are implicit, the operators are those at the answers, which the levels below start from.
    """
    found: tuple[Solution, ...] = ()
    implicit = all(isinstance(layer.estimator, Implicit) for layer in layers)
    if implicit:
        found = descend(backend, layers, outer, starts)
        starts = tuple(solution.value for solution in found)
    pulls: list[Pull] = []
    before = outer
    for i, layer in enumerate(layers):
        deeper = starts[i + 1 :]
        space = layer.space(before, starts[i], deeper)
        solver = Given() if implicit else layer.solver
        answer, pull = layer.estimator.pullback(
            backend, layer.level, solver, layer.outer(before, deeper), starts[i], space
        )
        pulls.append(pull)
        if not implicit:
            found = (*found, answer)
        before = (*before, answer.value)
    return found, chained(pulls, outer)


def pull_path_sum(
    backend: Backend, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[tuple[Solution, ...], PullChain]:
    """As `pull_chain`, with the responses of the levels below held fixed in every operator: see `PathSum`."""
    found = descend(backend, layers, outer, starts)
    answers = tuple(solution.value for solution in found)
    pulls: list[Pull] = []
    for i, layer in enumerate(layers):
        before, deeper = (*outer, *answers[:i]), answers[i + 1 :]
        level = layer.plain.with_function(Fixed(layer.plain.function, deeper))
        space = Space(backend, level.batch(before, answers[i]))
        pulls.append(layer.estimator.pullback(backend, level, Given(), before, answers[i], space)[1])
    return found, chained(pulls, outer)


def chained(pulls: list[Pull], outer: tuple[Tree, ...]) -> PullChain:
    """The pullbacks of all levels, one after another from the innermost outward."""

    def pull(
        cotangents: tuple[Tree, ...], guesses: tuple[Tree, ...] | None
    ) -> tuple[tuple[Tree, ...], tuple[Solution | None, ...]]:
        total = [tree_map(lambda a: 0 * a, o) for o in outer] + list(cotangents)
        adjoints: list[Solution | None] = []
        for i in reversed(range(len(pulls))):
            here = len(outer) + i
            back, adjoint = pulls[i](total[here], None if guesses is None else guesses[i])
            for j in range(here):
                total[j] = tree_map(lambda a, b: a + b, total[j], back[j])
            adjoints.insert(0, adjoint)
        return tuple(total[: len(outer)]), tuple(adjoints)

    return pull
