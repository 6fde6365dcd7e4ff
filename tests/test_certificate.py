"""What a hypergradient says of its own error, against the truth; and accuracy on demand."""

import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

KINDS = ("euclidean", "sphere", "spd", "ball", "stiefel")
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)
eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)


# -- a distribution of problems ----------------------------------------------------------------------------


def bent(t):
    """t²/2 with terms of third and fourth order of its own size; convex."""
    return 0.5 * t**2 + 0.2 * t**3 + 0.1 * t**4


def curvatures(rng, n, condition):
    """From 1/condition to 1, both among them, the rest at random in between, by logarithm."""
    values = condition ** -rng.uniform(0, 1, n)
    values[0], values[-1] = 1, 1 / condition
    return values


def rotation(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def lower_level(rng, kind, n, p, condition):
    """A level with a nonquadratic cost of x in Rᵖ, whose Hessian has about the condition number, and a start."""
    q, drift = rotation(rng, n), rng.standard_normal((p, n, n))
    drift = 0.5 * (drift + drift.swapaxes(1, 2))

    def weighted(x):
        return np.sum(np.tanh(x)[:, None, None] * drift, axis=0)

    if kind in ("euclidean", "ball"):
        values, size = curvatures(rng, n, condition), 0.5 if kind == "euclidean" else 0.05
        a, b = rng.standard_normal((2, n, p)) / np.sqrt(p)

        def cost(x, y):
            return np.sum(values * (1 + 0.3 * np.tanh(a @ x)) * bent(q.T @ y - size * np.tanh(b @ x)))

        return nf.Argmin(cost, nf.Euclidean(n) if kind == "euclidean" else nf.PoincareBall(n)), np.zeros(n)
    if kind == "spd":
        values = np.sqrt(curvatures(rng, n, condition))
        a, root = (q * values) @ q.T, (q * np.sqrt(values)) @ q.T

        def cost(x, y):
            k = np.eye(n) + 0.1 * weighted(x)
            return np.sum(a * y) + np.sum((root @ k @ k @ root) * np.linalg.inv(y))

        return nf.Argmin(cost, nf.SPD(n)), np.eye(n)
    k = 1 if kind == "sphere" else 2
    gap = 1 / condition
    values = np.concatenate([[0.0, gap][:k], (k - 1) * gap + curvatures(rng, n - k, condition)])
    root, weights = np.sqrt(np.maximum(values, gap))[:, None], np.array([2.0, 1.0])[:k]

    def cost(x, y):
        t = q.T @ np.reshape(y, (n, k))
        u = root * t
        quadratic = 0.5 * values[:, None] * t**2 + 0.03 * u * (weighted(x) @ u)
        return np.sum(quadratic * weights) + 0.05 * np.sum(values[:, None] * t**4)

    if kind == "sphere":
        return nf.Argmin(cost, nf.Sphere(n)), q[:, 0]
    return nf.Argmin(cost, nf.Stiefel(n, 2)), q[:, :2]


def bilevel(rng, kind, n, p, condition):
    """A problem, x, and the start of the lower level."""
    level, start = lower_level(rng, kind, n, p, condition)
    a, b, c = rng.standard_normal(start.shape), rng.standard_normal((p, *start.shape)), rng.standard_normal(p)

    def upper(x, y):
        z = a + np.sum(np.reshape(np.sin(x), (p,) + (1,) * start.ndim) * b, axis=0)
        return np.sum(z * y) + 0.5 * np.sum((y - a) ** 2) + c @ x

    return nf.Bilevel(upper, nf.Euclidean(p), level), rng.standard_normal(p), start


def draw(rng):
    """A problem, x, and the start of the lower level: manifold, sizes and condition number (2 to 1e4) at random."""
    kind, n, p = rng.choice(KINDS), int(rng.integers(3, 9)), int(rng.integers(2, 6))
    if kind == "spd":
        n = max(2, n // 2)
    return bilevel(rng, kind, n, p, 10 ** rng.uniform(np.log10(2), 4))


def at(y):
    """A solver whose answer is y."""
    return nf.External(lambda x, start: y, tol=np.inf)


def exact(problem, x, start):
    """The hypergradient, and the lower level's answer, as good as rounding lets them be."""
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nf.ConvergenceWarning)
            found = nf.hypergradient(
                problem, x, start, solver=nf.TrustRegion(tol=1e-15), estimator=nf.Implicit(nf.Dense()), certify=False
            )
        start = found.lower.value
    assert found.lower.residual < 1e-13
    return found.gradient, found.lower.value


def away(rng, problem, y, distance):
    """A point at a distance from y, in a random direction."""
    manifold = problem.lower.manifold
    u = manifold.random_tangent(rng, y)
    return manifold.retract(y, distance / manifold.norm(y, u) * u)


def certified(problem, x, y, **settings):
    """The hypergradient with the lower answer y, its certificate, and no warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        found = nf.hypergradient(problem, x, y, solver=at(y), **settings)
    assert found.certificate is not None
    return found, found.certificate


# -- the estimate and the truth ------------------------------------------------------------------------------


def test_the_estimate_is_between_the_error_and_ten_times_it():
    """Of 200 random problems, lower answers wrong by 1e-6 to 1e-1."""
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(200):
        problem, x, start = draw(rng)
        gradient, y = exact(problem, x, start)
        found, certificate = certified(problem, x, away(rng, problem, y, 10 ** rng.uniform(-6, -1)))
        ratios.append(certificate.error / np.linalg.norm(found.gradient - gradient))
        assert certificate.inner_error > certificate.linear_error
    ratios = np.array(ratios)
    assert np.mean((ratios >= 1) & (ratios <= 10)) >= 0.95
    assert np.mean(ratios < 1) <= 0.02
    assert np.median(ratios) == pytest.approx(2, rel=0.01)


def test_the_split_says_which_part_dominates():
    """Both solves inexact: a few steps of conjugate gradients, or terms of the series."""
    rng = np.random.default_rng(1)
    ratios, right, clear = [], 0, 0
    for i in range(60):
        problem, x, start = draw(rng)
        gradient, y = exact(problem, x, start)
        y, steps = away(rng, problem, y, 10 ** rng.uniform(-6, -1)), int(rng.integers(1, 8))
        at_y = nf.hypergradient(problem, x, y, solver=at(y), estimator=nf.Implicit(nf.Dense()), certify=False).gradient
        linear = nf.CG(max_steps=steps, tol=0) if i % 2 else nf.Neumann(terms=steps)
        found, certificate = certified(problem, x, y, estimator=nf.Implicit(linear))
        of_linear, of_inner = np.linalg.norm(found.gradient - at_y), np.linalg.norm(at_y - gradient)
        ratios.append(certificate.error / np.linalg.norm(found.gradient - gradient))
        if not 0.3 < of_linear / of_inner < 3:
            clear += 1
            right += (certificate.linear_error > certificate.inner_error) == (of_linear > of_inner)
    assert np.mean((np.array(ratios) >= 1) & (np.array(ratios) <= 10)) >= 0.95
    assert clear > 30 and right == clear


@pytest.mark.parametrize("unit", [1e-165, 1e-30, 1e30])
@pytest.mark.parametrize("which", [0, 1], ids=["lower", "upper"])
def test_the_estimate_knows_no_unit(unit, which):
    """Of either cost; also where squares are 0."""
    rng = np.random.default_rng(0)
    problem, x, start = bilevel(rng, "sphere", 4, 3, 10.0)
    y = away(rng, problem, exact(problem, x, start)[1], 1e-3)
    (low, up), level = ((unit, 1.0), (1.0, unit))[which], problem.lower
    scaled = nf.Bilevel(
        lambda x, y: up * problem.upper(x, y),
        problem.manifold,
        nf.Argmin(lambda x, y: low * level.function(x, y), level.manifold),
    )
    plain, other = (certified(p, x, y)[1] for p in (problem, scaled))
    assert other.error / up == pytest.approx(plain.error, rel=1e-6)
    assert other.condition == pytest.approx(plain.condition, rel=1e-6)


@pytest.mark.parametrize("kind", ["euclidean", "sphere", "spd"])
def test_the_corrected_gradient_and_value_are_right_to_second_order(kind):
    """Slopes of the errors in the inner error; those of the plain ones are 1."""
    rng = np.random.default_rng(3)
    problem, x, start = bilevel(rng, kind, 4, 3, 20.0)
    gradient, y = exact(problem, x, start)
    value = problem.upper(x, y)
    distances = np.array([3e-2, 1e-2, 3e-3, 1e-3])
    u = problem.lower.manifold.random_tangent(rng, y)
    errors = []
    for distance in distances:
        point = problem.lower.manifold.retract(y, distance / problem.lower.manifold.norm(y, u) * u)
        found, certificate = certified(problem, x, point)
        errors.append(
            (
                np.linalg.norm(found.gradient - gradient),
                np.linalg.norm(certificate.gradient - gradient),
                abs(found.value - value),
                abs(certificate.value - value),
            )
        )
    slopes = np.polyfit(np.log(distances), np.log(np.array(errors)), 1)[0]
    assert slopes[[0, 2]] == pytest.approx([1, 1], abs=0.1)
    assert slopes[1] > 1.85 and slopes[3] > 1.85
    last = errors[-1]
    assert last[1] < 0.02 * last[0] and last[3] < 0.02 * last[2]


def test_converged_solves_have_small_errors_on_every_backend(backend, like64, rng):
    """With the default settings, on the sphere and of a map; the estimate still is one."""
    for make in (smallest_eigenvector, tanh_fixed_point)[: 1 if backend.name == "jax" else 2]:
        problem = make(like=like64)
        x, y = problem.start(rng)
        found = nf.hypergradient(problem.problem(), x, y)
        c = found.certificate
        assert c is not None
        true = np.linalg.norm(backend.to_numpy(found.gradient) - backend.to_numpy(problem.euclidean_gradient(x)))
        assert 0.5 * true < float(c.error) < max(10 * true, 1e-12)
        assert float(c.error) < 1e-11 * float(c.size)
        assert float(c.inner_residual) == pytest.approx(float(found.lower.residual), rel=1e-6, abs=1e-14)
        assert not bool(c.negative_curvature)


@numpy_only
def test_the_spectrum(backend, like64):
    """Few dimensions: ten products see all of it."""
    problem = smallest_eigenvector(like=like64)
    x, y = problem.start(np.random.default_rng(0))
    c = nf.hypergradient(problem.problem(), x, y).certificate
    assert c is not None and np.isnan(c.contraction)
    manifold, y = nf.Sphere(y.size), nf.solve(problem.problem().lower, x, init=y).value
    columns = [manifold.hessian(lambda p: problem.lower(x, p), y, manifold.project(y, e)) for e in np.eye(y.size)]
    values = np.linalg.eigvalsh(np.stack(columns))[1:]  # the first is 0, of the direction y
    assert [c.lowest, c.highest, c.condition] == pytest.approx(
        [values[0], values[-1], values[-1] / values[0]], rel=1e-8
    )


def test_a_map_has_a_contraction_factor():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((6, 6))
    matrix *= 0.8 / np.abs(np.linalg.eigvals(matrix)).max()
    problem = nf.Bilevel(
        lambda x, y: np.sum(y**2), nf.Euclidean(6), nf.FixedPoint(lambda x, y: matrix @ y + np.sin(x), nf.Euclidean(6))
    )
    c = nf.hypergradient(problem, rng.standard_normal(6), np.zeros(6)).certificate
    assert c is not None and np.isnan(c.lowest)
    assert c.contraction == pytest.approx(0.8, rel=0.03)  # ‖Mᵏ‖^(1/k) for k = 64
    assert c.condition == pytest.approx(np.linalg.cond(np.eye(6) - matrix), rel=1e-6)


def test_fields_that_are_not_symmetric():
    """A root found badly: the Newton step is that of the field, not of its transpose."""
    rng = np.random.default_rng(2)
    a = rng.standard_normal((5, 5)) + 4 * np.eye(5)
    level = nf.Root(lambda x, y: a @ y + 0.3 * y**3 - np.exp(0.3 * x), nf.Euclidean(5))
    problem = nf.Bilevel(lambda x, y: np.sum(np.sin(y)), nf.Euclidean(5), level)
    x = rng.standard_normal(5)
    right = nf.hypergradient(problem, x, np.zeros(5))
    for distance in (1e-1, 1e-4):
        y = right.lower.value + distance * rng.standard_normal(5)
        found, c = certified(problem, x, y)
        assert 1 < c.error / np.linalg.norm(found.gradient - right.gradient) < 10
        assert np.linalg.norm(c.gradient - right.gradient) < 0.1 * np.linalg.norm(found.gradient - right.gradient)


def test_trees_and_complex_points():
    """A product of a Hermitian positive definite matrix and a unit vector."""
    rng = np.random.default_rng(8)
    a, b, c = (rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(3))
    a, d = a @ a.conj().T + np.eye(3), rng.standard_normal((4, 4))

    def lower(x, y):
        m, u = y["m"], y["u"]
        barrier = np.real(np.sum(np.conj(a) * m)) + np.exp(x[0]) * np.real(np.trace(np.linalg.inv(m)))
        return barrier + u @ (d @ d.T @ u) + d[0] @ u * x[1] + 0.1 * np.real(np.sum(np.conj(b) * m)) * u[0]

    manifold = nf.Product({"m": nf.HPD(3), "u": nf.Sphere(4)})
    problem = nf.Bilevel(
        lambda x, y: np.real(np.sum(np.conj(c) * y["m"])) ** 2 + d[1] @ y["u"] + x @ x,
        nf.Euclidean(2),
        nf.Argmin(lower, manifold),
    )
    x, start = np.array([0.3, -0.2]), {"m": np.eye(3) + 0j, "u": np.ones(4) / 2}
    right = nf.hypergradient(problem, x, start)
    assert right.certificate is not None and right.certificate.error < 1e-11
    y = right.lower.value
    step = manifold.random_tangent(rng, y)
    y = manifold.retract(y, {name: 1e-3 * part for name, part in step.items()})
    found, certificate = certified(problem, x, y)
    error = np.linalg.norm(found.gradient - right.gradient)
    assert 1 < certificate.error / error < 10
    assert np.linalg.norm(certificate.gradient - right.gradient) < 0.05 * error


# -- solves that went wrong ----------------------------------------------------------------------------------


def logistic(rng, n=60, d=12):
    """Validation loss as a function of the logarithm of the ridge's weight."""
    a, b = rng.standard_normal((2, n, d)) * np.logspace(0, -1, d)
    truth = rng.standard_normal(d)
    s, t = (np.sign(m @ truth + 0.5 * rng.standard_normal(n)) for m in (a, b))

    def loss(m, signs, y):
        return np.mean(np.log1p(np.exp(-signs * (m @ y))))

    level = nf.Argmin(lambda x, y: loss(a, s, y) + 0.5 * np.sum(np.exp(x) * y**2), nf.Euclidean(d))
    return nf.Bilevel(lambda x, y: loss(b, t, y), nf.Euclidean(d), level), np.full(d, -5.0), np.zeros(d)


def test_a_lower_level_that_was_stopped_early_is_flagged():
    """Gradient descent cut off: the implicit function theorem gives a wrong gradient, elsewhere without a word."""
    problem, x, start = logistic(np.random.default_rng(0))
    gradient, _ = exact(problem, x, start)
    with pytest.warns(nf.ConvergenceWarning, match=r"on the lower level \(estimated error .* % of its size\)"):
        found = nf.hypergradient(problem, x, start, solver=nf.GradientDescent(max_steps=10))
    error, c = np.linalg.norm(found.gradient - gradient), found.certificate
    assert c is not None and 0.05 < error / np.linalg.norm(gradient) < 0.2
    assert 1 < c.error / error < 10
    assert c.inner_error > 100 * c.linear_error
    assert np.linalg.norm(c.gradient - gradient) < 0.3 * error


@pytest.mark.parametrize("certify", [True, False])
@pytest.mark.parametrize(
    "estimator", [nf.OneStep(), nf.OneStep(linear=nf.CG()), nf.FirstOrder(1e3)], ids=["one_step", "newton", "penalty"]
)
def test_it_is_flagged_whatever_the_estimator(estimator, certify):
    problem, x, start = logistic(np.random.default_rng(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nf.hypergradient(
            problem, x, start, solver=nf.GradientDescent(max_steps=10), estimator=estimator, certify=certify
        )
    assert "on the lower level" in str(caught[0].message) and caught[0].filename == __file__


@pytest.mark.parametrize("estimator", [nf.OneStep(), nf.OneStep(linear=nf.MINRES())], ids=["one_step", "newton"])
def test_a_saddle_is_told_whatever_the_estimator(estimator):
    level = nf.Argmin(lambda x, y: np.sum(np.array([1.0, 2.0, -0.5]) * (y - x) ** 2), nf.Euclidean(3))
    problem, x = nf.Bilevel(lambda x, y: np.sum(y**2), nf.Euclidean(3), level), np.array([1.0, 2.0, 3.0])
    with pytest.warns(nf.ConvergenceWarning, match="no isolated minimum there"):
        nf.hypergradient(problem, x, x, solver=at(x), estimator=estimator)


def test_a_saddle_has_no_isolated_minimum():
    flat = nf.Euclidean(3)
    level = nf.Argmin(lambda x, y: np.sum(np.array([1.0, 2.0, -0.5]) * (y - x) ** 2), flat)
    problem = nf.Bilevel(lambda x, y: np.sum(y**2), flat, level)
    x = np.array([1.0, 2.0, 3.0])
    with pytest.warns(nf.ConvergenceWarning, match="no isolated minimum there: .* eigenvalue of about -1"):
        found = nf.hypergradient(problem, x, x, solver=at(x))
    assert found.certificate is not None and bool(found.certificate.negative_curvature)


def test_a_valley_has_no_isolated_minimum():
    """Only the sum of y counts: a singular Hessian."""
    flat = nf.Euclidean(3)
    level = nf.Argmin(lambda x, y: (np.sum(y) - np.sum(x)) ** 2, flat)
    problem = nf.Bilevel(lambda x, y: y[0] ** 2, flat, level)
    with pytest.warns(nf.ConvergenceWarning, match="no isolated minimum there"):
        nf.hypergradient(problem, np.ones(3), np.ones(3))


def test_a_map_that_does_not_contract_is_told():
    matrix = np.array([[1.3, 0.4], [-0.1, 0.2]])
    flat = nf.Euclidean(2)
    problem = nf.Bilevel(lambda x, y: np.sum(y**2), flat, nf.FixedPoint(lambda x, y: matrix @ y + x, flat))
    x = np.array([1.0, 2.0])
    y = np.linalg.solve(np.eye(2) - matrix, x)
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    with pytest.warns(nf.ConvergenceWarning, match=f"does not contract there: .* about {radius:.2f}"):
        nf.hypergradient(problem, x, y, solver=at(y), estimator=nf.Implicit(nf.Neumann(terms=20)))
    _, c = certified(problem, x, y, estimator=nf.Implicit(nf.Dense()))
    assert c.contraction == pytest.approx(radius, rel=0.02)
    assert c.error < 1e-12 * c.size


# -- other estimators, batches, none at all --------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [nf.Unrolled(3), nf.Unrolled(12), nf.OneStep()], ids=["3", "12", "one_step"])
def test_an_estimator_without_a_linear_solve(estimator):
    """The distance to the implicit gradient where a Newton step leads."""
    problem, x, start = bilevel(np.random.default_rng(4), "sphere", 5, 3, 4.0)
    gradient, _ = exact(problem, x, start)
    found = nf.hypergradient(problem, x, start, solver=nf.GradientDescent(), estimator=estimator)
    assert found.certificate is not None and found.adjoint is None
    assert 1 < found.certificate.error / np.linalg.norm(found.gradient - gradient) < 10


def test_a_method_of_first_order_is_certified_only_on_demand():
    """The certificate takes second derivatives."""
    problem, x, start = bilevel(np.random.default_rng(4), "euclidean", 4, 3, 4.0)
    gradient, _ = exact(problem, x, start)
    estimator = nf.FirstOrder(1e3)
    assert nf.hypergradient(problem, x, start, estimator=estimator).certificate is None
    found = nf.hypergradient(problem, x, start, estimator=estimator, certify=True)
    assert found.certificate is not None
    assert 1 < found.certificate.error / np.linalg.norm(found.gradient - gradient) < 10


@eager
def test_a_batch_is_certified_problem_by_problem(backend, xp, like64):
    problem = synthetic(like=like64, d=5, r=2, n=10)
    starts = [problem.start(np.random.default_rng(seed)) for seed in range(3)]
    w, m = (xp.stack([s[i] for s in starts]) for i in range(2))
    solver = nf.TrustRegion(tol=1e-3)
    found = nf.hypergradient(problem.problem(), w, m, solver=solver).certificate
    assert found is not None and tuple(found.error.shape) == tuple(found.condition.shape) == (3,)
    for i in range(3):
        alone = nf.hypergradient(problem.problem(), w[i, ...], m[i, ...], solver=solver).certificate
        assert alone is not None
        for field in ("error", "inner_residual", "value"):
            one, other = (
                float(getattr(c, field)) for c in (found._replace(**{field: getattr(found, field)[i]}), alone)
            )
            assert one == pytest.approx(other, rel=1e-3)


def test_many_lower_problems_under_one_upper_cost():
    flat, centers = nf.Euclidean(2), np.arange(8.0).reshape(4, 2)
    level = nf.Argmin(lambda x, y: np.sum((y - np.sin(x) * centers) ** 2 + 0.1 * y**4, axis=-1), flat)
    problem = nf.Bilevel(lambda x, y: np.sum(y**2), flat, level)
    x = np.array([0.3, 0.7])
    right = nf.hypergradient(problem, x, centers)
    y = right.lower.value + 1e-3
    found, c = certified(problem, x, y)
    assert c.error.shape == () and c.condition.shape == (4,)
    assert 1 < c.error / np.linalg.norm(found.gradient - right.gradient) < 10
    assert abs(c.value - right.value) < 1e-2 * abs(found.value - right.value)


def test_an_empty_batch():
    """No problem, no error; but nothing to run."""
    flat = nf.Euclidean(2)
    level = nf.Argmin(lambda x, y: np.sum((y - x) ** 2, axis=-1), flat)
    problem, none = nf.Bilevel(lambda x, y: np.sum(y * y, axis=-1), flat, level), np.zeros((0, 2))
    for settings in ({}, {"tol": 1e-3}):
        found = nf.hypergradient(problem, none, none, **settings)  # pyright: ignore[reportCallIssue, reportArgumentType]
        assert found.gradient.shape == (0, 2)
        assert found.certificate is not None and found.certificate.error.shape == (0,)
    with pytest.raises(nf.ShapeError, match="at least one problem"):
        nf.run(problem, none, none)


def test_no_certificate_where_none_is_wanted():
    problem, x, start = bilevel(np.random.default_rng(0), "ball", 4, 3, 4.0)
    plain, full = (nf.hypergradient(problem, x, start, certify=c) for c in (False, True))
    assert plain.certificate is None and full.certificate is not None
    np.testing.assert_array_equal(plain.gradient, full.gradient)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_it_survives_compilation(backend, like64, rng):
    import jax

    problem = smallest_eigenvector(like=like64)
    x, y = problem.start(rng)
    c = jax.jit(lambda x, y: nf.hypergradient(problem.problem(), x, y).certificate)(x, y)
    assert 0 < float(c.error) < 1e-11 and float(c.lowest) > 0
    with pytest.raises(ValueError, match=r"under jax\.jit"):
        jax.jit(lambda x, y: nf.hypergradient(problem.problem(), x, y, tol=1e-3).gradient)(x, y)


# -- accuracy on demand ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_accuracy_asked_for_is_reached(kind):
    problem, x, start = bilevel(np.random.default_rng(6), kind, 5, 3, 50.0)
    gradient, _ = exact(problem, x, start)
    for tol in (1e-2, 1e-5, 1e-9):
        found = nf.hypergradient(problem, x, start, tol=tol)
        c = found.certificate
        assert c is not None and c.error <= tol * c.size
        assert np.linalg.norm(found.gradient - gradient) <= tol * np.linalg.norm(gradient)
        assert c.lowest > 0


def test_less_accuracy_takes_fewer_products(monkeypatch):
    """Products with the Hessian, those of the lower solver, of the adjoint solve and of the certificate together."""
    products, plain = [], nf.Argmin.operator

    def counted(self, *args):
        forward, _ = plain(self, *args)

        def apply(v):
            products.append(1)
            return forward(v)

        return apply, apply

    monkeypatch.setattr(nf.Argmin, "operator", counted)
    counts = []
    for seed, condition in ((0, 30.0), (1, 30.0), (2, 100.0)):
        problem, x, start = bilevel(np.random.default_rng(seed), "euclidean", 50, 4, condition)
        counts.append([])
        for tol in (None, 1e-6, 1e-4, 1e-2):
            products.clear()
            nf.hypergradient(problem, x, start, tol=tol)
            counts[-1].append(len(products))
    counts = np.array(counts)
    assert np.all(counts[:, 1:] < counts[:, :1])
    assert np.all(np.diff(np.sum(counts, axis=0)) < 0)
    assert np.sum(counts[:, 3]) < 0.7 * np.sum(counts[:, 0])


def test_a_solver_that_cannot_do_better_is_helped_by_newton_steps():
    rng = np.random.default_rng(7)
    problem, x, start = bilevel(rng, "stiefel", 5, 3, 20.0)
    gradient, y = exact(problem, x, start)
    found = nf.hypergradient(problem, x, start, solver=at(away(rng, problem, y, 0.05)), tol=1e-8)
    assert np.linalg.norm(found.gradient - gradient) < 1e-8 * np.linalg.norm(gradient)


@eager
def test_accuracy_on_demand_of_a_map(backend, like64):
    problem = tanh_fixed_point(like=like64, n=5, p=3, contraction=0.5)
    x, y = problem.start(np.random.default_rng(2))
    full = nf.hypergradient(problem.problem(), x, y)
    loose = nf.hypergradient(problem.problem(), x, y, tol=1e-4)
    gap = np.linalg.norm(backend.to_numpy(loose.gradient) - backend.to_numpy(full.gradient))
    assert 0 < gap < 1e-4 * np.linalg.norm(backend.to_numpy(full.gradient))
    assert loose.adjoint is not None and full.adjoint is not None and loose.adjoint.steps < full.adjoint.steps
    assert loose.lower.steps < full.lower.steps


def test_an_accuracy_that_rounding_forbids_is_told():
    problem, x, start = bilevel(np.random.default_rng(6), "sphere", 5, 3, 50.0)
    with pytest.warns(nf.ConvergenceWarning, match=r"tol=1e-17\): the estimated error"):
        found = nf.hypergradient(problem, x, start, tol=1e-17)
    assert found.certificate is not None and found.certificate.error < 1e-11


def test_accuracies_that_make_no_sense():
    problem, x, start = bilevel(np.random.default_rng(0), "euclidean", 3, 2, 4.0)
    for tol in (0.0, -1e-3, 1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nf.hypergradient(problem, x, start, tol=tol)
    with pytest.raises(TypeError, match="must be a number"):
        nf.hypergradient(problem, x, start, tol="small")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="certify=True"):
        nf.hypergradient(problem, x, start, tol=1e-3, certify=False)
    with pytest.raises(TypeError, match="Unrolled has not two"):
        nf.hypergradient(problem, x, start, tol=1e-3, solver=nf.GradientDescent(), estimator=nf.Unrolled(3))
