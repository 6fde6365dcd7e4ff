"""`linear_solve`: the solution of a linear system as a differentiable function of its operator and right-hand side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backends import Backend, DTypeError, ShapeError
from ..backends._base import negative, subtract, transposed
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
    `Solution(value, residual, steps, converged)`; only `value` has a derivative. The residual is ‖b - A v‖.

    Raises `ShapeError` (`product` does not keep the shapes of b), `DTypeError`, `BackendMismatchError`, `TypeError` (a
    solver for symmetric operators without `self_adjoint`), `ValueError` (product(parameters, 0) ≠ 0),
    `NoDerivativeError` (an array that `product` holds and that cannot be made a parameter); warns with
    `ConvergenceWarning`.
    """
    backend = one_backend(parameters, b, init)
    solver = _solver(solver, self_adjoint)
    space = Space(backend, _batch(b, batch_ndim))
    _check(backend, product, parameters, b, init)
    init = backend.stop_gradient(init)
    zeros = _zeros(backend, b)
    hoisted, captured = backend.hoist(product, parameters, b)
    everything = (tuple(captured), parameters)

    def make(p: Tree) -> tuple[Callable[[Tree], Tree], Callable[[Tree], Tree]]:
        def apply(v: Tree) -> Tree:
            return hoisted(p[0], p[1], v)

        return apply, apply if self_adjoint else _transpose(backend, apply, zeros)

    def found(p: Tree, right: Tree, transpose: bool, guess: Tree | None = None) -> Solution:
        apply, other = make(p)
        apply, other = (other, apply) if transpose else (apply, other)
        system = System(
            space=space, apply=apply, transpose=other, raise_=unchanged, project=unchanged, self_adjoint=self_adjoint
        )
        return solver.solve(system, right, guess)

    def solve(p: Tree, transpose: bool) -> Callable[[Any, Tree], Tree]:
        plain = backend.stop_gradient(p)

        def run(_: Any, right: Tree) -> Tree:
            answer = found(plain, right, transpose)
            if solver.has_tolerance:
                warn_unless_converged(backend, answer, f"the linear solve of a derivative ({solver})")
            return answer.value

        return run

    def pushforward(primals: tuple, v: Tree, tangents: tuple) -> Tree:
        (p, _, _), (moved, right, _) = primals, tangents
        if moved is not None:
            _, drift = backend.jvp(lambda p: make(p)[0](v), (p,), (moved,))
            right = tree_map(negative, drift) if right is None else tree_map(subtract, right, drift)
        return backend.linear_solve(make, p, right, solve(p, False), solve(p, True))

    def pullback(primals: tuple, v: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
        p = primals[0]
        back = backend.linear_solve(transposed(make), p, cotangent, solve(p, True), solve(p, False))
        if not needs[0]:
            return None, back, None
        _, pull = backend.vjp(lambda p: make(p)[0](v), p)
        return tree_map(negative, pull(back)[0]), back, None

    with backend.constants():
        answer = found(backend.stop_gradient(everything), backend.stop_gradient(b), False, init)
        answer = Solution(*backend.stop_gradient(tuple(answer)))
    if solver.has_tolerance:
        warn_unless_converged(backend, answer, f"linear_solve by {type(solver).__name__}")
    rule = backend.custom_derivative(lambda p, b, v: v, pushforward, pullback, transposable=True)
    return answer._replace(value=rule(everything, b, answer.value))


def _zeros(backend: Backend, like: Tree) -> Callable[[], Tree]:
    """Makes zeros like these arrays, without a reference to them: they may be traced, and then belong to one trace."""
    found, rebuild = flatten(like)
    made = [(tuple(a.shape), a.dtype, backend.device(a)) for a in found]
    return lambda: rebuild([backend.xp.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in made])


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
