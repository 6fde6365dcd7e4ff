"""Adapters of the frameworks, and the tape: autodiff for array-API libraries that have none."""

from ._base import Backend as Backend
from ._errors import BackendMismatchError as BackendMismatchError
from ._errors import BackendUnavailableError as BackendUnavailableError
from ._errors import ConvergenceWarning as ConvergenceWarning
from ._errors import DTypeError as DTypeError
from ._errors import NoDerivativeError as NoDerivativeError
from ._errors import NotOnManifoldError as NotOnManifoldError
from ._errors import ShapeError as ShapeError
from ._registry import available_backends as available_backends
from ._registry import backend_of as backend_of
from ._registry import get_backend as get_backend
from ._registry import namespace as namespace
from ._registry import traced as traced
from ._rules import CustomDerivative as CustomDerivative
from ._rules import checkpoint as checkpoint
from ._rules import custom_derivative as custom_derivative
from ._transforms import grad as grad
from ._transforms import hessian as hessian
from ._transforms import hvp as hvp
from ._transforms import jacobian as jacobian
from ._transforms import jvp as jvp
from ._transforms import linearize as linearize
from ._transforms import stop_gradient as stop_gradient
from ._transforms import value_and_grad as value_and_grad
from ._transforms import vjp as vjp
