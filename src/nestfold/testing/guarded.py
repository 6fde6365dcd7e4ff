"""Arrays on a device that is not there: NumPy's, which refuse what a GPU's arrays refuse and count what makes it wait.

An array of CuPy does not turn into NumPy's by itself, and every `bool(x)` or `float(x)` waits for the GPU. Code for any
array library can be run on these arrays to see both, without a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import array_api_compat.numpy as plain
import numpy as np

_counted: ContextVar[list[str] | None] = ContextVar("nestfold_synchronizations", default=None)


@contextmanager
def synchronizations() -> Iterator[list[str]]:
    """The names of the casts to Python's numbers (`"bool"`, `"float"`, ...) that happen inside, in order."""
    token = _counted.set(found := [])
    try:
        yield found
    finally:
        _counted.reset(token)


def _cast(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def cast(self: GuardedArray) -> Any:
        counted = _counted.get()
        if counted is not None:
            counted.append(kind.__name__)
        return kind(self._own)

    return cast


def _operator(name: str) -> Callable[..., Any]:
    own = getattr(np.ndarray, name)

    def apply(self: GuardedArray, *others: Any) -> Any:
        if not all(isinstance(other, GuardedArray | np.generic | int | float | complex) for other in others):
            return NotImplemented
        return _wrapped(own(self._own, *map(_unwrapped, others)))

    return apply


class GuardedArray:
    """One array; `_own` is the NumPy array inside."""

    __array_ufunc__ = None

    def __init__(self, own: Any):
        self._own = np.asarray(own)

    shape = property(lambda self: self._own.shape)
    dtype = property(lambda self: self._own.dtype)
    ndim = property(lambda self: self._own.ndim)
    size = property(lambda self: self._own.size)
    itemsize = property(lambda self: self._own.itemsize)
    device = property(lambda self: "cpu")
    T = property(lambda self: GuardedArray(self._own.T))
    mT = property(lambda self: GuardedArray(self._own.mT))
    __bool__, __float__, __int__, __complex__ = map(_cast, (bool, float, int, complex))
    __index__ = _cast(int)
    __hash__ = object.__hash__

    def to_device(self, device: Any, /, *, stream: Any = None) -> GuardedArray:
        """The same array: there is one device."""
        return self

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return xp

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an array on a device does not turn into a NumPy array by itself; convert it explicitly")

    def __dlpack__(self, **options: Any) -> Any:
        return self._own.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._own.__dlpack_device__()

    def __getitem__(self, key: Any) -> GuardedArray:
        return GuardedArray(self._own[_unwrapped(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own[_unwrapped(key)] = _unwrapped(value)

    def __len__(self) -> int:
        return len(self._own)

    def __repr__(self) -> str:
        return f"Guarded{self._own!r}"


_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
for _name in [*_BINARY, *("r" + name for name in _BINARY), *"lt le eq ne gt ge neg pos abs invert".split()]:
    setattr(GuardedArray, f"__{_name}__", _operator(f"__{_name}__"))


def _wrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return GuardedArray(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_wrapped, value))
    return type(value)(map(_wrapped, value)) if type(value) in (list, tuple) else value


def _unwrapped(value: Any) -> Any:
    if isinstance(value, GuardedArray):
        return value._own
    return type(value)(map(_unwrapped, value)) if type(value) in (list, tuple) else value


class _Namespace:
    """A namespace of NumPy, for these arrays."""

    def __init__(self, own: Any, name: str):
        self._own, self.__name__ = own, name

    def __getattr__(self, name: str) -> Any:
        own = getattr(self._own, name)
        if name in ("linalg", "fft"):
            return _Namespace(own, f"{self.__name__}.{name}")
        if not callable(own) or isinstance(own, type):
            return own

        def call(*args: Any, **keywords: Any) -> Any:
            if name not in ("asarray", "isdtype") and any(isinstance(a, np.ndarray) for a in args):
                raise TypeError(f"{name} was given a NumPy array beside arrays on a device")
            found = own(*map(_unwrapped, args), **{key: _unwrapped(value) for key, value in keywords.items()})
            return _wrapped(found)

        return functools.update_wrapper(call, own)


#: the array namespace of these arrays
xp = _Namespace(plain, "nestfold.testing.guarded")
