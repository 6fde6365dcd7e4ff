"""Theory against measurement: the error bounds of Fan et al. 2025, Grazzi et al. 2020 and Han et al. 2024.

Constants are measured, or computed from the data, never fitted to the errors that they bound; rates are slopes of
regressions. On NumPy: the formulas do not know the backend.
"""

import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import logistic, smallest_eigenvector, synthetic

LIKE = np.zeros(())
SPHERE = smallest_eigenvector(like=LIKE)
SPD = synthetic(like=LIKE, d=4, r=2, n=8, nu=0.05)
RETRACTIONS = {"exponential map": lambda manifold: manifold.exp, "retraction": lambda manifold: manifold.retract}
retractions = pytest.mark.parametrize("retract", RETRACTIONS.values(), ids=RETRACTIONS.keys())
curved = pytest.mark.parametrize("made", [SPHERE, SPD], ids=["sphere", "positive definite"])


@pytest.fixture(autouse=True)
def no_warnings():
    """Stopping early is the point here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        yield


def slope(x, y):
    """The slope of the line through log y against x."""
    return np.polyfit(x, np.log(y), 1)[0]


def lower_of(made):
    return made.problem().lower.manifold


def point_of(made):
    """An outer point, the exact lower answer there, and the exact Riemannian hypergradient."""
    x, over = made.start(np.random.default_rng(1))[0], made.problem().manifold
    return x, made.solution(x), over.sharp(x, over.project(x, made.euclidean_gradient(x)))


def gradient_at(problem, x, y, estimator):
    """The hypergradient at the lower point y, taken for the answer."""
    there = nf.External(lambda x, init: y)
    return nf.hypergradient(problem, x, y, solver=there, estimator=estimator, certify=False).gradient


def apart(problem, x, a, b):
    """‖a - b‖ in the metric at x."""
    return float(problem.manifold.norm(x, a - b))


def frame(manifold, y):
    """An orthonormal basis of the tangent space in the metric, (dim, *shape)."""
    units = np.eye(y.size).reshape(y.size, *y.shape)
    tangents = manifold.project(y, units)
    gram = manifold.inner(y, tangents[:, None], tangents[None])
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-9 * values[-1]
    coefficients = vectors[:, kept] / np.sqrt(values[kept])
    return np.tensordot(coefficients.T, tangents, axes=1)


def hessian_matrix(manifold, cost, y, basis):
    """Hess cost in an orthonormal basis."""
    images = np.stack([manifold.hessian(cost, y, e) for e in basis])
    return manifold.inner(y, basis[:, None], images[None])


def hessian_of(made, x, y):
    manifold = lower_of(made)
    return hessian_matrix(manifold, lambda p: made.lower(x, p), y, frame(manifold, y))


def best_step(made, x, y):
    """2/(h_min + h_max) of the Riemannian Hessian at y."""
    values = np.linalg.eigvalsh(hessian_of(made, x, y))
    return 2 / (values[0] + values[-1])


# -- Fan et al. 2025: one step of descent as a map, Γ_y(-ξ grad), and the series Σ Jⁱ --------------------------


def step_of(made, rate, retract):
    """(x, y) ↦ Γ_y(-ξ grad L(x, y))."""
    manifold = lower_of(made)

    def step(x, y):
        gradient = manifold.gradient(lambda p: made.lower(x, p), y)
        return retract(manifold)(y, manifold.scale(-rate, gradient))

    return step


def as_fixed_point(made, rate, retract):
    """The bilevel problem with `step_of` for its lower level."""
    problem = made.problem()
    return nf.Bilevel(
        problem.upper, problem.manifold, nf.FixedPoint(step_of(made, rate, retract), problem.lower.manifold)
    )


def jacobians(made, problem, x, y):
    """∂_y and ∂_x of the map on tangent vectors, in orthonormal frames at y (seen at the map's value) and x."""
    manifold, step, basis = problem.lower.manifold, problem.lower.map, frame(problem.lower.manifold, y)
    outer = frame(problem.manifold, x)

    def seen(images):
        return manifold.inner(y, basis[:, None], manifold.project(y, np.stack(images))[None])

    inner = seen([nf.jvp(lambda p: step(x, p), (y,), (e,))[1] for e in basis])
    return inner, seen([nf.jvp(lambda p: step(p, y), (x,), (e,))[1] for e in outer])


@retractions
@curved
def test_the_derivative_of_a_step_is_one_minus_the_hessian(made, retract):
    """J = I - ξ Hess on tangent vectors at the answer, for every retraction: papers/1, §2.1."""
    x, y, _ = point_of(made)
    rate = 0.7 * best_step(made, x, y)
    inner, _ = jacobians(made, as_fixed_point(made, rate, retract), x, y)
    assert np.abs(inner - (np.eye(len(inner)) - rate * hessian_of(made, x, y))).max() < 1e-11


@retractions
@curved
@pytest.mark.parametrize("part", [0.05, 1.0, 3.0])
def test_any_step_and_retraction_give_the_hypergradient_of_the_argmin(made, retract, part):
    """ξ and Γ only change the conditioning; beyond 2/h_max the map is no contraction, and the derivative stands."""
    x, y, exact = point_of(made)
    problem = as_fixed_point(made, part * best_step(made, x, y), retract)
    size = apart(problem, x, exact, 0 * exact)
    for linear in (nf.Dense(), nf.GMRES()):
        found = gradient_at(problem, x, y, nf.Implicit(linear))
        assert apart(problem, x, found, exact) < 1e-11 * size
    assert apart(problem, x, gradient_at(made.problem(), x, y, nf.Implicit()), exact) < 1e-11 * size


@retractions
@curved
def test_truncation_error_of_the_series(made, retract):
    """T2: error ≤ A B^(K+1), A = S α₂β₁/(1 - β₂), B = β₂ = max |1 - ξ h|; and B is the rate."""
    x, y, exact = point_of(made)
    rate = 0.9 * best_step(made, x, y)
    problem = as_fixed_point(made, rate, retract)
    q = np.abs(1 - rate * np.linalg.eigvalsh(hessian_of(made, x, y))).max()
    manifold, (_, cross) = problem.lower.manifold, jacobians(made, problem, x, y)
    upper_slope = float(manifold.norm(y, manifold.gradient(lambda p: problem.upper(x, p), y)))
    a = upper_slope * np.linalg.norm(cross, 2) / (1 - q)
    # K + 1 terms, from where the slowest part is all that is left to where rounding is
    first = int(np.log(1e-3) / np.log(q))
    terms = np.unique(np.linspace(first, 3 * first, 8).astype(int))
    errors = np.asarray(
        [
            apart(problem, x, gradient_at(problem, x, y, nf.Implicit(nf.Neumann(int(k), tol=0))), exact)
            for k in (1, 2, 3, *terms)
        ]
    )
    assert np.all(errors <= a * q ** np.asarray([1, 2, 3, *terms]) * (1 + 1e-9))
    assert slope(terms, errors[3:]) == pytest.approx(np.log(q), rel=0.01)


@retractions
@curved
def test_error_is_linear_in_that_of_the_answer(made, retract):
    """T1: the slope of the error in δ is 1, and T1 + T2: ≤ A B^(K+1) + C δ with the constants of the points met."""
    x, y, exact = point_of(made)
    rate = 0.9 * best_step(made, x, y)
    problem, manifold = as_fixed_point(made, rate, retract), lower_of(made)
    u = manifold.random_tangent(np.random.default_rng(3), y)
    u = u / manifold.norm(y, u)
    distances = np.geomspace(1e-1, 1e-6, 6)
    points = [manifold.exp(y, d * u) for d in distances]
    errors = [apart(problem, x, gradient_at(problem, x, p, nf.Implicit(nf.Dense())), exact) for p in points]
    assert slope(np.log(distances), errors) == pytest.approx(1, abs=0.1)
    c = max(e / d for e, d in zip(errors, distances, strict=True))
    # the constants of T2 at the points met
    at = [jacobians(made, problem, x, p) for p in (y, *points[2:])]
    b = max(np.linalg.norm(inner, 2) for inner, _ in at)
    lipschitz = max(np.linalg.norm(cross, 2) for _, cross in at)
    upper_slopes = [
        float(manifold.norm(p, manifold.gradient(lambda m: problem.upper(x, m), p))) for p in (y, *points[2:])
    ]
    a = max(upper_slopes) * lipschitz / (1 - b)
    assert b < 1
    for d, p in zip(distances[2:], points[2:], strict=True):
        for k in (2, 8, 40):
            found = gradient_at(problem, x, p, nf.Implicit(nf.Neumann(k + 1, tol=0)))
            assert apart(problem, x, found, exact) <= a * b ** (k + 1) + c * d


@retractions
@curved
def test_at_the_fixed_point_unrolling_is_the_truncated_series(made, retract):
    """t steps from y* and t terms at y* are the same sum, term by term; both tend to the implicit derivative."""
    x, y, exact = point_of(made)
    problem = as_fixed_point(made, best_step(made, x, y), retract)
    size = apart(problem, x, exact, 0 * exact)
    for t in (1, 2, 5, 12):
        unrolled = nf.hypergradient(problem, x, y, solver=nf.Picard(), estimator=nf.Unrolled(t), certify=False).gradient
        series = gradient_at(problem, x, y, nf.Implicit(nf.Neumann(t, tol=0)))
        assert apart(problem, x, unrolled, series) < 1e-11 * size
        assert apart(problem, x, series, exact) > 1e-6 * size


# -- Grazzi et al. 2020 ------------------------------------------------------------------------------------


class Contraction:
    """The constants of section 2 for gradient descent on the logistic problem, from w = 0: all in closed form."""

    def __init__(self, made, x):
        data, penalties, answer = made.features, np.exp(x), made.solution(x)
        gram = np.linalg.norm(data.T @ data, 2) / len(data)
        low, high = penalties.min(), penalties.max() + gram / 4  # σ' ≤ 1/4
        self.step, self.q = 2 / (low + high), (high - low) / (high + low)
        self.condition, q = high / low, self.q
        self.distance = np.linalg.norm(answer)
        nu1 = self.step * np.linalg.norm(data, axis=1).max() * gram / (6 * np.sqrt(3))  # |σ''| ≤ 1/(6√3)
        nu2 = self.step * penalties.max()
        l_phi = self.step * (penalties * (np.abs(answer) + self.distance)).max()
        mu1, mu2 = np.linalg.norm(made.held_out.T @ made.held_out, 2) / len(made.held_out) / 4, 0.0
        slope_there = nf.grad(lambda w: made.upper(x, w))(answer)
        l_e = np.linalg.norm(slope_there) + mu1 * self.distance
        self.c1 = (mu2 + mu1 * l_phi / (1 - q)) * self.distance
        self.c2 = (nu2 + nu1 * l_phi / (1 - q)) * l_e * self.distance
        self.c3 = l_e * l_phi / (1 - q)

    def itd(self, t):
        return (self.c1 + self.c2 * t / self.q + self.c3) * self.q**t

    def aid(self, rho, sigma):
        return (self.c1 + self.c2 / (1 - self.q)) * rho + self.c3 * sigma

    def cg(self, k):
        root = np.sqrt(self.condition)
        return 2 * root * ((root - 1) / (root + 1)) ** k


@pytest.mark.parametrize("shift", [-3.0, -1.0])
def test_bounds_of_grazzi_and_others(shift):
    """ITD ≤ (c₁ + c₂ t/q + c₃) qᵗ; AID ≤ (c₁ + c₂/(1 - q)) ρ + c₃ σ, σ = qᵏ for the series and 2√κ(…)ᵏ for CG."""
    made = logistic(like=LIKE, n=40, p=5)
    problem, x = made.problem(), np.random.default_rng(0).standard_normal(5) / 2 + shift
    exact, known = made.euclidean_gradient(x), Contraction(made, x)
    for t in (1, 3, 10, 30, 100):
        descent = nf.GradientDescent(step=known.step, max_steps=t, tol=0)

        def error(estimator, descent=descent):
            found = nf.hypergradient(problem, x, 0 * x, solver=descent, estimator=estimator, certify=False)
            return np.linalg.norm(found.gradient - exact), found.lower.value

        unrolled, w = error(nf.Unrolled(t))
        rho = known.q**t
        assert np.linalg.norm(w - made.solution(x)) <= known.distance * rho + 1e-14
        assert unrolled <= known.itd(t) + 1e-14
        for k in (1, 3, 10, 30, 100):
            series = nf.Neumann(k, step=known.step, tol=0)
            assert error(nf.Implicit(series))[0] <= known.aid(rho, known.q**k) + 1e-14
            assert error(nf.Implicit(nf.CG(max_steps=k, tol=0)))[0] <= known.aid(rho, known.cg(k)) + 1e-14


def scalar(h=2.0, b=0.7):
    """g = ½ h (1 + x²) y² - b y, f = y: with t = k the factor q = 1 - step h (1 + x²) is all that counts."""
    lower = nf.Argmin(lambda x, y: 0.5 * h * (1 + x * x) * y * y - b * y, nf.Euclidean())
    problem = nf.Bilevel(lambda x, y: 1.0 * y, nf.Euclidean(), lower)
    return problem, lambda x: -2 * x * b / (h * (1 + x * x) ** 2), h


@pytest.mark.parametrize("q", [0.5, 0.8, 0.95])
def test_the_series_beats_unrolling_from_q_over_one_minus_q_steps_on(q):
    """Where the bounds are attained: errors qᵗ (1 + t (1 - q)/q) and 1 - (1 - qᵗ)², which cross at t ≈ q/(1 - q)."""
    problem, exact, h = scalar()
    x = np.asarray(0.6)
    step = float((1 - q) / (h * (1 + x * x)))
    for t in range(1, 41):
        descent = nf.GradientDescent(step=step, max_steps=t, tol=0)
        itd, aid = (
            abs(
                nf.hypergradient(problem, x, 0 * x, solver=descent, estimator=estimator, certify=False).gradient
                / exact(x)
                - 1
            )
            for estimator in (nf.Unrolled(t), nf.Implicit(nf.Neumann(t, step=step, tol=0)))
        )
        assert itd == pytest.approx(q**t * (1 + t * (1 - q) / q), rel=1e-6, abs=1e-13)
        assert aid == pytest.approx(1 - (1 - q**t) ** 2, rel=1e-6, abs=1e-13)
        if t > q / (1 - q):
            assert aid < itd
        elif t < q / (1 - q) * (1 - q**t):
            assert itd < aid


def test_the_linear_solves_converge_at_their_rates():
    """At the exact answer: the series like qᵏ; conjugate gradients no slower than ((√κ - 1)/(√κ + 1))ᵏ, and not much
    faster before they have seen the whole spectrum.
    """
    n, rng = 80, np.random.default_rng(2)
    values = 1 + 99 * (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n))  # where Chebyshev polynomials are extreme
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    matrix, b, cross = (basis * values) @ basis.T, basis @ np.ones(n), basis @ np.ones(n)
    level = nf.Argmin(lambda x, y: y @ (matrix @ y) / 2 - x * (cross @ y), nf.Euclidean(n))
    problem = nf.Bilevel(lambda x, y: b @ y, nf.Euclidean(), level)
    x, y = np.asarray(0.3), 0.3 * np.linalg.solve(matrix, cross)
    exact = b @ np.linalg.solve(matrix, cross)

    def error(linear):
        return abs(gradient_at(problem, x, y, nf.Implicit(linear)) - exact)

    low, high = np.linalg.eigvalsh(matrix)[[0, -1]]
    q, root = (high - low) / (high + low), np.sqrt(high / low)
    terms = np.arange(300, 1100, 100)
    step = 2 / (low + high)
    found = slope(terms, [error(nf.Neumann(int(k), step=step, tol=0)) for k in terms])
    assert found == pytest.approx(np.log(q), rel=0.05)  # many eigenvalues close to the ends take part
    steps = np.arange(4, 40, 4)
    found = slope(steps, [error(nf.CG(max_steps=int(k), tol=0)) for k in steps])
    # from v = 0 with c = b the error is that of the energy: the square of the rate
    assert found == pytest.approx(2 * np.log((root - 1) / (root + 1)), rel=0.1)


# -- Han et al. 2024: four estimators at a lower point at geodesic distance d of the answer ---------------------


class Smoothness:
    """M, L, ρ, μ between y* and ŷ, measured in a frame that is carried in parallel along the geodesic."""

    def __init__(self, made, x, y, other):
        problem, manifold = made.problem(), lower_of(made)
        self.distance = float(manifold.dist(y, other))
        start, outer = frame(manifold, y), frame(problem.manifold, x)
        carried = np.stack([manifold.parallel_transport(y, other, e) for e in start])
        self.hessians, self.crosses, self.upper, direct = [], [], [], []
        for p, basis in ((y, start), (other, carried)):
            self.hessians.append(hessian_matrix(manifold, lambda m: made.lower(x, m), p, basis))
            slope_of = nf.jacobian(lambda a, p=p: manifold.gradient(lambda m: made.lower(a, m), p))(x)
            along = np.stack([np.tensordot(slope_of, e, axes=x.ndim) for e in outer])
            self.crosses.append(manifold.inner(p, along[:, None], basis[None]))
            gradient = manifold.gradient(lambda m: problem.upper(x, m), p)
            self.upper.append(manifold.inner(p, basis, gradient))
            direct.append(np.tensordot(outer, nf.grad(lambda a, p=p: problem.upper(a, p))(x), axes=x.ndim))
        d = self.distance
        self.bound = max(np.linalg.norm(v) for v in (*self.upper, *direct))
        spectrum = np.linalg.eigvalsh(np.stack(self.hessians))
        self.mu, self.high = spectrum.min(), spectrum.max()
        self.lipschitz = max(
            self.high,
            *(np.linalg.norm(c, 2) for c in self.crosses),
            np.linalg.norm(self.upper[0] - self.upper[1]) / d,
            np.linalg.norm(direct[0] - direct[1]) / d,
        )
        pairs = (self.hessians, self.crosses)
        self.rho = max(np.linalg.norm(a - b, 2) / d for a, b in pairs)
        self.adjoint = np.linalg.solve(self.hessians[0], self.upper[0])

    def hinv(self):
        kappa, kappa_rho = self.lipschitz / self.mu, self.rho / self.mu
        big = self.lipschitz
        return (big + kappa_rho * self.bound + kappa * big + kappa * kappa_rho * self.bound) * self.distance

    def cg(self, steps):
        kappa, kappa_rho, big = self.lipschitz / self.mu, self.rho / self.mu, self.lipschitz
        root = np.sqrt(kappa)
        factor = big + kappa_rho * self.bound + big * (1 + 2 * root) * (kappa + kappa_rho * self.bound / self.mu)
        start = np.linalg.norm(self.adjoint)
        return factor * self.distance + 2 * big * root * ((root - 1) / (root + 1)) ** steps * start

    def series(self, gamma, terms):
        kappa = self.lipschitz / self.mu
        return self.hinv() + kappa * self.bound * (1 - gamma * self.mu) ** terms


@curved
def test_bounds_of_han_and_others(made):
    """HINV, CG and NS are linear in d, and below their bounds with measured M, L, ρ, μ, for every T."""
    x, y, exact = point_of(made)
    problem, manifold = made.problem(), lower_of(made)
    u = manifold.random_tangent(np.random.default_rng(5), y)
    u = u / manifold.norm(y, u)
    distances, errors = np.geomspace(1e-1, 1e-5, 5), []
    for d in distances:
        point = manifold.exp(y, d * u)
        known = Smoothness(made, x, y, point)
        assert known.distance == pytest.approx(d, rel=1e-5) and known.mu > 0
        gamma = 1 / known.high

        def error(linear, point=point):
            return apart(problem, x, gradient_at(problem, x, point, nf.Implicit(linear)), exact)

        row = [error(nf.Dense()), error(nf.CG()), error(nf.Neumann(step=gamma))]
        assert row[0] <= known.hinv()
        for steps in (0, 1, 2, 3, 4, manifold.dim):
            assert error(nf.CG(tol=0, max_steps=steps)) <= known.cg(steps)
        for terms in (1, 3, 10, 50):
            assert error(nf.Neumann(terms, step=gamma, tol=0)) <= known.series(gamma, terms)
        errors.append(row)
    for column in np.asarray(errors).T:
        assert slope(np.log(distances), column) == pytest.approx(1, abs=0.1)


@curved
def test_unrolled_descent_converges_like_its_steps(made):
    """AD: S steps leave an error of order S q^(S - 1), q = max |1 - η h| at the answer, on curved spaces too."""
    x, y, exact = point_of(made)
    problem, manifold = made.problem(), lower_of(made)
    values = np.linalg.eigvalsh(hessian_of(made, x, y))
    step = 0.7 * best_step(made, x, y)
    q = np.abs(1 - step * values).max()
    u = manifold.random_tangent(np.random.default_rng(5), y)
    start = manifold.exp(y, 0.3 * u / manifold.norm(y, u))
    steps = np.unique(np.linspace(np.log(1e-3) / np.log(q), np.log(1e-9) / np.log(q), 7).astype(int))
    errors = []
    for s in steps:
        descent = nf.GradientDescent(step=step, max_steps=int(s), tol=0)
        found = nf.hypergradient(
            problem, x, start, solver=descent, estimator=nf.Unrolled(int(s)), certify=False
        ).gradient
        errors.append(apart(problem, x, found, exact))
    rates = slope(steps, errors / steps), slope(steps, errors)
    assert rates[0] < 0.99 * np.log(q) and rates[1] > 1.01 * np.log(q)
    assert rates == pytest.approx((np.log(q), np.log(q)), rel=0.15)
