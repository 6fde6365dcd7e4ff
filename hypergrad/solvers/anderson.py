"""Anderson's acceleration of fixed-point iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends import Backend
from ...backends._trees import tree_map
from ...manifolds import InverseRetraction, Logarithmic, Manifold
from .._settings import require_count, require_number
from .._space import Space, epsilon
from ..level import FixedPoint, Level
from ..linear._flat import flat as flattener
from ..solution import Solution, is_finite
from ._base import Solver, default_tolerance, first_leaf, point_norm
from ._parts import concatenate, entry, flat, rows, stack
from .picard import image_of
from .steps import quietly

Array = Any
Tree = Any


class _State(NamedTuple):
    """Where an iteration stands: y, map(y), and what leads there from y; differences of points and of residuals, newest
    first, in the tangent space of y, zero where unused; `best`, the smallest norm since the memory was `empty`.
    """

    y: Tree
    image: Tree
    residual: Tree
    points: Tree
    residuals: Tree
    empty: Array
    norm: Array
    best: Array
    steps: Array
    converged: Array
    done: Array


@dataclass(frozen=True)
class Anderson(Solver):
    """y ← R_y(Σ αᵢ (yᵢ + β rᵢ) - y), α = argmin ‖Σ αᵢ rᵢ‖, Σ αᵢ = 1, over the last `memory` + 1 points; r = map(y) - y.

    On a manifold r = R_y⁻¹(map(y)) by `inverse_retract`, `log`, or else the projected difference; all differences are
    carried to the tangent space of the newest point, combined there in its metric, and retracted. α comes of the
    differences of the r, each in units of its length, with `ridge` (None: eps^(3/4) of the dtype) added to their Gram
    matrix. `damping` is β. A step that makes |map(y) - y| grow to more than `growth` times the smallest so far is
    not taken: the memory is cleared, and a plain step y ← map(y), damped by β, follows, as it does at the start.

    Converges as `Picard` says, in fewer evaluations, and also where the map is slightly expanding. `steps` counts the
    evaluations of the map after the first. For a linear map it is GMRES in other clothes. Anderson 1965; Walker & Ni
    2011. Raises `TypeError` for a level that is not a `FixedPoint`.
    """

    memory: int = 5
    ridge: float | None = None
    damping: float = 1.0
    growth: float = 4.0
    tol: float | None = None
    max_steps: int = 5000

    def __post_init__(self) -> None:
        require_count(self, "memory", least=1)
        require_number(self, "ridge", above=0)
        require_number(self, "damping", above=0)
        require_number(self, "growth", least=1)
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        if not isinstance(level, FixedPoint):
            raise TypeError(
                f"Anderson accelerates a map; a {type(level).__name__} needs TrustRegion(), LBFGS() or Newton()"
            )
        xp, image_at, manifold = backend.xp, image_of(level, outer, space), level.manifold
        tol, n = default_tolerance(first_leaf(init), self.tol), self.memory
        toward, move = _chart(manifold, space)

        def gap(y: Tree, image: Tree) -> tuple[Array, Array]:
            norm, size = point_norm(space, space.subtract(image, y)), point_norm(space, y)
            return norm, xp.logical_and(norm <= tol * xp.maximum(size, xp.ones_like(size)), xp.isfinite(size))

        def step(s: _State) -> _State:
            v = self._direction(manifold, space, s)
            plain = s.image if self.damping == 1 else move(s.y, tree_map(lambda a: self.damping * a, s.residual))
            trial = move(s.y, v)
            alone = xp.logical_or(s.empty, ~is_finite(space, trial))
            trial = space.where(alone, plain, trial)
            v = space.where(alone, tree_map(lambda a: self.damping * a, s.residual), v)
            image = image_at(trial)
            norm, converged = gap(trial, image)
            finite = xp.logical_and(is_finite(space, (trial, image)), ~s.done)
            taken = xp.logical_and(finite, xp.logical_or(alone, norm <= self.growth * s.best))

            y, image = space.where(taken, trial, s.y), space.where(taken, image, s.image)
            r = toward(y, image)
            old = concatenate(
                backend, stack(backend, v, s.residual), rows(s.points, 0, n - 1), rows(s.residuals, 0, n - 1)
            )
            moved = manifold.transport(s.y, y, old)
            kept = Space(backend, (n, *space.batch))
            keep = xp.broadcast_to(taken, kept.batch)
            ds = concatenate(backend, rows(moved, 0, 1), rows(moved, 2, n + 1))
            dr = concatenate(backend, stack(backend, space.subtract(r, entry(moved, 1))), rows(moved, n + 1, 2 * n))
            usable = xp.logical_and(keep, is_finite(kept, (ds, dr)))
            zero = kept.zeros(ds)
            norm = xp.where(taken, norm, s.norm)
            met = xp.logical_or(xp.logical_and(taken, converged), s.converged)
            stuck = xp.logical_and(~taken, alone)
            return _State(
                y=y,
                image=image,
                residual=r,
                points=kept.where(usable, ds, zero),
                residuals=kept.where(usable, dr, zero),
                empty=~taken,
                norm=norm,
                best=xp.where(xp.logical_and(taken, ~s.empty), xp.minimum(s.best, norm), norm),
                steps=s.steps + xp.astype(~s.done, s.steps.dtype),
                converged=met,
                done=xp.logical_or(s.done, xp.logical_or(met, stuck)),
            )

        with quietly():
            image = image_at(init)
            norm, converged = gap(init, image)
            finite = is_finite(space, image)
            r = toward(init, space.where(finite, image, init))
            zeros = tree_map(lambda a: xp.zeros_like(xp.stack([a] * n)), r)
            stop = xp.logical_or(converged, ~finite)
            empty, steps = space.flags(True, norm), space.counts(norm)
            state = _State(init, image, r, zeros, zeros, empty, norm, norm, steps, converged, stop)
            end = backend.while_loop(
                lambda s: xp.logical_not(space.all(s[-1])),
                lambda s: tuple(step(_State(*s))),
                tuple(state),
                max_steps=self.max_steps,
            )
            end = _State(*end)
        return Solution(end.y, end.norm, end.steps, end.converged)

    def _direction(self, manifold: Manifold, space: Space, s: _State) -> Tree:
        """β r - Σ γᵢ (Δyᵢ + β Δrᵢ), γ = argmin ‖r - Σ γᵢ Δrᵢ‖."""
        backend, n = space.backend, self.memory
        xp, kept = backend.xp, Space(backend, (n, *space.batch))
        # one number for each pair: the covectors of the Δr on the Δr and on r
        covectors = flat(manifold, s.y, s.residuals)
        size = xp.sqrt(xp.abs(kept.dot(covectors, s.residuals)))
        scale = kept.ratio(xp.ones_like(size), size)
        covectors, units = kept.scale(scale, covectors), kept.scale(scale, s.residuals)
        join = flattener(kept, units)[1]
        left, right = (
            xp.permute_dims(a, (*range(1, space.ndim + 1), 0, space.ndim + 1)) for a in map(join, (covectors, units))
        )
        ridge = epsilon(size) ** 0.75 if self.ridge is None else self.ridge
        gram = left @ right.mT + ridge * xp.eye(n, dtype=size.dtype, device=backend.device(size))
        on_r = flattener(space, s.residual)[1](s.residual)
        gamma = backend.solve_or_nan(gram, left @ on_r[..., None])[..., 0]
        gamma = scale * xp.permute_dims(gamma, (space.ndim, *range(space.ndim)))
        steps = kept.add(s.points, tree_map(lambda a: self.damping * a, s.residuals))
        correction = tree_map(lambda a: xp.sum(a, axis=0), kept.scale(gamma, steps))
        return tree_map(lambda a, b: self.damping * a - b, s.residual, correction)


def _chart(manifold: Manifold, space: Space) -> tuple[Callable[[Tree, Tree], Tree], Callable[[Tree, Tree], Tree]]:
    """The tangent vector from one point toward another, and the point where one leads."""
    if isinstance(manifold, InverseRetraction):
        return manifold.inverse_retract, manifold.retract
    if isinstance(manifold, Logarithmic):
        return manifold.log, manifold.exp
    return lambda y, z: manifold.project(y, space.subtract(z, y)), manifold.retract
