"""Vectors of one problem, or of a batch of independent problems: trees of arrays with numbers of batch shape.

What is one problem is told by the cost: its output's axes are the batch; all other leading axes, and all leaves
of a tree, belong to one problem and share one inner product and every coefficient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..backends import Backend, namespace
from ..backends._trees import leaves, tree_map

Array = Any
Tree = Any


@dataclass(frozen=True)
class Space:
    """The arithmetic of `ndim` batch axes on one backend. A number is an array of batch shape."""

    backend: Backend
    batch: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        """The number of batch axes."""
        return len(self.batch)

    def dot(self, a: Tree, b: Tree) -> Array:
        """Re Σ conj(a) b over everything that belongs to one problem: a covector on a tangent vector."""
        parts = [self._dot(x, y) for x, y in zip(leaves(a), leaves(b), strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _dot(self, a: Array, b: Array) -> Array:
        xp, n = namespace(a), self.ndim
        if self.backend.is_complex(a):
            return self._dot(xp.real(a), xp.real(b)) + self._dot(xp.imag(a), xp.imag(b))
        if n == 0:
            return xp.reshape(a, (-1,)) @ xp.reshape(b, (-1,))
        product = a * b
        return xp.sum(product, axis=tuple(range(n, product.ndim))) if product.ndim > n else product

    def per_problem(self, number: Array, leaf: Array) -> Array:
        """`number`, shaped to multiply `leaf` problem by problem."""
        if self.ndim == 0:
            return number
        return namespace(number).reshape(number, self.batch + (1,) * (leaf.ndim - self.ndim))

    def scale(self, number: Array, v: Tree) -> Tree:
        """`number · v`."""
        if self.ndim == 0:
            return tree_map(lambda a: number * a, v)
        return tree_map(lambda a: self.per_problem(number, a) * a, v)

    def add(self, a: Tree, b: Tree) -> Tree:
        """`a + b`."""
        return tree_map(lambda x, y: x + y, a, b)

    def subtract(self, a: Tree, b: Tree) -> Tree:
        """`a - b`."""
        return tree_map(lambda x, y: x - y, a, b)

    def axpy(self, number: Array, u: Tree, v: Tree) -> Tree:
        """`number · u + v`."""
        if self.ndim == 0:
            return tree_map(lambda a, b: number * a + b, u, v)
        return tree_map(lambda a, b: self.per_problem(number, a) * a + b, u, v)

    def where(self, condition: Array, a: Tree, b: Tree) -> Tree:
        """`a` where the problem's condition holds, `b` elsewhere."""
        xp = self.backend.xp
        return tree_map(lambda x, y: xp.where(self.per_problem(condition, x), x, y), a, b)

    def freeze(self, done: Array, old: Tree, new: Tree) -> Tree:
        """`new`, but `old` for problems that are done. A single problem needs none: its loop has ended."""
        return self.where(done, old, new) if self.ndim else new

    def zeros(self, v: Tree) -> Tree:
        """The zero vector like v."""
        return tree_map(lambda a: namespace(a).zeros_like(a), v)

    def ratio(self, a: Array, b: Array) -> Array:
        """`a / b`, and 0 where b = 0."""
        return self.backend.ratio(a, b)

    def root(self, number: Array) -> Array:
        """√|number|."""
        return self.backend.xp.sqrt(self.backend.xp.abs(number))

    def smaller(self, a: Array, b: Array) -> Array:
        """The smaller of two numbers."""
        return self.backend.xp.minimum(a, b)

    def larger(self, a: Array, b: Array) -> Array:
        """The larger of two numbers."""
        return self.backend.xp.maximum(a, b)

    def is_finite(self, number: Array) -> Array:
        """Whether a number is finite."""
        return self.backend.xp.isfinite(number)

    def hypot(self, a: Array, b: Array) -> Array:
        """√(a² + b²)."""
        return self.backend.xp.hypot(a, b)

    def select(self, condition: Array, a: Array, b: Array) -> Array:
        """The number `a` where the problem's condition holds, `b` elsewhere."""
        return self.backend.xp.where(condition, a, b)

    def tally(self, count: Array, condition: Array) -> Array:
        """One more for the problems that meet the condition."""
        return count + self.backend.xp.astype(condition, count.dtype)

    def constant(self, value: float, like: Array) -> Array:
        """The same number for every problem."""
        return self.full(value, like)

    def any(self, flags: Array) -> Array:
        """Whether the statement holds for some problem."""
        return self.backend.xp.any(flags) if self.ndim else flags

    def all(self, flags: Array) -> Array:
        """Whether the statement holds for every problem."""
        return self.backend.xp.all(flags) if self.ndim else flags

    def negated(self, flags: Array) -> Array:
        """Where the statement does not hold."""
        return self.backend.xp.logical_not(flags)

    def full(self, value: float | bool, like: Array, dtype: Any = None) -> Array:
        """The same number for every problem."""
        xp = self.backend.xp
        return xp.full(self.batch, value, dtype=dtype or like.dtype, device=self.backend.device(like))

    def flags(self, value: bool, like: Array) -> Array:
        """The same truth value for every problem."""
        return self.full(value, like, self.backend.xp.bool)

    def counts(self, like: Array) -> Array:
        """Zero steps for every problem."""
        return self.full(0, like, self.backend.xp.int32)

    def unit(self, v: Tree) -> Array:
        """The power of 2 at or below the largest entry of a problem, to measure it in; 1 where that is 0 or not finite.

        Squares of what is below 1e-154 are 0 in float64, below 1e-19 in float32 nearly so.
        """
        xp = self.backend.xp
        total, *others = (self._largest(leaf) for leaf in leaves(v))
        for other in others:
            total = xp.maximum(total, other)
        usable = xp.logical_and(total > 0, xp.isfinite(total))
        return 2.0 ** xp.floor(xp.log2(xp.where(usable, total, xp.ones_like(total))))

    def _largest(self, leaf: Array) -> Array:
        """max |leaf| of each problem; 0 where it is empty."""
        xp, axes = self.backend.xp, tuple(range(self.ndim, leaf.ndim))
        if not math.prod(leaf.shape):
            return self.zero(leaf)
        return xp.max(xp.abs(leaf), axis=axes) if axes else xp.abs(leaf)

    def zero(self, leaf: Array) -> Array:
        """The number 0 for every problem, of the real dtype of `leaf`."""
        xp = namespace(leaf)
        return self.full(0.0, leaf, xp.real(leaf).dtype if self.backend.is_complex(leaf) else leaf.dtype)

    def divide(self, v: Tree, number: Array) -> Tree:
        """`v / number`."""
        return tree_map(lambda a: a / self.per_problem(number, a), v)

    def size(self, v: Tree) -> int:
        """The number of ambient coordinates of one problem."""
        return sum(math.prod(a.shape[self.ndim :]) for a in leaves(v))


def resolved_tolerance(leaf: Array, tol: float | None) -> float:
    """`tol`, by default what the dtype resolves, 10 eps, and never below that.

    Below it only rounding is left of a residual, which may lie where the operator is 0, normal to the manifold:
    Krylov methods that go on divide by nothing.
    """
    return max(tol or 0.0, 10 * epsilon(leaf))


def epsilon(leaf: Array) -> float:
    """The rounding unit of the precision of `leaf`."""
    return _epsilon(namespace(leaf), leaf.dtype)


@lru_cache(maxsize=64)
def _epsilon(xp: Any, dtype: Any) -> float:
    return float(xp.finfo(dtype).eps)
