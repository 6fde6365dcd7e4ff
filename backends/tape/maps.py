"""Linear maps: the edges of the tape. Each knows how to push a tangent and how to pull a cotangent.

`pull` is the adjoint of `push` for the real inner product Re⟨conj(a), b⟩. The constants inside a map may
be traced on older tapes; all arithmetic therefore goes through operators and the traced namespace `ns`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .._errors import DTypeError


class Map(Protocol):
    """A linear map between spaces of arrays, with its adjoint."""

    def push(self, t: Any, /) -> Any:
        """The image of a tangent."""

    def pull(self, c: Any, /) -> Any:
        """The image of a cotangent under the adjoint."""


@dataclass(slots=True, eq=False)
class Linear:
    """A map given by two functions."""

    push: Callable[[Any], Any]
    pull: Callable[[Any], Any]


class Identity:
    """t ↦ t."""

    __slots__ = ()
    d = 1

    @staticmethod
    def push(t: Any) -> Any:
        """T."""
        return t

    pull = push


class Negate:
    """t ↦ -t."""

    __slots__ = ()
    d = -1

    @staticmethod
    def push(t: Any) -> Any:
        """-t."""
        return -t

    pull = push


IDENTITY, NEGATE = Identity(), Negate()


class Scale:
    """t ↦ d t, entry by entry; d real, or a Python number."""

    __slots__ = ("d",)

    def __init__(self, d: Any):
        self.d = d

    def push(self, t: Any) -> Any:
        """D t."""
        return t * self.d

    pull = push


class ScaleComplex:
    """t ↦ d t, entry by entry; d complex."""

    __slots__ = ("d", "ns")

    def __init__(self, ns: Any, d: Any):
        self.ns, self.d = ns, d

    def push(self, t: Any) -> Any:
        """D t."""
        return t * self.d

    def pull(self, c: Any) -> Any:
        """conj(d) c."""
        return c * (self.d.conjugate() if isinstance(self.d, complex) else self.ns.conj(self.d))


def scale(ns: Any, d: Any) -> Map:
    """t ↦ d t, entry by entry."""
    return ScaleComplex(ns, d) if ns.is_complex(d) else Scale(d)


class Transpose:
    """t ↦ tᵀ, the last two axes swapped."""

    __slots__ = ()

    @staticmethod
    def push(t: Any) -> Any:
        """tᵀ."""
        return t.mT

    pull = push


class Sandwich:
    """t ↦ a t b, with the adjoint c ↦ aᴴ c bᴴ; or their negatives. A factor that is None is the identity.

    `shape` is that of t, where the factors do not tell it.
    """

    __slots__ = ("a", "b", "negative", "ns", "shape")

    def __init__(self, ns: Any, a: Any, b: Any, negative: bool = False, shape: tuple[int, ...] | None = None):
        self.ns, self.a, self.b, self.negative, self.shape = ns, a, b, negative, shape

    def push(self, t: Any) -> Any:
        """± a t b."""
        if self.negative:
            t = -t
        if self.a is not None:
            t = self.a @ t
        return t if self.b is None else t @ self.b

    def pull(self, c: Any) -> Any:
        """± aᴴ c bᴴ."""
        if self.negative:
            c = -c
        if self.a is not None:
            c = self.ns.adjoint(self.a) @ c
        return c if self.b is None else c @ self.ns.adjoint(self.b)


class Dot:
    """t ↦ Σ b t for vectors; the adjoint is c ↦ conj(b) c."""

    __slots__ = ("b", "turned")

    def __init__(self, ns: Any, b: Any):
        self.b, self.turned = b, ns.conj(b) if ns.is_complex(b) else b

    def push(self, t: Any) -> Any:
        """Σ b t."""
        return t @ self.b

    def pull(self, c: Any) -> Any:
        """conj(b) c."""
        return c * self.turned


class Chain:
    """t ↦ second(first(t))."""

    __slots__ = ("first", "second")

    def __init__(self, first: Map, second: Map):
        self.first, self.second = first, second

    def push(self, t: Any) -> Any:
        """second(first(t))."""
        return self.second.push(self.first.push(t))

    def pull(self, c: Any) -> Any:
        """first*(second*(c))."""
        return self.first.pull(self.second.pull(c))


class Fitted:
    """A map of an argument that was broadcast or promoted: pushes to the result's shape and dtype, pulls
    back to the argument's own (summing what was repeated, dropping the imaginary part of what was real).

    `shapes` and `dtypes`, of the argument and of the result, are None where the two agree, so that nothing is
    looked at twice; `axes` are those to sum over, found at the first pull.
    """

    __slots__ = ("axes", "dtypes", "inner", "ns", "shapes")

    def __init__(self, ns: Any, inner: Map, argument: Any, out: Any):
        self.ns, self.inner, self.axes = ns, inner, None
        self.shapes = None if argument.shape == out.shape else (argument.shape, out.shape)
        self.dtypes = None if argument.dtype == out.dtype else (argument.dtype, out.dtype)
        if self.dtypes is not None and not ns.backend.is_inexact(out):
            raise DTypeError(f"arrays of dtype {argument.dtype} became one of dtype {out.dtype}: it has no derivative")

    def push(self, t: Any) -> Any:
        """inner(t), broadcast and promoted."""
        t = self.inner.push(t)
        if self.dtypes is not None:
            t = self.ns.fit_dtype(t, self.dtypes[1])
        if self.shapes is not None and t.shape != self.shapes[1]:
            t = self.ns.broadcast_to(t, self.shapes[1])
        return t

    def pull(self, c: Any) -> Any:
        """inner*(c), summed and demoted."""
        c = self.inner.pull(c)
        if self.shapes is not None:
            c = self._summed(c, *self.shapes)
        return c if self.dtypes is None else self.ns.fit_dtype(c, self.dtypes[0])

    def _summed(self, c: Any, small: tuple[int, ...], large: tuple[int, ...]) -> Any:
        if self.axes is None:
            extra = len(large) - len(small)
            repeated = (extra + i for i, n in enumerate(small) if n == 1 and large[extra + i] != 1)
            self.axes = (*range(extra), *repeated)
        c = self.ns.sum(c, axis=self.axes)
        return c if c.shape == small else self.ns.reshape(c, small)


class Packed:
    """The tangents or cotangents of several arrays at once; None where zero."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]):
        self.items = items

    def __add__(self, other: Packed) -> Packed:
        pairs = zip(self.items, other.items, strict=True)
        return Packed([b if a is None else a if b is None else a + b for a, b in pairs])


class Select:
    """Packed ↦ its k-th item."""

    __slots__ = ("count", "k")

    def __init__(self, k: int, count: int):
        self.k, self.count = k, count

    def push(self, t: Packed) -> Any:
        """The k-th item."""
        return t.items[self.k]

    def pull(self, c: Any) -> Packed:
        """A pack that holds c in place k alone."""
        items = [None] * self.count
        items[self.k] = c
        return Packed(items)


class Joint:
    """A map from several tangents to a pack, both ways at once; it takes the place of a node's tuple of
    maps.
    """

    __slots__ = ("pull", "push")

    def __init__(self, push: Callable[[list[Any]], Packed], pull: Callable[[Packed], list[Any]]):
        self.push, self.pull = push, pull
