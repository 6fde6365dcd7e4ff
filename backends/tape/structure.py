"""The derivative rules of functions that move, add or multiply entries: shapes, sums, indexing, products.

The form of a rule is that of `rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .maps import Linear, Map, Sandwich, Transpose

Rule = Callable[..., Any]


def _unary(push_pull: Callable[..., tuple[Callable, Callable]]) -> tuple[Rule, ...]:
    """The rule of a linear function of one array from its pair (push, pull)."""
    return (lambda ns, y, x, **static: Linear(*push_pull(ns, y, x, **static)),)


def _sum(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> tuple:
    def push(t: Any) -> Any:
        return ns.fit_dtype(ns.sum(t, axis=axis, keepdims=keepdims), y.dtype)

    def pull(c: Any) -> Any:
        if not keepdims and axis is not None:
            c = ns.restore_axes(c, axis, x.shape)
        return ns.broadcast_to(ns.fit_dtype(c, x.dtype), x.shape)

    return push, pull


def _extreme(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The derivative of max/min: an equal share to every entry that attains it."""
    whole = y if keepdims or axis is None else ns.restore_axes(y, axis, x.shape)
    share = ns.astype(ns.equal(x, whole), x.dtype)
    share = share / ns.sum(share, axis=axis, keepdims=True)
    push, spread = _sum(ns, y, x, axis=axis, keepdims=keepdims)
    return Linear(lambda t: push(t * share), lambda c: spread(c) * share)


def _reshape(ns: Any, y: Any, x: Any, **_: Any) -> tuple:
    return (lambda t: ns.reshape(t, y.shape)), (lambda c: ns.reshape(c, x.shape))


def _permute(ns: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> Map:
    n = len(axes)
    if tuple(a % n for a in axes) == (1, 0):
        return Transpose()
    back = tuple(sorted(range(n), key=lambda i: axes[i] % n))
    return Linear(lambda t: ns.permute_dims(t, axes), lambda c: ns.permute_dims(c, back))


def _broadcast(ns: Any, y: Any, x: Any, *, shape: tuple[int, ...]) -> tuple:
    return (lambda t: ns.broadcast_to(t, shape)), (lambda c: ns.unbroadcast(c, x.shape))


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

    __slots__ = ("is_view", "key")

    def __init__(self, key: Any):
        self.key = key
        parts = key if isinstance(key, tuple) else (key,)
        self.is_view = all(k is None or k is Ellipsis or isinstance(k, (int, slice)) for k in parts)

    def __call__(self, x: Any) -> Any:
        """x[key]."""
        return x[self.key]


def _gather(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any]) -> tuple:
    """Any function that only picks entries of x: the adjoint adds each cotangent where its entry came
    from.
    """
    return (lambda t: ns.gather(t, pick=pick)), (lambda c: ns.scatter(c, pick=pick, shape=x.shape))


def _scatter(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple:
    return (lambda t: ns.scatter(t, pick=pick, shape=shape)), (lambda c: ns.gather(c, pick=pick))


def _astype(ns: Any, y: Any, x: Any, **_: Any) -> Map | None:
    if not ns.backend.is_inexact(y):
        return None
    return Linear(lambda t: ns.fit_dtype(t, y.dtype), lambda c: ns.fit_dtype(c, x.dtype))


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
    if len(a.shape) == len(b.shape) == 2 and a.dtype == y.dtype:
        return Sandwich(ns, None, b)

    def pull(c: Any) -> Any:
        if len(b.shape) == 1:  # (..., n, m) @ (m,) or (m,) @ (m,)
            return (ns.expand_dims(c, axis=-1) if a.shape[:-1] else c) * ns.conj(b)
        if len(a.shape) == 1:  # (n,) @ (..., n, m)
            return (ns.expand_dims(c, axis=-2) @ ns.adjoint(b))[..., 0, :]
        return c @ ns.adjoint(b)

    return Linear(lambda t: t @ b, _fitted(ns, pull, a, y))


def _matmul_right(ns: Any, y: Any, a: Any, b: Any) -> Map:
    """The map of b in a @ b."""
    if len(a.shape) == len(b.shape) == 2 and b.dtype == y.dtype:
        return Sandwich(ns, a, None)

    def pull(c: Any) -> Any:
        if len(a.shape) == 1:
            wide = len(b.shape) > 1
            return (ns.expand_dims(ns.conj(a), axis=-1) * ns.expand_dims(c, axis=-2)) if wide else c * ns.conj(a)
        if len(b.shape) == 1:
            return (ns.adjoint(a) @ ns.expand_dims(c, axis=-1))[..., 0]
        return ns.adjoint(a) @ c

    return Linear(lambda t: a @ t, _fitted(ns, pull, b, y))


def _fitted(ns: Any, pull: Callable[[Any], Any], factor: Any, y: Any) -> Callable[[Any], Any]:
    """`pull`, with what was broadcast or promoted undone."""
    if len(factor.shape) > 1 and factor.shape[:-2] == y.shape[:-2] and factor.dtype == y.dtype:
        return pull
    return lambda c: ns.fit(pull(c), factor)


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
    "sum": _unary(_sum),
    "tril": _unary(_self_adjoint("tril")),
    "triu": _unary(_self_adjoint("triu")),
}
