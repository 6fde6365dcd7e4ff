"""The extreme eigenvalues of a self-adjoint operator, from a few Lanczos steps."""

from __future__ import annotations

from typing import Any

from .._space import epsilon
from ._base import System

Array = Any
Tree = Any


def extreme_eigenvalues(system: System, start: Tree, steps: int) -> tuple[Array, Array]:
    """Estimates (lowest, highest) of the eigenvalues of sharp∘B, from the Krylov space of the covector `start`.

    The highest is an upper estimate: the largest Ritz value plus its residual bound. Golub & Van Loan 2013, §10.1.
    """
    space, xp = system.space, system.space.backend.xp
    z = system.raise_(start)
    norm = xp.sqrt(space.dot(start, z))
    ended = norm == 0
    w, v = (space.scale(space.ratio(xp.ones_like(norm), norm), a) for a in (start, z))
    diagonal, off, before, beta = [], [], space.zeros(start), xp.zeros_like(norm)
    for _ in range(steps):
        image = system.apply(v)
        alpha = space.dot(image, v)
        image = space.axpy(-alpha, w, space.axpy(-beta, before, image))
        raised = system.raise_(image)
        # where the Krylov space is exhausted v is zero from here on, and the first value is repeated
        alpha = xp.where(ended, diagonal[0] if diagonal else alpha, alpha)
        beta = xp.sqrt(xp.abs(space.dot(image, raised)))
        ended = xp.logical_or(ended, beta <= 100 * epsilon(beta) * xp.abs(diagonal[0] if diagonal else alpha))
        beta = xp.where(ended, xp.zeros_like(beta), beta)
        diagonal.append(alpha)
        off.append(beta)
        inverse = space.ratio(xp.ones_like(beta), beta)
        before, w, v = w, space.scale(inverse, image), space.scale(inverse, raised)
    values = xp.linalg.eigvalsh(_tridiagonal(xp, diagonal, off[:-1]))
    return values[..., 0], values[..., -1] + off[-1]


def _tridiagonal(xp: Any, diagonal: list[Array], off: list[Array]) -> Array:
    n, zero = len(diagonal), xp.zeros_like(diagonal[0])
    side = {(i, i + 1): b for i, b in enumerate(off)} | {(i + 1, i): b for i, b in enumerate(off)}
    rows = [xp.stack([diagonal[i] if i == j else side.get((i, j), zero) for j in range(n)], axis=-1) for i in range(n)]
    return xp.stack(rows, axis=-2)
