"""Tangents and cotangents, leaf by leaf, between JAX's ways and ours: float0, dtypes, the complex conjugate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._base import Array, Tree


def narrowed(dtype: Any) -> Any:
    """The dtype that JAX makes of `dtype`."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def inexact_dtype(value: Any) -> Any:
    """The dtype of a NumPy array of floats, which is worth an error when it is lost; None for the rest."""
    if isinstance(value, (np.ndarray, np.inexact)) and np.issubdtype(value.dtype, np.inexact):
        return value.dtype
    return None


def differentiable(leaf: Any) -> bool:
    """Whether the leaf holds floating or complex numbers."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def float0(leaf: Any) -> Any:
    """JAX's tangent of an integer."""
    return np.zeros(jnp.shape(leaf), dtype=jax.dtypes.float0)


def conjugate_leaf(leaf: Any) -> Any:
    """The complex conjugate; real leaves as they are."""
    return jnp.conj(leaf) if jnp.iscomplexobj(leaf) else leaf


def cast(value: Any, leaf: Any) -> Any:
    """`value` in the dtype of `leaf`."""
    dtype = jnp.result_type(leaf)
    return value if getattr(value, "dtype", None) == dtype else jnp.asarray(value, dtype=dtype)


def conjugate_like(leaf: Any, cotangent: Any) -> Any:
    """The cotangent as JAX wants it."""
    return conjugate_leaf(cast(cotangent, leaf)) if differentiable(leaf) else float0(leaf)


def covector(leaf: Any, cotangent: Any) -> Any:
    """The cotangent as we give it: zeros instead of float0."""
    return conjugate_leaf(cotangent) if differentiable(leaf) else jnp.zeros_like(leaf)


def tangent(leaf: Any, tangent: Any) -> Any:
    """The tangent as JAX wants it: of the dtype of the primal, float0 for integers."""
    return cast(tangent, leaf) if differentiable(leaf) else float0(leaf)


def vector(leaf: Any, tangent: Any) -> Any:
    """The tangent as we give it: zeros instead of float0."""
    return tangent if differentiable(leaf) else jnp.zeros_like(leaf)


def is_zero(tangent: Any) -> bool:
    """Whether JAX says that this tangent is zero."""
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def as_arrays(primal: Tree, tangent: Tree) -> Tree:
    """`primal` with arrays for the numbers of Python that move, as `jax.grad(f)(2.0)` gives them."""
    return jax.tree_util.tree_map(lambda p, t: p if is_zero(t) else jnp.asarray(p), primal, tangent)


def given_tangent(primal: Tree, tangent: Tree) -> Tree | None:
    """None where the whole tree does not move; zeros where only some of its leaves do not."""
    if all(map(is_zero, jax.tree_util.tree_leaves(tangent, is_leaf=is_zero))):
        return None
    return jax.tree_util.tree_map(lambda p, t: jnp.zeros_like(p) if is_zero(t) else t, primal, tangent)


def float0_or_zero(leaf: Any) -> Any:
    """The tangent that is zero, as JAX wants it."""
    return jnp.zeros_like(leaf) if differentiable(leaf) else float0(leaf)


def moving(tree: Tree, vector: Tree | None) -> list[Array]:
    """The entries of a vector that belong to floating-point leaves of `tree`; None is zero."""
    found = jax.tree_util.tree_leaves(tree)
    given = [jnp.zeros_like(x) for x in found] if vector is None else jax.tree_util.tree_leaves(vector)
    return [cast(v, x) for x, v in zip(found, given, strict=True) if differentiable(x)]


def with_moving(tree: Tree, entries: Iterable[Array], other: Callable[[Any], Any] = jnp.zeros_like) -> Tree:
    """The vector like `tree` with these entries at its floating-point leaves, and `other` at the rest."""
    rest = iter(entries)
    return jax.tree_util.tree_map(lambda x: next(rest) if differentiable(x) else other(x), tree)


def strong(leaf: Any) -> Array:
    """`leaf` with a dtype of its own, so that a loop's state keeps its type."""
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)
