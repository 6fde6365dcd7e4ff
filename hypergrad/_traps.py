"""What users fall into, told by name: an answer that does not depend on what it is differentiated by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Backend, ConvergenceWarning, IndependentSolutionWarning
from ..backends._trees import leaves
from ._space import epsilon
from .level import Argmin, Level
from .solution import Solution, outside

Tree = Any


def warn_if_independent(
    backend: Backend,
    level_at: Callable[[Tree], Level],
    parameters: tuple[Tree, Tree],
    y: Tree,
    adjoint: Tree,
    cotangents: Tree,
) -> None:
    """Warn where the level's equation F does not depend on any of `parameters` = (captured arrays, outer variables).

    `cotangents` = -∂⟨F, adjoint⟩ is what came of the pullback: only where it is next to nothing beside the adjoint is
    ∂⟨F, w⟩ looked at for a random covector w. It counts as zero if it is lost in rounding, or if it is small and no
    larger than F itself, which vanishes at the exact answer (a learned step size). Nothing under `jax.jit`.
    """
    if not backend.is_eager(parameters, y, adjoint, cotangents):
        return
    found, enough = _size(backend, cotangents), _SMALL * _size(backend, adjoint)
    if found <= enough and enough > 0 and _independent(backend, level_at, parameters, y):
        kind = type(level_at(parameters[0])).__name__
        warnings.warn(
            f"the answer of this {kind} level does not depend on the variables that it is differentiated by, so its "
            "implicit derivative is 0: the start and the path of a solver do not matter to an exact answer. To learn "
            "an initialization or an optimizer, tie the answer to it by a proximal term, Proximal(level, weight), or "
            "differentiate a number of steps, estimator=Unrolled(...)",
            IndependentSolutionWarning,
            stacklevel=outside(),
        )


def warn_if_constant(
    backend: Backend, level: Level, outer: tuple[Tree, ...], found: Solution, adjoint: Solution | None = None
) -> None:
    """Warn where the cost of a level does not depend on its own variable: then every start is an answer.

    Looked at only where the gradient at the start is exactly 0 for every problem, and the adjoint, if there is one
    already, is too. Nothing under `jax.jit`.
    """
    if not isinstance(level, Argmin) or backend.compiles or not backend.is_eager(found.steps, found.residual):
        return
    if backend.to_numpy(found.steps).any() or backend.to_numpy(found.residual).any():
        return
    if adjoint is not None and _size(backend, adjoint.value):
        return
    outer, y = backend.stop_gradient((outer, found.value))
    with backend.constants():
        w = level.manifold.random_tangent(np.random.default_rng(0), y)
        image = backend.stop_gradient(level.operator(backend, outer, y)[0](w))
    if _size(backend, w) and not _size(backend, image):
        warnings.warn(
            "the cost does not depend on the level's own variable, its last argument: gradient and Hessian are exactly "
            "0 at the start, which is returned as the answer. Is the variable used, and not cut off (detach, "
            "stop_gradient, float)?",
            ConvergenceWarning,
            stacklevel=outside(),
        )


#: what is looked at more closely, relative
_SMALL = 1e-6


def _independent(backend: Backend, level_at: Callable[[Tree], Level], parameters: Tree, y: Tree) -> bool:
    captured, outer = backend.stop_gradient(parameters)
    y = backend.stop_gradient(y)
    scale = max(1.0, _size(backend, (captured, outer)))
    with backend.constants():
        level = level_at(captured)
        manifold = level.manifold
        w = manifold.random_tangent(np.random.default_rng(0), y)
        residual, pull = backend.vjp(lambda p: level_at(p[0]).residual(backend, p[1], y), (captured, outer))
        sensitivity = _size(backend, pull(w)[0]) * scale
        stiffness = _size(backend, manifold.project(y, level.operator(backend, outer, y)[1](w)))
        rest = _size(backend, manifold.project(y, residual)) * _size(backend, w)
    if sensitivity <= epsilon(leaves(y)[0]) ** 0.75 * stiffness:
        return True
    return sensitivity <= _SMALL * stiffness and sensitivity <= 10 * rest * scale


def _size(backend: Backend, tree: Tree) -> float:
    """The largest absolute value in the floating-point arrays of a tree."""
    xp, arrays = backend.xp, backend.stop_gradient([a for a in leaves(tree) if backend.is_inexact(a)])
    return max((float(xp.max(xp.abs(a))) for a in arrays if math.prod(a.shape)), default=0.0)
