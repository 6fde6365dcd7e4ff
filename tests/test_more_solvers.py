"""Anderson's acceleration and the Gauss-Newton method."""

import warnings

import numpy as np
import pytest
from scipy.optimize import least_squares

import nestfold as nf
from nestfold.hypergrad._space import Space

NUMPY = nf.get_backend("numpy")


def quietly(function):
    """The result of `function`, whatever it says of convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        return function()


def matrix(radius, n=20, seed=0):
    """A matrix A ≠ Aᵀ with the real eigenvalues -0.3 radius ... radius."""
    vectors = np.eye(n) + 0.3 * np.random.default_rng(seed).standard_normal((n, n)) / n**0.5
    return vectors @ np.diag(radius * np.linspace(-0.3, 1, n)) @ np.linalg.inv(vectors)


def linear_map(a, batch_ndim=0):
    """y ↦ A y + x."""
    return nf.FixedPoint(lambda x, y: (a @ y[..., None])[..., 0] + x, nf.Euclidean(a.shape[-1]), batch_ndim=batch_ndim)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)


# -- Anderson ----------------------------------------------------------------------------------------------


def test_anderson_on_every_backend(backend, like64):
    a, b = (backend.asarray(v, like=like64) for v in (matrix(0.95, n=6), np.arange(6) - 2.0))
    level = linear_map(a)
    exact = np.linalg.solve(np.eye(6) - matrix(0.95, n=6), np.arange(6) - 2.0)

    def solved(b):
        return nf.solve(level, b, init=0 * b, solver=nf.Anderson())

    found = backend.jit(solved)(b)
    assert bool(found.converged)
    np.testing.assert_allclose(backend.to_numpy(found.value), exact, rtol=1e-10)


def test_anderson_beats_picard_in_evaluations():
    a, b = matrix(0.95), np.random.default_rng(1).standard_normal(20)
    calls = {}
    for solver in (nf.Picard(), nf.Anderson(), nf.Anderson(memory=10), nf.Anderson(damping=0.7)):
        function = Counted(lambda x, y: a @ y + x)
        level = nf.FixedPoint(function, nf.Euclidean(20))
        found = solver.solve(NUMPY, level, (b,), 0 * b, Space(NUMPY))
        assert bool(found.converged)
        assert np.linalg.norm(found.value - np.linalg.solve(np.eye(20) - a, b)) < 1e-9
        calls[solver] = function.calls
        if isinstance(solver, nf.Anderson):
            assert function.calls == int(found.steps) + 1
    assert calls[nf.Anderson()] < calls[nf.Picard()] / 5
    assert calls[nf.Anderson(memory=10)] < calls[nf.Anderson()]
    assert calls[nf.Anderson(damping=0.7)] < calls[nf.Picard()] / 3


@pytest.mark.parametrize("radius", [1.05, 1.2])
def test_anderson_where_picard_diverges(radius):
    a, b = matrix(radius), np.random.default_rng(1).standard_normal(20)
    assert not bool(quietly(lambda: nf.solve(linear_map(a), b, init=0 * b, solver=nf.Picard())).converged)
    found = nf.solve(linear_map(a), b, init=0 * b, solver=nf.Anderson())
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, np.linalg.solve(np.eye(20) - a, b), rtol=1e-7, atol=1e-8)


def test_with_enough_memory_anderson_ends_as_gmres_does():
    a, b = matrix(3.0, n=6), np.random.default_rng(1).standard_normal(6)
    found = nf.solve(linear_map(a), b, init=0 * b, solver=nf.Anderson(memory=6, growth=1e3, ridge=1e-15))
    assert bool(found.converged) and int(found.steps) <= 9


def unit(z):
    """z/|z|."""
    return z / nf.namespace(z).sqrt(nf.namespace(z).sum(z * z))


def test_anderson_on_the_sphere():
    rng = np.random.default_rng(0)
    a, x = 6 * np.eye(8) + rng.standard_normal((8, 8)), rng.standard_normal(8)
    level = nf.FixedPoint(lambda x, y: unit(a @ y + x), nf.Sphere(8))
    y0 = nf.Sphere(8).random_point(rng, like=x)
    slow, fast = (nf.solve(level, x, init=y0, solver=s) for s in (nf.Picard(), nf.Anderson()))
    assert bool(fast.converged) and 2 * int(fast.steps) < int(slow.steps)
    np.testing.assert_allclose(fast.value, slow.value, atol=1e-10)


@pytest.mark.parametrize("y0", [100.0, 0.02])
def test_anderson_on_positive_definite_matrices(y0):
    """The Riccati map y ↦ Q + Cᵀ (y⁻¹ + S)⁻¹ C contracts in the metric, whatever C."""
    rng = np.random.default_rng(0)
    c = rng.standard_normal((4, 4))
    c = 1.02 * c / np.max(np.abs(np.linalg.eigvals(c)))
    q, s = 0.01 * np.eye(4) + 0.002, 0.01 * np.eye(4)

    def riccati(q, y):
        inv = nf.namespace(q, y).linalg.inv
        return q + c.T @ inv(inv(y) + s) @ c

    level = nf.FixedPoint(riccati, nf.SPD(4))
    slow, fast = (nf.solve(level, q, init=y0 * np.eye(4), solver=s) for s in (nf.Picard(), nf.Anderson()))
    assert bool(fast.converged) and 3 * int(fast.steps) < int(slow.steps)
    np.testing.assert_allclose(fast.value, slow.value, rtol=1e-8)


def nonnormal(eigenvalues):
    """A matrix with these eigenvalues, A ≠ Aᵀ."""
    rng, n = np.random.default_rng(0), len(eigenvalues)
    v = np.linalg.qr(rng.standard_normal((n, n)))[0] + 0.1 * rng.standard_normal((n, n))
    return v @ np.diag(eigenvalues) @ np.linalg.inv(v), v


@pytest.mark.parametrize("manifold", [nf.Grassmann(6, 2), nf.Flag(6, (1, 2))], ids=str)
def test_anderson_on_quotients(manifold):
    """Orthogonal iteration: representatives are aligned, and the derivative knows. A flag has no logarithm."""
    assert isinstance(manifold, nf.InverseRetraction) == isinstance(manifold, nf.Grassmann)
    a, v = nonnormal([3.0, 2.0, 1.8, 0.5, 0.2, 0.1])
    s = np.random.default_rng(1).standard_normal((6, 6))
    level = nf.FixedPoint(lambda x, y: nf.namespace(x, y).linalg.qr((a + x) @ y)[0], manifold)
    y0 = manifold.random_point(np.random.default_rng(0), like=a)

    def weighted(x, solver):
        y = nf.solve(level, x, init=y0, solver=solver).value
        return (s * (y @ y.T)).sum()

    zero = np.zeros((6, 6))
    slow, fast = (nf.solve(level, zero, init=y0, solver=s) for s in (nf.Picard(), nf.Anderson()))
    assert bool(fast.converged) and 2 * int(fast.steps) < int(slow.steps)
    basis = np.linalg.qr(v[:, :2])[0]
    np.testing.assert_allclose(fast.value @ fast.value.T, basis @ basis.T, atol=1e-10)
    u, h = np.random.default_rng(2).standard_normal((6, 6)), 1e-5
    slope = (weighted(h * u, nf.Anderson()) - weighted(-h * u, nf.Anderson())) / (2 * h)
    for solver in (nf.Picard(), nf.Anderson()):
        found = nf.grad(lambda x, solver=solver: weighted(x, solver))(zero)
        assert float((found * u).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_anderson_on_a_manifold_with_a_logarithm_only():
    manifold = nf.SPDFixedDeterminant(3)
    assert isinstance(manifold, nf.Logarithmic) and not isinstance(manifold, nf.InverseRetraction)
    c, _ = nonnormal([1.0, 0.7, 0.4])

    def normalized(x, y):
        z = x + c.T @ nf.namespace(x, y).linalg.inv(nf.namespace(x, y).linalg.inv(y) + 0.02 * np.eye(3)) @ c
        return z / nf.namespace(z).linalg.det(z) ** (1 / 3)

    level, x = nf.FixedPoint(normalized, manifold), 0.01 * np.eye(3) + 0.002
    slow, fast = (nf.solve(level, x, init=np.eye(3), solver=s) for s in (nf.Picard(), nf.Anderson()))
    assert bool(fast.converged) and 2 * int(fast.steps) < int(slow.steps)
    np.testing.assert_allclose(fast.value, slow.value, atol=1e-9)


def test_anderson_of_a_batch_is_that_of_each_problem():
    a = np.stack([matrix(0.95), 0.3 * np.eye(20) + 0.1 * matrix(1.0, seed=2), matrix(1.05)])
    b = np.random.default_rng(1).standard_normal((3, 20))
    found = nf.solve(linear_map(a, batch_ndim=1), b, init=0 * b, solver=nf.Anderson())
    for i in range(3):
        alone = nf.solve(linear_map(a[i]), b[i], init=0 * b[i], solver=nf.Anderson())
        assert bool(found.converged[i])
        assert abs(int(found.steps[i]) - int(alone.steps)) <= 0.2 * int(alone.steps)
        np.testing.assert_allclose(found.value[i], alone.value, rtol=1e-7, atol=1e-9)


def test_anderson_of_a_tree():
    a = matrix(0.95, n=10)
    b = np.random.default_rng(1).standard_normal(10)
    manifold = nf.Product({"u": nf.Euclidean(4), "v": nf.Euclidean(6)})

    def apart(y):
        return {"u": y[:4], "v": y[4:]}

    def tree_map(x, y):
        return apart(a @ nf.namespace(y["u"]).concat([y["u"], y["v"]]) + x)

    found = nf.solve(nf.FixedPoint(tree_map, manifold), b, init=apart(0 * b), solver=nf.Anderson())
    plain = nf.solve(linear_map(a), b, init=0 * b, solver=nf.Anderson())
    assert int(found.steps) == int(plain.steps)
    np.testing.assert_allclose(np.concatenate([found.value["u"], found.value["v"]]), plain.value, rtol=1e-10)


def test_anderson_restarts_where_the_residual_grows():
    """From the flat side of map(y) - y = (exp(-y) - 1)/2 the combination leaps far to the steep side."""
    level = nf.FixedPoint(lambda x, y: y + x * (nf.namespace(y).exp(-y) - 1), nf.Euclidean(1))
    half, start = np.array(0.5), np.array([6.0])

    def residuals(solver):
        solved = [nf.Anderson(growth=solver.growth, max_steps=k) for k in range(1, 45)]
        return [float(quietly(lambda s=s: nf.solve(level, half, init=start, solver=s)).residual) for s in solved]

    guarded, free = residuals(nf.Anderson()), residuals(nf.Anderson(growth=1e300))
    assert max(guarded) <= 4 * guarded[0] and guarded[-1] < 1e-11
    assert max(free) > 1e3


def test_anderson_stops_at_the_last_finite_point():
    level = nf.FixedPoint(lambda x, y: x - y - 3 * y**5 * 1e3, nf.Euclidean(2))
    x = np.array([1.0, 2.0])
    found = quietly(lambda: nf.solve(level, x, init=5 + 0 * x, solver=nf.Anderson(max_steps=40, growth=1e300)))
    assert not bool(found.converged) and np.all(np.isfinite(found.value)) and np.isfinite(found.residual)


@pytest.mark.parametrize("solver", [nf.Picard(), nf.Anderson(max_steps=0)])
def test_a_map_that_blows_up_has_not_converged(solver):
    """|y|² overflows before y does: the residual is then small against an infinite |y|."""
    a = np.array([[1.5, 0.3], [0.0, 1.4]])
    start = np.array([1.0, 1.0]) * (1e154 if isinstance(solver, nf.Anderson) else 1.0)
    found = quietly(lambda: nf.solve(linear_map(a), np.ones(2), init=start, solver=solver))
    assert not bool(found.converged)


def test_the_derivative_of_anderson_is_that_of_the_level():
    a, b = matrix(0.95, n=6), np.random.default_rng(1).standard_normal(6)
    found = nf.grad(lambda b: (nf.solve(linear_map(a), b, init=np.zeros(6), solver=nf.Anderson()).value ** 2).sum())(b)
    inverse = np.linalg.inv(np.eye(6) - a)
    np.testing.assert_allclose(found, 2 * inverse.T @ (inverse @ b), rtol=1e-9)


@pytest.mark.parametrize(
    "settings", [{"memory": 0}, {"ridge": 0.0}, {"damping": 0.0}, {"growth": 0.5}, {"tol": -1.0}, {"max_steps": -1}]
)
def test_settings_of_anderson(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        nf.Anderson(**settings)


def test_anderson_refuses_a_cost():
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    with pytest.raises(TypeError, match="Anderson accelerates a map"):
        nf.solve(level, np.ones(2), init=np.ones(2), solver=nf.Anderson())


# -- Gauss-Newton ------------------------------------------------------------------------------------------


T = np.linspace(0, 4, 25)
DATA = 2.5 * np.exp(-1.3 * T) + 0.5 + 0.05 * np.random.default_rng(0).standard_normal(25)
START = np.array([1.0, 1.0, 0.0])
A, B = np.random.default_rng(5).standard_normal((4, 3)), np.random.default_rng(6).standard_normal(4)
both = pytest.mark.parametrize("solver", [nf.GaussNewton(), nf.GaussNewton(linear=nf.Dense())], ids=["cg", "dense"])


def decay(data, y, t=T):
    """The residuals of y₀ exp(-y₁ t) + y₂."""
    return y[0] * nf.namespace(y).exp(-y[1] * t) + y[2] - data


def test_gauss_newton_on_every_backend(backend, like64):
    data, start, t = (backend.asarray(v, like=like64) for v in (DATA, START, T))
    level = nf.LeastSquares(lambda data, y: decay(data, y, t), nf.Euclidean(3))
    expected = least_squares(lambda p: decay(DATA, p), START, xtol=1e-15, ftol=1e-15, gtol=1e-15).x

    def solved(data):
        return nf.solve(level, data, init=start, solver=nf.GaussNewton())

    found = backend.jit(solved)(data)
    assert bool(found.converged) and int(found.steps) <= 15
    np.testing.assert_allclose(backend.to_numpy(found.value), expected, atol=2e-9)


@both
def test_rosenbrock(solver):
    level = nf.LeastSquares(
        lambda x, y: nf.namespace(x, y).stack([x * 10 * (y[1] - y[0] ** 2), 1 - y[0]]), nf.Euclidean(2)
    )
    found = nf.solve(level, np.array(1.0), init=np.array([-1.2, 1.0]), solver=solver)
    assert bool(found.converged) and int(found.steps) <= 40
    np.testing.assert_allclose(found.value, 1.0, atol=1e-11)


@both
def test_gauss_newton_agrees_with_newton(solver):
    level = nf.LeastSquares(decay, nf.Euclidean(3))
    found, exact = (nf.solve(level, DATA, init=START, solver=s) for s in (solver, nf.TrustRegion()))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, exact.value, atol=1e-11)
    assert float(found.residual) < 1e-11


def test_the_derivative_of_a_fit_has_the_whole_hessian():
    """Not JᵀJ alone: the residuals do not vanish."""
    level = nf.LeastSquares(decay, nf.Euclidean(3))

    def rate(data):
        return nf.solve(level, data, init=START, solver=nf.GaussNewton()).value[1]

    found = nf.grad(rate)(DATA)
    step = 1e-3 * np.sin(np.arange(25))
    slope = (8 * (rate(DATA + step) - rate(DATA - step)) - rate(DATA + 2 * step) + rate(DATA - 2 * step)) / 12
    assert float(found @ step) == pytest.approx(float(slope), rel=1e-6)
    y = nf.solve(level, DATA, init=START).value
    j = np.stack([np.exp(-y[1] * T), -y[0] * T * np.exp(-y[1] * T), np.ones(25)], axis=-1)
    assert abs(float(np.linalg.solve(j.T @ j, j.T @ step)[1]) / float(slope) - 1) > 1e-4


@pytest.mark.parametrize(
    "estimator", [nf.Implicit(), nf.OneStep(linear=nf.Dense()), nf.Unrolled(300), nf.FirstOrder(1e4)], ids=repr
)
def test_every_estimator_takes_least_squares(estimator):
    level = nf.LeastSquares(
        lambda x, y: nf.namespace(x, y).concat([A @ (y + 0.1 * y**3) - x, 0.3 * y]), nf.Euclidean(3)
    )
    problem = nf.Bilevel(lambda x, y: (y**2).sum(), nf.Euclidean(4), level)
    exact = nf.hypergradient(problem, B, np.zeros(3), estimator=nf.Implicit(nf.Dense()))
    solver = None if isinstance(estimator, (nf.Unrolled, nf.FirstOrder)) else nf.GaussNewton()
    found = quietly(lambda: nf.hypergradient(problem, B, np.zeros(3), estimator=estimator, solver=solver))
    np.testing.assert_allclose(found.gradient, exact.gradient, rtol=1e-5)


def test_accuracy_on_demand_drives_gauss_newton():
    level = nf.LeastSquares(
        lambda x, y: nf.namespace(x, y).concat([A @ (y + 0.1 * y**3) - x, 0.3 * y]), nf.Euclidean(3)
    )
    problem = nf.Bilevel(lambda x, y: (y**2).sum(), nf.Euclidean(4), level)
    rough, exact = (nf.hypergradient(problem, B, np.zeros(3), solver=nf.GaussNewton(), tol=tol) for tol in (1e-3, 1e-9))
    assert int(rough.lower.steps) < int(exact.lower.steps)
    assert np.linalg.norm(rough.gradient - exact.gradient) <= 1e-3 * np.linalg.norm(exact.gradient)


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"], indirect=True)
def test_what_the_residuals_captured_is_differentiated(backend, like64):
    start, t, one = (backend.asarray(v, like=like64) for v in (START, T[:9], 1.0))

    def captured(data):
        level = nf.LeastSquares(lambda s, y: s * decay(data, y, t), nf.Euclidean(3))
        return nf.solve(level, one, init=start, solver=nf.GaussNewton()).value[1]

    def given(data):
        level = nf.LeastSquares(lambda data, y: decay(data, y, T[:9]), nf.Euclidean(3))
        return nf.solve(level, data, init=START, solver=nf.GaussNewton()).value[1]

    found = nf.grad(captured)(backend.asarray(DATA[:9], like=like64))
    np.testing.assert_allclose(backend.to_numpy(found), nf.grad(given)(DATA[:9]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_gauss_newton_under_vmap(backend, like64):
    vmap = pytest.importorskip("torch").vmap
    a = backend.asarray(np.random.default_rng(0).standard_normal((4, 3)), like=like64)
    b = backend.asarray(np.random.default_rng(1).standard_normal((2, 4)), like=like64)
    level = nf.LeastSquares(lambda b, y: a @ (y + 0.1 * y**3) - b, nf.Euclidean(3))

    def fit(b):
        return nf.solve(level, b, init=0 * a[0, :], solver=nf.GaussNewton()).value

    found = backend.to_numpy(vmap(fit)(b))
    np.testing.assert_allclose(found, np.stack([backend.to_numpy(fit(b[i, ...])) for i in range(2)]), atol=1e-11)


@both
def test_gauss_newton_on_the_sphere(solver):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 5)), rng.standard_normal(9)
    level, y0 = nf.LeastSquares(lambda b, y: a @ y - b, nf.Sphere(5)), nf.Sphere(5).random_point(rng, like=b)
    found, exact = (nf.solve(level, b, init=y0, solver=s) for s in (solver, nf.TrustRegion()))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, exact.value, atol=1e-9)


def test_gauss_newton_on_positive_definite_matrices():
    m = np.random.default_rng(0).standard_normal((3, 3))
    level = nf.LeastSquares(lambda x, y: m @ y @ m.T + 0.1 * y @ y - x, nf.SPD(3))
    x = m @ m.T + 0.3 * np.eye(3)
    found, exact = (nf.solve(level, x, init=3 * np.eye(3), solver=s) for s in (nf.GaussNewton(), nf.TrustRegion()))
    assert bool(found.converged)
    np.testing.assert_allclose(found.value, exact.value, atol=1e-10)


def test_a_batch_of_fits_with_a_tree_of_residuals():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5)) * np.array([[1.0], [1e-3], [10.0]])

    def residuals(b, y):
        z = (a @ (y + 0.2 * y**3)[..., None])[..., 0] - b
        return {"data": z, "penalty": [0.1 * y]}

    level = nf.LeastSquares(residuals, nf.Euclidean(2), batch_ndim=1)
    assert level.batch((b,), np.zeros((3, 2))) == (3,)
    found = nf.solve(level, b, init=np.zeros((3, 2)), solver=nf.GaussNewton())
    for i in range(3):
        flat = least_squares(
            lambda p, i=i: np.concatenate([a[i] @ (p + 0.2 * p**3) - b[i], 0.1 * p]),
            np.zeros(2), xtol=1e-15, ftol=1e-15, gtol=1e-15,
        )  # fmt: skip
        np.testing.assert_allclose(found.value[i], flat.x, atol=1e-7 * max(1, np.max(np.abs(b[i]))))
    assert np.all(found.converged) and len(set(found.steps.tolist())) > 1


def test_complex_residuals():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in ((6, 3), (6,)))
    level = nf.LeastSquares(lambda b, y: a @ y - b, nf.Euclidean(3))
    found = nf.solve(level, b, init=np.zeros(3, dtype=complex), solver=nf.GaussNewton())
    np.testing.assert_allclose(found.value, np.linalg.lstsq(a, b)[0], atol=1e-10)


C = 1.5 * np.random.default_rng(3).standard_normal((6, 6))
ROOTS = {
    "field": nf.Root(lambda x, y: C @ y + nf.namespace(y).tanh(y) - x, nf.Euclidean(6)),
    "map": nf.FixedPoint(lambda x, y: C @ y + 0.1 * nf.namespace(y).tanh(y) + x, nf.Euclidean(6)),
}


@both
@pytest.mark.parametrize("level", ROOTS.values(), ids=ROOTS)
def test_equations_by_least_squares(level, solver):
    """No symmetry, no contraction: the paper's inner minimization of the fixed-point residual."""
    b = np.random.default_rng(1).standard_normal(6)
    found, newton = (nf.solve(level, b, init=0 * b, solver=s) for s in (solver, nf.Newton()))
    assert bool(found.converged) and float(found.residual) < 1e-10
    np.testing.assert_allclose(found.value, newton.value, atol=1e-9)
    if isinstance(level, nf.FixedPoint):
        assert not bool(quietly(lambda: nf.solve(level, b, init=0 * b, solver=nf.Picard())).converged)
    first, second = (
        nf.grad(lambda b, s=s: nf.solve(level, b, init=np.zeros(6), solver=s).value[0])(b)
        for s in (solver, nf.Newton())
    )
    np.testing.assert_allclose(first, second, atol=1e-8)


def test_a_map_on_the_sphere_by_least_squares():
    rng = np.random.default_rng(0)
    x, y0 = rng.standard_normal(6), nf.Sphere(6).random_point(rng, like=np.zeros(1))
    level = nf.FixedPoint(lambda x, y: unit(C @ y + 4 * x), nf.Sphere(6))
    found = nf.solve(level, x, init=y0, solver=nf.GaussNewton())
    assert bool(found.converged)
    np.testing.assert_allclose(unit(C @ found.value + 4 * x), found.value, atol=1e-10)


def test_a_minimum_of_the_residual_that_is_no_root_has_not_converged():
    level = nf.Root(lambda x, y: y**2 + x, nf.Euclidean(1))
    with pytest.warns(nf.ConvergenceWarning, match="GaussNewton"):
        found = nf.solve(level, np.array([1.0]), init=np.array([0.7]), solver=nf.GaussNewton())
    assert not bool(found.converged) and float(found.residual) == pytest.approx(1.0, rel=1e-3)


def test_gauss_newton_stops_at_the_last_finite_point():
    level = nf.LeastSquares(lambda x, y: nf.namespace(y).log(y) - x, nf.Euclidean(2))
    found = nf.solve(level, np.array([-2.0, 3.0]), init=np.array([5.0, 0.1]), solver=nf.GaussNewton())
    np.testing.assert_allclose(found.value, np.exp([-2.0, 3.0]), rtol=1e-9)
    with pytest.warns(nf.ConvergenceWarning, match="not finite"), np.errstate(invalid="ignore"):
        found = nf.solve(level, np.zeros(2), init=-np.ones(2), solver=nf.GaussNewton())
    assert not bool(found.converged) and np.all(found.value == -1)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_gauss_newton_does_not_depend_on_units(unit):
    level = nf.LeastSquares(lambda x, y: unit * decay(x, y), nf.Euclidean(3))
    plain = nf.LeastSquares(decay, nf.Euclidean(3))
    found, other = (nf.solve(level, DATA, init=START, solver=nf.GaussNewton()) for level in (level, plain))
    assert bool(found.converged) and abs(int(found.steps) - int(other.steps)) <= 2
    np.testing.assert_allclose(found.value, other.value, atol=1e-7)


def test_least_squares_refuses():
    with pytest.raises(TypeError, match="residuals must be a function"):
        nf.LeastSquares(3, nf.Euclidean(2))  # pyright: ignore
    with pytest.raises(ValueError, match="batch_ndim"):
        nf.LeastSquares(decay, nf.Euclidean(2), batch_ndim=-1)
    with pytest.raises(nf.DTypeError, match="float"):
        nf.solve(nf.LeastSquares(lambda x, y: [1.0], nf.Euclidean(2)), np.ones(2), init=np.ones(2))
    level = nf.LeastSquares(lambda x, y: [y, y[0, :]], nf.Euclidean(2), batch_ndim=1)
    with pytest.raises(nf.ShapeError, match="batch axes"):
        nf.solve(level, np.ones(2), init=np.ones((3, 2)))
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    with pytest.raises(TypeError, match="LeastSquares"):
        nf.solve(level, np.ones(2), init=np.ones(2), solver=nf.GaussNewton())


@pytest.mark.parametrize("settings", [{"damping": 0.0}, {"tol": -1.0}, {"max_steps": -1}])
def test_settings_of_gauss_newton(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        nf.GaussNewton(**settings)
    with pytest.raises(TypeError, match="linear"):
        nf.GaussNewton(linear=3)  # pyright: ignore
