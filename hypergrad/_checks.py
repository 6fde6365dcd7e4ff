"""What a user's function returned, checked: it tells what one problem is and what is a batch of problems."""

from __future__ import annotations

from typing import Any

from ..backends import DTypeError, ShapeError, namespace
from ..backends._trees import leaves
from ..manifolds import Manifold

Tree = Any


def leading_shape(y: Tree, manifold: Manifold) -> tuple[int, ...]:
    """The axes in front of a point's own, common to all leaves."""
    leading = [tuple(a.shape[: a.ndim - n]) for a, n in zip(leaves(y), manifold.ndims, strict=True)]
    common: list[int] = []
    for sizes in zip(*leading, strict=False):
        if len(set(sizes)) != 1:
            break
        common.append(sizes[0])
    return tuple(common)


def check_cost(value: Any, y: Tree, manifold: Manifold, what: str) -> tuple[int, ...]:
    """The batch of problems that a cost's output tells of.

    Raises `ShapeError` unless its axes are the first of y's leading axes, `DTypeError` unless it is real.
    """
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise DTypeError(
            f"{what} returned a {type(value).__name__}, not an array: return an array of the framework, so that it "
            "can be differentiated"
        )
    if not namespace(value).isdtype(value.dtype, "real floating"):
        raise DTypeError(f"{what} returned dtype {value.dtype}; a cost must be real floating point")
    shape, leading = tuple(value.shape), leading_shape(y, manifold)
    if shape != leading[: len(shape)]:
        raise ShapeError(
            f"{what} returned shape {shape}, which is not a batch of problems: y has the leading axes {leading} before "
            f"the axes {manifold.shape} of a point. Return shape () for one problem (sum over everything), or the "
            "first of the leading axes for independent problems"
        )
    return shape


def check_field(value: Any, y: Tree, batch_ndim: int, what: str) -> tuple[int, ...]:
    """The batch of problems of a field or map. Raises `ShapeError` unless it is shaped like y."""
    values, points = leaves(value), leaves(y)
    for leaf in values:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise DTypeError(f"{what} returned a {type(leaf).__name__}, not an array of the framework")
        if not namespace(leaf).isdtype(leaf.dtype, ("real floating", "complex floating")):
            raise DTypeError(f"{what} returned dtype {leaf.dtype}; it must be floating point to be differentiated")
    if [tuple(a.shape) for a in values] != [tuple(b.shape) for b in points]:
        raise ShapeError(
            f"{what} returned shapes {[tuple(a.shape) for a in values]}; y has {[tuple(b.shape) for b in points]}"
        )
    return tuple(points[0].shape[:batch_ndim])
