"""Ready-made problems: closed forms against 50-digit arithmetic, finite differences and autodiff."""

import dataclasses

import mpmath as mp
import numpy as np
import pytest

from nestfold.backends import ShapeError
from nestfold.hypergrad.nested import Bilevel
from nestfold.hypergrad.problems import (
    entropic_transport,
    logistic,
    principal_subspace,
    ridge,
    smallest_eigenvector,
    synthetic,
    tanh_fixed_point,
)

SMALL = {
    "synthetic": lambda like: synthetic(like=like, d=5, r=3, n=9),
    "smallest_eigenvector": lambda like: smallest_eigenvector(like=like, n=5, p=3),
    "tanh_fixed_point": lambda like: tanh_fixed_point(like=like, n=5, p=3),
    "ridge": lambda like: ridge(like=like, n=8, p=3),
    "logistic": lambda like: logistic(like=like, n=12, p=3),
    "principal_subspace": lambda like: principal_subspace(like=like, n=5, k=2, p=3),
    "entropic_transport": lambda like: entropic_transport(like=like, n=4, m=3, terms=2),
}
every_problem = pytest.mark.parametrize("name", SMALL)
second_order = pytest.mark.parametrize("name", ["smallest_eigenvector", "tanh_fixed_point"])


@pytest.fixture
def numpy_like():
    return np.zeros(())


def batch_of_three(backend, point, rng):
    """Three points near `point`, stacked; neither orthonormal nor small, as the closed forms need neither."""
    return point + 0.1 * backend.noise(rng, (3, *point.shape), like=point)


# -- exactness -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d, r, n", [(4, 2, 7), (20, 8, 40), (50, 20, 100)])
def test_solution_of_the_synthetic_problem(backend, xp, like64, rng, d, r, n):
    problem = synthetic(like=like64, d=d, r=r, n=n)
    w, _ = problem.start(rng)
    m, b = problem.solution(w), w @ problem.k @ w.mT + 0.01 * xp.eye(d, dtype=w.dtype)
    residual = backend.to_numpy(m @ problem.a @ m - b)
    assert np.abs(residual).max() < 1e-13 * np.abs(backend.to_numpy(b)).max()
    values = backend.to_numpy(m)
    assert np.abs(values - values.T).max() < 1e-14 * np.abs(values).max()
    assert np.linalg.eigvalsh(values)[0] > 0


def test_data_of_the_synthetic_problem(backend, like64):
    problem = synthetic(like=like64, d=6, r=2, n=9, seed=3)
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((9, 6)), rng.standard_normal((9, 2))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    for part, expected in ((problem.a, x.T @ x), (problem.c, x.T @ y), (problem.k, y.T @ y)):
        np.testing.assert_allclose(backend.to_numpy(part), expected, rtol=1e-14, atol=1e-16)
    assert problem.nu == 0.01


def test_solution_on_the_sphere(backend, like64, rng):
    problem = smallest_eigenvector(like=like64, n=7)
    x, y0 = problem.start(rng)
    a, y = backend.to_numpy(problem.matrix(x)), backend.to_numpy(problem.solution(x))
    values = np.linalg.eigvalsh(a)
    assert np.abs(a @ y - values[0] * y).max() < 1e-14
    assert abs(y @ y - 1) < 1e-14
    assert y @ backend.to_numpy(y0) > 0
    np.testing.assert_allclose(float(problem.lower(x, problem.solution(x))), values[0] / 2, rtol=1e-13)
    np.testing.assert_allclose(np.linalg.eigvalsh(backend.to_numpy(problem.base)), np.arange(1, 8), rtol=1e-13)


@pytest.mark.parametrize("contraction", [0.0, 0.5, 0.8, 0.99])
def test_solution_of_the_fixed_point_problem(backend, like64, rng, contraction):
    problem = tanh_fixed_point(like=like64, n=9, p=4, contraction=contraction)
    weight = backend.to_numpy(problem.weight)
    assert np.linalg.norm(weight, 2) == pytest.approx(contraction, rel=1e-13)
    assert contraction == 0 or np.abs(weight - weight.T).max() > 0.3 * np.abs(weight).max()
    for _ in range(20):
        x, _ = problem.start(rng)
        y = problem.solution(3 * x)
        assert np.abs(backend.to_numpy(problem.map(3 * x, y) - y)).max() < 1e-14


def test_lower_costs_are_least_at_the_solution(backend, like64, rng):
    for name in ("synthetic", "smallest_eigenvector"):
        problem = SMALL[name](like64)
        x, _ = problem.start(rng)
        y = problem.solution(x)
        least = float(problem.lower(x, y))
        for _ in range(5):
            near = y + 0.02 * backend.noise(rng, tuple(y.shape), like=y)
            near = (near + near.mT) / 2 if name == "synthetic" else near / float((near @ near) ** 0.5)
            assert float(problem.lower(x, near)) > least


# -- derivatives ---------------------------------------------------------------------------------------


def central(function, x, u, h):
    return (function(x + h * u) - function(x - h * u)) / (2 * h)


@every_problem
def test_gradient_by_finite_differences(backend, xp, like64, rng, name):
    problem = SMALL[name](like64)
    x, _ = problem.start(rng)
    gradient = problem.euclidean_gradient(x)
    for _ in range(3):
        u = backend.noise(rng, tuple(x.shape), like=x)
        slope = float(xp.sum(gradient * u))
        assert float(central(problem.objective, x, u, 1e-5)) == pytest.approx(slope, rel=1e-7, abs=1e-9)


@second_order
def test_hessian_product_by_finite_differences(backend, like64, rng, name):
    problem = SMALL[name](like64)
    x, _ = problem.start(rng)
    u = backend.noise(rng, tuple(x.shape), like=x)
    product = backend.to_numpy(problem.hessian_product(x, u))
    expected = backend.to_numpy(central(problem.euclidean_gradient, x, u, 1e-5))
    np.testing.assert_allclose(product, expected, rtol=1e-7, atol=1e-8)


@every_problem
def test_gradient_by_autodiff(backend, like64, rng, name):
    problem = SMALL[name](like64)
    x, _ = problem.start(rng)
    value, pull = backend.vjp(problem.objective, x)
    (gradient,) = pull(0 * value + 1)
    expected = backend.to_numpy(problem.euclidean_gradient(x))
    np.testing.assert_allclose(backend.to_numpy(gradient), expected, rtol=1e-11, atol=1e-12)


@second_order
def test_hessian_product_by_autodiff(backend, like64, rng, name):
    problem = SMALL[name](like64)
    x, _ = problem.start(rng)
    u = backend.noise(rng, tuple(x.shape), like=x)
    _, pull = backend.vjp(problem.euclidean_gradient, x)
    expected = backend.to_numpy(problem.hessian_product(x, u))  # the Hessian is symmetric
    np.testing.assert_allclose(backend.to_numpy(pull(u)[0]), expected, rtol=1e-11, atol=1e-12)


def test_the_turning_tangent_space_matters_on_the_sphere(numpy_like):
    """What a solve forgets whose projections are constants in its derivative: a large part of the Hessian."""
    problem = SMALL["smallest_eigenvector"](numpy_like)
    x, u = np.array([0.1, -0.2, 0.15]), np.array([1.0, -0.5, 0.7])
    y, a = problem.solution(x), problem.matrix(x)
    inverse = np.linalg.pinv(a - np.linalg.eigvalsh(a)[0] * np.eye(5), rcond=1e-10)
    y_dot = -inverse @ np.tensordot(u, problem.slopes, 1) @ y
    covector = problem.c * (1 + problem.e @ x) + problem.d * (problem.d @ y) ** 2
    forgotten = -inverse @ y_dot * (y @ covector) - y * (y_dot @ inverse @ covector)
    part = np.array([forgotten @ slope @ y for slope in problem.slopes])
    assert np.linalg.norm(part) > 0.1 * np.linalg.norm(problem.hessian_product(x, u))


# -- 50 digits -----------------------------------------------------------------------------------------


def high(array):
    return mp.matrix(np.asarray(array).tolist())


def root(a):
    values, q = mp.eigsy(a)
    return q * mp.diag([mp.sqrt(v) for v in values]) * q.T


def objective_synthetic(problem, w):
    """With A⁻¹ # B = A^-½ (A^½ B A^½)^½ A^-½, another formula than the one in use."""
    d, w = problem.a.shape[0], mp.matrix(w)
    half = root(high(problem.a))
    b = w * high(problem.k) * w.T + mp.mpf(problem.nu) * mp.eye(d)
    m = half**-1 * root(half * b * half) * half**-1
    product = m * high(problem.c) * w.T
    return -sum(product[i, i] for i in range(d))


def dot(a, b):
    return sum(s * t for s, t in zip(a, b, strict=True))


def objective_smallest_eigenvector(problem, x):
    x = [row[0] for row in x]
    a = high(problem.base)
    for value, slope in zip(x, problem.slopes, strict=True):
        a += value * high(slope)
    _, q = mp.eigsy(a)
    y = q[:, 0] * mp.sign(dot(q[:, 0], high(problem.reference)))
    linear = (1 + dot(problem.e.tolist(), x)) * dot(problem.c.tolist(), y)
    return linear + dot(problem.d.tolist(), y) ** 3 / 3 + dot(x, x) / 2


def objective_tanh_fixed_point(problem, x):
    x = mp.matrix(x)
    shift, y = high(problem.inputs) * x + high(problem.bias), mp.zeros(len(problem.bias), 1)
    for _ in range(700):
        y = (high(problem.weight) * y + shift).apply(mp.tanh)
    gap = y - high(problem.goal)
    return (dot(gap, gap) + dot(problem.e.tolist(), x) * dot(y, y) + dot(x, x)) / 2


def objective_ridge(problem, x):
    features, held_out, p = high(problem.features), high(problem.held_out), len(x)
    penalty = mp.diag([mp.exp(row[0]) for row in x])
    n, right = features.rows, features.T * mp.matrix(problem.targets.tolist())
    w = mp.lu_solve(features.T * features / n + penalty, right / n)
    gap = held_out * w - mp.matrix(problem.goals.tolist())
    assert w.rows == p
    return dot(gap, gap) / (2 * len(gap))


def objective_logistic(problem, x):
    features, labels, penalty = high(problem.features), problem.labels.tolist(), [mp.exp(row[0]) for row in x]
    n, w = features.rows, mp.zeros(len(x), 1)
    for _ in range(30):
        doubt = [1 / (1 + mp.exp(t * a)) for t, a in zip(labels, features * w, strict=True)]
        slope = features.T * mp.matrix([-t * s for t, s in zip(labels, doubt, strict=True)]) / n
        slope += mp.diag(penalty) * w
        hessian = features.T * mp.diag([s * (1 - s) for s in doubt]) * features / n + mp.diag(penalty)
        w -= mp.lu_solve(hessian, slope)
    margins = zip(problem.goals.tolist(), high(problem.held_out) * w, strict=True)
    return sum(mp.log(1 + mp.exp(-t * a)) for t, a in margins) / len(problem.goals)


def objective_principal_subspace(problem, x):
    x = [row[0] for row in x]
    a = high(problem.base)
    for value, slope in zip(x, problem.slopes, strict=True):
        a += value * high(slope)
    y = mp.eigsy(a)[1][:, a.rows - problem.k :]
    inner = y.T * high(problem.weight) * y
    return (sum(inner[i, i] for i in range(problem.k)) ** 2 + dot(x, x)) / 2


def objective_entropic_transport(problem, x):
    x = [row[0] for row in x]
    cost = high(problem.base)
    for value, slope in zip(x, problem.slopes, strict=True):
        cost += value * high(slope)
    kernel = (cost / -mp.mpf(problem.epsilon)).apply(mp.exp)
    b = mp.ones(kernel.cols, 1)
    for _ in range(200):
        a = mp.matrix([p / v for p, v in zip(problem.p.tolist(), kernel * b, strict=True)])
        b = mp.matrix([q / v for q, v in zip(problem.q.tolist(), kernel.T * a, strict=True)])
    coupling = mp.diag(list(a)) * kernel * mp.diag(list(b))
    return dot(high(problem.goal), coupling) + dot(x, x) / 2


@every_problem
def test_gradient_to_50_digits(numpy_like, rng, name):
    problem = {
        "synthetic": lambda like: synthetic(like=like, d=3, r=2, n=5),
        "smallest_eigenvector": lambda like: smallest_eigenvector(like=like, n=3, p=2),
        "tanh_fixed_point": lambda like: tanh_fixed_point(like=like, n=3, p=2, contraction=0.7),
        "ridge": lambda like: ridge(like=like, n=5, p=2),
        "logistic": lambda like: logistic(like=like, n=6, p=2),
        "principal_subspace": lambda like: principal_subspace(like=like, n=3, k=1, p=2),
        "entropic_transport": lambda like: entropic_transport(like=like, n=3, m=2, terms=2),
    }[name](numpy_like)
    objective = globals()[f"objective_{name}"]
    x, _ = problem.start(rng)
    columns = x.reshape(len(x), -1)
    expected = np.empty_like(columns)
    with mp.workdps(50):
        h = mp.mpf(10) ** -15
        for i, j in np.ndindex(columns.shape):
            ends = []
            for sign in (1, -1):
                moved = [[mp.mpf(float(v)) for v in row] for row in columns]
                moved[i][j] += sign * h
                ends.append(objective(problem, moved))
            expected[i, j] = (ends[0] - ends[1]) / (2 * h)
        value = float(objective(problem, [[mp.mpf(float(v)) for v in row] for row in columns]))
    assert float(problem.objective(x)) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(problem.euclidean_gradient(x), expected.reshape(x.shape), rtol=1e-12, atol=1e-14)


# -- batches, dtypes, the rest -------------------------------------------------------------------------


@every_problem
def test_a_batch_is_a_loop(backend, xp, like64, rng, name):
    problem = SMALL[name](like64)
    x, _ = problem.start(rng)
    batch = batch_of_three(backend, x, rng)
    level = problem.map if name == "tanh_fixed_point" else problem.lower
    functions = [
        problem.solution,
        problem.objective,
        problem.euclidean_gradient,
        lambda x: problem.upper(x, problem.solution(x)),
        lambda x: level(x, problem.solution(x)),
    ]
    if hasattr(problem, "hessian_product"):
        functions.append(lambda x: problem.hessian_product(x, x * x))
    for function in functions:
        together = function(batch)
        alone = xp.stack([function(batch[i, ...]) for i in range(3)])
        assert together.shape == alone.shape
        np.testing.assert_allclose(backend.to_numpy(together), backend.to_numpy(alone), rtol=1e-11, atol=1e-13)


@every_problem
def test_float32_stays_float32(backend, like32, like64, rng, name):
    single, double = SMALL[name](like32), SMALL[name](like64)
    x, y = single.start(rng)
    assert x.dtype == y.dtype == like32.dtype
    for function in ("solution", "objective", "euclidean_gradient"):
        got = getattr(single, function)(x)
        assert got.dtype == like32.dtype
        expected = getattr(double, function)(backend.asarray(backend.to_numpy(x), like=like64))
        np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(expected), rtol=1e-3, atol=1e-3)


@every_problem
def test_the_same_on_every_backend(backend, like64, numpy_like, name):
    here, there = SMALL[name](like64), SMALL[name](numpy_like)
    x, _ = here.start(np.random.default_rng(7))
    expected_x, _ = there.start(np.random.default_rng(7))
    np.testing.assert_allclose(backend.to_numpy(x), expected_x, rtol=1e-13, atol=1e-14)
    got = backend.to_numpy(here.euclidean_gradient(x))
    np.testing.assert_allclose(got, there.euclidean_gradient(expected_x), rtol=1e-11, atol=1e-13)


@every_problem
def test_problem_and_data_are_values(backend, like64, name):
    problem = SMALL[name](like64)
    assert isinstance(problem.problem(), Bilevel)
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.seed = 1
    assert problem.objective == problem.objective


def test_impossible_requests(numpy_like):
    with pytest.raises(ShapeError, match="n=4, d=5, r=2"):
        synthetic(like=numpy_like, d=5, r=2, n=4)
    with pytest.raises(ShapeError, match="r=6"):
        synthetic(like=numpy_like, d=5, r=6, n=9)
    with pytest.raises(ValueError, match="contracts only if"):
        tanh_fixed_point(like=numpy_like, contraction=1.0)
