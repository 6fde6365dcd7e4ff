"""Functions of symmetric and Hermitian matrices, f(A) = Q f(λ) Qᵀ, with derivatives of orders 1 to 3.

The k-th derivative of f at A in the directions E₁ … Eₖ is, with Ê = QᵀEQ and divided differences f[…],

    T_k(A; E₁ … Eₖ) = Q R Qᵀ,   R_ac = Σ f[λ_a, λ_b, …, λ_c] Ê¹_ab ⋯ Êᵏ_·c

over all paths a, b, …, c and all orders of the E (k = 1: R = F ∘ Ê, Daleckii & Krein 1965; in general:
Noferini 2017). Each T_k is a function with a rule of its own: its derivative in A is T_{k+1} with one more
direction, in Eᵢ itself, for it is linear there; and as ⟨C, T_k(A; E₁ … Eₖ)⟩ is symmetric in C, E₁ … Eₖ, the
transposes are the same functions, with C in place of what is asked for. Nothing is differentiated through
`eigh`, so equal eigenvalues do no harm at any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations
from math import prod
from typing import Any

from ..backends import NoDerivativeError, backend_of, namespace
from ._divided import Exp as Exp
from ._divided import InverseSqrt as InverseSqrt
from ._divided import Log as Log
from ._divided import LogRatio, ScalarFunction
from ._divided import Power as Power
from ._divided import Sqrt as Sqrt
from ._expm import expm
from ._linalg import dot, mT, sym

Array = Any

#: The highest order of derivative.
ORDERS = 3
#: From this many entries on, an exponential by matrix products takes less time than eigenvectors.
_LARGE = 1024


def spectral(f: ScalarFunction) -> Callable[[Array], Array]:
    """The function A ↦ f(A) of symmetric (or Hermitian) matrices `(..., n, n)`; `A` is symmetrized first.

    `spectral(Log())(a)`. Time O(n³) for value and first derivative; the second and third sum n³ and n⁴ terms.
    Raises `NoDerivativeError` where a fourth derivative is asked for.
    """
    return lambda a: Decomposition(sym(a))(f)


class Decomposition:
    """Eigenvalues and -vectors of `a`, found once for several functions: d = Decomposition(a); d(Sqrt()).

    `a` is symmetric, to rounding at least; it is symmetrized where derivatives are taken.
    """

    def __init__(self, a: Array):
        self._backend = backend_of(a)
        self._slopes: dict[ScalarFunction, Array] = {}
        constant = self._backend.is_constant(a)
        self._a = a if constant else sym(a)
        plain = a if constant else self._backend.stop_gradient(self._a)
        self.values, self.vectors = namespace(plain).linalg.eigh(plain)

    def _constant(self, *others: Array) -> bool:
        return self._backend.is_constant(self._a, *others)

    def __call__(self, f: ScalarFunction) -> Array:
        """f(a), exactly symmetric."""
        if self._constant():
            return sym(_evaluate(f, self.values, self.vectors, ()))
        return sym(_derivative(self._backend, f, 0)(self._a, self.values, self.vectors))

    def image(self, f: ScalarFunction, fa: Array) -> Decomposition:
        """The decomposition of `fa`, which is f(a): without another `eigh`."""
        result = object.__new__(Decomposition)
        result._backend, result._a, result.vectors, result._slopes = self._backend, fa, self.vectors, {}
        result.values = f.value(namespace(self.values), self.values)
        return result

    def derivative(self, f: ScalarFunction, *directions: Array) -> Array:
        """The derivative of f at `a` in one or two directions, which are symmetrized; all broadcast."""
        parts = self._broadcast(*(sym(e) for e in directions))
        return sym(_derivative(self._backend, f, len(directions))(*parts))

    def slope(self, f: ScalarFunction, e: Array) -> Array | None:
        """`derivative(f, e)` of constants; None of others."""
        return self._rotated(e, self._first(f)) if self._constant(e) else None

    def inverse_slope(self, f: ScalarFunction, c: Array) -> Array | None:
        """The e with `slope(f, e)` = c."""
        return self._rotated(c, 1 / self._first(f)) if self._constant(c) else None

    def _first(self, f: ScalarFunction) -> Array:
        if f not in self._slopes:
            xp, v = namespace(self.values), self.values
            self._slopes[f] = f.divided(xp, v[..., :, None], v[..., None, :])
        return self._slopes[f]

    def _rotated(self, e: Array, factors: Array) -> Array:
        adjoint = mT(self.vectors)
        return sym(self.vectors @ (factors * (adjoint @ e @ self.vectors)) @ adjoint)

    def lyapunov(self, c: Array) -> Array:
        """The X with aX + Xa = c, for positive definite `a` and any `c`; derivatives of every order."""
        return _lyapunov(self._backend)(*self._broadcast(c))

    def _broadcast(self, *directions: Array) -> list[Array]:
        """`a, values, vectors, *directions`, of one batch shape: a rule gives each argument what has its shape."""
        arrays = [self._a, self.values, self.vectors, *directions]
        if all(e.shape == self._a.shape for e in directions):
            return arrays
        xp = namespace(*directions, self._a)
        a, *fitted = xp.broadcast_arrays(self._a, *directions)
        values = xp.broadcast_to(self.values, a.shape[:-1])
        return [a, values, xp.broadcast_to(self.vectors, a.shape), *fitted]


def congruent(f: ScalarFunction, a: Array, l: Array) -> Array:
    """l f(a) lᴴ, exactly symmetric; `a` is symmetric to rounding."""
    if not backend_of(a, l).is_constant(a, l):
        return sym(l @ spectral(f)(a) @ mT(l))
    xp = namespace(a, l)
    if isinstance(f, Exp) and prod(a.shape) >= _LARGE:
        half = l @ expm(0.5 * a)
        return sym(half @ mT(half))
    values, vectors = xp.linalg.eigh(a)
    half = l @ vectors
    return sym((half * f.value(xp, values)[..., None, :]) @ mT(half))


def exponential(a: Array) -> Array:
    """`spectral(Exp())`. Where no derivative can be wanted, large arrays go by products alone: half the time."""
    a = sym(a)
    if prod(a.shape) >= _LARGE and backend_of(a).is_constant(a):
        return sym(expm(a))
    return spectral(Exp())(a)


def squared_log(a: Array) -> Array:
    """|log a|² = Σ log² λ for positive definite matrices `(..., n, n)`, of shape `(...)`; derivatives to order 3.

    The derivative is 2 a⁻¹ log a, a function of one matrix again: the logarithm itself is never formed. Where no
    derivative can be wanted, eigenvalues do without their vectors. `a` is symmetric to rounding.
    """
    backend = backend_of(a)
    if backend.is_constant(a):
        xp = namespace(a)
        logs = xp.log(xp.linalg.eigvalsh(a))
        return dot(logs, logs, 1)
    a = sym(a)
    plain = backend.stop_gradient(a)
    return _squared_log(backend)(a, *namespace(plain).linalg.eigh(plain))


@cache
def _derivative(backend: Any, f: ScalarFunction, order: int) -> Callable[..., Array]:
    """T_order of `a, values, vectors, *directions`; the eigenvalues and -vectors are constants in it.

    All directions are symmetric: they come and go through `sym` alone.
    """

    def function(a: Array, values: Array, vectors: Array, *directions: Array) -> Array:
        return _evaluate(f, values, vectors, directions)

    def higher() -> Callable[..., Array]:
        if order == ORDERS:
            raise NoDerivativeError(f"spectral({f}): derivatives of order above {ORDERS} are not available")
        return _derivative(backend, f, order + 1)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        a, values, vectors, *directions = primals
        moved_a, _, _, *moved = tangents
        result = None if moved_a is None else higher()(*primals, moved_a)
        for i, tangent in enumerate(moved):
            if tangent is not None:
                changed = [*directions[:i], tangent, *directions[i + 1 :]]
                part = _derivative(backend, f, order)(a, values, vectors, *changed)
                result = part if result is None else result + part
        return 0.0 * out if result is None else result

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        a, values, vectors, *directions = primals
        pulled = [higher()(*primals, cotangent) if needs[0] else None, None, None]
        for i, needed in enumerate(needs[3:]):
            changed = [*directions[:i], cotangent, *directions[i + 1 :]]
            pulled.append(_derivative(backend, f, order)(a, values, vectors, *changed) if needed else None)
        return tuple(pulled)

    return backend.custom_derivative(function, pushforward, pullback)


def _evaluate(f: ScalarFunction, values: Array, vectors: Array, directions: tuple[Array, ...]) -> Array:
    """T_k from the decomposition; linear in each direction through products alone."""
    xp, adjoint = namespace(values), mT(vectors)
    if not directions:
        return (vectors * f.value(xp, values)[..., None, :]) @ adjoint
    order = len(directions)
    nodes = [values[(..., *(None,) * i, slice(None), *(None,) * (order - i))] for i in range(order + 1)]
    differences = f.divided(xp, *nodes)
    rotated = [adjoint @ e @ vectors for e in directions]
    result = None
    for path in permutations(rotated):
        part = _paths(xp, differences, path)
        result = part if result is None else result + part
    return vectors @ result @ adjoint


def _paths(xp: Any, differences: Array, path: tuple[Array, ...]) -> Array:
    """Σ_{b…} f[λ_a, λ_b, …, λ_c] E¹_ab ⋯ Eᵏ_·c, one inner index summed after the other: `(..., n, n)`."""
    order = len(path)
    result = differences * path[0][(..., *(None,) * (order - 1))]
    for m, e in enumerate(path[1:], start=2):
        result = result * e[(..., None, slice(None), slice(None), *(None,) * (order - m))]
        result = xp.sum(result, axis=m - order - 2)
    return result


@cache
def _lyapunov(backend: Any) -> Callable[..., Array]:
    """X of `a, values, vectors, c` with aX + Xa = c. As aẊ + Ẋa = ċ - ȧX - Xȧ, derivatives are such X again.

    c need not be symmetric: in the transpose of a derivative it is not.
    """

    def function(a: Array, values: Array, vectors: Array, c: Array) -> Array:
        adjoint = mT(vectors)
        return vectors @ ((adjoint @ c @ vectors) / (values[..., :, None] + values[..., None, :])) @ adjoint

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        moved_a, _, _, moved_c = tangents
        right = moved_c
        if moved_a is not None:
            turned = moved_a @ out + out @ moved_a
            right = -turned if moved_c is None else moved_c - turned
        return 0.0 * out if right is None else _lyapunov(backend)(*primals[:3], right)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        pulled, adjoint = _lyapunov(backend)(*primals[:3], cotangent), mT(out)
        return -(pulled @ adjoint + adjoint @ pulled) if needs[0] else None, None, None, pulled

    return backend.custom_derivative(function, pushforward, pullback)


@cache
def _squared_log(backend: Any) -> Callable[..., Array]:
    """Of `a, values, vectors`."""

    def function(a: Array, values: Array, vectors: Array) -> Array:
        logs = namespace(values).log(values)
        return dot(logs, logs, 1)

    def slope(a: Array, values: Array, vectors: Array) -> Array:
        return 2.0 * sym(_derivative(backend, LogRatio(), 0)(a, values, vectors))

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        return dot(slope(*primals), tangents[0], 2)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        return cotangent[..., None, None] * slope(*primals), None, None

    return backend.custom_derivative(function, pushforward, pullback)
