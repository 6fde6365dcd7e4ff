"""Descent methods: gradient descent, nonlinear conjugate gradients, L-BFGS and Adam."""

import warnings

import numpy as np
import pytest

import nestfold as nf

RULES = [nf.PolakRibiere(), nf.HestenesStiefel(), nf.FletcherReeves(), nf.DaiYuan(), nf.HagerZhang()]
BB, PACED = nf.GradientDescent(max_steps=6000), nf.GradientDescent(nf.LanczosStep(), max_steps=30000)
FAST = [nf.LBFGS(), *map(nf.NonlinearCG, RULES)]
ROSENBROCK = np.tile([-1.2, 1.0], 5)
every_fast = pytest.mark.parametrize("solver", FAST, ids=lambda s: type(getattr(s, "beta", s)).__name__)


class Counted(nf.Argmin):
    """An `Argmin` that counts its gradients."""

    gradients = 0

    def value_and_residual(self, backend, outer, y):
        Counted.gradients += 1
        return super().value_and_residual(backend, outer, y)


def rosenbrock(y):
    return (100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2).sum()


def spectrum(rng, values):
    """A symmetric matrix with these eigenvalues, and its eigenvectors."""
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return q @ np.diag(values) @ q.T, q


def problems():
    """Name -> cost, manifold, start, error of an answer, by closed forms."""
    rng, one = np.random.default_rng(0), np.zeros(())
    h, _ = spectrum(rng, np.logspace(0, 3, 12))
    b = rng.standard_normal(12)
    a, q = spectrum(rng, np.array([1.0, 2, 4, 7, 11, 16, 17, 20]))
    sphere, stiefel, grassmann = nf.Sphere(8), nf.Stiefel(8, 2), nf.Grassmann(8, 2)
    weights = np.array([2.0, 1.0])
    spd, ball = nf.SPD(3), nf.PoincareBall(2)
    x = spd.random_point(rng, like=one)
    u = spd.random_tangent(rng, x)
    pair = np.stack([spd.exp(x, u), spd.exp(x, -u)])
    z = np.array([0.3, -0.5])
    v = ball.random_tangent(rng, z)
    ends = np.stack([ball.exp(z, v), ball.exp(z, -v)])
    product = nf.Product({"q": sphere, "b": nf.Euclidean(3), "s": spd})
    c = rng.standard_normal((3, 8))

    def joint(y):
        fit = y["b"] - c @ (y["q"] ** 2)
        return y["q"] @ (a @ y["q"]) + (fit * fit).sum() / 2 + spd.squared_dist(x, y["s"]) / 2

    def start(manifold):
        return manifold.random_point(np.random.default_rng(1), like=one)

    exact = {"q": q[:, 0], "b": c @ q[:, 0] ** 2, "s": x}
    return {
        "quadratic": (lambda y: y @ h @ y / 2 - b @ y, nf.Euclidean(12), np.zeros(12), off(np.linalg.solve(h, b))),
        "rosenbrock": (rosenbrock, nf.Euclidean(10), ROSENBROCK, off(np.ones(10))),
        "sphere": (lambda y: y @ a @ y, sphere, start(sphere), lambda y: 1 - abs(y @ q[:, 0])),
        "stiefel": (
            lambda y: (y * (a @ y) * weights).sum(),
            stiefel,
            start(stiefel),
            lambda y: np.linalg.norm(abs(q[:, :2].T @ y) - np.eye(2)),
        ),
        "grassmann": (
            lambda y: (y * (a @ y)).sum(),
            grassmann,
            start(grassmann),
            lambda y: np.linalg.norm(y @ y.T - q[:, :2] @ q[:, :2].T),
        ),
        "spd": (lambda y: spd.squared_dist(y, pair).sum() / 4, spd, np.eye(3), off(x)),
        "ball": (lambda y: ball.squared_dist(y, ends).sum() / 4, ball, np.zeros(2), off(z)),
        "product": (
            joint,
            product,
            start(product),
            lambda y: max(off(abs(exact["q"]))(abs(y["q"])), off(exact["b"])(y["b"]) / 10, off(x)(y["s"])),
        ),
    }


def off(exact):
    return lambda y: np.linalg.norm(y - exact)


PROBLEMS = problems()


def solved(solver, cost, manifold, start):
    """The answer, and how many gradients it took; silent about convergence."""
    Counted.gradients = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        found = nf.solve(Counted(cost, manifold), init=start, solver=solver)
    return found, Counted.gradients


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("solver", [BB, *FAST], ids=lambda s: type(getattr(s, "beta", s)).__name__)
def test_closed_forms(solver, name):
    """The exact answer, and a residual that is the norm of the Riemannian gradient there."""
    cost, manifold, start, error = PROBLEMS[name]
    found, gradients = solved(solver, cost, manifold, start)
    assert bool(found.converged)
    assert error(found.value) < 1e-8
    u = manifold.gradient(cost, found.value)
    assert float(found.residual) == pytest.approx(float(manifold.norm(found.value, u)), rel=1e-6, abs=1e-14)
    assert gradients < (5 if solver is BB else 4) * int(found.steps) + 40


@pytest.mark.parametrize("name", ["quadratic", "rosenbrock", "stiefel", "spd"])
def test_fewer_gradients_than_descent(name):
    """L-BFGS against Barzilai-Borwein, which needs one gradient a step."""
    counts = [solved(solver, *PROBLEMS[name][:3])[1] for solver in (nf.LBFGS(), BB)]
    assert counts[0] < counts[1]
    if name == "rosenbrock":
        assert counts[0] < 0.2 * counts[1]


@pytest.mark.parametrize("name", ["quadratic", "rosenbrock", "stiefel"])
def test_barzilai_borwein_steps_are_rarely_shortened(name):
    """A search that asks for descent in each step would shorten most; and no point has its cost computed twice."""
    cost, manifold, start, _ = PROBLEMS[name]
    costs = []

    def counted(y):
        costs.append(1)
        return cost(y)

    found, gradients = solved(BB, counted, manifold, start)
    assert gradients < 1.15 * int(found.steps) + 10
    assert len(costs) < gradients + 5


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_conjugate_gradients_end_on_a_quadratic(rule):
    """With exact searches all five rules are linear CG: n eigenvalues, n steps."""
    h, _ = spectrum(np.random.default_rng(3), np.array([1.0, 3, 10, 30, 100]))
    b = np.arange(1.0, 6.0)
    solver = nf.NonlinearCG(rule, search=nf.Wolfe(slope=1e-9, curvature=1e-8), tol=1e-8, restart=None)
    found, _ = solved(solver, lambda y: y @ h @ y / 2 - b @ y, nf.Euclidean(5), np.zeros(5))
    assert bool(found.converged) and int(found.steps) <= 6
    np.testing.assert_allclose(found.value, np.linalg.solve(h, b), rtol=1e-7)


@pytest.mark.parametrize("solver", [nf.LBFGS(), nf.NonlinearCG(nf.HagerZhang()), PACED, nf.Adam(0.1, tol=1e-3)])
@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_a_batch_is_a_loop(backend, like64, xp, solver):
    """Problems that need different numbers of steps, frozen one by one."""
    a, starts = np.array([1.0, 5.0, 25.0]), nf.SPD(2).random_point(np.random.default_rng(5), (3,), like=np.zeros(()))
    a, starts = (backend.asarray(values, like=like64) for values in (a, starts))
    target = backend.asarray(np.array([[2.0, 0.7], [0.7, 1.0]]), like=like64)

    def cost(a, y):
        space = nf.namespace(a, y)
        return a * space.linalg.trace(y @ target) + space.linalg.trace(space.linalg.inv(y))

    level = nf.Argmin(cost, nf.SPD(2))
    found = nf.solve(level, a, init=starts, solver=solver)
    assert backend.to_numpy(found.converged).all()
    for i in range(3):
        alone = nf.solve(level, a[i], init=starts[i, ...], solver=solver)
        assert int(alone.steps) == int(found.steps[i])
        np.testing.assert_allclose(backend.to_numpy(found.value[i, ...]), backend.to_numpy(alone.value), rtol=1e-9)
    assert len(set(backend.to_numpy(found.steps).tolist())) > 1


@pytest.mark.parametrize("solver", [nf.LBFGS(memory=4), nf.NonlinearCG()], ids=["lbfgs", "cg"])
def test_implicit_derivative_on_every_backend(backend, like64, solver):
    """The top of a matrix x x' - D: the derivative through the answer, compiled, against differences."""
    d, x0 = np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, -1.0])
    diagonal, x, weight = (backend.asarray(v, like=like64) for v in (d, x0, np.array([1.0, -2.0, 0.5])))
    start = backend.asarray(np.array([0.6, 0.8, 0.0]), like=like64)

    def cost(x, y):
        xp = nf.namespace(x, y)
        return xp.sum(diagonal * y * y) - xp.sum(x * y) ** 2

    level = nf.Argmin(cost, nf.Sphere(3))

    def outer(x):
        found = nf.solve(level, x, init=start, solver=solver)
        return nf.namespace(x).sum(weight * found.value), found.converged

    gradient, converged = backend.jit(nf.grad(outer, has_aux=True))(x)
    assert bool(converged)

    def exact(x):
        y = np.linalg.eigh(np.diag(d) - np.outer(x, x))[1][:, 0]
        return np.array([1.0, -2.0, 0.5]) @ y * np.sign(y[0])

    slopes = [(exact(x0 + e) - exact(x0 - e)) / 2e-5 for e in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(backend.to_numpy(gradient), slopes, rtol=1e-7)


@every_fast
def test_single_precision(solver):
    _, manifold, start, _ = PROBLEMS["stiefel"]
    a = np.diag(np.array([1, 2, 4, 7, 11, 16, 17, 20], dtype=np.float32))
    found = nf.solve(nf.Argmin(lambda y: (y * (a @ y)).sum(), manifold), init=start.astype(np.float32), solver=solver)
    assert found.value.dtype == np.float32 and found.residual.dtype == np.float32
    assert bool(found.converged)
    assert np.linalg.norm(found.value[2:]) < 1e-3


# -- lengths of gradient descent ---------------------------------------------------------------------------


def test_the_lanczos_step_is_the_best_fixed_one():
    """‖grad‖ shrinks by (κ - 1)/(κ + 1) a step, without a search that shortens anything."""
    h, _ = spectrum(np.random.default_rng(0), np.linspace(1.0, 9.0, 8))
    b = np.ones(8)
    rates = []
    for steps in (20, 40):
        found, _ = solved(
            nf.GradientDescent(nf.LanczosStep(8), tol=0.0, max_steps=steps), lambda y: y @ h @ y / 2 - b @ y,
            nf.Euclidean(8), np.zeros(8),
        )  # fmt: skip
        rates.append(float(found.residual))
    assert (rates[1] / rates[0]) ** (1 / 20) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("name", ["sphere", "grassmann", "spd", "ball"])
def test_the_lanczos_step_where_the_hessian_is_indefinite(name):
    cost, manifold, start, error = PROBLEMS[name]
    found, _ = solved(PACED, cost, manifold, start)
    assert bool(found.converged) and error(found.value) < 1e-8


def test_momentum():
    """Polyak's numbers give the rate (√κ - 1)/(√κ + 1): far fewer steps than without."""
    cost, manifold, start, error = PROBLEMS["quadratic"]
    root = 1000.0**0.5
    ball = nf.GradientDescent(4 / (1 + root) ** 2, momentum=((root - 1) / (root + 1)) ** 2)
    with_it, _ = solved(ball, cost, manifold, start)
    assert bool(with_it.converged) and error(with_it.value) < 1e-9
    assert int(with_it.steps) < 800
    on_sphere, _ = solved(nf.GradientDescent(0.02, momentum=0.6), *PROBLEMS["sphere"][:3])
    assert bool(on_sphere.converged) and PROBLEMS["sphere"][3](on_sphere.value) < 1e-10


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize("kind", ["descent", "adam"])
def test_unrolled_steps_have_derivatives(backend, like64, kind):
    """In the outer variable, and for descent in the length and the momentum, against differences."""
    x, t, m = (backend.asarray(np.asarray(v), like=like64) for v in ([0.3, -1.0, 2.0], 0.1, 0.5))
    start = backend.asarray(np.array([0.6, 0.0, 0.8]), like=like64)

    def outer(x, t, m):
        xp = nf.namespace(x, t, m)
        solver = nf.GradientDescent(t, momentum=m) if kind == "descent" else nf.Adam(0.1, amsgrad=True)
        level = nf.Argmin(lambda x, y: nf.namespace(x, y).sum(x * y * y) + y[0] * x[1], nf.Sphere(3))
        y = nf.solve(level, x, init=start, solver=solver, estimator=nf.Unrolled(4)).value
        return xp.sum(y * y * y * x)

    moved = [(x, t, m)]
    for sign in (1, -1):
        e = sign * 1e-5
        moved += [(x + e, t, m), (x, t + e, m), (x, t, m + e)]
    values = [float(outer(*point)) for point in moved]
    expected = [(values[i] - values[i + 3]) / 2e-5 for i in (1, 2, 3)]
    found = nf.grad(outer, argnums=(0, 1, 2))(x, t, m)
    np.testing.assert_allclose([float(backend.to_numpy(g).sum()) for g in found], expected, rtol=1e-6, atol=1e-9)
    assert (abs(expected[1]) > 1e-3) == (kind == "descent")


# -- Adam --------------------------------------------------------------------------------------------------


def test_adam_is_kingmas_on_flat_space():
    """Three steps by hand; and with one number for all coordinates it is normalized momentum."""
    cost, y = (lambda y: (np.array([1.0, 50.0]) * y * y).sum() / 2), np.array([1.0, 1.0])
    found, _ = solved(nf.Adam(0.1, max_steps=3), cost, nf.Euclidean(2), y)
    m = v = np.zeros(2)
    for k in range(1, 4):
        g = np.array([1.0, 50.0]) * y
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        y = y - 0.1 * m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    np.testing.assert_allclose(found.value, y, rtol=1e-13)
    one, _ = solved(nf.Adam(0.1, max_steps=1, coordinatewise=False), cost, nf.Euclidean(2), np.ones(2))
    np.testing.assert_allclose(np.linalg.norm(one.value - 1), 0.1, rtol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", ["sphere", "grassmann", "spd", "ball", "product"])
def test_adam_comes_near(name, amsgrad):
    cost, manifold, start, error = PROBLEMS[name]
    found, _ = solved(nf.Adam(0.05, tol=1e-3, amsgrad=amsgrad, max_steps=3000), cost, manifold, start)
    assert bool(found.converged) and error(found.value) < 0.05


# -- what goes wrong is told -------------------------------------------------------------------------------

ALL = [
    nf.GradientDescent(max_steps=300),
    nf.GradientDescent(nf.LanczosStep(), max_steps=300),
    nf.GradientDescent(1e-3, max_steps=300, momentum=0.5),
    *FAST,
    nf.Adam(max_steps=300),
]


@pytest.mark.parametrize("solver", [*ALL, nf.TrustRegion()], ids=lambda s: type(s).__name__)
def test_a_start_that_overflows(solver, backend_space):
    """No warning of NumPy's, the start itself, and `converged` false."""
    backend, space = backend_space
    level = nf.Argmin(lambda y: (np.exp(y) - y).sum(), nf.Euclidean(2))
    found = solver.solve(backend, level, (), np.array([1e3, 0.0]), space)
    assert not bool(found.converged) and int(found.steps) == 0
    np.testing.assert_array_equal(found.value, [1e3, 0.0])


@pytest.fixture
def backend_space():
    from nestfold.hypergrad._space import Space

    backend = nf.get_backend("numpy")
    return backend, Space(backend, ())


@pytest.mark.parametrize("solver", FAST, ids=lambda s: type(getattr(s, "beta", s)).__name__)
def test_first_trials_that_overflow(solver):
    found, _ = solved(
        solver, lambda y: (np.exp(y) - y).sum() + 1e-3 * (y**4).sum(), nf.Euclidean(2), np.array([9.0, -40.0])
    )
    assert bool(found.converged) and float(found.residual) < 1e-9


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_no_minimum_is_no_answer(solver):
    with pytest.warns(nf.ConvergenceWarning):
        found = nf.solve(nf.Argmin(lambda y: y.sum(), nf.Euclidean(2)), init=np.zeros(2), solver=solver)
    assert not bool(found.converged) and np.isfinite(found.value).all()


@every_fast
def test_only_for_minimizers(solver):
    with pytest.raises(TypeError, match=r"minimi[sz]es a cost; a FixedPoint needs"):
        nf.solve(nf.FixedPoint(lambda y: y / 2, nf.Euclidean(2)), init=np.ones(2), solver=solver)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nf.LBFGS(memory=0),
        lambda: nf.LBFGS(tol=-1.0),
        lambda: nf.NonlinearCG(restart=0.0),
        lambda: nf.Wolfe(slope=0.6),
        lambda: nf.Wolfe(slope=0.1, curvature=0.05),
        lambda: nf.Wolfe(max_trials=0),
        lambda: nf.Adam(step=0.0),
        lambda: nf.Adam(beta1=1.0),
        lambda: nf.LanczosStep(steps=0),
        lambda: nf.GradientDescent(0.1, momentum=1.0),
        lambda: nf.GradientDescent(momentum=0.5),
        lambda: nf.GradientDescent(np.float64(-1.0)),
    ],
)
def test_settings_that_make_no_sense(make):
    with pytest.raises(ValueError):
        make()


def test_kinds_of_settings():
    with pytest.raises(TypeError, match="beta must be a BetaRule"):
        nf.NonlinearCG(beta="PolakRibiere")  # pyright: ignore
    with pytest.raises(TypeError, match="search must be a Wolfe"):
        nf.LBFGS(search=nf.Armijo())  # pyright: ignore
    with pytest.raises(nf.ShapeError, match=r"a step of shape \(3,\) for a batch of problems of shape \(\)"):
        nf.solve(nf.Argmin(lambda y: y @ y, nf.Euclidean(2)), init=np.ones(2), solver=nf.GradientDescent(np.ones(3)))


def test_every_kind_of_step_is_named():
    with pytest.raises(TypeError, match=r"Armijo\(\), BarzilaiBorwein\(\), LanczosStep\(\) or an array"):
        nf.GradientDescent(step=nf.Armijo)


@pytest.mark.parametrize("solver", [nf.LBFGS(), nf.NonlinearCG(), nf.GradientDescent()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("size", [1.0, 1e-2])
@pytest.mark.parametrize("offset", [1e-3, 1e-7, 1e-11])
def test_a_warm_start_near_a_minimum_of_cost_zero(solver, size, offset):
    """The scale of the cost is next to 0 there: steps within rounding of the point end the run, as converged."""
    level = nf.Argmin(lambda x, y: np.sum((y - x) ** 2) / 2 + np.sum(y**4) / 4, nf.Euclidean(3))
    x = size * np.arange(1.0, 4.0)
    exact = nf.solve(level, x, init=x).value
    found = nf.solve(level, x, init=exact + offset * size * np.array([1, -2, 0.5]), solver=solver)
    assert bool(found.converged) and int(found.steps) < 60
    np.testing.assert_allclose(found.value, exact, rtol=1e-9)
