"""What a hypergradient says of its own error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backends import Backend, namespace
from ..backends._trees import leaves, tree_map
from ..manifolds import Manifold
from ._adjoint import Linearized, linearized
from ._space import Space, epsilon
from ._spectrum import spectrum, unknown
from .level import Argmin, Level
from .linear import CG, GMRES, LinearSolver, System
from .nested import Bilevel

Array = Any
Tree = Any


class Certificate(NamedTuple):
    """An estimate of the error of a hypergradient, what it comes from, and the hypergradient without most of it.

    Let h be the hypergradient at the lower answer y with the adjoint v, h(y) the one at y with the adjoint solved, and
    y⁺ = R_y(-H⁻¹ grad) one Newton step further, where the adjoint is solved again. Norms are those of the outer
    manifold at x. The first four have the shape of the upper cost, the others that of the lower one.

    error : 2 ‖h(y⁺) - h‖, and what rounding and the linear solve here leave · inner_error : 2 ‖h(y⁺) - h(y)‖, the part
    of the lower level's answer · linear_error : 2 ‖h(y) - h‖, the part of the linear solve, or of what an estimator
    without one has in its place · size : ‖h‖, or a hundredth of ‖direct part‖ + ‖implicit part‖ where these cancel to
    less: what an error is small against · inner_residual, linear_residual : of level and adjoint equation ·
    condition : of the Hessian in the metric (of A otherwise), at least · lowest, highest : eigenvalues of the Hessian,
    from ten Lanczos steps; NaN for maps and fields · contraction : of a map, the spectral radius of its derivative,
    estimated; NaN otherwise · negative_curvature : whether some curvature of the lower cost is not positive: then the
    answer is no isolated minimum, and no estimate here means anything.

    value : f(x, y) - ⟨F, v⟩, F the lower level's residual: its error is of second order in that of y · gradient,
    covector : h(y⁺), whose error is of second order too, down to about 1e-4 of the error of h · point, adjoint : y⁺ and
    the adjoint there, good starts for what follows.

    An estimate, no bound: it trusts that y lies where Newton's method converges.

    Of a `Nested` problem it is that of the root which `Flattened` makes of all lower levels: y is the tuple of their
    answers, `adjoint` that of the root's unknowns, and curvatures are not looked at.
    """

    error: Array
    inner_error: Array
    linear_error: Array
    size: Array
    inner_residual: Array
    linear_residual: Array
    condition: Array
    lowest: Array
    highest: Array
    contraction: Array
    negative_curvature: Array
    value: Array
    gradient: Tree
    covector: Tree
    point: Tree
    adjoint: Tree


@dataclass(frozen=True)
class Parts:
    """A hypergradient before it is put together: the upper cost's value, its two derivatives, and the adjoint.

    `adjoint` is None for an estimator without one.
    """

    value: Array
    direct: Tree
    cotangent: Tree
    covector: Tree
    adjoint: Tree | None


@dataclass(frozen=True)
class Effort:
    """How much a certificate takes upon itself: a second order of accuracy of y⁺ and h(y⁺), and the spectrum."""

    second_order: bool = True
    spectrum: bool = True


def certificate_of(
    backend: Backend, problem: Bilevel, x: Tree, y: Tree, space: Space, at: Linearized, parts: Parts, effort: Effort
) -> Certificate:
    """The certificate of the hypergradient `parts` at (x, y), the lower level being linearized `at` y."""
    level, over = problem.lower, problem.manifold
    manifold, upper, xp = level.manifold, Space(backend, tuple(parts.value.shape)), backend.xp
    short = _Short(space, linear=CG(tol=0, atol=1.0) if isinstance(level, Argmin) else GMRES(tol=0, atol=1.0))

    def norm(covector: Tree) -> Array:
        return _measured(upper, covector, lambda w: upper.dot(w, over.sharp(x, w)))

    def apart(a: Tree, b: Tree) -> Array:
        return norm(upper.subtract(a, b))

    # the adjoint at y, solved further
    b = manifold.project(y, parts.cotangent)
    b_norm = short.norm(at.system, at.system.enter(b))
    floor = 100 * epsilon(b_norm) * b_norm
    known = spectrum(level, space, at, y, b) if effort.spectrum else unknown(b_norm)
    loose = _loose(xp, known.condition)
    left = short.residual(at.system, b, parts.adjoint)
    left_norm = short.norm(at.system, left)
    limit = floor if parts.adjoint is None else xp.maximum(floor, loose * left_norm)
    more = short.solve(at.system, left, limit)
    v = more if parts.adjoint is None else space.add(parts.adjoint, more)
    (through,) = at.pull(v)
    refined = over.project(x, upper.add(parts.direct, through))
    parts_size = norm(over.project(x, parts.direct)) + norm(over.project(x, through))
    relative = space.ratio(xp.minimum(left_norm, limit), b_norm)
    unsolved = _together(upper, relative) * norm(over.project(x, through))

    # a Newton step, and the adjoint there
    step, forcing = _newton(short, level, at, y, loose, effort.second_order)
    there = manifold.retract(y, step)
    new = linearized(backend, level, (x,), there, space)
    value, pull_upper = backend.vjp(problem.upper, x, there)
    direct, cotangent = pull_upper(namespace(value).ones_like(value))
    carried = manifold.transport(y, there, v)
    change = short.residual(new.system, manifold.project(there, cotangent), carried)
    limit = xp.maximum(0.1 * floor, forcing * short.norm(new.system, change))
    v_there = space.add(carried, short.solve(new.system, change, limit))
    covector = over.project(x, upper.add(direct, new.pull(v_there)[0]))

    rounding = 10 * epsilon(unsolved) * parts_size
    return Certificate(
        error=2 * apart(covector, parts.covector) + unsolved + rounding,
        inner_error=2 * apart(covector, refined) + rounding,
        linear_error=2 * apart(refined, parts.covector) + unsolved,
        size=xp.maximum(norm(parts.covector), 0.01 * parts_size),
        inner_residual=short.norm(at.forward, at.forward.enter(at.residual)),
        linear_residual=left_norm,
        **known._asdict(),
        value=_corrected_value(upper, parts.value, value, at.residual, v),
        gradient=over.sharp(x, covector),
        covector=covector,
        point=there,
        adjoint=v_there,
    )


def _loose(xp: Any, condition: Array) -> Array:
    """The relative residual to which the solves go at least: small enough that the soft directions take part."""
    hard = condition > 100  # not where it is unknown
    root = xp.sqrt(xp.where(hard, xp.minimum(condition, xp.full_like(condition, 1e5)), xp.full_like(condition, 100.0)))
    return 0.3 / root


@dataclass(frozen=True)
class _Short:
    """Solves of a few digits, in the coordinates of their systems; limits are numbers of batch shape."""

    space: Space
    linear: LinearSolver

    def norm(self, system: System, w: Tree) -> Array:
        """Of a covector in the system's coordinates."""
        return _measured(self.space, w, lambda w: self.space.dot(w, system.raise_(w)))

    def residual(self, system: System, b: Tree, v: Tree | None) -> Tree:
        """`b - A v`, in the system's coordinates."""
        w = system.enter(b)
        return w if v is None else self.space.subtract(w, system.apply(system.enter_guess(v)))

    def solve(self, system: System, w: Tree, limit: Array) -> Tree:
        """The tangent vector v with ‖w - A v‖ ≤ limit. Scaled, so that the limit is one number for all problems."""
        space = self.space
        unit = space.scale(space.ratio(space.backend.xp.ones_like(limit), limit), w)
        return system.leave(space.scale(limit, self.linear.solve(system, unit).value))


def _newton(
    short: _Short, level: Level, at: Linearized, y: Tree, loose: Array, second_order: bool
) -> tuple[Tree, Array]:
    """-A⁻¹F, and the relative residual to which it was solved.

    The longer the step, the looser: what the step misses is then of second order in its length, like what Newton's
    method misses.
    """
    space, system, manifold = short.space, at.forward, level.manifold
    xp = space.backend.xp
    w = system.enter(at.residual)
    size = short.norm(system, w)
    rough = short.solve(system, w, loose * size)
    if not second_order:
        return tree_map(lambda a: -a, rough), loose
    length = space.ratio(_length(space, manifold, y, rough), _length(space, manifold, y, y))
    eps = epsilon(length)
    least = xp.maximum(0.3 * length, xp.full_like(length, 1e-4))
    at_rounding = space.ratio(xp.full_like(length, eps**0.75), length)
    forcing = xp.minimum(loose, xp.maximum(least, at_rounding))
    left = short.residual(system, at.residual, rough)
    step = space.add(rough, short.solve(system, left, forcing * size))
    return tree_map(lambda a: -a, step), forcing


def _length(space: Space, manifold: Manifold, y: Tree, u: Tree) -> Array:
    """‖u‖ at y, of the batch shape."""

    def square(u: Tree) -> Array:
        xp, squared = space.backend.xp, manifold.inner(y, u, u)
        return xp.sum(squared, axis=tuple(range(space.ndim, squared.ndim))) if squared.ndim > space.ndim else squared

    return _measured(space, u, square)


def _measured(space: Space, v: Tree, square: Callable[[Tree], Array]) -> Array:
    """√|square(v)|, v in its own unit: squares of what is below 1e-154 are 0 in float64."""
    unit, xp = space.unit(v), space.backend.xp
    return unit * xp.sqrt(xp.abs(square(space.divide(v, unit))))


def _together(upper: Space, number: Array) -> Array:
    """The sum of a lower level's numbers over the problems that one upper cost has."""
    xp, n = upper.backend.xp, upper.ndim
    if tuple(number.shape[:n]) != upper.batch:
        return xp.sum(number)
    return xp.sum(number, axis=tuple(range(n, number.ndim))) if number.ndim > n else number


def _corrected_value(upper: Space, value: Array, value_there: Array, residual: Tree, v: Tree) -> Array:
    """`value - ⟨residual, v⟩`; where one lower problem serves several upper ones, their values at y⁺ instead."""
    if any(tuple(a.shape[: upper.ndim]) != upper.batch for a in leaves(v)):
        return value_there
    return value - upper.dot(residual, v)
