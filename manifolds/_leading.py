"""Points and vectors of any manifold: their leading (batch) axes, and all their numbers along one axis."""

from __future__ import annotations

from math import prod
from typing import Any

from ..backends import namespace
from ..backends._trees import leaves, tree_map
from ._linalg import is_complex

Tree = Any
Shape = tuple[int, ...]


def alike(*pairs: tuple[Any, Tree]) -> list[Tree]:
    """The second of each pair `manifold, point or vector`, all with the same leading axes."""
    batches = [leading(manifold, tree) for manifold, tree in pairs]
    common = broadcast_shapes(*batches)
    return [with_leading(manifold, tree, common) for manifold, tree in pairs]


def leading(manifold: Any, tree: Tree) -> Shape:
    """The leading axes of a point or vector."""
    first = leaves(tree)[0]
    return tuple(first.shape)[: len(first.shape) - manifold.ndims[0]]


def with_leading(manifold: Any, tree: Tree, batch: Shape) -> Tree:
    """A point or vector broadcast to these leading axes."""
    ndims = iter(manifold.ndims)

    def expanded(a: Any) -> Any:
        own = tuple(a.shape)[len(a.shape) - next(ndims) :]
        return a if tuple(a.shape) == batch + own else namespace(a).broadcast_to(a, batch + own)

    return tree_map(expanded, tree)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape of arrays of these shapes, broadcast; a size that fits no other is found by what uses it."""
    longest = max(map(len, shapes))
    columns = zip(*((1,) * (longest - len(shape)) + shape for shape in shapes), strict=True)
    return tuple(next((size for size in column if size != 1), 1) for column in columns)


def to_vector(manifold: Any, tree: Tree) -> Any:
    """All numbers of a point or vector along one axis, real: `(..., N)`; real and imaginary parts of complex ones."""
    parts = []
    for a, ndim in zip(leaves(tree), manifold.ndims, strict=True):
        xp, batch = namespace(a), tuple(a.shape)[: len(a.shape) - ndim]
        size = prod(tuple(a.shape)[len(batch) :])
        real = [xp.real(a), xp.imag(a)] if is_complex(a.dtype) else [a]
        parts += [xp.reshape(part, (*batch, size)) for part in real]
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts, axis=-1)


def from_vector(manifold: Any, vector: Any, like: Tree) -> Tree:
    """The vector with these numbers, with the structure and dtypes of `like`: undoes `to_vector`."""
    xp, start = namespace(vector), 0
    ndims, batch = iter(manifold.ndims), tuple(vector.shape)[:-1]

    def taken(a: Any) -> Any:
        nonlocal start
        own = tuple(a.shape)[len(a.shape) - next(ndims) :]
        pieces = []
        for _ in range(2 if is_complex(a.dtype) else 1):
            pieces.append(xp.reshape(vector[..., start : start + prod(own)], (*batch, *own)))
            start += prod(own)
        return pieces[0] if len(pieces) == 1 else pieces[0] + 1j * pieces[1]

    return tree_map(taken, like)
