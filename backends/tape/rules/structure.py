"""The derivative rules of functions that move, add or multiply entries: shapes, sums, indexing, products.

The form of a rule is that of `elementwise.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..maps import Dot, Linear, Map, Sandwich, Transpose

Rule = Callable[..., Any]


def _unary(push_pull: Callable[..., tuple[Callable, Callable]]) -> tuple[Rule, ...]:
    """The rule of a linear function of one array from its pair (push, pull)."""
    return (lambda ns, y, x, **static: Linear(*push_pull(ns, y, x, **static)),)


class Sum:
    """t ↦ Σ t along some axes; the adjoint repeats. What changes neither shape nor dtype is left out."""

    __slots__ = ("axis", "dtypes", "keepdims", "kept", "ns", "shape")

    def __init__(self, ns: Any, y: Any, x: Any, axis: Any, keepdims: bool):
        self.ns, self.axis, self.keepdims, self.shape = ns, axis, keepdims, x.shape
        self.dtypes = None if x.dtype == y.dtype else (x.dtype, y.dtype)
        self.kept = y.shape if keepdims or axis is None else None

    def push(self, t: Any) -> Any:
        """Σ t."""
        t = self.ns.sum(t, axis=self.axis, keepdims=self.keepdims)
        return t if self.dtypes is None else self.ns.fit_dtype(t, self.dtypes[1])

    def pull(self, c: Any) -> Any:
        """C, repeated."""
        if self.kept is None:
            axes = {a % len(self.shape) for a in (self.axis if isinstance(self.axis, tuple) else (self.axis,))}
            self.kept = tuple(1 if i in axes else n for i, n in enumerate(self.shape))
        if c.shape != self.kept:
            c = self.ns.reshape(c, self.kept)
        if self.dtypes is not None:
            c = self.ns.fit_dtype(c, self.dtypes[0])
        return self.ns.broadcast_to(c, self.shape)


def _sum(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> Sum:
    return Sum(ns, y, x, axis, keepdims)


def _extreme(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The derivative of max/min: an equal share to every entry that attains it."""
    whole = y if keepdims or axis is None else ns.restore_axes(y, axis, x.shape)
    share = ns.astype(ns.equal(x, whole), x.dtype)
    share = share / ns.sum(share, axis=axis, keepdims=True)
    total = Sum(ns, y, x, axis, keepdims)
    return Linear(lambda t: total.push(t * share), lambda c: total.pull(c) * share)


def _reshape(ns: Any, y: Any, x: Any, **_: Any) -> tuple:
    before, after = x.shape, y.shape
    return (lambda t: ns.reshape(t, after)), (lambda c: ns.reshape(c, before))


def _permute(ns: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Map:
    n = len(axes)
    if tuple(a % n for a in axes) == (1, 0):
        return Transpose()
    back = tuple(sorted(range(n), key=lambda i: axes[i] % n))
    return Linear(lambda t: ns.permute_dims(t, axes), lambda c: ns.permute_dims(c, back))


def _broadcast(ns: Any, y: Any, x: Any, *, shape: tuple[int, ...]) -> tuple:
    before = x.shape
    return (lambda t: ns.broadcast_to(t, shape)), (lambda c: ns.unbroadcast(c, before))


def _self_adjoint(name: str) -> Callable[..., tuple]:
    def pair(ns: Any, y: Any, x: Any, **static: Any) -> tuple:
        f = getattr(ns, name)
        return (lambda t: f(t, **static)), (lambda c: f(c, **static))

    return pair


def _roll(ns: Any, y: Any, x: Any, *, shift: Any, axis: Any = None) -> tuple:
    shift, axis = (tuple(v) if isinstance(v, list) else v for v in (shift, axis))
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return (lambda t: ns.roll(t, shift=shift, axis=axis)), (lambda c: ns.roll(c, shift=back, axis=axis))


def _cumulative_sum(ns: Any, y: Any, x: Any, *, axis: Any = None, include_initial: bool = False, **_: Any) -> tuple:
    axis = 0 if axis is None else axis

    def pull(c: Any) -> Any:
        total = ns.flip(ns.cumulative_sum(ns.flip(c, axis=axis), axis=axis), axis=axis)
        if include_initial:
            total = ns.take_slice(total, axis, slice(1, None))
        return ns.fit_dtype(total, x.dtype)

    def push(t: Any) -> Any:
        return ns.fit_dtype(ns.cumulative_sum(t, axis=axis, include_initial=include_initial), y.dtype)

    return push, pull


class Getitem:
    """x ↦ x[key], as a function that only picks entries."""

    __slots__ = ("is_view", "key", "takes_all")

    def __init__(self, key: Any):
        self.key = key
        parts = key if isinstance(key, tuple) else (key,)
        self.is_view = all(k is None or k is Ellipsis or isinstance(k, (int, slice)) for k in parts)
        #: unless a number picks one entry of many
        self.takes_all = self.is_view and all(k == slice(None) for k in parts if isinstance(k, slice))

    def __call__(self, x: Any) -> Any:
        """x[key]."""
        return x[self.key]


def _gather(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any]) -> tuple:
    """Any function that only picks entries of x: the adjoint adds each cotangent where its entry came
    from.
    """
    shape = x.shape
    if isinstance(pick, Getitem) and pick.takes_all and math.prod(y.shape) == math.prod(shape):
        return _reshape(ns, y, x)
    return (lambda t: ns.gather(t, pick=pick)), (lambda c: ns.scatter(c, pick=pick, shape=shape))


def _scatter(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple:
    return (lambda t: ns.scatter(t, pick=pick, shape=shape)), (lambda c: ns.gather(c, pick=pick))


def _astype(ns: Any, y: Any, x: Any, **_: Any) -> Map | None:
    if not ns.backend.is_inexact(y):
        return None
    before, after = x.dtype, y.dtype
    return Linear(lambda t: ns.fit_dtype(t, after), lambda c: ns.fit_dtype(c, before))


def _to_device(ns: Any, y: Any, x: Any, *, device: Any, **_: Any) -> tuple:
    home = ns.device(x)
    return (lambda t: ns.to_device(t, device)), (lambda c: ns.to_device(c, home))


class _Concat:
    """Tangent of one block ↦ tangent of the whole (zero elsewhere); the adjoint cuts the block out."""

    __slots__ = ("after", "axis", "before", "ns")

    def __init__(self, ns: Any, axis: int, before: int, size: int, whole: int):
        self.ns, self.axis = ns, axis
        self.before, self.after = slice(before, before + size), whole

    def push(self, t: Any) -> Any:
        """T, padded with zeros."""
        blocks = [self._zeros(t, self.before.start), t, self._zeros(t, self.after - self.before.stop)]
        return self.ns.concat([b for b in blocks if b.shape[self.axis]], axis=self.axis)

    def _zeros(self, t: Any, size: int) -> Any:
        shape = list(t.shape)
        shape[self.axis] = size
        return self.ns.zeros(tuple(shape), dtype=t.dtype, device=self.ns.device(t))

    def pull(self, c: Any) -> Any:
        """The block of c."""
        return self.ns.take_slice(c, self.axis, self.before)


def concat_map(ns: Any, out: Any, blocks: tuple, index: int, axis: int) -> Any:
    """The map of block `index` in a concatenation."""
    sizes = [b.shape[axis] for b in blocks]
    if sizes[index] == 0:
        return None
    return _Concat(ns, axis, sum(sizes[:index]), sizes[index], out.shape[axis])


def _matmul_left(ns: Any, y: Any, a: Any, b: Any) -> Map:
    """The map of a in a @ b."""
    if len(b.shape) > 1:
        if _goes_with(a, y):
            return Sandwich(ns, None, b, shape=a.shape)
    elif len(a.shape) == 1 and a.dtype == y.dtype:
        return Dot(ns, b)
    turned, is_vector = ns.conj(b) if ns.is_complex(b) else b, len(a.shape) == 1

    def pull(c: Any) -> Any:
        if len(b.shape) == 1:  # (..., n, m) @ (m,) or (m,) @ (m,)
            return (c if is_vector else ns.expand_dims(c, axis=-1)) * turned
        if is_vector:  # (n,) @ (..., n, m)
            return (ns.expand_dims(c, axis=-2) @ turned.mT)[..., 0, :]
        return c @ turned.mT

    return Linear(lambda t: t @ b, _fitted(ns, pull, a))


def _matmul_right(ns: Any, y: Any, a: Any, b: Any) -> Map:
    """The map of b in a @ b."""
    if len(a.shape) > 1:
        if _goes_with(b, y):
            return Sandwich(ns, a, None, shape=b.shape)
    elif len(b.shape) == 1 and b.dtype == y.dtype:
        return Dot(ns, a)
    turned, is_vector = ns.conj(a) if ns.is_complex(a) else a, len(b.shape) == 1

    def pull(c: Any) -> Any:
        if len(a.shape) == 1:  # (m,) @ (..., m, n) or (m,) @ (m,)
            return c * turned if is_vector else ns.expand_dims(turned, axis=-1) * ns.expand_dims(c, axis=-2)
        if is_vector:  # (..., n, m) @ (m,)
            return (turned.mT @ ns.expand_dims(c, axis=-1))[..., 0]
        return turned.mT @ c

    return Linear(lambda t: a @ t, _fitted(ns, pull, b))


def _goes_with(factor: Any, y: Any) -> bool:
    """Whether a factor of the product y was neither repeated along a batch axis nor promoted."""
    here, there = factor.shape, y.shape
    return len(here) == len(there) and here[:-2] == there[:-2] and factor.dtype == y.dtype


def _fitted(ns: Any, pull: Callable[[Any], Any], factor: Any) -> Callable[[Any], Any]:
    """`pull`, with what was broadcast or promoted undone."""
    shape, dtype = factor.shape, factor.dtype
    return lambda c: ns.fit_dtype(ns.unbroadcast(pull(c), shape), dtype)


OTHERS: dict[str, tuple[Rule, ...]] = {
    "astype": (_astype,),
    "broadcast_to": _unary(_broadcast),
    "cumulative_sum": _unary(_cumulative_sum),
    "expand_dims": _unary(_reshape),
    "flip": _unary(_self_adjoint("flip")),
    "gather": _unary(_gather),
    "matmul": (_matmul_left, _matmul_right),
    "matrix_transpose": (lambda ns, y, x: Transpose(),),
    "max": (_extreme,),
    "min": (_extreme,),
    "permute_dims": (_permute,),
    "reshape": _unary(_reshape),
    "roll": _unary(_roll),
    "scatter": _unary(_scatter),
    "squeeze": _unary(_reshape),
    "sum": (_sum,),
    "to_device": _unary(_to_device),
    "tril": _unary(_self_adjoint("tril")),
    "triu": _unary(_self_adjoint("triu")),
}
