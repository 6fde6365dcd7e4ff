"""Fixed points and roots that are no minima: W ≠ Wᵀ, on flat space and on the sphere, to the second order."""

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import tanh_fixed_point

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


def close(backend, found, expected, rtol=1e-9):
    """|found - expected| <= rtol |expected|."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= rtol, error


def slope(f, x, u, h=1e-3):
    """The derivative of f along u by five points; the error is h⁴ and rounding/h."""
    return sum(weight * f(x + i * h * u) for i, weight in STENCIL) / h


def substituted(problem, y0, **options):
    """x ↦ upper(x, y*(x)) through `solve`."""
    bilevel = problem.problem()
    return lambda x: bilevel.upper(x, nf.solve(bilevel.lower, x, init=y0, **options).value)


def tanh_case(like):
    problem = tanh_fixed_point(like=like, n=5, p=2, contraction=0.6)
    rng = np.random.default_rng(0)
    x, y = problem.start(rng)
    return problem, x, nf.backend_of(x).noise(rng, (2,), like=x), y


WAYS = {
    "default": {},
    "neumann": {"estimator": nf.Implicit(nf.Neumann())},
    "dense": {"estimator": nf.Implicit(nf.Dense())},
    "unrolled": {"estimator": nf.Unrolled(80)},
    "newton": {"solver": nf.Newton()},
}


@on("numpy", "array_api_strict", "torch")
@pytest.mark.parametrize("way", WAYS)
def test_a_fixed_point_that_is_no_minimum(backend, like64, way):
    problem, x, u, y = tanh_case(like64)
    function = substituted(problem, y, **WAYS[way])
    gradient, product = nf.jvp(nf.grad(function), (x,), (u,))
    close(backend, gradient, backend.to_numpy(problem.euclidean_gradient(x)), 1e-10)
    close(backend, product, backend.to_numpy(problem.hessian_product(x, u)))


@on("jax")
def test_a_fixed_point_in_jax(backend, like64):
    import jax

    problem, x, u, y = tanh_case(like64)

    @jax.jit
    def both(x, u):
        functions = [substituted(problem, y, **WAYS[way]) for way in ("neumann", "dense", "unrolled")]
        return [jax.jvp(jax.grad(f), (x,), (u,)) for f in functions]

    for gradient, product in both(x, u):
        close(backend, gradient, problem.euclidean_gradient(x), 1e-10)
        close(backend, product, problem.hessian_product(x, u))


class Flow:
    """The unit eigenvector of B(x) = B₀ + x₁B₁ + x₂B₂ ≠ Bᵀ of the largest eigenvalue, about -1.

    As the fixed point of y ↦ exp(y, ξ P B y), and as the zero of the field P B y.
    """

    def __init__(self, like):
        backend, rng = nf.backend_of(like), np.random.default_rng(7)
        q = rng.standard_normal((4, 4)) / 2 + np.eye(4)
        base = q @ np.diag([-1.0, -2.5, -3.0, -4.0]) @ np.linalg.inv(q)
        arrays = (
            base,
            0.3 * rng.standard_normal((2, 4, 4)),
            rng.standard_normal(4),
            q[:, 0] / np.linalg.norm(q[:, 0]),
        )
        self.base, self.slopes, self.c, self.start = (backend.asarray(a, like=like) for a in arrays)
        self.x, self.u = (backend.asarray(np.array(a), like=like) for a in ([0.3, -0.2], [1.0, 0.7]))

    def matrix(self, x):
        return self.base + x[0] * self.slopes[0, ...] + x[1] * self.slopes[1, ...]

    def field(self, x, y):
        return nf.Sphere(4).project(y, self.matrix(x) @ y)

    def map(self, x, y):
        return nf.Sphere(4).exp(y, 0.25 * self.field(x, y))

    def upper(self, x, y):
        return (1 + x[0]) * nf.namespace(x, y).sum(self.c * y) ** 2 + x[1] ** 2

    def objective(self, x):
        values, vectors = np.linalg.eig(self.base + np.tensordot(x, self.slopes, 1))
        return self.upper(x, np.real(vectors[:, np.argmax(np.real(values))]))

    def through(self, level, **options):
        return lambda x: self.upper(x, nf.solve(level, x, init=self.start, **options).value)


def check_flow(backend, like, level_of, **options):
    case, exact = Flow(like), Flow(np.zeros(()))
    function = case.through(level_of(case), **options)
    gradient, product = backend.jit(lambda x, u: nf.jvp(nf.grad(function), (x,), (u,)))(case.x, case.u)
    close(backend, gradient, [slope(exact.objective, exact.x, e) for e in np.eye(2)])
    rows = [slope(lambda x, e=e: slope(exact.objective, x, e, 1e-2), exact.x, exact.u, 1e-2) for e in np.eye(2)]
    close(backend, product, rows, 1e-6)


def test_a_map_on_the_sphere_whose_ambient_series_diverges(backend, like64):
    """The exponential map expands off the sphere: only the projected series converges."""
    case = Flow(like64)
    if backend.name == "numpy":
        level = nf.FixedPoint(case.map, nf.Sphere(4))
        y = nf.solve(level, case.x, init=case.start, solver=nf.Newton()).value
        ambient = np.abs(np.linalg.eigvals(nf.jacobian(lambda y: case.map(case.x, y))(y)))
        assert ambient.max() > 1.4 and sorted(ambient)[-2] < 0.7
    check_flow(backend, like64, lambda case: nf.FixedPoint(case.map, nf.Sphere(4)), solver=nf.Newton())


@on("numpy", "array_api_strict", "torch")
def test_the_same_map_by_a_direct_solve(backend, like64):
    options = {"estimator": nf.Implicit(nf.Dense()), "solver": nf.Newton()}
    check_flow(backend, like64, lambda case: nf.FixedPoint(case.map, nf.Sphere(4)), **options)


@on("numpy", "array_api_strict", "torch")
@pytest.mark.parametrize("estimator", [None, nf.Unrolled(80)], ids=["implicit", "unrolled"])
def test_fixed_point_steps_stay_on_the_sphere(backend, like64, estimator):
    """Rounding off the sphere grows 1.5-fold at each step of the same map, unless it is taken away."""
    case = Flow(like64)
    level = nf.FixedPoint(case.map, nf.Sphere(4))
    found = nf.solve(level, case.x, init=case.start, estimator=estimator).value
    assert float(nf.Sphere(4).defect(found)) < 1e-12
    check_flow(backend, like64, lambda case: nf.FixedPoint(case.map, nf.Sphere(4)), estimator=estimator)


@pytest.mark.parametrize("tidy", [True, False])
def test_a_field_on_the_sphere(backend, like64, tidy):
    """A `Root`; "only the field's tangent part counts", so that the field may as well be left unprojected."""

    def level(case):
        return nf.Root(case.field if tidy else lambda x, y: case.matrix(x) @ y, nf.Sphere(4))

    check_flow(backend, like64, level)


@on("numpy", "array_api_strict", "torch")
def test_a_field_on_flat_space(backend, like64):
    problem, x, u, y = tanh_case(like64)
    level = nf.Root(lambda x, y: y - problem.map(x, y), nf.Euclidean(5))
    function = lambda x: problem.upper(x, nf.solve(level, x, init=y).value)  # noqa: E731
    gradient, product = nf.jvp(nf.grad(function), (x,), (u,))
    close(backend, gradient, backend.to_numpy(problem.euclidean_gradient(x)), 1e-10)
    close(backend, product, backend.to_numpy(problem.hessian_product(x, u)))
