"""The derivative without second derivatives: the value function of a tilted lower level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from ...backends import Backend, NoDerivativeError
from .._implicit_rule import opened
from .._settings import require_number
from .._space import Space, epsilon
from ..level import Argmin, Level
from ..solution import Solution
from ..solvers import Solver
from ..solvers._base import first_leaf, point_norm
from ._base import Estimator, Pull
from ._forward import moving_part

Array = Any
Tree = Any

_NO_SECOND = (
    "FirstOrder gives first derivatives only (on PyTorch by reverse mode only): what they are made of is cut off. Use "
    "Implicit() or OneStep(linear=...) for derivatives of every order"
)


class Tilted(NamedTuple):
    """Minimizers of g + above ⟨c, ·⟩ and g - below ⟨c, ·⟩, 1/(above + below), and how well they were found."""

    plus: Tree
    minus: Tree
    above: Array
    below: Array
    inverse: Array
    solved: Solution


@dataclass(frozen=True)
class FirstOrder(Estimator):
    """The derivative of the value function: with c the cotangent of y, y± = argmin g(x, y) ± ⟨c, y⟩/penalty, from y*,

        x̄ = penalty/2 (∂ₓg(x, y₊) - ∂ₓg(x, y₋)),

    and penalty (∂ₓg(x, y₊) - ∂ₓg(x, y*)) with `central=False`: F²SA of Kwon et al. 2023, of Dutta, Cheng & Sra 2024 on
    manifolds. Only first derivatives of g are evaluated, if the solver, which makes y± too, needs no others:
    `GradientDescent()` is the default with this estimator; `TrustRegion()` uses Hessian products. For an `Argmin`.

    The error is O(1/penalty²), one-sided O(1/penalty), and the solver's error in y± times the penalty. Hence:
    give the solver a tight tolerance, and a lower penalty where it has a loose one.

    penalty : by default as much as moves y by h times its size (or its distance from `init`, if larger), which a first
        tilted solve measures: no unit is left. h = η^(1/3), one-sided η^(1/2), balances truncation, h² or h, and a
        relative error η = eps^(3/4) of y±, the solvers' default tolerance: 1e-4 in float64 and errors about 1e-8
        relative. The tilt is never so small that the solver's tolerance, η |g|, would hide more than h of it.
    central : both tilts, for one more solve.

    Forward-mode derivatives tilt by a finite difference of ∂_y g along ẋ instead of c; PyTorch, where forward mode is
    made of reverse mode twice, refuses them. Derivatives of derivatives raise `NoDerivativeError`. `hypergradient`
    reports as `adjoint` the secant (y₋ - y₊) penalty/2 ≈ H⁻¹ c, with the residual of the tilted solves times the
    penalty, and their steps; a certificate takes Hessian products, `certify=False` goes without.
    """

    penalty: float | None = None
    central: bool = True

    def __post_init__(self) -> None:
        require_number(self, "penalty", above=0)
        if not isinstance(self.central, bool):
            raise TypeError(f"FirstOrder: central must be True or False, not {self.central!r}")

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`. Raises `TypeError` for a level that is not an `Argmin`."""
        level, init = _require_argmin(level), backend.stop_gradient(init)
        level_at, captured = opened(backend, level, outer, init)
        parameters = (captured, outer)

        def at(p: Tree) -> tuple[Argmin, tuple[Tree, ...]]:
            return _require_argmin(level_at(p[0])), p[1]

        plain = backend.stop_gradient(parameters)
        with backend.constants():
            found = solver.solve(backend, *at(plain), init, space)
            found = Solution(*backend.stop_gradient(tuple(found)))

        def back(p: Tree, y: Tree, init: Tree, c: Tree) -> Tree:
            with backend.constants():
                p, y, init, c = backend.stop_gradient((p, y, init, c))
                tilted = self._tilt(backend, *at(p), solver, y, init, c, space)
                return _difference(backend, at, p, y, c, tilted, space)

        def along(p: Tree, y: Tree, init: Tree, dot: Tree) -> Tree:
            with backend.constants():
                p, y, init, dot = backend.stop_gradient((p, y, init, dot))
                r, drift = _directional(backend, at, p, y, dot)
                tilted = self._tilt(backend, *at(p), solver, y, init, r, space)
                return space.add(_secant(*at(p), tilted, y, space, -1.0), drift)

        # what may depend on anything, and refuses to be differentiated
        back, along = (backend.custom_derivative(f, _refuse, _refuse) for f in (back, along))

        def pushforward(primals: tuple, y: Tree, tangents: tuple) -> Tree:
            return along(primals[0], y, primals[2], tangents[0])

        def pullback(primals: tuple, y: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
            return back(primals[0], y, primals[2], cotangent), None, None

        rule = backend.custom_derivative(lambda p, y, init: y, pushforward, pullback)
        return found._replace(value=rule(parameters, found.value, init))

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        level = _require_argmin(level)
        found = solver.solve(backend, level, outer, init, space)
        y = found.value

        def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], Solution]:
            tilted = self._tilt(backend, level, outer, solver, y, init, cotangent, space)
            back = _difference(backend, lambda p: (level, p), outer, y, cotangent, tilted, space)
            secant = _secant(level, outer, tilted, y, space, 1.0)
            return back, tilted.solved._replace(value=secant)

        return found, pull

    def _tilt(
        self,
        backend: Backend,
        level: Argmin,
        outer: tuple[Tree, ...],
        solver: Solver,
        y: Tree,
        init: Tree,
        c: Tree,
        space: Space,
    ) -> Tilted:
        """The tilted minimizers. All arguments are constants."""
        if not backend.split(level.manifold)[0]:
            c = level.manifold.project(y, c)

        def minimizer(tilt: Array) -> Solution:
            def cost(*args: Tree) -> Array:
                return level.cost(*args) + tilt * space.dot(space.subtract(args[-1], y), c)

            return solver.solve(backend, level.with_function(cost), outer, y, space)

        if self.penalty is None:
            tilt = self._default_tilt(backend, level, outer, y, init, c, space, minimizer)
        else:
            tilt = space.full(1.0 / self.penalty, space.dot(c, c))
        plus = minimizer(tilt)
        if self.central:
            minus, xp = minimizer(-tilt), backend.xp
            residual, steps = xp.maximum(plus.residual, minus.residual), plus.steps + minus.steps
            solved = Solution(None, residual, steps, xp.logical_and(plus.converged, minus.converged))
        else:
            minus, solved = plus._replace(value=y), plus._replace(value=None)
        below = tilt if self.central else 0 * tilt
        solved = solved._replace(residual=space.ratio(solved.residual, tilt))
        return Tilted(plus.value, minus.value, tilt, below, space.ratio(0 * tilt + 1, tilt + below), solved)

    def _default_tilt(
        self,
        backend: Backend,
        level: Argmin,
        outer: tuple[Tree, ...],
        y: Tree,
        init: Tree,
        c: Tree,
        space: Space,
        minimizer: Callable[[Array], Solution],
    ) -> Array:
        """The ε for which y± is about h |y| from y*; see the class.

        The curvature along u = sharp(c), a difference of gradients, gives an ε₀ that moves y by h |y| or more, for
        ‖H⁻¹c‖ ≥ ‖c‖³/⟨c, H c⟩; from how far it does, ε is scaled down.
        """
        manifold, xp = level.manifold, backend.xp
        error = epsilon(first_leaf(y)) ** 0.75
        h = error ** (1 / 3 if self.central else 1 / 2)
        w = manifold.project(y, c)
        u = manifold.sharp(y, w)
        squared, size = xp.abs(space.dot(w, u)), point_norm(space, u)
        length = xp.maximum(point_norm(space, y), point_norm(space, space.subtract(y, init)))
        length = xp.where(length > 0, length, size)
        s = space.ratio(h * length, size)
        there = manifold.retract(y, space.scale(-s, u))
        value, before = level.value_and_residual(backend, outer, y)
        after = level.residual(backend, outer, there)
        change = space.dot(before, u) - space.dot(after, manifold.transport(y, there, u))
        least = space.ratio(error / h * xp.abs(value), xp.sqrt(squared))
        first = xp.maximum(space.ratio(xp.abs(change), squared), least)
        moved = point_norm(space, space.subtract(minimizer(first).value, y))
        far = moved > h * length
        return xp.maximum(xp.where(far, first * space.ratio(h * length, moved), first), least)


def _difference(
    backend: Backend,
    at: Callable[[Tree], tuple[Argmin, tuple[Tree, ...]]],
    p: Tree,
    y: Tree,
    c: Tree,
    tilted: Tilted,
    space: Space,
) -> Tree:
    """The derivative in p of (g₊(p, y₊) - g₋(p, y₋))/(above + below), g± tilted; y± follow a manifold that moves."""

    def difference(p: Tree) -> Array:
        level, outer = at(p)
        manifold, plus, minus = level.manifold, tilted.plus, tilted.minus
        moving = bool(backend.split(manifold)[0])
        if moving:
            plus, minus = (manifold.retract(z, manifold.zero_tangent(z)) for z in (plus, minus))
        value = level.cost(*outer, plus) - level.cost(*outer, minus)
        if not moving:
            return value
        above, below = (space.dot(space.subtract(z, y), c) for z in (plus, minus))
        return value + tilted.above * above + tilted.below * below

    _, pull = backend.vjp(difference, p)
    return pull(tilted.inverse)[0]


def _secant(level: Argmin, outer: tuple[Tree, ...], tilted: Tilted, y: Tree, space: Space, sign: float) -> Tree:
    """H⁻¹ c ≈ (y₋ - y₊)/(above + below), tangent, times `sign`."""
    chord = space.subtract(tilted.minus, tilted.plus)
    return level.manifold.project(y, space.scale(sign * tilted.inverse, chord))


def _directional(
    backend: Backend, at: Callable[[Tree], tuple[Argmin, tuple[Tree, ...]]], p: Tree, y: Tree, dot: Tree
) -> tuple[Tree, Tree]:
    """The derivative along ṗ of P ∂_y g at y, and that of y where the manifold moves, by central differences.

    The step is eps^(1/3) of the size of that leaf which moves the fastest for its size.
    """
    xp = backend.xp
    arrays, fill = moving_part(backend, p)
    dots = moving_part(backend, dot)[0]
    space = Space(backend)
    rate = None
    for a, d in zip(arrays, dots, strict=True):
        size, speed = point_norm(space, a), point_norm(space, d)
        own = xp.where(size > 0, space.ratio(speed, size), speed)
        rate = own if rate is None else xp.maximum(rate, own)
    assert rate is not None
    k = space.ratio(0 * rate + epsilon(rate) ** (1 / 3), rate)

    def equation(step: Array) -> tuple[Tree, Tree]:
        level, outer = at(fill([a + step * d for a, d in zip(arrays, dots, strict=True)]))
        manifold, there = level.manifold, y
        if backend.split(manifold)[0]:
            there = manifold.retract(y, manifold.zero_tangent(y))
        return manifold.project(there, level.residual(backend, outer, there)), there

    ahead, behind = equation(k), equation(-k)
    scale = space.ratio(0 * k + 0.5, k)
    moved, drift = (space.scale(scale, space.subtract(a, b)) for a, b in zip(ahead, behind, strict=True))
    return moved, drift


def _refuse(*_: Any) -> NoReturn:
    raise NoDerivativeError(_NO_SECOND)


def _require_argmin(level: Level) -> Argmin:
    if not isinstance(level, Argmin):
        raise TypeError(
            f"FirstOrder tilts a cost; a {type(level).__name__} has none: use Implicit(), or OneStep() for a FixedPoint"
        )
    return level
