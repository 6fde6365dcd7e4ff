"""nestfold: nested optimisation on manifolds, written once for NumPy, CuPy, PyTorch and JAX."""

from ._version import __version__ as __version__
