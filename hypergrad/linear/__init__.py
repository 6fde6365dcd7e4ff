"""Linear solvers."""

from ._base import LinearSolver as LinearSolver
from ._base import System as System
from .cg import CG as CG
from .dense import Dense as Dense
from .neumann import Neumann as Neumann
