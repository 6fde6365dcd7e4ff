"""CuPy: NumPy's interface on a GPU, with the tape's derivatives."""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy as xp
import cupy  # pyright: ignore[reportMissingImports]

from ._array_api import ArrayAPIBackend
from ._base import Array, Tree
from ._errors import BackendUnavailableError
from .tape import TracedArray, raw


class TracedCupyArray(TracedArray):
    """A traced array that CuPy's operators yield to: they do so where `__array_ufunc__` is None."""

    __slots__ = ()
    __array_ufunc__ = None  # pyright: ignore[reportAssignmentType]

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *args: Any, **keywords: Any) -> Any:
        """A universal function of CuPy, or of `cupyx.scipy.special`, met this array: the function of its name."""
        return self._tape.ns.array_ufunc(kernel, "__call__", args, **keywords)


class CupyBackend(ArrayAPIBackend):
    """CuPy's arrays."""

    name = "cupy"
    xp = xp
    traced_kind = TracedCupyArray

    def owns(self, leaf: Any) -> bool:
        """CuPy's arrays."""
        return isinstance(leaf, cupy.ndarray)

    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """See the base class."""
        if not cupy.cuda.is_available():
            raise BackendUnavailableError("cupy is installed but finds no GPU that it can use")
        return super().asarray(value, like=like, dtype=dtype, device=device)

    def to_numpy(self, array: Array) -> Any:
        """See the base class."""
        return cupy.asnumpy(raw(array))

    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """See the base class."""
        cupy.add.at(flat, places, values)

    def synchronize(self, tree: Tree) -> Tree:
        """Wait for the current stream."""
        cupy.cuda.get_current_stream().synchronize()
        return tree


def make() -> CupyBackend:
    """The CuPy backend."""
    return CupyBackend()
