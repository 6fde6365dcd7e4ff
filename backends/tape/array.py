"""What a traced array can do: operators, attributes, methods, indexing, and what it refuses, with advice."""

from __future__ import annotations

from typing import Any

from .._errors import NoDerivativeError
from . import numpy_protocol
from .core import Traced, leaked, raw, substitute


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


def _binary(name: str, swapped: bool = False) -> Any:
    def operator(self: Traced, other: Any) -> Any:
        function = getattr(self._tape.ns, name)
        return function(other, self) if swapped else function(self, other)

    return operator


def _unary(name: str) -> Any:
    return lambda self: getattr(self._tape.ns, name)(self)


def _refuse(what: str, advice: str) -> Any:
    def refuse(self: Traced, *args: Any, **keywords: Any) -> Any:
        raise NoDerivativeError(f"{what} of an array that is being differentiated: {advice}")

    return refuse


def _getitem(self: Traced, key: Any) -> Any:
    key = tuple(raw(k) for k in key) if isinstance(key, tuple) else raw(key)
    return self._tape.ns.gather(self, pick=Getitem(key))


def _iterate(self: Traced) -> Any:
    if not self.shape:
        raise TypeError("iteration over an array of no axes")
    return (_getitem(self, (i, ...)) for i in range(self.shape[0]))


def _equal_name(self: Traced) -> str:
    return f"Traced(shape={self.shape}, dtype={self.dtype}, level={self._tape.level})"


def _constant(name: str) -> Any:
    """An operator with derivative zero: comparisons, and those of integers."""

    def operator(self: Traced, other: Any) -> Any:
        if not self._tape.is_open and self._tape.substitutes is None:
            raise leaked(name)
        a, b = (raw(v) for v in substitute((self, other)))
        return getattr(a, name)(b)

    return operator


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "pow": "pow", "matmul": "matmul", "mod": "remainder",
}  # fmt: skip
for _short, _name in _OPERATORS.items():
    setattr(Traced, f"__{_short}__", _binary(_name))
    setattr(Traced, f"__r{_short}__", _binary(_name, swapped=True))
for _short in ("lt", "le", "gt", "ge", "eq", "ne", "floordiv", "rfloordiv"):
    setattr(Traced, f"__{_short}__", _constant(f"__{_short}__"))
for _short, _name in {"neg": "negative", "pos": "positive", "abs": "abs"}.items():
    setattr(Traced, f"__{_short}__", _unary(_name))

_NUMBER = "use stop_gradient, or nestfold.namespace(x).where in place of an if"
_COPY = "return it from the function, or take stop_gradient of it first"
for _short in ("bool", "int", "float", "complex", "index"):
    setattr(Traced, f"__{_short}__", _refuse(f"{_short}()", _NUMBER))
for _short in ("item", "tolist", "__array__", "__dlpack__"):
    setattr(Traced, _short, _refuse(_short, "it cannot leave its framework; use stop_gradient of it"))
for _short in ("__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__"):
    setattr(Traced, _short, _refuse("copying or pickling", _COPY))
Traced.__setitem__ = _refuse("writing to an entry", "build the result with where, concat or stack instead")
Traced.__delitem__ = Traced.__setitem__

Traced.__getitem__ = _getitem
Traced.__iter__ = _iterate
Traced.__len__ = lambda self: len(raw(self))
Traced.__hash__ = object.__hash__
Traced.__repr__ = _equal_name
Traced.__array_priority__ = 1000
Traced.__array_namespace__ = lambda self, api_version=None: self._tape.ns
Traced.__array_ufunc__ = numpy_protocol.array_ufunc
Traced.__array_function__ = numpy_protocol.array_function

for _name in ("shape", "dtype", "ndim", "size", "device", "itemsize"):
    setattr(Traced, _name, property(lambda self, _name=_name: getattr(self.value, _name)))
Traced.mT = property(lambda self: self._tape.ns.matrix_transpose(self))
Traced.T = property(lambda self: self._tape.ns.permute_dims(self, tuple(range(self.ndim))[::-1]))
Traced.real = property(lambda self: self._tape.ns.real(self))
Traced.imag = property(lambda self: self._tape.ns.imag(self))
Traced.to_device = lambda self, device, **_: self


def _numpy_method(name: str) -> Any:
    """A method with NumPy's signature: it calls the function of that name."""

    def method(self: Traced, *args: Any, **keywords: Any) -> Any:
        return numpy_protocol.call(name, self._tape.ns, self, *args, **keywords)

    return method


for _name in (
    "all any argmax argmin argsort astype clip conj conjugate copy cumprod cumsum diagonal dot flatten max mean min "
    "nonzero prod ravel repeat reshape round squeeze std sum swapaxes take trace transpose var"
).split():
    setattr(Traced, _name, _numpy_method(_name))
