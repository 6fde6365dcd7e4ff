"""The derivative rules of the functions outside `linalg`: one line for each function.

A rule is a tuple with one entry per argument, `(ns, out, *args, **static) -> Map or None (zero)`; a last entry serves
all arguments beyond it. Everything is written with operators and the traced namespace `ns`, hence differentiable
itself. To add a function: one line here (or in `linalg.py`), one line of `tests/test_tape.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .maps import IDENTITY, NEGATE, Linear, Sandwich, scale

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
        return 2 * a if b == 2 else b * a ** (b - 1)
    return b * a ** (b - 1)


def _power_exponent(ns: Any, y: Any, a: Any, b: Any) -> Any:
    if isinstance(a, (int, float)):
        return y * math.log(a) if a > 0 else 0 * y
    return y * ns.log(ns.where(a == 0, ns.ones_like(a), a))


def _abs(ns: Any, y: Any, x: Any) -> Any:
    """D|x|[t] = Re(conj(s) t), s = x/|x| (0 at 0)."""
    s = ns.sign(x)
    if not ns.is_complex(x):
        return scale(ns, s)
    conjugate = ns.conj(s)
    return Linear(lambda t: ns.real(conjugate * t), lambda c: c * s)


def _real(ns: Any, y: Any, x: Any) -> Any:
    return Linear(ns.real, lambda c: ns.astype(c, x.dtype)) if ns.is_complex(x) else IDENTITY


def _imag(ns: Any, y: Any, x: Any) -> Any:
    return Linear(ns.imag, lambda c: 1j * ns.astype(c, x.dtype))


def _conj(ns: Any, y: Any, x: Any) -> Any:
    return Linear(ns.conj, ns.conj) if ns.is_complex(x) else IDENTITY


def _chosen(ns: Any, condition: Any, of_true: bool) -> Linear:
    def keep(t: Any) -> Any:
        zero = ns.zeros_like(t)
        return ns.where(condition, t, zero) if of_true else ns.where(condition, zero, t)

    return Linear(keep, keep)


# -- elementwise: shapes broadcast, dtypes promote; see Primitive ------------------------------------------------
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


# -- shapes, reductions, indexing ----------------------------------------------------------------------------------
def _unary(push_pull: Callable[..., tuple[Callable, Callable]]) -> tuple[Rule, ...]:
    """The rule of a linear function of one array from its pair (push, pull)."""
    return (lambda ns, y, x, **static: Linear(*push_pull(ns, y, x, **static)),)


def _sum(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False, **_: Any) -> tuple:
    def pull(c: Any) -> Any:
        if not keepdims and axis is not None:
            c = ns.restore_axes(c, axis, len(x.shape))
        return ns.fit_dtype(ns.broadcast_to(c, x.shape), x.dtype)

    return (lambda t: ns.fit_dtype(ns.sum(t, axis=axis, keepdims=keepdims), y.dtype)), pull


def _extreme(ns: Any, y: Any, x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The derivative of max/min: an equal share to every entry that attains it."""
    whole = y if keepdims or axis is None else ns.restore_axes(y, axis, len(x.shape))
    share = ns.astype(ns.equal(x, whole), x.dtype)
    share = share / ns.sum(share, axis=axis, keepdims=True)
    push, spread = _sum(ns, y, x, axis=axis, keepdims=keepdims)
    return Linear(lambda t: push(t * share), lambda c: spread(c) * share)


def _reshape(ns: Any, y: Any, x: Any, **_: Any) -> tuple:
    return (lambda t: ns.reshape(t, y.shape)), (lambda c: ns.reshape(c, x.shape))


def _permute(ns: Any, y: Any, x: Any, *, axes: tuple[int, ...]) -> tuple:
    n = len(axes)
    back = tuple(sorted(range(n), key=lambda i: axes[i] % n))
    return (lambda t: ns.permute_dims(t, axes=axes)), (lambda c: ns.permute_dims(c, axes=back))


def _broadcast(ns: Any, y: Any, x: Any, *, shape: tuple[int, ...]) -> tuple:
    return (lambda t: ns.broadcast_to(t, shape)), (lambda c: ns.unbroadcast(c, x.shape))


def _self_adjoint(name: str) -> Callable[..., tuple]:
    def pair(ns: Any, y: Any, x: Any, **static: Any) -> tuple:
        f = getattr(ns, name)
        return (lambda t: f(t, **static)), (lambda c: f(c, **static))

    return pair


def _roll(ns: Any, y: Any, x: Any, *, shift: Any, axis: Any = None) -> tuple:
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return (lambda t: ns.roll(t, shift=shift, axis=axis)), (lambda c: ns.roll(c, shift=back, axis=axis))


def _cumulative_sum(ns: Any, y: Any, x: Any, *, axis: Any = None, include_initial: bool = False, **_: Any) -> tuple:
    axis = 0 if axis is None else axis

    def pull(c: Any) -> Any:
        total = ns.flip(ns.cumulative_sum(ns.flip(c, axis=axis), axis=axis), axis=axis)
        if include_initial:
            total = ns.take_slice(total, axis, slice(1, None))
        return ns.fit_dtype(total, x.dtype)

    return (lambda t: ns.cumulative_sum(t, axis=axis, include_initial=include_initial)), pull


def _gather(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any]) -> tuple:
    """Any function that only picks entries of x: the adjoint adds each cotangent where its entry came from."""
    return (lambda t: ns.gather(t, pick=pick)), (lambda c: ns.scatter(c, pick=pick, shape=x.shape))


def _scatter(ns: Any, y: Any, x: Any, *, pick: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple:
    return (lambda t: ns.scatter(t, pick=pick, shape=shape)), (lambda c: ns.gather(c, pick=pick))


def _astype(ns: Any, y: Any, x: Any, *, dtype: Any) -> tuple:
    return (lambda t: ns.fit_dtype(t, y.dtype)), (lambda c: ns.fit_dtype(c, x.dtype))


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


def _matmul_left(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """The map of a in a @ b."""
    if len(b.shape) == 1:  # (..., n, m) @ (m,) or (m,) @ (m,)
        conjugate = ns.conj(b)
        return Linear(lambda t: t @ b, lambda c: ns.fit(c[..., None] * conjugate if a.shape[:-1] else c * conjugate, a))
    bh = ns.adjoint(b)
    if len(a.shape) == 1:  # (n,) @ (..., n, m)
        return Linear(lambda t: t @ b, lambda c: ns.fit((c[..., None, :] @ bh)[..., 0, :], a))
    return Linear(lambda t: t @ b, lambda c: ns.fit(c @ bh, a))


def _matmul_right(ns: Any, y: Any, a: Any, b: Any) -> Any:
    """The map of b in a @ b."""
    if len(a.shape) == 1:
        conjugate = ns.conj(a)
        if len(b.shape) == 1:
            return Linear(lambda t: a @ t, lambda c: ns.fit(c * conjugate, b))
        return Linear(lambda t: a @ t, lambda c: ns.fit(conjugate[:, None] * c[..., None, :], b))
    ah = ns.adjoint(a)
    if len(b.shape) == 1:
        return Linear(lambda t: a @ t, lambda c: ns.fit((ah @ c[..., None])[..., 0], b))
    return Linear(lambda t: a @ t, lambda c: ns.fit(ah @ c, b))


OTHERS: dict[str, tuple[Rule, ...]] = {
    "astype": _unary(_astype),
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
    "all any argmax argmin argsort bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift "
    "bitwise_xor can_cast ceil count_nonzero empty_like equal finfo floor floor_divide full_like greater "
    "greater_equal iinfo isdtype isfinite isinf isnan less less_equal logical_and logical_not logical_or "
    "logical_xor nonzero not_equal ones_like result_type round searchsorted sign signbit trunc "
    "unique_all unique_counts unique_inverse unique_values zeros_like".split()
)

__all__ = ["CONSTANT", "ELEMENTWISE", "OTHERS", "Sandwich", "concat_map"]
