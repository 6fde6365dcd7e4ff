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
from ..backends._base import transposed
from ..backends._trees import tree_map
from ._space import Space
from ._system import solve_system, tangent_system
from .level import Level, completed
from .linear import LinearSolver
from .solution import warn_unless_converged

Tree = Any
#: captured arrays -> the level that has them in their places
LevelAt = Callable[[Tree], Level]


def opened(backend: Backend, level: Level, outer: tuple[Tree, ...], init: Tree) -> tuple[LevelAt, Tree]:
    """`level_at, captured`: a level as a function of the arrays in it, those that its function captured and the
    parameters of its manifold; `level_at(captured)` is the level. Calls the level's function once.
    """
    hoisted, found = backend.hoist(level.function, *outer, init)
    parameters, manifold = backend.split(level.manifold)

    def level_at(captured: Tree) -> Level:
        found, parameters = captured
        result = level.with_function(lambda *args: hoisted(found, *args)) if found else level
        return result.with_manifold(manifold.fill(parameters)) if parameters else result

    return level_at, (tuple(found), tuple(parameters))


def implicit_solution(
    backend: Backend, level_at: LevelAt, linear: LinearSolver, space: Space, parameters: Tree, y: Tree
) -> Tree:
    """`y`, a constant, as a differentiable function of `parameters` = (captured arrays, outer variables)."""
    moving = bool(parameters[0][1])

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
                warn_unless_converged(backend, answer, f"the linear solve of a derivative ({linear})")
            return tree_map(lambda v, a, c: v + (a - c), answer.value, b, tangent)

        return solve

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
        tangent = backend.linear_solve(make, p, right, solver(p, False), solver(p, True))
        return tree_map(lambda a, b: a + b, tangent, drift) if moving else tangent

    def pullback(primals: tuple, y: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
        captured, outer = primals[0]
        p = (captured, outer, y)
        b = level_at(captured).manifold.project(y, cotangent)
        adjoint = backend.linear_solve(transposed(make), p, b, solver(p, True), solver(p, False))
        _, pull = backend.vjp(equation(y), primals[0])
        back = cotangent if moving else tree_map(lambda a: 0 * a, cotangent)
        return pull((tree_map(lambda a: -a, adjoint), back))[0], None

    rule = backend.custom_derivative(lambda _, y: y, pushforward, pullback, transposable=not moving)
    return rule(parameters, y)
