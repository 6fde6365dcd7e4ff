"""Estimators of the derivative of a solution map."""

from ._base import Estimator as Estimator
from ._base import Pull as Pull
from .first_order import FirstOrder as FirstOrder
from .implicit import Implicit as Implicit
from .one_step import OneStep as OneStep
from .sampled_solvers import DecreasingSteps as DecreasingSteps
from .sampled_solvers import ProductNeumann as ProductNeumann
from .sampled_solvers import SampledSolver as SampledSolver
from .stochastic import Batches as Batches
from .stochastic import StochasticImplicit as StochasticImplicit
from .unrolled import Unrolled as Unrolled
