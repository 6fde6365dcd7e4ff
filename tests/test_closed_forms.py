"""Every estimator on every ready-made problem, against exact hypergradients; measured rates against theory."""

import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import (
    entropic_transport,
    logistic,
    principal_subspace,
    ridge,
    smallest_eigenvector,
    synthetic,
    tanh_fixed_point,
)

PROBLEMS = {
    "ridge": lambda like: ridge(like=like),
    "logistic": lambda like: logistic(like=like),
    "geometric mean": lambda like: synthetic(like=like, d=6, r=3, n=24),
    "smallest eigenvector": lambda like: smallest_eigenvector(like=like),
    "principal subspace": lambda like: principal_subspace(like=like),
    "transport": lambda like: entropic_transport(like=like),
    "map": lambda like: tanh_fixed_point(like=like),
}
#: what is exact where it converges, with the linear solvers' default tolerances
EXACT = {
    "default": nf.Implicit(),
    "cg": nf.Implicit(nf.CG()),
    "minres": nf.Implicit(nf.MINRES()),
    "gmres": nf.Implicit(nf.GMRES()),
    "bicgstab": nf.Implicit(nf.BiCGStab()),
    "normal cg": nf.Implicit(nf.NormalCG()),
    "neumann": nf.Implicit(nf.Neumann()),
    "chebyshev": nf.Implicit(nf.Chebyshev()),
    "dense": nf.Implicit(nf.Dense()),
    "newton step": nf.OneStep(linear=nf.Dense()),
}
SYMMETRIC_ONLY = ("cg", "minres", "chebyshev")


def cases():
    for problem in PROBLEMS:
        for estimator in EXACT:
            if problem == "map" and estimator in SYMMETRIC_ONLY:
                continue
            yield pytest.param(problem, estimator, id=f"{problem}-{estimator}")


def relative(backend, found, expected):
    found, expected = backend.to_numpy(found), backend.to_numpy(expected)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def gradient_error(backend, problem, estimator, solver=None):
    """Of the Riemannian hypergradient at the problem's start, against the exact one."""
    x, y = problem.start(np.random.default_rng(0))
    made = problem.problem()
    exact = made.manifold.sharp(x, made.manifold.project(x, problem.euclidean_gradient(x)))
    found = nf.hypergradient(made, x, y, estimator=estimator, solver=solver, certify=False)
    return relative(backend, found.gradient, exact)


@pytest.mark.parametrize("problem, estimator", list(cases()))
def test_exact_estimators(backend, like64, problem, estimator):
    assert gradient_error(backend, PROBLEMS[problem](like64), EXACT[estimator]) <= 1e-10


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize("name", PROBLEMS)
def test_many_unrolled_steps(backend, like64, name):
    """ITD converges to the exact hypergradient too."""
    problem = PROBLEMS[name](like64)
    if name == "map":
        assert gradient_error(backend, problem, nf.Unrolled(steps=200)) <= 1e-10
        return
    solver = nf.GradientDescent(step=nf.LanczosStep())
    assert gradient_error(backend, problem, nf.Unrolled(steps=200), solver) <= 1e-9


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "map"])
def test_first_order(backend, like64, name):
    """No second derivative, and six digits at the default penalty."""
    assert gradient_error(backend, PROBLEMS[name](like64), nf.FirstOrder()) <= 1e-6


def test_size_fifty_dense():
    """The direct solve up to d = 50 coordinates."""
    problem = logistic(like=np.zeros(()), n=200, p=50)
    assert gradient_error(nf.get_backend("numpy"), problem, nf.Implicit(nf.Dense())) <= 1e-12


# -- rates -----------------------------------------------------------------------------------------------


def quadratic(condition, n=40, seed=0):
    """½ yᵀ H y - x·y with H's eigenvalues from 1 to `condition`, as a Bilevel problem, with H."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    h = (q * np.geomspace(1.0, condition, n)) @ q.T
    c = rng.standard_normal(n)
    flat = nf.Euclidean(n)
    lower = nf.Argmin(lambda x, y: y @ (h @ y) / 2 - x @ y, flat)
    return nf.Bilevel(lambda x, y: c @ y + (y @ y) / 2, flat, lower), h, c


def errors_after(condition, make, counts):
    """Errors of the hypergradient at the exact lower answer, in the norm of H for comparison with theory."""
    problem, h, c = quadratic(condition)
    x = np.random.default_rng(1).standard_normal(len(c))
    y = np.linalg.solve(h, x)
    exact = np.linalg.solve(h, c + y)
    there = nf.External(lambda x, y: y, tol=1.0)
    found = (
        nf.hypergradient(problem, x, y, solver=there, estimator=nf.Implicit(make(k)), certify=False) for k in counts
    )
    return np.array([np.sqrt((f.gradient - exact) @ h @ (f.gradient - exact)) for f in found])


def rate(counts, errors):
    """exp of the slope of log error by regression."""
    return np.exp(np.polyfit(counts, np.log(errors), 1)[0])


@pytest.mark.parametrize("condition", [10.0, 100.0])
def test_rate_of_the_series(condition):
    """qᵏ with q = (κ - 1)/(κ + 1) at the best step 2/(1 + κ)."""
    counts = np.arange(40, 200, 20) if condition == 100 else np.arange(60, 110, 10)
    errors = errors_after(condition, lambda k: nf.Neumann(terms=int(k), step=2 / (1 + condition), tol=0), counts)
    assert rate(counts, errors) == pytest.approx((condition - 1) / (condition + 1), rel=0.01)


@pytest.mark.parametrize("condition", [10.0, 100.0])
def test_rate_of_conjugate_gradients(condition):
    """At most ((√κ - 1)/(√κ + 1))ᵏ, and not much better on a spectrum without clusters."""
    counts = np.arange(2, 20, 2)
    errors = errors_after(condition, lambda k: nf.CG(max_steps=int(k), tol=0), counts)
    bound = (np.sqrt(condition) - 1) / (np.sqrt(condition) + 1)
    assert rate(counts, errors) <= bound * 1.001
    assert rate(counts, errors) >= bound * 0.85
    first = errors_after(condition, lambda k: nf.CG(max_steps=int(k), tol=0), [0])[0]
    assert np.all(errors <= 2 * bound**counts * first)


def test_rate_of_chebyshev():
    """((√κ - 1)/(√κ + 1))ᵏ with the exact bounds."""
    counts = np.arange(10, 60, 10)
    errors = errors_after(100.0, lambda k: nf.Chebyshev(steps=int(k), bounds=(1.0, 100.0), tol=0), counts)
    assert rate(counts, errors) == pytest.approx(9 / 11, rel=0.02)


def test_the_hierarchy_of_grazzi():
    """At equal counts, the lower level not solved: CG better than the series, the series better than unrolling."""
    problem = logistic(like=np.zeros(()), n=100, p=20)
    x = np.random.default_rng(0).standard_normal(20) - 3
    values = np.linalg.eigvalsh(problem.matrix(x, problem.solution(x)))
    step, k = 2 / (values[0] + values[-1]), 20
    descent = nf.GradientDescent(step=float(step), max_steps=k, tol=0)
    exact, errors = problem.euclidean_gradient(x), []
    for estimator in (
        nf.Implicit(nf.CG(max_steps=k, tol=0)),
        nf.Implicit(nf.Neumann(terms=k, step=float(step), tol=0)),
        nf.Unrolled(steps=k),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nf.ConvergenceWarning)
            found = nf.hypergradient(problem.problem(), x, 0 * x, solver=descent, estimator=estimator, certify=False)
        errors.append(np.linalg.norm(found.gradient - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.9 * errors[1] < 0.9 * 0.9 * errors[2]
