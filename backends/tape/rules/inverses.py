"""Inverses of matrices, computed once and shared by all rules, and all levels of nesting, that need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..array import Traced, substituted
from ..core import Primitive
from ..maps import Map, Sandwich

Array = Any


def plain(value: Any) -> Any:
    """`value` without any tracing; the stand-ins of hoisted functions in place of what they captured."""
    value = substituted(value)
    while isinstance(value, Traced):
        value = substituted(value.value)
    return value


def without_private(own: Callable[..., Any]) -> Callable[..., Any]:
    """`own` as a function that takes, and drops, the keywords by which wrappers speak to rules."""
    return lambda *args, shared=None, cluster=None, **static: own(*args, **static)


def inv(ns: Any, y: Any, x: Any, **_: Any) -> Map:
    """dY = -Y dX Y."""
    return Sandwich(ns, y, y, negative=True)


#: The inverse of a matrix whose inverse is known already: traced, without a new factorization.
_KNOWN = Primitive("linalg.inv", lambda x, known: known, (inv,))


class Inverse:
    """The inverse of one matrix, computed when it is first asked for."""

    __slots__ = ("known",)

    def __init__(self, known: Array | None = None):
        self.known = known

    def of(self, ns: Any, a: Any) -> Any:
        """A⁻¹; NaN where A is singular. `a` is always the same matrix, traced or not."""
        if self.known is None:
            self.known = inverse_or_nan(ns.xp, plain(a))
        return _KNOWN(a, known=self.known)


def inverse_or_nan(xp: Any, a: Array) -> Array:
    """A⁻¹ of plain matrices; NaN for those of a batch that are exactly singular."""
    try:
        return xp.linalg.inv(a)
    except np.linalg.LinAlgError:
        singular = xp.isinf(xp.linalg.slogdet(a)[1])[..., None, None]
        regular = xp.where(singular, identity_like(xp, a), a)
        return xp.where(singular, xp.full_like(a, float("nan")), xp.linalg.inv(regular))


def identity_like(xp: Any, a: Array) -> Array:
    """Identity matrices of the shape of plain square ones."""
    return xp.tril(xp.triu(xp.ones_like(a)))
