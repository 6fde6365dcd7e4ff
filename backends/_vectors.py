"""Tangents and cotangents as they are given: checked against what they belong to, the same on every framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._base import Backend
from ._errors import BackendMismatchError, DTypeError, ShapeError
from ._registry import backend_of

Tree = Any
Array = Any


def fitted(backend: Backend, given: Tree, like: Tree, what: str) -> Tree:
    """`given` as a tangent or cotangent of `like`, a tree of the same structure and shapes.

    Python's numbers may stand for arrays of no axes; what belongs to leaves that cannot move is not looked at.
    Raises `ShapeError` for another structure or shape, `DTypeError` for a complex vector where a real one is
    expected, `BackendMismatchError` for arrays of another framework.
    """
    if _alike(given, like):
        return given
    if hasattr(like, "dtype"):
        return fitted_leaf(backend, given, like, what)
    arrays, skeleton = backend.split(like)
    pairs = zip(skeleton.pick(backend.matching(given, like, what)), arrays, strict=True)
    return skeleton.fill(fitted_leaf(backend, v, x, what) for v, x in pairs)


def fitted_all(backend: Backend, given: Sequence[Tree], likes: Sequence[Tree], what: str) -> tuple[Tree, ...]:
    """One `fitted` for each argument."""
    if len(given) != len(likes):
        raise ShapeError(f"{len(given)} {what} were given where there are {len(likes)} primals")
    if all(map(_alike, given, likes)):
        return tuple(given)
    pairs = zip(given, likes, strict=True)
    return tuple(fitted(backend, v, x, f"{what}[{i}]") for i, (v, x) in enumerate(pairs))


def _alike(given: Any, like: Any) -> bool:
    """Whether both are single arrays of one type, dtype and shape, as they nearly always are."""
    dtype = getattr(like, "dtype", None)
    return dtype is not None and type(given) is type(like) and given.dtype == dtype and given.shape == like.shape


def fitted_leaf(backend: Backend, given: Any, like: Any, what: str) -> Any:
    """`fitted` for one leaf."""
    if not backend.is_inexact(like):
        return like if given is None else given
    expected, shape = tuple(like.shape), getattr(given, "shape", None)
    if shape is None:
        if not isinstance(given, (int, float, complex)):
            raise ShapeError(f"{what} is a {type(given).__name__} where an array of shape {expected} is expected")
        if expected != ():
            raise ShapeError(f"{what} is the number {given} where an array of shape {expected} is expected")
        is_complex = isinstance(given, complex)
    else:
        found = backend_of(given)
        if found is not backend:
            raise BackendMismatchError(f"{what} is an array of {found.name} where one of {backend.name} is expected")
        if tuple(shape) != expected:
            raise ShapeError(f"{what} has shape {tuple(shape)} where {expected} is expected")
        is_complex = backend.is_complex(given)
    if is_complex and not backend.is_complex(like):
        raise DTypeError(f"{what} is complex where a real one (dtype {like.dtype}) is expected")
    return backend.asarray(given, like=like) if shape is None else given
