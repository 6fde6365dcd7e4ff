"""The hypergradient in one call, against exact answers, on every backend and in both precisions."""

import dataclasses

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

ESTIMATORS = {
    "cg": nf.Implicit(nf.CG()),
    "neumann": nf.Implicit(nf.Neumann()),
    "dense": nf.Implicit(nf.Dense()),
}
eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)


def gap(backend, found, expected):
    """|found - expected| / |expected|."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def adjoint(found):
    """The linear solve of a hypergradient."""
    assert found.adjoint is not None
    return found.adjoint


def exact_gradient(d, r, w):
    """The Riemannian hypergradient of the synthetic problem at W, in float64."""
    problem = synthetic(like=np.zeros(()), d=d, r=r, n=2 * d)
    w = np.asarray(w, dtype=float)
    return nf.Stiefel(d, r).project(w, problem.euclidean_gradient(w))


def measure(backend, like, d, r, name):
    """The hypergradient of the synthetic problem from M = I, and its relative error."""
    problem = synthetic(like=like, d=d, r=r, n=2 * d)
    w, m = problem.start(np.random.default_rng(0))
    found = nf.hypergradient(problem.problem(), w, m, estimator=ESTIMATORS[name])
    return problem, w, found, gap(backend, found.gradient, exact_gradient(d, r, backend.to_numpy(w)))


# -- exactness on the paper's problem ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_full_size_in_float64(backend, like64, name):
    """Exact to 1e-10; and all backends agree with NumPy to 1e-11, in the number of steps too."""
    problem, w, found, error = measure(backend, like64, 50, 20, name)
    _, _, expected, _ = measure(nf.get_backend("numpy"), np.zeros(()), 50, 20, name)
    for field in ("value", "gradient", "covector"):
        assert gap(backend, getattr(found, field), getattr(expected, field)) < 1e-11
    assert int(found.lower.steps) == int(expected.lower.steps)
    assert error < 1e-10
    assert gap(backend, found.value, backend.to_numpy(problem.objective(w))) < 1e-12
    assert gap(backend, found.lower.value, backend.to_numpy(problem.solution(w))) < 1e-9
    assert bool(found.lower.converged) and bool(adjoint(found).converged)


def test_small_size_by_a_direct_solve(backend, like64):
    _, _, found, error = measure(backend, like64, 6, 3, "dense")
    assert error < 1e-10
    assert int(adjoint(found).steps) == 36  # one product for each ambient coordinate
    assert bool(adjoint(found).converged)


@pytest.mark.slow
def test_full_size_by_a_direct_solve(backend, like64):
    assert measure(backend, like64, 50, 20, "dense")[-1] < 1e-10


@pytest.mark.parametrize("d, r", [(6, 3), pytest.param(50, 20, marks=pytest.mark.slow)])
def test_float32_with_default_settings(backend, like32, d, r):
    """No warning: the default tolerances are those that float32 can reach."""
    _, w, found, error = measure(backend, like32, d, r, "cg")
    assert error < 1e-3
    for array in (found.value, found.gradient, found.covector, found.lower.value, adjoint(found).value):
        assert array.dtype == w.dtype
    assert bool(found.lower.converged) and bool(adjoint(found).converged)


@eager
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("d, r", [(10, 4), (50, 20)])
@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_float32_from_many_starts(backend, like32, d, r, name, seed):
    problem = synthetic(like=like32, d=d, r=r, n=2 * d, seed=seed)
    double = synthetic(like=np.zeros(()), d=d, r=r, n=2 * d, seed=seed)
    w, m = problem.start(np.random.default_rng(seed))
    found = nf.hypergradient(problem.problem(), w, m, estimator=ESTIMATORS[name])
    exact = backend.to_numpy(w).astype(float)
    expected = nf.Stiefel(d, r).project(exact, double.euclidean_gradient(exact))
    assert gap(backend, found.gradient, expected) < 1e-3
    assert bool(found.lower.converged)


@eager
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [smallest_eigenvector, tanh_fixed_point])
def test_other_levels_in_float32(backend, like32, make, seed):
    """At default settings, and without a warning that float32 could not avoid."""
    problem, double = make(like=like32, seed=seed), make(like=np.zeros(()), seed=seed)
    x, y = problem.start(np.random.default_rng(seed))
    found = nf.hypergradient(problem.problem(), x, y)
    assert gap(backend, found.gradient, double.euclidean_gradient(backend.to_numpy(x).astype(float))) < 1e-4
    assert bool(found.lower.converged) and bool(adjoint(found).converged)
    assert int(adjoint(found).steps) < 200


@pytest.mark.parametrize("make", [smallest_eigenvector, tanh_fixed_point])
def test_other_levels(backend, like64, rng, make):
    """On the sphere, and of a map that is no gradient: with the estimator that suits by default."""
    problem = make(like=like64)
    x, y = problem.start(rng)
    found = nf.hypergradient(problem.problem(), x, y)
    expected = backend.to_numpy(problem.euclidean_gradient(x))
    assert gap(backend, found.gradient, expected) < 1e-10
    assert gap(backend, found.value, backend.to_numpy(problem.objective(x))) < 1e-12


# -- what comes out ----------------------------------------------------------------------------------------


@numpy_only
def test_the_record_is_consistent(backend, like64):
    problem, w, found, _ = measure(backend, like64, 6, 3, "cg")
    manifold = nf.Stiefel(6, 3)
    assert bool(manifold.is_tangent(w, found.gradient, atol=1e-13))
    np.testing.assert_allclose(manifold.sharp(w, found.covector), found.gradient, atol=1e-15)
    u = manifold.random_tangent(np.random.default_rng(1), w)
    h = 1e-5
    values = [problem.objective(manifold.retract(w, t * u)) for t in (h, -h)]
    assert float(manifold.inner(w, found.gradient, u)) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-7)


@eager
def test_a_good_first_guess_saves_the_linear_solve(backend, like64):
    problem, w, first, _ = measure(backend, like64, 10, 4, "cg")
    _, m = problem.start(np.random.default_rng(0))
    again = nf.hypergradient(problem.problem(), w, m, estimator=ESTIMATORS["cg"], adjoint=adjoint(first).value)
    assert int(adjoint(first).steps) > 10
    assert int(adjoint(again).steps) <= 3
    assert gap(backend, again.gradient, backend.to_numpy(first.gradient)) < 1e-12


@eager
def test_a_good_start_saves_the_lower_solve(backend, like64):
    problem, w, first, _ = measure(backend, like64, 10, 4, "cg")
    again = nf.hypergradient(problem.problem(), w, first.lower.value)
    assert int(again.lower.steps) <= 1
    assert gap(backend, again.gradient, backend.to_numpy(first.gradient)) < 1e-12


@eager
def test_unrolled_converges_to_the_implicit_one(backend, like64):
    problem = tanh_fixed_point(like=like64, n=5, p=3, contraction=0.5)
    x, y = problem.start(np.random.default_rng(2))
    found = nf.hypergradient(problem.problem(), x, y, estimator=nf.Unrolled(60))
    assert found.adjoint is None
    assert int(found.lower.steps) == 60
    assert gap(backend, found.gradient, backend.to_numpy(problem.euclidean_gradient(x))) < 1e-11


@numpy_only
def test_the_inputs_are_left_alone(backend, like64):
    problem = synthetic(like=like64, d=6, r=3, n=12)
    w, m = problem.start(np.random.default_rng(0))
    before = [np.array(a) for a in (w, m, problem.a, problem.c, problem.k)]
    nf.hypergradient(problem.problem(), w, m)
    for array, copy in zip((w, m, problem.a, problem.c, problem.k), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@dataclasses.dataclass
class Callable:
    """A cost as a user may write it; being comparable, it has no hash."""

    data: object

    def __call__(self, x, y):
        return ((y - x * self.data) ** 2).sum()


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_a_cost_that_has_no_hash(backend, like64):
    x, flat = backend.asarray(np.array([1.0, 2.0]), like=like64), nf.Euclidean(2)
    problem = nf.Bilevel(lambda x, y: (y**2).sum(), flat, nf.Argmin(Callable(2 * x), flat))
    np.testing.assert_allclose(backend.to_numpy(nf.hypergradient(problem, x, x).gradient), [8, 64], rtol=1e-12)
    assert nf.run(problem, x, x, steps=1).steps == 1


# -- batches -----------------------------------------------------------------------------------------------


def test_a_batch_of_problems_is_a_loop(backend, xp, like64):
    """The entries, from M = I, 3I and I/100, converge at different speeds."""
    problem = synthetic(like=like64, d=5, r=2, n=10)
    starts = [problem.start(np.random.default_rng(seed)) for seed in range(3)]
    w = xp.stack([s[0] for s in starts])
    m = xp.stack([starts[0][1], 3 * starts[1][1], 1e-2 * starts[2][1]])
    bilevel = problem.problem()
    found = nf.hypergradient(bilevel, w, m)
    assert found.value.shape == found.lower.steps.shape == adjoint(found).steps.shape == (3,)
    assert len(set(backend.to_numpy(found.lower.steps).tolist())) > 1
    for i in range(3):
        assert gap(backend, found.gradient[i, ...], exact_gradient(5, 2, backend.to_numpy(w[i, ...]))) < 1e-10
    for i in range(3 if backend.name != "jax" else 0):  # on JAX only compared with the exact answer: one compilation
        alone = nf.hypergradient(bilevel, w[i, ...], m[i, ...])
        for field in ("value", "gradient"):
            one, other = getattr(found, field)[i, ...], getattr(alone, field)
            assert gap(backend, one, backend.to_numpy(other)) < 1e-11
        assert int(found.lower.steps[i]) == int(alone.lower.steps)


# -- no derivative of the record, rather than a wrong one ------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict"], indirect=True)
def test_the_result_is_no_function_to_differentiate(backend, like64):
    problem = synthetic(like=like64, d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    with pytest.raises(nf.NoDerivativeError, match="differentiate upper"):
        nf.grad(lambda w: nf.hypergradient(problem.problem(), w, m).value)(w)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_the_result_is_no_function_to_differentiate_in_jax(backend, like64):
    import jax

    problem = synthetic(like=like64, d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    with pytest.raises(nf.NoDerivativeError, match="differentiate upper"):
        jax.grad(lambda w: nf.hypergradient(problem.problem(), w, m).value)(w)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_the_result_is_no_function_to_differentiate_in_torch(backend, like64):
    problem = synthetic(like=like64, d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    found = nf.hypergradient(problem.problem(), w.requires_grad_(), m)
    assert not found.value.requires_grad  # so that backward() raises
