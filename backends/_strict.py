"""array_api_strict: the standard and nothing else. It stands in for CuPy in tests without a GPU."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np

from ._array_api import ArrayAPIBackend
from ._base import Array
from .tape import raw

_Array = type(xp.asarray(0))


class StrictBackend(ArrayAPIBackend):
    """array_api_strict's arrays."""

    name = "array_api_strict"
    xp = xp

    def owns(self, leaf: Any) -> bool:
        """array_api_strict's arrays."""
        return isinstance(leaf, _Array)

    def to_numpy(self, array: Array) -> Any:
        """See the base class."""
        return np.array(xp.asarray(raw(array), device=xp.Device("CPU_DEVICE"), copy=True)._array)

    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """See the base class: one entry after the other, as the standard has no other way."""
        for i in range(places.shape[0]):
            place = int(places[i])
            flat[place] += values[i]


def make() -> StrictBackend:
    """The array_api_strict backend."""
    return StrictBackend()
