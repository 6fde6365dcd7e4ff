"""Manifolds made of others: of exactly the kinds that their parts have.

Such a class implements the primitives; for each further kind it has one abstract subclass, marked `@part`, that
implements that kind. Calling the class makes an instance of the subclass that joins the parts which apply:

    class Scaled(Composite): ...
    @part(Scaled)
    class _Exponential(Scaled, Exponential): ...
    isinstance(Scaled(SPD(3), 2.0), Scaled) and isinstance(Scaled(SPD(3), 2.0), Geodesic)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, final

from ._base import (
    Congruence,
    Curvature,
    Exponential,
    Geodesic,
    InverseRetraction,
    Logarithmic,
    Manifold,
    Quotient,
)

Kind = type[Manifold]
Part = TypeVar("Part", bound=type)

#: every kind there is; those on the left of a stronger one are implied by it
KINDS: tuple[Kind, ...] = (Exponential, Logarithmic, Geodesic, InverseRetraction, Curvature, Quotient, Congruence)

#: class -> kind -> the subclass that implements the kind
_parts: dict[type, dict[Kind, type]] = {}


class Composite(Manifold):
    """A manifold made of others. `kinds`, of the arguments of its constructor, tells what it is besides."""

    if TYPE_CHECKING:  # what it has depends on its parts: known when it is made

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        root = _root(cls)
        result = object.__new__(_joined(root, root.kinds(*args, **kwargs)))
        if not isinstance(result, cls):  # `dataclasses.replace` by a part of other kinds: Python would not call this
            result.__init__(*args, **kwargs)
        return result

    @staticmethod
    def kinds(*args: Any, **kwargs: Any) -> frozenset[Kind]:
        """The kinds of the manifold that the constructor makes of these arguments."""
        raise NotImplementedError

    @final
    def __reduce__(self) -> Any:
        mine = frozenset(kind for kind in KINDS if isinstance(self, kind))
        state = {name: value for name, value in vars(self).items() if name != "ndims"}
        return _blank, (_root(type(self)), mine), state


def part(root: type, kind: Kind) -> Callable[[Part], Part]:
    """Register a subclass of `root` and `kind` as what implements `kind` for `root`."""

    def register(cls: Part) -> Part:
        _parts.setdefault(root, {})[kind] = cls
        return cls

    return register


def kinds_of(manifold: Any) -> frozenset[Kind]:
    """What `manifold` is besides a manifold."""
    return frozenset(kind for kind in KINDS if isinstance(manifold, kind))


def shared(manifolds: Iterable[Any]) -> frozenset[Kind]:
    """The kinds that all of these have."""
    return frozenset.intersection(*map(kinds_of, manifolds))


@cache
def _joined(root: type, kinds: frozenset[Kind]) -> type:
    """The one subclass of `root` that has these kinds and no others."""
    parts = [implemented for kind, implemented in _parts[root].items() if kind in kinds]
    bases = tuple(p for p in parts if not any(p is not other and issubclass(other, p) for other in parts))
    return type(root)(root.__name__, bases or (root,), {"__module__": root.__module__, "__doc__": root.__doc__})


def _root(cls: type) -> Any:
    return next(base for base in cls.__mro__ if base in _parts)


def _blank(root: type, kinds: frozenset[Kind]) -> Any:
    return object.__new__(_joined(root, kinds))
