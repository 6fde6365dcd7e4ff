"""Problems with three levels and more: against closed forms and finite differences, by every estimator."""

import dataclasses
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import manifold_trilevel, quartic_trilevel, stackelberg

ZERO = np.zeros(())
ESTIMATORS = {
    "default": None,
    "dense": nf.Implicit(nf.Dense()),
    "flattened": nf.Flattened(),
    "flattened, its own Newton method": nf.Flattened(solver=nf.Newton()),
}
eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)
both = pytest.mark.parametrize("estimator", [None, nf.Flattened()], ids=["nested", "flattened"])
#: quick, and its answers are tested by themselves: for finite differences
NEWTON = nf.Flattened(solver=nf.Newton())
make_problem = pytest.mark.parametrize("make", [quartic_trilevel, manifold_trilevel])


def seventh_order(f, h=1e-2):
    """f'(0) by central differences, error of order h⁸."""
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(w * (f(k * h) - f(-k * h)) for k, w in weights.items()) / h


def relative(found, expected):
    """|found - expected| / |expected|."""
    return np.linalg.norm(np.asarray(found) - np.asarray(expected)) / np.linalg.norm(np.asarray(expected))


def directions(manifold, x, count=3):
    """Random unit tangent vectors."""
    rng = np.random.default_rng(5)
    found = [manifold.project(x, rng.standard_normal(x.shape)) for _ in range(count)]
    return [u / np.linalg.norm(u) for u in found]


@lru_cache
def reference(make):
    """On NumPy: the problem, its start, and F'(x) along some directions by finite differences of solved problems."""
    problem = make(like=ZERO).problem()
    x, starts = problem_start(make, ZERO)
    value = problem.reduced(estimator=NEWTON)
    along = directions(problem.manifold, x)
    slopes = [seventh_order(lambda t, u=u: value(problem.manifold.retract(x, t * u), starts)) for u in along]
    return problem, x, starts, along, np.asarray(slopes)


def problem_start(make, like):
    return make(like=like).start(np.random.default_rng(1))


# -- first derivatives ---------------------------------------------------------------------------------------


@make_problem
@pytest.mark.parametrize("name", ESTIMATORS)
def test_against_finite_differences(make, name):
    """A quartic in flat space, and a curved space at every level."""
    problem, x, starts, along, slopes = reference(make)
    found = nf.hypergradient(problem, x, starts, estimator=ESTIMATORS[name])
    assert relative([np.sum(found.covector * u) for u in along], slopes) < 1e-10
    assert problem.manifold.is_tangent(x, found.gradient)
    assert all(bool(s.converged) for s in (*found.lower, *found.adjoint))
    for level, solution in zip(problem.levels, found.lower, strict=True):
        assert level.manifold.contains(solution.value)


@eager
@make_problem
@both
def test_backends_agree(backend, like64, make, estimator):
    """With NumPy's default estimator."""
    problem = make(like=like64).problem()
    x, starts = problem_start(make, like64)
    expected = nf.hypergradient(*reference(make)[:3])
    found = nf.hypergradient(problem, x, starts, estimator=estimator)
    assert relative(backend.to_numpy(found.gradient), expected.gradient) < 1e-12
    for mine, other in zip(found.lower, expected.lower, strict=True):
        assert relative(backend.to_numpy(mine.value), other.value) < 1e-12
    gradient = backend.to_numpy(nf.grad(problem.reduced(estimator=estimator))(x, starts))
    assert relative(problem.manifold.project(reference(make)[1], gradient), expected.covector) < 1e-12


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_compiled_once_for_all_starts(backend, like64):
    """Starts are arguments of the compiled program: other ones call no cost again, and the answer stays."""
    model, calls = quartic_trilevel(like=like64), []

    def lower(x, y, z):
        calls.append(1)
        return model.lower(x, y, z)

    space = nf.Euclidean(3)
    problem = nf.Nested(model.upper, space, nf.Argmin(model.middle, space), nf.Argmin(lower, space))
    x, starts = problem_start(quartic_trilevel, like64)
    first = nf.hypergradient(problem, x, starts)
    traced = len(calls)
    again = nf.hypergradient(problem, x, tuple(found.value for found in first.lower))
    assert len(calls) - traced <= 2  # looked at once, for arrays that it closes over
    expected = nf.hypergradient(*reference(quartic_trilevel)[:3]).gradient
    for found in (first, again):
        assert relative(backend.to_numpy(found.gradient), expected) < 1e-12
    assert int(again.lower[0].steps) < int(first.lower[0].steps)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"], indirect=True)
@make_problem
@both
def test_under_jit(backend, like64, make, estimator):
    """The gradient of the reduced cost, compiled whole."""
    import jax

    problem = make(like=like64).problem()
    x, starts = problem_start(make, like64)
    found = jax.jit(jax.grad(problem.reduced(estimator=estimator)))(x, starts)
    expected = nf.grad(reference(make)[0].reduced())(*reference(make)[1:3])
    assert relative(found, expected) < 1e-11
    whole = nf.hypergradient(problem, x, starts, estimator=estimator)
    assert relative(whole.gradient, nf.hypergradient(*reference(make)[:3]).gradient) < 1e-11


@numpy_only
def test_float32(backend, like32):
    problem = quartic_trilevel(like=like32).problem()
    x, starts = problem_start(quartic_trilevel, like32)
    expected = nf.hypergradient(*reference(quartic_trilevel)[:3]).gradient
    for estimator in (None, nf.Flattened()):
        found = nf.hypergradient(problem, x, starts, estimator=estimator).gradient
        assert found.dtype == like32.dtype
        assert relative(found, expected) < 1e-4


@make_problem
def test_path_sums_are_wrong(make):
    """The middle Hessian without the responses below it: percents off with three levels, exact with two."""
    problem, x, starts, along, slopes = reference(make)
    found = nf.hypergradient(problem, x, starts, estimator=nf.PathSum())
    assert relative([np.sum(found.covector * u) for u in along], slopes) > 0.01
    model = quartic_trilevel(like=ZERO)
    two = nf.Nested(lambda x, y: model.upper(x, y, y), nf.Euclidean(3), nf.Argmin(two_level_cost, nf.Euclidean(3)))
    x, starts = np.asarray([0.3, -0.2, 0.5]), (np.zeros(3),)
    exact = nf.hypergradient(two, x, starts).gradient
    assert relative(nf.hypergradient(two, x, starts, estimator=nf.PathSum(nf.Dense())).gradient, exact) < 1e-13


def two_level_cost(x, y):
    return nf.namespace(x, y).sum((y - x) ** 4 + (y - 2 * x[::-1]) ** 2)


@pytest.mark.parametrize("estimator", [None, nf.Flattened(), nf.Flattened(solver=nf.Newton())])
def test_two_levels_are_a_bilevel_problem(estimator):
    upper, space = (lambda x, y: np.sum(y**3) + np.sum(x * y)), nf.Euclidean(3)
    x, y = np.asarray([0.3, -0.2, 0.5]), np.zeros(3)
    expected = nf.hypergradient(nf.Bilevel(upper, space, nf.Argmin(two_level_cost, space)), x, y)
    problem = nf.Nested(upper, space, nf.Argmin(two_level_cost, space))
    found = nf.hypergradient(problem, x, (y,), estimator=estimator)
    assert relative(found.gradient, expected.gradient) < 1e-11
    assert relative(found.lower[0].value, expected.lower.value) < 1e-11
    if isinstance(estimator, nf.Flattened):  # it is an estimator of one level too
        single = nf.solve(nf.Argmin(two_level_cost, space), x, init=y, estimator=estimator)
        assert relative(single.value, expected.lower.value) < 1e-11
        bilevel = nf.Bilevel(upper, space, nf.Argmin(two_level_cost, space))
        assert relative(nf.hypergradient(bilevel, x, y, estimator=estimator).gradient, expected.gradient) < 1e-11


# -- higher derivatives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@make_problem
@both
def test_second_derivatives(backend, like64, make, estimator):
    """The Hessian of the reduced cost along two directions, against differences of first derivatives on NumPy."""
    problem = make(like=like64).problem()
    x, starts = problem_start(make, like64)
    value = problem.reduced(estimator=estimator)
    u, expected = second_reference(make)
    found = nf.hvp(lambda x: value(x, starts), (x,), (backend.asarray(u, like=x),))
    assert relative(backend.to_numpy(found), expected) < 1e-9


@lru_cache
def second_reference(make):
    """A direction, and how the first derivative changes along it."""
    problem, x, starts, (u, *_), _ = reference(make)
    slope = nf.grad(problem.reduced(estimator=NEWTON))
    return u, seventh_order(lambda t: slope(x + t * u, starts), 3e-3)


@both
def test_third_derivative(estimator):
    problem, x, starts, (u, v, w), _ = reference(quartic_trilevel)

    def second(x, estimator):
        value = problem.reduced(estimator=estimator)
        return nf.namespace(x).sum(nf.hvp(lambda x: value(x, starts), (x,), (u,)) * v)

    found = np.sum(nf.grad(lambda x: second(x, estimator))(x) * w)
    expected = seventh_order(lambda t: second(x + t * w, NEWTON), 3e-3)
    assert abs(found - expected) < 1e-8 * abs(expected)


@both
def test_captured_arrays(estimator):
    """An array that a lower cost closes over gets its gradient, at the innermost level and at the middle one."""
    space, model = nf.Euclidean(3), quartic_trilevel(like=ZERO)
    x, starts = problem_start(quartic_trilevel, ZERO)

    def value(theta, estimator=NEWTON):
        def middle(x, y, z):
            return model.middle(x, y, z) + nf.namespace(y).sum(theta[:3] * y)

        def lower(x, y, z):
            return model.lower(x, y, z) + nf.namespace(z).sum(theta[3:] * z * y)

        problem = nf.Nested(model.upper, space, nf.Argmin(middle, space), nf.Argmin(lower, space))
        return problem.reduced(estimator=estimator)(x, starts)

    theta = 0.3 * np.random.default_rng(3).standard_normal(6)
    u = np.asarray([0.1, -0.3, 0.5, 0.6, -0.2, 0.4])
    expected = seventh_order(lambda t: value(theta + t * u))
    found = nf.grad(lambda theta: value(theta, estimator))(theta)
    assert abs(found @ u - expected) < 1e-9 * abs(expected)


# -- the generalized Stackelberg model -----------------------------------------------------------------------


@pytest.mark.parametrize("firms", [2, 3, 4, 5, 6])
def test_stackelberg_flattened(firms):
    """Equal and different costs: answers, hypergradient, and none at the equilibrium, q_k = (a - c)/(b 2ᵏ)."""
    estimator = nf.Flattened(solver=nf.Newton())
    rng = np.random.default_rng(firms)
    costs, slopes = tuple(rng.uniform(0.5, 2, firms)), tuple(rng.uniform(0, 1, firms))
    for model in (stackelberg(firms, like=ZERO), stackelberg(firms, like=ZERO, costs=costs, slopes=slopes, b=0.7)):
        problem, (_, starts) = model.problem(), model.start()
        found = nf.hypergradient(problem, np.asarray(1.0), starts, estimator=estimator)
        assert abs(found.gradient - model.derivative(np.asarray(1.0))) < 1e-11
        expected = model.responses(np.asarray(1.0))
        assert max(abs(s.value - q) for s, q in zip(found.lower, expected, strict=True)) < 1e-11
        first, *others = model.solution()
        found = nf.hypergradient(problem, first, starts, estimator=estimator)
        assert abs(found.gradient) < 1e-11
        assert max(abs(s.value - q) for s, q in zip(found.lower, others, strict=True)) < 1e-11
    model = stackelberg(firms, like=ZERO)
    assert np.allclose(model.solution(), [8 / 2**k for k in range(1, firms + 1)], rtol=1e-14)


@pytest.mark.parametrize("firms", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_stackelberg_level_by_level(firms):
    costs, slopes = tuple(np.linspace(1, 2, firms)), tuple(np.linspace(0.9, 0.1, firms))
    model = stackelberg(firms, like=ZERO, costs=costs, slopes=slopes)
    found = nf.hypergradient(model.problem(), np.asarray(1.0), model.start()[1])
    assert abs(found.gradient - model.derivative(np.asarray(1.0))) < 1e-11
    assert [int(adjoint.steps) for adjoint in found.adjoint if adjoint is not None] == [1] * (firms - 1)


def test_the_closed_form_is_an_equilibrium():
    """Of two firms by hand: q₂ = (a - b q₁ - c₂) / (2b + d₂), q₁ where the derivative of f₁(q₁, q₂(q₁)) vanishes."""
    model = stackelberg(2, like=ZERO, a=7.0, b=0.5, costs=(1.0, 2.0), slopes=(0.3, 0.4))
    a, b, (c1, c2), (d1, d2) = 7.0, 0.5, (1.0, 2.0), (0.3, 0.4)

    def q2(q1):
        return (a - b * q1 - c2) / (2 * b + d2)

    def profit(q1):
        return -q1 * (a - b * (q1 + q2(q1))) + c1 * q1 + d1 * q1**2 / 2

    first, second = model.solution()
    assert abs(seventh_order(lambda t: profit(first + t))) < 1e-12
    assert abs(second - q2(first)) < 1e-14


@pytest.mark.parametrize(
    "settings",
    [
        {"firms": 1},
        {"firms": 3, "b": 0.0},
        {"firms": 3, "costs": (1.0, 2.0)},
        {"firms": 3, "slopes": -1.0},
    ],
)
def test_models_that_make_no_sense(settings):
    with pytest.raises(ValueError, match=r"firms|more than 0|one number or 3|negative"):
        stackelberg(like=ZERO, **settings)


# -- other levels, other spaces ------------------------------------------------------------------------------


def mixed_problem(kind):
    """A `FixedPoint` with W ≠ Wᵀ in a `Root` whose field is no gradient, the other way round, or in an `Argmin`."""
    rng = np.random.default_rng(0)
    w, a, b, c = (0.3 * rng.standard_normal((3, 3)) for _ in range(4))

    def contraction(x, y, z):
        return nf.namespace(x, y, z).tanh(w @ z + a @ y + x)

    def field(x, y, z):
        return y + y**3 + b @ y + c @ z - x

    def swapped_field(x, y, z):
        return z + z**3 + b @ z + c @ y - x

    def swapped_contraction(x, y, z):
        return nf.namespace(x, y, z).tanh(w @ y + a @ z + x)

    def cost(x, y, z):
        return nf.namespace(x, y, z).sum((y - c @ z) ** 2 + (y - x) ** 4 / 4)

    space = nf.Euclidean(3)
    levels = {
        "root, fixed point": (nf.Root(field, space), nf.FixedPoint(contraction, space)),
        "fixed point, root": (nf.FixedPoint(swapped_contraction, space), nf.Root(swapped_field, space)),
        "argmin, fixed point": (nf.Argmin(cost, space), nf.FixedPoint(contraction, space)),
    }[kind]

    def upper(x, y, z):
        return nf.namespace(x, y, z).sum(x * y * z + z**2 + (y - 1) ** 2)

    return nf.Nested(upper, space, *levels)


@pytest.mark.parametrize("kind", ["root, fixed point", "fixed point, root", "argmin, fixed point"])
@both
def test_roots_and_fixed_points(kind, estimator):
    problem = mixed_problem(kind)
    x, starts = np.asarray([0.3, -0.2, 0.5]), (np.zeros(3), np.zeros(3))
    value, u = problem.reduced(estimator=NEWTON), np.asarray([0.6, -0.5, 0.4])
    expected = seventh_order(lambda t: value(x + t * u, starts))
    found = nf.hypergradient(problem, x, starts, estimator=estimator)
    assert abs(found.gradient @ u - expected) < 1e-9 * abs(expected)


@both
def test_trees_at_every_level(estimator):
    """The middle variable is a dict on SPD x R², the innermost one a pair on the sphere x R²; x is a dict too."""
    rng = np.random.default_rng(4)
    g, h = rng.standard_normal(3), rng.standard_normal((3, 2))

    def lower(x, y, z):
        s, t = z
        xp = nf.namespace(s, t)
        pull = xp.sum((3 * g + h @ (y["s"] @ x["v"])) * s)
        return xp.sum((t - y["t"] * x["v"]) ** 2) - pull + xp.sum((s @ h) * t)

    def middle(x, y, z):
        s, t = z
        xp, inverse = nf.namespace(s, t), nf.namespace(y["s"]).linalg.inv(y["s"])
        return xp.sum(y["s"] * y["s"]) + xp.sum(inverse) + xp.sum((y["t"] - s @ h) ** 2) + xp.sum((y["s"] @ t) * x["v"])

    def upper(x, y, z):
        s, t = z
        return nf.namespace(s, t).sum(t * x["v"]) + y["s"][0, 1] * y["t"][0] + s[0]

    spaces = (
        nf.Product({"v": nf.Euclidean(2)}),
        nf.Product({"s": nf.SPD(2), "t": nf.Euclidean(2)}),
        nf.Product((nf.Sphere(3), nf.Euclidean(2))),
    )
    problem = nf.Nested(upper, spaces[0], nf.Argmin(middle, spaces[1]), nf.Argmin(lower, spaces[2]))
    starts = ({"s": np.eye(2), "t": np.zeros(2)}, (g / np.linalg.norm(g), np.zeros(2)))
    x, u, value = np.asarray([0.3, -0.2]), np.asarray([0.6, 0.8]), problem.reduced(estimator=NEWTON)
    near = tuple(found.value for found in problem.solve({"v": x}, starts))
    expected = seventh_order(lambda t: value({"v": x + t * u}, near), 1e-2)
    found = nf.hypergradient(problem, {"v": x}, starts, estimator=estimator)
    assert abs(np.sum(found.gradient["v"] * u) - expected) < 1e-9 * abs(expected)
    assert set(found.lower[0].value) == {"s", "t"}


@pytest.mark.slow
@both
def test_quotients(estimator):
    """The innermost variable is a subspace, then a matrix of fixed rank: points that stand for classes."""
    rng = np.random.default_rng(0)
    a = np.diag([1.0, 2.0, 4.0, 5.0]) + 0.1
    b, m = rng.standard_normal((4, 4)), rng.standard_normal((4, 3))
    u, values, vt = np.linalg.svd(m)

    def subspace(x, y, z):
        return nf.namespace(z).sum(((a + 0.2 * (x[:, None] * y + y[:, None] * x)) @ z) * z)

    def matrix(x, y, z):
        return nf.namespace(y).sum((z["u"] @ z["s"] @ z["v"].mT - m - x[:, None] * y[:3]) ** 2)

    def square(z):
        whole = z["u"] @ z["s"] @ z["v"].mT if isinstance(z, dict) else z
        return whole @ whole.mT

    def middle(x, y, z):
        p = square(z)
        return nf.namespace(y).sum((y - 0.1 * p @ x) ** 2 + y**4 / 4) + 0.3 * (y @ (p @ b) @ x)

    def upper(x, y, z):
        return nf.namespace(x).sum(square(z) * b) + y @ x

    space = nf.Euclidean(4)
    first = {"u": u[:, :2], "s": np.diag(values[:2]), "v": vt[:2].T}
    for innermost, start in (
        (nf.Argmin(subspace, nf.Grassmann(4, 2)), np.eye(4)[:, :2]),
        (nf.Argmin(matrix, nf.FixedRank(4, 3, 2)), first),
    ):
        problem = nf.Nested(upper, space, nf.Argmin(middle, space), innermost)
        x, along = 0.2 * rng.standard_normal(4), np.asarray([0.1, 0.7, -0.5, 0.5])
        near = tuple(found.value for found in problem.solve(x, (np.zeros(4), start)))
        value = problem.reduced(estimator=estimator)
        expected = seventh_order(lambda t, v=value, x=x, u=along, near=near: v(x + t * u, near))
        found = nf.hypergradient(problem, x, near, estimator=estimator)
        assert abs(found.gradient @ along - expected) < 1e-9 * abs(expected)
        assert all(adjoint is not None and bool(adjoint.converged) for adjoint in found.adjoint)


@both
def test_a_batch_of_problems(estimator):
    """Costs of batch shape: independent problems, each as if it were alone."""
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 2)), rng.standard_normal((2, 2))

    def lower(x, y, z):
        return nf.namespace(z).sum((z - y @ a) ** 4 / 4 + (z - x) ** 2, axis=-1)

    def middle(x, y, z):
        return nf.namespace(y).sum((y - z @ b) ** 2 + y**4 + x * y, axis=-1)

    def upper(x, y, z):
        return nf.namespace(x).sum(x * y * z + z * z, axis=-1)

    space = nf.Euclidean(2)
    problem = nf.Nested(upper, space, nf.Argmin(middle, space), nf.Argmin(lower, space))
    x, starts = rng.standard_normal((3, 2)), (np.zeros((3, 2)), np.zeros((3, 2)))
    found = nf.hypergradient(problem, x, starts, estimator=estimator)
    alone = [nf.hypergradient(problem, x[i], (np.zeros(2), np.zeros(2)), estimator=estimator) for i in range(3)]
    assert relative(found.gradient, [one.gradient for one in alone]) < 1e-11
    assert found.value.shape == found.lower[0].steps.shape == (3,)
    assert found.adjoint[0] is not None
    assert found.adjoint[0].residual.shape == (3,)


def test_one_estimator_for_each_level():
    """The innermost level unrolled, the middle one by the implicit function theorem: the limit is the same."""
    problem, x, starts, along, slopes = reference(quartic_trilevel)
    found = nf.hypergradient(
        problem,
        x,
        starts,
        solver=(nf.TrustRegion(), nf.GradientDescent(0.1)),
        estimator=(nf.Implicit(nf.Dense()), nf.Unrolled(80)),
    )
    assert relative([np.sum(found.covector * u) for u in along], slopes) < 1e-6
    assert found.adjoint[0] is not None
    assert found.adjoint[1] is None


def test_the_first_guess_of_the_adjoints_is_used():
    for estimator in (None, nf.Flattened()):
        problem, x, starts, _, _ = reference(quartic_trilevel)
        found = nf.hypergradient(problem, x, starts, estimator=estimator)
        guess = tuple(adjoint.value for adjoint in found.adjoint)
        again = nf.hypergradient(problem, x, starts, estimator=estimator, adjoint=guess)
        assert max(int(a.steps) for a in again.adjoint) < min(int(a.steps) for a in found.adjoint)
        assert relative(again.gradient, found.gradient) < 1e-12


# -- what it costs -------------------------------------------------------------------------------------------


def test_flattened_takes_fewer_products():
    """Krylov counts of 6 and more at each level multiply level by level; those of all levels together do not."""
    for d, factor in ((6, 1.3), (12, 2.5)):
        model = quartic_trilevel(like=ZERO, d=d, seed=1)
        x, starts = model.start(np.random.default_rng(0))
        best, other = nf.count_products(model.problem(), x, starts)
        assert isinstance(best.estimator, nf.Flattened)
        middle, innermost = other.products
        assert middle >= 6
        assert innermost >= 10 * middle
        assert best.products[0] <= 3 * d + 2  # one product for each unknown, and the residual
        assert other.sweeps > factor * best.sweeps
        assert relative(best.gradient, other.gradient) < 1e-10


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_products_are_not_counted_in_compiled_loops(backend, like64):
    with pytest.raises(TypeError, match="count on NumPy"):
        nf.count_products(quartic_trilevel(like=like64).problem(), *problem_start(quartic_trilevel, like64))


# -- how good it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [(1, 1), (1, 0), (0, 1)], ids=["all", "middle", "innermost"])
@pytest.mark.parametrize("estimator", [None, nf.Flattened(), nf.PathSum()], ids=["nested", "flattened", "path_sum"])
@make_problem
def test_the_error_is_estimated(make, estimator, off):
    """Lower answers that are wrong at some levels; and a formula that is wrong for three levels."""
    problem, x, starts, _, _ = reference(make)
    right = nf.hypergradient(problem, x, starts, estimator=NEWTON)
    rng, ratios = np.random.default_rng(2), []
    for distance in (1e-2, 1e-5):
        wrong = tuple(
            level.manifold.retract(found.value, k * distance * level.manifold.random_tangent(rng, found.value))
            for level, found, k in zip(problem.levels, right.lower, off, strict=True)
        )
        solver = tuple(nf.External(lambda *_, y=y: y, tol=np.inf) for y in wrong)
        found = nf.hypergradient(problem, x, wrong, solver=solver, estimator=estimator, certify=True)
        c = found.certificate
        assert c is not None and len(c.point) == 2
        error = problem.manifold.norm(x, found.gradient - right.gradient)
        ratios.append(c.error / error)
        assert problem.manifold.norm(x, c.gradient - right.gradient) < 0.2 * error
    assert 1 < min(ratios) <= max(ratios) < 10


@numpy_only
def test_a_batch_is_certified_problem_by_problem(backend, like64):
    space = nf.Euclidean(3)
    problem = nf.Nested(
        lambda x, y, z: np.sum(np.sin(z) * y + x**2, axis=-1),
        space,
        nf.Argmin(lambda x, y, z: np.sum((y - x) ** 2 + y**4 + z * y, axis=-1), space),
        nf.Argmin(lambda x, y, z: np.sum((z - np.sin(y)) ** 2 + z * x, axis=-1), space),
    )
    x = np.random.default_rng(0).standard_normal((4, 3))
    solver = nf.TrustRegion(tol=1e-3)
    found = nf.hypergradient(problem, x, (x, x), solver=solver, certify=True).certificate
    assert found is not None and found.error.shape == found.size.shape == (4,)
    for i in range(4):
        alone = nf.hypergradient(problem, x[i], (x[i], x[i]), solver=solver, certify=True).certificate
        assert alone is not None and alone.error == pytest.approx(found.error[i], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_a_certificate_survives_compilation(backend, like64):
    problem = quartic_trilevel(like=like64).problem()
    x, starts = problem_start(quartic_trilevel, like64)
    c = nf.hypergradient(problem, x, starts, certify=True).certificate
    assert c is not None and 0 < float(c.error) < 1e-11 * float(c.size)


# -- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [nf.Implicit(), nf.Flattened(), nf.Flattened(solver=nf.Newton())])
def test_run(estimator):
    model = stackelberg(3, like=ZERO, costs=(1.0, 1.5, 2.0), slopes=(0.1, 0.5, 0.9))
    result = nf.run(model.problem(), *model.start(), method=nf.RHGD(estimator=estimator, tol=1e-11))
    assert result.converged
    first, *others = model.solution()
    assert abs(result.x - first) < 1e-8
    assert max(abs(a - b) for a, b in zip(result.y, others, strict=True)) < 1e-8


@pytest.mark.slow
def test_run_on_curved_spaces():
    problem, x, starts, _, _ = reference(manifold_trilevel)
    estimator = nf.Flattened(solver=nf.Newton())
    first = nf.hypergradient(problem, x, starts, estimator=estimator)
    result = nf.run(problem, x, starts, method=nf.RHGD(estimator=estimator), steps=12)
    last = nf.hypergradient(problem, result.x, result.y)
    assert abs(last.value - result.value) < 1e-11 * abs(result.value)
    assert last.value < first.value
    assert np.linalg.norm(last.gradient) < 0.05 * np.linalg.norm(first.gradient)


# -- bad input -----------------------------------------------------------------------------------------------


def test_bad_input():
    problem, x, starts, _, _ = reference(quartic_trilevel)
    space, level = nf.Euclidean(3), nf.Argmin(two_level_cost, nf.Euclidean(3))
    wrong: Any = nf.CG()
    with pytest.raises(nf.ShapeError, match="tuple with one point for each of its 2 lower levels"):
        nf.hypergradient(problem, x, starts[0])
    with pytest.raises(nf.ShapeError, match="found 1 of them"):
        problem.solve(x, starts[:1])
    with pytest.raises(nf.ShapeError, match="the start of level 3"):
        nf.hypergradient(problem, x, (starts[0], np.zeros(4)))
    with pytest.raises(nf.ShapeError, match="tuple"):
        nf.run(problem, x, starts[0])
    with pytest.raises(nf.BackendMismatchError):
        nf.hypergradient(problem, x, (starts[0], nf.get_backend("array_api_strict").asarray(np.zeros(3))))
    with pytest.raises(TypeError, match="solver must be a Solver"):
        nf.hypergradient(problem, x, starts, solver=wrong)
    with pytest.raises(ValueError, match="3 values of estimator for 2 lower levels"):
        nf.hypergradient(problem, x, starts, estimator=(None, None, None))
    with pytest.raises(TypeError, match="PathSum is a formula"):
        problem.reduced(estimator=nf.PathSum())(x, starts)
    wrong = nf.Newton()
    with pytest.raises(TypeError, match="linear must be a LinearSolver"):
        nf.Flattened(linear=wrong)
    with pytest.raises(ValueError, match="at least one lower level"):
        nf.Nested(two_level_cost, space)
    with pytest.raises(TypeError, match="a lower level is an Argmin"):
        nf.Nested(two_level_cost, space, wrong)
    with pytest.raises(TypeError, match="upper manifold"):
        nf.Nested(two_level_cost, wrong, level)
    with pytest.raises(TypeError, match="must be callable"):
        nf.Nested(wrong, space, level)


def test_unsolved_levels_are_flagged():
    """A level that stopped short is told by its number, and in its `Solution`."""
    problem, x, starts, _, _ = reference(quartic_trilevel)
    with pytest.warns(nf.ConvergenceWarning, match="TrustRegion on level 2"):
        found = nf.hypergradient(problem, x, starts, solver=(nf.TrustRegion(max_steps=1), None))
    assert not bool(found.lower[0].converged)
    assert bool(found.lower[1].converged)


def test_hypergradients_are_not_differentiable():
    problem, x, starts, _, _ = reference(quartic_trilevel)
    with pytest.raises(nf.NoDerivativeError, match="not differentiable"):
        nf.grad(lambda x: nf.namespace(x).sum(nf.hypergradient(problem, x, starts).value))(x)


def test_problems_are_keys():
    """Equal settings give the same compiled program: chains are values."""
    problem = quartic_trilevel(like=ZERO).problem()
    assert hash(problem.chain()) == hash(problem.chain(None, nf.Implicit()))
    assert problem.chain(nf.TrustRegion()) == problem.chain()
    assert problem.chain(estimator=nf.Flattened()) != problem.chain()
    assert dataclasses.replace(nf.Flattened(), linear=nf.Dense()) != nf.Flattened()


def test_sato_and_others_artificial_problem():
    """min ‖z - x‖² + ‖x‖², y* = argmin ‖y - x‖², z* = argmin ‖z - y‖²: all answers are x, F = ‖x‖²."""

    def square(a, b):
        return nf.namespace(a, b).sum((a - b) ** 2)

    space = nf.Euclidean(2)
    problem = nf.Nested(
        lambda x, y, z: square(z, x) + square(x, 0 * x),
        space,
        nf.Argmin(lambda x, y, z: square(y, x), space),
        nf.Argmin(lambda x, y, z: square(z, y), space),
    )
    x, starts = np.asarray([1.0, -2.0]), (np.zeros(2), np.zeros(2))
    for estimator in (None, nf.Flattened()):
        found = nf.hypergradient(problem, x, starts, estimator=estimator)
        assert np.abs(found.gradient - 2 * x).max() < 1e-13
        assert np.abs(found.lower[1].value - x).max() < 1e-13


def test_problems_made_of_the_wrong_parts():
    space, cost = nf.Euclidean(2), lambda x, y: np.sum(y)
    level = nf.Argmin(lambda x, y: np.sum((y - x) ** 2), space)
    for make in (nf.Bilevel, nf.Nested):
        with pytest.raises(TypeError, match=f"{make.__name__}: the upper cost must be callable"):
            make(level, space, level)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match=f"{make.__name__}: the second argument is the upper manifold"):
            make(cost, nf.Euclidean, level)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match=f"{make.__name__}: a lower level is an Argmin, Root or FixedPoint"):
            make(cost, space, cost)  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="give all levels to Nested"):
            make(cost, space, nf.Bilevel(cost, space, level))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("estimator", [nf.Implicit(), nf.OneStep()], ids=["implicit", "one_step"])
def test_a_level_that_was_stopped_early_is_told(estimator):
    space = nf.Euclidean(2)
    problem = nf.Nested(
        lambda x, y, z: np.sum(z * y),
        space,
        nf.Argmin(lambda x, y, z: np.sum((y - x) ** 2 + y**4 + 0.1 * z * y), space),
        nf.Argmin(lambda x, y, z: np.sum((z - y) ** 2), space),
    )
    x, solver = np.ones(2), (nf.GradientDescent(max_steps=1), None)
    with pytest.warns(nf.ConvergenceWarning, match="GradientDescent on level 2"):
        nf.hypergradient(problem, x, (x, x), solver=solver, estimator=estimator)
