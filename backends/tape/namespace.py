"""The traced namespace: an array API namespace whose functions differentiate when given traced arrays.

`TracedNamespace(backend)` offers every function of the backend's own namespace. Each name is looked up
once, in this order: a composition of functions that have rules (`rules/composed.py`), a rule (`elementwise.py`,
`linalg.py`), a function with derivative zero, and otherwise the namespace's own function behind a guard
that raises `NoDerivativeError` when, and only when, it is given an array that is being differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._errors import BackendMismatchError
from .array import Traced, constants, is_moving, raw
from .calls import make_primitive
from .core import MultiPrimitive, Primitive
from .numpy_api import protocol
from .refusals import no_rule
from .rules import composed, composed_linalg, einsum, elementwise, fourier, linalg, special, structure
from .rules.structure import Getitem

#: Parameters that may be given by position after the arrays; all are static.
_STATIC = {
    "broadcast_to": ("shape",),
    "cumulative_sum": ("axis",),
    "expand_dims": ("axis",),
    "flip": ("axis",),
    "max": ("axis",),
    "min": ("axis",),
    "permute_dims": ("axes",),
    "reshape": ("shape",),
    "roll": ("shift", "axis"),
    "squeeze": ("axis",),
    "sum": ("axis",),
    "tril": ("k",),
    "triu": ("k",),
}

#: Functions that NumPy and others give a zero of the wrong sign at complex zeros, and what mends it: the standard wants
#: 0 + 0j of sign, and a positive real part of expm1.
_ZEROS = {"expm1": complex(-0.0, 0.0), "sign": complex(-0.0, -0.0)}


def _any_traced(values: Any) -> bool:
    return any(isinstance(v, Traced) or (type(v) in (list, tuple) and _any_traced(v)) for v in values)


def _plain(value: Any) -> Any:
    """`value`, and what is in a list or tuple of that name, without any tracing."""
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else raw(value)


def _call_plain(function: Callable[..., Any], args: Any, keywords: dict[str, Any]) -> Any:
    return function(*map(_plain, args), **{key: _plain(value) for key, value in keywords.items()})


def _constant(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        plain = dict(zip(keywords, constants(name, tuple(keywords.values())), strict=True))
        return function(*constants(name, args), **plain)

    return call


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        if any(map(is_moving, args)) or any(map(is_moving, keywords.values())):
            raise no_rule(name)
        return _call_plain(function, args, keywords)

    return call


class _Space:
    """A namespace whose attributes are made once, at first use."""

    def __init__(self, root: TracedNamespace, xp: Any, prefix: str):
        self._root, self._xp, self._prefix = root, xp, prefix
        self.__name__ = f"nestfold.traced({getattr(root.xp, '__name__', '')}).{prefix}".rstrip(".")

    def __getattr__(self, name: str) -> Any:
        if name in ("_root", "_xp", "_prefix"):
            raise AttributeError(name)
        made = self.__dict__[name] = self._root.present(self._make(name), getattr(self._xp, name, None))
        return made

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._xp)})

    def _rule(self, name: str) -> Any:
        """The differentiable version of `name`, or None."""
        return None

    def _make(self, name: str) -> Any:
        found = self._rule(name)
        if found is not None:
            return found
        own = getattr(self._xp, name)
        if not callable(own) or isinstance(own, type):
            return own
        return (_constant if name in elementwise.CONSTANT else _guarded)(self._prefix + name, own)

    def _compose(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        own, root = getattr(self._xp, name, None), self._root

        def call(*args: Any, **keywords: Any) -> Any:
            if own is not None:
                if not (_any_traced(args) or _any_traced(keywords.values())):
                    return own(*args, **keywords)
                if not root.any_inexact(args) and not root.any_inexact(keywords.values()):
                    return _call_plain(own, args, keywords)
            return function(root, *args, **keywords)

        return call


class _Linalg(_Space):
    """The `linalg` extension."""

    def _rule(self, name: str) -> Any:
        if name in ("matmul", "matrix_transpose", "tensordot", "vecdot"):
            return getattr(self._root, name)
        if name in composed_linalg.LINALG:
            return self._compose(name, composed_linalg.LINALG[name])
        if name not in linalg.RULES and name not in linalg.MULTIPLE:
            return None
        kind, table = (make_primitive, linalg.RULES) if name in linalg.RULES else (MultiPrimitive, linalg.MULTIPLE)
        primitive = kind(f"linalg.{name}", linalg.without_private(getattr(self._xp, name)), table[name])
        around = composed_linalg.LINALG_AROUND.get(name)
        return primitive if around is None else around(self._root, primitive)


class _Fourier(_Space):
    """The `fft` extension."""

    def _rule(self, name: str) -> Any:
        return fourier.rule(self._root, self._xp, name)


class TracedNamespace(_Space):
    """The traced namespace of one backend, with the helpers that rules are written with."""

    def __init__(self, backend: Any):
        self.backend, self.xp = backend, backend.xp
        super().__init__(self, backend.xp, "")
        self._complex: dict[Any, bool] = {}
        #: types whose arithmetic with this library's arrays is that of arrays; see `operand`
        self.operands: set[type] = {bool, complex, float, int}
        if hasattr(self.xp, "linalg"):
            self.linalg = _Linalg(self, self.xp.linalg, "linalg.")
        if hasattr(self.xp, "fft"):
            self.fft = _Fourier(self, self.xp.fft, "fft.")

    def present(self, function: Any, own: Any) -> Any:
        """`function` as this namespace shows it, and the plain namespace's own of that name."""
        return function

    def any_inexact(self, values: Any) -> bool:
        """Whether some array among these, or in a list or tuple of them, is traced and may have a derivative."""
        for v in values:
            if isinstance(v, Traced):
                if v._tape.level or self.backend.is_inexact(v.value):
                    return True
            elif type(v) in (list, tuple) and self.any_inexact(v):
                return True
        return False

    def operand(self, value: Any) -> Any:
        """`value` as an operand beside a traced array; lists become arrays.

        Raises `BackendMismatchError` for arrays of another library, and `TypeError` for what is no array or number:
        its product with an array may be anything, and no rule knows.
        """
        if isinstance(value, Traced):
            return value
        if isinstance(value, (bool, complex, float, int, np.generic)) or self.backend.owns(value):
            self.operands.add(type(value))
            return value
        if isinstance(value, (list, tuple)):
            return self.asarray(value) if _any_traced(value) else self.backend.asarray(value)
        name = f"{type(value).__module__}.{type(value).__name__}"
        if hasattr(value, "shape"):
            raise BackendMismatchError(
                f"a {name} met arrays of {self.backend.name} that are being differentiated: make it one of them first"
            )
        raise TypeError(f"a {name} met arrays that are being differentiated: it is neither an array nor a number")

    def _rule(self, name: str) -> Any:
        if name == "to_device":
            return Primitive(name, self.backend.to_device, structure.OTHERS[name], names=("device",))
        if name == "gather":
            return make_primitive(name, lambda x, pick: pick(x), structure.OTHERS[name])
        if name == "scatter":
            return Primitive(name, self._raw_scatter, structure.OTHERS[name])
        if name in composed.FUNCTIONS:
            return self._compose(name, composed.FUNCTIONS[name])
        if name == "einsum":
            return self._compose(name, einsum.einsum)
        if name == "special":
            return special.Special(self)
        if name in elementwise.ELEMENTWISE:
            own = self.backend.direct.get(name) or composed.RAW.get(name) or getattr(self.xp, name)
            if name in _ZEROS:
                own = self._with_zero(own, _ZEROS[name])
            return make_primitive(name, own, elementwise.ELEMENTWISE[name], elementwise=True)
        if name in structure.OTHERS:
            own = self.backend.direct.get(name) or composed.RAW.get(name) or getattr(self.xp, name)
            if name == "astype":  # some libraries take its dtype by position only
                return Primitive(
                    name, lambda x, dtype, **k: own(x, dtype, **k), structure.OTHERS[name], names=("dtype",)
                )
            return make_primitive(name, own, structure.OTHERS[name], names=_STATIC.get(name, ()))
        return None

    def _with_zero(self, own: Callable[..., Any], zero: complex) -> Callable[..., Any]:
        """`own`, its complex values less a zero with signs: that changes the signs of zeros and nothing else."""

        def call(x: Any) -> Any:
            y = own(x)
            return y - zero if self.is_complex(y) else y

        return call

    # -- NumPy's own ways --------------------------------------------------------------------------
    def method(self, array: Traced, name: str) -> Callable[..., Any]:
        """The method `name` of NumPy's arrays, of this traced array."""
        return protocol.method(self, array, name)

    def array_ufunc(self, ufunc: Any, method: str, inputs: tuple, **keywords: Any) -> Any:
        """A universal function of NumPy met a traced array."""
        return protocol.array_ufunc(self, ufunc, method, inputs, **keywords)

    def array_function(self, function: Any, args: tuple, keywords: dict) -> Any:
        """Another function of NumPy met a traced array."""
        return protocol.array_function(self, function, args, keywords)

    # -- what rules are written with ---------------------------------------------------------------
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
        repeated = (extra + i for i, n in enumerate(shape) if n == 1 and have[extra + i] != 1)
        axes = (*range(extra), *repeated)
        total = self.sum(value, axis=axes) if axes else value
        return total if total.shape == shape else self.reshape(total, shape)

    def fit(self, value: Any, like: Any) -> Any:
        """`value`, summed and demoted to the shape and dtype of `like`."""
        return self.fit_dtype(self.unbroadcast(value, like.shape), like.dtype)

    def restore_axes(self, value: Any, axis: Any, shape: tuple[int, ...]) -> Any:
        """`value`, the result of a reduction from `shape` over `axis`, with axes of length one put back."""
        axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
        return self.reshape(value, tuple(1 if i in axes else n for i, n in enumerate(shape)))

    def take_slice(self, value: Any, axis: int, part: slice) -> Any:
        """`value[..., part, ...]` along `axis`."""
        axis %= len(value.shape)
        return value[(*[slice(None)] * axis, part, ...)]

    def _raw_scatter(self, values: Any, *, pick: Callable[[Any], Any], shape: tuple[int, ...]) -> Any:
        """Zeros of `shape` to which each value is added at the place that `pick` had taken it from."""
        xp, device = self.xp, self.device(values)
        if isinstance(pick, Getitem) and pick.is_view:
            out = xp.zeros(shape, dtype=values.dtype, device=device)
            key = pick.key if isinstance(pick.key, tuple) else (pick.key,)
            if None in key:  # not every library writes through new axes
                key = tuple(k for k in key if k is not None)
                values = xp.reshape(values, out[key].shape)
            out[key] = values
            return out
        size = math.prod(shape)
        places = pick(xp.reshape(xp.arange(size, device=device), shape))
        flat = xp.zeros((size,), dtype=values.dtype, device=device)
        self.backend.add_at(flat, xp.reshape(places, (-1,)), xp.reshape(values, (-1,)))
        return xp.reshape(flat, shape)
