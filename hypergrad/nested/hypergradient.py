"""The hypergradient of a problem with any number of levels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ...backends import Backend, namespace
from ...backends._trees import tree_map
from .._checks import check_cost
from ..certificate import Certificate, Parts
from ..estimators import Unrolled
from ..solution import Solution, warn_unless_converged
from ..solve import one_backend
from ._certificate import nested_certificate
from .problem import Nested
from .settings import Chain, Settings, Solvers

Array = Any
Tree = Any


class NestedHypergradient(NamedTuple):
    """The gradient of F(x) = f₁(x, x₂*(x), …), and the solves that it rests on.

    value: F(x) · gradient: the Riemannian gradient, tangent at x · covector: the ambient derivative that it is `sharp`
    of · lower: the answers of the lower levels, from the outermost inward, in the order of the starts · adjoint: the
    linear solve of each of them (None for estimators without one); of `Flattened` the one solve for all, a tuple
    of one. The `steps` of an adjoint are the products with the operator of its level. certificate: the estimated error
    and what it comes from, where it was asked for; of the flattened root, without spectrum.
    """

    value: Array
    gradient: Tree
    covector: Tree
    lower: tuple[Solution, ...]
    adjoint: tuple[Solution | None, ...]
    certificate: Certificate | None = None


def nested_hypergradient(
    problem: Nested,
    x: Tree,
    starts: tuple[Tree, ...],
    *,
    solver: Solvers = None,
    estimator: Settings = None,
    adjoint: Tree | None = None,
    certify: bool = False,
) -> NestedHypergradient:
    """`hypergradient` of a `Nested` problem, the lower levels first solved from `starts`.

    `solver`, `estimator`: one for all lower levels or a tuple with one for each; `estimator=Flattened()` differentiates
    all levels at once. `adjoint`: first guesses, the values of the adjoints of a nearby hypergradient, a tuple.
    `certify`: estimate the error (see `Certificate`), for up to three solves of the flattened root more. With
    JAX the whole is compiled once for each problem, setting and shape, and not again for other starts.
    """
    from ..hypergradient import NOT_DIFFERENTIABLE, prepared

    backend = check_nested(problem, x, starts)
    x, starts, adjoint = backend.forbid_gradient((x, starts, adjoint), NOT_DIFFERENTIABLE)
    check_captured(backend, problem, x, starts, NOT_DIFFERENTIABLE)
    chain = problem.chain(solver, estimator)
    make = _compiled if backend.is_eager(x, starts) else plain_nested_hypergradient
    compute = prepared(make, backend, problem, chain, certify)
    with backend.constants():
        result = compute(x, starts, adjoint)
    warn_about(backend, result, chain)
    return result


def check_nested(problem: Nested, x: Tree, starts: Tree) -> Backend:
    """The backend of a problem's points, which are checked."""
    problem.check_starts(starts)
    backend = one_backend(x, starts)
    problem.manifold.check_point(x, "x")
    return backend


def check_captured(backend: Backend, problem: Nested, x: Tree, starts: tuple[Tree, ...], why: str) -> None:
    """Raise `NoDerivativeError` where costs or manifolds hold arrays that are being differentiated."""

    def everything() -> tuple[Tree, ...]:
        manifolds = [problem.manifold, *(level.manifold for level in problem.levels)]
        functions = [problem.upper, *(level.function for level in problem.levels)]
        return [f(x, *starts) for f in functions], [backend.split(manifold)[0] for manifold in manifolds]

    backend.forbid_captured(everything, why)


def plain_nested_hypergradient(
    backend: Backend, problem: Nested, chain: Chain, certify: bool = False
) -> Callable[[Tree, tuple[Tree, ...], Tree | None], NestedHypergradient]:
    """The computation as a function of arrays alone."""

    def compute(x: Tree, starts: tuple[Tree, ...], guess: Tree | None) -> NestedHypergradient:
        lower, pull = chain.pullback(backend, (x,), starts)
        value, pull_upper = backend.vjp(problem.upper, x, *(solution.value for solution in lower))
        check_cost(value, x, problem.manifold, "the upper cost")
        direct, *cotangents = pull_upper(namespace(value).ones_like(value))
        (through,), adjoint = pull(tuple(cotangents), guess)
        covector = problem.manifold.project(x, tree_map(lambda a, b: a + b, direct, through))
        certificate = None
        if certify:
            known = adjoint[0].value if chain.flattened is not None and adjoint[0] is not None else None
            parts = Parts(value, direct, tuple(cotangents), covector, known)
            answers = tuple(solution.value for solution in lower)
            certificate = nested_certificate(backend, problem, chain, x, answers, parts)
        return NestedHypergradient(value, problem.manifold.sharp(x, covector), covector, lower, adjoint, certificate)

    return compute


def warn_about(backend: Backend, result: NestedHypergradient, chain: Chain) -> None:
    """Warn of solves that did not reach what they were asked for."""
    for number, (layer, found) in enumerate(zip(chain.layers, result.lower, strict=True), start=2):
        if not isinstance(layer.estimator, Unrolled):
            warn_unless_converged(backend, found, f"{type(layer.solver).__name__} on level {number}")
    for adjoint, asked in zip(result.adjoint, chain.wanted, strict=True):
        if adjoint is not None and asked:
            warn_unless_converged(backend, adjoint, "a linear solve of the hypergradient")


@lru_cache(maxsize=16)
def _compiled(
    backend: Backend, problem: Nested, chain: Chain, certify: bool
) -> Callable[[Tree, tuple[Tree, ...], Tree | None], NestedHypergradient]:
    return backend.jit(plain_nested_hypergradient(backend, problem, chain, certify))
