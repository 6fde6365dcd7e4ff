"""NumPy."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import array_api_compat.numpy as xp
import numpy as np

from ._array_api import ArrayAPIBackend
from ._base import Array
from .tape import raw


def _broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    if x.shape != () or type(shape) is not tuple or -1 in shape:
        return np.broadcast_to(x, shape)
    spread = np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
    spread.flags.writeable = False
    return spread


def _reshape(x: Any, shape: tuple[int, ...], **static: Any) -> Any:
    return xp.reshape(x, shape, **static) if static else x.reshape(shape)


def _sum(x: Any, axis: Any = None, keepdims: bool = False, **static: Any) -> Any:
    return np.add.reduce(x, axis, keepdims=keepdims, **static)


def _row_dots(a: Any, b: Any) -> Any:
    if a.shape[-1] < 8 and a.size > 1000 and a.shape == b.shape:
        return _row_sums(a * b)
    return np.vecdot(a, b)


def _row_sums(a: Any) -> Any:
    n = a.shape[-1]
    if a.size == 0 or not a.flags.c_contiguous:
        return np.add.reduce(a, -1)
    return (a.reshape(-1, n) @ np.ones(n, a.dtype)).reshape(a.shape[:-1])


class NumpyBackend(ArrayAPIBackend):
    """NumPy's arrays and scalars."""

    name = "numpy"
    xp = xp
    direct: ClassVar = {"broadcast_to": _broadcast_to, "reshape": _reshape, "sign": np.sign, "sum": _sum}

    def owns(self, leaf: Any) -> bool:
        """NumPy's arrays and scalars; raises `TypeError` for those whose arithmetic is not that of arrays."""
        if type(leaf) is np.ndarray:
            return True
        if isinstance(leaf, (np.matrix, np.ma.MaskedArray)):
            raise TypeError(
                f"NumPy's {type(leaf).__name__} has arithmetic of its own, which has no derivative rules: "
                "pass np.asarray of it, and the mask of a masked array beside it"
            )
        return isinstance(leaf, (np.ndarray, np.generic))

    def is_complex(self, array: Array) -> bool:
        """See the base class."""
        return array.dtype.kind == "c"

    def one(self, like: Array) -> Array:
        """See the base class."""
        return like.dtype.type(1)

    def dots(self, a: Array, b: Array | None, ndim: int, keepdims: bool) -> Array | None:
        """By `np.vecdot`, or by BLAS: of short rows, sums take three to ten times as long."""
        if type(a) is not np.ndarray or a.dtype.char not in "fd":
            return None
        if b is not None and (type(b) is not np.ndarray or b.dtype.char not in "fd"):
            return None
        if ndim > 1:
            own = a.shape[-ndim:]
            if b is not None and own != b.shape[-ndim:]:
                return None
            size = math.prod(own)
            a = a.reshape(*a.shape[:-ndim], size)
            b = b if b is None else b.reshape(*b.shape[:-ndim], size)
        found = _row_sums(a) if b is None else _row_dots(a, b)
        return found[(..., *(None,) * ndim)] if keepdims else found

    def largest(self, a: Array) -> float | None:
        """See the base class."""
        return float(a.max()) if self.is_constant(a) and a.size else None

    def with_diagonal(self, a: Array, d: Array) -> Array | None:
        """See the base class; a copy that is written to."""
        if type(a) is not np.ndarray or type(d) is not np.ndarray or a.shape[:-1] != d.shape:
            return None
        result, n = np.array(a, order="C"), a.shape[-1]
        result.reshape(*a.shape[:-2], n * n)[..., :: n + 1] = d
        return result

    def ratio(self, a: Array, b: Array) -> Array:
        """See the base class; a single number is by far the commonest case."""
        if isinstance(b, np.generic):
            return a / b if b != 0 else 0 * a
        return super().ratio(a, b)

    def has_floats(self, arrays: list[Array]) -> bool:
        """See the base class."""
        return all(type(a) is np.ndarray for a in arrays)

    def float_dot(self, a: Array, b: Array) -> float:
        """See the base class."""
        return float(np.vdot(a, b).real)

    def float_axpy(self, number: float, u: Array, v: Array) -> Array:
        """See the base class."""
        out = u * number
        out += v
        return out

    def float_largest(self, a: Array) -> float:
        """See the base class."""
        return float(np.abs(a).max())

    def copied(self, array: Array) -> Array:
        """See the base class; of its own class."""
        return array.copy()

    def writeable(self, array: Array) -> Array:
        """See the base class; the cotangent of a sum is one number, seen many times."""
        return array.copy() if type(array) is np.ndarray and not array.flags.writeable else array

    def to_numpy(self, array: Array) -> Any:
        """See the base class."""
        return np.array(raw(array))

    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """See the base class."""
        np.add.at(flat, places, values)


def make() -> NumpyBackend:
    """The NumPy backend."""
    return NumpyBackend()
