"""The numbers of one problem as Python's floats: on a CPU they cost a tenth of arrays without axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..backends import Backend
from ..backends._trees import leaves, tree_map
from ._space import Space

Array = Any
Tree = Any


@dataclass(frozen=True)
class Floats:
    """What `Space` offers to a loop over scalars, for one problem of constant arrays whose values are at hand."""

    backend: Backend
    ndim = 0

    def dot(self, a: Tree, b: Tree) -> float:
        """Re Σ conj(a) b."""
        if hasattr(a, "dtype"):
            return self.backend.float_dot(a, b)
        return sum(self.backend.float_dot(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))

    def axpy(self, number: float, u: Tree, v: Tree) -> Tree:
        """`number · u + v`."""
        if hasattr(u, "dtype"):
            return self.backend.float_axpy(number, u, v)
        return tree_map(lambda a, b: self.backend.float_axpy(number, a, b), u, v)

    def subtract(self, a: Tree, b: Tree) -> Tree:
        """`a - b`."""
        return tree_map(lambda x, y: x - y, a, b)

    def scale(self, number: float, v: Tree) -> Tree:
        """`number · v`."""
        return v if number == 1 else tree_map(lambda a: number * a, v)

    def divide(self, v: Tree, number: float) -> Tree:
        """`v / number`."""
        return v if number == 1 else tree_map(lambda a: a / number, v)

    def unit(self, v: Tree) -> float:
        """See `Space.unit`."""
        sizes = [self.backend.float_largest(a) for a in leaves(v) if math.prod(a.shape)]
        size = math.nan if any(map(math.isnan, sizes)) else max(sizes, default=0.0)
        return math.ldexp(1.0, math.frexp(size)[1] - 1) if 0 < size < math.inf else 1.0

    def ratio(self, a: float, b: float) -> float:
        """`a / b`, and 0 where b = 0."""
        return a / b if b else 0.0

    def root(self, number: float) -> float:
        """√|number|."""
        return math.sqrt(abs(number))

    def any(self, flag: bool) -> bool:
        """Whether the statement holds."""
        return flag

    def smaller(self, a: float, b: float) -> float:
        """The smaller of two numbers; NaN if one is NaN."""
        return a if a < b or a != a else b

    def larger(self, a: float, b: float) -> float:
        """The larger of two numbers; NaN if one is NaN."""
        return a if a > b or a != a else b

    def is_finite(self, number: float) -> bool:
        """Whether a number is finite."""
        return math.isfinite(number)

    def hypot(self, a: float, b: float) -> float:
        """√(a² + b²)."""
        return math.hypot(a, b)

    def select(self, condition: bool, a: float, b: float) -> float:
        """`a` where the condition holds, `b` otherwise."""
        return a if condition else b

    def where(self, condition: bool, a: Tree, b: Tree) -> Tree:
        """`a` where the condition holds, `b` otherwise."""
        return a if condition else b

    def tally(self, count: int, condition: bool) -> int:
        """One more where the condition holds."""
        return count + condition

    def negated(self, flag: bool) -> bool:
        """Whether the statement does not hold."""
        return not flag

    def flags(self, value: bool, like: float) -> bool:
        """A truth value."""
        return value

    def counts(self, like: float) -> int:
        """Zero steps."""
        return 0

    def constant(self, value: float, like: float) -> float:
        """A number."""
        return value


def quick_numbers(space: Space, v: Tree) -> Space | Floats:
    """What a loop over problems like `v` is best written with."""
    if space.ndim or not space.backend.has_floats(leaves(v)):
        return space
    return Floats(space.backend)


def from_arrays(space: Space | Floats, *numbers: Array) -> tuple[Any, ...]:
    """Numbers of batch shape as `space` takes them."""
    return tuple(space.backend.to_numpy(n).item() for n in numbers) if isinstance(space, Floats) else numbers


def to_arrays(space: Space, leaf: Array, *numbers: Any) -> list[Array]:
    """Numbers of either kind as arrays of batch shape, of the kind and precision of `leaf`."""
    like = space.zero(leaf)
    kinds = {bool: space.backend.xp.bool, int: space.backend.xp.int32, float: like.dtype}
    return [space.full(n, like, kinds[type(n)]) if type(n) in kinds else n for n in numbers]
