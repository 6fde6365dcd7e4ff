"""Trees of arrays: dict, list, tuple, named tuple, dataclass registered with optree, and single arrays.

`None` is a leaf-less subtree, as in JAX. A single array, by far the commonest tree, takes a short cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree

#: The namespace in which nestfold registers its own node types.
NAMESPACE = "nestfold"
_CONTAINERS = (dict, list, tuple)


def _is_leaf(tree: Any) -> bool:
    return hasattr(tree, "shape") and hasattr(tree, "dtype") and not isinstance(tree, _CONTAINERS)


def leaves(tree: Any) -> list[Any]:
    """The leaves of `tree`, in a fixed order."""
    if _is_leaf(tree):
        return [tree]
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def flatten(tree: Any) -> tuple[list[Any], Callable[[Any], Any]]:
    """`leaves, rebuild` with `rebuild(leaves) == tree`."""
    if _is_leaf(tree):
        return [tree], _only
    found, spec = optree.tree_flatten(tree, namespace=NAMESPACE)
    return found, spec.unflatten


def _only(values: Any) -> Any:
    (value,) = values
    return value


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`function` on matching leaves; the result has the structure of `tree`."""
    if _is_leaf(tree):
        return function(tree, *rest)
    return optree.tree_map(function, tree, *rest, namespace=NAMESPACE)
