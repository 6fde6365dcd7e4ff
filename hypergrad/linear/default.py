"""The linear solver that suits a level."""

from __future__ import annotations

from ..level import FixedPoint, Level, Root
from ._base import LinearSolver
from .cg import CG
from .gmres import GMRES
from .minres import MINRES
from .neumann_gmres import NeumannGMRES


def default_linear(level: Level) -> LinearSolver:
    """What is known of the derivative decides.

    A Hessian at a minimum is positive: `CG()`. The symmetric derivative of a `Root` may be indefinite: `MINRES()`. A
    map that contracts has a series: `NeumannGMRES()`, which sees whether it does. Of others nothing is known:
    `GMRES()`.
    """
    if level.self_adjoint:
        return MINRES() if isinstance(level, Root) else CG()
    return NeumannGMRES() if isinstance(level, FixedPoint) else GMRES()
