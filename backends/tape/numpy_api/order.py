"""NumPy's order statistics: median, quantiles, percentiles, and those that leave NaN out.

Such a value lies between two entries that are neighbours when sorted. NumPy itself is asked between which: its
answer for the *ranks* 0, 1, ... in place of the entries is a number like 3.25, a quarter of the way from the fourth
to the fifth. So every method of interpolation, weights and NaN are NumPy's own, and the derivative is that of
¾ a + ¼ b.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..refusals import no_rule
from ..rules.composed import counted_axes
from .reductions import axes_of, no_out
from .ufuncs import is_traced, plain

_PARAMETERS = ("axis", "out", "overwrite_input", "method", "keepdims")


def order_statistic(ns: Any, x: Any, *args: Any, name: str, **keywords: Any) -> Any:
    """`np.quantile(x, q, axis, ...)` and its kin; medians have no q and no method."""
    median = name.endswith("median")
    names = tuple(n for n in _PARAMETERS if n != "method") if median else ("q", *_PARAMETERS)
    keywords |= dict(zip(names, args, strict=False))
    no_out(name, keywords.pop("out", None))
    if any(map(is_traced, keywords.values())):
        raise no_rule(f"np.{name} by its second argument or its weights")
    keywords = plain(keywords)
    keywords.pop("overwrite_input", None)
    axis, keepdims = axes_of(keywords.pop("axis", None)), bool(keywords.pop("keepdims", False))
    ndim = len(x.shape)
    axes = sorted(counted_axes(axis, ndim))
    kept = [a for a in range(ndim) if a not in axes]
    size = math.prod(x.shape[a] for a in axes)
    rows = ns.reshape(ns.permute_dims(x, (*kept, *axes)), (*(x.shape[a] for a in kept), size))
    if keywords.get("weights") is not None:
        keywords["weights"] = _weights(ns.xp, keywords["weights"], x.shape, kept, axes)
    y = _between(ns, rows, functools.partial(getattr(ns.xp, name), **keywords))
    if not keepdims:
        return y
    front = y.shape[: len(y.shape) - len(kept)]
    return ns.reshape(y, (*front, *(1 if a in axes else n for a, n in enumerate(x.shape))))


def _weights(xp: Any, weights: Any, shape: tuple[int, ...], kept: list[int], axes: list[int]) -> Any:
    """The weights as rows; they have the shape of the entries or that of the axes."""
    weights = xp.asarray(weights)
    if weights.shape != shape:
        if tuple(weights.shape) != tuple(shape[a] for a in axes):
            raise ShapeError(f"weights of shape {weights.shape} for the axes {axes} of an array of shape {shape}")
        wide = tuple(n if a in axes else 1 for a, n in enumerate(shape))
        weights = xp.broadcast_to(xp.reshape(weights, wide), shape)
    return xp.reshape(xp.permute_dims(weights, (*kept, *axes)), (*(shape[a] for a in kept), -1))


def _between(ns: Any, rows: Any, statistic: Callable[..., Any]) -> Any:
    """The statistic of each row of x; several quantiles along new first axes."""
    xp, entries = ns.xp, plain(rows)
    if not entries.shape[-1]:  # nothing to choose from: the sum is 0
        return ns.sum(rows, axis=-1) + xp.asarray(statistic(entries, axis=-1))
    order = xp.argsort(entries, axis=-1)
    ranks = xp.astype(xp.argsort(order, axis=-1), xp.float64)
    rank = xp.asarray(statistic(xp.where(xp.isnan(entries), math.nan, ranks), axis=-1))
    dtype = xp.asarray(statistic(xp.astype(ranks, entries.dtype), axis=-1)).dtype
    unknown = xp.isnan(rank)
    rank = xp.where(unknown, 0.0, rank)
    low, high = xp.floor(rank), xp.ceil(rank)

    def entry(which: Any) -> Any:
        count = math.prod(which.shape[: which.ndim - rows.ndim + 1])
        first = xp.reshape(xp.astype(which, xp.int64), (count, *rows.shape[:-1]))
        places = xp.take_along_axis(order, xp.moveaxis(first, 0, -1), axis=-1)
        return ns.reshape(ns.moveaxis(ns.take_along_axis(rows, places, axis=-1), -1, 0), which.shape)

    part = xp.astype(rank - low, xp.real(entries).dtype)
    below, above = entry(low), entry(high)
    y = ns.where(xp.equal(low, high), below, below * (1 - part) + above * part)
    y = ns.where(unknown, math.nan, y) if bool(xp.any(unknown)) else y
    return y if y.dtype == dtype else ns.astype(y, dtype)


OWN: dict[str, Callable[..., Any]] = {
    f"{nan}{name}": functools.partial(order_statistic, name=f"{nan}{name}")
    for nan in ("", "nan")
    for name in ("median", "percentile", "quantile")
}
