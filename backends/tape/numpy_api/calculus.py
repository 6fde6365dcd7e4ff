"""NumPy's differences, integrals, convolutions, interpolation and number ranges, composed of what has rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..core import Primitive
from ..maps import Linear
from ..refusals import no_rule
from ..rules.composed import counted_axes, one_axis
from .joining import arrays_of
from .ufuncs import cast, is_traced, plain


# -- differences and integrals ---------------------------------------------------------------------
def diff(ns: Any, x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """`np.diff`; numbers may be prepended and appended too."""
    if n < 0:
        raise ValueError(f"the order of a difference is not negative, but n is {n}")
    axis = one_axis(axis, x.ndim)

    def part(value: Any) -> Any:
        if value is None:
            return None
        value = value if hasattr(value, "dtype") else ns.xp.asarray(value)
        wide = tuple(1 if a == axis else size for a, size in enumerate(x.shape))
        return value if len(value.shape) else ns.broadcast_to(value, wide)

    return ns.diff(x, axis=axis, n=n, prepend=part(prepend), append=part(append))


def ediff1d(ns: Any, x: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """`np.ediff1d`."""
    d = ns.diff(ns.reshape(x, (-1,)))
    parts = arrays_of(ns, [d, *(v for v in (to_begin, to_end) if v is not None)])
    if not ns.is_complex(d) and any(map(ns.is_complex, parts)):
        raise TypeError(f"np.ediff1d of real numbers ({d.dtype}) takes no complex ones at its ends")
    ends = [ns.astype(ns.reshape(v, (-1,)), d.dtype) for v in parts[1:]]
    begin = [ends.pop(0)] if to_begin is not None else []
    return ns.concat([*begin, d, *ends]) if len(parts) > 1 else d


def gradient(ns: Any, f: Any, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """`np.gradient`: second-order differences inside, of first or second order at the ends."""
    axes = counted_axes(axis, f.ndim)
    if edge_order not in (1, 2):
        raise ValueError(f"np.gradient is of order 1 or 2 at the ends, not {edge_order}")
    steps = spacing * len(axes) if len(spacing) == 1 else spacing or (1.0,) * len(axes)
    if len(steps) != len(axes):
        raise TypeError(f"np.gradient was given {len(spacing)} spacings for {len(axes)} axes")
    found = []
    for a, h in zip(axes, steps, strict=True):
        if f.shape[a] < edge_order + 1:
            raise ValueError(f"np.gradient needs {edge_order + 1} entries along axis {a}, which has {f.shape[a]}")
        h = h if hasattr(h, "dtype") or isinstance(h, (int, float, complex)) else ns.xp.asarray(h)
        shape = tuple(getattr(h, "shape", ()))
        if shape not in ((), (f.shape[a],)):
            raise ShapeError(f"places of shape {shape} along an axis of {f.shape[a]} entries")
        h = ns.diff(h) if shape else h
        found.append(ns.moveaxis(_slopes(ns, ns.moveaxis(f, a, -1), h, edge_order), -1, a))
    return found[0] if len(found) == 1 else tuple(found)


def _slopes(ns: Any, f: Any, h: Any, order: int) -> Any:
    """The derivative along the last axis; h is the step, or all steps."""
    many = len(getattr(h, "shape", ())) > 0
    before, after = (h[:-1], h[1:]) if many else (h, h)
    left, right = (f[..., 1:-1] - f[..., :-2]) / before, (f[..., 2:] - f[..., 1:-1]) / after
    inside = (left * after + right * before) / (before + after) if many else 0.5 * (left + right)
    first, last = (h[0], h[-1]) if many else (h, h)
    begin, end = (f[..., 1:2] - f[..., :1]) / first, (f[..., -1:] - f[..., -2:-1]) / last
    if order == 2:
        second, other = (h[1], h[-2]) if many else (h, h)
        next_begin = (f[..., 2:3] - f[..., 1:2]) / second
        next_end = (f[..., -2:-1] - f[..., -3:-2]) / other
        begin = begin + (begin - next_begin) * first / (first + second)
        end = end + (end - next_end) * last / (last + other)
    return ns.concat([begin, inside, end], axis=-1)


def trapezoid(ns: Any, y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral by the trapezoidal rule."""
    y = y if hasattr(y, "dtype") else ns.xp.asarray(y)
    y = ns.moveaxis(y, axis, -1)
    if x is not None:
        x = x if hasattr(x, "dtype") else ns.xp.asarray(x)
        dx = ns.diff(x if len(x.shape) == 1 else ns.moveaxis(x, axis, -1))
    return ns.sum(dx * (y[..., 1:] + y[..., :-1]) / 2, axis=-1)


def unwrap(ns: Any, p: Any, *args: Any, **keywords: Any) -> Any:
    """`np.unwrap`: p and whole periods, which are constant."""
    return p + (ns.xp.unwrap(plain(p), *args, **keywords) - plain(p))


# -- convolution -----------------------------------------------------------------------------------
def _full(ns: Any, a: Any, v: Any) -> Any:
    """Σ aₖ vₙ₋ₖ, of length len(a) + len(v) - 1; its adjoint in a correlates with v."""

    def adjoint(ns: Any, c: Any, other: Any, like: Any) -> Any:
        other = ns.flip(ns.conj(other) if ns.is_complex(other) else other)
        start = other.shape[0] - 1
        return ns.fit_dtype(_full(ns, c, other)[start : start + like.shape[0]], like.dtype)

    def rule(swap: bool) -> Callable[..., Linear]:
        def of(ns: Any, y: Any, a: Any, v: Any) -> Linear:
            mine, other = (v, a) if swap else (a, v)

            def push(t: Any) -> Any:
                return ns.fit_dtype(_full(ns, other, t) if swap else _full(ns, t, other), y.dtype)

            return Linear(push, lambda c: adjoint(ns, c, other, mine))

        return of

    own = ns.xp.convolve
    return Primitive("np.convolve", lambda a, v: own(a, v, "full"), (rule(False), rule(True)))(a, v)


def _check_vectors(a: Any, v: Any) -> None:
    if a.ndim != 1 or v.ndim != 1 or not a.shape[0] or not v.shape[0]:
        raise ShapeError(f"a convolution is one of two vectors with entries; the shapes are {a.shape} and {v.shape}")


def convolve(ns: Any, a: Any, v: Any, mode: str = "full") -> Any:
    """`np.convolve` of two vectors, whole ("full"), as long as the longer ("same") or where both overlap ("valid")."""
    a, v = (ns.reshape(w, (1,)) if not w.shape else w for w in arrays_of(ns, (a, v)))
    _check_vectors(a, v)
    long, short = max(a.shape[0], v.shape[0]), min(a.shape[0], v.shape[0])
    return _part(_full(ns, a, v), mode, long, short, (short - 1) // 2)


def correlate(ns: Any, a: Any, v: Any, mode: str = "valid") -> Any:
    """`np.correlate`: Σ aₙ₊ₖ conj(vₙ)."""
    a, v = arrays_of(ns, (a, v))
    _check_vectors(a, v)
    long, short = max(a.shape[0], v.shape[0]), min(a.shape[0], v.shape[0])
    start = (short - 1) // 2 if a.shape[0] >= v.shape[0] else short // 2
    return _part(_full(ns, a, ns.flip(ns.conj(v) if ns.is_complex(v) else v)), mode, long, short, start)


def _part(whole: Any, mode: str, long: int, short: int, start: int) -> Any:
    if mode == "full":
        return whole
    if mode == "valid":
        return whole[short - 1 : long]
    if mode == "same":
        return whole[start : start + long]
    raise ValueError(f"mode must be 'full', 'same' or 'valid', not {mode!r}")


# -- interpolation ---------------------------------------------------------------------------------
def interp(ns: Any, x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """`np.interp`: linear between the points, with a derivative by all three; at a knot by x the one on its right."""
    x, xp, fp = (v if hasattr(v, "dtype") else ns.xp.asarray(v) for v in (x, xp, fp))
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.shape[0]:
        raise ShapeError(
            f"the points of np.interp are two vectors of one length; the shapes are {xp.shape}, {fp.shape}"
        )
    x, xp = ns.astype(x, ns.xp.float64), ns.astype(xp, ns.xp.float64)
    fp = ns.astype(fp, ns.xp.complex128 if ns.is_complex(fp) else ns.xp.float64)
    if period is not None:
        if plain(period) == 0:
            raise ValueError("the period of np.interp is not 0")
        x, xp, fp = _periodic(ns, x, xp, fp, abs(period))
        left = right = None
    knots, at = plain(xp), plain(x)
    n = knots.shape[0]
    if n == 1:
        i = j = ns.xp.zeros(at.shape, dtype=int)
        slope = 0.0
    else:
        i = ns.xp.clip(ns.xp.searchsorted(knots, at, side="right") - 1, 0, n - 2)
        j = i + 1
        slope = (fp[j] - fp[i]) / (xp[j] - xp[i])
    y = fp[i] + slope * (x - xp[i])
    y = ns.where(at < knots[0], fp[0] if left is None else left, y)
    return ns.where(at > knots[-1], fp[-1] if right is None else right, y)


def _periodic(ns: Any, x: Any, xp: Any, fp: Any, period: Any) -> tuple[Any, Any, Any]:
    """The points of one period in order, and one more on each side."""
    if is_traced(period):
        raise no_rule("np.interp by its period")
    x, xp = ns.remainder(x, period), ns.remainder(xp, period)
    order = ns.xp.argsort(plain(xp))
    xp, fp = xp[order], fp[order]
    return x, ns.concat([xp[-1:] - period, xp, xp[:1] + period]), ns.concat([fp[-1:], fp, fp[:1]])


# -- ranges of numbers -----------------------------------------------------------------------------
def linspace(ns: Any, start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False,
             dtype: Any = None, axis: int = 0, **_: Any) -> Any:  # fmt: skip
    """`np.linspace`, differentiable by both ends."""
    if num < 0:
        raise ValueError(f"np.linspace of num={num} entries")
    start, stop = arrays_of(ns, (start, stop))
    start, stop = ns.broadcast_arrays(start, stop)
    steps = max(num - 1 if endpoint else num, 1)
    t = ns.backend.asarray([k / steps for k in range(num)], like=plain(start) + plain(stop) + 0.0)
    t = ns.reshape(t, (num, *[1] * len(start.shape)))
    y = ns.expand_dims(start, axis=0) * (1 - t) + ns.expand_dims(stop, axis=0) * t
    y = ns.moveaxis(y, 0, axis) if axis else y
    y = cast(ns, y, dtype)
    return (y, (stop - start) / steps) if retstep else y


def logspace(ns: Any, start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0,
             dtype: Any = None, axis: int = 0) -> Any:  # fmt: skip
    """`np.logspace`: powers of the base."""
    if len(getattr(base, "shape", ())):
        start, stop, base = ns.broadcast_arrays(*arrays_of(ns, (start, stop, base)))
        base = ns.expand_dims(base, axis=axis)
    like = next(v for v in (start, stop, base) if hasattr(v, "dtype"))
    first, last = (v if hasattr(v, "dtype") else ns.backend.asarray(v, like=plain(like)) for v in (start, stop))
    y = ns.pow(base, linspace(ns, first, last, num, endpoint, axis=axis))
    return cast(ns, y, dtype)


def geomspace(ns: Any, start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None,
              axis: int = 0) -> Any:  # fmt: skip
    """`np.geomspace`: start (stop/start)ᵗ."""
    start, stop = ns.broadcast_arrays(*arrays_of(ns, (start, stop)))
    if bool(ns.xp.any((plain(start) == 0) | (plain(stop) == 0))):
        raise ValueError("a geometric sequence contains no zero")
    ratio = ns.log(stop / start)
    y = ns.expand_dims(start, axis=axis) * ns.exp(linspace(ns, 0 * ratio, ratio, num, endpoint, axis=axis))
    return cast(ns, y, dtype)


#: As many nodes make I₀ exact to rounding up to its overflow at 713.
_NODES = 64


def i0(ns: Any, x: Any) -> Any:
    """I₀(x) = 2/π ∫ cosh(x cos θ) dθ over 0 to π/2 by the midpoint rule, which converges exponentially."""
    if ns.is_complex(x):
        raise TypeError("np.i0 takes real numbers")
    nodes = [math.cos(math.pi * (k + 0.5) / (2 * _NODES)) for k in range(_NODES)]
    return ns.mean(ns.cosh(ns.expand_dims(x, axis=-1) * ns.backend.asarray(nodes, like=plain(x))), axis=-1)


OWN: dict[str, Callable[..., Any]] = {
    "convolve": convolve,
    "correlate": correlate,
    "diff": diff,
    "ediff1d": ediff1d,
    "geomspace": geomspace,
    "gradient": gradient,
    "i0": i0,
    "interp": interp,
    "linspace": linspace,
    "logspace": logspace,
    "trapezoid": trapezoid,
    "trapz": trapezoid,
    "unwrap": unwrap,
}
