"""The Fréchet mean of points, as a solved level: differentiable in the points, their weights and the manifold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Backend, DTypeError, ShapeError, namespace
from ..backends._trees import leaves, tree_map
from ..manifolds import Logarithmic
from ..manifolds._smooth import root
from ._checks import leading_shape
from ._settings import require_count, require_number
from ._space import Space, epsilon
from .estimators import Estimator, Unrolled
from .level import Argmin, Level
from .solution import Solution, is_finite, warn_unless_converged
from .solve import one_backend, prepare
from .solvers import Solver, TrustRegion
from .solvers._base import default_tolerance, first_leaf, point_norm

Array = Any
Tree = Any


@dataclass(frozen=True)
class Karcher(Solver):
    """p ← exp(p, t Σ wᵢ log(p, xᵢ)): for the level of `frechet_mean` alone; logarithms are cheaper than derivatives.

    The first t is 1, which ends the search where space is flat; the others are those of Barzilai and Borwein. Converged
    where ‖Σ wᵢ log(p, xᵢ)‖ ≤ tol · √(Σ wᵢ dist²), that root at the start. `tol=None` is eps^(3/4) of the dtype, with
    steps down to 500 eps. Where the gradient does not halve in a step, `TrustRegion` takes over.
    Karcher 1977; Barzilai & Borwein 1988, eq. (5); Iannazzo & Porcelli 2018, algorithm 1.
    """

    tol: float | None = None
    max_steps: int = 100

    def __post_init__(self) -> None:
        require_number(self, "tol", least=0)
        require_count(self, "max_steps", least=0)

    def solve(self, backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree, space: Space) -> Solution:
        """See `Solver`."""
        (manifold, points, weights), xp, like = outer, backend.xp, first_leaf(init)
        sample, tol = Space(backend, leading_shape(points, manifold)), default_tolerance(like, self.tol)

        def ascend(p: Tree) -> tuple[Tree, Array, Array]:
            """Σ wᵢ log(p, xᵢ) over the logarithms that exist, its norm, and whether all exist."""
            logs = manifold.log(p, points)
            finite = is_finite(sample, logs)
            u = _mean(manifold, weights, sample.where(finite, logs, space.zeros(logs)))
            return u, manifold.norm(p, u), xp.all(finite, axis=0)

        def step(state: Any) -> Any:
            p, u, norm, whole, t, k, done = state
            q = manifold.exp(p, manifold.scale(t, u))
            v, new, new_whole = ascend(q)
            carried = manifold.transport(p, q, u)
            change = space.subtract(carried, v)
            bend = manifold.inner(q, change, change)
            t = t * xp.where(bend > 0, space.ratio(manifold.inner(q, carried, change), bend), xp.ones_like(t))
            gained = xp.logical_and(new_whole, ~whole)
            better = xp.logical_and(xp.logical_or(gained, new < norm), ~done)
            slow = ~xp.logical_or(gained, new <= 0.5 * norm)
            done = xp.logical_or(xp.logical_or(done, slow), new <= finest)
            p, u, norm = space.where(better, q, p), space.where(better, v, u), xp.where(better, new, norm)
            whole, k = xp.where(better, new_whole, whole), k + xp.astype(better, k.dtype)
            return p, u, norm, whole, xp.clip(t, 0.1, 2.0), k, done

        with np.errstate(all="ignore"):  # logarithms of antipodes
            squared = namespace(weights).sum(weights * manifold.squared_dist(init, points), axis=0)
            size = root(namespace(squared), squared)
            finest = min(500 * epsilon(like), tol) * size if self.tol is None else tol * size
            u, norm, whole = ascend(init)
            state = (init, u, norm, whole, xp.ones_like(norm), space.counts(norm), ~(norm > finest))
            state = backend.while_loop(lambda s: ~space.all(s[-1]), step, state, max_steps=self.max_steps)
            p, u, norm, whole, _, k, _ = state
            # where a point is large, a step that is less than its rounding is none
            short = point_norm(space, u) <= 4 * epsilon(like) * point_norm(space, p)
            done = xp.logical_and(whole, xp.logical_or(norm <= tol * size, short))
            if backend.is_eager(done) and bool(space.all(done)):
                return Solution(p, norm, k, done)
            found = TrustRegion(tol=self.tol).solve(backend, level, outer, p, space)
            _, rest, whole = ascend(found.value)
        return Solution(
            space.where(done, p, found.value),
            xp.where(done, norm, rest),
            k + xp.where(done, xp.zeros_like(k), found.steps),
            xp.logical_or(done, xp.logical_and(found.converged, whole)),
        )


def frechet_mean(
    manifold: Logarithmic,
    points: Tree,
    weights: Array | None = None,
    *,
    axis: int = 0,
    init: Tree | None = None,
    solver: Solver | None = None,
    estimator: Estimator | None = None,
) -> Solution:
    """The point p where Σ wᵢ dist²(p, xᵢ)/2 / Σ wᵢ is smallest: the mean of x₁, …, x_k. Karcher 1977, (1.2).

    Differentiable to any order in `points`, `weights` and the manifold's array parameters, as `solve` is. The gradient
    there is -Σ wᵢ log(p, xᵢ)/Σ wᵢ; its norm is the `residual`. The weights' scale does not matter.

    Unique on complete, simply connected manifolds without positive curvature; on others where all points lie in a ball
    of radius less than half of both the injectivity radius and π/√high, high ≥ K (Afsari 2011, theorem 2.1). Beyond
    that several points may be minima: the answer is a critical point that the search from `init` finds, and
    `converged` is False where a sample has no logarithm there (antipodes).

    Parameters
    ----------
    manifold : any `Logarithmic` manifold; points may be trees.
    points : the sample along one leading axis; all other leading axes are a batch of means.
    weights : shape `(k,)`, or that of all leading axes; none is negative, not all are 0. By default all equal.
    axis : which of the leading axes holds the sample; negative numbers count from the last of them.
    init : where the solver starts; by default x₁.
    solver, estimator : as in `solve`; by default `nestfold.hypergrad.Karcher()`, `Implicit()`.

    Returns
    -------
    `Solution(value, residual, steps, converged)`.

    Raises `TypeError` for a manifold without logarithms, `ShapeError` (no samples, no such axis, weights that do not
    fit), `ValueError` for negative weights or a sum of 0 where values are known, and what `solve` raises.
    """
    backend, points, weights = _sample(manifold, points, weights, axis)
    plain = backend.stop_gradient(manifold)
    first = tree_map(lambda a: a[0, ...], points)
    init = first if init is None else tree_map(lambda a, b: namespace(b).broadcast_to(a, b.shape), init, first)
    solver = Karcher() if solver is None and not isinstance(estimator, Unrolled) else solver
    level, outer = _Level(_cost, plain), (manifold, points, weights)
    backend, solver, estimator, space = prepare(level, outer, init, solver, estimator)
    found = estimator.solution(backend, level, solver, outer, init, space)
    if not isinstance(estimator, Unrolled):
        warn_unless_converged(backend, found, f"{type(solver).__name__} for a Fréchet mean")
    return found._replace(value=_onto(manifold, found.value))


def frechet_variance(
    manifold: Logarithmic,
    points: Tree,
    weights: Array | None = None,
    *,
    axis: int = 0,
    mean: Tree | None = None,
    solver: Solver | None = None,
    estimator: Estimator | None = None,
) -> Array:
    """Σ wᵢ dist²(mean, xᵢ)/Σ wᵢ, of batch shape; the mean is `frechet_mean`'s where none is given.

    Arguments and errors as in `frechet_mean`; differentiable likewise.
    """
    if mean is None:
        mean = frechet_mean(manifold, points, weights, axis=axis, solver=solver, estimator=estimator).value
    _, points, weights = _sample(manifold, points, weights, axis, mean)
    return _spread(manifold, points, weights, mean)


class _Level(Argmin):
    """The differential of the cost is known, and one derivative of `log` is cheaper than two of `squared_dist`."""

    def value_and_residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> tuple[Array, Tree]:
        return self.cost(*outer, y), self.residual(backend, outer, y)

    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        manifold, points, weights = outer
        y = _onto(manifold, y)
        return manifold.flat(y, tree_map(lambda a: -a, _mean(manifold, weights, manifold.log(y, points))))


def _cost(manifold: Logarithmic, points: Tree, weights: Array, p: Tree) -> Array:
    return 0.5 * _spread(manifold, points, weights, p)


def _onto(manifold: Logarithmic, p: Tree) -> Tree:
    """`p`, moving with the manifold: where it lies may depend on array parameters."""
    return manifold.retract(p, manifold.zero_tangent(p)) if leaves(manifold) else p


def _mean(manifold: Logarithmic, weights: Array, vectors: Tree) -> Tree:
    return tree_map(lambda a: namespace(a).sum(a, axis=0), manifold.scale(weights, vectors))


def _spread(manifold: Logarithmic, points: Tree, weights: Array, p: Tree) -> Array:
    squared = weights * manifold.squared_dist(p, points)
    return namespace(squared).sum(squared, axis=0)


def _sample(
    manifold: Any, points: Tree, weights: Array | None, axis: int, *others: Tree
) -> tuple[Backend, Tree, Array]:
    """The backend, the points with the sample in front, and weights of sum 1 that broadcast over leading axes."""
    if not isinstance(manifold, Logarithmic):
        raise TypeError(f"a Fréchet mean needs distances and logarithms; {manifold!r} is not a Logarithmic manifold")
    given = () if weights is None else (weights,)
    if any(not hasattr(w, "shape") or not hasattr(w, "dtype") for w in given):
        raise DTypeError(f"weights must be an array of the points' framework, not a {type(weights).__name__}")
    backend = one_backend(manifold, points, *given, *others)
    manifold.check_point(points, "points")
    lead = leading_shape(points, manifold)
    if not -len(lead) <= axis < len(lead):
        raise ShapeError(f"axis {axis} is not among the leading axes {lead} of the points")
    axis %= len(lead)
    if lead[axis] == 0:
        raise ShapeError(f"the sample is empty: the points have the leading axes {lead}, 0 along axis {axis}")
    if axis:
        points = tree_map(lambda a: namespace(a).moveaxis(a, axis, 0), points)
    leaf, ndim = leaves(points)[0], manifold.ndims[0]
    own = namespace(leaf).abs(
        leaf[(..., *(0,) * ndim)]
    )  # its dtype is the real one, its shape that of the leading axes
    if weights is None:
        return backend, points, namespace(own).ones_like(own) / lead[axis]
    return backend, points, _normalized(backend, weights, lead, axis, own.dtype)


def _normalized(backend: Backend, weights: Array, lead: tuple[int, ...], axis: int, dtype: Any) -> Array:
    """Weights of sum 1, in the points' precision, shaped for points with the sample in front."""
    xp = namespace(weights)
    if weights.shape == (lead[axis],):
        weights = xp.reshape(weights, (lead[axis],) + (1,) * (len(lead) - 1))
    elif weights.shape == lead:
        weights = xp.moveaxis(weights, axis, 0)
    else:
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}; {lead[axis]} points with the leading axes {lead} take weights "
            f"of shape {(lead[axis],)} or {lead}"
        )
    if not xp.isdtype(weights.dtype, ("integral", "real floating")):
        raise DTypeError(f"weights have dtype {weights.dtype}; they must be real numbers")
    if weights.dtype != dtype:
        weights = xp.astype(weights, dtype)
    plain = backend.stop_gradient(weights)
    if backend.is_eager(plain):
        values = backend.to_numpy(plain)
        if not (np.isfinite(values).all() and (values >= 0).all() and (values.sum(axis=0) > 0).all()):
            raise ValueError(
                "weights must be finite, none of them negative, and not all of a sample 0; they are between "
                f"{values.min(initial=np.inf)} and {values.max(initial=-np.inf)}, the smallest sum is "
                f"{values.sum(axis=0).min(initial=np.inf)}"
            )
    return weights / xp.sum(weights, axis=0)
