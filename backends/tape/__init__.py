"""The tape: automatic differentiation for NumPy, CuPy and every other array-API library."""

from . import array as array
from .core import Program as Program
from .core import Tape as Tape
from .core import Traced as Traced
from .core import TracedArray as TracedArray
from .core import call_with_rule as call_with_rule
from .core import raw as raw
from .core import substituting as substituting
from .core import top_tape as top_tape
from .namespace import TracedNamespace as TracedNamespace
