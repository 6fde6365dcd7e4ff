"""What is said of a hypergradient that is not what was asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..backends import Backend, ConvergenceWarning
from .certificate import Certificate
from .estimators import Estimator, FirstOrder, Implicit, OneStep, Unrolled
from .linear import Neumann
from .nested import Bilevel
from .solution import Solution, outside, warn_unless_converged
from .solvers import Solver

if TYPE_CHECKING:
    from .hypergradient import Hypergradient


def warn_about(backend: Backend, result: Hypergradient, solver: Solver, estimator: Estimator, problem: Bilevel) -> None:
    """Warn of solves that did not reach what they were asked for, and of levels that have no derivative there.

    `Unrolled` differentiates so many steps as they are: nothing there was to converge.
    """
    if isinstance(estimator, Unrolled):
        return
    if isinstance(estimator, OneStep) and estimator.linear is not None:
        estimator = Implicit(estimator.linear)
    level, adjoint, certificate = problem.lower, result.adjoint, result.certificate
    if certificate is not None and not backend.is_eager(*certificate[:4]):
        certificate = None

    def told(solution: Solution, what: str) -> str:
        """What, and the error that comes of it if the solution did not converge."""
        if certificate is None or backend.to_numpy(solution.converged).all():
            return what
        return f"{what} (estimated error of the hypergradient: {_percent(backend, certificate)})"

    warn_unless_converged(backend, result.lower, told(result.lower, f"{type(solver).__name__} on the lower level"))
    if certificate is not None:
        if _not_isolated(backend, certificate):
            return
        series = isinstance(estimator, Implicit) and isinstance(estimator.linear_for(level), Neumann)
        if series and adjoint is not None and _not_contracting(backend, certificate, adjoint):
            return
    if adjoint is None:
        return
    if isinstance(estimator, Implicit) and estimator.has_tolerance_for(level):
        warn_unless_converged(backend, adjoint, told(adjoint, "the linear solve of the hypergradient"))
    if isinstance(estimator, FirstOrder):
        warn_unless_converged(backend, adjoint, told(adjoint, "a tilted solve of FirstOrder"))


def _percent(backend: Backend, certificate: Certificate) -> str:
    """The largest error, in parts of the largest gradient."""
    error, size = (float(backend.to_numpy(a).max()) for a in (certificate.error, certificate.size))
    return f"{100 * error / size:.2g} % of its size" if size else f"{error:.2g}"


def _not_isolated(backend: Backend, certificate: Certificate) -> bool:
    """Warn where a Hessian is not positive."""
    met = backend.to_numpy(certificate.negative_curvature)
    if met.any():
        lowest, highest = (backend.to_numpy(a)[met] for a in (certificate.lowest, certificate.highest))
        warnings.warn(
            f"the level has no isolated minimum there: its Hessian has an eigenvalue of about {lowest.min():.3g} (the "
            f"highest is about {highest.max():.3g}), and neither the hypergradient nor its certificate means anything; "
            "start the lower solver elsewhere, take symmetries out of the problem by a quotient manifold, or make the "
            "lower cost strictly convex, as by Proximal(level, weight)",
            ConvergenceWarning,
            stacklevel=outside(),
        )
    return bool(met.any())


def _not_contracting(backend: Backend, certificate: Certificate, adjoint: Solution) -> bool:
    """Warn where a series was summed that does not converge."""
    factor = backend.to_numpy(certificate.contraction)
    met = (factor >= 1) & ~backend.to_numpy(adjoint.converged)
    if met.any():
        warnings.warn(
            f"the map does not contract there: the spectral radius of its derivative is about {factor[met].max():.3g}, "
            "so that the fixed-point series of the hypergradient diverges; use Implicit(GMRES()), which needs no "
            "contraction",
            ConvergenceWarning,
            stacklevel=outside(),
        )
    return bool(met.any())
