"""Derivatives for any framework: JAX's names and signatures, on trees, by whatever differentiates the arguments.

Arrays of PyTorch and JAX go to their own autodiff, all others to the tape. Integer and boolean arrays among the
arguments are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._base import Backend
from ._errors import DTypeError, ShapeError
from ._registry import backend_of, namespace
from ._trees import flatten, leaves, tree_map

Tree = Any
Array = Any


def vjp(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
    """`y, pull` with y = f(*primals) and pull(ȳ) = (x̄₁, …): x̄ᵢ = (∂f/∂xᵢ)ᴴ ȳ. `pull` may be called many times."""
    return backend_of(*primals).vjp(f, *primals)


def jvp(f: Callable[..., Tree], primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Tree, Tree]:
    """`y, ẏ` with y = f(*primals) and ẏ = Σ ∂f/∂xᵢ ẋᵢ."""
    check_like(primals, tangents, "tangents")
    return backend_of(*primals).jvp(f, tuple(primals), tuple(tangents))


def linearize(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """`y, push` with push(ẋ₁, …) = Σ ∂f/∂xᵢ ẋᵢ at these primals: everything nonlinear is computed once."""
    return backend_of(*primals).linearize(f, *primals)


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The function `(*args) -> (f(*args), gradient with respect to args[argnums])`; see `grad`.

    With `has_aux`, f returns `(value, aux)` and the result is `((value, aux), gradient)`.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def evaluate(*args: Tree, **keywords: Any) -> tuple[Any, Any]:
        backend = backend_of(*args, keywords)
        chosen = [_checked(args, i) for i in wanted]
        kept: list[Any] = []

        def scalar(*moving: Tree) -> Array:
            filled = list(args)
            for i, value in zip(wanted, moving, strict=True):
                filled[i] = value
            out = f(*filled, **keywords)
            if has_aux:
                out, aux = out
                kept.append(aux)
            return _scalar(backend, out)

        value, pull = backend.vjp(scalar, *chosen)
        gradients = pull(namespace(value).ones_like(value))
        out = (value, backend.stop_gradient(kept[0])) if has_aux else value
        return out, gradients[0] if isinstance(argnums, int) else gradients

    return evaluate


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The function `(*args) -> gradient` of a real scalar f with respect to args[argnums]; nests to any order.

    For complex arguments the gradient points along steepest ascent: f(x + t g) grows by t Σ|g|² to first order.
    With `has_aux`, f returns `(value, aux)` and the result is `(gradient, aux)`. Raises `ShapeError` if the value has
    axes, `DTypeError` if it is not real floating point or the argument holds no floating-point array.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Tree, **keywords: Any) -> Any:
        value, found = both(*args, **keywords)
        return (found, value[1]) if has_aux else found

    return gradient


def hvp(f: Callable[..., Array], primals: Sequence[Tree], tangents: Sequence[Tree]) -> Tree:
    """The product of the Hessian of a real scalar f with `tangents`: a tree like `primals[0]`, or a tuple of trees.

    Only one primal: ∂²f v. Several: the whole block Hessian times (v₁, …).
    """
    check_like(primals, tangents, "tangents")
    one = len(primals) == 1
    gradient = grad(f, 0 if one else tuple(range(len(primals))))
    return jvp(gradient, primals, tangents)[1]


def jacobian(f: Callable[..., Array], argnums: int = 0) -> Callable[..., Array]:
    """The function `(*args) -> ∂f/∂args[argnums]`, for arrays: shape `(*f's shape, *argument's shape)`."""

    def matrix(*args: Tree) -> Array:
        backend, x = backend_of(*args), args[argnums]
        _checked(args, argnums)

        def moving(x: Array) -> Array:
            return f(*args[:argnums], x, *args[argnums + 1 :])

        xp, size = namespace(x), _size(x)
        flat = xp.reshape(x, (size,))
        _, push = backend.linearize(lambda v: moving(namespace(v).reshape(v, x.shape)), flat)
        eye = xp.eye(size, dtype=x.dtype, device=backend.device(x))
        columns = [push(eye[i, ...]) for i in range(size)]
        if not columns:
            value = moving(x)
            return namespace(value).zeros(tuple(value.shape) + tuple(x.shape), dtype=value.dtype)
        stacked = namespace(columns[0]).stack(columns, axis=-1)
        return namespace(stacked).reshape(stacked, tuple(stacked.shape[:-1]) + tuple(x.shape))

    return matrix


def hessian(f: Callable[..., Array], argnums: int = 0) -> Callable[..., Array]:
    """The function `(*args) -> ∂²f/∂args[argnums]²` of a real scalar f, for arrays."""
    return jacobian(grad(f, argnums), argnums)


def stop_gradient(tree: Tree) -> Tree:
    """`tree` as a constant of every derivative."""
    return backend_of(tree).stop_gradient(tree)


def check_like(primals: Sequence[Tree], tangents: Sequence[Tree], what: str) -> None:
    """Raise `ShapeError` unless the two have the same structure and shapes."""
    left, right = leaves(tuple(primals)), leaves(tuple(tangents))
    shapes = [[tuple(getattr(a, "shape", ())) for a in side] for side in (left, right)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"{what} have shapes {shapes[1]}, the primals {shapes[0]}")


def _size(x: Array) -> int:
    size = 1
    for n in x.shape:
        size *= n
    return size


def _scalar(backend: Backend, value: Any) -> Array:
    if not hasattr(value, "dtype"):
        raise DTypeError(f"the function returned a {type(value).__name__}; its gradient needs an array of no axes")
    if tuple(value.shape) != ():
        raise ShapeError(f"the gradient of a function with value of shape {tuple(value.shape)}; sum it, or use jacobian")
    if not backend.xp.isdtype(value.dtype, "real floating"):
        raise DTypeError(f"the gradient of a function with value of dtype {value.dtype}; it must be real floating point")
    return value


def _checked(args: tuple, i: int) -> Tree:
    if i >= len(args):
        raise ShapeError(f"argnums={i}, but there are {len(args)} positional arguments")
    found = flatten(args[i])[0]
    xp = namespace(*found)
    if not any(hasattr(a, "dtype") and xp.isdtype(a.dtype, ("real floating", "complex floating")) for a in found):
        kinds = ", ".join(sorted({str(getattr(a, "dtype", type(a).__name__)) for a in found}))
        raise DTypeError(f"argument {i} holds no floating-point array ({kinds}): nothing to differentiate by")
    return args[i]


__all__ = [
    "grad", "hessian", "hvp", "jacobian", "jvp", "linearize", "stop_gradient", "tree_map", "value_and_grad", "vjp",
]  # fmt: skip
