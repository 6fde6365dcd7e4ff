"""The traced array: a value and its place on a tape, with an array's operators, methods and NumPy protocols.

Every operation is a function of the tape's namespace. What would lose the derivative is refused, with advice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .refusals import instead_of, leaked, outside_caller, refuse
from .rules.structure import Getitem

if TYPE_CHECKING:
    from .core import Tape

_NUMBER = "use stop_gradient, or nestfold.namespace(x).where in place of an if"
_ENTRY = "use stop_gradient; to put it into an array, as b[0] = y would, build that array with stack or concat"
_COPY = "return it from the function, or take stop_gradient of it first"
_WRITE = "build the result with where, concat or stack instead"
_LEAVE = (
    "it cannot leave its framework; use functions that have a derivative rule (np.stack, not np.array, of a list "
    "of numbers), or stop_gradient of it"
)


class Traced:
    """An array that is being differentiated: a value and its place on a tape.

    Backends make instances of a leaf class: `TracedArray`, or one of their own where the library's arrays
    would not yield to it in `a @ y`.
    """

    __slots__ = ()
    __array_priority__ = 1000
    __hash__ = object.__hash__
    value: Any
    _tape: Tape
    _index: int

    # -- attributes --------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.value.size

    @property
    def itemsize(self) -> int:
        """The bytes of one entry."""
        return self.value.itemsize

    @property
    def device(self) -> Any:
        """The device of the value."""
        return self.value.device

    @property
    def mT(self) -> Any:  # noqa: N802, RUF100
        """The transpose of the last two axes."""
        return self._tape.ns.matrix_transpose(self)

    @property
    def T(self) -> Any:  # noqa: N802, RUF100
        """All axes in reverse order."""
        ns, n = self._tape.ns, self.ndim
        return ns.matrix_transpose(self) if n == 2 else ns.permute_dims(self, tuple(range(n))[::-1])

    @property
    def real(self) -> Any:
        """The real part."""
        return self._tape.ns.real(self)

    @property
    def imag(self) -> Any:
        """The imaginary part."""
        return self._tape.ns.imag(self)

    def to_device(self, device: Any, /, *, stream: Any = None) -> Any:
        """The same array on another device."""
        return self._tape.ns.to_device(self, device, **({} if stream is None else {"stream": stream}))

    def __getattr__(self, name: str) -> Any:
        """A method of NumPy's arrays: the function of that name."""
        return self._tape.ns.method(self, name)

    # -- operators ---------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        return self._tape.ns.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return self._tape.ns.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return self._tape.ns.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._tape.ns.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return self._tape.ns.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._tape.ns.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._tape.ns.divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._tape.ns.divide(other, self)

    def __pow__(self, other: Any) -> Any:
        return self._tape.ns.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._tape.ns.pow(other, self)

    def __mod__(self, other: Any) -> Any:
        return self._tape.ns.remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._tape.ns.remainder(other, self)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self

    def __matmul__(self, other: Any) -> Any:
        return self._tape.ns.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self._tape.ns.matmul(other, self)

    def __neg__(self) -> Any:
        return self._tape.ns.negative(self)

    def __pos__(self) -> Any:
        return self._tape.ns.positive(self)

    def __abs__(self) -> Any:
        return self._tape.ns.abs(self)

    __iadd__, __isub__, __imul__, __itruediv__ = __add__, __sub__, __mul__, __truediv__
    __ipow__, __imod__, __imatmul__ = __pow__, __mod__, __matmul__

    # -- operators with derivative zero ------------------------------------------------------------
    def __lt__(self, other: Any) -> Any:
        return constant_operator("__lt__", self, other)

    def __le__(self, other: Any) -> Any:
        return constant_operator("__le__", self, other)

    def __gt__(self, other: Any) -> Any:
        return constant_operator("__gt__", self, other)

    def __ge__(self, other: Any) -> Any:
        return constant_operator("__ge__", self, other)

    def __eq__(self, other: object) -> Any:
        return constant_operator("__eq__", self, other)

    def __ne__(self, other: object) -> Any:
        return constant_operator("__ne__", self, other)

    def __floordiv__(self, other: Any) -> Any:
        return constant_operator("__floordiv__", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return constant_operator("__rfloordiv__", self, other)

    def __and__(self, other: Any) -> Any:
        return constant_operator("__and__", self, other)

    def __rand__(self, other: Any) -> Any:
        return constant_operator("__rand__", self, other)

    def __or__(self, other: Any) -> Any:
        return constant_operator("__or__", self, other)

    def __ror__(self, other: Any) -> Any:
        return constant_operator("__ror__", self, other)

    def __xor__(self, other: Any) -> Any:
        return constant_operator("__xor__", self, other)

    def __rxor__(self, other: Any) -> Any:
        return constant_operator("__rxor__", self, other)

    def __lshift__(self, other: Any) -> Any:
        return constant_operator("__lshift__", self, other)

    def __rlshift__(self, other: Any) -> Any:
        return constant_operator("__rlshift__", self, other)

    def __rshift__(self, other: Any) -> Any:
        return constant_operator("__rshift__", self, other)

    def __rrshift__(self, other: Any) -> Any:
        return constant_operator("__rrshift__", self, other)

    def __invert__(self) -> Any:
        return constant_operator("__invert__", self)

    __ifloordiv__, __iand__, __ior__, __ixor__ = __floordiv__, __and__, __or__, __xor__
    __ilshift__, __irshift__ = __lshift__, __rshift__

    # -- entries -----------------------------------------------------------------------------------
    def __getitem__(self, key: Any) -> Any:
        pick = Getitem(key)
        if not pick.is_view:
            pick.key = plain_key(key)
        return self._tape.ns.gather(self, pick=pick)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over an array of no axes")
        return (self[i, ...] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array of no axes")
        return self.shape[0]

    def __repr__(self) -> str:
        if not self._tape.level:
            return f"Wrapped({self.value!r})"
        return f"Traced(shape={self.shape}, dtype={self.dtype}, level={self._tape.level})"

    __str__ = __repr__

    # -- protocols ---------------------------------------------------------------------------------
    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return self._tape.ns

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        return self._tape.ns.array_ufunc(ufunc, method, inputs, **keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        return self._tape.ns.array_function(function, args, keywords)

    # -- what only a constant can do ---------------------------------------------------------------
    def _constant(self, what: str, advice: str) -> Any:
        """The value of an array that is not being differentiated; raises `NoDerivativeError` for one that is."""
        if self._tape.level:
            refuse(what, advice)
        return self.value

    def __bool__(self) -> bool:
        return bool(self._constant("bool()", _NUMBER))

    def __int__(self) -> int:
        return int(self._constant("int()", _NUMBER))

    def __float__(self) -> float:
        return float(self._constant("float()", _ENTRY))

    def __complex__(self) -> complex:
        return complex(self._constant("complex()", _ENTRY))

    def __format__(self, spec: str) -> str:
        return format(self._constant(f"format with {spec!r}", _ENTRY), spec) if spec else str(self)

    def __index__(self) -> int:
        return self._constant("use as an index", _NUMBER).__index__()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if self._tape.level:
            caller = outside_caller()
            refuse(f"conversion to a plain NumPy array{caller}", instead_of(caller) or _LEAVE)
        plain = self._tape.backend.to_numpy(self.value)
        return plain if dtype is None else plain.astype(dtype, copy=False)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        options = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        given = {key: value for key, value in options.items() if value is not None}
        return self._constant("export by DLPack", _LEAVE).__dlpack__(**given)

    def __dlpack_device__(self) -> Any:
        return self._constant("export by DLPack", _LEAVE).__dlpack_device__()

    def __setitem__(self, key: Any, value: Any) -> None:
        plain = self._constant("writing to an entry", _WRITE)
        if isinstance(value, Traced) and value._tape.level:
            refuse("storing an entry in a constant array", _WRITE)
        plain[plain_key(key)] = raw(value)

    # -- what is refused ---------------------------------------------------------------------------
    def __delitem__(self, key: Any) -> NoReturn:
        refuse("deleting an entry", _WRITE)

    def __copy__(self) -> NoReturn:
        refuse("copying", _COPY)

    def __deepcopy__(self, memo: Any) -> NoReturn:
        refuse("copying", _COPY)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse("pickling", _COPY)


class TracedArray(Traced):
    """A traced array as NumPy sees it."""

    __slots__ = ("__weakref__", "_index", "_tape", "value")

    def __init__(self, value: Any, tape: Tape, index: int):
        self.value = value
        self._tape = tape
        self._index = index


def raw(value: Any) -> Any:
    """`value` without any tracing, whatever its nesting."""
    while isinstance(value, Traced):
        value = value.value
    return value


def plain_key(key: Any) -> Any:
    """An index without any tracing."""
    return tuple(raw(k) for k in key) if isinstance(key, tuple) else raw(key)


def substituted(value: Any) -> Any:
    """What stands in for `value` while a function is hoisted; otherwise `value`."""
    while isinstance(value, Traced) and value._tape.substitutes is not None:
        other = value._tape.substitutes(value)
        if other is value:
            break
        value = other
    return value


def substitute(args: Sequence[Any]) -> list[Any]:
    """`args` with the stand-ins of hoisted functions put in place of the arrays that they captured."""
    return [substituted(a) for a in args]


def top_tape(args: Sequence[Any]) -> Tape | None:
    """The youngest tape among the traced arguments; that of constants does not count."""
    top, level = None, 0
    for a in args:
        if isinstance(a, Traced) and a._tape.level > level:
            top, level = a._tape, a._tape.level
    return top


def is_moving(value: Any) -> bool:
    """Whether `value`, or anything in a list or tuple of that name, is being differentiated."""
    if isinstance(value, Traced):
        return value._tape.level > 0
    return type(value) in (list, tuple) and any(map(is_moving, value))


def constants(name: str, args: Sequence[Any]) -> list[Any]:
    """`args` without any tracing, for a function with derivative zero."""
    args = substitute(args)
    for a in args:
        if isinstance(a, Traced) and not a._tape.is_open:
            raise leaked(name)
    return [raw(a) for a in args]


def constant_operator(name: str, mine: Traced, *others: Any) -> Any:
    """An operator with derivative zero: comparisons, and those of integers."""
    a, *rest = constants(name, (mine, *others))
    return mine._tape.constant(getattr(a, name)(*rest))
