"""The one rule: the derivative of a solution map by the implicit function theorem, on a manifold, to any order.

Let F(θ, y) = 0 at y = y*(θ), P the projector onto the tangent space at y, and A = P D P + (I - P), D the derivative
of F with respect to y (`level.operator`). Then

    ẏ = -A⁻¹ P ∂_θF θ̇          θ̄ = -∂_θ⟨F(θ, y), λ⟩ with λ = A⁻ᵀ P ȳ.

Both are made of differentiable operations; the inverse is `Backend.linear_solve`, whose own derivative is another
such solve with A differentiated, projectors included: hence every order. θ are the outer variables and
the arrays that the user's function captured.
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
Hoisted = Callable[..., Tree]


def implicit_solution(
    backend: Backend, level: Level, hoisted: Hoisted, linear: LinearSolver, space: Space, parameters: Tree, y: Tree
) -> Tree:
    """`y`, a constant, as a differentiable function of `parameters` = (captured arrays, outer variables)."""
    manifold = level.manifold

    def level_at(captured: tuple) -> Level:
        return level.with_function(lambda *args: hoisted(captured, *args))

    def make(p: Tree) -> Any:
        captured, outer, y = p
        return completed(level_at(captured), backend, outer, y)

    def solver(p: Tree, transpose: bool) -> Callable[[Any, Tree], Tree]:
        captured, outer, y = backend.stop_gradient(p)

        def solve(_: Any, b: Tree) -> Tree:
            system = tangent_system(backend, level_at(captured), outer, y, space, transpose=transpose)
            tangent = manifold.project(y, b)
            answer = solve_system(linear, system, tangent)
            if linear.has_tolerance:
                warn_unless_converged(backend, answer, f"the linear solve of a derivative ({linear})")
            return tree_map(lambda v, a, c: v + (a - c), answer.value, b, tangent)

        return solve

    def pushforward(primals: tuple, y: Tree, tangents: tuple) -> Tree:
        (captured, outer), _ = primals
        _, moved = backend.jvp(
            lambda p: level_at(p[0]).residual(backend, p[1], y), ((captured, outer),), (tangents[0],)
        )
        p = (captured, outer, y)
        right = tree_map(lambda a: -a, manifold.project(y, moved))
        return backend.linear_solve(make, p, right, solver(p, False), solver(p, True))

    def pullback(primals: tuple, y: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
        (captured, outer), _ = primals
        p = (captured, outer, y)

        b = manifold.project(y, cotangent)
        adjoint = backend.linear_solve(transposed(make), p, b, solver(p, True), solver(p, False))
        _, pull = backend.vjp(lambda p: level_at(p[0]).residual(backend, p[1], y), (captured, outer))
        return tree_map(lambda a: -a, pull(adjoint)[0]), None

    rule = backend.custom_derivative(lambda _, y: y, pushforward, pullback, transposable=True)
    return rule(parameters, y)
