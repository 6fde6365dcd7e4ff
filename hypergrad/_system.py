"""The linear system of a level at a point, as linear solvers take it."""

from __future__ import annotations

from typing import Any

from ..backends import Backend, NoDerivativeError
from ..backends._trees import leaves
from ..manifolds import Congruence
from ..manifolds._flat import is_linear_space
from ._known import check_known, known_of
from ._space import Space, epsilon
from .level import Apply, Argmin, FixedPoint, Level, Record, derivative
from .linear import LinearSolver, System
from .linear._base import unchanged
from .linear._relative import covector_norm
from .solution import Solution

Tree = Any


def tangent_system(
    backend: Backend,
    level: Level,
    outer: tuple[Tree, ...],
    y: Tree,
    space: Space,
    *,
    transpose: bool = False,
    record: Record | None = None,
) -> System:
    """P D P at y, or its transpose, with the metric where D is a symmetric form; all arguments are constants.

    Where the backend can fold the form into a few matrix products, it is written in coordinates in which the metric
    is the dot product. What the level's user knows is used, and compared with autodiff once. `record`: see
    `Level.operator`.
    """
    manifold, known = level.manifold, known_of(level)
    check_known(backend, level, outer, y, answer=False)
    if not isinstance(level, Argmin):
        forward, backward = level.operator(backend, outer, y, record)
        apply, other = (backward, forward) if transpose else (forward, backward)
        return System(
            space=space,
            apply=lambda v: manifold.project(y, apply(v)),
            transpose=lambda v: manifold.project(y, other(v)),
            raise_=unchanged,
            project=lambda v: manifold.project(y, v),
            self_adjoint=level.self_adjoint,
            contraction=isinstance(level, FixedPoint),
            precondition=_preconditioner(backend, level, known.preconditioner, outer, y, transpose),
        )
    forward = (
        level.operator(backend, outer, y, record)[0]
        if known.hessian is None
        else _recorded(backend, known.hessian, level, outer, y)
    )
    inverse, preconditioner = (_at(f, level, outer, y) for f in known[1:])
    if isinstance(manifold, Congruence) and not space.ndim:
        l = manifold.factor(y)
        folded = backend.symmetric_products(forward, l)
        if folded is not None:
            return _in_coordinates(backend, folded, l, space, inverse, preconditioner)

    def form(v: Tree) -> Tree:
        return manifold.project(y, forward(v))

    def raise_(w: Tree) -> Tree:
        return manifold.sharp(y, w)

    return System(
        space=space,
        apply=form,
        transpose=form,
        raise_=raise_,
        project=lambda v: manifold.project(y, v),
        self_adjoint=True,
        precondition=_after(preconditioner, raise_),
        inverse=_after(inverse, raise_),
    )


def _at(function: Any, level: Level, outer: tuple[Tree, ...], y: Tree) -> Apply | None:
    """A known operator at y, on tangent vectors."""
    return None if function is None else lambda u: level.manifold.project(y, function(*outer, y, u))


def _recorded(backend: Backend, hessian: Any, level: Level, outer: tuple[Tree, ...], y: Tree) -> Apply:
    """The form of a Riemannian Hessian, linear in u: what does not depend on u is computed once.

    It is symmetric, so its transpose serves. One that autodiff cannot pass is called for every product.
    """

    def form(u: Tree) -> Tree:
        found = hessian(*outer, y, u)
        return found if is_linear_space(level.manifold) else level.manifold.flat(y, found)

    try:
        return backend.vjp_each(form, level.manifold.zero_tangent(y))[1][0]
    except (NoDerivativeError, TypeError):
        return form


def _after(operator: Apply | None, first: Apply) -> Apply | None:
    return None if operator is None else lambda v: operator(first(v))


def _preconditioner(
    backend: Backend, level: Level, function: Any, outer: tuple[Tree, ...], y: Tree, transpose: bool
) -> Apply | None:
    """The preconditioner of a map or field, or its transpose."""
    apply = _at(function, level, outer, y)
    if apply is None or not transpose:
        return apply
    backward = derivative(backend, apply, level.manifold.zero_tangent(y))[1]
    return lambda w: level.manifold.project(y, backward(w))


def _in_coordinates(
    backend: Backend, folded: Apply, l: Any, space: Space, inverse: Apply | None, preconditioner: Apply | None
) -> System:
    """The system of a folded form, in the coordinates v of the tangent vectors l v lᵀ."""

    def leave(v: Tree) -> Tree:
        return l @ v @ l.mT

    def inside(operator: Apply | None) -> Apply | None:
        return None if operator is None else lambda v: coordinates(operator(leave(v)))

    def symmetric(v: Tree) -> Tree:
        return 0.5 * (v + v.mT)

    def coordinates(u: Tree) -> Tree:
        inverse = backend.xp.linalg.inv(l)
        return inverse @ u @ inverse.mT

    return System(
        space=space,
        apply=folded,
        transpose=folded,
        raise_=unchanged,
        project=symmetric,
        self_adjoint=True,
        enter=lambda w: symmetric(l.mT @ w @ l),
        enter_guess=coordinates,
        leave=leave,
        precondition=inside(preconditioner),
        inverse=inside(inverse),
    )


def solve_system(linear: LinearSolver, system: System, b: Tree, guess: Tree | None = None) -> Solution:
    """The solution, a tangent vector, for the projected covector `b`; a known inverse needs no `guess`."""
    if system.inverse is None:
        found = linear.solve(system, system.enter(b), None if guess is None else system.enter_guess(guess))
    else:
        found = _inverted(linear, system, system.inverse, system.enter(b))
    return found._replace(value=system.leave(found.value))


def _inverted(linear: LinearSolver, system: System, inverse: Apply, b: Tree) -> Solution:
    """The known inverse, once, and `linear` from there only where its relative residual is above eps^(3/4)."""
    space, xp = system.space, system.space.backend.xp
    unit = space.unit(b)  # squares of what is below 1e-154 are 0 in float64

    def relative_norm(w: Tree) -> Any:
        w = space.divide(w, unit)
        return covector_norm(system, w, system.raise_(w))

    v = inverse(b)
    off = relative_norm(space.subtract(b, system.apply(v)))
    small = off <= epsilon(leaves(b)[0]) ** 0.75 * relative_norm(b)
    found = (v, unit * off, space.counts(off) + 1, small)

    def refine(found: Any) -> Any:
        better = linear.solve(system, b, found[0])
        return better.value, better.residual, found[2] + xp.astype(better.steps, found[2].dtype), better.converged

    return Solution(*space.backend.while_loop(lambda s: xp.logical_not(space.all(s[3])), refine, found, max_steps=1))
