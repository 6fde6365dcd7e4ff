"""NumPy's sums, extremes and statistics, with all their parameters, on traced arrays.

`where=` and the functions that leave NaN out put a neutral number in the place of what does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..refusals import refuse
from ..rules.composed import counted_axes, root_of_variance
from .ufuncs import as_array, cast, plain


def no_out(name: str, out: Any) -> None:
    """Raise `NoDerivativeError` where a result is to be written into an array."""
    if out is not None:
        refuse(f"np.{name} into a plain array (out=)", f"write `a = np.{name}(...)`")


def axes_of(axis: Any) -> Any:
    """An axis or a tuple of axes, where NumPy takes a list too."""
    return tuple(axis) if isinstance(axis, list) else axis


def _masked(ns: Any, x: Any, where: Any, fill: Any) -> Any:
    return x if where is True else ns.where(ns.xp.asarray(plain(where)), x, fill)


# -- sums and products -----------------------------------------------------------------------------
def total(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
          initial: Any = None, where: Any = True) -> Any:  # fmt: skip
    """`np.sum`."""
    if out is not None or dtype is not None or where is not True:
        no_out("sum", out)
        x = _masked(ns, cast(ns, x, dtype), where, 0)
    y = ns.sum(x, axis=axes_of(axis), keepdims=bool(keepdims))
    return y if initial is None else y + initial


def product(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
            initial: Any = None, where: Any = True) -> Any:  # fmt: skip
    """`np.prod`."""
    no_out("prod", out)
    y = ns.prod(_masked(ns, cast(ns, x, dtype), where, 1), axis=axes_of(axis), keepdims=bool(keepdims))
    return y if initial is None else y * initial


def cumulative(name: str) -> Callable[..., Any]:
    """`np.cumsum` and `np.cumprod`."""

    def cumulate(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        no_out(name, out)
        x = cast(ns, ns.reshape(x, (-1,)) if axis is None else x, dtype)
        return getattr(ns, name)(x, axis=0 if axis is None else axis)

    return cumulate


def extreme(name: str) -> Callable[..., Any]:
    """`np.max` and `np.min`."""

    def call(ns: Any, x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
             where: Any = True) -> Any:  # fmt: skip
        no_out(name, out)
        if where is not True and initial is None:
            raise ValueError(f"np.{name} with where= needs an initial value")
        y = getattr(ns, name)(_masked(ns, x, where, initial), axis=axes_of(axis), keepdims=bool(keepdims))
        return y if initial is None else getattr(ns, f"{name}imum")(y, initial)

    return call


# -- means and variances ---------------------------------------------------------------------------
def _counted(ns: Any, x: Any, where: Any, axis: Any) -> Any:
    """How many entries count, with axes of length one."""
    mask = ns.xp.broadcast_to(ns.xp.asarray(plain(where)), x.shape)
    return ns.xp.sum(ns.xp.astype(mask, ns.xp.real(plain(x)).dtype), axis=axis, keepdims=True)


def mean(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False,
         *, where: Any = True) -> Any:  # fmt: skip
    """`np.mean`."""
    no_out("mean", out)
    x, axis = cast(ns, x, dtype), axes_of(axis)
    if where is True:
        return ns.mean(x, axis=axis, keepdims=bool(keepdims))
    y = ns.sum(_masked(ns, x, where, 0), axis=axis, keepdims=True) / _counted(ns, x, where, axis)
    return y if keepdims else _dropped(ns, y, axis)


def _dropped(ns: Any, y: Any, axis: Any) -> Any:
    axes = counted_axes(axis, len(y.shape))
    return ns.reshape(y, tuple(n for i, n in enumerate(y.shape) if i not in axes))


def variance(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0,
             keepdims: Any = False, *, where: Any = True, mean: Any = None, correction: Any = None) -> Any:  # fmt: skip
    """`np.var`; `mean` is the mean where it is known already."""
    no_out("var", out)
    x, axis = cast(ns, x, dtype), axes_of(axis)
    ddof = ddof if correction is None else correction
    if where is True and mean is None:
        return ns.var(x, axis=axis, correction=ddof, keepdims=bool(keepdims))
    count = _counted(ns, x, where, axis)
    if mean is None:
        mean = ns.sum(_masked(ns, x, where, 0), axis=axis, keepdims=True) / count
    d = x - mean
    square = ns.real(d) ** 2 + ns.imag(d) ** 2 if ns.is_complex(d) else d * d
    y = ns.sum(_masked(ns, square, where, 0), axis=axis, keepdims=True) / ns.xp.clip(count - ddof, 0, None)
    return y if keepdims else _dropped(ns, y, axis)


def deviation(ns: Any, x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0,
              keepdims: Any = False, **more: Any) -> Any:  # fmt: skip
    """`np.std`: √var."""
    return root_of_variance(ns, variance(ns, x, axis, dtype, out, ddof, keepdims, **more))


def average(ns: Any, x: Any, axis: Any = None, weights: Any = None, returned: bool = False, *,
            keepdims: Any = False) -> Any:  # fmt: skip
    """`np.average`, with weights of the shape of x or of its axes `axis`."""
    axis, keepdims = axes_of(axis), bool(keepdims)
    if weights is None:
        y = ns.mean(x, axis=axis, keepdims=keepdims)
        return (y, ns.xp.full_like(plain(y), math.prod(x.shape) / max(math.prod(y.shape), 1))) if returned else y
    weights = weights if hasattr(weights, "shape") else ns.xp.asarray(weights)
    axes = counted_axes(axis, x.ndim)
    if weights.shape != x.shape:
        if axis is None or tuple(weights.shape) != tuple(x.shape[a] for a in axes):
            raise ShapeError(f"weights of shape {weights.shape} for the axes {axis} of an array of shape {x.shape}")
        order = sorted(range(len(axes)), key=lambda k: axes[k])
        weights = ns.permute_dims(weights, tuple(order)) if len(order) > 1 else weights
        weights = ns.reshape(weights, tuple(n if i in axes else 1 for i, n in enumerate(x.shape)))
        weights = ns.broadcast_to(weights, x.shape)
    weight = ns.sum(weights, axis=axis, keepdims=keepdims)
    if bool(ns.xp.any(plain(weight) == 0)):
        raise ZeroDivisionError("the weights of np.average sum to zero")
    y = ns.sum(x * weights, axis=axis, keepdims=keepdims) / weight
    return (y, ns.broadcast_to(weight, y.shape)) if returned else y


def cov(ns: Any, m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None,
        fweights: Any = None, aweights: Any = None, *, dtype: Any = None) -> Any:  # fmt: skip
    """`np.cov`: Σ w (x - mean)(x - mean)ᴴ / (what makes it unbiased)."""

    def rows(v: Any) -> Any:
        v = as_array(ns, v)
        if len(v.shape) > 2:
            raise ShapeError(f"observations are arrays of two axes at most, not of the shape {v.shape}")
        if len(v.shape) < 2:
            return ns.reshape(v, (1, -1))
        return v if rowvar else v.T

    x = rows(cast(ns, m, dtype))
    if y is not None:
        x = ns.concat([x, rows(cast(ns, y, dtype))], axis=0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    if ddof != int(ddof):
        raise ValueError(f"ddof is an integer, not {ddof}")
    if fweights is None and aweights is None:
        w, count = None, x.shape[1] - ddof
    else:
        ns.xp.cov(plain(x), ddof=ddof, fweights=plain(fweights), aweights=plain(aweights))  # it checks the weights
        w = 1.0 if fweights is None else ns.xp.asarray(plain(fweights))
        w = w if aweights is None else w * (aweights if hasattr(aweights, "shape") else ns.xp.asarray(aweights))
        size = ns.sum(w)
        count = size - (ddof if aweights is None or not ddof else ddof * ns.sum(w * aweights) / size)
    count = count if plain(count) > 0 else 0 * count
    d = x - average(ns, x, axis=1, weights=None if w is None else ns.broadcast_to(w, x.shape), keepdims=True)
    return ns.squeeze(ns.matmul(d if w is None else d * w, ns.adjoint(d)) / count, _ones(x.shape[0]))


def _ones(rows: int) -> tuple[int, ...]:
    return (0, 1) if rows == 1 else ()


def corrcoef(ns: Any, x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None, **_: Any) -> Any:
    """`np.corrcoef`: the covariances divided by both standard deviations."""
    c = cov(ns, x, y, rowvar, dtype=dtype)
    if not c.shape:
        return c / c
    d = ns.sqrt(ns.real(ns.linalg.diagonal(c)) if ns.is_complex(c) else ns.linalg.diagonal(c))
    return c / ns.expand_dims(d, axis=0) / ns.expand_dims(d, axis=1)


# -- without NaN -----------------------------------------------------------------------------------
def _counting(ns: Any, x: Any, where: Any) -> Any:
    """The entries that are numbers and that `where` lets count."""
    numbers = ~ns.isnan(plain(x))
    return numbers if where is True else numbers & ns.xp.asarray(plain(where))


def without_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """`np.nansum`, `np.nanprod`, `np.nanmean`, `np.nanvar`, `np.nanstd`."""

    def call(ns: Any, x: Any, *args: Any, where: Any = True, **keywords: Any) -> Any:
        mask = _counting(ns, x, where)
        return function(ns, ns.where(mask, x, 0), *args, where=mask, **keywords)

    return call


def cumulative_without_nan(name: str, fill: int) -> Callable[..., Any]:
    """`np.nancumsum` and `np.nancumprod`."""
    own = cumulative(name)
    return lambda ns, x, *args, **keywords: own(ns, ns.where(ns.isnan(plain(x)), fill, x), *args, **keywords)


def extreme_without_nan(name: str) -> Callable[..., Any]:
    """`np.nanmax` and `np.nanmin`; NaN where all entries are."""
    worst = -math.inf if name == "max" else math.inf

    def call(ns: Any, x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
             where: Any = True) -> Any:  # fmt: skip
        mask = _counting(ns, x, where)
        y = extreme(name)(ns, ns.where(mask, x, worst), axis, out, keepdims, initial)
        none = ~ns.xp.any(mask, axis=axes_of(axis), keepdims=bool(keepdims))
        return ns.where(none, math.nan, y) if initial is None else y

    return call


OWN: dict[str, Callable[..., Any]] = {
    "amax": extreme("max"),
    "amin": extreme("min"),
    "average": average,
    "corrcoef": corrcoef,
    "cov": cov,
    "cumprod": cumulative("cumulative_prod"),
    "cumsum": cumulative("cumulative_sum"),
    "max": extreme("max"),
    "mean": mean,
    "min": extreme("min"),
    "nancumprod": cumulative_without_nan("cumulative_prod", 1),
    "nancumsum": cumulative_without_nan("cumulative_sum", 0),
    "nanmax": extreme_without_nan("max"),
    "nanmean": without_nan(mean),
    "nanmin": extreme_without_nan("min"),
    "nanprod": without_nan(product),
    "nanstd": without_nan(deviation),
    "nansum": without_nan(total),
    "nanvar": without_nan(variance),
    "prod": product,
    "ptp": lambda ns, x, axis=None, out=None, keepdims=False: (
        extreme("max")(ns, x, axis, out, keepdims) - extreme("min")(ns, x, axis, out, keepdims)
    ),
    "std": deviation,
    "sum": total,
    "var": variance,
}
