"""`linear_solve`: the solution of a linear system as a differentiable function of its operator and right-hand side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..backends import Backend, DTypeError, ShapeError
from ..backends._base import mirrored, negative, subtract, swapped, transposed
from ..backends._trees import flatten, leaves, tree_map
from ._space import Space
from .linear import GMRES, MINRES, LinearSolver, System
from .linear._base import unchanged
from .solution import Solution, warn_unless_converged
from .solve import one_backend

Array = Any
Tree = Any


def linear_solve(
    product: Callable[[Tree, Tree], Tree],
    parameters: Tree,
    b: Tree,
    *,
    solver: LinearSolver | None = None,
    init: Tree | None = None,
    self_adjoint: bool = False,
    batch_ndim: int = 0,
) -> Solution:
    """The v with product(parameters, v) = b, differentiable in `parameters` and `b`, to any order.

    With A v = product(parameters, v): v̇ = A⁻¹(ḃ - Ȧ v) and b̄ = A⁻ᵀ v̄, parameters̄ = -∂⟨b̄, A v⟩, each another such
    solve: the steps of the solver are never differentiated, and derivatives are as exact as those solves.

    Parameters
    ----------
    product : linear in its second argument; `parameters` is an array or a tree of arrays.
    b : an array or a tree of arrays; v has its shapes and dtypes. Complex vectors are a real space with the inner
        product Re Σ conj(a) b, on which `product` need only be linear over the reals.
    solver : default `MINRES()` if `self_adjoint`, else `GMRES()`; `CG()` is faster for a positive operator.
    init : a first guess for v; nothing is differentiated through it.
    self_adjoint : whether ⟨u, A v⟩ = ⟨A u, v⟩; then no transpose is taken.
    batch_ndim : how many leading axes of every leaf of b are independent problems.

    Returns
    -------
    `Solution(value, residual, steps, converged)`; only `value` has a derivative. The residual is ‖b - A v‖. Under
    `torch.vmap` all systems are solved as one batch.

    Raises `ShapeError` (`product` does not keep the shapes of b), `DTypeError`, `BackendMismatchError`, `TypeError` (a
    solver for symmetric operators without `self_adjoint`), `ValueError` (product(parameters, 0) ≠ 0),
    `NoDerivativeError` (an array that `product` holds and that cannot be made a parameter); warns with
    `ConvergenceWarning`.
    """
    backend = one_backend(parameters, b, init)
    solver = _solver(solver, self_adjoint)
    space = Space(backend, _batch(b, batch_ndim))
    _check(backend, product, parameters, b, init)
    hoisted, captured = backend.hoist(product, parameters, b)
    problem = _Problem(backend, lambda p, v: hoisted(*p, v), _zeros(backend, b), space, solver, self_adjoint)
    everything = (tuple(captured), parameters)
    answer = problem.constant_solution(everything, b, init)
    if solver.has_tolerance:
        warn_unless_converged(backend, answer, f"linear_solve by {type(solver).__name__}")
    return answer._replace(value=problem.with_derivative(everything, b, answer.value))


@dataclass(frozen=True)
class _Problem:
    """A system with parameters, product(p, v) = b, and its solver; also many of them, one for each entry of a map."""

    backend: Backend
    product: Callable[[Tree, Tree], Tree]
    zeros: Callable[[tuple[int, ...]], Tree]
    space: Space
    solver: LinearSolver
    self_adjoint: bool
    sizes: tuple[int, ...] = ()

    def over(self, size: int, over: Callable[..., Any]) -> _Problem:
        """The same for `size` entries along a first axis of all arrays: see `Backend.custom_derivative`."""
        space = Space(self.backend, (size, *self.space.batch))
        return replace(self, product=over(self.product), space=space, sizes=(size, *self.sizes))

    def make(self, p: Tree) -> tuple[Callable[[Tree], Tree], Callable[[Tree], Tree]]:
        """The operator and its transpose."""

        def apply(v: Tree) -> Tree:
            return self.product(p, v)

        return apply, apply if self.self_adjoint else _transpose(self.backend, apply, lambda: self.zeros(self.sizes))

    def solved(self, p: Tree, b: Tree, transpose: bool, guess: Tree | None = None) -> Solution:
        """What the solver makes of it."""
        apply, other = self.make(p)
        apply, other = (other, apply) if transpose else (apply, other)
        kinds = {"raise_": unchanged, "project": unchanged, "self_adjoint": self.self_adjoint}
        return self.solver.solve(System(space=self.space, apply=apply, transpose=other, **kinds), b, guess)

    def at(self, p: Tree) -> tuple[Any, Any]:
        """See `Backend.linear_solve`."""
        plain = self.backend.stop_gradient(p)

        def solve(transpose: bool, b: Tree) -> Tree:
            answer = self.solved(plain, b, transpose)
            if self.solver.has_tolerance:
                warn_unless_converged(self.backend, answer, f"the linear solve of a derivative ({self.solver})")
            return answer.value

        return lambda _, b: solve(False, b), lambda _, b: solve(True, b)

    def mapped(self, size: int, over: Callable[..., Any]) -> tuple[Any, Any, Any]:
        """See `Backend.linear_solve`."""
        several = self.over(size, over)
        return several.make, several.at, several.mapped

    def constant_solution(self, p: Tree, b: Tree, init: Tree | None) -> Solution:
        """The answer as a constant of every derivative; under `torch.vmap` all entries are one batch."""
        backend = self.backend

        def run(p: Tree, b: Tree, init: Tree | None) -> Tree:
            with backend.constants():
                return backend.stop_gradient(tuple(self.solved(p, b, False, init)))

        def mapped(size: int, over: Callable[..., Any], *inputs: Tree) -> Tree:
            return tuple(self.over(size, over).constant_solution(*backend.stop_gradient(inputs)))

        return Solution(*backend.opaque(run, *backend.stop_gradient((p, b, init)), mapped=mapped))

    def with_derivative(self, p: Tree, b: Tree, v: Tree) -> Tree:
        """`v`, the answer and a constant, as a differentiable function of p and b."""
        backend, make, at = self.backend, self.make, self.at

        def pushforward(primals: tuple, v: Tree, tangents: tuple) -> Tree:
            (p, _, _), (moved, right, _) = primals, tangents
            if moved is not None:
                _, drift = backend.jvp(lambda p: make(p)[0](v), (p,), (moved,))
                right = tree_map(negative, drift) if right is None else tree_map(subtract, right, drift)
            return backend.linear_solve(make, p, right, *at(p), at=at, mapped=self.mapped)

        def pullback(primals: tuple, v: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
            p, solvers, mapped = primals[0], swapped(at), mirrored(self.mapped)
            back = backend.linear_solve(transposed(make), p, cotangent, *solvers(p), at=solvers, mapped=mapped)
            if not needs[0]:
                return None, back, None
            _, pull = backend.vjp(lambda p: make(p)[0](v), p)
            return tree_map(negative, pull(back)[0]), back, None

        def mapped(size: int, over: Callable[..., Any], *inputs: Tree) -> Tree:
            return self.over(size, over).with_derivative(*inputs)

        rule = backend.custom_derivative(lambda p, b, v: v, pushforward, pullback, transposable=True, mapped=mapped)
        return rule(p, b, v)


def _zeros(backend: Backend, like: Tree) -> Callable[[tuple[int, ...]], Tree]:
    """Makes zeros like these arrays, with more leading axes: from their shapes, for one may be traced, and then
    belongs to one trace.
    """
    found, rebuild = flatten(like)
    made = [(tuple(a.shape), a.dtype, backend.device(a)) for a in found]
    return lambda sizes: rebuild([backend.xp.zeros((*sizes, *s), dtype=dtype, device=d) for s, dtype, d in made])


def _transpose(backend: Backend, apply: Callable[[Tree], Tree], zeros: Callable[[], Tree]) -> Callable[[Tree], Tree]:
    """The transpose, recorded when first needed, and at once where functions are compiled: see `level.py`."""
    made = []

    def record() -> Callable[[Tree], tuple[Tree, ...]]:
        if not made:
            made.append(backend.vjp(apply, zeros())[1])
        return made[0]

    if backend.compiles:
        record()
    return lambda w: record()(w)[0]


def _solver(solver: LinearSolver | None, self_adjoint: bool) -> LinearSolver:
    if solver is None:
        return MINRES() if self_adjoint else GMRES()
    if not isinstance(solver, LinearSolver):
        raise TypeError(f"solver must be a LinearSolver, not {solver!r}")
    if solver.needs_self_adjoint and not self_adjoint:
        raise TypeError(f"{type(solver).__name__} needs a symmetric operator: say self_adjoint=True, or use GMRES()")
    return solver


def _batch(b: Tree, batch_ndim: int) -> tuple[int, ...]:
    """The leading axes that all leaves of b share."""
    shapes = {tuple(a.shape[:batch_ndim]) for a in leaves(b)}
    if len(shapes) != 1 or len(next(iter(shapes))) != batch_ndim:
        raise ShapeError(
            f"the leaves of b do not share {batch_ndim} leading axes: {[tuple(a.shape) for a in leaves(b)]}"
        )
    return shapes.pop()


def _check(
    backend: Backend, product: Callable[[Tree, Tree], Tree], parameters: Tree, b: Tree, init: Tree | None
) -> None:
    """Raise unless `product` takes vectors like b to vectors like b, and 0 to 0."""
    for leaf in leaves(b):
        if not backend.is_inexact(leaf):
            raise DTypeError(f"b has dtype {getattr(leaf, 'dtype', type(leaf))}; it must be floating point")
    zeros = tree_map(lambda a: 0 * a, backend.stop_gradient(b))
    with backend.constants():
        image = backend.stop_gradient(product(backend.stop_gradient(parameters), zeros))
    wanted = [tuple(a.shape) for a in leaves(b)]
    for what, tree in (("product(parameters, v)", image), ("init", b if init is None else init)):
        backend.matching(tree, b, what)
        if [tuple(getattr(a, "shape", ())) for a in flatten(tree)[0]] != wanted:
            raise ShapeError(f"{what} has shapes {[getattr(a, 'shape', ()) for a in leaves(tree)]}; b has {wanted}")
    if backend.is_eager(image) and any(backend.to_numpy(a).any() for a in leaves(image)):
        raise ValueError("product(parameters, 0) is not 0: product must be linear in its second argument")
