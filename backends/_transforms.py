"""Derivatives for any framework: JAX's names and signatures, on trees.

Arrays of PyTorch and JAX go to their own autodiff, all others to the tape. Integer and boolean arrays among
the arguments, Python's numbers and other objects are constants, and a function meets them as they are.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from ._base import Backend
from ._errors import DTypeError, ShapeError
from ._registry import backend_of, namespace
from ._trees import leaves
from ._vectors import fitted, fitted_all

Tree = Any
Array = Any


def vjp(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
    """`y, pull` with y = f(*primals) and pull(ȳ) = (x̄₁, …), x̄ᵢ = (∂f/∂xᵢ)ᴴ ȳ, as often as you like.

    Pairings are Re⟨conj(a), b⟩. Cotangents of integers are zeros. Raises `ShapeError` and `DTypeError` for a ȳ that
    does not go with y.
    """
    backend = backend_of(*primals)
    value, pull = backend.vjp(f, *primals)
    return value, lambda cotangent: pull(fitted(backend, cotangent, value, "the cotangent"))


def jvp(f: Callable[..., Tree], primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Tree, Tree]:
    """`y, ẏ` with y = f(*primals) and ẏ = Σ ∂f/∂xᵢ ẋᵢ.

    Raises `ShapeError` and `DTypeError` for tangents that do not go with the primals.
    """
    backend, tangents = _moved(primals, tangents)
    return backend.jvp(f, tuple(primals), tangents)


def linearize(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """`y, push` with push(ẋ₁, …) = Σ ∂f/∂xᵢ ẋᵢ at these primals: everything nonlinear is computed once."""
    backend = backend_of(*primals)
    value, push = backend.linearize(f, *primals)
    return value, lambda *tangents: push(*fitted_all(backend, tangents, primals, "tangents"))


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function `(*args) -> (f(*args), gradient with respect to args[argnums])`; see `grad`.

    With `has_aux`, f returns `(value, aux)` and the result is `((value, aux), gradient)`.
    """
    argnums = _numbers(argnums)

    def evaluate(*args: Tree, **keywords: Any) -> tuple[Any, Any]:
        backend = backend_of(*args, keywords) if keywords else backend_of(*args)
        places = [_place(backend, args, argnums)] if isinstance(argnums, int) else _places(backend, args, argnums)
        kept: list[Any] = []

        def scalar(*moving: Tree) -> Any:
            filled = list(args)
            for i, value in zip(places, moving, strict=True):
                filled[i] = value
            out = f(*filled, **keywords)
            if not has_aux:
                return _scalar(backend, out)
            out, aux = _pair(out)
            arrays, skeleton = backend.split(aux)
            kept.append(skeleton)
            return _scalar(backend, out), arrays

        value, pull = backend.vjp(scalar, *[args[i] for i in places])
        if has_aux:
            value, arrays = value
            gradients = pull((backend.one(value), [namespace(a).zeros_like(a) for a in arrays]))
            value = value, kept[-1].fill(arrays)
        else:
            gradients = pull(backend.one(value))
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

    One primal: ∂²f v, a tree like it. Several: the whole block Hessian times (v₁, …), a tuple of trees. To apply it
    often at one point: `linearize(grad(f), x)[1]`.
    """
    backend, tangents = _moved(primals, tangents)
    one = len(primals) == 1
    gradient = grad(f, 0 if one else tuple(range(len(primals))))
    return backend.jvp(gradient, tuple(primals), tangents)[1]


def jacobian(f: Callable[..., Array], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function `(*args) -> ∂f/∂args[argnums]`, for arrays: shape `(*f's shape, *argument's shape)`; a
    tuple of them for a sequence of `argnums`.

    f runs once; then one push for each entry of the argument or, where f has fewer entries, one pull for each of
    those. With respect to a complex array, f must be holomorphic. Raises `ShapeError` for trees and `DTypeError`
    for a value or argument that is not floating point, and for a real function of a complex array.
    """
    argnums = _numbers(argnums)

    def matrix(*args: Tree, **keywords: Any) -> Any:
        backend = backend_of(*args, keywords)
        places = _places(backend, args, argnums)
        for place in places:
            _single(args[place])

        def of(place: int) -> Array:
            return _matrix(backend, lambda x: f(*args[:place], x, *args[place + 1 :], **keywords), args[place])

        return of(places[0]) if isinstance(argnums, int) else tuple(map(of, places))

    return matrix


def _matrix(backend: Backend, f: Callable[[Array], Array], x: Array) -> Array:
    """The Jacobian of `f` at `x`."""
    shape: list[int] = []

    def flattened(flat: Array) -> Array:
        value = _array(backend, f(namespace(flat).reshape(flat, x.shape)))
        shape[:] = value.shape
        return namespace(value).reshape(value, (math.prod(value.shape),))

    flat = namespace(x).reshape(x, (math.prod(x.shape),))
    value, push = backend.linearize(flattened, flat)
    is_complex = backend.is_complex(value)
    if backend.is_complex(x) and not is_complex:
        raise DTypeError("a real function of a complex array has no complex Jacobian: use grad, vjp or jvp")
    rows, columns = value.shape[0], flat.shape[0]
    if rows * columns == 0:
        found = namespace(value).zeros((rows, columns), dtype=value.dtype, device=backend.device(value))
    elif rows < columns and is_complex == backend.is_complex(x):
        _, pull = backend.vjp(push, namespace(flat).zeros_like(flat))
        found = namespace(flat).matrix_transpose(backend.matrix(lambda c: pull(c)[0], value))
        found = namespace(found).conj(found) if is_complex else found
    else:
        found = backend.matrix(push, flat)
    return namespace(found).reshape(found, (*shape, *x.shape))


def hessian(f: Callable[..., Array], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function `(*args) -> ∂²f/∂args[argnums]²` of a real scalar f, for real arrays: shape twice the
    argument's.

    A tuple of tuples for a sequence of `argnums`: `[i][j]` is the derivative by the j-th of the gradient by the i-th.
    """
    argnums = _numbers(argnums)

    def matrix(*args: Tree, **keywords: Any) -> Any:
        backend = backend_of(*args, keywords)
        places = _places(backend, args, argnums)
        for place in places:
            if backend.is_complex(_single(args[place])):
                raise DTypeError("a real function of a complex array has no complex Hessian: use hvp")
        if isinstance(argnums, int):
            return jacobian(grad(f, argnums), argnums)(*args, **keywords)
        return tuple(jacobian(grad(f, i), places)(*args, **keywords) for i in places)

    return matrix


def stop_gradient(tree: Tree) -> Tree:
    """`tree` as a constant of every derivative."""
    return backend_of(tree).stop_gradient(tree)


def _moved(primals: Sequence[Tree], tangents: Sequence[Tree]) -> tuple[Backend, tuple[Tree, ...]]:
    """The backend, and the tangents, if they go with the primals."""
    for what, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{what} must be a tuple with one entry for each argument, not a {type(given).__name__}")
    backend = backend_of(*primals)
    return backend, fitted_all(backend, tangents, primals, "tangents")


@functools.lru_cache(maxsize=256)
def _is(xp: Any, dtype: Any, *kinds: str) -> bool:
    return bool(xp.isdtype(dtype, kinds))


def _pair(out: Any) -> tuple[Any, Any]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError("with has_aux the function must return a pair (value, aux)")
    return out


def _array(backend: Backend, value: Any) -> Array:
    """`value`, if it is a floating-point array."""
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        raise DTypeError(f"the function returned a {kind}; its derivative needs a floating-point array")
    if not backend.is_inexact(value):
        raise DTypeError(f"the derivative of a function with value of dtype {value.dtype}; it must be floating point")
    return value


def _scalar(backend: Backend, value: Any) -> Array:
    """`value`, if it is a real array of no axes."""
    if not hasattr(value, "dtype"):
        kind = type(value).__name__
        advice = "; with has_aux=True it may return a pair (value, aux)" if isinstance(value, tuple) else ""
        raise DTypeError(f"the function returned a {kind}; its gradient needs an array of no axes{advice}")
    shape, dtype = tuple(value.shape), value.dtype
    if shape != ():
        raise ShapeError(f"the gradient of a function with value of shape {shape}; sum it, or use jacobian")
    if not _is(backend.xp, dtype, "real floating"):
        raise DTypeError(f"the gradient of a function with value of dtype {dtype}; it must be real floating point")
    return value


def _single(x: Any) -> Array:
    """`x`, if it is one array and not a tree of them."""
    if not hasattr(x, "dtype"):
        raise ShapeError("jacobian and hessian take single arrays; for trees use jvp, vjp, linearize or hvp")
    return x


def _numbers(argnums: Any) -> int | tuple[int, ...]:
    """`argnums`, if it is an integer or a sequence of integers, of Python or NumPy."""
    with contextlib.suppress(TypeError):
        return operator.index(argnums)
    try:
        return tuple(map(operator.index, argnums))
    except TypeError:
        raise TypeError(f"argnums={argnums!r} is neither an integer nor a sequence of integers") from None


def _places(backend: Backend, args: tuple, argnums: int | Sequence[int]) -> list[int]:
    """`argnums`, counted from the front, if each names another argument that can be differentiated by."""
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    places = [_place(backend, args, i) for i in wanted]
    if len(set(places)) < len(places):
        raise ShapeError(f"argnums={wanted} names an argument twice")
    return places


def _place(backend: Backend, args: tuple, i: int) -> int:
    if not -len(args) <= i < len(args):
        raise ShapeError(f"argnums={i}, but there are {len(args)} positional arguments")
    if not backend.is_inexact(args[i]) and not any(map(backend.is_inexact, backend.split(args[i])[0])):
        names = ", ".join(sorted({str(getattr(a, "dtype", type(a).__name__)) for a in leaves(args[i])}))
        raise DTypeError(f"argument {i} holds no floating-point array ({names}): nothing to differentiate by")
    return i % len(args)


__all__ = [
    "grad", "hessian", "hvp", "jacobian", "jvp", "linearize", "stop_gradient", "value_and_grad", "vjp",
]  # fmt: skip
