"""What a cross-check found: costs in small units, captured arrays, pullbacks that outlive their level, settings."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import synthetic


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1e6])
@pytest.mark.parametrize("solver", [nf.TrustRegion(), nf.GradientDescent()], ids=["trust_region", "descent"])
def test_the_unit_of_the_cost_does_not_matter(scale, solver):
    """The answer of scale · cost is the answer of cost, and a run that says `converged` has found it."""
    problem = synthetic(like=np.zeros(()), d=6, r=2, n=12, seed=1)
    w, m = problem.start(np.random.default_rng(0))
    level = nf.Argmin(lambda w, m: scale * problem.lower(w, m), nf.SPD(6))
    found = nf.solve(level, w, init=m, solver=solver)
    assert found.converged
    np.testing.assert_allclose(found.value, problem.solution(w), rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_the_unit_of_the_cost_does_not_matter_in_float32(scale):
    problem = synthetic(like=np.zeros((), dtype=np.float32), d=6, r=2, n=12, seed=1)
    w, m = problem.start(np.random.default_rng(0))
    level = nf.Argmin(lambda w, m: np.float32(scale) * problem.lower(w, m), nf.SPD(6))
    found = nf.solve(level, w, init=m)
    exact = problem.solution(w)
    assert found.converged and np.linalg.norm(found.value - exact) <= 1e-3 * np.linalg.norm(exact)


def test_least_squares_that_fit_exactly_converge_from_their_answer():
    """The cost and the gradient are zero there: no unit is left to measure by, but the Newton step is."""
    level = nf.Argmin(lambda x, y: np.sum((y - x) ** 2), nf.Euclidean(3))
    x = np.array([1.0, -2.0, 3.0])
    for start in (x, x + 1e-9, np.zeros(3)):
        found = nf.solve(level, x, init=start)
        assert found.converged and np.allclose(found.value, x, atol=1e-12)


def test_captured_arrays_are_refused_where_nothing_is_differentiated():
    """`hypergradient` and `run` are no functions to differentiate, by whatever way the array comes in."""
    flat = nf.Euclidean(2)

    def value(scale):
        problem = nf.Bilevel(
            lambda x, y: (y * y).sum(), flat, nf.Argmin(lambda x, y: ((y - scale * x) ** 2).sum(), flat)
        )
        return nf.hypergradient(problem, np.ones(2), np.zeros(2)).value

    def ran(scale):
        problem = nf.Bilevel(
            lambda x, y: (scale * y * y).sum(), flat, nf.Argmin(lambda x, y: ((y - x) ** 2).sum(), flat)
        )
        return nf.run(problem, np.ones(2), np.zeros(2), steps=1).value

    for function in (value, ran):
        with pytest.raises(nf.NoDerivativeError, match="not differentiable"):
            nf.grad(function)(np.asarray(2.0))


def test_a_problem_is_released_after_use():
    problem = synthetic(like=np.zeros(()), d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    nf.hypergradient(problem.problem(), w, m)
    nf.run(problem.problem(), w, m, steps=2)
    watch = weakref.ref(problem)
    del problem
    gc.collect()
    assert watch() is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_a_pullback_of_torch_func_used_after_its_level_has_gone():
    torch = pytest.importorskip("torch")
    x, v = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    start = torch.zeros(3, dtype=torch.float64)
    level = nf.Argmin(lambda x, y: ((y - x * x.sum()) ** 2).sum() + (y**4).sum(), nf.Euclidean(3))

    def solution(x):
        return nf.solve(level, x, init=start).value

    def objective(x):
        return (solution(x) ** 3).sum()

    matrix = nf.jacobian(solution)(x)
    assert float(torch.linalg.norm(matrix)) > 1
    expected = {"vjp": matrix.T @ v, "jacrev": matrix, "one row": matrix, "hessian": nf.hessian(objective)(x)}
    found = {
        "vjp": torch.func.vjp(solution, x)[1](v)[0],
        "jacrev": torch.func.jacrev(solution)(x),
        "one row": torch.func.jacrev(solution, chunk_size=1)(x),
        "hessian": torch.func.hessian(objective)(x),
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (nf.TrustRegion, {"max_steps": 2.5}),
        (nf.Armijo, {"shrink": 2}),
        (nf.Armijo, {"slope": 1.0}),
        (nf.BarzilaiBorwein, {"longest": -1}),
        (nf.BarzilaiBorwein, {"search": 3}),
    ],
)
def test_settings_that_make_no_sense(make, settings):
    with pytest.raises((TypeError, ValueError), match="must be"):
        make(**settings)


def test_numbers_of_numpy_are_numbers():
    settings: dict[str, Any] = {"tol": np.float32(1e-3), "max_steps": np.int64(5)}
    assert nf.CG(**settings).max_steps == 5


def test_a_form_folded_into_matrix_products_is_the_form(monkeypatch):
    """On NumPy the Hessian on SPD is folded; torch keeps its graph. The steps are the same, the products nearly so."""
    problem = synthetic(like=np.zeros(()), d=8, r=3, n=16, seed=2)
    w, m = problem.start(np.random.default_rng(1))
    folded = nf.hypergradient(problem.problem(), w, m)
    backend = nf.get_backend("numpy")
    calls = []
    plain = type(backend).symmetric_products

    def counted(self, linear, factor):
        calls.append(plain(self, linear, factor))

    monkeypatch.setattr(type(backend), "symmetric_products", counted)
    unfolded = nf.hypergradient(problem.problem(), w, m)
    assert calls and all(apply is not None for apply in calls)
    assert folded.adjoint is not None and unfolded.adjoint is not None
    assert folded.lower.steps == unfolded.lower.steps
    assert abs(int(folded.adjoint.steps) - int(unfolded.adjoint.steps)) <= 2  # down to 10 eps: rounding decides
    np.testing.assert_allclose(folded.gradient, unfolded.gradient, rtol=1e-10, atol=1e-12)


def test_a_form_that_is_no_sum_of_products_is_not_folded():
    """exp, entry by entry, cannot be folded; the plain replay takes over."""
    backend = nf.get_backend("numpy")
    like = np.eye(4)
    assert backend.symmetric_products(lambda t: np.arange(16.0).reshape(4, 4) * t, like) is None
    assert backend.symmetric_products(lambda t: t * np.sum(t), like) is None
    level = nf.Argmin(lambda x, m: np.sum(m * x) + np.sum(np.exp(-m)) + np.trace(np.linalg.inv(m)), nf.SPD(3))
    found = nf.solve(level, np.eye(3), init=np.eye(3))
    assert found.converged and np.abs(nf.SPD(3).gradient(lambda m: level.cost(np.eye(3), m), found.value)).max() < 1e-10


def test_products_of_matrices_stand_for_a_form_only_where_they_are_it(backend, like64, rng):
    """A Lyapunov operator in the coordinates of its factor is found on every backend; another form is not mistaken."""
    numbers = [rng.standard_normal((5, 5)) for _ in range(4)]
    l, k, a, t = (backend.asarray(m, like=like64) for m in numbers)
    l = backend.xp.linalg.qr(l)[1] + 5 * backend.xp.eye(5, dtype=like64.dtype)
    inverse = backend.xp.linalg.inv(l)
    t = t + t.mT

    def lyapunov(u):
        v = inverse @ u @ inverse.mT
        product = v @ (k + k.mT)
        return inverse.mT @ (product + product.mT) @ inverse

    def entrywise(u):
        return a * u

    for form in (lyapunov, entrywise):
        expected = l.mT @ form(l @ t @ l.mT) @ l
        expected = 0.5 * (expected + expected.mT)
        apply = backend.symmetric_products(form, l)
        if apply is None:
            assert form is entrywise and backend.name != "jax"  # which decides when the program runs
            continue
        np.testing.assert_allclose(backend.to_numpy(apply(t)), backend.to_numpy(expected), rtol=1e-11, atol=1e-11)
