"""JAX: its own transformations, with the complex conjugate, float0 and integers ironed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import _jax_flat, _jax_solve
from ._base import Array, Backend, MakeOperator, Mapped, MappedSystem, Tree
from ._errors import DTypeError, NoDerivativeError
from ._jax_leaves import (
    as_arrays,
    conjugate_leaf,
    differentiable,
    float0,
    float0_or_zero,
    given_tangent,
    inexact_dtype,
    moving,
    narrowed,
    strong,
    tangent,
    with_moving,
)
from ._jax_linear import linear_map
from ._jax_namespace import xp
from ._lyapunov import lyapunov_form
from ._trees import Skeleton, on_node

_map = jax.tree_util.tree_map


class JaxBackend(Backend):
    """JAX. Trees are whatever is registered with JAX."""

    name = "jax"
    xp = xp
    compiles = True

    # -- arrays -------------------------------------------------------------------------------------
    def owns(self, leaf: Any) -> bool:
        """Whether `leaf` is a `jax.Array`, traced ones included."""
        return isinstance(leaf, jax.Array)

    def is_node(self, leaf: Any) -> bool:
        """Whether the type of `leaf` is registered with JAX."""
        return not jax.tree_util.all_leaves([leaf])

    def is_array(self, leaf: Any) -> bool:
        """Whether `leaf` is an array of JAX or NumPy."""
        return _jax_flat.is_array(leaf)

    def is_inexact(self, leaf: Any) -> bool:
        """See the base class."""
        return _jax_flat.is_array(leaf) and differentiable(leaf)

    def split(self, tree: Tree) -> tuple[list[Array], Skeleton]:
        """See the base class; through the nodes that are registered with JAX, too."""
        return _jax_flat.split(tree)

    def matching(self, tree: Tree, like: Tree, what: str) -> list[Any]:
        """See the base class."""
        return _jax_flat.matching(tree, like, what)

    def is_eager(self, *trees: Tree) -> bool:
        """Whether the values can be looked at: also inside an eager `jax.grad`, never under `jit` or `vmap`.

        A tracer of `jax.grad` outside `jit` has a value, but is not that value: look at
        `stop_gradient(x)` or `to_numpy(x)`.
        """
        return all(_concrete(leaf) for leaf in jax.tree_util.tree_leaves(trees))

    def is_constant(self, *arrays: Array) -> bool:
        """See the base class."""
        return not any(isinstance(a, Tracer) for a in arrays)

    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """An array of JAX.

        Raises `DTypeError` where a dtype of 64 bits is asked for and JAX was not told to keep 64 bits.
        """
        if dtype is None:
            dtype = like.dtype if like is not None else inexact_dtype(value)
        if dtype is not None and narrowed(dtype) != np.dtype(dtype):
            raise DTypeError(
                f"JAX would make {np.dtype(dtype)} silently {narrowed(dtype)}: switch 64 bits on with "
                "jax.config.update('jax_enable_x64', True) or `with jax.enable_x64(True)`, or give dtype="
            )
        if device is None and like is not None:
            device = self.device(like)
        return jnp.asarray(value, dtype=dtype, device=device)

    def lower_inverse(self, l: Array) -> Array | None:
        """By substitution."""
        eye = jnp.broadcast_to(jnp.eye(l.shape[-1], dtype=l.dtype), l.shape)
        return jax.lax.linalg.triangular_solve(l, eye, left_side=True, lower=True)

    def to_numpy(self, array: Array) -> Any:
        """A NumPy copy; works inside an eager `jax.grad` too, not under `jit` (see `call_external`)."""
        return np.array(jax.lax.stop_gradient(array))

    def device(self, array: Array) -> Any:
        """The device (or sharding) of `array`; None for a tracer."""
        return array_api_compat.device(array)

    def to_device(self, array: Array, device: Any) -> Array:
        """`array` on `device`; None leaves it where it is."""
        return array if device is None else jax.device_put(array, device)

    def synchronize(self, tree: Tree) -> Tree:
        """`jax.block_until_ready`."""
        return jax.block_until_ready(tree)

    # -- differentiation ----------------------------------------------------------------------------
    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
        """`jax.vjp`, its cotangents conjugated into those of Re⟨conj(a), b⟩."""
        return _jax_flat.vjp(f, *primals)

    def jvp(self, f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """`jax.jvp`."""
        return _jax_flat.jvp(f, primals, tangents)

    def linearize(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
        """`jax.linearize`."""
        return _jax_flat.linearize(f, *primals)

    def checkpoint(self, f: Callable[..., Tree], *args: Tree) -> Tree:
        """`jax.checkpoint`; `f` itself where no transformation is under way."""
        return f(*args) if _no_transformation() else _jax_flat.checkpoint(f, *args)

    def stop_gradient(self, tree: Tree) -> Tree:
        """`jax.lax.stop_gradient`."""
        arrays, skeleton = _jax_flat.split(tree)
        # What comes of the tracer of `jax.grad(f)(2.0)` is a number of Python.
        return skeleton.fill([x if _jax_flat.is_array(x) else jnp.asarray(x) for x in jax.lax.stop_gradient(arrays)])

    def forbid_gradient(self, tree: Tree, why: str) -> Tree:
        """The identity, with a derivative rule that raises."""

        @jax.custom_jvp
        def constant(tree: Tree) -> Tree:
            return tree

        @constant.defjvp
        def refuse(primals: tuple, tangents: tuple) -> tuple:
            raise NoDerivativeError(why)

        return constant(tree)

    def symmetric_products(self, linear: Callable[[Array], Array], factor: Array) -> Callable[[Array], Array] | None:
        """See the base class; found out by asking, and chosen when the compiled program runs."""
        if factor.ndim != 2 or jnp.iscomplexobj(factor):
            return None
        holds, short, long = lyapunov_form(jnp, linear, factor, self.device(factor))
        return lambda t: jax.lax.cond(holds, short, long, t)

    def forbid_captured(self, f: Callable[[], Tree], why: str) -> None:
        """See the base class; where no transformation is under way nothing can be captured."""
        if not _no_transformation():
            self.forbid_gradient(f(), why)

    def custom_derivative(
        self,
        function: Callable[..., Tree],
        pushforward: Callable[[tuple[Tree, ...], Tree, tuple[Tree | None, ...]], Tree],
        pullback: Callable[[tuple[Tree, ...], Tree, Tree, tuple[bool, ...]], tuple[Tree | None, ...]],
        *,
        transposable: bool = False,
        mapped: Mapped | None = None,
    ) -> Callable[..., Tree]:
        """`jax.custom_jvp` (a `custom_vjp` cannot be differentiated forward).

        The rule takes the value from the wrapped function, not from `function`, or the derivatives from
        the third on would go through `function`. Its tangent is one linear primitive with `pullback` as the transpose,
        or, if it is `transposable`, `pushforward` as it stands.
        """
        wrapped = jax.custom_jvp(function)

        def rule(primals: tuple, tangents: tuple) -> tuple:
            primals = tuple(map(as_arrays, primals, tangents))
            out = wrapped(*primals)
            given = tuple(map(given_tangent, primals, tangents))
            if transposable:
                return out, _map(tangent, out, pushforward(primals, out, given))
            live = [i for i, t in enumerate(given) if t is not None]
            needs = tuple(t is not None for t in given)

            def push(parameters: tuple, vectors: list) -> list[Array]:
                primals, out = parameters
                filled = {i: with_moving(primals[i], v) for i, v in zip(live, vectors, strict=True)}
                return moving(out, pushforward(primals, out, tuple(filled.get(i) for i in range(len(primals)))))

            def pull(parameters: tuple, cotangents: list[Array]) -> list:
                primals, out = parameters
                pulled = pullback(primals, out, with_moving(out, map(conjugate_leaf, cotangents)), needs)
                return [list(map(conjugate_leaf, moving(primals[i], pulled[i]))) for i in live]

            if not live or not moving(out, out):
                return out, _map(float0_or_zero, out)
            moved = linear_map(push, pull, (primals, out), [moving(primals[i], given[i]) for i in live])
            return out, with_moving(out, moved, float0)

        wrapped.defjvp(rule, symbolic_zeros=True)
        return wrapped

    def hoist(self, f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
        """`jax.closure_convert`, where any transformation is under way; otherwise nothing can be captured.

        `g` takes arguments of the shapes of `args`.
        """
        if _no_transformation():
            return (lambda captured, *arguments: f(*arguments)), ()
        # A new function object each time: closure_convert keeps what it found by function, stale tracers too.
        converted, captured = jax.closure_convert(lambda *arguments: f(*arguments), *args)
        if not captured:
            return (lambda captured, *arguments: f(*arguments)), ()
        return (lambda captured, *arguments: converted(*arguments, *captured)), tuple(captured)

    def linear_solve(
        self,
        make: MakeOperator,
        parameters: Tree,
        b: Tree,
        solve: Callable[[Callable[[Tree], Tree], Tree], Tree],
        transpose_solve: Callable[[Callable[[Tree], Tree], Tree], Tree],
        *,
        at: Callable[[Tree], tuple[Callable[..., Tree], Callable[..., Tree]]] | None = None,
        mapped: MappedSystem | None = None,
    ) -> Tree:
        """`jax.lax.custom_linear_solve`: see `_jax_solve`. `solve` is always traced, outside `jit` too."""
        return _jax_solve.linear_solve(make(parameters)[0], b, solve, transpose_solve)

    def matrix(self, apply: Callable[[Array], Array], like: Array) -> Array:
        """All columns at once, by `jax.vmap`."""
        n = like.shape[-1]
        eye = jnp.eye(n, dtype=like.dtype).reshape((n,) + (1,) * (like.ndim - 1) + (n,))
        return jax.vmap(apply, out_axes=-1)(jnp.broadcast_to(eye, (n, *like.shape)))

    # -- control ------------------------------------------------------------------------------------
    def while_loop(
        self, cond: Callable[[Tree], Array], body: Callable[[Tree], Tree], state: Tree, *, max_steps: int
    ) -> Tree:
        """`jax.lax.while_loop`. `body` must keep shapes and dtypes."""

        def keep_on(carry: tuple) -> Array:
            step, inner = carry
            return (step < max_steps) & cond(inner)

        def advance(carry: tuple) -> tuple:
            step, inner = carry
            return step + 1, _map(strong, body(inner))

        start = (jnp.zeros((), dtype=np.int32), _map(strong, state))
        return jax.lax.while_loop(keep_on, advance, start)[1]

    def repeat(self, body: Callable[[Tree], Tree], state: Tree, *, steps: int) -> Tree:
        """`jax.lax.scan`. `body` must keep shapes and dtypes."""

        def advance(inner: Tree, _: None) -> tuple[Tree, None]:
            return _map(strong, body(inner)), None

        return jax.lax.scan(advance, _map(strong, state), None, length=steps)[0]

    def jit(self, f: Callable[..., Tree]) -> Callable[..., Tree]:
        """`jax.jit`, which compiles one function object once however often it is wrapped."""
        return jax.jit(f)

    def call_external(self, function: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
        """`function(*args)`, a black box, as arrays like `like`; its derivative is zero.

        Eager (also inside an eager `jax.grad`): `function` is called at once with concrete arrays of JAX.
        Under `jit` or `vmap`: by `jax.pure_callback`, with NumPy arrays, one call for each entry of a batch.
        """
        args, like = jax.lax.stop_gradient((args, like))

        def convert(values: Tree) -> Tree:
            return _map(lambda leaf, value: np.asarray(value, dtype=leaf.dtype).reshape(leaf.shape), like, values)

        if self.is_eager(args):
            return _map(lambda leaf, value: self.asarray(value, like=leaf), like, function(*args))
        shapes = _map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
        on_host = lambda *values: convert(function(*_map(np.asarray, values)))  # noqa: E731
        return jax.pure_callback(on_host, shapes, *args, vmap_method="sequential")


def make() -> Backend:
    """The one instance."""
    on_node(jax.tree_util.register_pytree_node)
    return JaxBackend()


def _concrete(leaf: Any) -> bool:
    if not isinstance(leaf, Tracer):
        return True
    return not isinstance(jax.lax.stop_gradient(leaf), Tracer)


def _no_transformation() -> bool:
    """Whether no transformation is under way, so that nothing can be traced. False where JAX does not say."""
    core = jax._src.core  # pyright: ignore[reportAttributeAccessIssue]  private: not exported to type checkers
    clean = getattr(core, "trace_state_clean", None)
    return clean is not None and clean()
