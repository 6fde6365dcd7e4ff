"""What comes out of a solver: data, not exceptions."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from ..backends import Backend, ConvergenceWarning
from ..backends._trees import leaves

Array = Any
Tree = Any


class Solution(NamedTuple):
    """A point, or a vector, and how good it is. All fields but `value` have the shape of the batch of problems.

    value: the answer · residual: the norm of what should be zero there · steps: how many were taken ·
    converged: whether the residual is within the tolerance.
    """

    value: Tree
    residual: Array
    steps: Array
    converged: Array


def warn_unless_converged(
    backend: Backend, solution: Solution, what: str, cause: Callable[[], str | None] | None = None
) -> None:
    """Warn where values are known and a problem did not converge (under `jax.jit` only `converged` tells).

    `cause` is asked for a sentence that says why, if need be.
    """
    if not backend.is_eager(*solution[1:]):
        return
    converged = backend.to_numpy(solution.converged)
    if converged.all():
        return
    residual, steps = backend.to_numpy(solution.residual), backend.to_numpy(solution.steps)
    missed = f"{(~converged).sum()} of {converged.size} problems" if converged.size > 1 else "the problem"
    worst = float(residual[~converged].max())
    if not math.isfinite(worst):
        why = (
            "values that are not finite were met: the start may be outside of where the function is defined, or a step "
            "was too long"
        )
    else:
        why = cause() if cause is not None else None
    taken = int(steps.max())
    advice = (
        "give it more steps, a better start or a looser tolerance, or check that the problem has an isolated solution"
        if taken
        else "no step was taken: look at the start, at what was asked for (max_steps, tol), or at the answer of a "
        "solver of your own"
    )
    warnings.warn(
        f"{what}: {missed} stopped after {taken} steps short of the tolerance, at a residual of "
        f"{worst:.3g}; see Solution.converged. {_sentence(why or advice)}",
        ConvergenceWarning,
        stacklevel=outside(),
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def outside() -> int:
    """The `stacklevel`, seen from the caller, of the first frame that is not in this package.

    Nor in PyTorch or JAX, which lie between a function of ours and its caller: around what must not be compiled, and in
    backward passes.
    """
    package, frame, level = __name__.partition(".")[0], sys._getframe(1), 1
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in (package, "torch", "jax"):
            break
        frame, level = frame.f_back, level + 1
    return level


def is_finite(space: Any, tree: Tree) -> Array:
    """Whether all entries of a problem are finite: boolean, of batch shape."""
    xp = space.backend.xp
    result = None
    for leaf in leaves(tree):
        axes = tuple(range(space.ndim, leaf.ndim))
        finite = xp.all(xp.isfinite(leaf), axis=axes) if axes else xp.isfinite(leaf)
        result = finite if result is None else xp.logical_and(result, finite)
    return result
