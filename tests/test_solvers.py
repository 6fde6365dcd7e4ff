"""Solvers of levels, and the gradient of exactly k of their steps."""

import itertools
import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

DESCENTS = {
    "barzilai_borwein": nf.GradientDescent(max_steps=1500),
    "armijo": nf.GradientDescent(nf.Armijo(), max_steps=1500),
    "fixed": nf.GradientDescent(0.15, max_steps=1500),
    "trust_region": nf.TrustRegion(),
}
every_descent = pytest.mark.parametrize("solver", DESCENTS.values(), ids=DESCENTS.keys())
eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)


def relative(backend, found, expected):
    """|found - expected| / |expected|."""
    found, expected = backend.to_numpy(found), backend.to_numpy(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def quietly(function):
    """The result of `function`, whatever it says of convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        return function()


# -- minimizers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [nf.TrustRegion(), nf.GradientDescent()], ids=["trust_region", "descent"])
def test_minimizers_on_every_backend(backend, like64, solver):
    problem = synthetic(like=like64, d=5, r=2, n=10)
    w, m = problem.start(np.random.default_rng(0))
    lower = problem.problem().lower
    found = backend.jit(lambda w, m: nf.solve(lower, w, init=m, solver=solver))(w, m)
    assert bool(found.converged)
    assert relative(backend, found.value, problem.solution(w)) < 1e-9


@every_descent
def test_minimizers_on_the_sphere(solver):
    problem = smallest_eigenvector(like=np.zeros(()))
    x, y = problem.start(np.random.default_rng(0))
    found = nf.solve(problem.problem().lower, x, init=y, solver=solver)
    assert bool(found.converged) and int(found.steps) > 0
    assert relative(nf.get_backend("numpy"), found.value, problem.solution(x)) < 1e-10
    gradient = nf.Sphere(6).gradient(lambda y: problem.lower(x, y), found.value)
    assert float(found.residual) == pytest.approx(np.linalg.norm(gradient), rel=1e-3, abs=1e-15)


class Counting(nf.Argmin):
    """An `Argmin` that counts the products with its Hessian."""

    products = 0

    def operator(self, backend, outer, y, record=None):
        forward, backward = super().operator(backend, outer, y, record)

        def count(apply):
            def counted(v):
                Counting.products += 1
                return apply(v)

            return counted

        return count(forward), count(backward)


def test_cost_of_the_trust_region_at_full_size(monkeypatch):
    """From M = I at d = 50, five or six steps and about forty products (folding off: it would hide them)."""
    monkeypatch.setattr(type(nf.get_backend("numpy")), "symmetric_products", lambda *_: None)
    problem = synthetic(like=np.zeros(()))
    w, m = problem.start(np.random.default_rng(0))
    Counting.products = 0
    found = nf.solve(Counting(problem.lower, nf.SPD(50)), w, init=m)
    assert 4 <= int(found.steps) <= 7
    assert 10 <= Counting.products <= 60
    assert relative(nf.get_backend("numpy"), found.value, problem.solution(w)) < 1e-10


def test_the_trust_region_converges_quadratically():
    problem = synthetic(like=np.zeros(()), d=10, r=4, n=20)
    w, m = problem.start(np.random.default_rng(0))
    lower, exact, manifold = problem.problem().lower, problem.solution(w), nf.SPD(10)
    iterates = [
        quietly(lambda k=k: nf.solve(lower, w, init=m, solver=nf.TrustRegion(tol=0.0, max_steps=k))).value
        for k in range(1, 9)
    ]
    errors = [float(manifold.dist(exact, y)) for y in iterates]
    pairs = [(a, b) for a, b in itertools.pairwise(errors) if 1e-6 < a < 0.3]
    assert len(pairs) >= 2
    for a, b in pairs:
        assert b < max(3 * a**1.8, 1e-11)


@pytest.mark.parametrize("seed", range(8))
def test_the_trust_region_reaches_rounding(seed):
    """Rounding of the value does not reject the last steps."""
    problem = synthetic(like=np.zeros(()), d=6, r=3, n=12, seed=seed, nu=10.0 ** -(seed % 4))
    w, m = problem.start(np.random.default_rng(seed))
    found = nf.solve(problem.problem().lower, w, init=m, solver=nf.TrustRegion(tol=1e-13))
    assert relative(nf.get_backend("numpy"), found.value, problem.solution(w)) < 1e-11


def test_negative_curvature_at_the_start():
    """Near the largest eigenvector, and on top of a hill: downhill from there, to the minimum."""
    problem = smallest_eigenvector(like=np.zeros(()))
    x, _ = problem.start(np.random.default_rng(0))
    top = np.linalg.eigh(problem.matrix(x))[1][:, -1] + 1e-3 * problem.solution(x)
    found = nf.solve(problem.problem().lower, x, init=top / np.linalg.norm(top))
    assert abs(found.value @ problem.solution(x)) == pytest.approx(1, abs=1e-12)
    well = nf.Argmin(lambda x, y: np.sum(y**4 / 4 - x * y**2 / 2), nf.Euclidean(2))
    found = nf.solve(well, np.array([1.0, 4.0]), init=np.array([1e-6, -1e-6]))
    np.testing.assert_allclose(found.value, [1, -2], rtol=1e-11)


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
@pytest.mark.parametrize("kind", [nf.TrustRegion, nf.GradientDescent])
def test_tolerances_are_obeyed(kind, tol):
    problem = synthetic(like=np.zeros(()), d=6, r=3, n=12)
    w, m = problem.start(np.random.default_rng(0))
    loose = nf.solve(problem.problem().lower, w, init=m, solver=kind(tol=tol))
    tight = nf.solve(problem.problem().lower, w, init=m, solver=kind())
    scale = max(1.0, abs(float(problem.lower(w, loose.value))))
    assert bool(loose.converged) and float(loose.residual) <= tol * scale
    assert int(loose.steps) < int(tight.steps)


# -- fixed points, roots, black boxes ----------------------------------------------------------------------


def test_fixed_points_and_roots(backend, like64):
    problem = tanh_fixed_point(like=like64, n=5, p=3)
    x, y = problem.start(np.random.default_rng(0))
    fixed = nf.FixedPoint(problem.map, nf.Euclidean(5))
    root = nf.Root(lambda x, y: problem.map(x, y) - y, nf.Euclidean(5))
    found = backend.jit(
        lambda x, y: (
            nf.solve(fixed, x, init=y),
            nf.solve(fixed, x, init=y, solver=nf.Newton()),
            nf.solve(root, x, init=y),
        )
    )(x, y)
    for solution in found:
        assert bool(solution.converged)
        assert relative(backend, solution.value, problem.solution(x)) < 1e-10
    assert 10 < int(found[0].steps) < 200
    assert int(found[1].steps) <= 6 and int(found[2].steps) <= 6


def test_newton_with_halved_steps():
    """arctan from 3, where full steps of Newton's method diverge."""
    level = nf.Root(lambda x, y: np.arctan(y) - x, nf.Euclidean(1))
    found = nf.solve(level, np.array([0.2]), init=np.array([3.0]))
    np.testing.assert_allclose(found.value, np.tan([0.2]), rtol=1e-12)


def test_picard_takes_the_steps_that_the_rate_tells():
    rate = 0.5
    level = nf.FixedPoint(lambda x, y: rate * y + x, nf.Euclidean(1))
    found = nf.solve(level, np.ones(1), init=np.zeros(1), solver=nf.Picard(tol=1e-9))
    np.testing.assert_allclose(found.value, [2.0], rtol=1e-8)
    assert abs(int(found.steps) - np.log(1e-9) / np.log(rate)) < 3


@eager
def test_a_black_box_is_checked(backend, like64):
    problem = smallest_eigenvector(like=like64)
    x, y = problem.start(np.random.default_rng(0))
    level, exact = problem.problem().lower, problem.solution(x)
    found = nf.solve(level, x, init=y, solver=nf.External(lambda x, init: exact))
    assert bool(found.converged) and float(found.residual) < 1e-13
    with pytest.warns(nf.ConvergenceWarning, match="External on the Argmin level"):
        poor = nf.solve(level, x, init=y, solver=nf.External(lambda x, init: init))
    assert not bool(poor.converged) and float(poor.residual) > 1e-3
    with pytest.raises(nf.NotOnManifoldError, match="the external solver's answer"):
        nf.solve(level, x, init=y, solver=nf.External(lambda x, init: 2 * exact))
    with pytest.raises(nf.ShapeError, match="the external solver's answer"):
        nf.solve(level, x, init=y, solver=nf.External(lambda x, init: exact[:5]))


# -- what goes wrong is told -------------------------------------------------------------------------------


@eager
@every_descent
def test_too_few_steps(backend, like64, solver):
    problem = synthetic(like=like64, d=5, r=2, n=10)
    w, m = problem.start(np.random.default_rng(0))
    short = type(solver)(max_steps=2)
    with pytest.warns(nf.ConvergenceWarning, match=f"{type(solver).__name__} on the Argmin level.*after 2 steps"):
        found = nf.solve(problem.problem().lower, w, init=m, solver=short)
    assert not bool(found.converged) and int(found.steps) == 2
    assert bool(nf.SPD(5).contains(found.value))


@pytest.mark.parametrize("kind", [nf.Picard, nf.Newton])
def test_too_few_steps_to_a_fixed_point(kind):
    problem = tanh_fixed_point(like=np.zeros(()))
    x, y = problem.start(np.random.default_rng(0))
    with pytest.warns(nf.ConvergenceWarning, match=f"{kind.__name__} on the FixedPoint level.*after 1 steps"):
        found = nf.solve(problem.problem().lower, x, init=y, solver=kind(max_steps=1))
    assert not bool(found.converged) and int(found.steps) == 1


@eager
@every_descent
@pytest.mark.parametrize("case", ["flat", "spd"])
def test_no_minimum(backend, like64, solver, case):
    """A linear cost, and ⟨M, A⟩ with an indefinite A: the last state is finite and no answer."""
    x = backend.asarray(np.array([1.0, -2.0]), like=like64)
    if case == "flat":
        level, init = nf.Argmin(lambda x, y: x @ y, nf.Euclidean(2)), 0 * x
    else:
        a = backend.asarray(np.diag([1.0, -2.0]), like=like64)
        level = nf.Argmin(lambda x, y: nf.namespace(x, y).sum(y * a) * x[0], nf.SPD(2))
        init = backend.asarray(np.eye(2), like=like64)
    with pytest.warns(nf.ConvergenceWarning):
        found = nf.solve(level, x, init=init, solver=solver)
    assert not bool(found.converged)
    assert np.isfinite(backend.to_numpy(found.value)).all()


@every_descent
def test_steps_into_nan_are_taken_back(solver):
    """A barrier, NaN on its far side: the minimum is found, or the last finite point is given and told of."""

    def cost(x, y):
        return x @ y - 0.1 * np.sum(np.log(1 - y * y))

    x = np.array([1.0, -3.0])
    level = nf.Argmin(cost, nf.Euclidean(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the logarithm
        found = quietly(lambda: nf.solve(level, x, init=np.zeros(2), solver=solver))
        assert np.isfinite(cost(x, found.value))
    if not (isinstance(solver, nf.GradientDescent) and isinstance(solver.step, float)):
        exact = (0.1 - np.sqrt(0.01 + x * x)) / x
        np.testing.assert_allclose(found.value, exact, rtol=1e-7)
        assert bool(found.converged)
    else:
        assert not bool(found.converged)


@eager
@every_descent
def test_nan_at_the_start(backend, like64, solver):
    """Nothing can be done: the start comes back, `converged` false, with a warning."""
    init = backend.asarray(np.array([2.0, 3.0]), like=like64)
    level = nf.Argmin(lambda x, y: nf.namespace(x, y).sum(x * y) * float("nan"), nf.Euclidean(2))
    with pytest.warns(nf.ConvergenceWarning):
        found = nf.solve(level, init, init=init, solver=solver)
    assert not bool(found.converged)
    np.testing.assert_array_equal(backend.to_numpy(found.value), [2, 3])


@pytest.mark.parametrize("kind", [nf.Picard, nf.Newton])
def test_a_map_that_overflows(kind):
    level = nf.FixedPoint(lambda x, y: y * y * y + x + 10, nf.Euclidean(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the product
        found = quietly(lambda: nf.solve(level, np.ones(1), init=np.full(1, 2.0), solver=kind()))
    assert np.isfinite(found.value).all()
    assert bool(found.converged) == (kind is nf.Newton)


# -- the gradient of exactly k steps -----------------------------------------------------------------------


def test_unrolled_descent_is_the_loop_written_by_hand(backend, like64):
    """On the sphere, with respect to x and to the start, whose retraction is differentiated too."""
    problem = smallest_eigenvector(like=like64, n=4, p=2)
    manifold = nf.Sphere(4)
    x, y = problem.start(np.random.default_rng(0))
    y = manifold.retract(y, manifold.project(y, backend.noise(np.random.default_rng(1), (4,), like=y)))
    level, t, steps = problem.problem().lower, 0.15, 4

    def by_hand(x, y):
        for _ in range(steps):
            y = manifold.retract(y, -t * manifold.project(y, nf.grad(lambda y: problem.lower(x, y))(y)))
        return problem.upper(x, y)

    def unrolled(x, y):
        estimator = nf.Unrolled(steps)
        found = nf.solve(level, x, init=y, solver=nf.GradientDescent(t), estimator=estimator)
        return problem.upper(x, found.value)

    pairs = backend.jit(lambda x, y: [nf.grad(f, argnums=(0, 1))(x, y) for f in (unrolled, by_hand)])(x, y)
    (x_found, y_found), (x_expected, y_expected) = pairs
    assert relative(backend, x_found, x_expected) < 1e-12
    # of the start only the tangent part is meant: how it would leave the sphere is nobody's business
    assert relative(backend, manifold.project(y, y_found), manifold.project(y, y_expected)) < 1e-12


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_unrolled_map_is_the_loop_written_by_hand(steps):
    problem = tanh_fixed_point(like=np.zeros(()), n=5, p=3)
    x, y = problem.start(np.random.default_rng(0))
    y = y + 0.3

    def by_hand(x, y):
        for _ in range(steps):
            y = problem.map(x, y)
        return problem.upper(x, y)

    def unrolled(x, y):
        found = nf.solve(problem.problem().lower, x, init=y, estimator=nf.Unrolled(steps))
        assert int(found.steps) == steps
        return problem.upper(x, found.value)

    for found, expected in zip(
        nf.grad(unrolled, argnums=(0, 1))(x, y), nf.grad(by_hand, argnums=(0, 1))(x, y), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("rule", [nf.Armijo(), nf.BarzilaiBorwein()], ids=["armijo", "barzilai_borwein"])
def test_searched_lengths_are_constants(rule):
    """The derivative of the loop by hand whose lengths are numbers: those that the solver took."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 4))
    h, x, y0, steps = a @ a.T + np.eye(4), rng.standard_normal(4), rng.standard_normal(4), 5

    def cost(x, y):
        return y @ h @ y / 2 + np.sum(y**4) / 4 - x @ y

    level = nf.Argmin(cost, nf.Euclidean(4))
    points = [y0] + [
        quietly(lambda k=k: nf.solve(level, x, init=y0, solver=nf.GradientDescent(rule, max_steps=k))).value
        for k in range(1, steps + 1)
    ]
    slopes = [nf.grad(lambda y: cost(x, y))(p) for p in points[:-1]]
    lengths = [(p - q) @ g / (g @ g) for p, q, g in zip(points, points[1:], slopes, strict=False)]
    assert len({round(t, 12) for t in lengths}) > 1

    def by_hand(x, y):
        for t in lengths:
            y = y - t * nf.grad(lambda y: cost(x, y))(y)
        return y @ y

    def unrolled(x, y):
        solver = nf.GradientDescent(rule)
        y = nf.solve(level, x, init=y, solver=solver, estimator=nf.Unrolled(steps)).value
        return y @ y

    for found, expected in zip(
        nf.grad(unrolled, argnums=(0, 1))(x, y0), nf.grad(by_hand, argnums=(0, 1))(x, y0), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("steps", [5, 20, 60])
def test_error_of_unrolling(steps):
    """Φ(w, λ) = λw + 1: of ITD exactly t q^{t-1}/(1 - q) + q^t/(1 - q)², of AID at the same wₜ q^t/(1 - q)².

    Grazzi, Franceschi, Pontil & Salzo 2020, theorems 2.1 and 2.2.
    """
    q = 0.8
    level, x, start = nf.FixedPoint(lambda x, y: x * y + 1, nf.Euclidean()), np.asarray(q), np.zeros(())
    exact = 1 / (1 - q) ** 2
    unrolled = nf.grad(lambda x: nf.solve(level, x, init=start, estimator=nf.Unrolled(steps)).value)(x)
    short = nf.Picard(max_steps=steps)
    implicit = quietly(lambda: nf.grad(lambda x: nf.solve(level, x, init=start, solver=short).value)(x))
    away = q**steps / (1 - q) ** 2
    assert float(exact - unrolled) == pytest.approx(away + steps * q ** (steps - 1) / (1 - q), rel=1e-7)
    assert float(exact - implicit) == pytest.approx(away, rel=1e-4)
