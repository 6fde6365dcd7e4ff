"""Solvers of levels."""

from ._base import Solver as Solver
from ._base import Unrollable as Unrollable
from .external import External as External
from .gradient_descent import GradientDescent as GradientDescent
from .newton import Newton as Newton
from .picard import Picard as Picard
from .steps import Armijo as Armijo
from .steps import BarzilaiBorwein as BarzilaiBorwein
from .trust_region import TrustRegion as TrustRegion
