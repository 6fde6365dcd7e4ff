"""Derivatives for any framework: JAX's names and signatures, on trees.

Arrays of PyTorch and JAX go to their own autodiff, all others to the tape. Integer and boolean arrays among
the arguments, and Python's numbers, are constants.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from ._base import Backend
from ._errors import DTypeError, ShapeError
from ._registry import backend_of, namespace
from ._trees import flatten, leaves

Tree = Any
Array = Any


def vjp(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
    """`y, pull` with y = f(*primals) and pull(ȳ) = (x̄₁, …), x̄ᵢ = (∂f/∂xᵢ)ᴴ ȳ, as often as you like."""
    return backend_of(*primals).vjp(f, *primals)


def jvp(f: Callable[..., Tree], primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Tree, Tree]:
    """`y, ẏ` with y = f(*primals) and ẏ = Σ ∂f/∂xᵢ ẋᵢ."""
    check_like(primals, tangents, "tangents")
    return backend_of(*primals).jvp(f, tuple(primals), tuple(tangents))


def linearize(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """`y, push` with push(ẋ₁, …) = Σ ∂f/∂xᵢ ẋᵢ at these primals: everything nonlinear is computed once."""
    return backend_of(*primals).linearize(f, *primals)


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function `(*args) -> (f(*args), gradient with respect to args[argnums])`; see `grad`.

    With `has_aux`, f returns `(value, aux)` and the result is `((value, aux), gradient)`.
    """
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def evaluate(*args: Tree, **keywords: Any) -> tuple[Any, Any]:
        backend = backend_of(*args, keywords) if keywords else backend_of(*args)
        places = [_place(backend, args, i) for i in wanted]
        kept: list[Any] = []

        def scalar(*moving: Tree) -> Any:
            filled = list(args)
            for i, value in zip(places, moving, strict=True):
                filled[i] = value
            out = f(*filled, **keywords)
            if not has_aux:
                return _scalar(backend, out)
            out, aux = _pair(out)
            kept[:] = flatten(aux)
            return _scalar(backend, out), [leaf for leaf in kept[0] if hasattr(leaf, "dtype")]

        value, pull = backend.vjp(scalar, *[args[i] for i in places])
        if has_aux:
            value, arrays = value
            found = iter(arrays)
            aux = kept[1]([next(found) if hasattr(leaf, "dtype") else leaf for leaf in kept[0]])
            gradients = pull((_one(value), [namespace(a).zeros_like(a) for a in arrays]))
            value = value, aux
        else:
            gradients = pull(_one(value))
        return value, gradients[0] if isinstance(argnums, int) else gradients

    return evaluate


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The function `(*args) -> gradient` of a real scalar f with respect to args[argnums]; nests to any
    order.

    For complex arguments the gradient points along steepest ascent: f(x + t g) grows by t Σ|g|² to first
    order. With `has_aux`, f returns `(value, aux)` and the result is `(gradient, aux)`. Raises
    `ShapeError` if the value has axes, `DTypeError` if it is not real floating point or the argument holds
    no floating-point array.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Tree, **keywords: Any) -> Any:
        value, found = both(*args, **keywords)
        return (found, value[1]) if has_aux else found

    return gradient


def hvp(f: Callable[..., Array], primals: Sequence[Tree], tangents: Sequence[Tree]) -> Tree:
    """The product of the Hessian of a real scalar f with `tangents`.

    One primal: ∂²f v, a tree like it. Several: the whole block Hessian times (v₁, …), a tuple of trees.
    """
    check_like(primals, tangents, "tangents")
    one = len(primals) == 1
    gradient = grad(f, 0 if one else tuple(range(len(primals))))
    return jvp(gradient, primals, tangents)[1]


def jacobian(f: Callable[..., Array], argnums: int = 0) -> Callable[..., Array]:
    """The function `(*args) -> ∂f/∂args[argnums]`, for arrays: shape `(*f's shape, *argument's shape)`.

    By forward mode, one push for each entry of the argument. With respect to a complex array, f must be
    holomorphic.
    """

    def matrix(*args: Tree) -> Array:
        backend = backend_of(*args)
        place = _place(backend, args, argnums)
        x = args[place]
        if not hasattr(x, "dtype"):
            raise ShapeError("jacobian and hessian take single arrays; for trees use jvp, vjp, linearize or hvp")

        def moving(flat: Array) -> Array:
            return f(*args[:place], namespace(flat).reshape(flat, x.shape), *args[place + 1 :])

        flat = namespace(x).reshape(x, (math.prod(x.shape),))
        value, push = backend.linearize(moving, flat)
        if _is(backend.xp, x.dtype, "complex floating") and not _is(backend.xp, value.dtype, "complex floating"):
            raise DTypeError("a real function of a complex array has no complex Jacobian: use grad, vjp or jvp")
        shape = (*value.shape, *x.shape)
        if flat.shape[0] == 0:
            return namespace(value).zeros(shape, dtype=value.dtype, device=backend.device(value))
        columns = backend.matrix(push, flat)
        return namespace(columns).reshape(columns, shape)

    return matrix


def hessian(f: Callable[..., Array], argnums: int = 0) -> Callable[..., Array]:
    """The function `(*args) -> ∂²f/∂args[argnums]²` of a real scalar f, for real arrays: shape twice the
    argument's.
    """
    gradient = grad(f, argnums)

    def matrix(*args: Tree) -> Array:
        x = args[_place(backend_of(*args), args, argnums)]
        if hasattr(x, "dtype") and _is(backend_of(x).xp, x.dtype, "complex floating"):
            raise DTypeError("a real function of a complex array has no complex Hessian: use hvp")
        return jacobian(gradient, argnums)(*args)

    return matrix


def stop_gradient(tree: Tree) -> Tree:
    """`tree` as a constant of every derivative."""
    return backend_of(tree).stop_gradient(tree)


def check_like(primals: Sequence[Tree], tangents: Sequence[Tree], what: str) -> None:
    """Raise `ShapeError` unless the two have the same structure and shapes."""
    left, right = leaves(tuple(primals)), leaves(tuple(tangents))
    shapes = [[tuple(getattr(a, "shape", ())) for a in side] for side in (left, right)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"{what} have shapes {shapes[1]}, the primals {shapes[0]}")


@functools.lru_cache(maxsize=256)
def _is(xp: Any, dtype: Any, *kinds: str) -> bool:
    return bool(xp.isdtype(dtype, kinds))


def _one(value: Array) -> Array:
    return namespace(value).ones_like(value)


def _pair(out: Any) -> tuple[Any, Any]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError("with has_aux the function must return a pair (value, aux)")
    return out


def _scalar(backend: Backend, value: Any) -> Array:
    """`value`, if it is a real array of no axes."""
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        raise DTypeError(f"the function returned a {kind}; its gradient needs an array of no axes")
    shape, dtype = tuple(value.shape), value.dtype
    if shape != ():
        raise ShapeError(f"the gradient of a function with value of shape {shape}; sum it, or use jacobian")
    if not _is(backend.xp, dtype, "real floating"):
        raise DTypeError(f"the gradient of a function with value of dtype {dtype}; it must be real floating point")
    return value


def _place(backend: Backend, args: tuple, i: int) -> int:
    """`i`, counted from the front, if args[i] holds something to differentiate by."""
    if not -len(args) <= i < len(args):
        raise ShapeError(f"argnums={i}, but there are {len(args)} positional arguments")
    found = leaves(args[i])
    kinds = ("real floating", "complex floating")
    if not any(hasattr(a, "dtype") and _is(backend.xp, a.dtype, *kinds) for a in found):
        names = ", ".join(sorted({str(getattr(a, "dtype", type(a).__name__)) for a in found}))
        raise DTypeError(f"argument {i} holds no floating-point array ({names}): nothing to differentiate by")
    return i % len(args)


__all__ = [
    "grad", "hessian", "hvp", "jacobian", "jvp", "linearize", "stop_gradient", "value_and_grad", "vjp",
]  # fmt: skip
