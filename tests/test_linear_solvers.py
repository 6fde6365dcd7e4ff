"""Linear solvers, seen from outside: the adjoint of a quadratic lower level, its Hessian any matrix."""

import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad._space import Space
from nestfold.hypergrad._system import tangent_system
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic

EVERY = {"cg": nf.CG(), "neumann": nf.Neumann(), "dense": nf.Dense()}
every_solver = pytest.mark.parametrize("linear", EVERY.values(), ids=EVERY.keys())
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)


def positive(rng, n, condition=20.0):
    """A symmetric matrix with eigenvalues from 1/condition to 1."""
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (q * np.geomspace(1 / condition, 1, n)) @ q.T


def solved(linear, matrix, b, like=None, guess=None, symmetric=True):
    """`linear` on `matrix` v = b: what `hypergradient` calls its adjoint.

    The lower level is ½ yᵀ H y - x·y at x = 0, which y = 0 solves, or the field Aᵀ y - x; the upper one b·y.
    """
    like = np.zeros(()) if like is None else like
    asarray = nf.backend_of(like).asarray
    h, b = asarray(matrix, like=like), asarray(b, like=like)
    zeros = 0 * b

    def product(y):
        return (h @ y[..., None])[..., 0]

    def cost(x, y):
        return nf.namespace(x, y).sum(y * product(y) / 2 - x * y, axis=-1)

    def field(x, y):
        return (h.mT @ y[..., None])[..., 0] - x

    flat = nf.Euclidean(b.shape[-1])
    lower = nf.Argmin(cost, flat) if symmetric else nf.Root(field, flat, batch_ndim=b.ndim - 1)
    problem = nf.Bilevel(lambda x, y: nf.namespace(x, y).sum(b * y, axis=-1), flat, lower)
    there = nf.External(lambda x, y: y)
    guess = None if guess is None else asarray(guess, like=like)
    return adjoint(problem, zeros, zeros, linear, solver=there, adjoint=guess)


def adjoint(problem, x, y, linear, **options):
    """The linear solve of a hypergradient by `linear`."""
    found = nf.hypergradient(problem, x, y, estimator=nf.Implicit(linear), **options).adjoint
    assert found is not None
    return found


def reference_cg(matrix, b, steps):
    """The iterates of the textbook method."""
    v, r = np.zeros_like(b), b
    p, iterates = b, []
    for _ in range(steps):
        q = matrix @ p
        alpha = r @ r / (p @ q)
        v, new = v + alpha * p, r - alpha * q
        p, r = new + (new @ new) / (r @ r) * p, new
        iterates.append(v)
    return iterates


# -- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_solver
def test_solutions(backend, rng, linear, dtype):
    """On every backend, in both precisions, at the default settings, without a warning."""
    matrix, b = positive(rng, 6, 5.0), rng.standard_normal(6)
    found = solved(linear, matrix, b, like=backend.asarray(np.zeros((), dtype=dtype)))
    expected = np.linalg.solve(matrix, b)
    error = np.linalg.norm(backend.to_numpy(found.value) - expected) / np.linalg.norm(expected)
    assert error < (1e-12 if dtype == "float64" else 1e-5)
    assert bool(found.converged)
    assert str(found.value.dtype).endswith(dtype) and str(found.residual.dtype).endswith(dtype)


@pytest.mark.parametrize("guess", [False, True])
@every_solver
def test_nothing_on_the_right(linear, guess):
    """b = 0 is solved by 0, whatever the first guess."""
    rng = np.random.default_rng(0)
    matrix = positive(rng, 4)
    found = solved(linear, matrix, np.zeros(4), guess=np.zeros(4) if guess else None)
    np.testing.assert_array_equal(found.value, np.zeros(4))
    assert bool(found.converged) and float(found.residual) == 0
    assert int(found.steps) == (4 if isinstance(linear, nf.Dense) else 0)


@every_solver
def test_the_residual_is_that_of_the_value(linear):
    rng = np.random.default_rng(1)
    matrix, b = positive(rng, 6), rng.standard_normal(6)
    truncated = {"cg": nf.CG(tol=0, max_steps=3), "neumann": nf.Neumann(5, tol=0), "dense": nf.Dense()}
    linear = next(t for name, t in truncated.items() if type(t) is type(linear))
    found = solved(linear, matrix, b)
    assert float(found.residual) == pytest.approx(np.linalg.norm(b - matrix @ found.value), rel=1e-10, abs=1e-14)


def test_entries_of_a_batch_stop_by_themselves(backend, rng):
    """CG on systems of different condition, one of them trivial: values and steps of each alone."""
    like = backend.asarray(np.zeros(()))
    matrices = np.stack([positive(rng, 6, c) for c in (2.0, 50.0, 1000.0)] + [np.eye(6)])
    b = rng.standard_normal((4, 6)) * np.array([1.0, 1e-6, 1e4, 1.0])[:, None]
    found = solved(nf.CG(), matrices, b, like=like)
    steps = backend.to_numpy(found.steps)
    assert found.residual.shape == found.converged.shape == (4,)
    assert len(set(steps.tolist())) >= 3 and steps[3] == 1
    for i in range(4):
        alone = solved(nf.CG(), matrices[i], b[i])
        assert abs(int(alone.steps) - steps[i]) <= (0 if backend.name == "numpy" else 2)
        size = np.linalg.norm(alone.value)
        assert np.linalg.norm(backend.to_numpy(found.value)[i] - alone.value) < 1e-11 * size


@every_solver
def test_a_batch_holds_a_zero_beside_others(linear):
    rng = np.random.default_rng(2)
    matrices = np.stack([positive(rng, 4, 3.0)] * 2)
    b = np.stack([np.zeros(4), rng.standard_normal(4)])
    found = solved(linear, matrices, b)
    np.testing.assert_array_equal(found.value[0], 0)
    np.testing.assert_allclose(found.value[1], np.linalg.solve(matrices[1], b[1]), rtol=1e-11)
    assert found.converged.all()


# -- conjugate gradients -----------------------------------------------------------------------------------


def test_error_of_cg_after_k_steps():
    """Exactly k steps of the textbook method, within the bound 2 ((√κ - 1)/(√κ + 1))ᵏ in the energy norm."""
    rng = np.random.default_rng(3)
    matrix, b = positive(rng, 30, 100.0), rng.standard_normal(30)
    exact = np.linalg.solve(matrix, b)
    iterates, first = reference_cg(matrix, b, 12), exact @ matrix @ exact
    for k, expected in enumerate(iterates, start=1):
        found = solved(nf.CG(tol=0, max_steps=k), matrix, b)
        assert int(found.steps) == k
        np.testing.assert_allclose(found.value, expected, rtol=1e-9)
        error = found.value - exact
        assert error @ matrix @ error <= (2 * (9 / 11) ** k) ** 2 * first


def test_cg_is_done_after_as_many_steps_as_there_are_eigenvalues():
    rng = np.random.default_rng(4)
    q = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    matrix, b = (q * np.repeat([1.0, 5.0], 5)) @ q.T, rng.standard_normal(10)
    found = solved(nf.CG(), matrix, b)
    assert int(found.steps) == 2
    np.testing.assert_allclose(found.value, np.linalg.solve(matrix, b), rtol=1e-12)


@pytest.mark.parametrize("tol", [None, 0.5, 1e-3])
def test_cg_returns_its_last_iterate(tol):
    """hypertorch's CG returns the one before: for an isotropic Hessian, zero."""
    b = np.array([1.0, -2.0, 0.5])
    found = solved(nf.CG(tol=tol), 3 * np.eye(3), b)
    np.testing.assert_allclose(found.value, b / 3, rtol=1e-15)
    assert int(found.steps) == 1 and bool(found.converged)


@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-9])
def test_the_tolerance_of_cg_is_relative_to_the_right_hand_side(tol):
    rng = np.random.default_rng(5)
    matrix, b = positive(rng, 20, 200.0), 1e-3 * rng.standard_normal(20)
    found = solved(nf.CG(tol=tol), matrix, b)
    assert np.linalg.norm(b - matrix @ found.value) <= 1.001 * tol * np.linalg.norm(b)
    before = solved(nf.CG(tol=0, max_steps=int(found.steps) - 1), matrix, b)
    assert np.linalg.norm(b - matrix @ before.value) > tol * np.linalg.norm(b)
    guess = np.linalg.solve(matrix, b) * (1 + 10 * tol)
    warm = solved(nf.CG(tol=tol), matrix, b, guess=guess)  # also where the first residual is small already
    assert int(warm.steps) < int(found.steps)
    assert np.linalg.norm(b - matrix @ warm.value) <= 1.001 * tol * np.linalg.norm(b)


def test_the_absolute_tolerance_of_cg():
    rng = np.random.default_rng(6)
    matrix, b = positive(rng, 20, 200.0), rng.standard_normal(20)
    found = solved(nf.CG(atol=1e-2), matrix, b)
    assert 1e-6 < np.linalg.norm(b - matrix @ found.value) <= 1e-2
    assert bool(found.converged)


def test_cg_from_the_answer_takes_no_step():
    rng = np.random.default_rng(7)
    matrix, b = positive(rng, 10), rng.standard_normal(10)
    exact = np.linalg.solve(matrix, b)
    found = solved(nf.CG(tol=1e-12), matrix, b, guess=exact)
    assert int(found.steps) == 0 and bool(found.converged)
    np.testing.assert_array_equal(found.value, exact)
    far = solved(nf.CG(), matrix, b, guess=100 * rng.standard_normal(10))
    np.testing.assert_allclose(far.value, exact, rtol=1e-10)


@every_solver
def test_steps_that_were_asked_for_are_taken(linear):
    """`tol=0` takes all steps, without a warning, and without 0/0 once the residual is zero."""
    b = np.array([1.0, -2.0, 0.5])
    linear = {nf.CG: nf.CG(tol=0, max_steps=9), nf.Neumann: nf.Neumann(9, step=0.5, tol=0)}.get(type(linear), linear)
    found = solved(linear, 2 * np.eye(3), b)
    np.testing.assert_allclose(found.value, b / 2, rtol=1e-12)
    assert np.isfinite(found.residual)


def test_too_few_steps_are_told():
    rng = np.random.default_rng(8)
    matrix, b = positive(rng, 30, 1e4), rng.standard_normal(30)
    with pytest.warns(nf.ConvergenceWarning, match="the linear solve of the hypergradient.*after 5 steps"):
        found = solved(nf.CG(max_steps=5), matrix, b)
    assert not bool(found.converged) and int(found.steps) == 5
    two = np.stack([matrix, np.eye(30)])
    with pytest.warns(nf.ConvergenceWarning, match="1 of 2 problems"):
        found = solved(nf.CG(max_steps=5), two, np.stack([b, b]))
    assert found.converged.tolist() == [False, True]


@pytest.mark.parametrize("eigenvalues", [(1.0, -1.0), (2.0, -1.0, 3.0), (-1.0, -2.0)], ids=str)
def test_cg_does_not_vouch_for_an_indefinite_hessian(eigenvalues):
    """A saddle is no minimum: negative curvature is told, also where CG happens to reach a solution."""
    with pytest.warns(nf.ConvergenceWarning):
        found = solved(nf.CG(max_steps=50), np.diag(eigenvalues), np.ones(len(eigenvalues)))
    assert not bool(found.converged)
    assert np.isfinite(found.value).all()


def test_cg_is_cg_in_the_metric():
    """On SPD(3) far from I: done after dim = 6 steps. With the plain dot product it would be far off."""
    rng = np.random.default_rng(9)
    problem = synthetic(like=np.zeros(()), d=3, r=2, n=6, nu=1e-4)
    w, m = problem.start(rng)
    assert np.linalg.cond(problem.solution(w)) > 10
    exact = adjoint(problem.problem(), w, m, nf.Dense()).value
    found = adjoint(problem.problem(), w, m, nf.CG(tol=0, max_steps=6)).value
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error < 1e-8


# -- the Neumann series ------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [1, 2, 7, 30])
def test_truncated_series(terms):
    """v - v* = -(I - γH)ᵏ v*, to rounding."""
    rng = np.random.default_rng(10)
    matrix, b = positive(rng, 8), rng.standard_normal(8)
    exact, gamma = np.linalg.solve(matrix, b), 1.3
    found = solved(nf.Neumann(terms, step=gamma, tol=0), matrix, b)
    left = np.linalg.matrix_power(np.eye(8) - gamma * matrix, terms) @ exact
    np.testing.assert_allclose(found.value, exact - left, rtol=1e-12, atol=1e-13)
    assert int(found.steps) == terms


@pytest.mark.parametrize("terms", [1, 4])
def test_truncated_series_of_a_map(terms):
    """Σ_{i<k} (Wᵀ)ⁱ b for y = W y + x with W ≠ Wᵀ."""
    rng = np.random.default_rng(11)
    weight, b, zeros = rng.standard_normal((5, 5)), rng.standard_normal(5), np.zeros(5)
    weight *= 0.7 / np.linalg.norm(weight, 2)
    flat = nf.Euclidean(5)
    problem = nf.Bilevel(lambda x, y: b @ y, flat, nf.FixedPoint(lambda x, y: weight @ y + x, flat))
    found = adjoint(problem, zeros, zeros, nf.Neumann(terms))
    expected = sum(np.linalg.matrix_power(weight.T, i) @ b for i in range(terms))
    np.testing.assert_allclose(found.value, expected, rtol=1e-13)


def test_estimated_step_on_the_papers_problem():
    """50 terms: Han's step γ = 1 is tens of percent off, the best step 3e-6, that of ten products 2e-5."""
    problem = synthetic(like=np.zeros(()))
    w, m = problem.start(np.random.default_rng(0))
    m = problem.solution(w)

    exact, manifold = adjoint(problem.problem(), w, m, nf.CG()).value, nf.SPD(50)

    def error(linear):
        v = adjoint(problem.problem(), w, m, linear).value
        return float(manifold.norm(m, v - exact) / manifold.norm(m, exact))

    assert 0.1 < error(nf.Neumann(50, step=1.0)) < 0.4
    assert error(nf.Neumann(50, step=16.5)) < 5e-6
    assert error(nf.Neumann(50)) < 5e-5


def test_a_series_that_diverges_is_told():
    rng = np.random.default_rng(12)
    matrix, b = positive(rng, 5), rng.standard_normal(5)
    found = solved(nf.Neumann(3000, step=4.0), matrix, b)
    assert not bool(found.converged)
    assert np.isfinite(found.value).all()
    with pytest.warns(nf.ConvergenceWarning):
        solved(nf.Neumann(30, tol=1e-10), matrix * np.diag([1.0, -1.0, 1.0, 1.0, 1.0]), b)


# -- the direct solve --------------------------------------------------------------------------------------


def test_direct_solve_of_any_matrix(backend, rng):
    """A ≠ Aᵀ: an operator taken for its transpose would be seen."""
    like, matrix, b = backend.asarray(np.zeros(())), rng.standard_normal((5, 5)), rng.standard_normal(5)
    found = solved(nf.Dense(), matrix, b, like=like, symmetric=False)
    expected = np.linalg.solve(matrix, b)
    np.testing.assert_allclose(backend.to_numpy(found.value), expected, rtol=1e-11)
    assert np.abs(np.linalg.solve(matrix.T, b) - expected).max() > 0.1
    assert int(found.steps) == 5


def test_direct_solve_of_a_singular_matrix(backend):
    """A failure is data: no exception, `converged` false, a warning."""
    like = backend.asarray(np.zeros(()))
    with pytest.warns(nf.ConvergenceWarning):
        found = solved(nf.Dense(), np.diag([1.0, 0.0, 2.0]), np.ones(3), like=like)
    assert not bool(found.converged)


@numpy_only
def test_series_and_direct_solve_without_symmetry(backend, rng):
    matrix, b = np.eye(5) + 0.1 * rng.standard_normal((5, 5)), rng.standard_normal(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solved(nf.Neumann(200), matrix, b, symmetric=False)
    np.testing.assert_allclose(found.value, np.linalg.solve(matrix, b), rtol=1e-11)


def test_the_estimated_step_where_the_krylov_space_ends(backend, like64):
    """A Hessian that is a multiple of I, or a right-hand side that is an eigenvector: one Lanczos step says all."""
    start = backend.asarray(np.zeros(3), like=like64)

    def answer(x):
        level = nf.Argmin(lambda x, y: nf.namespace(x, y).sum((y - x) ** 2), nf.Euclidean(3))
        found = nf.solve(level, x, init=start, estimator=nf.Implicit(nf.Neumann()))
        return nf.namespace(found.value).sum(found.value)

    x = backend.asarray(np.ones(3), like=like64)
    np.testing.assert_allclose(backend.to_numpy(nf.grad(answer)(x)), np.ones(3), rtol=1e-12)


@pytest.mark.parametrize(
    "linear", [nf.CG, nf.MINRES, nf.GMRES, nf.BiCGStab, nf.NormalCG, nf.NeumannGMRES], ids=lambda kind: kind.__name__
)
def test_steps_beyond_convergence_do_no_harm(linear):
    """With `tol=0` the rest of a residual, rounding normal to the manifold, is not divided by nothing."""
    problem = synthetic(like=np.zeros(()), d=3, r=1, n=6)
    w, m = problem.start(np.random.default_rng(0))
    sphere = smallest_eigenvector(like=np.zeros(()))
    x, y = sphere.start(np.random.default_rng(0))
    for made, point, start, exact in (
        (problem.problem(), w, m, problem.euclidean_gradient(w)),
        (sphere.problem(), x, y, sphere.euclidean_gradient(x)),
    ):
        for steps in (20, 50, 500):
            estimator = nf.Implicit(linear(max_steps=steps, tol=0))
            found = nf.hypergradient(made, point, start, estimator=estimator, certify=False)
            error = found.covector - made.manifold.project(point, exact)
            assert np.abs(error).max() < 1e-12


@pytest.mark.parametrize("linear", [nf.CG(), nf.Neumann()], ids=["cg", "neumann"])
def test_no_false_answers(linear, rng):
    """An infinite right-hand side is not solved; a guess that is far off is not kept."""
    matrix, b = positive(rng, 6, 5.0), rng.standard_normal(6)
    backend = nf.get_backend("numpy")
    level = nf.Argmin(lambda y: y @ matrix @ y / 2, nf.Euclidean(6))
    system = tangent_system(backend, level, (), 0 * b, Space(backend))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's own
        assert not bool(linear.solve(system, np.where(np.arange(6) == 2, np.inf, b)).converged)
    found = linear.solve(system, b, 1e8 * b)
    assert bool(found.converged)
    assert np.linalg.norm(matrix @ found.value - b) <= 1e-13 * np.linalg.norm(b)
