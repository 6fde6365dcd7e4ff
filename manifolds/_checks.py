"""Checks of points against a manifold's shape, and of its tree of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree

from ..backends import DTypeError, NotOnManifoldError, ShapeError, backend_of, namespace
from ..backends._trees import NAMESPACE, leaves


def is_shape(tree: Any) -> bool:
    """Whether `tree` is one shape: a tuple of integers."""
    return isinstance(tree, tuple) and all(isinstance(size, int) for size in tree)


def is_size(value: Any, least: int = 1) -> bool:
    """Whether `value` is an integer, and no boolean, of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def leaf_shapes(shape: Any) -> list[tuple[int, ...]]:
    """The shapes in a tree of shapes, in the order of a point's leaves."""
    return [shape] if is_shape(shape) else optree.tree_leaves(shape, is_shape, namespace=NAMESPACE)


def shape_map(function: Callable[[tuple[int, ...]], Any], shape: Any) -> Any:
    """The tree of `function(s)` for the shapes s in a tree of shapes."""
    if is_shape(shape):
        return function(shape)
    return optree.tree_map(function, shape, is_leaf=is_shape, namespace=NAMESPACE)


def tolerance(x: Any) -> float:
    """√eps of the coarsest dtype in `x`."""
    return max(float(namespace(a).finfo(a.dtype).eps) for a in leaves(x)) ** 0.5


def leading_axes(manifold: Any, what: str, batches: list[tuple[int, ...]]) -> ShapeError:
    """The error for factors whose leading axes differ."""
    found = ", ".join(map(str, batches))
    return ShapeError(f"{what} on {manifold}: the leading (batch) axes of the factors differ: {found}")


def check_point(manifold: Any, x: Any, name: str) -> None:
    """`Manifold.check_point`."""
    _check_structure(manifold, x, name)
    _check_arrays(manifold, x, name)
    backend = backend_of(x)
    if backend.is_eager(x):
        _check_values(manifold, x, name, backend)


def _check_structure(manifold: Any, x: Any, name: str) -> None:
    if is_shape(manifold.shape):
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ShapeError(f"{name} is a {type(x).__name__}; a point of {manifold} is one array")
        return
    wanted = optree.tree_structure(manifold.shape, is_shape, namespace=NAMESPACE)
    found = optree.tree_structure(x, namespace=NAMESPACE)
    if wanted != found:
        raise ShapeError(f"{name} has the structure {found}; a point of {manifold} has {wanted}")


def _check_arrays(manifold: Any, x: Any, name: str) -> None:
    batches = []
    for leaf, shape in zip(leaves(x), leaf_shapes(manifold.shape), strict=True):
        found = tuple(leaf.shape)
        split = len(found) - len(shape)
        if split < 0 or found[split:] != shape:
            raise ShapeError(
                f"{name} has shape {found}; a point of {manifold} has shape {shape}, "
                "after any number of leading (batch) axes"
            )
        if not namespace(leaf).isdtype(leaf.dtype, ("real floating", "complex floating")):
            raise DTypeError(f"{name} has dtype {leaf.dtype}; points need a floating dtype: convert it first")
        batches.append(found[:split])
    if len(set(batches)) > 1:
        raise leading_axes(manifold, name, batches)


def _check_values(manifold: Any, x: Any, name: str, backend: Any) -> None:
    manifold, x = backend.stop_gradient((manifold, x))  # a manifold's parameters may be moving too
    finite = [namespace(a).all(namespace(a).isfinite(a)) for a in leaves(x)]
    if backend.is_eager(finite) and not all(map(bool, finite)):
        raise NotOnManifoldError(f"{name} holds values that are not finite; a point of {manifold} is finite")
    if manifold.fills_space:
        return
    atol, defect = tolerance(x), manifold.defect(x)
    if not backend.is_eager(defect):  # a known array under `jax.jit`: what is computed from it is not known
        return
    defect = backend.to_numpy(defect)
    bad = ~(defect <= atol)
    if not bad.any():
        return
    some = f"{int(bad.sum())} of {bad.size} points" if bad.size > 1 else "it"
    some += " is" if bad.sum() == 1 else " are"
    raise NotOnManifoldError(
        f"{name} is not on {manifold}: {some} off by {defect.max():.3g} (tolerance {atol:.3g}); "
        "start from `random_point`, or turn any array into a point with `from_noise`"
    )
