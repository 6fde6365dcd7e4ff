"""NumPy's functions that join arrays or cut them: stacks, blocks, `append`, `insert`, grids.

A function that only moves entries is run once more on arrays of their numbers, and its result says which entry
came from where: `rearranged` for several arrays, `ns.gather` for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..rules.composed import counted_axes
from .reductions import no_out
from .ufuncs import as_array, plain


def arrays_of(ns: Any, arrays: Any) -> list[Any]:
    """Arrays, and numbers and lists made into arrays as NumPy does."""
    found = [as_array(ns, a) for a in arrays]
    return [a if hasattr(a, "dtype") else ns.xp.asarray(a) for a in found]


def picked(name: str, place: int = 0) -> Callable[..., Any]:
    """A function of NumPy that only picks entries of its argument number `place`."""

    def pick(ns: Any, *args: Any, **keywords: Any) -> Any:
        own = getattr(ns.xp, name)
        no_out(name, keywords.get("out"))
        before, x, after = plain(list(args[:place])), args[place], plain(list(args[place + 1 :]))
        keywords = plain(keywords)
        return ns.gather(x, pick=lambda a: own(*before, a, *after, **keywords))

    return pick


def rearranged(ns: Any, arrays: Any, build: Callable[..., Any]) -> Any:
    """`build(*arrays)`, a function that only moves the entries of its arguments."""
    arrays = arrays_of(ns, arrays)
    dtype = ns.result_type(*[plain(a) for a in arrays])
    numbers, count = [], 0
    for a in arrays:
        size = math.prod(a.shape)
        numbers.append(ns.xp.reshape(ns.xp.arange(count, count + size, dtype=ns.xp.int64), a.shape))
        count += size
    flat = ns.concat([ns.fit_dtype(ns.reshape(a, (-1,)), dtype) for a in arrays])
    places = build(*numbers)
    return ns.reshape(ns.take(flat, ns.xp.reshape(places, (-1,)), axis=0), places.shape)


# -- joining ---------------------------------------------------------------------------------------
def _at_least(ns: Any, x: Any, ndim: int) -> Any:
    return x if len(x.shape) >= ndim else ns.reshape(x, (1,) * (ndim - len(x.shape)) + tuple(x.shape))


def joined(axis: int, least: int) -> Callable[..., Any]:
    """hstack and vstack: arrays of at least so many axes, joined."""

    def join(ns: Any, arrays: Any, **_: Any) -> Any:
        wide = [_at_least(ns, a, least) for a in arrays_of(ns, arrays)]
        return ns.concat(wide, axis=0 if len(wide[0].shape) == 1 else axis)

    return join


def dstack(ns: Any, arrays: Any) -> Any:
    """`np.dstack`: side by side along the third axis."""
    wide = [a if len(a.shape) > 1 else ns.reshape(a, (1, -1)) for a in arrays_of(ns, arrays)]
    return ns.concat([a if len(a.shape) > 2 else ns.expand_dims(a, axis=2) for a in wide], axis=2)


def column_stack(ns: Any, arrays: Any) -> Any:
    """Vectors as columns, and matrices, side by side."""
    return ns.concat([a if len(a.shape) > 1 else ns.reshape(a, (-1, 1)) for a in arrays_of(ns, arrays)], axis=1)


def block(ns: Any, arrays: Any) -> Any:
    """`np.block`: nested lists of blocks, the innermost side by side along the last axis."""

    def depth(v: Any) -> int:
        if not isinstance(v, list):
            return 0
        depths = {depth(part) for part in v}
        if len(depths) != 1:
            raise ValueError("the lists of np.block are empty or nested to different depths")
        return 1 + depths.pop()

    def leaves(v: Any) -> list[Any]:
        return [leaf for part in v for leaf in leaves(part)] if isinstance(v, list) else [v]

    levels = depth(arrays)
    ndim = max(levels, *(len(getattr(a, "shape", ())) for a in leaves(arrays)))

    def join(v: Any, level: int) -> Any:
        if not isinstance(v, list):
            return _at_least(ns, v if hasattr(v, "dtype") else ns.xp.asarray(v), ndim)
        return ns.concat([join(part, level + 1) for part in v], axis=ndim - levels + level)

    return join(arrays, 0)


def append(ns: Any, arr: Any, values: Any, axis: Any = None) -> Any:
    """`np.append`."""
    arr, values = arrays_of(ns, (arr, values))
    return ns.concat([arr, values], axis=axis)


def insert(ns: Any, arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """`np.insert`, whose result has the dtype of `arr`."""
    arr, values = arrays_of(ns, (arr, values))
    own = ns.xp.insert
    y = rearranged(ns, (arr, values), lambda a, b: own(a, plain(obj), b, axis))
    return y if y.dtype == arr.dtype else ns.astype(y, arr.dtype)


def meshgrid(ns: Any, *arrays: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    """`np.meshgrid`."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"indexing must be 'xy' or 'ij', not {indexing!r}")
    n = len(arrays)
    flat = [ns.reshape(a, (-1,)) for a in arrays_of(ns, arrays)] if n else []
    places = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    wide = [
        ns.reshape(a, tuple(-1 if place == k else 1 for place in range(n))) for a, k in zip(flat, places, strict=True)
    ]
    return tuple(wide) if sparse or not n else tuple(ns.broadcast_arrays(*wide))


# -- cutting ---------------------------------------------------------------------------------------
def cut(name: str) -> Callable[..., Any]:
    """A function of NumPy that cuts its first argument into a list."""

    def split(ns: Any, x: Any, *args: Any, **keywords: Any) -> Any:
        own = getattr(ns.xp, name)
        count = len(own(plain(x), *args, **keywords))
        return [ns.gather(x, pick=lambda a, i=i: own(a, *args, **keywords)[i]) for i in range(count)]

    return split


def trim_zeros(ns: Any, x: Any, trim: str = "fb", axis: Any = None) -> Any:
    """`np.trim_zeros`: without the zeros at the front ("f") and at the back ("b")."""
    if not set(trim.lower()) <= {"f", "b"}:
        raise ValueError(f"trim holds the letters 'f' and 'b' only, not {trim!r}")
    axes = counted_axes(axis, x.ndim)
    places, key = ns.xp.nonzero(plain(x)), [slice(None)] * x.ndim
    for a in axes:
        first, last = (int(f(places[a])) for f in (ns.xp.min, ns.xp.max)) if len(places[a]) else (0, -1)
        start = first if "f" in trim.lower() else 0
        key[a] = slice(start, last + 1 if "b" in trim.lower() or last < 0 else None)
    return x[tuple(key)]


OWN: dict[str, Callable[..., Any]] = {
    "append": append,
    "block": block,
    "column_stack": column_stack,
    "concatenate": lambda ns, arrays, axis=0, **_: ns.concat(arrays_of(ns, arrays), axis=axis),
    "dstack": dstack,
    "hstack": joined(1, 1),
    "insert": insert,
    "meshgrid": meshgrid,
    "stack": lambda ns, arrays, axis=0, **_: ns.stack(arrays_of(ns, arrays), axis=axis),
    "trim_zeros": trim_zeros,
    "vstack": joined(0, 2),
}
OWN |= {name: cut(name) for name in ("array_split", "dsplit", "hsplit", "split", "vsplit")}
