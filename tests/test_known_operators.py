"""What a level's user knows of its derivative: used by linear solves, compared with autodiff, never differentiated."""

import dataclasses

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad._known import check_known
from nestfold.hypergrad._space import Space
from nestfold.hypergrad._system import solve_system, tangent_system
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


def distance(backend, found, expected):
    """|found - expected| / |expected|, of arrays."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@dataclasses.dataclass(frozen=True)
class Forbidden(nf.LinearSolver):
    """A linear solver that must not be asked."""

    @property
    def needs_self_adjoint(self):
        return False

    @property
    def has_tolerance(self):
        return True

    def solve(self, system, b, guess=None):
        raise AssertionError("no linear solver was to be used")


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


# -- the synthetic problem ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (3,)])
@on("numpy", "array_api_strict", "torch")
def test_hessian_and_inverse_of_the_synthetic_problem(backend, like64, rng, batch):
    """Away from the answer too, and on batches; against the generic Hessian."""
    problem = synthetic(like=like64, d=5, r=2, n=9)
    level, w = problem.problem().lower, problem.problem().manifold.random_point(rng, batch, like=like64)
    assert isinstance(level, nf.Argmin)
    m = level.manifold.random_point(rng, batch, like=like64)
    u = level.manifold.random_tangent(rng, m)
    expected = backend.to_numpy(level.manifold.hessian(lambda p: level.cost(w, p), m, u))
    assert distance(backend, problem.hessian(w, m, u), expected) < 1e-12
    assert distance(backend, problem.inverse_hessian(w, m, problem.hessian(w, m, u)), backend.to_numpy(u)) < 1e-11


@on("numpy", "array_api_strict", "torch")
def test_a_known_inverse_needs_no_linear_solver(backend, like64):
    problem = synthetic(like=like64, d=5, r=2, n=9)
    w, m = problem.start(np.random.default_rng(0))
    bilevel = problem.problem(known=True)
    found = nf.hypergradient(bilevel, w, m, estimator=nf.Implicit(Forbidden()), certify=False)
    expected = bilevel.manifold.project(w, problem.euclidean_gradient(w))
    assert distance(backend, found.covector, backend.to_numpy(expected)) < 1e-11
    assert found.adjoint is not None and int(found.adjoint.steps) == 1 and bool(found.adjoint.converged)
    assert 0 < float(found.adjoint.residual) < 1e-12
    dense = nf.hypergradient(problem.problem(), w, m, estimator=nf.Implicit(nf.Dense()), certify=False)
    assert distance(backend, found.covector, backend.to_numpy(dense.covector)) < 1e-11


@on("numpy", "torch", "jax")
def test_derivatives_of_higher_order_do_not_notice(backend, like64):
    """On the sphere: known to the linear solves, unknown to their derivatives."""
    problem = smallest_eigenvector(like=like64, n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))
    cost, xp = problem.lower, backend.xp

    def hessian(x, y, u):
        a = problem.matrix(x)
        image = a @ u - (y @ (a @ y)) * u
        return image - y * (y @ image)

    def inverse(x, y, u):
        a = problem.matrix(x)
        normal = y[:, None] * y[None, :]
        completed = a - (y @ (a @ y)) * (xp.eye(4, dtype=u.dtype) - normal)
        v = xp.linalg.solve(completed, u[:, None])[:, 0]
        return v - y * (y @ v)

    def objective(level):
        def function(x):
            solved = nf.solve(level, x, init=y, solver=nf.External(lambda x, init: problem.solution(x)))
            return problem.upper(x, solved.value)

        return function

    level = nf.Argmin(cost, nf.Sphere(4), hessian, inverse)
    direction = 0 * x + backend.asarray(np.asarray([0.3, -1.0]), like=x)
    if backend.name == "jax":
        import jax

        def both(x):
            return jax.jvp(jax.grad(objective(level)), (x,), (direction,))

        gradient, moved = jax.jit(both)(x)
    else:
        gradient = nf.grad(objective(level))(x)
        moved = nf.hvp(objective(level), (x,), (direction,))
        assert {name for name, _ in level.checked} == {"hessian", "inverse_hessian"}
    assert distance(backend, gradient, backend.to_numpy(problem.euclidean_gradient(x))) < 1e-11
    assert distance(backend, moved, backend.to_numpy(problem.hessian_product(x, direction))) < 1e-10


# -- a quadratic, A and its inverse known -------------------------------------------------------------


def quadratic(backend, n=6, seed=0):
    """½ yᵀ H y - x·y on ℝⁿ: H (n, n), x, and a goal c; the hypergradient of c·y* is H⁻¹ c."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    matrix = (q * np.logspace(0, 3, n)) @ q.T
    arrays = [backend.asarray(a) for a in (matrix, np.linalg.inv(matrix), *rng.standard_normal((2, n)))]
    return (*arrays, np.linalg.solve(matrix, backend.to_numpy(arrays[3])))


def exact(backend, h):
    """The answer from outside, so that only the derivative's solve uses what is known."""
    matrix = backend.to_numpy(h)
    return nf.External(lambda x, init: np.linalg.solve(matrix, np.asarray(x)))


def gradient_with(backend, h, x, c, linear=None, **known):
    n = x.shape[0]
    level = nf.Argmin(lambda x, y: y @ (h @ y) / 2 - x @ y, nf.Euclidean(n), **known)
    bilevel = nf.Bilevel(lambda x, y: c @ y, nf.Euclidean(n), level)
    return nf.hypergradient(bilevel, x, 0 * x, solver=exact(backend, h), estimator=nf.Implicit(linear), certify=False)


@on("numpy", "array_api_strict", "torch")
def test_an_approximate_inverse_is_refined(backend):
    h, inverse, x, c, expected = quadratic(backend)
    roughly = lambda x, y, u: 1.03 * (inverse @ u)  # noqa: E731
    found = gradient_with(backend, h, x, c, nf.CG(), inverse_hessian=roughly)
    assert distance(backend, found.covector, expected) < 1e-11
    assert found.adjoint is not None and 1 < int(found.adjoint.steps) <= 12 and bool(found.adjoint.converged)
    tiny = gradient_with(backend, h, x, 1e-200 * c, nf.CG(), inverse_hessian=roughly)
    assert distance(backend, 1e200 * tiny.covector, expected) < 1e-11


@on("numpy", "array_api_strict", "torch", "jax")
def test_a_preconditioner_saves_steps(backend):
    h, inverse, x, c, expected = quadratic(backend, 12)
    plain = gradient_with(backend, h, x, c, nf.CG(tol=1e-11))
    near = lambda x, y, u: inverse @ u + 1e-6 * u  # noqa: E731
    found = gradient_with(backend, h, x, c, nf.CG(tol=1e-11), preconditioner=near)
    assert distance(backend, found.covector, expected) < 1e-10
    assert found.adjoint is not None and plain.adjoint is not None
    assert int(found.adjoint.steps) < int(plain.adjoint.steps) / 2


@on("numpy", "torch")
def test_a_preconditioner_in_coordinates_of_the_metric(backend, like64, rng):
    """SPD: the folded form and the plain one precondition the same operator."""
    problem = synthetic(like=like64, d=4, r=2, n=9)
    level = nf.Argmin(problem.lower, nf.SPD(4), preconditioner=problem.inverse_hessian)
    w, _ = problem.start(np.random.default_rng(0))
    m = problem.solution(w)
    right = level.manifold.random_tangent(rng, m)
    known = dataclasses.replace(level, hessian=problem.hessian)
    expected = backend.to_numpy(problem.inverse_hessian(w, m, level.manifold.sharp(m, right)))
    for each in (level, known):
        system = tangent_system(backend, each, (w,), m, Space(backend))
        found = solve_system(nf.CG(), system, right)
        assert int(found.steps) <= 3  # exact but for rounding
        assert distance(backend, found.value, expected) < 1e-11


@on("numpy", "array_api_strict", "torch", "jax")
def test_the_preconditioner_of_a_map_is_transposed_with_it(backend, rng):
    """Root and FixedPoint: P for A, Pᵀ for Aᵀ, both between projections; P ≠ Pᵀ."""
    p, y = backend.asarray(rng.standard_normal((4, 4))), backend.asarray(rng.standard_normal(4))
    y = y / (y @ y) ** 0.5
    u = nf.Sphere(4).random_tangent(rng, y)
    known = lambda y, u: p @ u  # noqa: E731
    levels = (
        nf.Root(lambda y: p @ y, nf.Sphere(4), preconditioner=known),
        nf.FixedPoint(lambda y: y, nf.Sphere(4), 0, known),
    )
    for level in levels:
        for transpose, matrix in ((False, p), (True, p.mT)):
            system = tangent_system(backend, level, (), y, Space(backend), transpose=transpose)
            expected = nf.Sphere(4).project(y, matrix @ u)
            assert system.precondition is not None
            assert distance(backend, system.precondition(u), backend.to_numpy(expected)) < 1e-14


# -- checks ---------------------------------------------------------------------------------------------


@on("numpy", "torch")
def test_each_is_compared_once(backend):
    h, inverse, x, _, _ = quadratic(backend)
    counted = Counted(lambda x, y, u: h @ u)
    level = nf.Argmin(lambda x, y: y @ (h @ y) / 2 - x @ y, nf.Euclidean(6), hessian=counted)
    check_known(backend, level, (x,), inverse @ x)
    assert counted.calls == 1 and level.checked == {("hessian", True)}
    check_known(backend, level, (x,), inverse @ x)
    assert counted.calls == 1


WRONG = {
    "hessian must be the Riemannian Hessian": {"hessian": lambda h, i: lambda x, y, u: 1.001 * (h @ u)},
    "inverse_hessian must be the inverse": {"inverse_hessian": lambda h, i: lambda x, y, u: 2 * (i @ u)},
    "preconditioner must be self-adjoint": {"preconditioner": lambda h, i: lambda x, y, u: u + 0.1 * u.sum() * y},
    "preconditioner must be positive": {"preconditioner": lambda h, i: lambda x, y, u: -u},
    "hessian returned shapes": {"hessian": lambda h, i: lambda x, y, u: h},
    "preconditioner returned a float": {"preconditioner": lambda h, i: lambda x, y, u: 1.0},
}


@pytest.mark.parametrize("message", WRONG)
@on("numpy", "torch")
def test_what_is_wrong_is_named(backend, message):
    h, inverse, x, c, _ = quadratic(backend)
    ((name, make),) = WRONG[message].items()
    error = nf.DTypeError if "float" in message else ValueError
    with pytest.raises(error, match=message):
        gradient_with(backend, h, x, c, **{name: make(h, inverse)})


@on("jax")
def test_what_is_wrong_is_named_where_all_is_compiled(backend):
    h, _, x, c, _ = quadratic(backend)
    with pytest.raises(ValueError, match=r"Riemannian Hessian.*off by 0\.001"):
        gradient_with(backend, h, x, c, hessian=lambda x, y, u: 1.001 * (h @ u))


@on("numpy", "torch")
def test_a_hessian_without_its_connection_is_found_out(backend, like64):
    """The ambient second derivative, projected, is no Hessian on a sphere; nor is that of another metric on SPD."""
    sphere = smallest_eigenvector(like=like64, n=4, p=2)
    x, y = sphere.start(np.random.default_rng(1))
    ambient = lambda x, y, u: nf.Sphere(4).project(y, sphere.matrix(x) @ u)  # noqa: E731
    with pytest.raises(ValueError, match="hessian must be the Riemannian Hessian"):
        nf.grad(lambda x: nf.solve(nf.Argmin(sphere.lower, nf.Sphere(4), ambient), x, init=y).value[0])(x)
    problem = synthetic(like=like64, d=3, r=2, n=5)
    w, m = problem.start(np.random.default_rng(0))
    skewed = lambda w, m, u: problem.hessian(w, m, m @ u @ m)  # noqa: E731
    level = nf.Argmin(problem.lower, nf.SPD(3), skewed)
    with pytest.raises(ValueError, match="hessian must be the Riemannian Hessian"):
        solver = nf.GradientDescent()
        nf.hypergradient(nf.Bilevel(problem.upper, nf.Stiefel(3, 2), level), w, m, solver=solver)
    with pytest.raises(ValueError, match="hessian must be the Riemannian Hessian"):  # right at the start, the identity
        nf.hypergradient(nf.Bilevel(problem.upper, nf.Stiefel(3, 2), level), w, m, certify=False)


@on("numpy")
def test_an_inverse_is_judged_at_the_answer_alone(backend):
    """⅓ Σ y³ - x·y: 1/(2 √x) is the inverse Hessian at the answer y = √x, and far off elsewhere."""
    level = nf.Argmin(
        lambda x, y: nf.namespace(y).sum(y**3) / 3 - x @ y, nf.Positive(3), inverse_hessian=lambda x, y, u: u
    )
    x = np.asarray([1.0, 2.0, 3.0])
    check_known(backend, level, (x,), 5 * x)
    assert level.checked == set()
    with pytest.raises(ValueError, match="inverse_hessian"):
        check_known(backend, level, (x,), x**0.5)


@on("numpy")
def test_settings(backend):
    for kind, name in (("Argmin", "hessian"), ("Argmin", "inverse_hessian"), ("Root", "preconditioner")):
        with pytest.raises(TypeError, match=f"{kind}: {name} must be a function"):
            getattr(nf, kind)(lambda y: y, nf.Euclidean(2), **{name: 3})
    with pytest.raises(ValueError, match="linear in u"):
        level = nf.Root(lambda y: y, nf.Euclidean(2), preconditioner=lambda y, u: u * u)
        check_known(backend, level, (), np.ones(2))
    level = nf.Argmin(lambda y: y @ y, nf.Euclidean(2), lambda y, u: 2 * u)
    assert level.with_function(lambda y: 3 * (y @ y)).hessian is None
    assert level.with_manifold(nf.Euclidean(2)).hessian is level.hessian


# -- arrays that are being differentiated ---------------------------------------------------------------


def captured(backend, solver, x, c, inverse_too):
    """F(h) = c·y*, y* = argmin ½ yᵀ h y - x·y, with h captured by the cost and by what is known."""

    def function(h):
        symmetric = (h + h.mT) / 2
        known = {"hessian": lambda x, y, u: symmetric @ u}
        if inverse_too:
            known["inverse_hessian"] = lambda x, y, u: backend.xp.linalg.inv(symmetric) @ u
        level = nf.Argmin(lambda x, y: y @ (symmetric @ y) / 2 - x @ y, nf.Euclidean(6), **known)
        return c @ nf.solve(level, x, init=0 * x, solver=solver).value

    return function


@pytest.mark.parametrize("inverse_too", [False, True])
@on("numpy", "array_api_strict", "torch", "jax")
def test_known_operators_may_close_over_what_is_being_differentiated(backend, inverse_too):
    h, inverse, x, c, expected = quadratic(backend)
    y = backend.to_numpy(inverse @ x)
    function = captured(backend, exact(backend, h), x, c, inverse_too and backend.name in ("torch", "jax"))
    if backend.name == "jax":
        import jax

        gradient, again = jax.grad(function)(h), jax.jit(jax.grad(function))(h)
        assert distance(backend, again, backend.to_numpy(gradient)) < 1e-10
    elif backend.name == "torch":
        leaf = h.clone().requires_grad_()
        function(leaf).backward()
        gradient = leaf.grad
    else:
        gradient = nf.grad(function)(h)
    outer = -np.outer(expected, y)
    assert distance(backend, gradient, (outer + outer.T) / 2) < 1e-9


@on("numpy", "torch", "jax")
def test_what_only_the_known_operator_captured_gets_no_gradient(backend):
    """d/ds of an answer that a preconditioner with s in it helps to find is 0, and nothing leaks."""
    h, inverse, x, c, expected = quadratic(backend)

    def function(scales):
        s, shift = scales[0], scales[1]
        level = nf.Argmin(
            lambda x, y: y @ (h @ y) / 2 - x @ y, nf.Euclidean(6), preconditioner=lambda x, y, u: s * (inverse @ u)
        )
        return c @ nf.solve(level, x + shift, init=0 * x, solver=exact(backend, h)).value

    gradient = nf.grad(function)(backend.asarray(np.asarray([2.0, 0.5])))
    assert distance(backend, gradient, np.asarray([0.0, expected.sum()])) < 1e-10


# -- linear predictors ----------------------------------------------------------------------------------


def logistic(backend, rng, batch=(), diagonal=True):
    """Logistic regression, its regularizer's weight eˣ the outer variable; as a LinearPredictor and written out."""
    a, x = backend.asarray(rng.standard_normal((7, 4))), backend.asarray(np.asarray(-0.3))
    sign = backend.asarray(np.sign(rng.standard_normal(7)))
    y, u = (backend.asarray(rng.standard_normal((*batch, 4))) for _ in range(2))

    def loss(x, z):
        ns = nf.namespace(z)
        return ns.log1p(ns.exp(-sign * z))

    def entries(x, y):
        return nf.namespace(x).exp(x) * y * y / 2

    def total(x, y):
        return nf.namespace(y).sum(entries(x, y), axis=-1)

    def cost(x, y):
        return nf.namespace(y).sum(loss(x, y @ a.mT), axis=-1) + total(x, y)

    return nf.LinearPredictor(a, loss, entries if diagonal else total), cost, x, y, u


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("batch", [(), (3,)])
@on("numpy", "array_api_strict", "torch")
def test_products_of_a_linear_predictor(backend, rng, batch, diagonal):
    predictor, cost, x, y, u = logistic(backend, rng, batch, diagonal)
    assert distance(backend, predictor(x, y), backend.to_numpy(cost(x, y))) < 1e-14
    found, expected = (nf.Argmin(f, nf.Euclidean(4)).operator(backend, (x,), y)[0](u) for f in (predictor, cost))
    assert distance(backend, found, backend.to_numpy(expected)) < 1e-14


@on("numpy", "torch", "jax")
def test_derivatives_of_a_linear_predictor(backend, rng):
    """First and second, of c·y*(x); the structure is in the operator that is differentiated."""
    predictor, cost, x, y, c = logistic(backend, rng)

    def objective(cost):
        return lambda x: c @ nf.solve(nf.Argmin(cost, nf.Euclidean(4)), x, init=0 * y).value

    def both(cost):
        if backend.name == "jax":
            import jax

            return jax.jit(lambda x: jax.jvp(jax.grad(objective(cost)), (x,), (x * 0 + 1,)))(x)
        return nf.grad(objective(cost))(x), nf.grad(nf.grad(objective(cost)))(x)

    for found, expected in zip(both(predictor), both(cost), strict=True):
        assert distance(backend, found, backend.to_numpy(expected)) < 1e-11


@on("numpy", "torch")
def test_a_linear_predictor_of_the_outer_variables(backend, rng):
    """A(x), a batch of matrices, no regularizer, a manifold with a connection."""
    a, y = (backend.asarray(rng.standard_normal(s)) for s in ((2, 7, 4), (2, 4)))
    x, u = backend.asarray(np.asarray(0.7)), backend.asarray(rng.standard_normal((2, 4)))
    predictor = nf.LinearPredictor(lambda x: x * a, lambda x, z: nf.namespace(z).cosh(z))
    y = y / nf.namespace(y).sum(y * y, axis=-1, keepdims=True) ** 0.5
    for manifold in (nf.Euclidean(4), nf.Sphere(4)):
        tangent = manifold.project(y, u)
        apply = nf.Argmin(predictor, manifold).operator(backend, (x,), y)[0]
        found = manifold.sharp(y, manifold.project(y, apply(tangent)))
        expected = manifold.hessian(lambda p: predictor(x, p), y, tangent)
        assert distance(backend, found, backend.to_numpy(expected)) < 1e-13


@on("numpy", "torch")
def test_bad_linear_predictors(backend, rng):
    a, y = backend.asarray(rng.standard_normal((7, 4))), backend.asarray(rng.standard_normal(4))
    coupled = nf.LinearPredictor(a, lambda z: z * (z @ z), lambda y: y * y)
    with pytest.raises(ValueError, match="must act entry by entry"):
        check_known(backend, nf.Argmin(coupled, nf.Euclidean(4)), (), y)
    with pytest.raises(nf.ShapeError, match="must act entry by entry, unsummed"):
        nf.LinearPredictor(a, lambda z: z @ z)(y)
    with pytest.raises(nf.ShapeError, match=r"shape \(4, 7\) does not multiply y of shape \(4,\)"):
        nf.LinearPredictor(a.mT, lambda z: z * z)(y)
    with pytest.raises(TypeError, match="loss must be a function"):
        nf.LinearPredictor(a, a)
