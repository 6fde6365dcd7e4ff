"""The generalized minimal residual method with restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends._trees import leaves
from .._floats import Floats, to_arrays
from .._settings import require_count
from .._space import Space, epsilon
from ._base import System, unchanged
from ._flat import flat
from ._krylov import Krylov
from ._restarts import Cycle

Array = Any
Tree = Any


@dataclass(frozen=True)
class GMRES(Krylov):
    """The smallest residual over the Krylov space of any A, from an orthonormal basis of `restart` vectors.

    A step costs one product and 8 n operations for each basis vector; every `restart` steps the method begins again at
    what is left. With `restart` ≥ n it ends at the solution after n steps at most: by default `restart` is n up to 100
    real coordinates, and 30 above. Preconditioned from the right; in the metric where the system is self-adjoint.
    Saad & Schultz 1986; orthogonalized twice: Giraud et al. 2005. Other settings: see `Krylov`.
    """

    restart: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "restart", least=1)

    @property
    def needs_self_adjoint(self) -> bool:
        """False."""
        return False

    def _cycle(self, system: System, space: Space | Floats, r: Tree, goal: Any, budget: Any) -> Cycle:
        """Covectors w_i and their vectors z_i = raise_(w_i), with w_i·z_j = δ_ij and A lift(w_j) = Σ h_ij w_i.

        Q, the product of all rotations, makes H triangular; the entry of Q e_0 below the triangle is what is left.
        """
        goal, budget = to_arrays(system.space, leaves(r)[0], goal, budget)  # rows of arrays are computed with
        space, xp, precondition = system.space, system.space.backend.xp, system.precondition
        plain, least, one = system.raise_ is unchanged, 10 * epsilon(goal), xp.ones_like(goal)
        n, join, split = flat(space, r)
        restart = (n if n <= 100 else 30) if self.restart is None else self.restart
        m = max(min(restart, self.max_steps, n), 1)
        w = join(r)
        eye = xp.eye(m + 1, dtype=w.dtype, device=space.backend.device(w))

        def raised(w: Array) -> Array:
            return w if plain else join(system.raise_(split(w)))

        def running(state: Any) -> Array:
            return space.any(state[-1])

        def step(state: Any) -> Any:
            j, w, z, basis, duals, rotation, triangle, count, left, largest, active = state
            here, after = eye[j, :], eye[j + 1, :]
            basis = basis + _outer(here, w)
            duals = duals if plain else duals + _outer(here, z)
            image = join(system.apply(split(z) if precondition is None else precondition(split(w))))
            first = _times(basis if plain else duals, image)
            image = image - _combined(first, basis)
            second = _times(basis if plain else duals, image)
            image = image - _combined(second, basis)
            z, h = raised(image), first + second
            below = xp.sqrt(xp.abs(space.dot(image, z)))
            largest = xp.maximum(largest, xp.sqrt(xp.sum(h**2, axis=-1) + below**2))
            below = xp.where(below > least * largest, below, xp.zeros_like(below))
            column = _times(rotation, h + below[..., None] * after)
            diagonal = column[..., j]
            gamma = xp.hypot(diagonal, below)
            active = xp.logical_and(active, gamma > least * largest)  # else A is singular and the column brings nothing
            cos, sin = (space.ratio(a, gamma)[..., None] for a in (diagonal, below))
            upper, lower = rotation[..., j, :], rotation[..., j + 1, :]
            turned = cos * lower - sin * upper
            rotation = rotation + _outer(here, cos * upper + sin * lower - upper) + _outer(after, turned - lower)
            column = column + (gamma - diagonal)[..., None] * here - below[..., None] * after
            triangle = triangle + _outer(here, column)
            left = xp.where(active, xp.abs(turned[..., 0]), left)
            count = count + xp.astype(active, count.dtype)
            active = xp.logical_and(active, xp.logical_and(left > goal, count < budget))
            inverse, some = space.ratio(one, below)[..., None], xp.logical_and(active, below > 0)[..., None]
            w, z = (xp.where(some, inverse * a, xp.zeros_like(a)) for a in (image, z))
            return j + 1, w, z, basis, duals, rotation, triangle, count, left, largest, active

        def room(width: int) -> Array:
            return xp.zeros((*space.batch, m + 1, width), dtype=w.dtype, device=space.backend.device(w))

        count = space.counts(goal)
        state = (
            0,
            w,
            raised(w),
            room(n),
            () if plain else room(n),
            room(m + 1) + eye,
            room(m + 1),
            count,
            one,
            0 * one,
            xp.logical_and(one > goal, count < budget),
        )
        state = space.backend.while_loop(running, step, state, max_steps=m)
        _, _, _, basis, duals, rotation, triangle, count, left, _, _ = state
        kept = xp.arange(m + 1, dtype=xp.int32, device=space.backend.device(w)) < count[..., None]
        both = xp.logical_and(kept[..., None], kept[..., None, :])
        right = xp.where(kept, rotation[..., 0], xp.zeros_like(rotation[..., 0]))
        triangle = xp.where(both, triangle.mT, room(m + 1) + eye)
        y = space.backend.solve_or_nan(triangle, right[..., None])[..., 0]
        if precondition is None:
            return Cycle(split(_combined(y, basis if plain else duals)), count, left <= goal)
        return Cycle(precondition(split(_combined(y, basis))), count, left <= goal)


def _times(rows: Array, vector: Array) -> Array:
    """The products of each row of (..., m, n) with a vector (..., n)."""
    return rows @ vector if rows.ndim == 2 else (rows @ vector[..., None])[..., 0]


def _combined(weights: Array, rows: Array) -> Array:
    """Σ weights_i rows_i."""
    return weights @ rows if rows.ndim == 2 else (weights[..., None, :] @ rows)[..., 0, :]


def _outer(place: Array, row: Array) -> Array:
    """`row` where `place` is 1."""
    return place[:, None] * row[..., None, :]
