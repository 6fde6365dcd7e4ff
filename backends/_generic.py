"""Any other array library that follows the standard: found by `__array_namespace__`, differentiated by the tape."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._array_api import ArrayAPIBackend
from ._base import Array
from .tape import Traced, raw

#: entries of the largest array that is made while adding at given places
_BLOCK = 1 << 20


class GenericBackend(ArrayAPIBackend):
    """Arrays of one kind, and the namespace that they name as theirs."""

    def __init__(self, kind: type, xp: Any):
        self.name, self.xp, self._kind = getattr(xp, "__name__", kind.__module__), xp, kind
        super().__init__()

    def owns(self, leaf: Any) -> bool:
        """Arrays of the one kind."""
        return isinstance(leaf, self._kind)

    def is_inexact(self, leaf: Any) -> bool:
        """See the base class; other libraries' dtypes must not be compared with these."""
        return isinstance(leaf, (self._kind, Traced)) and super().is_inexact(leaf)

    def to_numpy(self, array: Array) -> Any:
        """See the base class; by DLPack."""
        return np.array(np.from_dlpack(raw(array)))

    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """See the base class: the standard has no indexed addition, and a loop would wait at every index.

        Each entry sums what belongs to it, in blocks of bounded memory.
        """
        xp, n = self.xp, flat.shape[0]
        zeros, rows = xp.zeros_like(values), xp.arange(n, dtype=places.dtype, device=self.device(places))
        step = max(1, _BLOCK // max(1, values.shape[0]))
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            mine = xp.expand_dims(rows[part], axis=1) == xp.expand_dims(places, axis=0)
            flat[part] = flat[part] + xp.sum(xp.where(mine, values, zeros), axis=1)


def make(leaf: Any) -> GenericBackend | None:
    """The backend of an array of an unknown library; None for what names no namespace."""
    find = getattr(leaf, "__array_namespace__", None)
    return None if find is None else GenericBackend(type(leaf), find())
