"""Hypergradients from minibatches."""

import itertools

import numpy as np
import pytest

import nestfold as nf

N, n, p = 3, 3, 2
RNG = np.random.default_rng(0)
ROOTS = RNG.standard_normal((N, n, n))
DATA = {
    "h": ROOTS @ ROOTS.swapaxes(-1, -2) + np.eye(n),
    "b": RNG.standard_normal((N, n, p)),
    "d": RNG.standard_normal((N, n)),
    "t": RNG.standard_normal((N, n)),
}
X, START = 0.3 * RNG.standard_normal(p), np.zeros(n)
FULL, ONE = np.arange(N), [np.array([i]) for i in range(N)]


class Quadratic:
    """Costs over N samples, neither linear in x nor symmetric in it; a batch is an array of indices, or of data."""

    def __init__(self, backend, like):
        self.data = {name: backend.asarray(a, like=like) for name, a in DATA.items()}

    def rows(self, name, batch):
        """The samples of a batch."""
        data = self.data[name]
        return nf.namespace(data).take(data, batch, axis=0) if hasattr(batch, "shape") else batch[name]

    def mean(self, name, batch):
        """Their mean."""
        data = self.rows(name, batch)
        return nf.namespace(data).mean(data, axis=0)

    def lower(self, x, y, *, batch):
        """½ y·Hy - y·(B x + d) + a cubic term."""
        h, b, d = (self.mean(name, batch) for name in ("h", "b", "d"))
        xp = nf.namespace(x, y)
        return (y @ (h @ y)) / 2 - y @ (b @ x + d) + xp.sum(x) * xp.sum(y**3) / 30

    def upper(self, x, y, *, batch):
        """½ ‖y - t‖², the mean over the samples, + |x|⁴."""
        xp, t = nf.namespace(x, y), self.rows("t", batch)
        return xp.sum((y - t) ** 2) / (2 * t.shape[0]) + xp.sum(x * x) ** 2

    def problem(self):
        """The bilevel problem whose costs take batches."""
        return nf.Bilevel(self.upper, nf.Euclidean(p), nf.Argmin(self.lower, nf.Euclidean(n)))

    def whole(self, batch=FULL):
        """The same on all samples."""
        return nf.Bilevel(
            lambda x, y: self.upper(x, y, batch=batch),
            nf.Euclidean(p),
            nf.Argmin(lambda x, y: self.lower(x, y, batch=batch), nf.Euclidean(n)),
        )


COSTS = Quadratic(nf.get_backend("numpy"), np.zeros(()))


class Here(nf.Solver):
    """The start is the answer."""

    def solve(self, backend, level, outer, init, space):
        zero = space.zero(init)
        return nf.Solution(init, zero, space.counts(zero), space.flags(True, zero))


def stochastic(problem, *batches, linear=None, solver=None, y0=START, x=X, **settings):
    """The hypergradient on `Batches(*batches)`."""
    return nf.hypergradient(
        problem, x, y0, solver=solver, batches=nf.Batches(*batches), estimator=nf.StochasticImplicit(linear), **settings
    )


# -- all samples in every batch ----------------------------------------------------------------------------


def test_full_batches_on_every_backend(backend, like64):
    costs = Quadratic(backend, like64)
    x, y0 = (backend.asarray(a, like=like64) for a in (X, START))
    full = backend.xp.arange(N, dtype=backend.xp.int32, device=backend.device(x))
    expected = nf.hypergradient(COSTS.whole(), X, START, estimator=nf.Implicit(nf.Neumann(terms=4, step=0.1)))
    linear = nf.ProductNeumann(0.1)
    found = stochastic(costs.problem(), full, [full] * 3, full, [full, full], linear=linear, x=x, y0=y0)
    for name in ("value", "gradient", "covector"):
        np.testing.assert_allclose(
            backend.to_numpy(getattr(found, name)), getattr(expected, name), rtol=1e-10, atol=1e-12
        )
    assert int(found.adjoint.steps) == 3 and bool(found.adjoint.converged) and found.certificate is None  # pyright: ignore


@pytest.mark.parametrize("linear", [None, nf.CG(), nf.Dense(), nf.Neumann(terms=5, step=0.1)], ids=str)
def test_one_batch_each_is_implicit(linear):
    found = stochastic(COSTS.problem(), FULL, FULL, FULL, FULL, linear=linear)
    expected = nf.hypergradient(COSTS.whole(), X, START, estimator=nf.Implicit(linear), certify=False)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-14)
    np.testing.assert_allclose(found.adjoint.value, expected.adjoint.value, rtol=1e-14)  # pyright: ignore
    assert int(found.adjoint.steps) == int(expected.adjoint.steps)  # pyright: ignore


@pytest.mark.parametrize(
    "solver", [nf.GradientDescent(0.1), nf.GradientDescent(0.1, momentum=0.5), nf.Adam(0.1), nf.RobbinsMonro(2.0, 10.0)]
)
def test_a_list_of_lower_batches_is_one_step_each(solver):
    found = stochastic(COSTS.problem(), [FULL] * 7, FULL, FULL, FULL, solver=solver)
    expected = nf.solve(COSTS.whole().lower, X, init=START, solver=solver, estimator=nf.Unrolled(7))
    np.testing.assert_allclose(found.lower.value, expected.value, rtol=1e-13)
    assert int(found.lower.steps) == 7
    same = stochastic(COSTS.problem(), FULL, FULL, FULL, FULL, solver=Here(), y0=expected.value)
    np.testing.assert_allclose(found.gradient, same.gradient, rtol=1e-12)


def test_each_step_sees_its_own_batch():
    found = stochastic(COSTS.problem(), [ONE[0], ONE[2]], FULL, FULL, FULL, solver=nf.GradientDescent(0.1)).lower.value
    y = START
    for i in (0, 2):
        y = y - 0.1 * nf.grad(lambda y, i=i: COSTS.lower(X, y, batch=ONE[i]))(y)
    np.testing.assert_allclose(found, y, rtol=1e-14)


def test_batches_of_data_are_batches_of_indices():
    indices = [np.array([0, 2]), np.array([1, 2]), np.array([0, 1]), np.array([2])]
    data = [{name: a[i] for name, a in DATA.items()} for i in indices]
    found, expected = (
        stochastic(COSTS.problem(), b[0], [b[1], b[2]], b[2], b[3], linear=nf.ProductNeumann(0.1))
        for b in (data, indices)
    )
    np.testing.assert_array_equal(found.gradient, expected.gradient)


def test_costs_without_batches():
    """None: the function is called as ever."""
    whole = COSTS.whole()
    problem = nf.Bilevel(whole.upper, nf.Euclidean(p), nf.Argmin(COSTS.lower, nf.Euclidean(n)))
    found = stochastic(problem, FULL, FULL, FULL, None)
    np.testing.assert_allclose(found.gradient, nf.hypergradient(whole, X, START).gradient, rtol=1e-14)
    found = nf.hypergradient(whole, X, START, batches=nf.Batches())
    np.testing.assert_allclose(found.gradient, nf.hypergradient(whole, X, START).gradient, rtol=1e-14)


# -- expectations ------------------------------------------------------------------------------------------


def draws(problem, factors, linear, y, x=X, lower=FULL):
    """The hypergradients of all draws of `factors` Hessian, one cross and one upper sample, y being given."""
    return [
        stochastic(problem, lower, list(hessian), cross, upper, linear=linear, solver=Here(), y0=y, x=x)
        for *hessian, cross, upper in itertools.product(ONE, repeat=factors + 2)
    ]


def test_product_neumann_is_unbiased():
    y, step = nf.solve(COSTS.whole().lower, X, init=START).value, 0.05
    found = draws(COSTS.problem(), 2, nf.ProductNeumann(step), y)
    linear = nf.Implicit(nf.Neumann(terms=3, step=step))
    expected = nf.hypergradient(COSTS.whole(), X, y, solver=Here(), estimator=linear, certify=False)
    np.testing.assert_allclose(np.mean([d.gradient for d in found], axis=0), expected.gradient, atol=1e-13)
    np.testing.assert_allclose(np.mean([d.value for d in found]), expected.value, rtol=1e-13)
    assert np.std([d.gradient for d in found], axis=0).min() > 0.01


def test_one_batch_for_two_factors_is_biased():
    """Why each factor has a batch of its own: E[H²] is not E[H]²."""
    y, step = nf.solve(COSTS.whole().lower, X, init=START).value, 0.05
    linear = nf.ProductNeumann(step)
    same = [stochastic(COSTS.problem(), FULL, [b, b], FULL, FULL, linear=linear, solver=Here(), y0=y) for b in ONE]
    expected = stochastic(COSTS.problem(), FULL, [FULL, FULL], FULL, FULL, linear=linear, solver=Here(), y0=y)
    off = np.mean([d.gradient for d in same], axis=0) - expected.gradient
    assert np.linalg.norm(off) > 1e-3 * np.linalg.norm(expected.gradient)


def test_unbiased_in_the_metric():
    """Positive definite matrices: H = sharp∘B, and y is not the answer."""
    rng = np.random.default_rng(1)
    c = rng.standard_normal((N, 3, 3))
    c, manifold = c @ c.swapaxes(-1, -2) + np.eye(3), nf.SPD(3)
    t = rng.standard_normal((N, 3, 3))

    def lower(x, y, *, batch):
        xp, mean = nf.namespace(x, y), c[batch, ...].mean(axis=0)
        return xp.sum(mean * xp.linalg.inv(y)) * xp.sum(x * x) + xp.sum((1 + x[0]) * y)

    def upper(x, y, *, batch):
        xp = nf.namespace(x, y)
        return xp.sum((y - t[batch, ...].mean(axis=0)) ** 2) + x[1] * x[0]

    x, y, step = np.array([0.8, 1.1]), manifold.random_point(rng, like=c), 0.02
    found = draws(nf.Bilevel(upper, nf.Euclidean(2), nf.Argmin(lower, manifold)), 2, nf.ProductNeumann(step), y, x)
    whole = nf.Bilevel(
        lambda x, y: upper(x, y, batch=FULL),
        nf.Euclidean(2),
        nf.Argmin(lambda x, y: lower(x, y, batch=FULL), manifold),
    )
    linear = nf.Implicit(nf.Neumann(terms=3, step=step))
    expected = nf.hypergradient(whole, x, y, solver=Here(), estimator=linear, certify=False)
    np.testing.assert_allclose(np.mean([d.gradient for d in found], axis=0), expected.gradient, rtol=1e-12)
    v = found[5].adjoint.value  # pyright: ignore
    assert bool(manifold.is_tangent(y, v)) and np.abs(v).max() > 0


W, U = 0.15 * RNG.standard_normal((N, n, n)), RNG.standard_normal((N, n, p))


def sampled_map(x, y, *, batch):
    """W y + tanh(U x) + d of one sample; W ≠ Wᵀ."""
    xp = nf.namespace(x, y)
    w, u, d = (a[batch, ...].mean(axis=0) for a in (W, U, DATA["d"]))
    return w @ y + xp.tanh(u @ x) + d


def distance(x, y):
    """½ ‖y - 1‖² + ‖x‖²."""
    xp = nf.namespace(x, y)
    return xp.sum((y - 1.0) ** 2) / 2 + xp.sum(x * x)


def mean_map(x, y):
    """The map on the whole."""
    xp = nf.namespace(x, y)
    return W.mean(axis=0) @ y + sum(xp.tanh(U[i] @ x) for i in range(N)) / N + DATA["d"].mean(axis=0)


MAPS = nf.Bilevel(distance, nf.Euclidean(p), nf.FixedPoint(sampled_map, nf.Euclidean(n)))


def test_the_series_of_a_map_is_unbiased():
    whole = nf.Bilevel(
        distance, nf.Euclidean(p), nf.FixedPoint(lambda x, y: sampled_map(x, y, batch=FULL), nf.Euclidean(n))
    )
    y = nf.solve(whole.lower, X, init=START).value
    found = [
        stochastic(MAPS, FULL, [ONE[i], ONE[j]], FULL, None, linear=nf.ProductNeumann(1.0), solver=Here(), y0=y)
        for i, j in itertools.product(range(N), repeat=2)
    ]
    linear = nf.Implicit(nf.Neumann(terms=3))
    expected = nf.hypergradient(whole, X, y, solver=Here(), estimator=linear, certify=False)
    np.testing.assert_allclose(np.mean([d.gradient for d in found], axis=0), expected.gradient, rtol=1e-13)


def test_the_mean_square_error_of_sid_falls_like_one_over_t():
    """Lower steps, adjoint steps and cross samples, t of each; 14 runs, seeds fixed."""
    exact = nf.hypergradient(nf.Bilevel(distance, MAPS.manifold, nf.FixedPoint(mean_map, nf.Euclidean(n))), X, START)
    lengths, errors = [16, 64, 256], []
    for t in lengths:
        squares = []
        for seed in range(14):
            rng = np.random.default_rng([seed, t])
            lower, hessian, cross = ([ONE[i] for i in rng.integers(0, N, t)] for _ in range(3))
            found = stochastic(
                MAPS, lower, hessian, cross, None, linear=nf.DecreasingSteps(2.0, 4.0), solver=nf.RobbinsMonro(2.0, 4.0)
            )
            squares.append(np.sum((found.gradient - exact.gradient) ** 2))
        errors.append(np.mean(squares))
    slope = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert -1.3 < slope < -0.75, (slope, errors)


def test_decreasing_steps():
    """Three of them by hand, from a guess, for a cost."""
    y, guess = nf.solve(COSTS.whole().lower, X, init=START).value, np.array([0.1, -0.2, 0.3])
    order = [2, 0, 1]
    found = stochastic(
        COSTS.problem(), FULL, [ONE[i] for i in order], FULL, FULL,
        linear=nf.DecreasingSteps(0.7, 3.0), solver=Here(), y0=y, adjoint=guess,
    )  # fmt: skip
    v, b = guess, nf.grad(lambda y: COSTS.upper(X, y, batch=FULL))(y)
    for k, i in enumerate(order):
        product = nf.hvp(lambda y, i=i: COSTS.lower(X, y, batch=ONE[i]), (y,), (v,))
        v = v + 0.7 / (3 + k) * (b - product)
    np.testing.assert_allclose(found.adjoint.value, v, rtol=1e-12)  # pyright: ignore


# -- jit, batches of problems, refusals --------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_new_batches_need_no_new_program(backend, like64):
    costs = Quadratic(backend, like64)
    problem, linear = costs.problem(), nf.ProductNeumann(0.1)
    x, y0 = (backend.asarray(a, like=like64) for a in (X, START))
    calls, lower = [], problem.lower.cost  # pyright: ignore

    def counted(x, y, *, batch):
        calls.append(1)
        return lower(x, y, batch=batch)

    problem = nf.Bilevel(problem.upper, problem.manifold, nf.Argmin(counted, nf.Euclidean(n)))
    solver, counts = nf.GradientDescent(0.1), []
    for shift in range(2):
        one = [backend.asarray((b + shift) % N, like=like64, dtype=backend.xp.int32) for b in ONE]
        calls.clear()
        found = stochastic(problem, one, one, one, one, linear=linear, solver=solver, x=x, y0=y0)
        counts.append(len(calls))
        plain = [(b + shift) % N for b in ONE]
        expected = stochastic(COSTS.problem(), plain, plain, plain, plain, linear=linear, solver=solver)
        np.testing.assert_allclose(backend.to_numpy(found.gradient), expected.gradient, rtol=1e-10)
    assert counts[1] < counts[0] and counts[1] <= 4, counts


def test_several_lower_problems():
    """A batch of problems, each on the same minibatch."""

    def lower(x, y, *, batch):
        h, d = (DATA[name][batch, ...].mean(axis=0) for name in ("h", "d"))
        xp = nf.namespace(x, y)
        return xp.sum(y * (y @ h), axis=-1) / 2 - xp.sum(y * d, axis=-1) * x[..., 0]

    def upper(x, y):
        return nf.namespace(x, y).sum((y - 1.0) ** 2, axis=-1) / 2

    problem = nf.Bilevel(upper, nf.Euclidean(1), nf.Argmin(lower, nf.Euclidean(n)))
    x, y0, linear = np.array([[0.5], [-2.0]]), np.zeros((2, n)), nf.DecreasingSteps(0.5, 2.0)
    batches = ([ONE[0], FULL], [ONE[1], ONE[2]], [ONE[0], ONE[1]], None)
    together = stochastic(problem, *batches, x=x, y0=y0, linear=linear, solver=nf.GradientDescent(0.1))  # pyright: ignore
    for i in range(2):
        alone = stochastic(problem, *batches, x=x[i], y0=y0[i], linear=linear, solver=nf.GradientDescent(0.1))
        np.testing.assert_allclose(together.gradient[i], alone.gradient, rtol=1e-12)
    assert together.adjoint.steps.tolist() == [2, 2]  # pyright: ignore


def test_a_series_that_diverges_says_so():
    linear = nf.ProductNeumann(1e200)
    with pytest.warns(nf.ConvergenceWarning, match="not finite"), np.errstate(all="ignore"):
        found = stochastic(COSTS.problem(), FULL, [FULL] * 3, FULL, FULL, linear=linear)
    assert not bool(found.adjoint.converged)  # pyright: ignore


def test_refusals():
    problem, good = COSTS.problem(), nf.Batches(FULL, FULL, FULL, FULL)
    with pytest.raises(TypeError, match="batches must be Batches"):
        nf.hypergradient(problem, X, START, batches=(FULL, FULL, FULL, FULL))  # pyright: ignore
    with pytest.raises(TypeError, match="batches must be Batches"):
        nf.hypergradient(problem, X, START, estimator=nf.StochasticImplicit())
    with pytest.raises(TypeError, match="must be a StochasticImplicit"):
        nf.hypergradient(problem, X, START, batches=good, estimator=nf.Implicit())
    with pytest.raises(ValueError, match="nothing to certify"):
        nf.hypergradient(problem, X, START, batches=good, tol=1e-3)
    with pytest.raises(ValueError, match="cross is an empty list"):
        stochastic(problem, FULL, FULL, [], FULL)
    with pytest.raises(TypeError, match="one step each"):
        stochastic(problem, [FULL], FULL, FULL, FULL)
    with pytest.raises(TypeError, match="a list of Hessian batches needs"):
        stochastic(problem, FULL, [FULL], FULL, FULL, linear=nf.CG())
    with pytest.raises(TypeError, match="takes a list of Hessian batches"):
        stochastic(problem, FULL, FULL, FULL, FULL, linear=nf.ProductNeumann(0.1))
    with pytest.raises(TypeError, match="needs a symmetric operator"):
        stochastic(MAPS, FULL, FULL, FULL, None, linear=nf.CG())
    with pytest.raises(nf.NoDerivativeError):
        nf.grad(lambda x: nf.hypergradient(problem, x, START, batches=good).value)(X)
    with pytest.raises(TypeError, match="linear must be a"):
        nf.StochasticImplicit(0.1)  # pyright: ignore


@pytest.mark.parametrize(
    "make", [lambda: nf.ProductNeumann(0.0), lambda: nf.DecreasingSteps(0.0, 1.0), lambda: nf.RobbinsMonro(1.0, 0.0)]
)
def test_settings(make):
    with pytest.raises(ValueError, match="more than 0"):
        make()


def test_robbins_monro_alone():
    """As a solver of an ordinary level: a gradient method whose steps decrease."""
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    found = nf.solve(level, np.array([1.0, 2.0]), init=np.zeros(2), solver=nf.RobbinsMonro(5.0, 12.0))
    assert bool(found.converged) and int(found.steps) < 2000
    np.testing.assert_allclose(found.value, [1.0, 2.0], atol=1e-11)
    sphere = nf.Argmin(lambda x, y: y @ (x @ y), nf.Sphere(3))
    a = np.diag([1.0, 2.0, 4.0]) + 0.1
    found = nf.solve(sphere, a, init=np.array([0.6, 0.8, 0.0]), solver=nf.RobbinsMonro(5.0, 20.0))
    np.testing.assert_allclose(np.abs(found.value), np.abs(np.linalg.eigh(a)[1][:, 0]), atol=1e-9)
    with pytest.warns(nf.ConvergenceWarning), np.errstate(all="ignore"):
        found = nf.solve(level, np.ones(2), init=np.zeros(2), solver=nf.RobbinsMonro(1e6, 1.0, max_steps=200))
    assert np.all(np.isfinite(found.value)) and not bool(found.converged)
