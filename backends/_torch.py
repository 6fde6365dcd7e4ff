"""PyTorch: retained graphs of `torch.autograd.grad`; `torch.func` only inside its own transformations."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as torch_namespace
import numpy as np
import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from . import _torch_forbid, _torch_graph, _torch_hoist, _torch_rule
from ._base import Array, Backend, Mapped, Tree
from ._eager import EagerBackend
from ._errors import MappedArrayError, NoDerivativeError
from ._lyapunov import lyapunov_form
from ._torch_graph import differentiable, functorch, functorch_active
from ._trees import leaves, tree_map


class TorchBackend(EagerBackend):
    """PyTorch."""

    name = "torch"
    xp = torch_namespace

    # -- arrays -------------------------------------------------------------------------------------
    def owns(self, leaf: Any) -> bool:
        """Whether `leaf` is a `torch.Tensor`."""
        return isinstance(leaf, torch.Tensor)

    def is_inexact(self, leaf: Any) -> bool:
        """See the base class."""
        return differentiable(leaf)

    def is_eager(self, *trees: Tree) -> bool:
        """False under `torch.compile` and `torch.vmap`, and for tensors on the device "meta"."""
        if torch.compiler.is_compiling() or _torch_rule.traced():
            return False
        return all(_has_values(x) for tree in trees for x in leaves(tree) if isinstance(x, torch.Tensor))

    def is_constant(self, *arrays: Array) -> bool:
        """See the base class."""
        return _torch_rule.constant(arrays) and not torch.compiler.is_compiling()

    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """A tensor. A tensor given keeps its graph; anything else is copied."""
        if like is not None:
            dtype = like.dtype if dtype is None else dtype
            device = like.device if device is None else device
        if isinstance(value, torch.Tensor):
            return value.to(device=device, dtype=dtype)
        if hasattr(value, "__array__") and not isinstance(value, np.generic):
            value = np.array(value)
        return torch.tensor(value, dtype=dtype, device=device)

    def to_numpy(self, array: Array) -> Any:
        """A NumPy copy; works inside `torch.func.grad` too, not under `torch.vmap`."""
        array = _plain(array)
        with _outside_transformations():
            return np.array(array.numpy(force=True))

    def ratio(self, a: Array, b: Array) -> Array:
        """See the base class; two operations less."""
        return torch.where(b == 0, 0.0, a / b)

    def has_floats(self, arrays: list[Array]) -> bool:
        """See the base class."""
        return all(a.is_cpu for a in arrays) and self.is_constant(*arrays) and not _torch_rule.traced()

    def float_dot(self, a: Array, b: Array) -> float:
        """See the base class."""
        if a.ndim != 1:
            a, b = a.reshape(-1), b.reshape(-1)
        return torch.vdot(a, b).real.item() if a.is_complex() else torch.dot(a, b).item()

    def float_axpy(self, number: float, u: Array, v: Array) -> Array:
        """See the base class."""
        return torch.add(v, u, alpha=number)

    def float_largest(self, a: Array) -> float:
        """See the base class."""
        return a.abs().max().item()

    def dots(self, a: Array, b: Array | None, ndim: int, keepdims: bool) -> Array | None:
        """See the base class; of many short rows on a CPU as a product with ones, ten times as fast as a sum."""
        if not a.is_floating_point() or (b is not None and a.dtype != b.dtype):
            return None
        if a.numel() > 1000 and a.is_cpu and (b is None or a.shape == b.shape):
            n = math.prod(a.shape[-ndim:])
            if n < 8 and self.is_constant(a, a if b is None else b) and _exact_products(a):
                products = a if b is None else a * b
                found = products.flatten(-ndim) @ a.new_ones(n)
                return found[(..., *(None,) * ndim)] if keepdims else found
        if b is not None and ndim == 1:
            return (a * b).sum(-1, True) if keepdims else torch.linalg.vecdot(a, b)
        return (a if b is None else a * b).sum(tuple(range(-ndim, 0)), keepdims)

    def largest(self, a: Array) -> float | None:
        """See the base class; not from a GPU, which it would have to wait for."""
        return float(a.max()) if a.is_cpu and a.numel() and self.is_constant(a) and self.is_eager(a) else None

    def lower_inverse(self, l: Array) -> Array | None:
        """By substitution; of many tiny matrices, `inv` takes half the time."""
        if not self.is_constant(l) or (l.shape[-1] < 6 and l.numel() > 2000):
            return None
        eye = torch.eye(l.shape[-1], dtype=l.dtype, device=l.device)
        return torch.linalg.solve_triangular(l, eye, upper=False)

    def with_diagonal(self, a: Array, d: Array) -> Array | None:
        """See the base class; a copy that is written to."""
        if a.shape[:-1] != d.shape or not self.is_constant(a, d):
            return None
        result = a.clone()
        result.diagonal(dim1=-2, dim2=-1).copy_(d)
        return result

    def solve_or_nan(self, matrix: Array, b: Array) -> Array:
        """See the base class."""
        solution, info = torch.linalg.solve_ex(matrix, b)
        return torch.where((info == 0)[..., None, None], solution, torch.nan)

    def device(self, array: Array) -> Any:
        """`array.device`."""
        return array.device

    def to_device(self, array: Array, device: Any) -> Array:
        """`array` on `device`; None leaves it where it is."""
        return array if device is None else array.to(device)

    def is_complex(self, array: Array) -> bool:
        """Whether the dtype is complex."""
        return array.is_complex()

    def synchronize(self, tree: Tree) -> Tree:
        """Wait for the CUDA devices that hold `tree`."""
        for device in {x.device for x in leaves(tree) if isinstance(x, torch.Tensor) and x.is_cuda}:
            torch.cuda.synchronize(device)
        return tree

    # -- differentiation ----------------------------------------------------------------------------
    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
        """A retained graph. Under `torch.no_grad` too: then value and cotangents are cut off."""
        return _torch_graph.vjp(f, *primals)

    def jvp(self, f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """The transpose of the transpose: nests freely, which PyTorch's forward mode does not."""
        y, push = _torch_graph.linearize(f, *primals)
        return y, push(*tangents)

    def vjp_each(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, tuple[Callable[[Tree], Tree], ...]]:
        """See the base class: one graph."""
        return super().vjp_each(f, *primals) if functorch_active() else _torch_graph.vjp_each(f, *primals)

    def linearize(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
        """The transpose of the transpose, on a retained graph."""
        return _torch_graph.linearize(f, *primals)

    def stop_gradient(self, tree: Tree) -> Tree:
        """`detach` on every tensor, and no wrapper of `torch.func.grad` or `jvp` left on it."""
        return tree_map(_plain, tree)

    def forbid_gradient(self, tree: Tree, why: str) -> Tree:
        """`detach`, after a check: see `_torch_forbid`."""
        _torch_forbid.forbid(tree, why)
        return self.stop_gradient(tree)

    def forbid_captured(self, f: Callable[[], Tree], why: str) -> None:
        """See `_torch_forbid`."""
        _torch_forbid.forbid_captured(f, why)

    def symmetric_products(self, linear: Callable[[Array], Array], factor: Array) -> Callable[[Array], Array] | None:
        """See the base class; found out by asking, in float32 and float64."""
        if factor.ndim != 2 or factor.is_complex() or functorch_active() or not self.is_eager(factor):
            return None
        holds, short, _ = lyapunov_form(self.xp, linear, factor, factor.device)
        return short if bool(holds) else None

    def constants(self) -> Any:
        """`torch.no_grad()`."""
        return torch.no_grad()

    def custom_derivative(
        self,
        function: Callable[..., Tree],
        pushforward: Callable[[tuple[Tree, ...], Tree, tuple[Tree | None, ...]], Tree],
        pullback: Callable[[tuple[Tree, ...], Tree, Tree, tuple[bool, ...]], tuple[Tree | None, ...]],
        *,
        transposable: bool = False,
        mapped: Mapped | None = None,
    ) -> Callable[..., Tree]:
        """A `torch.autograd.Function` that saves its inputs and outputs."""
        return _torch_rule.custom_derivative(function, pushforward, pullback, mapped)

    def opaque(self, function: Callable[..., Tree], *constants: Tree, mapped: Mapped | None = None) -> Tree:
        """See the base class; plain PyTorch for `function`, whatever transformation of `torch.func` is under way."""
        if not functorch_active():
            return function(*constants)
        return _torch_rule.custom_derivative(function, _no_rule, _no_rule, mapped)(*constants)

    def checkpoint(self, f: Callable[..., Tree], *args: Tree) -> Tree:
        """`torch.utils.checkpoint`, the variant that knows derivatives of every order; random numbers are repeated.

        Under `torch.func`, which takes no hooks on saved tensors, `f` as it stands: then everything is stored.
        """
        if functorch_active():
            return f(*args)

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), _torch_hoist.StandIns()

        return torch_checkpoint(f, *args, use_reentrant=False, context_fn=contexts)

    def hoist(self, f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
        """Tensors that require a gradient and appear in a call of torch while `f` runs."""
        return _torch_hoist.hoist(f, *args)

    def in_hoisted(self) -> bool:
        """See the base class."""
        return bool(_torch_hoist.StandIns().replacements)

    # -- control ------------------------------------------------------------------------------------
    def holds(self, condition: Array) -> bool:
        """See the base class. Raises `MappedArrayError` where it has no value."""
        try:
            return bool(condition)
        except RuntimeError as error:
            if _has_values(condition) and not _torch_rule.traced():
                raise
            raise MappedArrayError(
                "a loop ends as its values say, and under torch.vmap, torch.func.linearize and make_fx it sees none: "
                "batch by leading axes instead of by vmap (a cost of shape (B,), or batch_ndim), use the estimator "
                "Implicit(), and nestfold.linearize"
            ) from error

    def call_external(self, function: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
        """`function(*args)`, a black box on detached tensors, as tensors like `like`; its derivative is zero.

        Not under `torch.vmap`, unless within the `function` of a `custom_derivative`.
        """
        args = tree_map(_plain, args)
        with torch.no_grad(), _outside_transformations():
            values = function(*args)
            return tree_map(lambda leaf, value: self.asarray(value, like=leaf).detach(), like, values)


def make() -> Backend:
    """The one instance."""
    return TorchBackend()


def _no_rule(*_: Any) -> Tree:
    raise NoDerivativeError("what was promised to be a constant is being differentiated")


def _outside_transformations() -> AbstractContextManager:
    """Plain PyTorch, where inside `torch.func.grad` even `numpy()` of a plain tensor fails."""
    return temporarily_clear_interpreter_stack() if _torch_graph.functorch_active() else nullcontext()


def _plain(leaf: Any) -> Any:
    """`leaf` detached, and out of the wrappers of `torch.func.grad` and `jvp`."""
    leaf = leaf.detach() if isinstance(leaf, torch.Tensor) else leaf
    while isinstance(leaf, torch.Tensor) and functorch.is_gradtrackingtensor(leaf):
        leaf = functorch.get_unwrapped(leaf)
    return leaf


def _exact_products(a: torch.Tensor) -> bool:
    """Whether matrix products of this dtype are not rounded to a shorter one on the way."""
    return a.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"


def _has_values(tensor: torch.Tensor) -> bool:
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return not tensor.is_meta
