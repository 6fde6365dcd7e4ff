"""One function on every backend, and the worst disagreement told in full."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from ..backends import Backend
from ..backends._trees import NAMESPACE, tree_map
from ._usable import double_precision, usable_backend, usable_backends


def assert_agree(
    function: Callable[..., Any],
    *arrays: Any,
    backends: Iterable[str] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Run `function` on the same inputs on several backends, and compare what comes out.

    `arrays` are NumPy arrays or trees of them (other leaves are handed over as they are); each backend gets a
    copy in its own type. The results, arrays or trees of them, must have the same structure, shapes and
    dtypes, and every two backends must satisfy, at each element,

        |a - b| <= atol + rtol max(|a|, |b|),

    with NaN equal to NaN and an infinity equal to itself. The defaults: `backends`, all that can compute on
    this machine; `rtol`, eps^(3/4) of the result's dtype (1.8e-12 for float64, 6.4e-6 for float32; 0 for
    integers); `atol`, `rtol` times the largest finite magnitude in that array, so that a zero may be off by
    what rounding makes of it.

    Raises `AssertionError` that names the worst pair, where in the result it is, both values, their
    difference, and their distance in units in the last place.
    """
    names = tuple(backends) if backends is not None else usable_backends()
    if len(names) < 2:
        raise ValueError(f"assert_agree compares at least two backends, and was given {', '.join(names) or 'none'}")
    title = getattr(function, "__name__", repr(function))
    results = {name: _run(function, usable_backend(name), arrays) for name in names}
    pairs = itertools.combinations(results, 2)
    found = [gap for pair in pairs for gap in _gaps(title, *pair, results, rtol, atol)]
    worst = max(found, key=lambda gap: gap.excess, default=None)
    if worst is not None:
        raise AssertionError(f"{title}: {worst.report()}")


@dataclasses.dataclass(frozen=True)
class _Gap:
    """The worst element of one leaf between two backends, out of tolerance."""

    names: tuple[str, str]
    values: tuple[Any, Any]
    where: str
    difference: float
    allowed: float
    excess: float
    count: str

    def report(self) -> str:
        """Everything that is known about it, in five lines."""
        width = max(map(len, self.names))
        rows = [f"  {name:<{width}}  {value!s}" for name, value in zip(self.names, self.values, strict=True)]
        return "\n".join(
            [
                f"{self.names[0]} and {self.names[1]} disagree at {self.where}",
                *rows,
                f"  difference {self.difference:.3g} ({ulp_distance(*self.values)} ulp), allowed {self.allowed:.3g}",
                f"  {self.count} elements of this array are out of tolerance between these two",
            ]
        )


def _run(function: Callable[..., Any], backend: Backend, arrays: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """The leaves of the result as NumPy arrays, by their paths in the tree."""

    def give(leaf: Any) -> Any:
        return backend.asarray(np.array(leaf)) if isinstance(leaf, np.ndarray | np.generic) else leaf

    def take(leaf: Any) -> np.ndarray:
        return np.asarray(backend.to_numpy(leaf) if backend.owns(leaf) else leaf)

    with double_precision(backend.name):
        result = function(*(tree_map(give, tree) for tree in arrays))
        paths, found, _ = optree.tree_flatten_with_path(result, namespace=NAMESPACE)
        return {"".join(f"[{key!r}]" for key in path): take(leaf) for path, leaf in zip(paths, found, strict=True)}


def _gaps(
    title: str,
    first: str,
    second: str,
    results: dict[str, dict[str, np.ndarray]],
    rtol: float | None,
    atol: float | None,
) -> list[_Gap]:
    """The leaves on which two backends disagree; raises at once where structure, shape or dtype differ."""
    one, other = results[first], results[second]
    if one.keys() != other.keys():
        raise AssertionError(f"{title}: results of different structure: {first} {list(one)}, {second} {list(other)}")
    gaps = []
    for path, a in one.items():
        b = other[path]
        if a.shape != b.shape or a.dtype != b.dtype:
            kinds = f"{first} {a.dtype}{list(a.shape)}, {second} {b.dtype}{list(b.shape)}"
            raise AssertionError(f"{title}: results of different shape or dtype at result{path}: {kinds}")
        gap = _worst((first, second), path, a, b, rtol, atol)
        gaps += [gap] if gap is not None else []
    return gaps


def _worst(
    names: tuple[str, str], path: str, a: np.ndarray, b: np.ndarray, rtol: float | None, atol: float | None
) -> _Gap | None:
    """The element that exceeds its tolerance by the largest factor; None if none does."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference, allowed = _compare(a, b, rtol, atol)
        outside = ~((a == b) | ((a != a) & (b != b)) | (difference <= allowed))
        excess = np.where(np.isnan(difference) | np.isinf(difference), np.inf, difference / allowed)
    if not outside.any():
        return None
    flat = int(np.argmax(np.where(outside, excess, -1.0)))
    index = tuple(int(i) for i in np.unravel_index(flat, a.shape))
    return _Gap(
        names=names,
        values=(a[index], b[index]),
        where=f"result{path}{list(index) if index else ''}",
        difference=float(difference[index]),
        allowed=float(allowed[index]),
        excess=float(excess[index]),
        count=f"{int(outside.sum())} of {outside.size}",
    )


def _compare(a: np.ndarray, b: np.ndarray, rtol: float | None, atol: float | None) -> tuple[np.ndarray, np.ndarray]:
    """|a - b| and how large it may be, at each element; what is not finite may not differ at all."""
    inexact = np.issubdtype(a.dtype, np.inexact)
    wide = np.result_type(a.dtype, np.float64)
    size = np.maximum(np.abs(a.astype(wide)), np.abs(b.astype(wide)))
    finite = np.isfinite(size)
    if not inexact and not rtol and not atol:  # float64 cannot tell all integers apart: only equal ones pass
        finite = np.zeros_like(finite)
    relative = float(np.finfo(a.dtype).eps) ** 0.75 if rtol is None and inexact else rtol or 0.0
    absolute = relative * float(np.max(size, initial=0.0, where=finite)) if atol is None else atol
    return np.abs(a.astype(wide) - b.astype(wide)), np.where(finite, absolute + relative * size, -1.0)


def ulp_distance(a: Any, b: Any) -> int | str:
    """How many floating-point numbers apart two scalars of one dtype are; of a complex one, the farther part.

    "no" for numbers without such a distance: integers, booleans, NaN, infinities.
    """
    a, b = np.asarray(a), np.asarray(b)
    if np.iscomplexobj(a):
        parts = ulp_distance(a.real, b.real), ulp_distance(a.imag, b.imag)
        return "no" if "no" in parts else max(parts)  # type: ignore[type-var]
    if not (np.issubdtype(a.dtype, np.floating) and np.isfinite(a) and np.isfinite(b)):
        return "no"
    return abs(_rank(a) - _rank(b))


def _rank(a: np.ndarray) -> int:
    """Where a floating-point number stands in their order, zero at 0."""
    integer = np.dtype(f"i{a.dtype.itemsize}")
    bits = int(a.view(integer))
    return bits if bits >= 0 else int(np.iinfo(integer).min) - bits
