"""A linear map with its transpose given by hand: a primitive of JAX, differentiable in its parameters.

Reverse mode evaluates the part of a `jax.custom_jvp` rule that depends on tangents with such rules switched
off: a function with its own rule, called on a tangent, is looked into, and what its rule would have said of its
other arguments is lost; second derivatives are then silently wrong. `jax.custom_derivatives.linear_call` is
not looked into, but cannot be differentiated in its residuals. This primitive can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.extend import core
from jax.interpreters import ad, batching, mlir

Tree = Any


def linear_map(
    push: Callable[[Tree, Tree], Tree], pull: Callable[[Tree, Tree], Tree], parameters: Tree, vector: Tree
) -> Tree:
    """`push(parameters, vector)`, linear in `vector`; `pull(parameters, cotangent)` is its transpose.

    Both are differentiable in `parameters`. The transpose is JAX's, without conjugation.
    """
    residuals, residual_tree = jax.tree_util.tree_flatten(parameters)
    given, vector_tree = jax.tree_util.tree_flatten(vector)
    out_trees: list[Any] = []

    def flat_push(flat: list[Any], linear: list[Any]) -> list[Any]:
        out = push(residual_tree.unflatten(flat), vector_tree.unflatten(linear))
        leaves, tree = jax.tree_util.tree_flatten(out)
        out_trees.append(tree)
        return leaves

    def flat_pull(flat: list[Any], cotangents: list[Any]) -> list[Any]:
        return jax.tree_util.tree_leaves(pull(residual_tree.unflatten(flat), out_trees[0].unflatten(cotangents)))

    out = jax.eval_shape(flat_push, residuals, given)
    return out_trees[0].unflatten(_bind(flat_push, flat_pull, residuals, given, out))


def _bind(push: Callable, pull: Callable, residuals: list[Any], given: list[Any], out: list[Any]) -> list[Any]:
    """Bind with both functions as programs; the arrays that they close over become residuals."""
    n = len(residuals)
    push_program = jax.make_jaxpr(lambda *a: push(list(a[:n]), list(a[n:])))(*residuals, *given)
    pull_program = jax.make_jaxpr(lambda *a: pull(list(a[:n]), list(a[n:])))(*residuals, *out)
    constants = [*push_program.consts, *pull_program.consts]
    split = len(push_program.consts)

    def open_program(program: Any, first: int, last: int) -> Any:
        """The program as a closed one of `constants, residuals, vector`."""

        def run(*args: Any) -> list[Any]:
            return eval_jaxpr(program.jaxpr, args[first:last], *args[len(constants) :])

        return run

    shapes = [*constants, *residuals]
    forward = jax.make_jaxpr(open_program(push_program, 0, split))(*shapes, *given)
    backward = jax.make_jaxpr(open_program(pull_program, split, len(constants)))(*shapes, *out)
    return _linear.bind(*shapes, *given, push=forward, pull=backward, residuals=len(shapes))


def _run(*args: Any, push: Any, pull: Any, residuals: int) -> list[Any]:
    return core.jaxpr_as_fun(push)(*args)


def _jvp(primals: tuple, tangents: tuple, *, push: Any, pull: Any, residuals: int) -> tuple[list[Any], list[Any]]:
    params = {"push": push, "pull": pull, "residuals": residuals}
    out = _linear.bind(*primals, **params)
    moved: list[Any] = [jnp.zeros_like(o) for o in out]
    live = [i for i in range(residuals) if type(tangents[i]) is not ad.Zero]
    if live:

        def at(*values: Any) -> list[Any]:
            args = list(primals)
            for i, value in zip(live, values, strict=True):
                args[i] = value
            return core.jaxpr_as_fun(push)(*args)

        moved = jax.jvp(at, [primals[i] for i in live], [ad.instantiate_zeros(tangents[i]) for i in live])[1]
    if any(type(t) is not ad.Zero for t in tangents[residuals:]):
        vector = [ad.instantiate_zeros(t) for t in tangents[residuals:]]
        moved = [
            ad.add_tangents(a, b)
            for a, b in zip(moved, _linear.bind(*primals[:residuals], *vector, **params), strict=True)
        ]
    return out, moved


def _transpose(cotangents: list[Any], *args: Any, push: Any, pull: Any, residuals: int) -> list[Any]:
    given = [ad.instantiate_zeros(c) for c in cotangents]
    pulled = _linear.bind(*args[:residuals], *given, push=pull, pull=push, residuals=residuals)
    return [None] * residuals + list(pulled)


def _batch(args: tuple, axes: tuple, *, push: Any, pull: Any, residuals: int) -> tuple[list[Any], list[int]]:
    size = next(a.shape[d] for a, d in zip(args, axes, strict=True) if d is not None)
    batched = [
        jnp.broadcast_to(a, (size, *jnp.shape(a))) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(args, axes, strict=True)
    ]
    forward = jax.make_jaxpr(jax.vmap(core.jaxpr_as_fun(push)))(*batched)
    shapes = [jax.ShapeDtypeStruct((size, *a.shape), a.dtype) for a in push.out_avals]
    backward = jax.make_jaxpr(jax.vmap(core.jaxpr_as_fun(pull)))(*batched[:residuals], *shapes)
    out = _linear.bind(*batched, push=forward, pull=backward, residuals=residuals)
    return out, [0] * len(out)


_linear = core.Primitive("nestfold_linear")
_linear.multiple_results = True
_linear.def_impl(_run)
_linear.def_abstract_eval(lambda *args, push, pull, residuals: push.out_avals)
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_run, multiple_results=True))
