"""All lower levels of a nested problem as one equation, in their variables and adjoints together.

For the innermost level U_n = (x_n,) and R_n is its equation. For an `Argmin` above, with the Lagrangian
L_k = f_k(x₁, …, x_n) - ⟨λ, R_{k+1}⟩, the unknowns are U_k = (U_{k+1}, λ, x_k) and the equation R_k is

    R_{k+1} = 0,    -P ∂L_k/∂U_{k+1} + (I - P) λ = 0,    P ∂L_k/∂x_k = 0,

P the projectors onto the tangent spaces: λ is a vector of the ambient space, so that the unknowns live on a product of
manifolds, and the equation itself keeps it tangent. A `Root` or `FixedPoint` needs no adjoint: U_k = (U_{k+1}, x_k).
Derivatives of all answers are then those of one `Root`, by one solve of a system that is not symmetric, whose
Krylov count does not multiply with those of other levels. For n = 3 the unknowns are z, p, y and the equations
∂_z f₃ = 0, ∂²_zz f₃ p - ∂_z f₂ = 0, ∂_y f₂ - ∂²_yz f₃ p = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends import Backend, backend_of, namespace
from ...backends._trees import tree_map
from ...manifolds import Euclidean, Manifold, Product
from ...manifolds._checks import shape_map
from .._implicit_rule import opened
from .._settings import require_kind
from .._space import Space
from .._system import solve_system, tangent_system
from ..estimators import Estimator, Implicit, Pull
from ..level import Argmin, Level, Root
from ..linear import CG, GMRES, LinearSolver
from ..solution import Solution
from ..solvers import Solver
from ..solvers._given import Given
from ._chain import PullChain, descend
from ._layers import Fixed, Layer, make_layers

Array = Any
Tree = Any
Levels = tuple[Level, ...]


@dataclass(frozen=True)
class Flattened(Estimator):
    """Differentiate all lower levels at once, as one root: one linear solve, whatever the number of levels.

    `linear` solves systems that are not symmetric, default `GMRES(restart=100)`, and `innermost` the one system with
    the innermost level's Hessian alone that yields its adjoint, default `CG()`. `solver`: a solver of the flattened
    root itself, such as `Newton()`, which goes on from the starts and whose cost does not multiply from level to level
    either (it finds any point where all gradients vanish: give it starts near the answer, or convex levels); by default
    the answers are had level by level and the root serves the derivative alone. One product costs about as much as 2ⁿ⁻¹
    products with the innermost Hessian for n levels, the first one counted. Of a single level it is `Implicit` on its
    equation.
    """

    linear: LinearSolver | None = None
    solver: Solver | None = None
    innermost: LinearSolver | None = None

    def __post_init__(self) -> None:
        require_kind(self, "linear", LinearSolver)
        require_kind(self, "innermost", LinearSolver)
        require_kind(self, "solver", Solver)

    @property
    def method(self) -> LinearSolver:
        """The linear solver."""
        return GMRES(restart=100) if self.linear is None else self.linear

    def solution(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> Solution:
        """See `Estimator`."""
        layers = make_layers((level,), (solver,), (None,))
        return flattened_solutions(backend, self, layers, outer, (init,))[0]

    def pullback(
        self, backend: Backend, level: Level, solver: Solver, outer: tuple[Tree, ...], init: Tree, space: Space
    ) -> tuple[Solution, Pull]:
        """See `Estimator`."""
        found, pull_chain = pull_flattened(backend, self, make_layers((level,), (solver,), (None,)), outer, (init,))

        def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], Solution | None]:
            back, (adjoint,) = pull_chain((cotangent,), None if guess is None else ((guess,),))
            return back, None if adjoint is None else adjoint._replace(value=adjoint.value[0])

        return found[0], pull


@dataclass(frozen=True)
class FlattenedField:
    """(outer, unknowns) ↦ R: the equation of `levels` together."""

    levels: Levels

    def __call__(self, *args: Tree) -> Tree:
        *outer, unknowns = args
        return equation(backend_of(args), self.levels, tuple(outer), unknowns)


def equation(backend: Backend, levels: Levels, outer: tuple[Tree, ...], unknowns: Tree) -> Tree:
    """R at the unknowns, shaped like them."""
    level, below = levels[0], levels[1:]
    x, manifold = unknowns[-1], level.manifold
    if not below:
        return (manifold.project(x, level.residual(backend, outer, x)),)
    if not isinstance(level, Argmin):
        inner = unknowns[0]
        fixed = level.with_function(Fixed(level.function, variables(below, inner)))
        return (
            equation(backend, below, (*outer, x), inner),
            manifold.project(x, fixed.residual(backend, outer, x)),
        )
    inner, multiplier, _ = unknowns

    def lagrangian(inner: Tree, multiplier: Tree, x: Tree) -> Array:
        cost = level.function(*outer, x, *variables(below, inner))
        return namespace(cost).sum(cost) - Space(backend).dot(multiplier, equation(backend, below, (*outer, x), inner))

    value, pull = backend.vjp(lagrangian, inner, multiplier, x)
    d_inner, d_multiplier, d_x = pull(backend.one(value))
    project = flattened_manifold(below).project
    stationary = tree_map(lambda m, p, d: (m - p) - d, multiplier, project(inner, multiplier), project(inner, d_inner))
    return tree_map(lambda a: -a, d_multiplier), stationary, manifold.project(x, d_x)


def variables(levels: Levels, unknowns: Tree) -> tuple[Tree, ...]:
    """The levels' own variables among the unknowns, from the outermost level inward."""
    own = (unknowns[-1],)
    return own if len(levels) == 1 else own + variables(levels[1:], unknowns[0])


def arranged(levels: Levels, own: tuple[Tree, ...], adjoint: Tree) -> Tree:
    """A vector over the unknowns with `own` in the places of the levels' variables, else `adjoint` of a tree there."""
    if len(levels) == 1:
        return own
    inner = arranged(levels[1:], own[1:], adjoint)
    return (inner, adjoint(inner), own[0]) if isinstance(levels[0], Argmin) else (inner, own[0])


def flattened_manifold(levels: Levels) -> Product:
    """Where the unknowns live."""
    return Product(_parts(levels))


def _parts(levels: Levels) -> tuple[Any, ...]:
    level, below = levels[0], levels[1:]
    if not below:
        return (level.manifold,)
    inner = _parts(below)
    return (inner, _ambient(inner), level.manifold) if isinstance(level, Argmin) else (inner, level.manifold)


def _ambient(parts: Any) -> Any:
    """The ambient spaces of a tree of manifolds."""
    if isinstance(parts, Manifold):
        return shape_map(lambda shape: Euclidean(*shape), parts.shape)
    return tuple(_ambient(part) for part in parts)


def flattened_root(levels: Levels, batch_ndim: int) -> Root:
    """The root whose answer holds those of all levels."""
    return Root(FlattenedField(levels), flattened_manifold(levels), batch_ndim=batch_ndim)


def with_adjoints(
    backend: Backend, levels: Levels, outer: tuple[Tree, ...], own: tuple[Tree, ...], setting: Flattened, space: Space
) -> Tree:
    """The unknowns at the levels' variables `own`, with the adjoints that belong to these: one solve for each."""
    level, below = levels[0], levels[1:]
    if not below:
        return own
    inner = with_adjoints(backend, below, (*outer, own[0]), own[1:], setting, space)
    if not isinstance(level, Argmin):
        return (inner, own[0])
    cost, pull = backend.vjp(lambda u: level.function(*outer, own[0], *variables(below, u)), inner)
    right = pull(namespace(cost).ones_like(cost))[0]
    return inner, _adjoint(backend, below, (*outer, own[0]), inner, right, setting, space), own[0]


def _adjoint(
    backend: Backend,
    levels: Levels,
    outer: tuple[Tree, ...],
    inner: Tree,
    right: Tree,
    setting: Flattened,
    space: Space,
) -> Tree:
    """λ with (∂R)ᵀ λ = `right`, ∂R the derivative of the levels' equation."""
    root = flattened_root(levels, space.ndim)
    if len(levels) == 1 and isinstance(levels[0], Argmin):
        system = tangent_system(backend, levels[0], outer, inner[0], space)
        return (solve_system(setting.innermost or CG(), system, levels[0].manifold.project(inner[0], right[0])).value,)
    system = tangent_system(backend, root, outer, inner, space, transpose=True)
    return solve_system(setting.method, system, root.manifold.project(inner, right)).value


def flattened_answer(
    backend: Backend, setting: Flattened, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[tuple[Solution, ...], Root, Tree, Space]:
    """The answers of all levels, the root that they and their adjoints solve, its answer and its space."""
    levels = tuple(layer.plain for layer in layers)
    space = layers[0].space(outer, starts[0], starts[1:])
    root = flattened_root(levels, space.ndim)
    if setting.solver is None:
        found = descend(backend, layers, outer, starts)
        own = tuple(solution.value for solution in found)
        return found, root, with_adjoints(backend, levels, outer, own, setting, space), space
    begin = with_adjoints(backend, levels, outer, starts, setting, space)
    solution = setting.solver.solve(backend, root, outer, begin, space)
    found = tuple(solution._replace(value=y) for y in variables(levels, solution.value))
    return found, root, solution.value, space


def flattened_solutions(
    backend: Backend, setting: Flattened, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[Solution, ...]:
    """The answers of all levels, differentiable in `outer` and in what the levels' functions captured."""
    starts = backend.stop_gradient(starts)
    plain = make_layers(
        tuple(_constant(backend, layer.plain, outer, starts) for layer in layers),
        tuple(layer.solver for layer in layers),
        tuple(layer.estimator for layer in layers),
    )
    with backend.constants():
        found, _, unknowns, space = flattened_answer(backend, setting, plain, backend.stop_gradient(outer), starts)
        found, unknowns = backend.stop_gradient((tuple(tuple(solution) for solution in found), unknowns))
    levels = tuple(layer.plain for layer in layers)
    root = flattened_root(levels, space.ndim)
    answer = Implicit(setting.method).solution(backend, root, Given(), outer, unknowns, space).value
    return tuple(Solution(y, *rest[1:]) for y, rest in zip(variables(levels, answer), found, strict=True))


def _constant(backend: Backend, level: Level, outer: tuple[Tree, ...], starts: tuple[Tree, ...]) -> Level:
    """The level with what its function captured, and its manifold's parameters, as constants."""
    level_at, captured = opened(backend, level, (*outer, *starts[:-1]), starts[-1])
    return level_at(backend.stop_gradient(captured))


def pull_flattened(
    backend: Backend, setting: Flattened, layers: tuple[Layer, ...], outer: tuple[Tree, ...], starts: tuple[Tree, ...]
) -> tuple[tuple[Solution, ...], PullChain]:
    """The answers of all levels, and the transpose of their derivative by one linear solve."""
    found, root, unknowns, space = flattened_answer(backend, setting, layers, outer, starts)
    levels = tuple(layer.plain for layer in layers)
    _, pull_root = Implicit(setting.method).pullback(backend, root, Given(), outer, unknowns, space)

    def pull(cotangents: tuple[Tree, ...], guesses: tuple[Tree, ...] | None) -> Any:
        cotangent = arranged(levels, cotangents, lambda inner: tree_map(lambda a: 0 * a, inner))
        back, adjoint = pull_root(cotangent, None if guesses is None else guesses[0])
        return back, (adjoint,)

    return found, pull
