"""The one rule: the derivative of a solution map by the implicit function theorem, on a manifold, to any order.

Let F(θ, y) = 0 at y = y*(θ), P the projector onto the tangent space at y, and A = P D P + (I - P), D the derivative
of F with respect to y (`level.operator`). Then

    ẏ = -A⁻¹ P ∂_θF θ̇          θ̄ = -∂_θ⟨F(θ, y), λ⟩ with λ = A⁻ᵀ P ȳ.

Both are made of differentiable operations; the inverse is `Backend.linear_solve`, whose own derivative is another
such solve with A differentiated, projectors included: hence every order. θ are the outer variables, the arrays
that the user's function captured, and the array parameters of the manifold.

Where the manifold has such parameters, it may move with them, and y must follow: with N_θ(y) = retract(y, 0) on the
manifold of θ, the identity at θ itself, P F is differentiated at N_θ(y), and ∂_θN_θ(y) θ̇ is added to ẏ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends import Backend
from ..backends._base import mirrored, swapped, transposed
from ..backends._trees import tree_map
from ._causes import cause_of
from ._known import hoisted_known
from ._space import Space
from ._system import solve_system, tangent_system
from ._traps import warn_if_independent
from .level import Argmin, FixedPoint, Level, Root, completed
from .linear import LinearSolver
from .solution import Solution, warn_unless_converged
from .solvers import External, GaussNewton, Solver

Tree = Any
#: captured arrays -> the level that has them in their places
LevelAt = Callable[[Tree], Level]


def opened(backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree) -> tuple[LevelAt, Tree]:
    """`level_at, captured`: a level as a function of the arrays in it, those that its function captured and the
    parameters of its manifold; `level_at(captured)` is the level. Calls the level's function once.
    """
    hoisted, found = backend.hoist(level.function, *outer, init)
    inside = backend.in_hoisted()
    parameters, manifold = backend.split(level.manifold)
    attach, known = hoisted_known(backend, level, outer, init)

    def level_at(captured: Tree) -> Level:
        found, parameters, known = captured
        result = level.with_function(lambda *args: hoisted(found, *args)) if found or inside else level
        return attach(result.with_manifold(manifold.fill(parameters)) if parameters else result, known)

    return level_at, (tuple(found), tuple(parameters), known)


def constant_solution(
    backend: Backend,
    level_at: LevelAt,
    solver: Solver,
    space: Space,
    captured: Tree,
    outer: tuple[Tree, ...],
    init: Tree,
) -> Solution:
    """What `solver` makes of the level at these arrays: constants of every derivative.

    Under `torch.vmap` it sees all problems as a batch, one after the other if it is a black box or needs to see more of
    the level than its function.
    """

    def run(captured: Tree, outer: tuple[Tree, ...], init: Tree) -> Tree:
        with backend.constants():
            found = solver.solve(backend, level_at(captured), outer, init, space)
            return backend.stop_gradient(tuple(found))

    def mapped(size: int, over: Any, captured: Tree, outer: tuple[Tree, ...], init: Tree) -> Tree:
        inputs = backend.stop_gradient((captured, outer, init))
        found = constant_solution(backend, _over(level_at, over), solver, _wider(space, size), *inputs)
        return tuple(found)

    inputs = backend.stop_gradient((captured, outer, init))
    several = _maps(level_at, captured) and not isinstance(solver, (External, GaussNewton))
    return Solution(*backend.opaque(run, *inputs, mapped=mapped if several else None))


def _maps(level_at: LevelAt, captured: Tree) -> bool:
    """Whether a batch of such levels is such a level: not where the manifold has arrays of its own."""
    return not captured[1] and isinstance(level_at(captured), (Argmin, FixedPoint, Root))


def _over(level_at: LevelAt, over: Callable[..., Any]) -> LevelAt:
    """The level of many problems along a first axis of all arrays."""

    def mapped(captured: Tree) -> Level:
        function = over(lambda captured, *args: level_at(captured).function(*args))
        return level_at(captured).with_function(lambda *args: function(captured, *args))

    return mapped


def _wider(space: Space, size: int) -> Space:
    return Space(space.backend, (size, *space.batch))


def implicit_solution(
    backend: Backend, level_at: LevelAt, linear: LinearSolver, space: Space, parameters: Tree, y: Tree
) -> Tree:
    """`y`, a constant, as a differentiable function of `parameters` = (captured arrays, outer variables)."""
    moving, maps = bool(parameters[0][1]), _maps(level_at, parameters[0])
    make, at, several = _linear_problem(backend, level_at, linear, space)

    def equation(y: Tree) -> Callable[[Tree], tuple[Tree, Tree]]:
        """(captured, outer) ↦ F at y, and y; both where the manifold has moved to."""

        def at(p: Tree) -> tuple[Tree, Tree]:
            captured, outer = p
            level = level_at(captured)
            if not moving:
                return level.residual(backend, outer, y), y
            manifold = level.manifold
            there = manifold.retract(y, manifold.zero_tangent(y))
            return manifold.project(there, level.residual(backend, outer, there)), there

        return at

    def pushforward(primals: tuple, y: Tree, tangents: tuple) -> Tree:
        captured, outer = primals[0]
        _, (moved, drift) = backend.jvp(equation(y), (primals[0],), (tangents[0],))
        p = (captured, outer, y)
        right = tree_map(lambda a: -a, level_at(captured).manifold.project(y, moved))
        tangent = backend.linear_solve(make, p, right, *at(p), at=at, mapped=several if maps else None)
        return tree_map(lambda a, b: a + b, tangent, drift) if moving else tangent

    def pullback(primals: tuple, y: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
        captured, outer = primals[0]
        p = (captured, outer, y)
        b = level_at(captured).manifold.project(y, cotangent)
        back, mapped = swapped(at), mirrored(several if maps else None)
        adjoint = backend.linear_solve(transposed(make), p, b, *back(p), at=back, mapped=mapped)
        _, pull = backend.vjp(equation(y), primals[0])
        direct = cotangent if moving else tree_map(lambda a: 0 * a, cotangent)
        found = pull((tree_map(lambda a: -a, adjoint), direct))[0]
        warn_if_independent(backend, level_at, primals[0], y, adjoint, found)
        return found, None

    def mapped(size: int, over: Any, parameters: Tree, y: Tree) -> Tree:
        return implicit_solution(backend, _over(level_at, over), linear, _wider(space, size), parameters, y)

    rule = backend.custom_derivative(
        lambda _, y: y, pushforward, pullback, transposable=not moving, mapped=mapped if maps else None
    )
    return rule(parameters, y)


def _linear_problem(backend: Backend, level_at: LevelAt, linear: LinearSolver, space: Space) -> tuple[Any, Any, Any]:
    """The linear systems of a level as `Backend.linear_solve` takes them, `make, at, mapped`."""

    def make(p: Tree) -> Any:
        captured, outer, y = p
        return completed(level_at(captured), backend, outer, y)

    def solver(p: Tree, transpose: bool) -> Callable[[Any, Tree], Tree]:
        captured, outer, y = backend.stop_gradient(p)
        level = level_at(captured)

        def solve(_: Any, b: Tree) -> Tree:
            system = tangent_system(backend, level, outer, y, space, transpose=transpose)
            tangent = level.manifold.project(y, b)
            answer = solve_system(linear, system, tangent)
            if linear.has_tolerance:
                what = f"the linear solve of a derivative ({linear})"
                warn_unless_converged(backend, answer, what, lambda: cause_of(backend, level, outer, y, space))
            return tree_map(lambda v, a, c: v + (a - c), answer.value, b, tangent)

        return solve

    def at(p: Tree) -> tuple[Any, Any]:
        return solver(p, False), solver(p, True)

    def mapped(size: int, over: Any) -> tuple[Any, Any, Any]:
        return _linear_problem(backend, _over(level_at, over), linear, _wider(space, size))

    return make, at, mapped
