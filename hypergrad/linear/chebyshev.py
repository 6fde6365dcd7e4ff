"""The Chebyshev semi-iteration: as fast as the bounds on the spectrum allow, without inner products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from ...backends._trees import leaves
from .._settings import require_count, require_number
from .._space import epsilon, resolved_tolerance
from ..solution import Solution, is_finite
from ._base import LinearSolver, System
from ._lanczos import extreme_eigenvalues
from ._relative import Relative, covector_norm, relative

Array = Any
Tree = Any

#: products between two looks at the residual
_CYCLE = 10


class _State(NamedTuple):
    """The iterate, its residual, Saad's d and ρ; the interval, the measure and the products since; norm, count, done.

    ρ = 0 says that the recurrence starts anew.
    """

    v: Tree
    r: Tree
    d: Tree
    rho: Array
    low: Array
    high: Array
    first: Array
    since: Array
    norm: Array
    k: Array
    done: Array


@dataclass(frozen=True)
class Chebyshev(LinearSolver):
    """The iterates whose residuals are T_k((θ - H)/δ) b / T_k(θ/δ) for eigenvalues of H = sharp∘B in [θ - δ, θ + δ].

    ‖r_k‖ ≤ 2 ((√κ - 1)/(√κ + 1))ᵏ ‖r_0‖ with κ = high / low: like CG, and the steps have no inner product to wait for;
    every tenth looks at the residual. Golub & Varga 1961; Saad 2003, alg. 12.1.

    `bounds` (low, high) of the eigenvalues; None: from ten Lanczos steps, ten products more. Where the residual falls
    behind the formula, some eigenvalue lies outside: the interval is widened by as much as the delay tells; where
    it grew, `high` is raised, from the last good iterate. An interval that is too wide only costs
    steps. `steps` and `tol` are as `terms` and `tol` of `Neumann`. With a preconditioner M the eigenvalues are those
    of M B. For positive self-adjoint operators; of another, `converged` is false.
    """

    steps: int | None = None
    bounds: tuple[float, float] | None = None
    tol: float | None = None

    def __post_init__(self) -> None:
        require_count(self, "steps", least=1)
        require_number(self, "tol", least=0)
        if self.bounds is None:
            return
        if not isinstance(self.bounds, tuple) or len(self.bounds) != 2:
            raise TypeError(f"Chebyshev: bounds must be a pair (low, high), not {self.bounds!r}")
        low, high = self.bounds
        if not all(isinstance(bound, Real) and not isinstance(bound, bool) for bound in (low, high)):
            raise TypeError(f"Chebyshev: bounds must be numbers, not {self.bounds!r}")
        if not 0 < low <= high < math.inf:
            raise ValueError(f"Chebyshev: bounds must be 0 < low <= high, not {self.bounds!r}")

    @property
    def needs_self_adjoint(self) -> bool:
        """True."""
        return True

    @property
    def has_tolerance(self) -> bool:
        """Where no number of steps was given, or a tolerance with it."""
        return self.steps is None or bool(self.tol)

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        space, xp = system.space, system.space.backend.xp
        scaled = relative(system, b, guess)
        size = covector_norm(system, scaled.b, system.raise_(scaled.b))
        goal = resolved_tolerance(leaves(b)[0], self.tol) * size
        enough = epsilon(size) ** 0.75 * size if self.tol is None else goal
        norm, (low, high) = covector_norm(system, scaled.r, system.raise_(scaled.r)), self._bounds(system, scaled, size)
        zero, done = xp.zeros_like(norm), xp.logical_or(norm <= goal, ~xp.isfinite(norm))
        d, k = space.zeros(scaled.start), space.counts(norm)
        first = _measure(system, scaled.r, norm)
        state = _State(scaled.start, scaled.r, d, zero, low, high, first, zero, norm, k, done)
        steps = 5000 if self.steps is None else self.steps
        rest = steps % _CYCLE
        if rest:
            state = _cycle(system, scaled.b, goal, enough, rest)(state)
        if steps > rest:
            state = space.backend.while_loop(
                lambda s: xp.logical_not(space.all(s[-1])),
                _cycle(system, scaled.b, goal, enough, _CYCLE),
                state,
                max_steps=steps // _CYCLE,
            )
        return scaled.solution(space, state.v, state.norm, state.k, state.norm <= enough)

    def _bounds(self, system: System, scaled: Relative, like: Array) -> tuple[Array, Array]:
        xp = system.space.backend.xp
        if self.bounds is None:
            low, high = extreme_eigenvalues(system, scaled.b)
        else:
            low, high = (xp.full_like(like, bound) for bound in self.bounds)
        return _interval(xp, low, high)


def _interval(xp: Any, low: Array, high: Array) -> tuple[Array, Array]:
    """A proper interval of positive numbers: neither a point nor touching 0."""
    high = xp.where(high > 0, high, xp.ones_like(high))
    return xp.minimum(xp.maximum(low, 10 * epsilon(high) * high), 0.9 * high), high


def _measure(system: System, r: Tree, norm: Array) -> Array:
    """The norm of r in which the formula for the residuals holds: that of the preconditioner, where there is one."""
    return norm if system.precondition is None else covector_norm(system, r, system.precondition(r))


def _cycle(system: System, b: Tree, goal: Array, enough: Array, products: int) -> Callable[[Any], Any]:
    """`products` steps, then the test."""
    space, backend, xp = system.space, system.space.backend, system.space.backend.xp
    lift = system.raise_ if system.precondition is None else system.precondition

    def run(state: Any) -> Any:
        old = _State(*state)
        theta, delta = 0.5 * (old.high + old.low), 0.5 * (old.high - old.low)

        def step(inner: Any) -> Any:
            v, r, d, rho = inner
            onward = 1 / (2 * theta / delta - rho)
            d = space.axpy(2 * onward / delta, lift(r), space.scale(onward * rho, d))
            v = space.add(v, d)
            return v, space.subtract(b, system.apply(v)), d, xp.where(rho == 0, 2 * onward, onward)

        v, r, d, rho = backend.repeat(step, (old.v, old.r, old.d, old.rho), steps=products)
        norm, since = covector_norm(system, r, system.raise_(r)), old.since + products
        ended = xp.logical_or(old.done, ~xp.logical_and(is_finite(space, v), xp.isfinite(norm)))
        ended = xp.logical_or(ended, xp.logical_and(old.norm <= enough, norm >= old.norm))
        measure = _measure(system, r, norm)
        grown = measure > old.first
        taken = ~xp.logical_or(ended, grown)
        below, above, late = _missed(xp, old, measure, since)
        late = xp.logical_and(late, taken)
        low = xp.where(late, below, old.low)
        low, high = _interval(xp, low, xp.where(grown, above, old.high + (old.low - low)))
        restarted = xp.logical_or(late, grown)
        zero = xp.zeros_like(rho)
        v, r = space.where(taken, v, old.v), space.where(taken, r, old.r)
        norm = xp.where(taken, norm, old.norm)
        return _State(
            v=v,
            r=r,
            d=space.where(restarted, space.zeros(d), d),
            rho=xp.where(restarted, zero, rho),
            low=low,
            high=high,
            first=xp.where(restarted, _measure(system, r, norm), old.first),
            since=xp.where(restarted, zero, since),
            norm=norm,
            k=old.k + products * xp.astype(~old.done, old.k.dtype),
            done=xp.logical_or(ended, norm <= goal),
        )

    return run


def _missed(xp: Any, state: _State, measure: Array, since: Array) -> tuple[Array, Array, Array]:
    """The eigenvalues below and above the interval that explain the residual, with a margin; whether it is late.

    In the interval |T_k((θ - h)/δ)| ≤ 1, so that ‖r_k‖ ≤ ‖r_0‖ / T_k(θ/δ). A residual x times that comes from an h with
    |T_k((θ - h)/δ)| = x, that is h = θ ± δ cosh(arcosh(x)/k), where θ = δ cosh(a). As long as the residual shrinks,
    widening the interval at both ends meets either; a residual that grows comes from an h above 2θ.
    """
    theta, delta = 0.5 * (state.high + state.low), 0.5 * (state.high - state.low)
    a = 2 * xp.atanh(xp.sqrt(state.low / state.high))
    ka = since * a
    ratio = measure / xp.where(state.first > 0, state.first, xp.ones_like(measure))
    seen = xp.logical_and(ratio > 0, xp.isfinite(ratio))
    log_x = xp.log(xp.where(seen, ratio, xp.ones_like(ratio))) + ka + xp.log1p(xp.exp(-2 * ka)) - math.log(2)
    late = xp.logical_and(log_x > math.log(4), seen)
    log_x = xp.where(late, log_x, xp.ones_like(log_x))
    t = (log_x + xp.log1p(xp.sqrt(1 - xp.exp(-2 * log_x)))) / since
    below = 0.8 * 2 * delta * xp.sinh(0.5 * (a + t)) * xp.sinh(0.5 * (a - t))
    return below, 1.1 * xp.maximum(theta + delta * xp.cosh(t), state.high), late
