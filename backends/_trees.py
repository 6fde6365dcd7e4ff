"""Trees of arrays: dict, list, tuple, named tuple, dataclass registered with optree, and single arrays.

`None` is a leaf-less subtree, as in JAX. A single array, by far the commonest tree, takes a short cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import optree

from ._errors import ShapeError

#: The namespace in which nestfold registers its own node types.
NAMESPACE = "nestfold"
_CONTAINERS = (dict, list, tuple)


#: every type of node that nestfold made, `type, flatten, unflatten`, and who wants to hear of new ones
_nodes: list[tuple[type, Any, Any]] = []
_listeners: list[Callable[[type, Any, Any], None]] = []


def register_node(cls: type, flatten: Callable[[Any], tuple[Any, Any]], unflatten: Callable[[Any, Any], Any]) -> None:
    """Make instances of `cls` trees: `flatten(node)` gives `children, structure`; `unflatten(structure, children)`.

    JAX hears of it too, as soon as its adapter is loaded.
    """
    optree.register_pytree_node(cls, flatten, unflatten, namespace=NAMESPACE)
    _nodes.append((cls, flatten, unflatten))
    for listener in _listeners:
        listener(cls, flatten, unflatten)


def on_node(listener: Callable[[type, Any, Any], None]) -> None:
    """Call `listener` with every type of node, those that are known and those to come; a second time, nothing."""
    if listener in _listeners:
        return
    _listeners.append(listener)
    for node in _nodes:
        listener(*node)


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


def matching(tree: Any, like: Any, what: str) -> list[Any]:
    """What stands in `tree` where the leaves of `like` stand; None may stand there too.

    Raises `ShapeError`, which calls the tree `what`, where the two differ in structure.
    """
    try:
        return optree.tree_structure(like, namespace=NAMESPACE).flatten_up_to(tree)
    except ValueError as error:
        raise ShapeError(f"{what} has another structure than the tree that it goes with: {error}") from None


class Skeleton:
    """A tree without its arrays. It keeps the rest: numbers, strings, other objects. See `split`."""

    __slots__ = ("constants", "rebuild")

    def __init__(self, constants: list[Any], rebuild: Callable[[Any], Any]):
        self.constants, self.rebuild = constants, rebuild

    def fill(self, arrays: Iterable[Any]) -> Any:
        """The tree with these arrays."""
        rest = iter(arrays)
        return self.rebuild([next(rest) if c is None else c for c in self.constants])

    def fill_vector(self, arrays: Iterable[Any]) -> Any:
        """The tree of a tangent or cotangent with these arrays: 0 for a number, None for what cannot move."""
        rest = iter(arrays)
        return self.rebuild([next(rest) if c is None else still(c) for c in self.constants])

    def pick(self, found: list[Any]) -> list[Any]:
        """Those of the leaves of a tree like this one that stand where the arrays stand."""
        return [v for v, c in zip(found, self.constants, strict=True) if c is None]


def split(
    tree: Any, is_array: Callable[[Any], bool], flatten: Callable[[Any], Any] = flatten
) -> tuple[list[Any], Skeleton]:
    """The arrays in a tree, and the rest of it."""
    found, rebuild = flatten(tree)
    arrays, constants = [], []
    for leaf in found:  # None is never a leaf
        if is_array(leaf):
            arrays.append(leaf)
            constants.append(None)
        else:
            constants.append(leaf)
    return arrays, Skeleton(constants, rebuild)


def still(leaf: Any) -> Any:
    """The tangent of a leaf that is no array: 0 for a number, None for other things."""
    return 0 * leaf if isinstance(leaf, (int, float, complex)) else None
