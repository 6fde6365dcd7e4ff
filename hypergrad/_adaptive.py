"""Both solves of a hypergradient, driven just as far as its certificate asks for."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

from ..backends import Backend, ConvergenceWarning
from ..backends._trees import leaves
from ._space import epsilon
from ._spectrum import Spectrum
from .certificate import Certificate, Effort
from .estimators import Implicit
from .level import Level
from .solution import outside
from .solvers import External, Solver
from .solvers._given import Given

Array = Any
Tree = Any
#: (solver, estimator, y0, adjoint, effort) -> hypergradient
Evaluate = Callable[[Solver, Implicit, Tree, Tree | None, Effort], Any]

ROUNDS = 12
#: The tolerances of the first lower and adjoint solves, of the one asked for. The lower one's is tight, for a condition
#: number lies between it and the error, and a second certificate costs more than two decades of a lower solve.
FIRST = 0.01, 0.1
#: The share of the tolerance that each of the two parts may have.
SHARE = 0.4
#: Up to so many times the tolerance, the Newton step of the last certificate is enough.
NEAR = 10.0


def adaptive(
    backend: Backend,
    evaluate: Evaluate,
    level: Level,
    solver: Solver,
    estimator: Implicit,
    y0: Tree,
    adjoint: Tree | None,
    tol: float,
) -> Any:
    """The first hypergradient whose certificate says error ≤ tol · size, from loose solves to tight ones.

    Each round starts from the last one's Newton-corrected point and adjoint, and tightens what is left of too large a
    part; the steps of all rounds are counted together. Warns with `ConvergenceWarning` where no further round helps.
    """
    linear, least = estimator.linear_for(level), 10 * epsilon(leaves(y0)[0])
    inner, outer = (_rounded(max(share * tol, least)) for share in FIRST)
    best, known, current, steps = math.inf, {}, solver, (0, 0)
    result: Any = None
    for _ in range(ROUNDS):
        effort = Effort(second_order=False, spectrum=not known)
        result = evaluate(_at(current, inner), Implicit(_at(linear, outer)), y0, adjoint, effort)
        certificate = result.certificate._replace(**known)
        known = {name: getattr(certificate, name) for name in Spectrum._fields}
        steps = steps[0] + result.lower.steps, steps[1] + result.adjoint.steps
        lower, found = (s._replace(steps=k) for s, k in zip((result.lower, result.adjoint), steps, strict=True))
        result = result._replace(certificate=certificate, lower=lower, adjoint=found)
        whole, of_inner, of_linear = (
            _worst(backend, part, certificate.size) / tol
            for part in (certificate.error, certificate.inner_error, certificate.linear_error)
        )
        if whole <= 1:
            return result
        exhausted = not whole < 0.5 * best and max(inner, outer) <= least
        if exhausted or not math.isfinite(whole):
            break
        best = min(best, whole)
        inner, outer = (
            _rounded(max(t * SHARE / ratio, least)) if ratio > SHARE else t
            for t, ratio in ((inner, of_inner), (outer, of_linear))
        )
        y0, adjoint, astray = _next_start(backend, result)
        near = of_inner <= NEAR and not astray
        current = Given() if near or isinstance(solver, External) else solver
    reached = _worst(backend, result.certificate.error, result.certificate.size)
    warnings.warn(
        f"hypergradient(tol={tol:g}): the estimated error is {reached:.3g} of the gradient's size, and no further "
        "round lowers it: rounding, the solvers' steps or a lower level without an isolated answer stand "
        "in the way; see Hypergradient.certificate",
        ConvergenceWarning,
        stacklevel=outside(),
    )
    return result


def _at(solver: Any, tol: float) -> Any:
    """The solver with another tolerance, where it has one."""
    if isinstance(solver, External) or "tol" not in {field.name for field in dataclasses.fields(solver)}:
        return solver
    return dataclasses.replace(solver, tol=tol)


def _rounded(tol: float) -> float:
    """The next lower half power of ten: so few different values that what is compiled for them serves again."""
    return 10.0 ** (0.5 * math.floor(2 * math.log10(tol) + 1e-9))


def _worst(backend: Backend, part: Array, size: Array) -> float:
    """The largest part relative to the size, over the batch; NaN where there is one."""
    part, size = backend.to_numpy(part), backend.to_numpy(size)
    return float((part / (size + (size == 0))).max(initial=0.0))


def _next_start(backend: Backend, result: Any) -> tuple[Tree, Tree, bool]:
    """The corrected point and adjoint, or the last ones and True where Newton's method went astray."""
    certificate: Certificate = result.certificate
    astray = backend.to_numpy(certificate.negative_curvature).any() or not all(
        bool(backend.xp.all(backend.xp.isfinite(leaf))) for leaf in leaves((certificate.point, certificate.adjoint))
    )
    if astray:
        return result.lower.value, result.adjoint.value, True
    return certificate.point, certificate.adjoint, False
