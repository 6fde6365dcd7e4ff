"""Solvers of levels."""

from ._base import Solver as Solver
from ._base import Unrollable as Unrollable
from .adam import Adam as Adam
from .anderson import Anderson as Anderson
from .beta import BetaRule as BetaRule
from .beta import DaiYuan as DaiYuan
from .beta import FletcherReeves as FletcherReeves
from .beta import HagerZhang as HagerZhang
from .beta import HestenesStiefel as HestenesStiefel
from .beta import PolakRibiere as PolakRibiere
from .external import External as External
from .gauss_newton import GaussNewton as GaussNewton
from .gradient_descent import GradientDescent as GradientDescent
from .lanczos_step import LanczosStep as LanczosStep
from .lbfgs import LBFGS as LBFGS
from .newton import Newton as Newton
from .nonlinear_cg import NonlinearCG as NonlinearCG
from .picard import Picard as Picard
from .robbins_monro import RobbinsMonro as RobbinsMonro
from .steps import Armijo as Armijo
from .steps import BarzilaiBorwein as BarzilaiBorwein
from .trust_region import TrustRegion as TrustRegion
from .wolfe import Wolfe as Wolfe
