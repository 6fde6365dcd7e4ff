"""A direct solve: the operator as a matrix on the ambient space, completed in the normal directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...backends._trees import flatten
from .._space import epsilon
from ..solution import Solution
from ._base import LinearSolver, System

Array = Any
Tree = Any


@dataclass(frozen=True)
class Dense(LinearSolver):
    """One product for each ambient coordinate, then one factorization of P B P + (I - P): exact, for small problems.

    N ambient coordinates cost N products and N³ operations; memory N² numbers. Real arrays. A singular matrix gives NaN
    and `converged` false.
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
        found, rebuild = flatten(b)
        sizes = [math.prod(a.shape[space.ndim :]) for a in found]

        def join(tree: Tree) -> Array:
            parts = [xp.reshape(a, space.batch + (n,)) for a, n in zip(flatten(tree)[0], sizes, strict=True)]
            return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)

        def split(vector: Array) -> Tree:
            parts, start = [], 0
            for a, n in zip(found, sizes, strict=True):
                parts.append(xp.reshape(vector[..., start : start + n], a.shape))
                start += n
            return rebuild(parts)

        def product(vector: Array) -> Array:
            v = split(vector)
            tangent = system.project(v)
            normal = space.subtract(v, tangent)
            return join(space.add(system.apply(tangent), normal))

        vector = join(b)
        matrix = space.backend.matrix(product, vector)
        v = system.project(split(space.backend.solve_or_nan(matrix, vector[..., None])[..., 0]))
        r = space.subtract(b, system.apply(v))
        residual = xp.sqrt(xp.abs(space.dot(r, system.raise_(r))))
        size = xp.sqrt(xp.abs(space.dot(b, system.raise_(b))))
        steps = space.counts(residual) + sum(sizes)
        return Solution(v, residual, steps, residual <= epsilon(vector) ** 0.5 * size)
