"""The spectrum of a level's linear system from a short Krylov run: what a certificate says of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

from ..backends import namespace
from ..backends._trees import leaves
from ._adjoint import Linearized
from ._space import Space, epsilon
from .level import Argmin, FixedPoint, Level
from .linear import System
from .linear._lanczos import extreme_eigenvalues, mixed_with_noise

Array = Any
Tree = Any

STEPS = 10


class Spectrum(NamedTuple):
    """Numbers of batch shape; see `Certificate`."""

    condition: Array
    lowest: Array
    highest: Array
    contraction: Array
    negative_curvature: Array


def spectrum(level: Level, space: Space, at: Linearized, y: Tree, start: Tree) -> Spectrum:
    """What ten products, from the covector `start`, tell of the level's linear system."""
    system, xp = at.system, space.backend.xp
    start = system.enter(start)
    steps = min(STEPS, _dimension(level, space, y))
    if isinstance(level, Argmin):
        lowest, highest = extreme_eigenvalues(replace(system, precondition=None), start, steps)
        least = 100 * epsilon(lowest) * xp.abs(highest)
        condition = _quotient(xp, xp.abs(highest), xp.abs(lowest))
        return Spectrum(condition, lowest, highest, xp.full_like(lowest, xp.nan), lowest <= least)
    projected, alive = _arnoldi(space, system, mixed_with_noise(system, start), steps)
    number = projected[..., 0, 0]
    nothing = xp.full_like(number, xp.nan)
    identity = xp.eye(steps, dtype=number.dtype, device=space.backend.device(number))
    square = projected[..., :steps, :]
    # where the Krylov space is exhausted, the norm of A on the first vector, which lies between the singular values
    first = xp.sqrt(xp.sum(projected[..., :, 0] ** 2, axis=-1))
    padding = xp.where(alive, xp.zeros_like(square[..., 0, :]), first[..., None])
    rows = xp.concat([square + padding[..., None, :] * identity, projected[..., steps:, :]], axis=-2)
    values = xp.linalg.svdvals(rows)
    condition = _quotient(xp, values[..., 0], values[..., -1])
    factor, lowest, highest = nothing, nothing, nothing
    if isinstance(level, FixedPoint):
        factor = _spectral_radius(xp, xp.where(alive[..., None, :], identity - square, xp.zeros_like(square)))
    if system.self_adjoint:
        filled = xp.where(alive, 0 * padding, number[..., None])
        symmetric = 0.5 * (square + square.mT) + filled[..., None, :] * identity
        values = xp.linalg.eigvalsh(symmetric)
        lowest, highest = values[..., 0], values[..., -1]
    return Spectrum(condition, lowest, highest, factor, space.flags(False, number))


def unknown(like: Array) -> Spectrum:
    """Nothing is known."""
    nothing = namespace(like).full_like(like, math.nan)
    return Spectrum(nothing, nothing, nothing, nothing, namespace(like).zeros_like(like) != 0)


def _dimension(level: Level, space: Space, y: Tree) -> int:
    """Of one problem's tangent space; several points, one behind the other, may belong to it."""
    point, axes = leaves(y)[0], level.manifold.ndims[0]
    return max(1, level.manifold.dim * math.prod(point.shape[space.ndim : point.ndim - axes]))


def _quotient(xp: Any, a: Array, b: Array) -> Array:
    """A / b, infinite where b = 0."""
    zero = b == 0
    return xp.where(zero, xp.full_like(a, xp.inf), a / xp.where(zero, xp.ones_like(b), b))


def _arnoldi(space: Space, system: System, start: Tree, steps: int) -> tuple[Array, Array]:
    """The matrix (steps + 1, steps) of A in an orthonormal basis of its Krylov space, and which columns are in it.

    Saad 2003, alg. 6.2 (modified Gram-Schmidt).
    """
    xp = space.backend.xp
    norm = xp.sqrt(space.dot(start, start))
    zero, one = xp.zeros_like(norm), xp.ones_like(norm)
    inside = norm > 0
    basis = [space.scale(space.ratio(one, norm), start)]
    columns, alive = [], []
    for j in range(steps):
        image = system.apply(basis[j])
        whole = xp.sqrt(space.dot(image, image))
        column = []
        for u in basis:
            part = space.dot(u, image)
            image = space.axpy(-part, u, image)
            column.append(part)
        length = xp.sqrt(space.dot(image, image))
        alive.append(inside)
        inside = xp.logical_and(inside, length > epsilon(length) ** 0.5 * whole)
        length = xp.where(inside, length, zero)
        basis.append(space.scale(space.ratio(one, length), image))
        columns.append(xp.stack([*column, length, *[zero] * (steps - 1 - j)], axis=-1))
    return xp.stack(columns, axis=-1), xp.stack(alive, axis=-1)


def _spectral_radius(xp: Any, matrix: Array) -> Array:
    """‖M^64‖^(1/64), by squaring, scaled on the way (Gelfand's formula)."""
    logarithm = 0.0
    for k in range(7):
        size = xp.linalg.matrix_norm(matrix)
        guarded = xp.where(size > 0, size, xp.ones_like(size))
        logarithm = logarithm + xp.where(size > 0, xp.log(guarded), xp.full_like(size, -xp.inf)) / 2**k
        matrix = matrix / guarded[..., None, None]
        matrix = matrix @ matrix
    return xp.exp(logarithm)
