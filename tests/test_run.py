"""Riemannian hypergradient descent by `run`: where it ends, what it tells, and why it stops."""

import itertools
import warnings

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

numpy_or_torch = pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)


def case(like, d=8, r=3, seed=0):
    problem = synthetic(like=like, d=d, r=r, n=2 * d, seed=seed)
    return problem, *problem.start(np.random.default_rng(seed))


def descended(problem, w, steps=2000):
    """Where exact gradients and a line search lead from W: Barzilai-Borwein lengths, Armijo's condition."""
    manifold = nf.Stiefel(*problem.c.shape)

    def gradient(w):
        return manifold.project(w, problem.euclidean_gradient(w))

    t, value, u = 1.0, problem.objective(w), gradient(w)
    for _ in range(steps):
        squared = np.sum(u * u)
        if squared < 1e-20:
            break
        while (new := problem.objective(manifold.retract(w, -t * u))) > value - 1e-4 * t * squared + 1e-15:
            t /= 2
        w = manifold.retract(w, -t * u)
        after = gradient(w)
        change = np.sum(u * (u - manifold.project(w, after)))
        t, value, u = t * squared / abs(change), new, after
    return float(value)


# -- where it ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_it_reaches_the_value_of_exact_descent(seed):
    """In at most 100 steps, to 1e-6 (measured: 1e-15)."""
    problem, w, m = case(np.zeros(()), seed=seed)
    found = nf.run(problem.problem(), w, m, steps=100)
    assert float(problem.objective(found.x)) - descended(problem, w) < 1e-6
    assert found.converged and found.reason == "tolerance" and found.steps < 100
    assert bool(nf.Stiefel(8, 3).contains(found.x, atol=1e-12))
    assert bool(nf.SPD(8).contains(found.y))


def test_full_size():
    problem, w, m = case(np.zeros(()), 50, 20)
    found = nf.run(problem.problem(), w, m, steps=100)
    assert abs(float(problem.objective(found.x)) - descended(problem, w)) < 1e-6
    assert found.converged
    assert found.history[0].products > found.history[-1].products  # warm starts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_full_size_from_other_seeds(seed):
    problem, w, m = case(np.zeros(()), 50, 20, seed)
    found = nf.run(problem.problem(), w, m, steps=100)
    assert abs(float(problem.objective(found.x)) - descended(problem, w)) < 1e-6


def test_every_backend_takes_the_same_steps(backend, like64):
    """Value, norm and length of each of nine steps as on NumPy, whose run this is compared with."""
    found, expected = (
        nf.run(problem.problem(), w, m, steps=9) for problem, w, m in (case(like64, 5, 2), case(np.zeros(()), 5, 2))
    )
    assert found.steps == expected.steps == 9 and found.reason == "steps" and not found.converged
    for one, other in zip(found.history, expected.history, strict=True):
        np.testing.assert_allclose(one[1:4], other[1:4], rtol=1e-7)
    for one, other in ((found.x, expected.x), (found.y, expected.y), (found.value, expected.value)):
        np.testing.assert_allclose(backend.to_numpy(one), other, rtol=1e-7, atol=1e-9)
        assert backend.owns(one)


METHODS = {
    "armijo": nf.RHGD(step_size=nf.Armijo()),
    "neumann": nf.RHGD(estimator=nf.Implicit(nf.Neumann(60))),
    "descent": nf.RHGD(solver=nf.GradientDescent()),
    "fixed": nf.RHGD(step_size=0.5),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_other_methods(method):
    problem, w, m = case(np.zeros(()), 5, 2)
    found = nf.run(problem.problem(), w, m, method=method, steps=120)
    assert float(problem.objective(found.x)) - descended(problem, w) < 1e-6


def test_armijo_reaches_the_default_tolerance():
    problem, w, m = case(np.zeros(()), 5, 2)
    assert nf.run(problem.problem(), w, m, method=METHODS["armijo"], steps=200).converged


@pytest.mark.parametrize("make", [smallest_eigenvector, tanh_fixed_point])
def test_other_levels(make):
    problem = make(like=np.zeros(()))
    x, y = problem.start(np.random.default_rng(0))
    found = nf.run(problem.problem(), x, y)
    assert found.reason == "tolerance"
    assert np.linalg.norm(problem.euclidean_gradient(found.x)) < 1e-6


def test_float32(backend, like32):
    if backend.name == "jax":
        pytest.skip("float32 on JAX: see test_hypergradient.py; here it would only cost compile time")
    problem, w, m = case(like32)
    found = nf.run(problem.problem(), w, m)
    assert found.x.dtype == found.gradient.dtype == w.dtype
    double, exact_w, _ = case(np.zeros(()))
    assert abs(double.objective(backend.to_numpy(found.x).astype(float)) - descended(double, exact_w)) < 1e-5
    assert found.reason in ("tolerance", "no descent")


def test_a_batch_of_problems():
    """Each of the two ends where it would alone."""
    problem, *_ = case(np.zeros(()), 5, 2)
    starts = [problem.start(np.random.default_rng(seed)) for seed in (0, 1)]
    w, m = (np.stack([s[i] for s in starts]) for i in (0, 1))
    found = nf.run(problem.problem(), w, m, steps=150)
    assert found.value.shape == (2,)
    for i in (0, 1):
        assert float(found.value[i]) - descended(problem, w[i]) < 1e-6


# -- what it tells -----------------------------------------------------------------------------------------


@numpy_or_torch
def test_history(backend, like64):
    problem, w, m = case(like64, 5, 2)
    found = nf.run(problem.problem(), w, m, steps=12)
    history = found.history
    assert [record.step for record in history] == list(range(13)) and found.steps == 12
    first = nf.hypergradient(problem.problem(), w, m)
    assert history[0].value == pytest.approx(float(first.value), rel=1e-12)
    norm = float((first.gradient**2).sum() ** 0.5)
    assert history[0].gradient_norm == pytest.approx(norm, rel=1e-9)
    assert history[0].step_size == 0 and all(record.step_size > 0 for record in history[1:])
    assert history[0].inner_steps == int(first.lower.steps)
    assert all(0 < record.products < 60 for record in history)
    values = [record.value for record in history]
    assert all(b < a for a, b in itertools.pairwise(values))
    seconds = [record.seconds for record in history]
    assert seconds[0] > 0 and seconds == sorted(seconds)
    assert float(found.value) == pytest.approx(history[-1].value)
    assert all(type(value) in (int, float) for record in history for value in record)


def test_two_runs_are_the_same():
    problem, w, m = case(np.zeros(()), 5, 2)
    one, other = (nf.run(problem.problem(), w, m, steps=10) for _ in range(2))
    assert [r[:-1] for r in one.history] == [r[:-1] for r in other.history]
    np.testing.assert_array_equal(one.x, other.x)


def test_callback():
    """Called after the start and after each step; a true answer stops the run there."""
    problem, w, m = case(np.zeros(()), 5, 2)
    seen = []

    def callback(record, state):
        seen.append((record.step, float(problem.objective(state.x))))
        return record.step == 3

    found = nf.run(problem.problem(), w, m, callback=callback)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert found.reason == "callback" and found.steps == 3 and not found.converged
    assert seen[-1][1] == pytest.approx(float(found.value), rel=1e-9)
    at_once = nf.run(problem.problem(), w, m, callback=lambda record, state: True)
    assert at_once.steps == 0 and at_once.reason == "callback"


def test_an_error_in_a_callback_goes_through(capsys):
    problem, w, m = case(np.zeros(()), 5, 2)

    def callback(record, state):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nf.run(problem.problem(), w, m, callback=callback, progress=True)
    assert nf.run(problem.problem(), w, m, steps=2).steps == 2


def test_progress_goes_to_standard_error(capsys):
    problem, w, m = case(np.zeros(()), 5, 2)
    nf.run(problem.problem(), w, m, steps=3)
    assert capsys.readouterr() == ("", "")
    nf.run(problem.problem(), w, m, steps=3, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err and "gradient" in err


# -- why it stops ------------------------------------------------------------------------------------------


@numpy_or_torch
def test_no_step_at_all(backend, like64):
    problem, w, m = case(like64, 5, 2)
    found = nf.run(problem.problem(), w, m, steps=0)
    assert found.steps == 0 and found.reason == "steps" and len(found.history) == 1
    np.testing.assert_array_equal(backend.to_numpy(found.x), backend.to_numpy(w))
    solution = backend.to_numpy(problem.solution(w))
    np.testing.assert_allclose(backend.to_numpy(found.y), solution, rtol=1e-8, atol=1e-9)


def test_from_the_answer_no_step_is_taken():
    problem, w, m = case(np.zeros(()), 5, 2)
    first = nf.run(problem.problem(), w, m)
    again = nf.run(problem.problem(), first.x, first.y)
    assert again.steps == 0 and again.reason == "tolerance" and again.converged


@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_the_tolerance_is_obeyed(tol):
    problem, w, m = case(np.zeros(()), 5, 2)
    found = nf.run(problem.problem(), w, m, method=nf.RHGD(tol=tol))
    first = found.history[0]
    largest = max(abs(first.value), first.gradient_norm)

    def within(record):
        scale = max(min(abs(record.value), largest), min(first.gradient_norm, 1.0))
        return record.gradient_norm <= tol * scale

    met = [within(record) for record in found.history]
    assert found.reason == "tolerance" and met == [False] * (len(met) - 1) + [True]


def test_a_tolerance_that_cannot_be_reached():
    """The run stays at the answer, to rounding, and does not say that it has converged."""
    problem, w, m = case(np.zeros(()), 5, 2)
    found = nf.run(problem.problem(), w, m, method=nf.RHGD(tol=0.0), steps=120)
    assert found.reason in ("no descent", "steps") and not found.converged
    assert max(record.gradient_norm for record in found.history[80:]) < 1e-11
    assert abs(float(found.value) - descended(problem, w)) < 1e-13


@numpy_or_torch
def test_no_descent(backend, like64):
    """A gradient that points uphill: the search finds nothing, and the point stays where it is."""
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    problem = nf.Bilevel(lambda x, y: (y**2).sum() - 2 * nf.stop_gradient((y**2).sum()), nf.Euclidean(2), level)
    x = backend.asarray(np.array([1.0, 2.0]), like=like64)
    found = nf.run(problem, x, 0 * x)
    assert found.reason == "no descent" and found.steps == 0 and not found.converged
    np.testing.assert_array_equal(backend.to_numpy(found.x), [1, 2])
    assert float(found.value) == pytest.approx(-5)


@numpy_or_torch
def test_steps_into_nan(backend, like64):
    """The last finite state is the result, with a warning."""
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    problem = nf.Bilevel(lambda x, y: nf.namespace(y).sum(nf.namespace(y).log(y)), nf.Euclidean(2), level)
    x = backend.asarray(np.array([1.0, 2.0]), like=like64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the logarithm
        with pytest.warns(nf.ConvergenceWarning, match="not finite after . steps"):
            found = nf.run(problem, x, 0 * x, method=nf.RHGD(step_size=0.4))
    assert found.reason == "not finite" and not found.converged
    assert np.isfinite(float(found.value)) and np.isfinite(backend.to_numpy(found.x)).all()
    assert (backend.to_numpy(found.x) > 0).all()
    assert np.isfinite([record.value for record in found.history]).all()


@numpy_or_torch
def test_nan_at_the_start(backend, like64):
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    problem = nf.Bilevel(lambda x, y: y.sum() * float("nan"), nf.Euclidean(2), level)
    x = backend.asarray(np.array([1.0, 2.0]), like=like64)
    with pytest.warns(nf.ConvergenceWarning, match="not finite after 0 steps"):
        found = nf.run(problem, x, 0 * x)
    assert found.reason == "not finite" and found.steps == 0
    np.testing.assert_array_equal(backend.to_numpy(found.x), [1, 2])


def test_unbounded_below():
    """An upper cost without minimum: the run ends somehow, and never as converged."""
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), nf.Euclidean(2))
    problem = nf.Bilevel(lambda x, y: y.sum() * 1.0, nf.Euclidean(2), level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nf.ConvergenceWarning)
        found = nf.run(problem, np.ones(2), np.ones(2), steps=100)
    assert not found.converged
    assert np.isfinite(found.x).all()
