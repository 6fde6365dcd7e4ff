"""Estimators of the derivative of a solution map."""

from ._base import Estimator as Estimator
from ._base import Pull as Pull
from .implicit import Implicit as Implicit
from .unrolled import Unrolled as Unrolled
