"""Why a solver stopped short of its tolerance, as far as the level at its last point tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import Backend
from ..backends._trees import leaves
from ._adjoint import linearized
from ._space import Space, epsilon
from ._spectrum import spectrum
from .level import Argmin, FixedPoint, Level

Tree = Any


def cause_of(backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, space: Space) -> str | None:
    """A sentence for the worst problem of a batch; None where nothing is known. Ten products with the operator at y.

    A Hessian with an eigenvalue that is negative or, to rounding, zero: no isolated minimum is near. A map whose
    derivative does not contract. An operator so badly conditioned that steps shrink to nothing. Not looked for where
    it would have to be compiled first.
    """
    if backend.compiles:
        return None
    outer, y = backend.stop_gradient((outer, y))
    with backend.constants(), np.errstate(divide="ignore", invalid="ignore"):
        at = linearized(backend, level, outer, y, space)
        if not backend.is_eager(at.residual) or not _finite(backend, (y, at.residual)):
            return None
        start = level.manifold.random_tangent(np.random.default_rng(0), y)
        known = spectrum(level, space, at, y, start)
        numbers = (known.lowest, known.highest, known.contraction, known.condition)
        lowest, highest, contraction, condition = (backend.to_numpy(number) for number in numbers)
    eps = epsilon(leaves(y)[0])
    if isinstance(level, Argmin):
        ratio = lowest / np.where(highest == 0, 1.0, np.abs(highest))
        worst = np.argmin(ratio)
        pair = f"{lowest.flat[worst]:.3g} (the largest is {highest.flat[worst]:.3g})"
        if ratio.flat[worst] < -(eps**0.5):
            return f"the Hessian there has the eigenvalue {pair}: near a saddle, or no minimum exists"
        if ratio.flat[worst] < eps**0.75:
            return (
                f"the Hessian there has the eigenvalue {pair}: the minimizer is not isolated. Add a regularizer, or "
                "take the quotient manifold that a symmetry of the cost asks for"
            )
    if isinstance(level, FixedPoint) and contraction.max() >= 1:
        return (
            f"the map does not contract there: its derivative has the spectral radius {contraction.max():.3g}. Damp "
            "the map, or take a solver that needs no contraction, Newton()"
        )
    if condition.max() > 1e6:
        return f"the condition number of the linearized equation there is {condition.max():.3g}"
    return None


def _finite(backend: Backend, tree: Tree) -> bool:
    return all(bool(np.all(np.isfinite(backend.to_numpy(a)))) for a in leaves(tree))
