"""Cholesky factors and their inverses, with derivatives by products alone: libraries solve triangular systems."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backends import backend_of, namespace
from ._linalg import mT, real_diagonal, sym, with_diagonal

Array = Any


def cholesky(x: Array) -> Array:
    """The lower triangular l with x = llᴴ. Its derivative is lp, p = (l⁻¹ẋl⁻ᴴ)_½."""
    backend = backend_of(x)
    # libraries read the lower half alone: values are the same, derivatives would not be symmetric
    return namespace(x).linalg.cholesky(x) if backend.is_constant(x) else _cholesky(backend)(sym(x))


def lower_inverse(l: Array) -> Array:
    """The inverse of lower triangular matrices."""
    backend = backend_of(l)
    return _invert(backend, l) if backend.is_constant(l) else _inverse(backend)(l)


def whitening(x: Array) -> tuple[Array, Array]:
    """`l, l⁻¹` with x = llᴴ."""
    l = cholesky(x)
    return l, lower_inverse(l)


def moved(inverse: Array, u: Array) -> Array:
    """p = (l⁻¹u l⁻ᴴ)_½, the part below and half the diagonal: the Cholesky factor of x + tu moves by lp."""
    return _half(inverse @ u @ mT(inverse))


def pulled(inverse: Array, a: Array) -> Array:
    """The transpose of `moved`: sym(l⁻ᴴ a_½ l⁻¹)."""
    return sym(mT(inverse) @ _half(a) @ inverse)


def _half(a: Array) -> Array:
    return with_diagonal(namespace(a).tril(a), 0.5 * real_diagonal(a))


def _invert(backend: Any, l: Array) -> Array:
    found = backend.lower_inverse(l)
    return namespace(l).linalg.inv(l) if found is None else found


@cache
def _cholesky(backend: Any) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        return namespace(x).linalg.cholesky(x)

    def pushforward(primals: tuple, l: Array, tangents: tuple) -> Array:
        return l @ moved(lower_inverse(l), tangents[0])

    def pullback(primals: tuple, l: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        return (pulled(lower_inverse(l), mT(l) @ cotangent),)

    return backend.custom_derivative(function, pushforward, pullback)


@cache
def _inverse(backend: Any) -> Callable[[Array], Array]:
    def function(l: Array) -> Array:
        return _invert(backend, l)

    def pushforward(primals: tuple, inverse: Array, tangents: tuple) -> Array:
        return -(inverse @ tangents[0] @ inverse)

    def pullback(primals: tuple, inverse: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        adjoint = mT(inverse)
        return (-(adjoint @ cotangent @ adjoint),)

    return backend.custom_derivative(function, pushforward, pullback)
