"""Ready-made nested problems with exact answers: for tests, examples, benchmarks and the command line."""

from .fixed_point import TanhFixedPoint as TanhFixedPoint
from .fixed_point import tanh_fixed_point as tanh_fixed_point
from .sphere import SmallestEigenvector as SmallestEigenvector
from .sphere import smallest_eigenvector as smallest_eigenvector
from .synthetic import Synthetic as Synthetic
from .synthetic import synthetic as synthetic
