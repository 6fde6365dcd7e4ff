"""NumPy."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from ._array_api import ArrayAPIBackend
from ._base import Array
from .tape import raw


class NumpyBackend(ArrayAPIBackend):
    """NumPy's arrays and scalars."""

    name = "numpy"
    xp = xp

    def owns(self, leaf: Any) -> bool:
        """NumPy's arrays and scalars."""
        return isinstance(leaf, (np.ndarray, np.generic))

    def is_complex(self, array: Array) -> bool:
        """See the base class."""
        return array.dtype.kind == "c"

    def ratio(self, a: Array, b: Array) -> Array:
        """See the base class; a single number is by far the commonest case."""
        if isinstance(b, np.generic):
            return a / b if b != 0 else 0 * a
        return super().ratio(a, b)

    def to_numpy(self, array: Array) -> Any:
        """See the base class."""
        return np.array(raw(array))

    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """See the base class."""
        np.add.at(flat, places, values)


def make() -> NumpyBackend:
    """The NumPy backend."""
    return NumpyBackend()
