"""NumPy's functions that join arrays, cut them or pick entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .array import raw


def arrays_of(ns: Any, arrays: Any) -> list[Any]:
    """Arrays, and numbers and lists made into arrays like the first of them."""
    arrays = list(arrays)
    like = next(raw(a) for a in arrays if hasattr(a, "dtype"))

    def array(a: Any) -> Any:
        if hasattr(a, "dtype"):
            return a
        return ns.asarray(a) if _holdsarrays_of(a) else ns.backend.asarray(a, like=like)

    return [array(a) for a in arrays]


def _holdsarrays_of(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(hasattr(v, "dtype") or _holdsarrays_of(v) for v in value)


def joined(axis: int, least: int) -> Callable[..., Any]:
    """hstack and vstack: arrays of at least so many axes, joined."""

    def join(ns: Any, arrays: Any, **_: Any) -> Any:
        wide = [
            a if len(a.shape) >= least else ns.reshape(a, (1,) * (least - len(a.shape)) + tuple(a.shape))
            for a in arrays_of(ns, arrays)
        ]
        return ns.concat(wide, axis=0 if len(wide[0].shape) == 1 else axis)

    return join


def column_stack(ns: Any, arrays: Any) -> Any:
    """Vectors as columns, and matrices, side by side."""
    return ns.concat([a if len(a.shape) > 1 else ns.reshape(a, (-1, 1)) for a in arrays_of(ns, arrays)], axis=1)


def picked(name: str) -> Callable[..., Any]:
    """A function of NumPy that only picks entries of its first argument."""

    def pick(ns: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        own = getattr(ns.xp, name)
        return ns.gather(x, pick=lambda a: own(a, *args, **keywords))

    return pick


def cut(name: str) -> Callable[..., Any]:
    """A function of NumPy that cuts its first argument into a list."""

    def split(ns: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        own = getattr(ns.xp, name)
        count = len(own(raw(x), *args, **keywords))
        return [ns.gather(x, pick=lambda a, i=i: own(a, *args, **keywords)[i]) for i in range(count)]

    return split
