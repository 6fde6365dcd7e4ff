"""Positive matrices with given row and column sums."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from ..backends import backend_of, namespace
from ._base import InverseRetraction
from ._checks import is_size
from ._linalg import dot, fit
from ._parameters import Parametrized, known
from ._scaling import balance, scaled
from ._smooth import log_ratio

Array = Any


@dataclass(frozen=True, eq=False)
class DoublyStochastic(InverseRetraction):
    """{x ∈ ℝⁿˣᵐ : x > 0, x1 = p, xᵀ1 = q} with the Fisher metric ⟨u, v⟩ₓ = Σ uv/x. Douik & Hassibi 2019.

    x, u, w : (..., n, m); p : (..., n) and q : (..., m) positive, Σp = Σq: arrays of the points' framework, batched and
    differentiated as one likes, or sequences of numbers. `uniform(n, m)` has equal marginals.
    Tangent vectors have zero row and column sums. Couplings of p and q, where these are distributions.
    """

    p: Any
    q: Any

    parameters: ClassVar[tuple[str, ...]] = ("p", "q")

    def __post_init__(self) -> None:
        for name in ("p", "q"):
            object.__setattr__(self, name, marginal(f"DoublyStochastic(p, q): {name}", getattr(self, name)))
        if known(self.p, self.q):
            check_totals(self.p, self.q)

    @classmethod
    def uniform(cls, n: int, m: int | None = None) -> DoublyStochastic:
        """Rows that sum to 1 and columns that sum to n/m; m = n by default."""
        m = n if m is None else m
        if not (is_size(n) and is_size(m)):
            raise ValueError(f"DoublyStochastic.uniform(n, m) needs integers n, m ≥ 1, not n = {n}, m = {m}")
        return cls((1.0,) * n, (n / m,) * m)

    @property
    def shape(self) -> tuple[int, ...]:
        return (size(self.p), size(self.q))

    @property
    def dim(self) -> int:
        return (size(self.p) - 1) * (size(self.q) - 1)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Σ uv/x."""
        return dot(u / x, v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """`a` less the means of its rows and of its columns, plus its mean."""
        return fit(doubly_centered(a), x)

    def sharp(self, x: Array, w: Array) -> Array:
        """x (w - α - βᵀ), with α, β such that its rows and columns sum to zero."""
        return x * balance(x, w)[0]

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """(w - α - βᵀ) u/(2x), with α, β as in `sharp`."""
        return balance(x, w)[0] * (0.5 * u / x)

    def retract(self, x: Array, u: Array) -> Array:
        """x exp(u/x), its rows and columns scaled to p and q (Sinkhorn): positive for every u. First order."""
        return scaled(namespace(x).log(x) + u / x, *self._marginals(x))

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """sharp(x, log(y/x)): defined everywhere."""
        return self.sharp(x, log_ratio(namespace(x, y), y, x))

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself: all tangent spaces are the same."""
        return fit(u, y)

    def from_noise(self, z: Array) -> Array:
        """exp(z), scaled to p and q."""
        return scaled(z, *self._marginals(z))

    def defect(self, x: Array) -> Array:
        """The largest relative error of a row or column sum, plus 1 - min x where that is not positive."""
        p, q = self._marginals(x)
        xp = namespace(x, p)
        rows = xp.max(xp.abs(xp.sum(x, axis=-1) / p - 1), axis=-1)
        columns = xp.max(xp.abs(xp.sum(x, axis=-2) / q - 1), axis=-1)
        smallest = xp.min(x, axis=(-2, -1))
        return xp.maximum(rows, columns) + xp.where(smallest > 0, xp.zeros_like(smallest), 1 - smallest)

    def _marginals(self, x: Array) -> tuple[Array, Array]:
        return like_points(self.p, x), like_points(self.q, x)


@dataclass(frozen=True, repr=False)
class Numbers(Parametrized):
    """A marginal that was given as numbers: no leaf of any tree, and an array only next to points."""

    values: tuple[float, ...]

    def __repr__(self) -> str:
        return repr(self.values)


def marginal(name: str, given: Any) -> Any:
    """A marginal, checked where its values are known. Raises `ValueError` if it is none."""
    p: Any = given
    if isinstance(given, (list, tuple)) and given and all(isinstance(number, Real) for number in given):
        p = Numbers(tuple(map(float, given)))
    if isinstance(p, Numbers):
        values = np.asarray(p.values)
    elif not getattr(p, "shape", ()) or p.shape[-1] < 1:
        raise ValueError(f"{name} is to be an array of shape (..., size ≥ 1) or a sequence of numbers, not {given!r}")
    elif not namespace(p).isdtype(p.dtype, "real floating"):
        raise ValueError(f"{name} has dtype {p.dtype}; marginals need a real floating dtype: convert it first")
    else:
        values = to_numpy(p) if known(p) else np.ones(1)
    if not np.all((values > 0) & (values < np.inf)):
        raise ValueError(f"{name} is to be positive and finite, not {values.tolist()}")
    return p


def check_totals(p: Any, q: Any) -> None:
    """Raise `ValueError` unless Σp = Σq, to rounding."""
    p, q = to_numpy(p), to_numpy(q)
    rows, columns = p.sum(-1), q.sum(-1)
    limit = max(np.finfo(p.dtype).eps, np.finfo(q.dtype).eps) ** 0.5
    if not np.all(np.abs(rows - columns) <= limit * columns):
        raise ValueError(
            "DoublyStochastic(p, q): the row sums p and the column sums q are to have the same total, "
            f"not {rows.tolist()} and {columns.tolist()}: scale one of them"
        )


def size(p: Any) -> int:
    """The number of entries of a marginal."""
    return len(p.values) if isinstance(p, Numbers) else p.shape[-1]


def to_numpy(p: Any) -> Any:
    """The values of a marginal."""
    return np.asarray(p.values) if isinstance(p, Numbers) else backend_of(p).to_numpy(p)


def like_points(p: Any, x: Array) -> Array:
    """A marginal as an array: numbers get the framework, dtype and device of `x`."""
    return backend_of(x).asarray(p.values, like=x) if isinstance(p, Numbers) else p


def doubly_centered(a: Array) -> Array:
    """`a` less the means of its rows and of its columns, plus its mean: (I - 11ᵀ/n) a (I - 11ᵀ/m)."""
    xp = namespace(a)
    a = a - xp.mean(a, axis=-1, keepdims=True)
    return a - xp.mean(a, axis=-2, keepdims=True)
