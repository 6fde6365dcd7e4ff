"""`jax.lax.custom_linear_solve` on trees."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
Linear = Callable[[Tree], Tree]
Solver = Callable[[Linear, Tree], Tree]


def linear_solve(apply: Linear, b: Tree, solve: Solver, transpose_solve: Solver) -> Tree:
    """The v with `apply(v) = b`, differentiable any number of times and both ways, under `jit` and `vmap`.

    JAX transposes without the conjugate; `transpose_solve` gets the adjoint, as on the other backends. JAX
    (0.10) transposes the solve only if either all leaves of b move or none (`_linear_solve_transpose_rule`),
    so a tree of several leaves becomes one real vector, whose transpose is the adjoint already.
    """
    if len(jax.tree_util.tree_leaves(b)) > 1:
        ravel, unravel = _raveling(b)

        def raveled(solver: Solver) -> Solver:
            return lambda operator, right: ravel(solver(lambda tree: unravel(operator(ravel(tree))), unravel(right)))

        v = jax.lax.custom_linear_solve(
            lambda vector: ravel(apply(unravel(vector))), ravel(b), raveled(solve), raveled(transpose_solve)
        )
        return unravel(v)

    def transposed(operator: Linear, right: Tree) -> Tree:
        return conjugate(transpose_solve(lambda v: conjugate(operator(conjugate(v))), conjugate(right)))

    return jax.lax.custom_linear_solve(apply, b, solve, transposed)


def conjugate(tree: Tree) -> Tree:
    """The complex conjugate of every leaf; real leaves as they are."""
    return jax.tree_util.tree_map(lambda leaf: jnp.conj(leaf) if jnp.iscomplexobj(leaf) else leaf, tree)


def _raveling(like: Tree) -> tuple[Callable[[Tree], jax.Array], Callable[[jax.Array], Tree]]:
    """Trees like `like` to one real vector and back; a complex leaf gives its real and imaginary parts."""
    found, structure = jax.tree_util.tree_flatten(like)
    dtype = jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in found))
    cuts = list(accumulate((1 + jnp.iscomplexobj(leaf)) * math.prod(leaf.shape) for leaf in found))

    def ravel(tree: Tree) -> jax.Array:
        parts = []
        for leaf in jax.tree_util.tree_leaves(tree):
            parts += [jnp.real(leaf), jnp.imag(leaf)] if jnp.iscomplexobj(leaf) else [leaf]
        return jnp.concatenate([jnp.ravel(part).astype(dtype) for part in parts])

    def unravel(vector: jax.Array) -> Tree:
        return structure.unflatten(map(_unraveled, jnp.split(vector, cuts[:-1]), found))

    return ravel, unravel


def _unraveled(part: jax.Array, leaf: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(leaf):
        return part.reshape(leaf.shape).astype(leaf.dtype)
    real, imaginary = part.reshape((2, *leaf.shape))
    return jax.lax.complex(real, imaginary).astype(leaf.dtype)
