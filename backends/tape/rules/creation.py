"""Functions of the standard that make arrays, given numbers that are being differentiated; see `composed.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..array import raw, substitute


def asarray(ns: Any, value: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """A traced array is an array already; a list of them, and of numbers, is stacked."""
    if isinstance(value, (list, tuple)):
        parts = [asarray(ns, v) if isinstance(v, (list, tuple)) else v for v in value]
        like = next((raw(v) for v in substitute(parts) if hasattr(v, "dtype")), None)
        value = ns.stack([v if hasattr(v, "dtype") else ns.backend.asarray(v, like=like) for v in parts])
    elif copy:
        value = ns.positive(value)
    value = value if dtype is None or value.dtype == dtype else ns.astype(value, dtype)
    return value if device is None or device == ns.device(value) else ns.to_device(value, device)


def _like(ns: Any, *numbers: Any) -> Any:
    """The first traced one of some numbers."""
    return next(raw(n) for n in substitute(numbers) if hasattr(n, "dtype"))


def _finished(ns: Any, value: Any, dtype: Any, device: Any) -> Any:
    return asarray(ns, value, dtype=dtype, device=device)


def full(ns: Any, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """One number, everywhere."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return _finished(ns, ns.broadcast_to(fill_value, shape), dtype, device)


def full_like(ns: Any, x: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """One number, everywhere, in the shape and dtype of x."""
    dtype = x.dtype if dtype is None else dtype
    if not hasattr(fill_value, "dtype"):
        return ns.xp.full_like(raw(x), fill_value, dtype=dtype, device=device)
    return full(ns, x.shape, fill_value, dtype=dtype, device=device)


def linspace(
    ns: Any, start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    """Start + (stop - start) k / (num - 1) for k = 0, …, num - 1; without the end point, / num."""
    like = _like(ns, start, stop)
    parts = max(num - 1 if endpoint else num, 1)
    most = max(len(getattr(v, "shape", ())) for v in (start, stop))
    fractions = ns.reshape(ns.arange(num, dtype=like.dtype, device=ns.device(like)) / parts, (num,) + (1,) * most)
    return _finished(ns, start * (1 - fractions) + stop * fractions, dtype, device)


def arange(ns: Any, start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Any:
    """Start + k step; how many there are has no derivative."""
    start, stop = (0, start) if stop is None else (start, stop)
    like = _like(ns, start, stop, step)
    first, last, width = (float(raw(n)) for n in substitute((start, stop, step)))
    count = max(0, math.ceil((last - first) / width))
    places = ns.arange(count, dtype=like.dtype, device=ns.device(like))
    return _finished(ns, start + step * places, dtype, device)


def meshgrid(ns: Any, *arrays: Any, indexing: str = "xy") -> list[Any]:
    """The coordinates of a grid with these axes; "xy" swaps the first two."""
    count = len(arrays)
    swapped = indexing == "xy" and count > 1
    order = [1, 0, *range(2, count)] if swapped else list(range(count))
    wide = [ns.reshape(a, tuple(-1 if k == order[i] else 1 for k in range(count))) for i, a in enumerate(arrays)]
    return list(ns.broadcast_arrays(*wide))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "arange": arange,
    "asarray": asarray,
    "full": full,
    "full_like": full_like,
    "linspace": linspace,
    "meshgrid": meshgrid,
}
