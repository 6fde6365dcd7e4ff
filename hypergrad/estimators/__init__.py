"""Estimators of the derivative of a solution map."""

from ._base import Estimator as Estimator
from ._base import Pull as Pull
from .first_order import FirstOrder as FirstOrder
from .implicit import Implicit as Implicit
from .one_step import OneStep as OneStep
from .unrolled import Unrolled as Unrolled
