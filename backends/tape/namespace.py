"""The traced namespace: an array API namespace whose functions differentiate when given traced arrays.

`TracedNamespace(backend)` offers every function of the backend's own namespace. Each name is looked up once, in
this order: a rule (`rules.py`, `linalg.py`), a composition of functions that have rules (`composed.py`), a function
with derivative zero, and otherwise the namespace's own function behind a guard that raises `NoDerivativeError` when,
and only when, it is given an array that is being differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._errors import NoDerivativeError
from . import composed, linalg, rules
from .core import MultiPrimitive, Primitive, Traced, raw, substitute

#: Parameters that may be given by position after the array; all are static.
_STATIC = {
    "astype": ("dtype",),
    "broadcast_to": ("shape",),
    "expand_dims": ("axis",),
    "permute_dims": ("axes",),
    "reshape": ("shape",),
    "roll": ("shift",),
    "squeeze": ("axis",),
    "tril": ("k",),
    "triu": ("k",),
}


def _any_traced(values: Any) -> bool:
    return any(
        isinstance(v, Traced) or (isinstance(v, (list, tuple)) and _any_traced(v)) for v in values
    )


def _with_static(primitive: Primitive, names: tuple[str, ...]) -> Callable[..., Any]:
    def call(x: Any, *static: Any, copy: bool | None = None, device: Any = None, **keywords: Any) -> Any:
        keywords.update(zip(names, static, strict=False))
        return primitive(x, **keywords)

    return call


def _constant(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        args = tuple(raw(a) for a in substitute(args))
        return function(*args, **{k: raw(v) for k, v in keywords.items()})

    return call


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        if _any_traced(args) or _any_traced(keywords.values()):
            raise NoDerivativeError(
                f"{name} has no derivative rule, and one of its arguments is being differentiated; write it with "
                "other functions, give it a rule with custom_derivative, or cut it off with stop_gradient"
            )
        return function(*args, **keywords)

    return call


class _Space:
    """A namespace whose attributes are made once, at first use."""

    def __init__(self, root: TracedNamespace, xp: Any, prefix: str):
        self._root, self._xp, self._prefix = root, xp, prefix
        self.__name__ = f"nestfold.traced({getattr(root.xp, '__name__', '')}{prefix})"

    def __getattr__(self, name: str) -> Any:
        made = self._make(name)
        self.__dict__[name] = made
        return made

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._xp)})

    def _rule(self, name: str) -> Any:
        """The differentiable version of `name`, or None."""
        raise AttributeError(name)

    def _make(self, name: str) -> Any:
        found = self._rule(name)
        if found is not None:
            return found
        own = getattr(self._xp, name)
        if not callable(own) or isinstance(own, type):
            return own
        return _constant(own) if name in rules.CONSTANT else _guarded(self._prefix.lstrip(".") + "." + name if self._prefix else name, own)

    def _compose(self, name: str, table: dict[str, Callable[..., Any]]) -> Callable[..., Any] | None:
        function = table.get(name)
        if function is None:
            return None
        own, root = getattr(self._xp, name, None), self._root

        def call(*args: Any, **keywords: Any) -> Any:
            if own is not None and not (_any_traced(args) or _any_traced(keywords.values())):
                return own(*args, **keywords)
            return function(root, *args, **keywords)

        return call


class _Linalg(_Space):
    """The `linalg` extension."""

    def _rule(self, name: str) -> Any:
        root = self._root
        if name in ("matmul", "matrix_transpose", "tensordot", "vecdot"):
            return getattr(root, name)
        if name in linalg.MULTIPLE:
            return MultiPrimitive(f"linalg.{name}", getattr(self._xp, name), linalg.MULTIPLE[name])
        if name in ("solve", "cholesky"):
            primitive = Primitive(f"linalg.{name}", getattr(self._xp, name), linalg.RULES[name], False)
            return composed.LINALG_AROUND[name](root, primitive)
        if name in linalg.RULES:
            return Primitive(f"linalg.{name}", getattr(self._xp, name), linalg.RULES[name], False)
        return self._compose(name, composed.LINALG)


class _Fft(_Space):
    """The `fft` extension: guarded, it has no rules yet."""

    def _rule(self, name: str) -> Any:
        return None


class TracedNamespace(_Space):
    """The traced namespace of one backend, with the helpers that rules are written with."""

    def __init__(self, backend: Any):
        self.backend, self.xp = backend, backend.xp
        super().__init__(self, backend.xp, "")
        self._complex: dict[Any, bool] = {}
        if hasattr(self.xp, "linalg"):
            self.linalg = _Linalg(self, self.xp.linalg, ".linalg")
        if hasattr(self.xp, "fft"):
            self.fft = _Fft(self, self.xp.fft, ".fft")

    def _rule(self, name: str) -> Any:
        if name == "gather":
            return Primitive(name, lambda x, pick: pick(x), rules.OTHERS[name], False)
        if name == "scatter":
            return Primitive(name, self._raw_scatter, rules.OTHERS[name], False)
        if name in composed.FUNCTIONS:
            return self._compose(name, composed.FUNCTIONS)
        if name in rules.ELEMENTWISE:
            return Primitive(name, composed.RAW.get(name) or getattr(self.xp, name), rules.ELEMENTWISE[name], True)
        if name in rules.OTHERS:
            primitive = Primitive(name, getattr(self.xp, name), rules.OTHERS[name], False)
            return _with_static(primitive, _STATIC[name]) if name in _STATIC else primitive
        return None

    # -- what rules are written with ------------------------------------------------------------------------------
    def is_complex(self, value: Any) -> bool:
        """Whether an array or Python number is complex."""
        dtype = getattr(value, "dtype", None)
        if dtype is None:
            return isinstance(value, complex)
        found = self._complex.get(dtype)
        if found is None:
            found = self._complex[dtype] = bool(self.xp.isdtype(dtype, "complex floating"))
        return found

    def adjoint(self, a: Any) -> Any:
        """The conjugate transpose of matrices."""
        return self.conj(a.mT) if self.is_complex(a) else a.mT

    def hermitian(self, a: Any) -> Any:
        """(a + aᴴ)/2."""
        return 0.5 * (a + self.adjoint(a))

    def device(self, value: Any) -> Any:
        """The device of a traced or plain array."""
        return self.backend.device(raw(value))

    def fit_dtype(self, value: Any, dtype: Any) -> Any:
        """`value` in this dtype; the real part where that is asked for."""
        if value.dtype == dtype:
            return value
        if self.is_complex(value) and not self.xp.isdtype(dtype, "complex floating"):
            value = self.real(value)
        return value if value.dtype == dtype else self.astype(value, dtype)

    def unbroadcast(self, value: Any, shape: tuple[int, ...]) -> Any:
        """The adjoint of broadcasting from `shape`: sums over what was repeated."""
        have = value.shape
        if have == shape:
            return value
        extra = len(have) - len(shape)
        axes = tuple(range(extra)) + tuple(
            extra + i for i, n in enumerate(shape) if n == 1 and have[extra + i] != 1
        )
        total = self.sum(value, axis=axes, keepdims=False) if axes else value
        return total if total.shape == shape else self.reshape(total, shape)

    def fit(self, value: Any, like: Any) -> Any:
        """`value`, summed and demoted to the shape and dtype of `like`."""
        return self.fit_dtype(self.unbroadcast(value, like.shape), like.dtype)

    def restore_axes(self, value: Any, axis: Any, ndim: int) -> Any:
        """`value` with the axes that a reduction dropped put back with length one."""
        axes = sorted(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))
        key = [slice(None)] * ndim
        for a in axes:
            key[a] = None
        return value[tuple(key)]

    def take_slice(self, value: Any, axis: int, part: slice) -> Any:
        """`value[..., part, ...]` along `axis`."""
        key = [slice(None)] * len(value.shape)
        key[axis] = part
        return value[tuple(key)]

    def _raw_scatter(self, values: Any, *, pick: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
        """Zeros of `shape` to which each value is added at the place that `pick` had taken it from."""
        xp, device = self.xp, self.device(values)
        if getattr(pick, "is_view", False):
            out = xp.zeros(shape, dtype=values.dtype, device=device)
            out[pick.key] = values
            return out
        size = math.prod(shape)
        places = pick(xp.reshape(xp.arange(size, device=device), shape))
        flat = xp.zeros((size,), dtype=values.dtype, device=device)
        self.backend.add_at(flat, xp.reshape(places, (-1,)), xp.reshape(values, (-1,)))
        return xp.reshape(flat, shape)
