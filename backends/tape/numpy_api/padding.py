"""`np.pad`: every mode that has a name. One axis is padded after the other, as NumPy does."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..refusals import no_rule
from .order import OWN as OF_ORDER
from .reductions import OWN as REDUCTIONS
from .ufuncs import plain

_PICKED = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS = {
    "maximum": REDUCTIONS["max"],
    "mean": REDUCTIONS["mean"],
    "median": OF_ORDER["median"],
    "minimum": REDUCTIONS["min"],
}

_KEYWORDS = {"constant": "constant_values", "empty": "", "linear_ramp": "end_values", "statistic": "stat_length"}


def pad(ns: Any, x: Any, pad_width: Any, mode: Any = "constant", **keywords: Any) -> Any:
    """`np.pad` in its modes with a name; `reflect_type="odd"` and functions are refused."""
    own = ns.xp.pad
    if mode in _PICKED and keywords.get("reflect_type", "even") == "even":
        return ns.gather(x, pick=lambda a: own(a, pad_width, mode, **keywords))
    widths = _pairs(ns, pad_width, max(x.ndim, 1), operator.index)
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"np.pad cannot take entries away: pad_width is {pad_width}")
    widths = widths[: x.ndim]
    if mode not in ("constant", "empty") and any(n == 0 < sum(pair) for n, pair in zip(x.shape, widths, strict=True)):
        raise ValueError(f"np.pad with mode={mode!r} of an axis without entries (the shape is {x.shape})")
    taken = _KEYWORDS.get("statistic" if mode in _STATISTICS else mode)
    if taken is not None and not set(keywords) <= {taken}:
        raise ValueError(f"np.pad with mode={mode!r} takes no {', '.join(sorted(set(keywords) - {taken}))}")
    if mode in ("constant", "empty"):
        values = _pairs(ns, keywords.get("constant_values", 0), x.ndim)
        return _padded(ns, x, widths, lambda v, a, side, n: _filled(ns, v, a, values[a][side], n))
    if mode == "linear_ramp":
        ends = _pairs(ns, keywords.get("end_values", 0), x.ndim)
        return _padded(ns, x, widths, lambda v, a, side, n: _ramp(ns, v, a, side, ends[a][side], n))
    if mode in _STATISTICS:
        lengths = _pairs(ns, keywords.get("stat_length"), x.ndim)
        if any(n is not None and n < 0 for pair in lengths for n in pair):
            raise ValueError(f"np.pad with stat_length={keywords['stat_length']}: a length is not negative")
        return _padded(ns, x, widths, lambda v, a, side, n: _statistic(ns, v, a, side, mode, lengths[a][side], n))
    raise no_rule(f"np.pad with mode={mode!r} and {keywords}" if keywords else f"np.pad with mode={mode!r}")


def _pairs(ns: Any, given: Any, ndim: int, kind: Any = None) -> list[list[Any]]:
    """One (before, after) for each axis, from one number, one pair, or one pair for each axis."""
    if isinstance(given, dict):
        pairs = [(0, 0)] * ndim
        for axis, pair in given.items():
            pairs[axis] = pair if isinstance(pair, tuple) else (pair, pair)
        given = pairs
    if not isinstance(given, (list, tuple)) and not len(getattr(given, "shape", ())):
        return [[given, given]] * ndim
    rows = list(given)
    if not any(isinstance(r, (list, tuple)) or len(getattr(r, "shape", ())) for r in rows):
        if len(rows) > 2:
            raise ShapeError(f"np.pad was given {len(rows)} values in a row; it takes one, or two for both ends")
        rows = [rows]
    rows = [[r[0], r[-1]] for r in rows]
    if len(rows) not in (1, ndim):
        raise ShapeError(f"np.pad was given values for {len(rows)} axes of an array that has {ndim}")
    return [[kind(v) if kind else v for v in row] for row in (rows * ndim if len(rows) == 1 else rows)]


def _padded(ns: Any, x: Any, widths: list[list[int]], part: Callable[..., Any]) -> Any:
    """`x` with `part(x, axis, side, width)` on both sides of one axis after the other."""
    for axis, (before, after) in enumerate(widths):
        parts = [part(x, axis, 0, before)] if before else []
        parts += [x, *([part(x, axis, 1, after)] if after else [])]
        x = ns.concat(parts, axis=axis) if len(parts) > 1 else x
    return x


def _wide(x: Any, axis: int, n: int) -> tuple[int, ...]:
    return tuple(n if a == axis else size for a, size in enumerate(x.shape))


def _filled(ns: Any, x: Any, axis: int, value: Any, n: int) -> Any:
    value = value if hasattr(value, "dtype") else ns.backend.asarray(value, like=plain(x))
    return ns.broadcast_to(ns.astype(value, x.dtype), _wide(x, axis, n))


def _ramp(ns: Any, x: Any, axis: int, side: int, end: Any, n: int) -> Any:
    """From the edge to `end`, which is reached in n steps."""
    steps = [k / n for k in (range(n, 0, -1) if side == 0 else range(1, n + 1))]
    steps = ns.xp.reshape(
        ns.backend.asarray(steps, like=plain(x)), tuple(-1 if a == axis else 1 for a in range(x.ndim))
    )
    edge = ns.take_slice(x, axis, slice(0, 1) if side == 0 else slice(-1, None))
    return edge * (1 - steps) + end * steps


def _statistic(ns: Any, x: Any, axis: int, side: int, mode: str, length: Any, n: int) -> Any:
    size = x.shape[axis]
    length = size if length is None else min(int(length), size)
    part = ns.take_slice(x, axis, slice(0, length) if side == 0 else slice(size - length, None))
    value = _STATISTICS[mode](ns, part, axis=axis, keepdims=True)
    return ns.broadcast_to(value, _wide(x, axis, n))


OWN: dict[str, Callable[..., Any]] = {"pad": pad}
