"""Functions of trees as JAX wants them: functions of arrays.

Trees are what nestfold takes everywhere and, inside them, whatever is registered with JAX. Numbers, strings and
other objects stay out of JAX's sight, so that a function meets them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from . import _trees
from ._errors import ShapeError
from ._jax_leaves import conjugate_like, covector, tangent, vector
from ._trees import Skeleton

Tree = Any


def is_array(leaf: Any) -> bool:
    """Whether `leaf` is an array of JAX, or one that JAX takes for its own."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def flatten(tree: Tree) -> tuple[list[Any], Callable[[Any], Tree]]:
    """`leaves, rebuild`, through nestfold's nodes and those registered with JAX."""
    outer, rebuild = _trees.flatten(tree)
    if all(is_array(x) for x in outer):
        return outer, rebuild
    parts = [jax.tree_util.tree_flatten(x) for x in outer]

    def rebuild_all(values: Any) -> Tree:
        rest = iter(values)
        return rebuild([structure.unflatten([next(rest) for _ in found]) for found, structure in parts])

    return [x for found, _ in parts for x in found], rebuild_all


def split(tree: Tree) -> tuple[list[Any], Skeleton]:
    """The arrays in a tree, and the rest of it."""
    return _trees.split(tree, is_array, flatten)


def matching(tree: Tree, like: Tree, what: str) -> list[Any]:
    """What stands in `tree` where the leaves of `like` stand, by `flatten`; None for all of a node that is None."""
    matched: list[Any] = []
    for given, expected in zip(_trees.matching(tree, like, what), _trees.leaves(like), strict=True):
        structure = jax.tree_util.tree_structure(expected)
        if given is None:
            matched += [None] * structure.num_leaves
            continue
        try:
            matched += structure.flatten_up_to(given)
        except ValueError as error:
            raise ShapeError(f"{what} has another structure than the tree that it goes with: {error}") from None
    return matched


class Flat:
    """`f` as a function of the arrays in its arguments to the list of arrays in its value."""

    def __init__(self, f: Callable[..., Tree], inputs: Skeleton):
        self.f, self.inputs = f, inputs
        self.outputs: Skeleton

    def __call__(self, *arrays: Any) -> list[Any]:
        found, self.outputs = split(self.f(*self.inputs.fill(arrays)))
        return found


def vjp(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
    """`Backend.vjp`: `jax.vjp`, its cotangents conjugated into those of Re⟨conj(a), b⟩."""
    arrays, inputs = split(primals)
    flat = Flat(f, inputs)
    outs, jax_pull = jax.vjp(flat, *arrays)

    def pull(cotangent: Tree) -> tuple[Tree, ...]:
        given = flat.outputs.pick(flatten(cotangent)[0])
        return inputs.fill_vector(map(covector, arrays, jax_pull(list(map(conjugate_like, outs, given)))))

    return flat.outputs.fill(outs), pull


def jvp(f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
    """`Backend.jvp`: `jax.jvp`."""
    arrays, inputs = split(primals)
    flat = Flat(f, inputs)
    outs, moved = jax.jvp(flat, tuple(arrays), tuple(map(tangent, arrays, inputs.pick(flatten(tangents)[0]))))
    return flat.outputs.fill(outs), flat.outputs.fill_vector(map(vector, outs, moved))


def linearize(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """`Backend.linearize`: `jax.linearize`."""
    arrays, inputs = split(primals)
    flat = Flat(f, inputs)
    outs, jax_push = jax.linearize(flat, *arrays)

    def push(*tangents: Tree) -> Tree:
        moved = jax_push(*map(tangent, arrays, inputs.pick(flatten(tangents)[0])))
        return flat.outputs.fill_vector(map(vector, outs, moved))

    return flat.outputs.fill(outs), push


def checkpoint(f: Callable[..., Tree], *args: Tree) -> Tree:
    """`Backend.checkpoint`: `jax.checkpoint`."""
    arrays, inputs = split(args)
    flat = Flat(f, inputs)
    outs = jax.checkpoint(flat)(*arrays)
    return flat.outputs.fill(outs)
