"""A direct solve: the operator as a matrix on the ambient space, completed in the normal directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._space import epsilon
from ..solution import Solution
from ._base import LinearSolver, System
from ._flat import flat
from ._relative import covector_norm, relative

Array = Any
Tree = Any


@dataclass(frozen=True)
class Dense(LinearSolver):
    """One product for each ambient coordinate, then one factorization of P B P / s + (I - P): for small problems.

    Exact. N real coordinates (a complex entry has two) cost N products, one after the other except on JAX, and N³
    operations; memory N² numbers, three times. s is the largest entry of P B P, which keeps the two parts comparable.
    A singular matrix gives NaN and `converged` false, which is ‖b - B v‖ ≤ √eps ‖b‖.
    """

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    @property
    def has_tolerance(self) -> bool:
        """True."""
        return True

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`. `guess` is not needed."""
        space, xp = system.space, system.space.backend.xp
        scaled = relative(system, b)
        n, join, split = flat(space, scaled.b)
        size = covector_norm(system, scaled.b, system.raise_(scaled.b))
        steps = space.counts(size) + n
        if n == 0:
            return scaled.solution(space, scaled.b, size, steps, size == 0)

        def parts(row: Array) -> Array:
            v = split(row)
            tangent = system.project(v)
            return xp.concat([join(system.apply(tangent)), join(space.subtract(v, tangent))], axis=-1)

        row = join(scaled.b)
        columns = space.backend.matrix(parts, row)
        inside, normal = columns[..., :n, :], columns[..., n:, :]
        s = xp.max(xp.abs(inside), axis=(-2, -1), keepdims=True)
        s = xp.where(s > 0, s, xp.ones_like(s))
        v = space.backend.solve_or_nan(inside / s + normal, row[..., None]) / s
        v = system.project(split(v[..., 0]))
        r = space.subtract(scaled.b, system.apply(v))
        norm = covector_norm(system, r, system.raise_(r))
        return scaled.solution(space, v, norm, steps, norm <= epsilon(size) ** 0.5 * size)
