"""Linear solvers that live on what is known of the spectrum: series, semi-iteration, low rank; identity, direct."""

import itertools

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad._space import Space
from nestfold.hypergrad.linear import (
    CG,
    Chebyshev,
    Dense,
    Identity,
    Neumann,
    Nystrom,
    Preconditioned,
    System,
)
from nestfold.hypergrad.linear._flat import flat
from nestfold.hypergrad.linear._lanczos import extreme_eigenvalues, lanczos
from nestfold.hypergrad.linear.nystrom import low_rank
from nestfold.hypergrad.problems import synthetic

numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)
EXACT = {
    "neumann": Neumann(),
    "chebyshev": Chebyshev(),
    "nystrom": Nystrom(6),
    "dense": Dense(),
    "preconditioned chebyshev": Preconditioned(Chebyshev(), by=Nystrom(2)),
    "preconditioned neumann": Preconditioned(Neumann(), by=Nystrom(2)),
}
exact_solvers = pytest.mark.parametrize("linear", EXACT.values(), ids=EXACT.keys())


def matrix_of(rng, eigenvalues):
    """A symmetric matrix with these eigenvalues."""
    n = len(eigenvalues)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (q * eigenvalues) @ q.T


def positive(rng, n, condition=20.0):
    return matrix_of(rng, np.geomspace(1 / condition, 1, n))


def system(h, raised=None, backend=None, self_adjoint=True, precondition=None):
    """The system of the form `h` where `raised` is the inverse metric; leading axes are a batch."""
    backend = nf.get_backend("numpy") if backend is None else backend
    raised = np.broadcast_to(np.eye(h.shape[-1]), h.shape) if raised is None else raised

    def by(m):
        return lambda v: (m @ v[..., None])[..., 0]

    return System(
        space=Space(backend, tuple(h.shape[:-2])),
        apply=by(h),
        transpose=by(h.mT),
        raise_=by(raised),
        project=lambda v: v,
        self_adjoint=self_adjoint,
        precondition=precondition,
    )


def eigenvalues_of(h, raised):
    """Those of raised h, ascending."""
    return np.sort(np.linalg.eigvals(raised @ h).real)


def relative_error(found, expected):
    return np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)


def adjoint(problem, x, y, linear, **options):
    """The linear solve of a hypergradient by `linear`."""
    found = nf.hypergradient(problem, x, y, estimator=nf.Implicit(linear), **options).adjoint
    assert found is not None
    return found


# -- all of them -------------------------------------------------------------------------------------------


def three_problems(rng):
    """Three systems of different condition and scale, one of them trivial, in three metrics."""
    h = np.stack([positive(rng, 6, c) for c in (2.0, 15.0, 5.0)]) * np.array([1.0, 1e3, 1e-2])[:, None, None]
    raised = np.stack([positive(rng, 6, c) for c in (3.0, 1.0, 2.0)])
    b = rng.standard_normal((3, 6)) * np.array([1.0, 0.0, 1e5])[:, None]
    return h, raised, b, np.linalg.solve(h, b[..., None])[..., 0]


@exact_solvers
def test_a_batch_in_a_metric(backend, like64, rng, linear):
    h, raised, b, expected = three_problems(rng)
    solve = backend.jit(lambda h, raised, b: linear.solve(system(h, raised, backend), b))
    found = solve(*(backend.asarray(a, like=like64) for a in (h, raised, b)))
    values = backend.to_numpy(found.value)
    assert (np.linalg.norm(values - expected, axis=-1) <= 1e-11 * np.linalg.norm(expected, axis=-1)).all()
    assert found.steps.shape == found.converged.shape == found.residual.shape == (3,)
    assert backend.to_numpy(found.converged).all()
    left = b - (h @ values[..., None])[..., 0]
    residual = np.sqrt(np.einsum("bi,bij,bj->b", left, raised, left))
    difference = np.abs(backend.to_numpy(found.residual) - residual)
    assert (difference <= 1e-15 * np.linalg.norm(b, axis=-1)).all()


@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize("backend", ["numpy", "torch", "array_api_strict"], indirect=True)
@exact_solvers
def test_single_precision(backend, rng, linear, scale):
    """float32 in, float32 out; the square of 1e-25 is 0 there."""
    h, raised, b, expected = three_problems(rng)
    h, raised, b = (backend.asarray(a.astype("float32")) for a in (h, raised, scale * b))
    found = linear.solve(system(h, raised, backend), b)
    assert str(found.value.dtype).endswith("float32") and str(found.residual.dtype).endswith("float32")
    error = np.linalg.norm(backend.to_numpy(found.value) / scale - expected, axis=-1)
    assert (error <= 1e-5 * np.linalg.norm(expected, axis=-1)).all()
    assert backend.to_numpy(found.converged).all()


@exact_solvers
def test_an_entry_of_a_batch_is_what_it_is_alone(linear):
    rng = np.random.default_rng(0)
    h, b = np.stack([positive(rng, 6, c) for c in (2.0, 15.0, 5.0)]), rng.standard_normal((3, 6))
    found = linear.solve(system(h), b)
    for i in range(3):
        alone = linear.solve(system(h[i]), b[i])
        np.testing.assert_allclose(found.value[i], alone.value, rtol=1e-11)
        assert abs(int(found.steps[i]) - int(alone.steps)) <= (10 if "chebyshev" in str(linear).lower() else 2)


@exact_solvers
def test_from_a_guess(linear):
    rng = np.random.default_rng(1)
    h, raised, b = positive(rng, 6), positive(rng, 6), rng.standard_normal(6)
    expected = np.linalg.solve(h, b)
    found = linear.solve(system(h, raised), b, 50 * rng.standard_normal(6))
    assert relative_error(found.value, expected) < 1e-11
    warm, cold = (linear.solve(system(h, raised), b, g) for g in (expected * (1 + 1e-9), None))
    assert int(warm.steps) <= int(cold.steps)
    nothing = linear.solve(system(h, raised), 0 * b, expected)
    assert np.linalg.norm(nothing.value) < 1e-11


@pytest.mark.parametrize("operator", [1.0, 1e-170, 1e150])
@pytest.mark.parametrize("right", [1e-170, 1e-300, 1e200])
@exact_solvers
def test_no_square_underflows_or_overflows(linear, right, operator):
    """b · b is 0 or infinite here, and so is ‖H b‖²."""
    rng = np.random.default_rng(2)
    h, b = positive(rng, 6), rng.standard_normal(6)
    if right / operator < 1e-300 or right / operator > 1e300:
        operator = 1.0
    found = linear.solve(system(operator * h), right * b)
    assert relative_error(found.value / (right / operator), np.linalg.solve(h, b)) < 1e-12
    assert bool(found.converged)
    assert float(found.residual) < 1e-11 * right


@pytest.mark.parametrize("linear", [*EXACT.values(), Identity()], ids=[*EXACT.keys(), "identity"])
def test_what_is_not_finite_ends_at_once(linear):
    """The last finite iterate, or NaN of a direct solve: data, no exception."""
    h = np.full((3, 3), np.nan)
    with np.errstate(invalid="ignore"):
        found = linear.solve(system(h), np.ones(3))
    assert not bool(found.converged)
    if isinstance(linear, Neumann | Chebyshev):
        np.testing.assert_array_equal(found.value, 0)
        assert int(found.steps) <= 10


@pytest.mark.parametrize("linear", [*EXACT.values(), Identity()], ids=[*EXACT.keys(), "identity"])
def test_no_coordinates_at_all(linear):
    """Of an empty manifold the answer is the empty vector, one problem or a batch."""
    for batch in ((), (2,)):
        found = linear.solve(system(np.zeros((*batch, 0, 0))), np.zeros((*batch, 0)))
        assert found.value.shape == (*batch, 0) and found.residual.shape == batch
        assert found.converged.all() and (found.residual == 0).all()


@exact_solvers
def test_complex_vectors(linear):
    """A Hermitian form on Cⁿ; the pairing is Re⟨conj(a), b⟩."""
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)))[0]
    h = (q * np.array([0.2, 0.5, 1.0])) @ q.conj().T
    b = rng.standard_normal(3) + 1j * rng.standard_normal(3)
    found = linear.solve(system(h, np.eye(3)), b)
    assert relative_error(found.value, np.linalg.solve(h, b)) < 1e-12
    assert found.residual.dtype == np.float64
    assert int(found.steps) == 6 or isinstance(linear, Neumann | Chebyshev | Preconditioned)


def tree_problem(like, rng):
    """A lower level on a tree, a Euclidean and an SPD leaf coupled by one cost; κ of the Hessian about 10."""
    asarray = nf.backend_of(like).asarray
    a, m, t = (
        asarray(p, like=like) for p in (positive(rng, 3, 4.0), positive(rng, 2, 3.0), rng.standard_normal((2, 2)))
    )

    def lower(x, y):
        xp = nf.namespace(x, y["s"])
        s, p = y["s"], y["p"]
        coupled = xp.sum(x * s) * xp.sum(m * p) / 5
        return xp.sum(s * (a @ s)) + xp.sum(m * p) + xp.sum(xp.linalg.inv(p)) + xp.sum(xp.linalg.inv(p) * m) + coupled

    def upper(x, y):
        xp = nf.namespace(x, y["s"])
        return xp.sum(t * y["p"]) + xp.sum(y["s"] ** 3) + xp.sum(y["s"])

    manifold = nf.Product({"s": nf.Euclidean(3), "p": nf.SPD(2)})
    start = {"s": asarray(np.zeros(3), like=like), "p": asarray(np.eye(2), like=like)}
    return nf.Bilevel(upper, nf.Euclidean(3), nf.Argmin(lower, manifold)), asarray(np.ones(3) / 3, like=like), start


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_trees_in_the_metric(backend, like64, rng):
    problem, x, start = tree_problem(like64, rng)
    reference = adjoint(problem, x, start, nf.CG()).value
    for name, linear in EXACT.items():
        linear = Nystrom(7) if name == "nystrom" else linear
        found = adjoint(problem, x, start, linear)
        for key in ("s", "p"):
            ours, theirs = (backend.to_numpy(v[key]) for v in (found.value, reference))
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10, err_msg=name)


@numpy_only
@exact_solvers
def test_a_batch_on_the_papers_manifold(backend, like64, linear):
    """SPD(3) far from I, two problems at once; the ambient space has nine coordinates, the tangent space six."""
    problem = synthetic(like=like64, d=3, r=2, n=9, nu=1e-2)
    rng = np.random.default_rng(4)
    w = nf.Stiefel(3, 2).random_point(rng, batch=(2,), like=like64)
    m = problem.solution(w)
    assert np.linalg.cond(m).max() > 3
    linear = Nystrom(9) if isinstance(linear, Nystrom) else linear
    reference = adjoint(problem.problem(), w, m, nf.CG()).value
    np.testing.assert_allclose(adjoint(problem.problem(), w, m, linear).value, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("linear", [Chebyshev(), Nystrom(20), Preconditioned(Chebyshev(), by=Nystrom(4))], ids=str)
def test_derivatives_of_a_solution(backend, like64, rng, linear):
    """`grad` through `solve`: y = (I + x xᵀ)⁻¹ x, sum y² against the closed form x / (1 + x·x)."""
    if backend.name == "jax" and isinstance(linear, Preconditioned):
        linear = Nystrom(4)
    x = backend.asarray(rng.standard_normal(4), like=like64)

    def answer(x):
        def cost(x, y):
            xp = nf.namespace(x, y)
            return xp.sum(y**2) / 2 + xp.sum(x * y) ** 2 / 2 - xp.sum(x * y)

        found = nf.solve(nf.Argmin(cost, nf.Euclidean(4)), x, init=0 * x, estimator=nf.Implicit(linear))
        return nf.namespace(found.value).sum(found.value**2)

    p = backend.to_numpy(x)
    s = p @ p
    expected = 2 * p / (1 + s) ** 2 - 4 * s * p / (1 + s) ** 3
    np.testing.assert_allclose(backend.to_numpy(backend.jit(nf.grad(answer))(x)), expected, rtol=1e-9)


# -- the spectrum ------------------------------------------------------------------------------------------


def test_lanczos_decomposition():
    """H V = V T + β v eₖᵀ: Ritz values, orthonormal pairs, residuals of the Ritz vectors."""
    rng = np.random.default_rng(5)
    h, raised = positive(rng, 20, 1e3), positive(rng, 20, 50.0)
    found = lanczos(system(h, raised), rng.standard_normal(20), 8)
    w, v = found.covectors, found.vectors
    np.testing.assert_allclose(v, w @ raised, atol=1e-12)
    np.testing.assert_allclose(w @ v.T, np.eye(8), atol=1e-13)
    small = v @ h @ v.T
    np.testing.assert_allclose(np.linalg.eigvalsh(small), found.values, atol=1e-14)
    ritz = found.coefficients.T @ v
    left = ritz @ h - found.values[:, None] * (found.coefficients.T @ w)
    residuals = np.sqrt(np.einsum("ki,ij,kj->k", left, raised, left))
    np.testing.assert_allclose(residuals, found.residuals, atol=1e-13)
    true = eigenvalues_of(h, raised)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.abs(true - value).min() <= residual + 1e-14
    assert found.lowest >= true[0] - 1e-14 and true[-1] <= found.highest < 1.05 * true[-1]
    assert np.abs(true - found.lowest).min() <= found.lowest_residual
    pairs = found.basis
    np.testing.assert_array_equal([a for a, _ in pairs], w)
    np.testing.assert_array_equal([a for _, a in pairs], v)


def test_lanczos_where_the_krylov_space_ends():
    """Two eigenvalues, three steps and more; an eigenvector; a multiple of I; zero."""
    rng = np.random.default_rng(6)
    h = matrix_of(rng, np.repeat([1.0, 5.0], 5))
    found = lanczos(system(h), rng.standard_normal(10), 6)
    assert found.lowest == pytest.approx(1, rel=1e-13) and found.highest == pytest.approx(5, rel=1e-13)
    assert (found.values > 1 - 1e-13).all() and (found.values < 5 + 1e-13).all()
    low, high = extreme_eigenvalues(system(3e-200 * np.eye(4)), np.ones(4))
    assert low == pytest.approx(3e-200, rel=1e-12) and high == pytest.approx(3e-200, rel=1e-12)
    assert lanczos(system(h), np.zeros(10), 3).highest == 0


def test_lanczos_in_a_tangent_space_smaller_than_the_steps():
    """The sphere: with more steps than dimensions no eigenvalue 0 of the normal direction comes in."""
    rng = np.random.default_rng(7)
    y = np.linalg.qr(rng.standard_normal((8, 1)))[0]
    p = np.eye(8) - y @ y.T
    h = p @ positive(rng, 8, 4.0) @ p
    tangent = System(
        Space(nf.get_backend("numpy")), lambda v: h @ v, lambda v: h @ v, lambda w: w, lambda v: p @ v, True
    )
    low, high = extreme_eigenvalues(tangent, p @ rng.standard_normal(8), 8)
    true = np.linalg.eigvalsh(h)
    assert low == pytest.approx(true[1], rel=1e-12) and high == pytest.approx(true[-1], rel=1e-12)


def test_extremes_that_the_right_hand_side_does_not_see():
    """b lies in the eigenspace of the small eigenvalue: the noise finds the large one, and the series stays finite."""
    rng = np.random.default_rng(8)
    q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    values = np.array([1.0] * 6 + [40.0] * 6)
    h, b = (q * values) @ q.T, q[:, 0] + q[:, 1]
    low, high = extreme_eigenvalues(system(h), b)
    assert low == pytest.approx(1, rel=1e-10) and high == pytest.approx(40, rel=1e-10)
    for linear in (Neumann(200, tol=0), Chebyshev(200, tol=0)):
        assert relative_error(linear.solve(system(h), b).value, b) < 1e-3


# -- the Neumann series ------------------------------------------------------------------------------------


def slope(errors):
    """The factor by which errors shrink with each step, by regression of their logarithm."""
    return np.exp(np.polyfit(np.arange(len(errors)), np.log(errors), 1)[0])


def test_rate_of_the_series():
    """QᵏAt the best step (κ - 1)/(κ + 1), in a metric; the estimated step comes within a few percent of it."""
    rng = np.random.default_rng(9)
    h, raised, b = positive(rng, 12, 10.0), positive(rng, 12, 2.0), rng.standard_normal(12)
    true, expected = eigenvalues_of(h, raised), np.linalg.solve(h, b)
    factor = (true[-1] / true[0] - 1) / (true[-1] / true[0] + 1)
    for step in (2 / (true[0] + true[-1]), None):
        errors = [
            np.linalg.norm(Neumann(k, step, 0).solve(system(h, raised), b).value - expected) for k in range(40, 121, 8)
        ]
        assert np.log(slope(errors)) / 8 == pytest.approx(np.log(factor), rel=0.05)


def test_the_estimated_step_on_the_papers_problem():
    """50 terms: within twice the error of the best step, 16.5, which is 3e-6."""
    problem = synthetic(like=np.zeros(()))
    w, _ = problem.start(np.random.default_rng(0))
    m, manifold = problem.solution(w), nf.SPD(50)
    exact = adjoint(problem.problem(), w, m, nf.CG()).value

    def error(linear):
        v = adjoint(problem.problem(), w, m, linear).value
        return float(manifold.norm(m, v - exact) / manifold.norm(m, exact))

    best = error(Neumann(50, step=16.5))
    assert best < 5e-6
    assert error(Neumann(50)) < 2 * best
    assert error(Chebyshev(50, tol=0)) < 1e-11


@pytest.mark.parametrize("seed", [49, 136, 245])
def test_an_estimated_step_that_is_too_long_is_shortened(seed):
    """A cluster of large eigenvalues of which ten products miss the last: γ h > 2, and the series would diverge."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([np.full(8, 1e-3), rng.uniform(1, 1.1, 32)])
    h, b, raised = matrix_of(rng, values), rng.standard_normal(40), positive(rng, 40, 5.0)
    low, high = extreme_eigenvalues(system(h, raised), b)
    step = float(2 / (low + high))
    assert step * eigenvalues_of(h, raised)[-1] > 2.02
    plain = float(Neumann(3000, step, 0).solve(system(h, raised), b).residual)
    found = Neumann(3000, tol=0).solve(system(h, raised), b)
    assert int(found.steps) == 3000
    assert float(found.residual) < 0.1 * np.sqrt(b @ raised @ b) < 1e-20 * plain


def test_series_with_a_preconditioner_without_symmetry():
    """The preconditioned Richardson iteration v ← v + M (b - A v), A ≠ Aᵀ."""
    rng = np.random.default_rng(10)
    a = 5 * np.eye(6) + 0.5 * rng.standard_normal((6, 6))
    b, m = rng.standard_normal(6), np.linalg.inv(a + 0.3 * rng.standard_normal((6, 6)))
    plain = system(a, self_adjoint=False)
    assert not bool(Neumann(30).solve(plain, b).converged)
    found = Neumann().solve(system(a, self_adjoint=False, precondition=lambda r: m @ r), b)
    assert bool(found.converged) and relative_error(found.value, np.linalg.solve(a, b)) < 1e-12
    two = Neumann(2, tol=0).solve(system(a, self_adjoint=False, precondition=lambda r: m @ r), b)
    np.testing.assert_allclose(two.value, m @ b + m @ (b - a @ (m @ b)), rtol=1e-12)


# -- the Chebyshev semi-iteration --------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [10.0, 100.0])
def test_rate_of_the_semi_iteration(condition):
    """((√κ - 1)/(√κ + 1))ᵏ, below the bound 1 / T_k, in a metric."""
    rng = np.random.default_rng(11)
    h, raised, b = positive(rng, 30, condition), positive(rng, 30, 2.0), rng.standard_normal(30)
    true, expected = eigenvalues_of(h, raised), np.linalg.solve(h, b)
    root = np.sqrt(true[-1] / true[0])
    factor = (root - 1) / (root + 1)
    counts, errors = np.arange(3, int(25 / -np.log(factor)), 3), []
    for k in counts:
        found = Chebyshev(int(k), (true[0], true[-1]), 0).solve(system(h, raised), b)
        assert int(found.steps) == k
        errors.append(np.linalg.norm(found.value - expected))
        bound = 2 * factor**k / (1 + factor ** (2 * k)) * np.sqrt(b @ raised @ b)
        assert float(found.residual) <= bound * (1 + 1e-6)
    assert np.log(slope(errors)) / 3 == pytest.approx(np.log(factor), rel=0.05)


@pytest.mark.parametrize("condition", [10.0, 1e2, 1e3, 1e4])
def test_estimated_bounds_are_nearly_as_good_as_the_true_ones(condition):
    """Ten products do not see the smallest eigenvalue; what the residual tells on the way makes up for it."""
    rng = np.random.default_rng(11)
    h, b = positive(rng, 60, condition), rng.standard_normal(60)
    found, best = (Chebyshev(bounds=bounds, tol=1e-10).solve(system(h), b) for bounds in (None, (1 / condition, 1.0)))
    assert bool(found.converged)
    assert int(found.steps) + 10 <= 1.5 * int(best.steps)


def test_the_semi_iteration_is_the_textbook_one():
    """Residual polynomials T_k((θ - h)/δ) / T_k(θ/δ), also across the looks at the residual."""
    rng = np.random.default_rng(12)
    values = np.array([0.3, 1.0, 2.0, 2.9])
    b = rng.standard_normal(4)
    for k in (1, 2, 9, 10, 13, 20):
        found = Chebyshev(k, (0.25, 3.0), 0).solve(system(np.diag(values)), b)
        polynomial = np.polynomial.chebyshev.Chebyshev.basis(k)
        theta, delta = (3.0 + 0.25) / 2, (3.0 - 0.25) / 2
        left = polynomial((theta - values) / delta) / polynomial(theta / delta)
        np.testing.assert_allclose(found.value, (1 - left) * b / values, rtol=1e-10)


WRONG = {(0.3, 1.0): 2, (0.5, 0.5): 3, (1e-4, 1.0): 15, (0.02, 0.1): 5, (2e-3, 2e-3): 5, (50.0, 100.0): 20}


@pytest.mark.parametrize(("bounds", "times"), WRONG.items(), ids=str)
def test_bounds_that_are_wrong_are_widened(bounds, times):
    """Eigenvalues from 0.01 to 1: a `low` too high, a `high` too low, both on one side. Too wide only costs steps."""
    rng = np.random.default_rng(13)
    h, b = positive(rng, 15, 100.0), rng.standard_normal(15)
    found = Chebyshev(bounds=bounds).solve(system(h), b)
    assert bool(found.converged)
    assert relative_error(found.value, np.linalg.solve(h, b)) < 1e-10
    best = Chebyshev(bounds=(0.01, 1.0)).solve(system(h), b)
    assert int(found.steps) <= times * int(best.steps)


def test_an_indefinite_operator_is_told():
    h, b = np.diag([1.0, -0.5, 2.0]), np.ones(3)
    for bounds in (None, (0.5, 2.0)):
        found = Chebyshev(200, bounds, 1e-8).solve(system(h), b)
        assert not bool(found.converged)
        assert np.isfinite(found.value).all() and float(found.residual) <= np.linalg.norm(b)


def test_the_tolerance_of_the_semi_iteration():
    rng = np.random.default_rng(14)
    h, b = positive(rng, 15, 50.0), rng.standard_normal(15)
    found = Chebyshev(tol=1e-4).solve(system(h), b)
    assert bool(found.converged) and float(found.residual) <= 1e-4 * np.linalg.norm(b)
    before = Chebyshev(int(found.steps) - 10, tol=0).solve(system(h), b)
    assert float(before.residual) > 1e-4 * np.linalg.norm(b)
    assert Chebyshev(tol=1e-4).has_tolerance and not Chebyshev(20).has_tolerance and Chebyshev().has_tolerance


# -- low rank ----------------------------------------------------------------------------------------------


def test_low_rank_of_all_dimensions_is_exact():
    rng = np.random.default_rng(15)
    for n, condition, limit in ((5, 1e4, 1e-10), (25, 1e2, 1e-11), (40, 1e6, 1e-8)):
        h, raised, b = positive(rng, n, condition), positive(rng, n, 5.0), rng.standard_normal(n)
        for rank in (n, n + 7):
            found = Nystrom(rank).solve(system(h, raised), b)
            assert relative_error(found.value, np.linalg.solve(h, b)) < limit
            assert int(found.steps) == n
    shifted = Nystrom(40, shift=0.1).solve(system(h, raised), b)
    expected = np.linalg.solve(h + 0.1 * np.linalg.inv(raised), b)
    assert relative_error(shifted.value, expected) < 1e-10


def test_the_error_falls_with_the_rank():
    """‖(H_k + ρ)⁻¹ - (H + ρ)⁻¹‖ ≤ E / (ρ (E + ρ)), E = ‖H - H_k‖, itself within the bound on its mean.

    Frangella, Tropp & Udell 2023, prop. 3.1 and 2.2.
    """
    rng = np.random.default_rng(16)
    values, rho = 1.5 ** -np.arange(40.0), 1e-3
    h, b = matrix_of(rng, values), rng.standard_normal(40)
    expected, errors = np.linalg.solve(h + rho * np.eye(40), b), []
    for rank in (4, 8, 12, 16, 20, 24):
        linear = Nystrom(rank, shift=rho)
        found = low_rank(system(h), b, np.random.default_rng(0).standard_normal((rank, 40)))
        left = np.linalg.norm(h - (found.vectors.T * found.values) @ found.vectors, 2)
        mean = min(
            (1 + 2 * p / (rank - p - 1)) * values[p] + 2 * np.e**2 * rank / ((rank - p) ** 2 - 1) * values[p:].sum()
            for p in range(rank - 2)
        )
        assert values[rank] <= left <= mean
        errors.append(np.linalg.norm(linear.solve(system(h), b).value - expected))
        assert errors[-1] <= 1.001 * left / (rho * (left + rho)) * np.linalg.norm(b)
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.5 * errors[0]


def test_low_rank_of_an_operator_of_low_rank_with_a_shift():
    """Hataya & Yamada's case: (H + ρ I)⁻¹ b is exact from as many products as H has rank, ρ apart."""
    rng = np.random.default_rng(17)
    c, b, rho = rng.standard_normal((30, 6)), rng.standard_normal(30), 0.05
    h = c @ c.T
    for rank in (6, 10):
        found = Nystrom(rank, shift=rho).solve(system(h), b)
        assert relative_error(found.value, np.linalg.solve(h + rho * np.eye(30), b)) < 1e-9


def test_one_seed_on_every_backend(backend, like64):
    """The same sketch, hence the same low-rank answer as on NumPy; another seed gives another."""
    rng = np.random.default_rng(18)
    h, raised, b = positive(rng, 12, 30.0), positive(rng, 12, 3.0), rng.standard_normal(12)
    expected = Nystrom(4).solve(system(h, raised), b)
    solve = backend.jit(lambda h, raised, b: Nystrom(4).solve(system(h, raised, backend), b))
    found = solve(*(backend.asarray(a, like=like64) for a in (h, raised, b)))
    np.testing.assert_allclose(backend.to_numpy(found.value), expected.value, rtol=1e-11)
    assert relative_error(Nystrom(4, noise=1).solve(system(h, raised), b).value, expected.value) > 1e-3


def test_noise_as_an_array():
    rng = np.random.default_rng(19)
    h, b = np.stack([positive(rng, 8, 30.0)] * 2), rng.standard_normal((2, 8))
    drawn = np.random.default_rng(0).standard_normal((3, 8))
    noise = np.stack([drawn, drawn], axis=1)
    expected = Nystrom(3).solve(system(h), b)
    for rank in (3, None):
        np.testing.assert_allclose(Nystrom(rank, noise=noise).solve(system(h), b).value, expected.value, rtol=1e-12)
    with pytest.raises(nf.ShapeError, match="noise has the shapes"):
        Nystrom(3, noise=drawn).solve(system(h), b)
    with pytest.raises(nf.ShapeError, match="noise has the shapes"):
        Nystrom(4, noise=noise).solve(system(h), b)


def test_the_preconditioner_is_symmetric_and_positive():
    """In a metric, with eigenvalues over twelve orders of magnitude, negative ones among them."""
    rng = np.random.default_rng(20)
    values = np.geomspace(1e-12, 1, 20)
    raised = positive(rng, 20, 10.0)
    for h in (matrix_of(rng, values), matrix_of(rng, np.where(values > 0.1, -values, values))):
        inverse = Nystrom(12).preconditioner(system(h, raised), np.zeros(20))
        m = np.stack([inverse(e) for e in np.eye(20)])
        np.testing.assert_allclose(m, m.T, atol=1e-7 * np.abs(m).max())
        assert np.linalg.eigvalsh((m + m.T) / 2)[0] > 0


def test_preconditioned_conjugate_gradients_take_fewer_steps():
    """A few large eigenvalues: their number of products spares most of the steps."""
    rng = np.random.default_rng(21)
    values = np.concatenate([np.geomspace(10.0, 1e4, 12), np.linspace(0.5, 1.5, 68)])
    h, raised, b = matrix_of(rng, values), positive(rng, 80, 2.0), rng.standard_normal(80)
    plain = CG(1e-10).solve(system(h, raised), b)
    found = Preconditioned(CG(1e-10), by=Nystrom(20)).solve(system(h, raised), b)
    assert relative_error(found.value, np.linalg.solve(h, b)) < 1e-9
    assert bool(found.converged) and int(found.steps) + 20 < 0.7 * int(plain.steps)


# -- no solve ----------------------------------------------------------------------------------------------


def test_identity(backend, like64, rng):
    """Scale · raise_(b) with the true residual; b itself where there is no metric."""
    h, raised, b = positive(rng, 6), positive(rng, 6), rng.standard_normal(6)
    solve = backend.jit(lambda h, raised, b: Identity(0.7).solve(system(h, raised, backend), b))
    found = solve(*(backend.asarray(a, like=like64) for a in (h, raised, b)))
    expected = 0.7 * raised @ b
    np.testing.assert_allclose(backend.to_numpy(found.value), expected, rtol=1e-13)
    left = b - h @ expected
    assert float(found.residual) == pytest.approx(np.sqrt(left @ raised @ left), rel=1e-12)
    assert int(found.steps) == 1 and not bool(found.converged)
    exact = Identity(0.5).solve(system(2 * np.linalg.inv(raised), raised), b)
    assert bool(exact.converged) and not Identity().has_tolerance and not Identity().needs_self_adjoint
    preconditioned = Preconditioned(Identity(), by=Nystrom(3)).solve(system(h, raised), b)
    np.testing.assert_allclose(preconditioned.value, Nystrom(3).solve(system(h, raised), b).value, rtol=1e-12)


# -- the direct solve --------------------------------------------------------------------------------------


def test_direct_solve_of_a_real_linear_operator(backend, like64, rng):
    """v ↦ A v + C conj(v) on Cⁿ beside a real leaf, A ≠ Aᴴ: linear over the reals only."""
    n = 3
    a, c = (m[0] + 1j * m[1] for m in rng.standard_normal((2, 2, n, n)))
    d, e = rng.standard_normal((2, n)), rng.standard_normal((2, 2)) + 3 * np.eye(2)
    like = backend.asarray(np.zeros((), dtype="complex128"))
    xp = backend.xp
    on = {
        k: backend.asarray(m, like=like if np.iscomplexobj(m) else like64) for k, m in dict(a=a, c=c, d=d, e=e).items()
    }

    def apply(v):
        z, r = v["z"], v["r"]
        return {"z": on["a"] @ z + on["c"] @ xp.conj(z), "r": on["e"] @ r + on["d"] @ xp.imag(z)}

    z, r = rng.standard_normal(n) + 1j * rng.standard_normal(n), rng.standard_normal(2)
    v = {"z": backend.asarray(z, like=like), "r": backend.asarray(r, like=like64)}
    one = System(Space(backend), apply, apply, lambda w: w, lambda v: v, False)
    found = backend.jit(lambda v: Dense().solve(one, apply(v)))(v)
    np.testing.assert_allclose(backend.to_numpy(found.value["z"]), z, rtol=1e-11)
    np.testing.assert_allclose(backend.to_numpy(found.value["r"]), r, rtol=1e-11)
    assert int(found.steps) == 2 * n + 2 and bool(found.converged)
    count, join, split = flat(Space(backend), v)
    assert count == 8
    np.testing.assert_array_equal(backend.to_numpy(split(join(v))["z"]), z)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_direct_solve_far_from_the_scale_of_the_identity(size):
    """The normal directions are completed at the operator's own size: with 1 there the matrix would be singular."""
    rng = np.random.default_rng(22)
    y = np.linalg.qr(rng.standard_normal((5, 1)))[0]
    p = np.eye(5) - y @ y.T
    h, b = size * (p @ rng.standard_normal((5, 5)) @ p), p @ rng.standard_normal(5)
    sphere = System(
        Space(nf.get_backend("numpy")), lambda v: h @ v, lambda v: h.T @ v, lambda w: w, lambda v: p @ v, False
    )
    found = Dense().solve(sphere, b)
    np.testing.assert_allclose(h @ found.value, b, rtol=1e-10, atol=1e-12)
    assert bool(found.converged)


# -- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Chebyshev(0), ValueError),
        (lambda: Chebyshev(2.5), TypeError),  # pyright: ignore[reportArgumentType]
        (lambda: Chebyshev(tol=-1.0), ValueError),
        (lambda: Chebyshev(bounds=(0.0, 1.0)), ValueError),
        (lambda: Chebyshev(bounds=(2.0, 1.0)), ValueError),
        (lambda: Chebyshev(bounds=(1.0, float("inf"))), ValueError),
        (lambda: Chebyshev(bounds=(float("nan"), 1.0)), ValueError),
        (lambda: Chebyshev(bounds=1.0), TypeError),  # pyright: ignore[reportArgumentType]
        (lambda: Chebyshev(bounds=("a", 1.0)), TypeError),  # pyright: ignore[reportArgumentType]
        (lambda: Nystrom(0), ValueError),
        (lambda: Nystrom(shift=0.0), ValueError),
        (lambda: Nystrom(noise=-1), ValueError),
        (lambda: Nystrom(noise=True), TypeError),
        (lambda: Identity(0.0), ValueError),
        (lambda: Preconditioned(Nystrom(), by=CG()), TypeError),  # pyright: ignore[reportArgumentType]
        (lambda: Preconditioned(None, by=Nystrom()), TypeError),  # pyright: ignore[reportArgumentType]
    ],
)
def test_settings_that_make_no_sense(make, error):
    with pytest.raises(error, match=r"Chebyshev|Nystrom|Identity|Preconditioned"):
        make()


def test_methods_for_symmetric_operators_are_refused_elsewhere():
    zeros, flat = np.zeros(2), nf.Euclidean(2)
    problem = nf.Bilevel(lambda x, y: np.sum(y), flat, nf.Root(lambda x, y: y - x, flat))
    for linear in (Chebyshev(), Nystrom(), Preconditioned(Neumann(), by=Nystrom())):
        with pytest.raises(TypeError, match="symmetric operator"):
            nf.hypergradient(problem, zeros, zeros, estimator=nf.Implicit(linear))


@pytest.mark.parametrize("backend", ["numpy"], indirect=True)
@pytest.mark.parametrize(
    "solver", [nf.Chebyshev(), nf.Neumann(), nf.Nystrom(3)], ids=["chebyshev", "neumann", "nystrom"]
)
def test_infinite_right_hand_sides_and_wild_guesses(backend, like64, solver):
    """The first are not converged; the second are dropped, and what is not finite with them."""
    matrix, b = np.diag([1.0, 2.0, 3.0]), np.array([1.0, -1.0, 2.0])
    form = system(matrix)
    with np.errstate(invalid="ignore"):
        assert not solver.solve(form, np.array([float("inf"), 1.0, 2.0])).converged
    for guess in (1e8 * b, float("nan") * b):
        found = solver.solve(form, b, guess)
        assert found.converged
        assert np.max(np.abs(found.value - b / np.diag(matrix))) <= 1e-13
