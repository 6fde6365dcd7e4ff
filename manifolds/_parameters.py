"""Manifolds as trees: the array parameters of a manifold are leaves, everything else is its structure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

from ..backends import backend_of
from ..backends._trees import register_node

Array = Any


class Parametrized:
    """A frozen dataclass whose fields named in `parameters` are leaves of trees (or trees themselves).

    So it passes through `jax.jit`, `jax.grad`, `nestfold.grad`, … as an argument, and its parameters may be
    batched (leading axes) and differentiated; numbers are parameters too. Equality is that of fields; arrays are equal
    only to themselves. Subclasses with parameters are declared with `@dataclass(frozen=True, eq=False)`.
    """

    #: the names of the fields that are arrays, numbers, or trees of them
    parameters: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_node(cls, _flatten, lambda structure, parts: _unflatten(cls, structure, parts))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        if not is_dataclass(self):
            return self is other
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        if not is_dataclass(self):
            return id(self)
        return hash((type(self), *(_identity(getattr(self, f.name)) for f in fields(self))))


def expand(parameter: Any, ndim: int) -> Any:
    """A parameter of batch shape, to be combined with arrays that have `ndim` more axes; numbers as they are."""
    if not getattr(parameter, "shape", ()):
        return parameter
    return parameter[(..., *(None,) * ndim)]


def known(*parameters: Any) -> bool:
    """Whether the values of these parameters can be looked at (False under `jax.jit`)."""
    arrays = [p for p in parameters if hasattr(p, "shape")]
    return not arrays or backend_of(*arrays).is_eager(*arrays)


def _flatten(manifold: Any) -> tuple[tuple[Any, ...], Any]:
    names = type(manifold).parameters
    if not is_dataclass(manifold):
        return (), manifold
    static = tuple((f.name, getattr(manifold, f.name)) for f in fields(manifold) if f.name not in names)
    return tuple(getattr(manifold, name) for name in names), static


def _unflatten(cls: type, static: Any, parts: Any) -> Any:
    if not is_dataclass(cls):
        return static
    # not through __init__: what stands for a parameter here may be any object
    result = object.__new__(cls)
    for name, value in (*static, *zip(cls.parameters, parts, strict=True)):  # type: ignore[attr-defined]
        object.__setattr__(result, name, value)
    return result


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or (not _has_array(a) and not _has_array(b) and a == b)


def _identity(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_identity, value))
    return id(value) if _has_array(value) else value


def _has_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
