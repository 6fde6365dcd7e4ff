"""The vectors of a problem, trees as they may be, as one real array `batch + (n,)` and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...backends import namespace
from ...backends._trees import flatten
from .._space import Space

Array = Any
Tree = Any


def flat(space: Space, like: Tree) -> tuple[int, Callable[[Tree], Array], Callable[[Array], Tree]]:
    """`n, join, split`: a complex leaf gives its real and its imaginary parts, so that dot products are `space.dot`."""
    xp, ndim, batch = space.backend.xp, space.ndim, space.batch
    found, rebuild = flatten(like)
    twofold = [space.backend.is_complex(a) for a in found]
    sizes = [math.prod(a.shape[ndim:]) for a in found]
    n = sum(size * (1 + two) for size, two in zip(sizes, twofold, strict=True))
    if len(found) == 1 and found[0].ndim == ndim + 1 and not twofold[0]:
        return n, lambda tree: flatten(tree)[0][0], lambda vector: rebuild([vector])

    def join(tree: Tree) -> Array:
        parts = []
        for a, size, two in zip(flatten(tree)[0], sizes, twofold, strict=True):
            parts += [xp.reshape(p, batch + (size,)) for p in ((xp.real(a), xp.imag(a)) if two else (a,))]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)

    def split(vector: Array) -> Tree:
        parts, start = [], 0

        def cut(size: int, shape: tuple[int, ...]) -> Array:
            nonlocal start
            start += size
            return xp.reshape(vector[..., start - size : start], shape)

        for a, size, two in zip(found, sizes, twofold, strict=True):
            part = cut(size, a.shape)
            if two:
                part = part + 1j * cut(size, a.shape)
            parts.append(namespace(a).astype(part, a.dtype))
        return rebuild(parts)

    return n, join, split
