"""The factors of a product, and stacks of tangent vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends import Backend
from ...backends._trees import tree_map
from ...manifolds import Manifold, Product

Array = Any
Tree = Any


def on_factors(manifold: Manifold, function: Callable[..., Tree], *trees: Tree) -> Tree:
    """`function(factor, *parts)` for every factor that is no product itself, joined to one tree."""
    if not isinstance(manifold, Product):
        return function(manifold, *trees)
    rows = zip(manifold.factors, *(manifold.split(tree) for tree in trees), strict=True)
    return manifold.structure.unflatten([on_factors(factor, function, *parts) for factor, *parts in rows])


def flat(manifold: Manifold, y: Tree, u: Tree) -> Tree:
    """The covectors of the tangent vectors `u`, factor by factor: the leading axes of factors may differ."""
    return on_factors(manifold, lambda factor, *parts: factor.flat(*parts), y, u)


def stack(backend: Backend, *vectors: Tree) -> Tree:
    """Vectors along a new first axis."""
    return tree_map(lambda *a: backend.xp.stack(a), *vectors)


def concatenate(backend: Backend, *stacks: Tree) -> Tree:
    """Stacks, one after the other."""
    return tree_map(lambda *a: backend.xp.concat(a), *stacks)


def entry(stacked: Tree, i: int) -> Tree:
    """Vector `i` of a stack."""
    return tree_map(lambda a: a[i, ...], stacked)


def rows(stacked: Tree, start: int, stop: int) -> Tree:
    """The vectors from `start` to before `stop`."""
    return tree_map(lambda a: a[start:stop, ...], stacked)
