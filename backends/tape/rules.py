"""The derivative rules of the functions outside `linalg`: one line for each function.

A rule is a tuple with one entry per argument, `(ns, out, *args, **static) -> Map or None (zero)`; a last entry serves
all arguments beyond it. Everything is written with operators and the traced namespace `ns`, hence differentiable
itself. To add a function: one line here (or in `linalg.py`), one line of `tests/test_tape.py`.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

from .maps import IDENTITY, NEGATE, Linear, Map, Scale, scale

Rule = Callable[..., Any]


def _by(derivative: Callable[..., Any]) -> Rule:
    """The rule of an elementwise function from its derivative (ns, out, *args) -> d."""
    return lambda ns, y, *args: scale(ns, derivative(ns, y, *args))


def _tie(compare: str) -> Callable[..., Any]:
    """The derivative of maximum/minimum: 1 where the argument wins, ½ where it ties."""

    def derivative(ns: Any, y: Any, mine: Any, other: Any) -> Any:
        wins = ns.astype(getattr(ns, compare)(mine, other), y.dtype)
        ties = ns.astype(ns.equal(mine, other), y.dtype)
        return wins + 0.5 * ties

    return derivative


def _power_base(ns: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(b, (int, float)):
        return 2 * a if b == 2 else b * a ** (b - 1) if b else 0.0
    return b * a ** ns.where(b == 0, ns.zeros_like(b), b - 1)


def _power_exponent(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """Aᵇ log a; 0 where a = 0."""
    if isinstance(a, (int, float, complex)):
        return y * (0.0 if a == 0 else math.log(a) if not isinstance(a, complex) and a > 0 else cmath.log(a))
    return y * ns.log(ns.where(a == 0, ns.ones_like(a), a))


def _abs(ns: Any, y: Any, x: Any) -> Map:
    """D|x|[t] = Re(conj(s) t), s = x/|x| (0 at 0)."""
    s = ns.sign(x)
    return Linear(lambda t: ns.real(ns.conj(s) * t), lambda c: c * s) if ns.is_complex(x) else Scale(s)


def _sign(ns: Any, y: Any, x: Any) -> Map | None:
    """For complex x: D(x/|x|)[t] = i s Im(conj(s) t)/|x|, s = x/|x|."""
    if not ns.is_complex(x):
        return None
    size = ns.abs(x)
    d = 1 / ns.where(size == 0, ns.ones_like(size), size)
    return Linear(
        lambda t: 1j * y * (ns.imag(ns.conj(y) * t) * d), lambda c: 1j * y * (ns.imag(ns.conj(y) * c) * d)
    )


def _real(ns: Any, y: Any, x: Any) -> Map:
    return Linear(ns.real, lambda c: ns.astype(c, x.dtype)) if ns.is_complex(x) else IDENTITY


def _imag(ns: Any, y: Any, x: Any) -> Map | None:
    return Linear(ns.imag, lambda c: 1j * ns.astype(c, x.dtype)) if ns.is_complex(x) else None


def _conj(ns: Any, y: Any, x: Any) -> Any:
    return Linear(ns.conj, ns.conj) if ns.is_complex(x) else IDENTITY


def _chosen(ns: Any, condition: Any, of_true: bool) -> Linear:
    def keep(t: Any) -> Any:
        zero = ns.zeros_like(t)
        return ns.where(condition, t, zero) if of_true else ns.where(condition, zero, t)

    return Linear(keep, keep)


# -- elementwise: shapes broadcast, dtypes promote; see Primitive ----------------------------------
_LN2, _LN10 = math.log(2.0), math.log(10.0)
ELEMENTWISE: dict[str, tuple[Rule, ...]] = {
    "abs": (_abs,),
    "acos": (_by(lambda ns, y, x: -1 / ns.sqrt(1 - x * x)),),
    "acosh": (_by(lambda ns, y, x: 1 / (ns.sqrt(x - 1) * ns.sqrt(x + 1))),),
    "add": (lambda ns, y, a, b: IDENTITY, lambda ns, y, a, b: IDENTITY),
    "asin": (_by(lambda ns, y, x: 1 / ns.sqrt(1 - x * x)),),
    "asinh": (_by(lambda ns, y, x: 1 / ns.sqrt(x * x + 1)),),
    "atan": (_by(lambda ns, y, x: 1 / (1 + x * x)),),
    "atan2": (
        _by(lambda ns, y, a, b: b / (a * a + b * b)),
        _by(lambda ns, y, a, b: -a / (a * a + b * b)),
    ),
    "atanh": (_by(lambda ns, y, x: 1 / (1 - x * x)),),
    "conj": (_conj,),
    "copysign": (_by(lambda ns, y, a, b: ns.sign(a) * ns.sign(y)), lambda ns, y, a, b: None),
    "cos": (_by(lambda ns, y, x: -ns.sin(x)),),
    "cosh": (_by(lambda ns, y, x: ns.sinh(x)),),
    "divide": (_by(lambda ns, y, a, b: 1 / b), _by(lambda ns, y, a, b: -y / b)),
    "exp": (_by(lambda ns, y, x: y),),
    "expm1": (_by(lambda ns, y, x: y + 1),),
    "hypot": (_by(lambda ns, y, a, b: a / y), _by(lambda ns, y, a, b: b / y)),
    "imag": (_imag,),
    "log": (_by(lambda ns, y, x: 1 / x),),
    "log10": (_by(lambda ns, y, x: 1 / (_LN10 * x)),),
    "log1p": (_by(lambda ns, y, x: 1 / (1 + x)),),
    "log2": (_by(lambda ns, y, x: 1 / (_LN2 * x)),),
    "logaddexp": (_by(lambda ns, y, a, b: ns.exp(a - y)), _by(lambda ns, y, a, b: ns.exp(b - y))),
    "maximum": (_by(_tie("greater")), _by(lambda ns, y, a, b: _tie("greater")(ns, y, b, a))),
    "minimum": (_by(_tie("less")), _by(lambda ns, y, a, b: _tie("less")(ns, y, b, a))),
    "multiply": (lambda ns, y, a, b: scale(ns, b), lambda ns, y, a, b: scale(ns, a)),
    "negative": (lambda ns, y, x: NEGATE,),
    "positive": (lambda ns, y, x: IDENTITY,),
    "pow": (_by(_power_base), _by(_power_exponent)),
    "real": (_real,),
    "reciprocal": (_by(lambda ns, y, x: -y * y),),
    "remainder": (lambda ns, y, a, b: IDENTITY, _by(lambda ns, y, a, b: -ns.floor_divide(a, b))),
    "sign": (_sign,),
    "sin": (_by(lambda ns, y, x: ns.cos(x)),),
    "sinh": (_by(lambda ns, y, x: ns.cosh(x)),),
    "sqrt": (_by(lambda ns, y, x: 0.5 / y),),
    "square": (_by(lambda ns, y, x: 2 * x),),
    "subtract": (lambda ns, y, a, b: IDENTITY, lambda ns, y, a, b: NEGATE),
    "tan": (_by(lambda ns, y, x: 1 + y * y),),
    "tanh": (_by(lambda ns, y, x: 1 - y * y),),
    "where": (
        lambda ns, y, c, a, b: None,
        lambda ns, y, c, a, b: _chosen(ns, c, True),
        lambda ns, y, c, a, b: _chosen(ns, c, False),
    ),
}


# -- shapes, reductions, indexing ------------------------------------------------------------------
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


def _permute(ns: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> tuple:
    n = len(axes)
    back = tuple(sorted(range(n), key=lambda i: axes[i] % n))
    return (lambda t: ns.permute_dims(t, axes)), (lambda c: ns.permute_dims(c, back))


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


def _cumulative_sum(
    ns: Any, y: Any, x: Any, *, axis: Any = None, include_initial: bool = False, **_: Any
) -> tuple:
    axis = 0 if axis is None else axis

    def pull(c: Any) -> Any:
        total = ns.flip(ns.cumulative_sum(ns.flip(c, axis=axis), axis=axis), axis=axis)
        if include_initial:
            total = ns.take_slice(total, axis, slice(1, None))
        return ns.fit_dtype(total, x.dtype)

    def push(t: Any) -> Any:
        return ns.fit_dtype(ns.cumulative_sum(t, axis=axis, include_initial=include_initial), y.dtype)

    return push, pull


def _gather(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any]) -> tuple:
    """Any function that only picks entries of x: the adjoint adds each cotangent where its entry came from."""
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

    def pull(c: Any) -> Any:
        if len(b.shape) == 1:  # (..., n, m) @ (m,) or (m,) @ (m,)
            return (ns.expand_dims(c, axis=-1) if a.shape[:-1] else c) * ns.conj(b)
        if len(a.shape) == 1:  # (n,) @ (..., n, m)
            return (ns.expand_dims(c, axis=-2) @ ns.adjoint(b))[..., 0, :]
        return c @ ns.adjoint(b)

    return Linear(lambda t: t @ b, _fitted(ns, pull, a, y))


def _matmul_right(ns: Any, y: Any, a: Any, b: Any) -> Map:
    """The map of b in a @ b."""

    def pull(c: Any) -> Any:
        if len(a.shape) == 1:
            wide = len(b.shape) > 1
            return (
                (ns.expand_dims(ns.conj(a), axis=-1) * ns.expand_dims(c, axis=-2)) if wide else c * ns.conj(a)
            )
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
    "matrix_transpose": _unary(_self_adjoint("matrix_transpose")),
    "max": (_extreme,),
    "min": (_extreme,),
    "permute_dims": _unary(_permute),
    "reshape": _unary(_reshape),
    "roll": _unary(_roll),
    "scatter": _unary(_scatter),
    "squeeze": _unary(_reshape),
    "sum": _unary(_sum),
    "tril": _unary(_self_adjoint("tril")),
    "triu": _unary(_self_adjoint("triu")),
}

#: Functions whose derivative is zero wherever it exists, or whose value has no derivative by its kind.
CONSTANT = frozenset(
    "all allclose any argmax argmin argpartition argsort argwhere array_equal array_equiv bitwise_and bitwise_invert "
    "bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor can_cast ceil count_nonzero digitize empty_like "
    "equal finfo fix flatnonzero floor floor_divide full_like greater greater_equal heaviside iinfo isclose iscomplex "
    "iscomplexobj isdtype isfinite isin isinf isnan isneginf isposinf isreal isrealobj less less_equal lexsort "
    "logical_and logical_not logical_or logical_xor matrix_rank may_share_memory ndim nonzero not_equal ones_like "
    "result_type rint round searchsorted shape shares_memory signbit size trunc unique_all unique_counts "
    "unique_inverse unique_values zeros_like".split()
)

__all__ = ["CONSTANT", "ELEMENTWISE", "OTHERS", "concat_map"]
