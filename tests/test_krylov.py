"""Krylov solvers on systems given as such, against direct solves, SciPy's iterates and closed forms; `linear_solve`."""

import warnings

import numpy as np
import pytest
import scipy.sparse.linalg

import nestfold as nf
from nestfold.hypergrad._space import Space
from nestfold.hypergrad._system import solve_system, tangent_system
from nestfold.hypergrad.linear import System, default_linear
from nestfold.hypergrad.linear._base import unchanged

POSITIVE = {
    "cg": nf.CG(),
    "minres": nf.MINRES(),
    "gmres": nf.GMRES(),
    "gmres_restarted": nf.GMRES(restart=4),
    "bicgstab": nf.BiCGStab(),
    "normal_cg": nf.NormalCG(),
    "series": nf.NeumannGMRES(),
}
INDEFINITE = {name: POSITIVE[name] for name in ("minres", "gmres", "bicgstab", "normal_cg", "series")}
GENERAL = {name: POSITIVE[name] for name in ("gmres", "gmres_restarted", "bicgstab", "normal_cg", "series")}
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)
differentiable = pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)


def every(solvers):
    return pytest.mark.parametrize("solver", solvers.values(), ids=solvers.keys())


def spectrum(rng, eigenvalues):
    """A symmetric matrix with these eigenvalues."""
    q = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))[0]
    return (q * np.asarray(eigenvalues)) @ q.T


def nonsymmetric(rng, n):
    """Eigenvalues in the right half plane, far from normal: a triangular part beside the identity."""
    return 2 * np.eye(n) + np.triu(rng.standard_normal((n, n)), 1) / 2 + 0.3 * rng.standard_normal((n, n))


def system(like, matrix, batch=(), metric=None, self_adjoint=False, precondition=None):
    """`matrix` v = b, with covectors raised by the matrix `metric`."""
    backend = nf.backend_of(like)

    def times(m):
        if m is None:
            return unchanged
        m = backend.asarray(m, like=like)
        return lambda v: (m @ v[..., None])[..., 0]

    return System(
        space=Space(backend, batch),
        apply=times(matrix),
        transpose=times(np.swapaxes(matrix, -1, -2)),
        raise_=times(metric),
        project=unchanged,
        self_adjoint=self_adjoint,
        precondition=None if precondition is None else times(precondition),
    )


def solved(solver, matrix, b, like=None, guess=None, batch=(), **options):
    """`solver` on `matrix` v = b."""
    like = np.zeros(()) if like is None else like
    asarray = nf.backend_of(like).asarray
    guess = None if guess is None else asarray(guess, like=like)
    return solver.solve(system(like, matrix, batch, **options), asarray(b, like=like), guess)


def number(found):
    return float(nf.backend_of(found).to_numpy(found))


def close(found, expected, rtol):
    found = found.value if isinstance(found, nf.Solution) else found
    found = nf.backend_of(found).to_numpy(found)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= rtol, error


# -- solutions ---------------------------------------------------------------------------------------------


CASES = (
    [pytest.param("positive", s, id=f"positive-{name}") for name, s in POSITIVE.items()]
    + [pytest.param("indefinite", s, id=f"indefinite-{name}") for name, s in INDEFINITE.items()]
    + [pytest.param("general", s, id=f"general-{name}") for name, s in GENERAL.items()]
)


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kind", "solver"), CASES)
def test_solutions(backend, kind, solver, dtype):
    """At the default settings, in both precisions, within what rounding allows, and said to be so."""
    rng = np.random.default_rng(0)
    matrix = {
        "positive": spectrum(rng, np.geomspace(0.2, 2, 8)),
        "indefinite": spectrum(rng, [-2.0, -0.7, 0.5, 0.8, 1.0, 1.5, 1.7, 3.0]),
        "general": nonsymmetric(rng, 8),
    }[kind]
    b = rng.standard_normal(8)
    like = backend.asarray(np.zeros((), dtype=dtype))
    found = solved(solver, matrix, b, like=like, self_adjoint=kind != "general")
    close(found, np.linalg.solve(matrix, b), 1e-13 if dtype == "float64" else 1e-5)
    assert bool(found.converged) and 0 < int(found.steps) < 100
    left = np.linalg.norm(b - matrix @ backend.to_numpy(found.value))
    assert float(found.residual) == pytest.approx(left, abs=1e-13 if dtype == "float64" else 1e-5)
    assert str(found.value.dtype).endswith(dtype) and str(found.residual.dtype).endswith(dtype)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
@pytest.mark.parametrize(
    "solver",
    [nf.MINRES(), nf.GMRES(restart=6), pytest.param(nf.BiCGStab(), marks=pytest.mark.slow)]
    + [pytest.param(s, marks=pytest.mark.slow) for s in (nf.CG(), nf.NormalCG(), nf.NeumannGMRES())],
    ids=lambda s: type(s).__name__,
)
def test_compiled_solutions(backend, like64, solver):
    """Under `jax.jit`, a batch whose entries need different numbers of steps; values and steps are NumPy's."""
    import jax

    rng = np.random.default_rng(1)
    matrix = np.stack([spectrum(rng, np.geomspace(low, 1, 6)) for low in (0.9, 0.1)] + [np.eye(6)])
    b = rng.standard_normal((3, 6))
    compiled = jax.jit(lambda b: tuple(solved(solver, matrix, b, like=like64, batch=(3,), self_adjoint=True)))
    found = nf.Solution(*compiled(backend.asarray(b, like=like64)))
    plain = solved(solver, matrix, b, batch=(3,), self_adjoint=True)
    close(found, np.linalg.solve(matrix, b[..., None])[..., 0], 1e-12)
    assert bool(found.converged.all()) and int(found.steps[2]) <= 2
    assert np.abs(backend.to_numpy(found.steps) - plain.steps).max() <= 2


@numpy_only
@every(POSITIVE)
@pytest.mark.parametrize("kind", ["positive", "indefinite"])
def test_in_a_metric(backend, solver, kind):
    """The residual is measured in the metric, and the answer does not depend on it."""
    if kind == "indefinite" and solver not in INDEFINITE.values():
        solver = nf.GMRES(restart=6)
    rng = np.random.default_rng(2)
    eigenvalues = np.geomspace(0.2, 2, 6) * (np.array([1, 1, -1, 1, 1, 1]) if kind == "indefinite" else 1)
    matrix, metric = spectrum(rng, eigenvalues), spectrum(rng, np.geomspace(0.1, 10, 6))
    b = rng.standard_normal(6)
    found = solved(solver, matrix, b, metric=metric, self_adjoint=True)
    close(found, np.linalg.solve(matrix, b), 1e-12)
    assert bool(found.converged)
    coarse = solved(type(solver)(tol=1e-2), matrix, b, metric=metric, self_adjoint=True)
    r = b - matrix @ coarse.value
    assert float(coarse.residual) == pytest.approx(np.sqrt(r @ metric @ r), rel=1e-9)
    assert np.sqrt(r @ metric @ r) <= 1e-2 * np.sqrt(b @ metric @ b)


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize("which", ["spd", "sphere", "ball"])
@every(POSITIVE)
def test_on_tangent_spaces(backend, like64, which, solver):
    """The Hessian form of a strongly convex lower level at a point far from I: all agree with the direct solve."""
    rng = np.random.default_rng(3)
    manifold = {"spd": nf.SPD(3), "sphere": nf.Sphere(6), "ball": nf.PoincareBall(4)}[which]
    y = manifold.random_point(rng, like=like64)

    def cost(x, p):
        d = p - y
        return nf.namespace(p).sum(d * d) / 2 + nf.namespace(p).sum(x * p) / 100

    space, level = Space(backend), nf.Argmin(cost, manifold)
    x = backend.noise(rng, tuple(y.shape), like=y)
    at = tangent_system(backend, level, (x,), y, space)
    b = manifold.project(y, backend.noise(rng, tuple(y.shape), like=y))
    expected = solve_system(nf.Dense(), at, b).value
    assert which != "spd" or np.linalg.cond(backend.to_numpy(y)) > 3
    found = solve_system(solver, at, b)
    close(found, backend.to_numpy(expected), 1e-10)
    assert bool(found.converged)
    off = found.value - manifold.project(y, found.value)
    assert np.abs(backend.to_numpy(off)).max() < 1e-13


@numpy_only
@every(POSITIVE)
def test_trees(backend, solver):
    """One problem of two leaves is that of one longer vector; complex leaves are pairs of real ones."""
    rng = np.random.default_rng(4)
    root = rng.standard_normal((6, 6)) + 1j * rng.standard_normal((6, 6))
    matrix, b = root @ root.conj().T / 6 + np.eye(6), rng.standard_normal(6) + 1j * rng.standard_normal(6)

    def apply(tree):
        joined = matrix @ np.concatenate([tree["a"], tree["b"].reshape(-1)])
        return {"a": joined[:2], "b": joined[2:].reshape(2, 2)}

    at = System(
        space=Space(backend), apply=apply, transpose=apply, raise_=unchanged, project=unchanged, self_adjoint=True
    )
    found = solver.solve(at, {"a": b[:2], "b": b[2:].reshape(2, 2)})
    close(np.concatenate([found.value["a"], found.value["b"].reshape(-1)]), np.linalg.solve(matrix, b), 1e-12)
    assert bool(found.converged) and found.residual.dtype == np.float64


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@every(POSITIVE)
def test_a_batch_is_its_entries(backend, like64, solver):
    """Entries of very different size and condition, one of them zero: values and steps are those of each alone."""
    rng = np.random.default_rng(5)
    matrix = np.stack([spectrum(rng, np.geomspace(low, 1, 6)) for low in (0.9, 0.3, 0.05)] + [np.eye(6)] * 2)
    b = rng.standard_normal((5, 6)) * np.array([1.0, 1e-9, 1e5, 1.0, 0.0])[:, None]
    found = solved(solver, matrix, b, like=like64, batch=(5,), self_adjoint=True)
    steps, values = backend.to_numpy(found.steps), backend.to_numpy(found.value)
    assert found.converged.shape == found.residual.shape == (5,) and bool(found.converged.all())
    assert len(set(steps.tolist())) >= 3 and steps[4] == 0 and steps[3] <= 2
    for i in range(4):
        alone = solved(solver, matrix[i], b[i], self_adjoint=True)
        assert abs(int(alone.steps) - steps[i]) <= 3
        close(values[i], alone.value, 1e-12)
    np.testing.assert_array_equal(values[4], 0)


@numpy_only
@every(POSITIVE)
def test_warm_starts(backend, solver):
    rng = np.random.default_rng(6)
    matrix, b = spectrum(rng, np.geomspace(0.1, 1, 40)), rng.standard_normal(40)
    exact = np.linalg.solve(matrix, b)
    at_once = solved(type(solver)(tol=1e-12), matrix, b, guess=exact, self_adjoint=True)
    assert int(at_once.steps) == 0 and bool(at_once.converged)
    close(at_once, exact, 1e-15)
    cold = solved(type(solver)(tol=1e-8), matrix, b, self_adjoint=True)
    warm = solved(type(solver)(tol=1e-8), matrix, b, guess=exact * (1 + 1e-6), self_adjoint=True)
    assert int(warm.steps) < int(cold.steps)
    close(warm, exact, 1e-6)
    close(solved(solver, matrix, b, guess=1e3 * rng.standard_normal(40), self_adjoint=True), exact, 1e-11)
    nothing = solved(solver, matrix, 0 * b, self_adjoint=True)
    np.testing.assert_array_equal(nothing.value, 0)
    assert bool(nothing.converged) and int(nothing.steps) == 0 and float(nothing.residual) == 0


@numpy_only
@pytest.mark.parametrize("solver", [nf.CG(), nf.MINRES(), nf.GMRES(), nf.BiCGStab()], ids=lambda s: type(s).__name__)
def test_a_preconditioner_saves_steps(backend, solver):
    """Condition 1e6 by its diagonal alone; the residual is measured in the metric as before."""
    rng = np.random.default_rng(7)
    scales = np.geomspace(1e-3, 1, 40)
    matrix = scales[:, None] * spectrum(rng, np.geomspace(0.5, 1, 40)) * scales
    b = matrix @ rng.standard_normal(40)
    with_it, metric = np.diag(scales**-2.0), np.diag(np.geomspace(0.5, 2, 40))
    found = solved(solver, matrix, b, self_adjoint=True, precondition=with_it, metric=metric)
    assert bool(found.converged) and int(found.steps) < 30
    r = b - matrix @ found.value
    assert np.sqrt(r @ metric @ r) <= 1e-13 * np.sqrt(b @ metric @ b)
    assert int(solved(solver, matrix, b, self_adjoint=True, metric=metric).steps) > 2 * int(found.steps)
    exact = solved(solver, matrix, b, self_adjoint=True, precondition=np.linalg.inv(matrix))
    assert int(exact.steps) <= 4 and bool(exact.converged)


@numpy_only
@pytest.mark.parametrize("solver", [nf.GMRES(), nf.BiCGStab()], ids=lambda s: type(s).__name__)
def test_a_preconditioner_without_symmetry(backend, solver):
    """From the right: M is close to A⁻¹, not to its transpose."""
    rng = np.random.default_rng(8)
    matrix = nonsymmetric(rng, 30) * np.geomspace(1, 1e3, 30)
    inverse = np.linalg.inv(matrix) @ (np.eye(30) + 0.02 * rng.standard_normal((30, 30)))
    b = rng.standard_normal(30)
    found = solved(solver, matrix, b, precondition=inverse)
    assert bool(found.converged) and int(found.steps) <= 15
    assert np.linalg.norm(b - matrix @ found.value) <= 1e-12 * np.linalg.norm(b)


# -- the iterates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gmres", "gmres_restarted", "minres", "bicgstab"])
@pytest.mark.parametrize("steps", [1, 3, 8, 10])
def test_residuals_are_those_of_scipy(kind, steps):
    """After `steps` steps of each method from zero."""
    rng = np.random.default_rng(9)
    n = 25
    matrix = spectrum(rng, np.linspace(-1, 3, n) + 0.01) if kind == "minres" else nonsymmetric(rng, n)
    b = rng.standard_normal(n)
    sparse = scipy.sparse.linalg
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "gmres":
            solver = nf.GMRES(tol=0, max_steps=steps)
            expected = sparse.gmres(matrix, b, rtol=0, restart=steps, maxiter=1)[0]
        elif kind == "gmres_restarted":
            solver = nf.GMRES(restart=4, tol=0, max_steps=steps)
            expected = np.zeros(n)
            for begun in range(0, steps, 4):
                expected = sparse.gmres(matrix, b, expected, rtol=0, restart=min(4, steps - begun), maxiter=1)[0]
        elif kind == "minres":
            solver = nf.MINRES(tol=0, max_steps=steps)
            expected = sparse.minres(matrix, b, rtol=0, maxiter=steps)[0]
        else:
            solver = nf.BiCGStab(tol=0, max_steps=steps)
            matrix = matrix / 4 + 2 * np.eye(n)
            expected = sparse.bicgstab(matrix, b, rtol=0, maxiter=steps)[0]
    found = solved(solver, matrix, b, self_adjoint=kind == "minres")
    assert int(found.steps) == steps
    assert float(found.residual) == pytest.approx(np.linalg.norm(b - matrix @ expected), rel=1e-8)
    close(found, expected, 1e-7)


def test_minimal_residuals():
    """GMRES and MINRES leave the least over the Krylov space; normal CG over that of AᵀA; in the metric too."""
    rng = np.random.default_rng(10)
    n, k = 12, 5
    matrix, b = spectrum(rng, np.linspace(-1, 2, n) + 0.05), rng.standard_normal(n)
    metric = spectrum(rng, np.geomspace(0.2, 5, n))
    root = np.linalg.cholesky(metric).T  # the norm of a covector is that of root @ r
    operator = metric @ matrix
    for solver, first, power in (
        (nf.GMRES(tol=0, max_steps=k), metric @ b, operator),
        (nf.MINRES(tol=0, max_steps=k), metric @ b, operator),
        (nf.NormalCG(tol=0, max_steps=k), operator @ metric @ b, operator @ operator),
    ):
        basis = [first / np.linalg.norm(first)]
        for _ in range(k - 1):
            basis.append(power @ basis[-1])
            basis[-1] = basis[-1] / np.linalg.norm(basis[-1])
        left = np.linalg.lstsq(root @ matrix @ np.stack(basis, axis=-1), root @ b, rcond=None)[1]
        found = solved(solver, matrix, b, metric=metric, self_adjoint=True)
        assert float(found.residual) == pytest.approx(np.sqrt(left[0]), rel=1e-8)


def test_cg_keeps_its_rate():
    """((√κ - 1)/(√κ + 1))ᵏ: the slope of the energy error on Chebyshev's points, equally loaded, its worst case."""
    kappa, n = 100.0, 400
    eigenvalues = (kappa + 1 + (kappa - 1) * np.cos((np.arange(n) + 0.5) * np.pi / n)) / (2 * kappa)
    errors, counts = [], (10, 20, 30, 40, 50)
    for k in counts:
        found = solved(nf.CG(tol=0, max_steps=k), np.diag(eigenvalues), np.sqrt(eigenvalues), self_adjoint=True)
        errors.append(np.log(np.linalg.norm(np.sqrt(eigenvalues) * found.value - 1)))
    slope = np.polyfit(counts, errors, 1)[0]
    assert slope == pytest.approx(np.log((np.sqrt(kappa) - 1) / (np.sqrt(kappa) + 1)), rel=0.01)


def test_gmres_ends_after_as_many_steps_as_there_are_eigenvalues():
    """Happy breakdown: the Krylov space is exhausted, the answer exact; not a 0/0."""
    rng = np.random.default_rng(12)
    q = rng.standard_normal((9, 9))
    matrix = q @ np.diag(np.repeat([1.0, 3.0, -2.0], 3)) @ np.linalg.inv(q)
    b = rng.standard_normal(9)
    found = solved(nf.GMRES(tol=1e-12), matrix, b)
    assert int(found.steps) == 3 and bool(found.converged)
    close(found, np.linalg.solve(matrix, b), 1e-11)
    asked = solved(nf.GMRES(tol=0, max_steps=9), matrix, b)
    close(asked, np.linalg.solve(matrix, b), 1e-11)


def test_small_problems_are_solved_exactly_by_default():
    """n = 60 > 30, indefinite: restarts after 30 steps do not get there, a basis of n does, after n steps."""
    rng = np.random.default_rng(20)
    matrix = spectrum(rng, np.geomspace(1e-3, 1, 60) * np.where(np.arange(60) % 3, 1, -1))
    b = rng.standard_normal(60)
    found = solved(nf.GMRES(), matrix, b)
    assert bool(found.converged) and int(found.steps) <= 61
    close(found, np.linalg.solve(matrix, b), 1e-10)
    assert not bool(solved(nf.GMRES(restart=30), matrix, b).converged)
    large = solved(nf.GMRES(tol=0, max_steps=31), np.diag(np.linspace(1, 2, 101)), np.ones(101))
    again = solved(nf.GMRES(tol=0, max_steps=31, restart=30), np.diag(np.linspace(1, 2, 101)), np.ones(101))
    np.testing.assert_array_equal(large.value, again.value)


def test_eager_loops_stop_within_a_cycle():
    """As many products as steps, one more for the residual."""
    rng = np.random.default_rng(13)
    calls = []
    matrix, b = np.eye(40) + 0.01 * rng.standard_normal((40, 40)), rng.standard_normal(40)
    at = System(
        space=Space(nf.get_backend("numpy")),
        apply=lambda v: calls.append(0) or matrix @ v,
        transpose=lambda v: matrix.T @ v,
        raise_=unchanged,
        project=unchanged,
        self_adjoint=False,
    )
    found = nf.GMRES(tol=1e-10).solve(at, b)
    assert 3 < int(found.steps) < 15 and len(calls) == int(found.steps) + 1


@pytest.mark.parametrize("scale", [1e-170, 1e170, 1e-310])
@every(POSITIVE)
def test_no_square_is_too_small_or_too_large(solver, scale):
    """Cotangents of 1e-170: their squares are 0 in float64, and every step length 0/0."""
    rng = np.random.default_rng(14)
    matrix, b = spectrum(rng, np.geomspace(0.3, 1, 6)), rng.standard_normal(6)
    with np.errstate(under="ignore"):
        found = solved(solver, matrix, scale * b, self_adjoint=True)
    exact = np.linalg.solve(matrix, b)
    # subnormal numbers have few digits; what is too small for them all is not told from 0
    assert np.abs(found.value / scale - exact).max() < (1e-12 if scale == 1e-310 else 1e-13)
    two = solved(solver, np.stack([matrix] * 2), np.stack([b, 1e-170 * b]), batch=(2,), self_adjoint=True)
    assert np.abs(two.value * np.array([[1], [1e170]]) - exact).max() < 1e-13
    assert two.converged.all()


# -- what has no solution, or none that the method finds ---------------------------------------------------


def test_minres_solves_where_cg_fails():
    rng = np.random.default_rng(15)
    matrix, b = spectrum(rng, [-3.0, -1.0, 0.5, 1.0, 2.0, 4.0]), rng.standard_normal(6)
    assert not bool(solved(nf.CG(), matrix, b, self_adjoint=True).converged)
    b = np.array([1.0, 1.0])  # the first direction of CG has curvature 0
    saddle = np.diag([1.0, -1.0])
    stuck = solved(nf.CG(), saddle, b, self_adjoint=True)
    assert not bool(stuck.converged) and np.isfinite(stuck.value).all()
    found = solved(nf.MINRES(), saddle, b, self_adjoint=True)
    close(found, np.array([1.0, -1.0]), 1e-15)
    assert int(found.steps) == 2 and bool(found.converged)


@every(POSITIVE)
def test_a_singular_system_with_a_solution(solver):
    """b in the range: a solution, though the matrix has none for others."""
    rng = np.random.default_rng(16)
    matrix = spectrum(rng, [0.0, 0.0, 0.5, 0.8, 1.0, 1.3])
    b = matrix @ rng.standard_normal(6)
    found = solved(solver, matrix, b, self_adjoint=True)
    assert bool(found.converged)
    close(matrix @ found.value, b, 1e-13)
    close(found, np.linalg.pinv(matrix, rcond=1e-8) @ b, 1e-12)


@every({name: s for name, s in POSITIVE.items() if name != "cg"})
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_singular_system_without_solution(solver, symmetric):
    """Finite, soon over, and said not to be converged; minimal residual methods leave the distance to the range."""
    if solver.needs_self_adjoint and not symmetric:
        solver = nf.GMRES(restart=3)
    rng = np.random.default_rng(17)
    matrix = spectrum(rng, [0.0, 0.0, 0.5, 0.8, 1.0, 1.3])
    if not symmetric:
        matrix = matrix @ nonsymmetric(rng, 6)
    b = rng.standard_normal(6)
    found = solved(solver, matrix, b, self_adjoint=symmetric)
    assert not bool(found.converged) and np.isfinite(found.value).all()
    assert int(found.steps) < 500 or isinstance(solver, nf.BiCGStab)
    assert np.abs(found.value).max() < 1e15
    distance = np.linalg.norm(b - matrix @ np.linalg.lstsq(matrix, b, rcond=1e-8)[0])
    if isinstance(solver, (nf.MINRES, nf.NormalCG)):
        assert float(found.residual) == pytest.approx(distance, rel=1e-7)
        assert np.abs(found.value).max() < 100
    assert float(found.residual) >= distance * (1 - 1e-12)


@every(GENERAL)
def test_a_skew_symmetric_system(solver):
    """r·A r = 0 breaks BiCGStab down at once: it says so. The others solve it."""
    matrix, b = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([1.0, 2.0])
    found = solved(solver, matrix, b)
    if isinstance(solver, nf.BiCGStab):
        assert not bool(found.converged) and np.isfinite(found.value).all()
        assert np.isfinite(found.residual)
    else:
        assert bool(found.converged)
        close(found, np.array([-2.0, 1.0]), 1e-14)


def test_bicgstab_begins_again_after_a_breakdown():
    """The shadow residual is orthogonal to A r at the first step, not at the second."""
    matrix, b = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 0.5, 2.0]]), np.array([1.0, 0.0, 0.0])
    assert b @ matrix @ b == 0
    matrix = matrix + 0.5 * np.outer([0, 1, 0], [0, 1, 0])
    found = solved(nf.BiCGStab(), matrix, b)
    assert bool(found.converged)
    close(found, np.linalg.solve(matrix, b), 1e-13)


@every(POSITIVE)
def test_what_is_not_finite(solver):
    """NaN in the operator or the right-hand side: not converged, no exception, no endless loop."""
    matrix, b = np.diag([1.0, 2.0, np.nan]), np.ones(3)
    with np.errstate(all="ignore"):
        assert not bool(solved(solver, matrix, b, self_adjoint=True).converged)
        found = solved(solver, np.eye(3), np.array([1.0, np.nan, 1.0]), self_adjoint=True)
        assert not bool(found.converged)
        two = solved(solver, np.eye(3), np.array([[1.0, np.nan, 1.0], [1.0, 2.0, 3.0]]), batch=(2,), self_adjoint=True)
    assert two.converged.tolist() == [False, True]
    close(two.value[1], np.array([1.0, 2.0, 3.0]), 1e-15)


def test_settings_that_make_no_sense():
    for kind in (nf.CG, nf.MINRES, nf.GMRES, nf.BiCGStab, nf.NormalCG, nf.NeumannGMRES):
        for options in ({"tol": -1.0}, {"atol": -1.0}, {"max_steps": -1}):
            with pytest.raises(ValueError, match=f"{kind.__name__}: {next(iter(options))} must be"):
                kind(**options)  # pyright: ignore[reportArgumentType]
        assert kind().has_tolerance and not kind(tol=0).has_tolerance
        assert kind().needs_self_adjoint == (kind in (nf.CG, nf.MINRES))
    with pytest.raises(ValueError, match="GMRES: restart must be at least 1"):
        nf.GMRES(restart=0)
    with pytest.raises(ValueError, match="NeumannGMRES: contraction must be less than 1"):
        nf.NeumannGMRES(contraction=1.0)


# -- defaults ----------------------------------------------------------------------------------------------


def test_defaults():
    flat = nf.Euclidean(2)
    assert default_linear(nf.Argmin(lambda y: y @ y, flat)) == nf.CG()
    assert default_linear(nf.Root(lambda y: y, flat)) == nf.GMRES()
    assert default_linear(nf.Root(lambda y: y, flat, self_adjoint_field=True)) == nf.MINRES()
    assert default_linear(nf.FixedPoint(lambda y: y, flat)) == nf.NeumannGMRES()


@numpy_only
@pytest.mark.parametrize("radius", [0.3, 0.95, 3.0])
def test_series_while_it_contracts(backend, radius):
    """J of spectral radius 0.3: the series. 0.95: fewer products than the series. 3: it diverges, GMRES goes on."""
    rng = np.random.default_rng(18)
    jacobian = rng.standard_normal((20, 20))
    jacobian = jacobian * radius / np.abs(np.linalg.eigvals(jacobian)).max()
    matrix, b = np.eye(20) - jacobian, rng.standard_normal(20)
    found = solved(nf.NeumannGMRES(), matrix, b)
    close(found, np.linalg.solve(matrix, b), 1e-11)
    assert bool(found.converged)
    series = np.log(2e-15) / np.log(radius) if radius < 1 else 500
    assert int(found.steps) < min(1.5 * series, 60)
    both = solved(
        nf.NeumannGMRES(), np.stack([matrix, np.eye(20) - 0.2 * jacobian / radius]), np.stack([b, b]), batch=(2,)
    )
    assert both.converged.all()
    close(both.value[0], found.value, 1e-11)


def test_a_root_that_is_a_saddle():
    """The gradient of a game's potential: symmetric and indefinite, solved by MINRES without a warning."""
    weights = np.array([[2.0, 1.0], [1.0, -3.0]])
    level = nf.Root(lambda x, y: weights @ y - x**2, nf.Euclidean(2), self_adjoint_field=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jacobian = nf.jacobian(lambda x: nf.solve(level, x, init=np.zeros(2)).value)(np.array([1.0, 2.0]))
    close(jacobian, np.linalg.solve(weights, np.diag([2.0, 4.0])), 1e-13)


# -- linear_solve ------------------------------------------------------------------------------------------


def powers(rng, like):
    """t ↦ c·A(t)⁻¹ b(t) with A(t) = A + t² B, b(t) = t b, and its derivatives 0 to 3 at 0.4, by its own recursion."""
    asarray = nf.backend_of(like).asarray
    a0, b0 = nonsymmetric(rng, 4), rng.standard_normal((4, 4))
    b, c, t = rng.standard_normal(4), rng.standard_normal(4), 0.4
    at = a0 + t**2 * b0
    # Σ_j binomial A⁽ʲ⁾ v⁽ᵏ⁻ʲ⁾ = b⁽ᵏ⁾, with A' = 2tB, A'' = 2B
    v = [np.linalg.solve(at, t * b)]
    v.append(np.linalg.solve(at, b - 2 * t * b0 @ v[0]))
    v.append(-np.linalg.solve(at, 4 * t * b0 @ v[1] + 2 * b0 @ v[0]))
    v.append(-np.linalg.solve(at, 6 * t * b0 @ v[2] + 6 * b0 @ v[1]))
    plain, moving, right, weights = (asarray(m, like=like) for m in (a0, b0, b, c))

    def function(t, **options):
        return weights @ nf.linear_solve(lambda p, v: (plain + p * p * moving) @ v, t, right * t, **options).value

    return function, asarray(t, like=like), [c @ derivative for derivative in v]


@pytest.mark.parametrize("backend", ["numpy", "torch", "array_api_strict"], indirect=True)
@pytest.mark.parametrize("solver", [None, nf.BiCGStab(), nf.NormalCG()], ids=["default", "bicgstab", "normal_cg"])
def test_three_derivatives_of_a_linear_solve(backend, like64, rng, solver):
    function, t, expected = powers(rng, like64)

    def derivative(t):
        return function(t, solver=solver)

    for value in expected:
        assert number(derivative(t)) == pytest.approx(value, rel=1e-11)
        derivative = nf.grad(derivative)
    first = nf.jvp(lambda t: function(t, solver=solver), (t,), (1 + 0 * t,))[1]
    assert number(first) == pytest.approx(expected[1], rel=1e-11)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_three_derivatives_of_a_linear_solve_in_jax(backend, like64, rng):
    import jax

    function, t, expected = powers(rng, like64)

    def all_of_them(t):
        first, second = jax.grad(function), jax.grad(jax.grad(function))
        return function(t), first(t), second(t), jax.jvp(second, (t,), (1 + 0 * t,))[1]

    for found, value in zip(jax.jit(all_of_them)(t), expected, strict=True):
        assert number(found) == pytest.approx(value, rel=1e-11)


@differentiable
def test_linear_solve_of_trees_and_batches(backend, like64, rng):
    """Parameters and right-hand side are trees, two axes of problems; each cotangent against its closed form."""
    matrix = np.stack([nonsymmetric(rng, 3) for _ in range(4)])
    b, c = rng.standard_normal((2, 4, 3))
    parameters = {"m": backend.asarray(matrix, like=like64), "s": (backend.asarray(np.array(2.0), like=like64),)}
    right = [backend.asarray(b, like=like64)]
    weights = backend.asarray(c, like=like64)

    def product(p, v):
        return [p["s"][0] * (p["m"] @ v[0][..., None])[..., 0]]

    def function(p, right):
        found = nf.linear_solve(product, p, right, batch_ndim=1)
        assert found.converged.shape == (4,)
        return nf.namespace(found.value[0]).sum(weights * found.value[0])

    bars = nf.grad(function, argnums=(0, 1))(parameters, right)
    v = np.linalg.solve(2 * matrix, b[..., None])[..., 0]
    u = np.linalg.solve(2 * np.swapaxes(matrix, -1, -2), c[..., None])[..., 0]
    close(bars[1][0], u, 1e-12)
    close(bars[0]["m"], -2 * u[..., :, None] * v[..., None, :], 1e-12)
    close(bars[0]["s"][0], np.asarray(-np.sum(u * (matrix @ v[..., None])[..., 0])), 1e-12)


@differentiable
def test_complex_linear_solve(backend, rng):
    """A complex matrix without symmetry: b̄ = A⁻ᴴ c, Ā = -b̄ vᴴ, by the real inner product."""
    matrix = nonsymmetric(rng, 3) + 1j * rng.standard_normal((3, 3)) / 2
    b, c = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    a, right, weights = (backend.asarray(m) for m in (matrix, b, c))

    def function(a, right):
        v = nf.linear_solve(lambda p, v: p @ v, a, right).value
        xp = nf.namespace(v)
        return xp.sum(xp.real(xp.conj(weights) * v))

    a_bar, b_bar = nf.grad(function, argnums=(0, 1))(a, right)
    v, u = np.linalg.solve(matrix, b), np.linalg.solve(matrix.conj().T, c)
    close(b_bar, u, 1e-12)
    close(a_bar, -np.outer(u, v.conj()), 1e-12)


@differentiable
def test_what_the_product_captured_gets_its_gradient(backend, like64, rng):
    """An array of the enclosing function that is being differentiated: hoisted, never a silent zero."""
    matrix, b = (backend.asarray(m, like=like64) for m in (nonsymmetric(rng, 3), rng.standard_normal(3)))

    def function(s):
        return nf.namespace(s).sum(nf.linear_solve(lambda p, v: s * (p @ v), matrix, b).value)

    s = backend.asarray(np.array(2.0), like=like64)
    total = np.linalg.solve(backend.to_numpy(matrix), backend.to_numpy(b)).sum()
    assert number(nf.grad(function)(s)) == pytest.approx(-total / 4, rel=1e-12)
    assert number(nf.grad(nf.grad(function))(s)) == pytest.approx(total / 4, rel=1e-12)


def test_linear_solve_in_torch():
    """Native autograd, first and second order, also through `torch.func`."""
    import torch

    rng = np.random.default_rng(19)
    matrix = torch.tensor(nonsymmetric(rng, 3), requires_grad=True)
    b = torch.tensor(rng.standard_normal(3), requires_grad=True)

    def function(matrix, b):
        return nf.linear_solve(lambda p, v: p @ v, matrix, b).value

    assert torch.autograd.gradcheck(function, (matrix, b)) and torch.autograd.gradgradcheck(function, (matrix, b))
    m, right = matrix.detach(), b.detach()
    transposed = np.linalg.solve(m.numpy().T, np.ones(3))
    close(torch.func.grad(lambda b: function(m, b).sum())(right), transposed, 1e-13)
    close(torch.func.jacrev(lambda b: function(m, b))(right), np.linalg.inv(m.numpy()), 1e-13)
    weight = torch.nn.Parameter(m.clone())
    nf.linear_solve(lambda p, v: weight @ v, right, right).value.sum().backward()
    assert weight.grad is not None
    close(weight.grad, -np.outer(transposed, np.linalg.solve(m.numpy(), right.numpy())), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_linear_solve_in_jax(backend, like64, rng):
    """jacfwd, jacrev, vmap and jit in each other; captured tracers; complex vectors."""
    import jax
    import jax.numpy as jnp

    matrix = nonsymmetric(rng, 3)
    a, b = backend.asarray(matrix, like=like64), backend.asarray(rng.standard_normal((4, 3)), like=like64)

    def function(a, b):
        return nf.linear_solve(lambda p, v: p @ v, a, b).value

    expected = -np.einsum("ij,k->ijk", np.linalg.inv(matrix), np.linalg.solve(matrix, b[0]))
    for jacobian in (jax.jacfwd, jax.jacrev):
        close(jacobian(function)(a, b[0]), expected, 1e-13)
    close(jax.vmap(lambda b: function(a, b))(b), np.linalg.solve(matrix, b.T).T, 1e-13)
    slopes = jax.jit(jax.vmap(jax.grad(lambda b: jnp.sum(function(a, b) ** 2))))(b)
    close(slopes, 2 * np.linalg.solve(matrix.T, np.linalg.solve(matrix, b.T)).T, 1e-12)
    s = jnp.asarray(2.0, dtype=a.dtype)
    captured = jax.grad(lambda s: nf.linear_solve(lambda p, v: s * (p @ v), a, b[0]).value.sum())(s)
    close(captured, -np.linalg.solve(matrix, b[0]).sum() / 4, 1e-12)
    c, tilted = b[1] + 1j * b[2], a + 1j * jnp.eye(3)
    slope = nf.grad(lambda b: jnp.real(jnp.vdot(c, function(tilted, b))))(c * (1 + 2j))
    close(slope, np.linalg.solve(np.asarray(tilted).conj().T, c), 1e-12)


@numpy_only
def test_linear_solve_self_adjoint(backend, rng):
    """MINRES by default, CG where asked; the guess saves steps and gets no derivative; the steps are told."""
    matrix, b = spectrum(rng, np.geomspace(0.1, 1, 8)), rng.standard_normal(8)
    exact = np.linalg.solve(matrix, b)
    for solver in (None, nf.CG()):
        found = nf.linear_solve(lambda p, v: p @ v, matrix, b, self_adjoint=True, solver=solver)
        close(found, exact, 1e-13)
        assert bool(found.converged) and int(found.steps) >= 8 - 1
        warm = nf.linear_solve(lambda p, v: p @ v, matrix, b, self_adjoint=True, solver=solver, init=exact)
        assert int(warm.steps) < int(found.steps)
    slope = nf.grad(lambda s: np.sum(nf.linear_solve(lambda p, v: p @ v, matrix, b, init=s * exact).value))(1.0 + b[0])
    assert float(slope) == 0


@numpy_only
def test_linear_solve_refuses(backend):
    matrix, b = 2 * np.eye(3), np.ones(3)

    def product(p, v):
        return p @ v

    with pytest.raises(TypeError, match="CG needs a symmetric operator"):
        nf.linear_solve(product, matrix, b, solver=nf.CG())
    with pytest.raises(TypeError, match="solver must be a LinearSolver"):
        nf.linear_solve(product, matrix, b, solver="cg")  # pyright: ignore[reportArgumentType]
    with pytest.raises(nf.ShapeError, match=r"product\(parameters, v\) has shapes \[\(2,\)\]; b has \[\(3,\)\]"):
        nf.linear_solve(product, matrix[:2], b)
    with pytest.raises(nf.ShapeError, match="init has shapes"):
        nf.linear_solve(product, matrix, b, init=np.ones(2))
    with pytest.raises(nf.ShapeError, match="do not share 1 leading axes"):
        nf.linear_solve(product, matrix, np.ones(()), batch_ndim=1)
    with pytest.raises(nf.DTypeError, match="b has dtype int64"):
        nf.linear_solve(product, matrix, np.ones(3, dtype=np.int64))
    with pytest.raises(ValueError, match="must be linear"):
        nf.linear_solve(lambda p, v: p @ v + 1, matrix, b)
    with pytest.warns(nf.ConvergenceWarning, match="linear_solve by GMRES"):
        found = nf.linear_solve(product, np.diag([1.0, 0.0, 1.0]), b)
    assert not bool(found.converged)


@numpy_only
@every(INDEFINITE)
def test_what_is_not_finite_is_not_converged(backend, like64, solver):
    for bad in (float("inf"), float("nan")):
        b = backend.asarray(np.array([bad, 1.0, 2.0]), like=like64)
        found = solver.solve(system(like64, np.diag([1.0, 2.0, 3.0]), self_adjoint=True), b)
        assert not found.converged
        assert not np.isfinite(found.residual)


@numpy_only
@every(INDEFINITE)
@pytest.mark.parametrize("factor", [1e8, float("nan")])
def test_a_guess_that_is_worse_than_none_is_dropped(backend, like64, rng, solver, factor):
    """Rounding of the size of the guess would stay in the answer; from one that is not finite there is no way back."""
    a, b = spectrum(rng, np.linspace(1, 20, 12)), rng.standard_normal(12)
    guess = backend.asarray(factor * b, like=like64)
    found = solver.solve(system(like64, a, self_adjoint=True), backend.asarray(b, like=like64), guess)
    assert found.converged
    assert np.linalg.norm(found.value - np.linalg.solve(a, b)) <= 1e-13


@every(GENERAL)
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_units_in_float32(backend, like32, rng, solver, size):
    """κ = 4; the squares of squares that normal equations take would be 0 or infinite."""
    a = spectrum(rng, np.linspace(0.5, 2, 6)) @ np.diag([1, 1, 1, -1, 1, 1])
    b = rng.standard_normal(6)
    for matrix, metric in ((size * a, None), (a, size * np.eye(6))):
        found = solver.solve(system(like32, matrix, metric=metric), backend.asarray(b, like=like32))
        assert backend.to_numpy(found.converged)
        right = np.linalg.solve(matrix, b)
        assert np.linalg.norm(backend.to_numpy(found.value) - right) <= 1e-5 * np.linalg.norm(right)
