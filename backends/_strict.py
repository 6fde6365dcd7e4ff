"""array_api_strict: the standard and nothing else. It stands in for CuPy in tests without a GPU."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np

from ._base import Array
from ._errors import NoDerivativeError
from ._generic import GenericBackend
from .tape import Tape, Traced, raw

_Array: type = type(xp.asarray(0))


class TracedStrictArray(Traced, _Array):
    """A traced array that array_api_strict's operators yield to.

    They raise for whatever is not their own array; but Python asks the right operand first where its class is
    a subclass of the left one's.
    """

    __slots__ = ("_index", "_tape", "value")

    def __new__(cls, *_: Any) -> TracedStrictArray:
        return object.__new__(cls)

    def __init__(self, value: Array, tape: Tape, index: int):
        self.value, self._tape, self._index = value, tape, index

    @property
    def _array(self) -> Any:
        if not self._tape.level:
            return raw(self)._array
        raise NoDerivativeError(
            "a function of array_api_strict was called on an array that is being differentiated; "
            "call that of nestfold.namespace(array) instead"
        )


class StrictBackend(GenericBackend):
    """array_api_strict's arrays."""

    traced_kind = TracedStrictArray

    def to_numpy(self, array: Array) -> Any:
        """See the base class; from any of its devices."""
        return np.array(xp.asarray(raw(array), device=xp.Device("CPU_DEVICE"), copy=True)._array)


def make() -> StrictBackend:
    """The array_api_strict backend."""
    return StrictBackend(_Array, xp)
