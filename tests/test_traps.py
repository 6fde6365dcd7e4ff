"""Traps that users fall into are told by name, and what gets out of them: proximal terms, projected series, signs."""

import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


def distance(backend, found, expected):
    """|found - expected| / |expected|, of arrays."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def quadratic(backend, n=4, seed=0):
    """H (n, n), positive definite, and vectors c, t, a."""
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((n, n))
    return [backend.asarray(v) for v in (b @ b.T + np.eye(n), *rng.standard_normal((3, n)))]


def task(h, c, n=4):
    """An inner problem that does not know its starting point: ½ yᵀ H y - c·y."""
    return nf.Argmin(lambda a, y: y @ (h @ y) / 2 - c @ y, nf.Euclidean(n))


# -- a solution that does not depend on the outer variable (papers: Fan et al. 2025, RMO and RML) ------


@on("numpy", "array_api_strict", "torch")
def test_a_learned_initialization_is_reported(backend):
    """By the framework's autodiff and by `hypergradient`, once for each; also where the upper cost has its own part."""
    h, c, t, a = quadratic(backend)
    with pytest.warns(nf.IndependentSolutionWarning, match=r"Proximal\(level, weight\).*Unrolled") as caught:
        gradient = nf.grad(lambda a: t @ nf.solve(task(h, c), a, init=a).value)(a)
    assert len(caught) == 1
    assert np.all(backend.to_numpy(gradient) == 0)
    bilevel = nf.Bilevel(lambda a, y: t @ y + a @ a, nf.Euclidean(4), task(h, c))
    with pytest.warns(nf.IndependentSolutionWarning, match="this Argmin level does not depend") as caught:
        found = nf.hypergradient(bilevel, a, a)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert distance(backend, found.covector, 2 * backend.to_numpy(a)) < 1e-14


@on("numpy", "torch")
def test_one_step_reports_it_too(backend):
    h, c, t, a = quadratic(backend)
    with pytest.warns(nf.IndependentSolutionWarning) as caught:
        nf.grad(lambda a: t @ nf.solve(task(h, c), a, init=a, estimator=nf.OneStep()).value)(a)
    bilevel = nf.Bilevel(lambda a, y: t @ y + a @ a, nf.Euclidean(4), task(h, c))
    with pytest.warns(nf.IndependentSolutionWarning) as again:
        nf.hypergradient(bilevel, a, a, estimator=nf.OneStep())
    assert len(caught) == len(again) == 1


@on("jax")
def test_a_learned_initialization_is_reported_where_all_is_compiled(backend):
    h, c, t, a = quadratic(backend)
    bilevel = nf.Bilevel(lambda a, y: t @ y, nf.Euclidean(4), task(h, c))
    with pytest.warns(nf.IndependentSolutionWarning) as caught:
        nf.hypergradient(bilevel, a, a, certify=False)
    assert len(caught) == 1 and caught[0].filename == __file__


@on("numpy", "torch")
def test_a_learned_optimizer_is_reported(backend):
    """y - eˢ ∘ gradient: the derivative by s is eˢ ∘ gradient, nearly 0, never the signal that unrolling would give."""
    h, c, t, s = quadratic(backend)
    s = s / 10 - 3

    def step(s, y):
        return y - nf.namespace(s).exp(s) * (h @ y - c)

    level = nf.FixedPoint(step, nf.Euclidean(4))
    for tol in (1e-13, 1e-9):
        with pytest.warns(nf.IndependentSolutionWarning, match="FixedPoint level"):
            gradient = nf.grad(
                lambda s, tol=tol: t @ nf.solve(level, s, init=0 * c, solver=nf.Picard(tol=tol, max_steps=5000)).value
            )(s)
        assert np.linalg.norm(backend.to_numpy(gradient)) < 100 * tol
    level = nf.Root(lambda s, y: nf.namespace(s).exp(s) * (h @ y - c), nf.Euclidean(4))
    with pytest.warns(nf.IndependentSolutionWarning, match="Root level"):
        nf.grad(lambda s: t @ nf.solve(level, s, init=0 * c).value)(s)


@on("numpy", "torch")
def test_no_false_alarm(backend):
    h, c, t, a = quadratic(backend)
    matrix = backend.to_numpy(h)

    def level_of(scale):
        return nf.Argmin(lambda x, y: y @ (h @ y) / 2 - scale * (x["used"] @ y) - c @ y, nf.Euclidean(4))

    def gradient(goal, scale=1.0, upper=lambda y, goal: goal @ y):
        x = {"used": a, "unused": 3 * a}
        return nf.grad(lambda x: upper(nf.solve(level_of(scale), x, init=a).value, goal))(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # one leaf matters, the other does not
        found = gradient(t)
        assert distance(backend, found["used"], np.linalg.solve(matrix, backend.to_numpy(t))) < 1e-12
        # a weak coupling is a coupling
        found = gradient(t, 1e-9)
        assert distance(backend, found["used"], 1e-9 * np.linalg.solve(matrix, backend.to_numpy(t))) < 1e-12
        # no cotangent at all, and the optimum of the outer problem
        gradient(0 * t)
        best = nf.solve(level_of(1.0), {"used": a}, init=a).value
        gradient(best, upper=lambda y, goal: (y - goal) @ (y - goal))
        # an adjoint that is orthogonal to what x moves
        e = backend.asarray(np.eye(4))
        line = nf.Argmin(lambda x, y: y @ y / 2 - x * (e[0, :] @ y), nf.Euclidean(4))
        side = nf.grad(lambda x: e[1, :] @ nf.solve(line, x, init=a).value)(a[0])
        assert float(side) == 0.0
        # what is captured matters
        nf.grad(lambda c: t @ nf.solve(task(h, c), a, init=a).value)(c)


# -- proximal terms -------------------------------------------------------------------------------------


@on("numpy", "array_api_strict", "torch")
def test_the_gradient_of_imaml(backend):
    """(I + H/λ)⁻¹ t for an initialization; its weight's derivative; hypergradient says the same, without a warning."""
    h, c, t, a = quadratic(backend)
    weight = backend.asarray(np.asarray(2.5))

    def objective(a, weight):
        return t @ nf.solve(nf.Proximal(task(h, c), weight), a, init=a).value

    matrix, vector, goal, start = (backend.to_numpy(v) for v in (h, c, t, a))
    expected = np.linalg.solve(np.eye(4) + matrix / 2.5, goal)
    assert distance(backend, nf.grad(objective)(a, weight), expected) < 1e-12
    level = nf.Proximal(task(h, c), 2.5)
    bilevel = nf.Bilevel(lambda a, y: t @ y, nf.Euclidean(4), level)
    assert distance(backend, nf.hypergradient(bilevel, a, a).covector, expected) < 1e-12
    full = matrix + 2.5 * np.eye(4)
    y = np.linalg.solve(full, vector + 2.5 * start)
    slope = -np.linalg.solve(full, goal) @ (y - start)
    assert distance(backend, nf.grad(objective, argnums=1)(a, weight), slope) < 1e-12


@pytest.mark.parametrize("manifold", [nf.Sphere(3), nf.SPD(3), nf.PoincareBall(3), nf.Lorentz(2)])
@on("numpy", "torch")
def test_the_derivative_of_a_proximal_term_is_a_logarithm(backend, like64, rng, manifold):
    """grad ½ λ dist²(a, y) = -λ log_y a in y, and -λ log_a y in a."""
    a, y = (manifold.random_point(rng, like=like64) for _ in range(2))
    level = nf.Proximal(nf.Argmin(lambda a, y: 0 * nf.namespace(y).sum(y), manifold), 1.7)
    for point, f, expected in (
        (y, lambda p: level.cost(a, p), manifold.log(y, a)),
        (a, lambda p: level.cost(p, y), manifold.log(a, y)),
    ):
        found = manifold.gradient(f, point)
        assert distance(backend, found, -1.7 * backend.to_numpy(expected)) < 1e-10


@pytest.mark.parametrize("manifold", [nf.Sphere(3), nf.SPD(2)])
@on("numpy", "torch")
def test_two_proximal_terms_meet_between_their_anchors(backend, like64, rng, manifold):
    """argmin ½ dist²(b, y) + ½ w dist²(a, y) is on the geodesic from b to a, at time w / (1 + w)."""
    b = manifold.random_point(rng, like=like64)
    u = manifold.random_tangent(rng, b)
    a = manifold.exp(b, manifold.scale(0.5 / manifold.norm(b, u), u))
    level = nf.Proximal(nf.Argmin(lambda b, a, y: manifold.squared_dist(b, y) / 2, manifold), 3.0)
    found = nf.solve(level, b, a, init=b)
    expected = manifold.geodesic(b, a, 0.75)
    assert bool(found.converged)
    assert distance(backend, found.value, backend.to_numpy(expected)) < 1e-10
    # by the framework: the derivative by the last outer variable, the anchor, against that of the geodesic
    w, v = (manifold.random_tangent(rng, p) for p in (expected, a))
    xp = nf.namespace(a)
    one, other = (
        nf.jvp(lambda p, f=f: xp.sum(w * f(p)), (a,), (v,))[1]
        for f in (lambda p: nf.solve(level, b, p, init=b).value, lambda p: manifold.geodesic(b, p, 0.75))
    )
    assert distance(backend, one, backend.to_numpy(other)) < 1e-9


@on("numpy", "torch")
def test_proximal_terms_on_products_and_batches(backend, like64, rng):
    """A tree of points; one weight for each problem; an anchor that is a part of the outer variable."""
    manifold = nf.Product({"a": nf.Sphere(3), "b": nf.Euclidean(2)})
    start, y = (manifold.random_point(rng, (2,), like=like64) for _ in range(2))
    weight = backend.asarray(np.asarray([1.0, 4.0]))
    plain = nf.Argmin(lambda x, y: nf.namespace(y["b"]).sum(y["b"] ** 2, axis=-1), manifold)
    level = nf.Proximal(plain, weight, anchor=lambda x: x["start"])
    found = level.cost({"start": start, "rate": 1.0}, y) - plain.cost(None, y)
    expected = np.asarray([0.5, 2.0]) * backend.to_numpy(manifold.squared_dist(start, y))
    assert distance(backend, found, expected) < 1e-14
    total = nf.Proximal(nf.Argmin(lambda x, y: nf.namespace(y["b"]).sum(y["b"] ** 2), manifold), 2.0)
    found = total.cost(start, y) - nf.namespace(y["b"]).sum(y["b"] ** 2)
    assert distance(backend, found, backend.to_numpy(manifold.squared_dist(start, y)).sum()) < 1e-14


@on("numpy", "torch")
def test_bad_proximal_terms(backend):
    h, c, _, a = quadratic(backend)
    level = task(h, c)
    with pytest.raises(TypeError, match="takes an Argmin, not a FixedPoint"):
        nf.Proximal(nf.FixedPoint(lambda a, y: y, nf.Euclidean(4)), 1.0)  # pyright: ignore
    with pytest.raises(TypeError, match=r"geodesic distance.*FixedRank.*Logarithmic"):
        nf.Proximal(nf.Argmin(lambda a, y: 0 * a, nf.FixedRank(3, 2, 1)), 1.0)
    for weight in (0.0, -1.0, float("nan"), float("inf"), -c @ c):
        with pytest.raises(ValueError, match="weight must be positive"):
            nf.Proximal(level, weight)
    for weight in ("1", True, None, [1.0]):
        with pytest.raises(TypeError, match="weight must be a positive number"):
            nf.Proximal(level, weight)
    with pytest.raises(nf.DTypeError, match="real floating"):
        nf.Proximal(level, backend.asarray(np.asarray(2)))
    with pytest.raises(nf.ShapeError, match="anchor must be a point"):
        nf.solve(nf.Proximal(level, 1.0), a[:3], init=a)
    with pytest.raises(nf.ShapeError, match="no outer variable"):
        nf.solve(nf.Proximal(level, 1.0), init=a)
    with pytest.raises(nf.ShapeError, match=r"proximal term \(4,\)"):
        nf.solve(nf.Proximal(level, c * c), a, init=a)
    assert nf.Proximal(level, 1.0) == nf.Proximal(level, 1.0) != nf.Proximal(level, 2.0)


# -- the traps of RID (Fan et al. 2025) and E-RMO -------------------------------------------------------


def exponential_step(problem, rate):
    """One step of Riemannian gradient descent on the sphere, as its formula extends off the sphere."""

    def step(x, y):
        xp = nf.namespace(x, y)
        g = problem.matrix(x) @ y
        u = -rate * (g - (y @ g) * y)
        square = u @ u
        # cos and sinc of a length that is 0 at the answer, by their series
        return (1 - square / 2 + square**2 / 24) * y + (1 - square / 6 + square**2 / 120) * u + 0 * xp.sum(u)

    return step


@on("numpy", "array_api_strict", "torch")
def test_the_series_that_diverges_in_the_ambient_space_converges_here(backend, like64):
    """Papers/1, §2.2(1): J has the eigenvalue 1 + 2 ξ λ > 1 along the normal, which projected products do not meet."""
    problem, rate = smallest_eigenvector(like=like64, n=4, p=2), 0.3
    x, y = problem.start(np.random.default_rng(1))
    y, step = problem.solution(x), exponential_step(problem, rate)
    jacobian = backend.to_numpy(nf.jacobian(lambda p: step(x, p))(y))
    assert np.abs(np.linalg.eigvals(jacobian)).max() > 1.5
    projector = np.eye(4) - np.outer(backend.to_numpy(y), backend.to_numpy(y))
    assert np.abs(np.linalg.eigvals(projector @ jacobian @ projector)).max() < 0.75
    right = projector @ np.arange(1.0, 5.0)
    term = total = right
    for _ in range(200):
        term = jacobian.T @ term
        total = total + term
    assert not np.linalg.norm(total) < 1e10 * np.linalg.norm(right)
    level = nf.FixedPoint(step, nf.Sphere(4))
    bilevel = nf.Bilevel(problem.upper, nf.Euclidean(2), level)
    solver = nf.External(lambda x, init: problem.solution(nf.namespace(y).asarray(x)))
    estimator = nf.Implicit(nf.Neumann())
    found = nf.hypergradient(bilevel, x, y, solver=solver, estimator=estimator, certify=False)
    assert found.adjoint is not None and bool(found.adjoint.converged)
    assert distance(backend, found.covector, backend.to_numpy(problem.euclidean_gradient(x))) < 1e-12


@on("numpy")
def test_the_sign_is_that_of_finite_differences(backend, like64):
    """E-RMO's -(∂F/∂y) M⁻¹ b, M and b the map's derivatives by y and x, points the other way for small steps."""
    problem, rate = smallest_eigenvector(like=like64, n=4, p=2), 0.02
    x, start = problem.start(np.random.default_rng(1))
    y, step = problem.solution(x), exponential_step(problem, rate)
    goal = np.arange(1.0, 5.0)

    def objective(x):
        return goal @ problem.solution(x)

    h = 1e-5
    differences = np.asarray([(objective(x + h * e) - objective(x - h * e)) / (2 * h) for e in np.eye(2)])
    level = nf.FixedPoint(step, nf.Sphere(4))
    solver = nf.External(lambda x, init: problem.solution(x))
    found = nf.grad(lambda x: goal @ nf.solve(level, x, init=start, solver=solver).value)(x)
    assert np.linalg.norm(found - differences) < 1e-8 * np.linalg.norm(differences)
    m, b = nf.jacobian(lambda p: step(x, p))(y), nf.jacobian(lambda p: step(p, y))(x)
    printed = -(goal @ np.linalg.solve(m, b))
    assert printed @ differences < 0 < found @ differences


# -- why a solver stopped -------------------------------------------------------------------------------


@on("numpy", "torch")
def test_the_cause_is_named(backend):
    """A saddle, a valley, a map that does not contract, a bad condition, values that are not finite."""
    flat = nf.Euclidean(3)
    one, low, steep = (backend.asarray(np.asarray(v)) for v in ([1.0, 2, 3], [-1.0, 2, 3], [1e-9, 1, 2]))

    def report(level, match, init=one, **settings):
        with pytest.warns(nf.ConvergenceWarning, match=match) as caught:
            nf.solve(level, init=init, **settings)
        assert len(caught) == 1 and caught[0].filename == __file__

    few = nf.GradientDescent(max_steps=3)
    report(nf.Argmin(lambda y: y @ (low * y) / 2, flat), "eigenvalue -1 .*saddle, or no minimum", solver=few)
    short = nf.GradientDescent(step=0.01, max_steps=3)
    report(nf.Argmin(lambda y: (low @ y - 1) ** 2 / 2, flat), "not isolated.*quotient manifold", solver=short)
    report(nf.Argmin(lambda y: y @ (steep * y) / 2, flat), r"condition number .* 2e\+09", solver=few)
    expanding = nf.FixedPoint(lambda y: 1.5 * low * y / 3 + 1, flat)
    report(expanding, r"does not contract.*radius 1\.5", solver=nf.Picard(max_steps=5))
    report(nf.FixedPoint(lambda y: y + float("nan"), flat), "not finite were met", solver=nf.Picard(max_steps=20))
    report(nf.Argmin(lambda y: y @ (one * y) / 2, flat), "Give it more steps", solver=nf.GradientDescent(max_steps=1))


@on("numpy", "torch")
def test_the_cause_of_a_failed_linear_solve_is_named(backend):
    """CG meets negative curvature with a residual of 0 already: more steps would not help, and none are advised."""
    h, init = backend.asarray(np.asarray([-1.0, 2, 3])), backend.asarray(np.asarray([0.0, 0, 0]))
    level = nf.Argmin(lambda h, y: y @ (h * y) / 2 + y[0], nf.Euclidean(3))
    solver = nf.External(lambda h, init: np.asarray([1.0, 0, 0]))
    with pytest.warns(nf.ConvergenceWarning, match="linear solve of a derivative.*eigenvalue -1 .*saddle") as caught:
        nf.grad(lambda h: nf.solve(level, h, init=init, solver=solver).value[0])(h)
    assert len(caught) == 1


@on("numpy", "torch")
def test_a_cost_that_ignores_its_variable_is_told(backend):
    """Every start is an answer of it; one that is flat at the start alone, or starts at its minimum, is not told."""
    flat, x = nf.Euclidean(3), backend.asarray(np.ones(3))

    def cut(x, y):
        return nf.namespace(x).sum((backend.stop_gradient(y) - x) ** 2)

    with pytest.warns(nf.ConvergenceWarning, match="does not depend on the level's own variable"):
        nf.solve(nf.Argmin(cut, flat), x, init=0 * x)
    with pytest.warns(nf.ConvergenceWarning, match="does not depend on the level's own variable"):
        nf.hypergradient(nf.Bilevel(lambda x, y: y @ y + x @ x, flat, nf.Argmin(cut, flat)), x, 0 * x, certify=False)
    fine = nf.solve(nf.Argmin(lambda x, y: nf.namespace(x).sum((y - x) ** 2), flat), x, init=x)
    assert bool(fine.converged) and int(fine.steps) == 0
