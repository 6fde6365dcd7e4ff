"""NumPy's functions that choose, count or sort entries, and those that apply a function of the user piecewise.

What is chosen keeps its derivative; what decides the choice (conditions, indices, the order) is a constant.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..refusals import no_rule
from ..rules.composed import one_axis
from ..rules.structure import Getitem
from .joining import arrays_of, picked, rearranged
from .ufuncs import is_traced, plain


# -- choosing --------------------------------------------------------------------------------------
def where(ns: Any, condition: Any, *choices: Any) -> Any:
    """`np.where` with three arguments, and with one."""
    return ns.where(condition, *choices) if choices else ns.nonzero(condition)


def select(ns: Any, conditions: Any, choices: Any, default: Any = 0) -> Any:
    """`np.select`: the choice of the first condition that holds."""
    y = default
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        condition = ns.xp.asarray(plain(condition))
        if condition.dtype != ns.xp.bool:
            raise TypeError(f"the conditions of np.select are booleans, not {condition.dtype}")
        y = ns.where(condition, choice, y)
    return y


def choose(ns: Any, a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    """`np.choose`: entry i of the choice number a[i]."""
    own = ns.xp.choose
    return rearranged(ns, list(choices), lambda *numbered: own(plain(a), numbered, mode=mode))


def piecewise(ns: Any, x: Any, conditions: Any, functions: Any, *args: Any, **keywords: Any) -> Any:
    """`np.piecewise`: each function is given the entries for which its condition holds."""
    conditions = plain(conditions)
    if not isinstance(conditions, (list, tuple)) or (not len(getattr(conditions[0], "shape", ())) and x.ndim):
        conditions = [conditions]
    masks = [ns.xp.broadcast_to(ns.xp.asarray(c, dtype=bool), x.shape) for c in conditions]
    if len(functions) == len(masks) + 1:
        masks.append(~functools.reduce(ns.xp.logical_or, masks))
    y = ns.xp.zeros_like(plain(x))
    for mask, function in zip(masks, functions, strict=True):
        value = function(x[mask], *args, **keywords) if callable(function) else function
        if is_traced(value):
            value = ns.broadcast_to(ns.fit_dtype(value, x.dtype), x[mask].shape)
            y = ns.where(mask, ns.scatter(value, pick=Getitem(mask), shape=x.shape), y)
        else:
            plain_y = ns.xp.zeros_like(plain(x))
            plain_y[mask] = value
            y = ns.where(mask, plain_y, y)
    return y


# -- sorting, sets, counts -------------------------------------------------------------------------
def sort(ns: Any, x: Any, axis: Any = -1, *_: Any, **__: Any) -> Any:
    """The entries in order."""
    return ns.sort(ns.reshape(x, (-1,)) if axis is None else x, axis=-1 if axis is None else axis)


def sort_complex(ns: Any, x: Any) -> Any:
    """`np.sort_complex`: the entries in order, as complex numbers."""
    return ns.astype(sort(ns, x), ns.xp.sort_complex(plain(x)).dtype)


def partition(ns: Any, x: Any, kth: Any, axis: Any = -1, **keywords: Any) -> Any:
    """`np.partition`."""
    x, axis = (ns.reshape(x, (-1,)), -1) if axis is None else (x, axis)
    return ns.take_along_axis(x, ns.xp.argpartition(plain(x), kth, axis=axis, **keywords), axis=axis)


def unique(ns: Any, x: Any, *args: Any, **keywords: Any) -> Any:
    """`np.unique`: each value is that of the place where it occurs first."""
    names = ("return_index", "return_inverse", "return_counts", "axis")
    keywords |= dict(zip(names, args, strict=False))
    axis, wanted = keywords.get("axis"), bool(keywords.get("return_index"))
    values, index, *rest = ns.xp.unique(plain(x), **{**keywords, "return_index": True})
    del values
    y = ns.take(ns.reshape(x, (-1,)) if axis is None else x, index, axis=0 if axis is None else axis)
    found = (y, *((index,) if wanted else ()), *rest)
    return found if len(found) > 1 else y


def of_sets(name: str) -> Callable[..., Any]:
    """A function of two sets whose result is made of their entries; the first place of a value counts."""

    def call(ns: Any, a: Any, b: Any, *args: Any, **keywords: Any) -> Any:
        both = [ns.reshape(v, (-1,)) for v in arrays_of(ns, (a, b))]
        found = getattr(ns.xp, name)(*(plain(v) for v in both), *args, **keywords)
        values, *rest = found if isinstance(found, tuple) else (found,)
        whole = ns.concat(both)
        order = ns.xp.argsort(plain(whole), stable=True)
        places = order[ns.xp.searchsorted(plain(whole)[order], values)]
        y = ns.take(whole, places, axis=0)
        return (y, *rest) if rest else y

    return call


def bincount(ns: Any, x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """`np.bincount`: the sums of the weights of equal x."""
    x = plain(x)
    counts = ns.xp.bincount(x, minlength=minlength)
    if weights is None:
        return counts
    return ns.scatter(weights, pick=lambda a: a[x], shape=counts.shape)


def bin_edges(ns: Any, x: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """`np.histogram_bin_edges`: they move with the smallest and largest entry, unless they are given."""
    if is_traced(range) or is_traced(weights) or isinstance(bins, str):
        raise no_rule("np.histogram_bin_edges by its range or weights, or with a rule for the bins")
    if is_traced(bins) or range is not None or hasattr(bins, "__len__"):
        return bins if is_traced(bins) else ns.xp.histogram_bin_edges(plain(x), bins, range)
    if bins < 1:
        raise ValueError(f"a histogram has at least one bin, not {bins}")
    low, high = ns.min(x), ns.max(x)
    if plain(low) == plain(high):
        low, high = low - 0.5, high + 0.5
    t = ns.xp.linspace(0.0, 1.0, bins + 1, dtype=x.dtype)
    return low * (1 - t) + high * t


def histogram(ns: Any, x: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """`np.histogram`: the counts are constant, the edges move with the extremes of x."""
    if is_traced(weights):
        raise no_rule("np.histogram by its weights (np.bincount has a rule for them)")
    edges = bin_edges(ns, x, bins, range)
    counts, _ = ns.xp.histogram(plain(x), plain(bins), plain(range), weights=weights)
    return (counts / ns.diff(edges) / ns.xp.sum(counts) if density else counts), edges


# -- functions of the user -------------------------------------------------------------------------
def apply_along_axis(ns: Any, function: Callable[..., Any], axis: int, x: Any, *args: Any, **keywords: Any) -> Any:
    """`np.apply_along_axis`: a function of every vector along an axis."""
    axis = one_axis(axis, x.ndim)
    rows = ns.moveaxis(x, axis, -1)
    outer = rows.shape[:-1]
    flat = ns.reshape(rows, (math.prod(outer), rows.shape[-1]))
    found = arrays_of(ns, [function(flat[i, :], *args, **keywords) for i in range(flat.shape[0])])
    inner = found[0].shape
    y = ns.reshape(ns.stack(found), (*outer, *inner))
    return ns.moveaxis(y, tuple(range(len(outer), y.ndim)), tuple(range(axis, axis + len(inner)))) if inner else y


def apply_over_axes(ns: Any, function: Callable[..., Any], x: Any, axes: Any) -> Any:
    """`np.apply_over_axes`: a function of the array and one axis after the other."""
    for axis in axes if hasattr(axes, "__len__") else (axes,):
        y = function(x, axis)
        x = y if len(y.shape) == x.ndim else ns.expand_dims(y, axis=axis)
    return x


def take(ns: Any, x: Any, indices: Any, axis: Any = None, **k: Any) -> Any:
    """Entries by integer indices of any shape."""
    x, axis = (ns.reshape(x, (-1,)), 0) if axis is None else (x, one_axis(axis, x.ndim))
    own = ns.xp.take
    return ns.gather(x, pick=lambda a: own(a, indices, axis=axis, **k))


def take_along_axis(ns: Any, arr: Any, indices: Any, axis: Any = -1) -> Any:
    """`np.take_along_axis`, of all entries in a row for axis=None."""
    arr, axis = (ns.reshape(arr, (-1,)), 0) if axis is None else (arr, axis)
    return ns.take_along_axis(arr, indices, axis=axis)


OWN: dict[str, Callable[..., Any]] = {
    "apply_along_axis": apply_along_axis,
    "apply_over_axes": apply_over_axes,
    "bincount": bincount,
    "choose": choose,
    "compress": picked("compress", place=1),
    "extract": picked("extract", place=1),
    "histogram": histogram,
    "histogram_bin_edges": bin_edges,
    "partition": partition,
    "piecewise": piecewise,
    "select": select,
    "sort": sort,
    "sort_complex": sort_complex,
    "take": take,
    "take_along_axis": take_along_axis,
    "unique": unique,
    "where": where,
}
OWN |= {name: picked(name) for name in ("atleast_1d", "atleast_2d", "atleast_3d", "delete", "fliplr", "flipud")}
OWN |= {name: picked(name) for name in ("resize", "rot90")}
OWN |= {name: of_sets(name) for name in ("intersect1d", "setdiff1d", "setxor1d", "union1d")}
