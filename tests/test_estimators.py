"""Estimators other than `Implicit`: unrolled steps, one step, the value function; rates, memory, what they refuse."""

import gc
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, namespace
from nestfold.hypergrad.problems import synthetic, tanh_fixed_point

eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
numpy_only = pytest.mark.parametrize("backend", ["numpy"], indirect=True)
numpy_and_torch = pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)


def with_jax(*jax_cases, cases):
    """All cases on NumPy and PyTorch; on JAX, which compiles for seconds, those named, and the others among the slow; a
    few on array_api_strict, whose tape is NumPy's.
    """
    quick = [pytest.param(b, c, id=f"{b}-{c}") for b in ("numpy", "torch") for c in cases]
    strict = [c for c in ("checkpointed", "forward", "first", "newton, dense") if c in cases]
    return [
        *quick,
        *(pytest.param("array_api_strict", c, id=f"array_api_strict-{c}") for c in strict),
        *(pytest.param("jax", c, id=f"jax-{c}", marks=[] if c in jax_cases else [pytest.mark.slow]) for c in cases),
    ]


def gap(backend, found, expected):
    """|found - expected| / |expected|."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def slope(x, y):
    """The slope of the line through log y against x."""
    return np.polyfit(x, np.log(y), 1)[0]


def quadratic(like):
    """g(x, y) = ½ Σ hᵢ (1 + x²) yᵢ² - Σ bᵢ yᵢ, f = c·y: a closed form, and GradientDescent contracts by a known q."""
    h, b, c = (np.asarray(a) for a in ([1.0, 3.0, 4.0], [1.0, -2.0, 0.5], [0.7, 0.2, -1.0]))
    asarray = nf.backend_of(like).asarray
    h_, b_, c_ = (asarray(a, like=like) for a in (h, b, c))

    def lower(x, y):
        return namespace(x, y).sum(0.5 * h_ * (1 + x * x) * y * y - b_ * y)

    def upper(x, y):
        return namespace(x, y).sum(c_ * y) + 0 * x

    def exact(x):
        return -np.sum(2 * x * c * b / (h * (1 + x * x) ** 2))

    problem = nf.Bilevel(upper, nf.Euclidean(), nf.Argmin(lower, nf.Euclidean(3)))
    return problem, exact, h, b / h


# -- exactness --------------------------------------------------------------------------------------------------

UNROLLED = {
    "plain": nf.Unrolled(110),
    "truncated": nf.Unrolled(130, truncate=110),
    "checkpointed": nf.Unrolled(110, checkpoint=True),
    "segments": nf.Unrolled(110, checkpoint=25),
    "forward": nf.Unrolled(110, forward=True),
    "forward, truncated": nf.Unrolled(130, truncate=110, forward=True),
}
NEWTON = {"newton": nf.OneStep(linear=nf.CG()), "newton, dense": nf.OneStep(linear=nf.Dense())}
FIRST = {"first": nf.FirstOrder(), "first, trust region": nf.FirstOrder()}
ALL = UNROLLED | NEWTON | FIRST


@pytest.mark.parametrize("backend, name", with_jax("first", cases=ALL), indirect=["backend"])
def test_on_the_synthetic_problem(backend, like64, name):
    """On SPD, exact to 1e-10, or 1e-7 without second derivatives; `solve` differentiated natively gives the same."""
    problem = synthetic(like=like64, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    exact = backend.to_numpy(problem.euclidean_gradient(w))
    solver = nf.TrustRegion() if name == "first, trust region" else None
    bound = 1e-7 if name in FIRST else 1e-10
    found = nf.hypergradient(problem.problem(), w, m, estimator=ALL[name], solver=solver, certify=False)
    manifold = problem.problem().manifold
    assert gap(backend, found.gradient, backend.to_numpy(manifold.sharp(w, problem.euclidean_gradient(w)))) < bound
    if backend.name == "jax":
        return

    def objective(w):
        level = problem.problem().lower
        return problem.upper(w, nf.solve(level, w, init=m, estimator=ALL[name], solver=solver).value)

    assert gap(backend, nf.grad(objective)(w), exact) < bound


@pytest.mark.parametrize("backend, name", with_jax("forward", cases=[*UNROLLED, "newton, dense"]), indirect=["backend"])
def test_second_derivatives_on_a_map(backend, like64, name):
    """W ≠ Wᵀ; the derivative of the derivative is that of the exact solution."""
    problem = tanh_fixed_point(like=like64, n=4, p=2, contraction=0.5)
    x, y = problem.start(np.random.default_rng(1))
    u = backend.asarray([0.3, -1.2], like=like64)

    def objective(x):
        return problem.upper(x, nf.solve(problem.problem().lower, x, init=y, estimator=ALL[name]).value)

    def both(x):
        return nf.jvp(nf.grad(objective), (x,), (u,))

    first, second = backend.jit(both)(x)
    assert gap(backend, first, backend.to_numpy(problem.euclidean_gradient(x))) < 1e-10
    assert gap(backend, second, backend.to_numpy(problem.hessian_product(x, u))) < 1e-10


@eager
@pytest.mark.parametrize("name", ["plain", "checkpointed", "forward", "newton", "first"])
def test_on_the_sphere(backend, like64, name):
    """y* = normalize(A x) minimizes -y·A x: the derivative is P A x̂ /|A x|, exact."""
    rng = np.random.default_rng(2)
    a, x, y, c = rng.standard_normal((4, 2)), rng.standard_normal(2), rng.standard_normal(4), rng.standard_normal(4)
    z = a @ x
    unit = z / np.linalg.norm(z)
    exact = a.T @ ((c - unit * (unit @ c)) / np.linalg.norm(z))
    a, x, y, c = (backend.asarray(v, like=like64) for v in (a, x, y / np.linalg.norm(y), c))
    level = nf.Argmin(lambda x, y: -namespace(x, y).sum(y * (a @ x)), nf.Sphere(4))

    def objective(x):
        found = nf.solve(level, x, init=y, estimator=ALL[name]).value
        return namespace(found).sum(c * found)

    assert gap(backend, nf.grad(objective)(x), exact) < (1e-7 if name in FIRST else 1e-10)


@numpy_only
def test_steps_after_the_answer_do_no_harm(backend, like64):
    """Default settings, from many starts: Barzilai and Borwein's lengths were off by up to 500 % there."""
    problem = synthetic(like=like64, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    manifold = problem.problem().manifold
    for seed in range(6):
        w = manifold.retract(w, 1e-9 * manifold.random_tangent(np.random.default_rng(seed), w))
        exact = manifold.sharp(w, problem.euclidean_gradient(w))
        for estimator in (nf.Unrolled(150), nf.Unrolled(150, truncate=110)):
            found = nf.hypergradient(problem.problem(), w, m, estimator=estimator, certify=False).gradient
            assert gap(backend, found, exact) < 1e-9


@numpy_only
def test_newton_step_by_hand(backend, like64):
    """The derivative of R_y(-H⁻¹ grad) with H frozen, written out, is that of OneStep(linear=...); for a field too."""
    problem = tanh_fixed_point(like=like64, n=4, p=2, contraction=0.5)
    x, _ = problem.start(np.random.default_rng(1))
    y = problem.solution(x)
    inverse = np.linalg.inv(np.eye(4) - nf.jacobian(problem.map, 1)(x, y))
    by_hand = nf.jacobian(lambda x: y - inverse @ (y - problem.map(x, y)))(x)
    for level in (problem.problem().lower, nf.Root(lambda x, y: y - problem.map(x, y), nf.Euclidean(4))):
        found = nf.jacobian(lambda x, at=level: nf.solve(at, x, init=y, estimator=nf.OneStep(linear=nf.Dense())).value)
        np.testing.assert_allclose(found(x), by_hand, rtol=1e-12, atol=1e-14)


# -- rates ------------------------------------------------------------------------------------------------------


@numpy_only
def test_unrolled_error_falls_like_t_times_q_to_the_t(backend, like64):
    """Grazzi et al. 2020, theorem 2.1, attained: the Jacobian of the step depends on x."""
    problem, exact, h, _ = quadratic(like64)
    x, step = np.asarray(0.5), 0.2
    q = max(abs(1 - step * h * 1.25))
    steps = np.arange(30, 100, 10)
    solver, start = nf.GradientDescent(step=step), np.ones(3)
    errors = [
        abs(nf.hypergradient(problem, x, start, solver=solver, estimator=nf.Unrolled(int(t))).gradient - exact(0.5))
        for t in steps
    ]
    assert abs(slope(steps, np.asarray(errors) / steps) / np.log(q) - 1) < 0.02
    assert slope(steps, errors) / np.log(q) < 0.95  # without the factor t it does not fit


@numpy_only
@pytest.mark.parametrize("forward", [False, True])
def test_truncated_error_falls_like_q_to_the_length(backend, like64, forward):
    """From the answer on, K differentiated steps leave exactly (I - tH)^K of the derivative out."""
    problem, exact, h, y = quadratic(like64)
    x, step = np.asarray(0.5), 0.2
    y, lengths = y / 1.25, np.arange(4, 30, 4)
    q, solver = 1 - step * h * 1.25, nf.GradientDescent(step=step)
    total = exact(0.5)
    parts = -2 * 0.5 * np.asarray([0.7, 0.2, -1.0]) * y / 1.25
    for k in lengths:
        estimator = nf.Unrolled(40, truncate=int(k), forward=forward)
        found = nf.hypergradient(problem, x, y, solver=solver, estimator=estimator).gradient
        np.testing.assert_allclose(found - total, -np.sum(parts * q**k), rtol=1e-9, atol=1e-14)


@numpy_only
def test_one_step_error_is_within_its_bound(backend, like64):
    """‖∂y - ∂₂Φ‖ ≤ ρ/(1 - ρ) ‖∂₂Φ‖ (Bolte et al. 2023), and it is of order ρ: slope one."""
    rates = np.asarray([0.02, 0.04, 0.08, 0.16])
    errors = []
    for rate in rates:
        problem = tanh_fixed_point(like=like64, n=4, p=2, contraction=float(rate))
        x, y = problem.start(np.random.default_rng(1))
        level = problem.problem().lower
        one, exact = (
            nf.jacobian(lambda x, e=e, lv=level, y=y: nf.solve(lv, x, init=y, estimator=e).value)(x)
            for e in (nf.OneStep(), nf.Implicit(nf.Dense()))
        )
        answer = problem.solution(x)
        rho = np.linalg.norm(nf.jacobian(problem.map, 1)(x, answer), 2)
        np.testing.assert_allclose(one, nf.jacobian(problem.map, 0)(x, answer), atol=1e-10)
        errors.append(np.linalg.norm(one - exact, 2))
        assert errors[-1] <= rho / (1 - rho) * np.linalg.norm(one, 2)
    assert abs(slope(np.log(rates), errors) - 1) < 0.1


@eager
def test_one_step_of_gradient_descent(backend, like64):
    """Exact where the Hessian is a multiple of the identity; there Lanczos finds the length 2/(low + high) = 1/h."""
    a = backend.asarray(np.random.default_rng(0).standard_normal((3, 2)), like=like64)
    x, c = backend.asarray([0.5, -1.0], like=like64), backend.asarray([1.0, 2.0, 3.0], like=like64)
    level = nf.Argmin(lambda x, y: 3.5 * namespace(x, y).sum((y - a @ x) ** 2), nf.Euclidean(3))

    def objective(x, estimator):
        return c @ nf.solve(level, x, init=0 * c, estimator=estimator).value

    exact = backend.to_numpy(a.T @ c)
    for estimator in (nf.OneStep(), nf.OneStep(step=1 / 7)):
        assert gap(backend, nf.grad(objective)(x, estimator), exact) < 1e-10
    assert abs(gap(backend, nf.grad(objective)(x, nf.OneStep(step=1 / 14)), exact) - 0.5) < 1e-10


@numpy_only
@pytest.mark.parametrize("central, order", [(True, 2), (False, 1)])
def test_first_order_error_falls_with_the_penalty(backend, like64, central, order):
    problem = synthetic(like=like64, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    exact = problem.problem().manifold.sharp(w, problem.euclidean_gradient(w))
    penalties = np.asarray([10.0, 30.0, 100.0, 300.0])
    errors = [
        gap(
            backend,
            nf.hypergradient(problem.problem(), w, m, estimator=nf.FirstOrder(float(p), central)).gradient,
            exact,
        )
        for p in penalties
    ]
    assert abs(slope(np.log(penalties), errors) + order) < 0.1


@numpy_only
@pytest.mark.parametrize(
    "cost, length, offset, bound",
    [(1e8, 1.0, 0.0, 3e-7), (1e-8, 1e-4, 0.0, 3e-7), (1.0, 1.0, 10.0, 3e-7), (1.0, 1e5, 0.0, 1e-4)],
)
def test_default_penalty_knows_no_units(backend, like64, cost, length, offset, bound):
    """g in other units, y in other units, g with an offset: the same accuracy, also for an ill-conditioned g; but the
    solvers compare a gradient with a cost, and stop early where y is large.
    """
    scales = np.asarray([1.0, 30.0, 1000.0])

    def lower(x, y):
        z = y / length
        return cost * (np.sum(scales * (0.5 * z * z + 0.1 * (z - 1) ** 4 - x * z)) + offset)

    def objective(x, estimator, solver):
        y = nf.solve(
            nf.Argmin(lower, nf.Euclidean(3)), x, init=np.full(3, 2 * length), estimator=estimator, solver=solver
        )
        return np.sum(np.asarray([1.0, -2.0, 3.0]) * y.value / length)

    x = np.asarray([0.4, 1.5, -0.7])
    exact = nf.grad(objective)(x, nf.Implicit(nf.Dense()), nf.TrustRegion())
    assert gap(backend, nf.grad(objective)(x, nf.FirstOrder(), nf.TrustRegion()), exact) < bound


@eager
def test_first_order_in_float32(backend, like32):
    problem = synthetic(like=like32, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    found = nf.hypergradient(problem.problem(), w, m, estimator=nf.FirstOrder())
    exact = problem.problem().manifold.sharp(w, problem.euclidean_gradient(w))
    assert found.gradient.dtype == w.dtype
    assert gap(backend, found.gradient, backend.to_numpy(exact)) < 1e-2


@numpy_and_torch
def test_first_order_takes_no_second_derivatives(backend, like64):
    """A cost whose gradient refuses to be differentiated: Implicit cannot, FirstOrder can, in `solve` as well."""

    def refuse(*_):
        raise NoDerivativeError("a second derivative was asked for")

    gradient = backend.custom_derivative(lambda x, y: (3 * (x - y), 4 * y**3 + 3 * (y - x)), refuse, refuse)
    lower = backend.custom_derivative(
        lambda x, y: backend.xp.sum(y**4 + 1.5 * (y - x) ** 2),
        refuse,
        lambda primals, out, c, needs: tuple(c * g for g in gradient(*primals)),
    )
    level = nf.Argmin(lower, nf.Euclidean(2))
    x, y = (backend.asarray(v, like=like64) for v in ([1.0, -0.5], [0.3, 0.2]))
    problem = nf.Bilevel(lambda x, y: backend.xp.sum(y) + 0 * backend.xp.sum(x), nf.Euclidean(2), level)
    found = nf.hypergradient(problem, x, y, estimator=nf.FirstOrder(), certify=False)
    exact = 3 / (12 * backend.to_numpy(found.lower.value) ** 2 + 3)
    assert gap(backend, found.gradient, exact) < 1e-7
    native = nf.grad(lambda x: backend.xp.sum(nf.solve(level, x, init=y, estimator=nf.FirstOrder()).value))(x)
    assert gap(backend, native, exact) < 1e-7
    with pytest.raises(NoDerivativeError, match="second derivative"):
        nf.hypergradient(problem, x, y, solver=nf.GradientDescent(), certify=False)


@numpy_and_torch
def test_first_order_refuses_derivatives_of_derivatives(backend, like64):
    """Never a silent zero: the direct part of the gradient alone could be differentiated."""
    problem, _, _, _ = quadratic(like64)
    x, y = backend.asarray(0.5, like=like64), backend.asarray([1.0, 1.0, 1.0], like=like64)

    def objective(x):
        return x**3 + problem.upper(x, nf.solve(problem.lower, x, init=y, estimator=nf.FirstOrder()).value)

    with pytest.raises(NoDerivativeError, match="FirstOrder"):
        nf.grad(nf.grad(objective))(x)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("jax", marks=pytest.mark.slow)], indirect=True)
def test_first_order_in_forward_mode(backend, like64):
    problem, exact, _, _ = quadratic(like64)
    x, y = backend.asarray(0.5, like=like64), backend.asarray([1.0, 1.0, 1.0], like=like64)

    def objective(x):
        return problem.upper(x, nf.solve(problem.lower, x, init=y, estimator=nf.FirstOrder()).value)

    _, along = nf.jvp(objective, (x,), (backend.asarray(2.0, like=like64),))
    assert gap(backend, along, 2 * exact(0.5)) < 1e-7


def test_first_order_reports_its_adjoint():
    """The secant is H⁻¹ c."""
    problem, _, h, _ = quadratic(np.zeros(()))
    found = nf.hypergradient(problem, np.asarray(0.5), np.ones(3), estimator=nf.FirstOrder())
    assert found.adjoint is not None
    np.testing.assert_allclose(found.adjoint.value, np.asarray([0.7, 0.2, -1.0]) / (1.25 * h), rtol=1e-7)
    assert bool(found.adjoint.converged) and int(found.adjoint.steps) > 0


# -- variants of unrolling agree ----------------------------------------------------------------------------------


@eager
@pytest.mark.parametrize("name", ["checkpointed", "segments", "forward"])
def test_variants_differ_by_rounding_only(backend, like64, name):
    """Far from convergence, with step lengths found by a search, in the outer variables, `init` and captured arrays."""
    problem = synthetic(like=like64, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    estimator = {"checkpointed": nf.Unrolled(7, checkpoint=True), "segments": nf.Unrolled(7, checkpoint=3)}.get(
        name, nf.Unrolled(7, forward=True)
    )

    def objective(w, m, s, estimator):
        level = nf.Argmin(lambda w, m: problem.lower(w, m) * s, nf.SPD(3))  # s is captured
        return problem.upper(w, nf.solve(level, w, init=m, estimator=estimator).value)

    s = backend.asarray(1.3, like=like64)
    expected = nf.grad(objective, (0, 1, 2))(w, m, s, nf.Unrolled(7))
    found = nf.grad(objective, (0, 1, 2))(w, m, s, estimator)
    for a, b in zip(found, expected, strict=True):
        assert float(backend.xp.max(backend.xp.abs(b))) > 1e-6
        assert gap(backend, a, backend.to_numpy(b)) < 1e-12


@numpy_and_torch
@pytest.mark.parametrize("settings", [{}, {"forward": True}, {"checkpoint": True}])
def test_the_derivative_in_a_step_length(backend, like64, settings):
    """What only unrolling has: the derivative in a solver's own parameter, against a central difference."""
    problem, _, _, _ = quadratic(like64)
    x, y = backend.asarray(0.5, like=like64), backend.asarray([1.0, 1.0, 1.0], like=like64)

    def objective(t):
        solver = nf.GradientDescent(step=t)
        return problem.upper(
            x, nf.solve(problem.lower, x, init=y, solver=solver, estimator=nf.Unrolled(6, **settings)).value
        )

    t, h = backend.asarray(0.2, like=like64), 1e-5
    expected = backend.to_numpy(objective(t + h) - objective(t - h)) / (2 * h)
    assert gap(backend, nf.grad(objective)(t), expected) < 1e-7


@eager
@pytest.mark.parametrize("name", ["forward", "checkpointed"])
def test_complex_and_integer_variables(backend, like64, name):
    """A tree of outer variables with a complex array, an integer array and a number in it."""
    xp, asarray = backend.xp, backend.asarray
    z = asarray(np.asarray([1.0 - 0.5j, -2.0 + 1j]), dtype=xp.complex128)
    x = {"z": z, "k": asarray(np.asarray([2, 3])), "t": 0.5}
    y = asarray([0.1, -0.3], like=like64)

    def lower(x, y):
        ns = namespace(y, x["z"])
        real, imaginary = ns.real(x["z"]), ns.imag(x["z"])
        return ns.sum((y - real * ns.astype(x["k"], y.dtype)) ** 2 * (1 + imaginary**2) + x["t"] * y * y)

    level = nf.Argmin(lower, nf.Euclidean(2))

    def objective(z, estimator):
        found = nf.solve(level, x | {"z": z}, init=y, estimator=estimator).value
        return namespace(found).sum(found**3)

    expected = backend.to_numpy(nf.grad(objective)(z, nf.Unrolled(5)))
    assert gap(backend, nf.grad(objective)(z, replace(ALL[name], steps=5)), expected) < 1e-13


@numpy_only
@pytest.mark.parametrize("name", ["forward", "checkpointed", "newton", "first"])
def test_batches_and_trees(backend, like64, name):
    """A batch of problems is what its problems are one by one, penalties included; trees are one problem."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3)) * np.asarray([[1.0], [30.0]]), np.zeros((2, 3))

    def lower(x, y):
        a, b = y["a"], y["b"]
        return np.sum((a - x) ** 2 + a * b + b**2 + 0.1 * (b - 1) ** 4, axis=-1)

    manifold = nf.manifolds.Product({"a": nf.Euclidean(3), "b": nf.Euclidean(3)})
    level = nf.Argmin(lower, manifold)

    def gradient(x, y):
        def objective(x):
            found = nf.solve(level, x, init={"a": y, "b": y}, estimator=ALL[name]).value
            return np.sum(found["a"] * found["b"])

        return nf.grad(objective)(x)

    found = gradient(x, y)
    bound = 1e-6 if name in FIRST else 1e-10
    for i in range(2):
        np.testing.assert_allclose(found[i], gradient(x[i], y[i]), rtol=bound, atol=bound)


@numpy_only
@pytest.mark.parametrize("name", ["forward", "checkpointed", "newton", "first"])
def test_a_method_runs_with_it(backend, like64, name):
    problem = synthetic(like=like64, d=3, r=2, n=30)
    w, m = problem.start(np.random.default_rng(0))
    # warm starts are at the answer already: a search would find lengths by rounding
    solver = nf.GradientDescent(step=2.0) if name in UNROLLED else None
    method = nf.RHGD(step_size=0.5, estimator=ALL[name], solver=solver)
    expected = nf.run(problem.problem(), w, m, method=nf.RHGD(step_size=0.5), steps=3)
    found = nf.run(problem.problem(), w, m, method=method, steps=3)
    np.testing.assert_allclose(found.x, expected.x, atol=1e-7)


# -- memory -------------------------------------------------------------------------------------------------------


def peak_of_numpy(compute):
    """The largest amount of memory that was allocated at a time."""
    tracemalloc.start()
    try:
        compute()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_torch(compute):
    """The largest number of bytes in tensors at a time: every storage is counted from its making to its end."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.weak import WeakIdKeyDictionary

    class Live(TorchDispatchMode):
        now = peak = 0

        def __init__(self):
            super().__init__()
            self.known = WeakIdKeyDictionary()

        def freed(self, size):
            self.now -= size

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(out):
                if hasattr(leaf, "untyped_storage"):
                    storage = leaf.untyped_storage()
                    if storage not in self.known:
                        self.known[storage] = True
                        weakref.finalize(storage, self.freed, storage.nbytes())
                        self.now += storage.nbytes()
                        self.peak = max(self.peak, self.now)
            return out

    with Live() as live:
        compute()
    return live.peak


@numpy_and_torch
def test_memory_of_the_variants(backend, like64):
    """Four times the steps: 4 times the memory, twice (√) with checkpoints, the same in forward mode or truncated."""
    n = 5000
    y = backend.asarray(np.linspace(0, 1, n), like=like64)
    x = backend.asarray(0.7, like=like64)
    level = nf.FixedPoint(lambda x, y: namespace(x, y).sin(x * y + 0.3), nf.Euclidean(n))
    measured = peak_of_numpy if backend.name == "numpy" else peak_of_torch
    gc.collect()

    def growth(**settings):
        peaks = []
        for steps in (9, 36):
            estimator = nf.Unrolled(steps, **settings)

            def objective(x, estimator=estimator):
                found = nf.solve(level, x, init=y, estimator=estimator).value
                return namespace(found).sum(found * found)

            peaks.append(measured(lambda f=objective: nf.grad(f)(x)))
        return peaks[1] / peaks[0]

    assert 3.2 < growth() < 4.2
    assert 1.4 < growth(checkpoint=True) < 2.3
    assert 0.95 < growth(forward=True) < 1.05
    assert 0.95 < growth(truncate=4) < 1.05


# -- bad settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, settings, error, message",
    [
        (nf.Unrolled, {"steps": -1}, ValueError, "steps"),
        (nf.Unrolled, {"steps": 5, "truncate": 2.5}, TypeError, "truncate"),
        (nf.Unrolled, {"steps": 5, "checkpoint": 0}, ValueError, "checkpoint"),
        (nf.Unrolled, {"steps": 5, "checkpoint": "all"}, TypeError, "checkpoint"),
        (nf.Unrolled, {"steps": 5, "forward": 1}, TypeError, "forward"),
        (nf.Unrolled, {"steps": 5, "forward": True, "checkpoint": True}, ValueError, "choose one"),
        (nf.OneStep, {"step": 0}, ValueError, "step"),
        (nf.OneStep, {"linear": 3}, TypeError, "linear"),
        (nf.OneStep, {"step": 1.0, "linear": nf.CG()}, ValueError, "not both"),
        (nf.FirstOrder, {"penalty": -1.0}, ValueError, "penalty"),
        (nf.FirstOrder, {"central": "no"}, TypeError, "central"),
    ],
)
def test_bad_settings(kind, settings, error, message):
    with pytest.raises(error, match=message):
        kind(**settings)


@numpy_only
def test_levels_that_do_not_suit(backend, like64):
    problem = tanh_fixed_point(like=like64, n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))
    root = nf.Root(lambda x, y: y - problem.map(x, y), nf.Euclidean(4))
    with pytest.raises(TypeError, match="FirstOrder tilts a cost; a FixedPoint has none"):
        nf.hypergradient(problem.problem(), x, y, estimator=nf.FirstOrder())
    with pytest.raises(TypeError, match="a Root has no step of its own"):
        nf.solve(root, x, init=y, estimator=nf.OneStep())
    with pytest.raises(TypeError, match="CG needs a symmetric operator"):
        nf.hypergradient(problem.problem(), x, y, estimator=nf.OneStep(linear=nf.CG()))
    with pytest.raises(TypeError, match="Newton has none to differentiate"):
        nf.solve(root, x, init=y, estimator=nf.Unrolled(5, forward=True))
