"""`solve`: a level's answer as a differentiable function of the outer variables."""

from __future__ import annotations

from typing import Any

from ..backends import Backend, BackendMismatchError, backend_of
from ..backends._eager import uncompiled
from ..backends._trees import leaves
from ._causes import cause_of
from ._settings import with_article
from ._space import Space
from ._traps import warn_if_constant
from .estimators import Estimator, FirstOrder, Implicit, Unrolled
from .level import Argmin, FixedPoint, Level, Root
from .solution import Solution, warn_unless_converged
from .solvers import Armijo, GradientDescent, Newton, Picard, Solver, TrustRegion

Tree = Any


def solve(
    level: Level, *outer: Tree, init: Tree, solver: Solver | None = None, estimator: Estimator | None = None
) -> Solution:
    """The answer y*(outer) of `level`, differentiable in `outer` by the framework's own autodiff.

    Parameters
    ----------
    level : `Argmin`, `FixedPoint` or `Root`.
    outer : the variables in front of the level's own, outermost first: arrays or trees of arrays.
    init : where the solver starts; a point of the level's manifold, leading axes allowed.
    solver : default `TrustRegion()` for an `Argmin`, `Picard()` for a `FixedPoint`, `Newton()` for a `Root`.
    estimator : how the derivative is had; default `Implicit()`.

    Returns
    -------
    `Solution(value, residual, steps, converged)`; only `value` has a derivative.

    It nests with the framework's transformations. Under `torch.vmap` all problems are solved as one batch (one after
    the other by `External`, or where the manifold has array parameters); `torch.compile` leaves it as it is. With JAX
    put one `jax.jit` around what is called often: outside of it every call is compiled anew.

    Raises `BackendMismatchError` (two frameworks or devices), `ShapeError`, `DTypeError`, `NotOnManifoldError`,
    `MappedArrayError` (a loop of `Unrolled` or `FirstOrder` under `torch.vmap`), `NoDerivativeError` (`torch.func.jvp`
    of `jvp`, whose outer tangent PyTorch loses: use `nestfold.jvp`);
    warns with `ConvergenceWarning` where the solver stopped before its tolerance.
    """
    return uncompiled(_solve)(level, outer, init, solver, estimator)


def _solve(
    level: Level, outer: tuple[Tree, ...], init: Tree, solver: Solver | None, estimator: Estimator | None
) -> Solution:
    backend, solver, estimator, space = prepare(level, outer, init, solver, estimator)
    found = estimator.solution(backend, level, solver, outer, init, space)
    if not isinstance(estimator, Unrolled):
        what = f"{type(solver).__name__} on the {type(level).__name__} level"
        warn_if_constant(backend, level, outer, found)
        warn_unless_converged(backend, found, what, lambda: cause_of(backend, level, outer, found.value, space))
    return found


def prepare(
    level: Level,
    outer: tuple[Tree, ...],
    init: Tree,
    solver: Solver | None,
    estimator: Estimator | None,
    name: str = "init",
) -> tuple[Backend, Solver, Estimator, Space]:
    """Check the arguments of a solve and fill in the defaults."""
    if not isinstance(level, Level):
        raise TypeError(f"solve takes an Argmin, FixedPoint or Root, not {with_article(type(level).__name__)}")
    backend = one_backend(*outer, init)
    level.manifold.check_point(init, name)
    space = Space(backend, level.batch(outer, init))
    estimator = Implicit() if estimator is None else estimator
    for value, kind in ((solver, Solver), (estimator, Estimator)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{kind.__name__.lower()} must be {with_article(kind.__name__)}, not {value!r}")
    return backend, default_solver(level, estimator) if solver is None else solver, estimator, space


def default_solver(level: Level, estimator: Estimator) -> Solver:
    """The solver that suits a level, and that the estimator can use."""
    if isinstance(level, FixedPoint):
        return Picard()
    if isinstance(level, Root):
        return Newton()
    if not isinstance(level, Argmin):
        raise TypeError(f"there is no default solver for {with_article(type(level).__name__)}; give one with solver=")
    if isinstance(estimator, Unrolled):  # at the answer Barzilai and Borwein's lengths go by rounding
        return GradientDescent(step=Armijo())
    return GradientDescent() if isinstance(estimator, FirstOrder) else TrustRegion()


def one_backend(*trees: Tree) -> Backend:
    """The backend of all arrays. Raises `BackendMismatchError` for two frameworks, or two devices."""
    backend = backend_of(*trees)
    devices = {}
    for leaf in leaves(trees):
        if hasattr(leaf, "dtype"):
            device = backend.device(leaf)
            if device is not None:
                devices.setdefault(str(device), leaf)
    if len(devices) > 1:
        raise BackendMismatchError(
            f"arrays on two devices in one call: {' and '.join(sorted(devices))}; move them to one first"
        )
    return backend
