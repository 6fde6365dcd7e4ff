"""What comes out of a solver: data, not exceptions."""

from __future__ import annotations

import warnings
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


def warn_unless_converged(backend: Backend, solution: Solution, what: str, stacklevel: int = 4) -> None:
    """Warn where values are known and a problem did not converge (under `jax.jit` only `converged` tells)."""
    if not backend.is_eager(*solution[1:]):
        return
    converged = backend.to_numpy(solution.converged)
    if converged.all():
        return
    residual, steps = backend.to_numpy(solution.residual), backend.to_numpy(solution.steps)
    missed = f"{(~converged).sum()} of {converged.size} problems" if converged.size > 1 else "the problem"
    warnings.warn(
        f"{what}: {missed} stopped after {int(steps.max())} steps short of the tolerance, at a residual of "
        f"{float(residual[~converged].max()):.3g}; see Solution.converged. Give it more steps, a better start or a "
        "looser tolerance, or check that the problem has an isolated solution",
        ConvergenceWarning,
        stacklevel=stacklevel,
    )


def is_finite(space: Any, tree: Tree) -> Array:
    """Whether all entries of a problem are finite: boolean, of batch shape."""
    xp = space.backend.xp
    result = None
    for leaf in leaves(tree):
        axes = tuple(range(space.ndim, leaf.ndim))
        finite = xp.all(xp.isfinite(leaf), axis=axes) if axes else xp.isfinite(leaf)
        result = finite if result is None else xp.logical_and(result, finite)
    return result
