"""The tape: automatic differentiation for NumPy, CuPy and every other array-API library."""

from . import sylvester as sylvester
from .array import Traced as Traced
from .array import TracedArray as TracedArray
from .array import raw as raw
from .array import substituted as substituted
from .array import top_tape as top_tape
from .checkpoint import checkpoint as checkpoint
from .core import Tape as Tape
from .custom import custom_derivative as custom_derivative
from .hoist import every_open_tape as every_open_tape
from .hoist import hoist as hoist
from .hoist import in_hoisted as in_hoisted
from .hoist import open_tapes as open_tapes
from .namespace import TracedNamespace as TracedNamespace
from .program import Program as Program
from .wrapped import WrappedNamespace as WrappedNamespace
