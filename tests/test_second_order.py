"""Derivatives of the second and third order through `solve`, on curved manifolds."""

import dataclasses

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic

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


def sphere(like, n=5, p=3):
    """A level on the sphere with exact Hessian products; x, u and the first y."""
    problem = smallest_eigenvector(like=like, n=n, p=p)
    rng = np.random.default_rng(0)
    x, y = problem.start(rng)
    return problem, x, nf.backend_of(x).noise(rng, (p,), like=x), y


# -- the Hessian product, in the words of each framework ---------------------------------------------------


def test_hessian_product_on_the_sphere(backend, like64):
    problem, x, u, y = sphere(like64)
    product = backend.jit(lambda x, u: nf.hvp(substituted(problem, y), (x,), (u,)))(x, u)
    close(backend, product, backend.to_numpy(problem.hessian_product(x, u)))


@pytest.mark.parametrize("linear", [nf.CG(), nf.Dense(), nf.Neumann()], ids=["cg", "dense", "neumann"])
@on("numpy", "array_api_strict", "torch")
def test_by_every_linear_solver(backend, like64, linear):
    problem, x, u, y = sphere(like64)
    function = substituted(problem, y, estimator=nf.Implicit(linear))
    close(backend, nf.hvp(function, (x,), (u,)), backend.to_numpy(problem.hessian_product(x, u)))


def test_hessian_product_of_the_synthetic_problem(backend, like64):
    """Against finite differences of the exact gradient."""
    problem = synthetic(like=like64, d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    u = backend.noise(np.random.default_rng(1), (4, 2), like=w)
    product = backend.jit(lambda w, u: nf.hvp(substituted(problem, m), (w,), (u,)))(w, u)
    close(backend, product, backend.to_numpy(slope(problem.euclidean_gradient, w, u)))


@pytest.mark.slow
def test_hessian_product_at_full_size(backend, like64):
    problem = synthetic(like=like64)
    w, m = problem.start(np.random.default_rng(0))
    u = backend.noise(np.random.default_rng(1), tuple(w.shape), like=w)
    product = backend.jit(lambda w, u: nf.hvp(substituted(problem, m), (w,), (u,)))(w, u)
    close(backend, product, backend.to_numpy(slope(problem.euclidean_gradient, w, u)), 1e-7)


@on("torch")
def test_double_backward_in_torch(backend, like64):
    import torch

    problem, x, u, y = sphere(like64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(substituted(problem, y)(x), x, create_graph=True)
    close(backend, gradient, backend.to_numpy(problem.euclidean_gradient(x.detach())))
    (product,) = torch.autograd.grad(gradient @ u, x)
    expected = backend.to_numpy(problem.hessian_product(x.detach(), u))
    close(backend, product, expected)
    close(backend, torch.autograd.functional.hvp(substituted(problem, y), x.detach(), u)[1], expected)


@on("torch")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own, on import
def test_transforms_of_torch(backend, like64):
    import torch

    problem, x, u, y = sphere(like64)
    function, expected = substituted(problem, y), backend.to_numpy(problem.hessian_product(x, u))
    close(backend, torch.func.grad(function)(x), backend.to_numpy(problem.euclidean_gradient(x)))
    close(backend, torch.func.jvp(torch.func.grad(function), (x,), (u,))[1], expected)
    close(backend, torch.func.grad(lambda x: torch.func.grad(function)(x) @ u)(x), expected)


@on("jax")
def test_transforms_of_jax(backend, like64):
    """Forward over reverse, reverse over reverse, forward over forward, `jax.hessian`: in one program."""
    import jax

    problem, x, u, y = sphere(like64, n=4, p=2)
    function = substituted(problem, y)

    @jax.jit
    def products(x, u):
        return (
            jax.jvp(jax.grad(function), (x,), (u,))[1],
            jax.grad(lambda x: jax.grad(function)(x) @ u)(x),
            jax.hessian(function)(x) @ u,
            jax.grad(lambda x: jax.jvp(function, (x,), (u,))[1])(x),
        )

    for product in products(x, u):
        close(backend, product, problem.hessian_product(x, u))


@pytest.mark.slow
@on("jax")
def test_eager_hessian_product_in_jax(backend, like64):
    import jax

    problem, x, u, y = sphere(like64, n=4, p=2)
    product = jax.jvp(jax.grad(substituted(problem, y)), (x,), (u,))[1]
    close(backend, product, problem.hessian_product(x, u))


@on("numpy", "array_api_strict", "torch")
def test_the_hessian_is_symmetric(backend, like64):
    problem, x, _, y = sphere(like64)
    matrix = backend.to_numpy(nf.hessian(substituted(problem, y))(x))
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-10, atol=1e-11)


# -- the third derivative ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch", "jax"], indirect=True)
def test_third_derivative(backend, like64):
    """D³F[u, u, ·] against finite differences of exact Hessian products; on JAX compiled."""
    problem, x, u, y = sphere(like64, n=4, p=2)
    function = substituted(problem, y)

    def third(x, u):
        return nf.jvp(lambda x: nf.hvp(function, (x,), (u,)), (x,), (u,))[1]

    expected = slope(lambda x: problem.hessian_product(x, u), x, u)
    close(backend, backend.jit(third)(x, u), backend.to_numpy(expected))


@on("torch")
def test_three_times_backward_in_torch(backend, like64):
    import torch

    problem, x, u, y = sphere(like64, n=4, p=2)
    x.requires_grad_()
    value = substituted(problem, y)(x)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        value = gradient @ u
    (found,) = torch.autograd.grad(value, x)
    expected = slope(lambda x: problem.hessian_product(x, u), x.detach(), u)
    close(backend, found, backend.to_numpy(expected))


# -- a level on the Stiefel manifold -----------------------------------------------------------------------


class Frame:
    """y* = the two lowest eigenvectors of A(x), by tr(N yᵀA(x)y) with distinct weights N = diag(2, 1)."""

    weights = np.array([2.0, 1.0])

    def __init__(self, like):
        problem = smallest_eigenvector(like=like, n=5, p=2, seed=3)
        rng, backend = np.random.default_rng(4), nf.backend_of(like)
        self.matrix, self.n = problem.matrix, backend.asarray(self.weights, like=like)
        self.target = backend.noise(rng, (5, 2), like=like)
        self.x, self.u = 0.2 * backend.noise(rng, (2,), like=like), backend.noise(rng, (2,), like=like)
        first = np.linalg.eigh(backend.to_numpy(self.matrix(self.x)))[1][:, :2]
        self.start = backend.asarray(first, like=like)

    def lower(self, x, y):
        return nf.namespace(x, y).sum(y * (self.matrix(x) @ y) * self.n)

    def upper(self, x, y):
        xp = nf.namespace(x, y)
        return xp.sum(self.target * y) * (1 + x[0]) + xp.sum(y[0, :]) ** 3 + xp.sum(x * x)

    def objective(self, x):
        """In NumPy, by eigenvectors whose signs are those of `start`."""
        y = np.linalg.eigh(self.matrix(x))[1][:, :2]
        return self.upper(x, y * np.sign(np.sum(y * self.start, axis=0)))

    def through_solve(self, x):
        level = nf.Argmin(self.lower, nf.Stiefel(5, 2))
        return self.upper(x, nf.solve(level, x, init=self.start).value)


def test_a_level_on_the_stiefel_manifold(backend, like64):
    """Gradient and Hessian product against finite differences of the exact value."""
    case, exact = Frame(like64), Frame(np.zeros(()))
    gradient, product = backend.jit(lambda x, u: nf.jvp(nf.grad(case.through_solve), (x,), (u,)))(case.x, case.u)
    basis = np.eye(2)
    close(backend, gradient, [slope(exact.objective, exact.x, e) for e in basis])
    rows = [slope(lambda x, e=e: slope(exact.objective, x, e, 1e-2), exact.x, exact.u, 1e-2) for e in basis]
    close(backend, product, rows, 1e-6)


# -- poisoned solvers, captured arrays, batches ------------------------------------------------------------


def test_a_solver_outside_of_autodiff(backend, like64):
    problem, x, u, y = sphere(like64, n=4, p=2)
    plain, *_ = sphere(np.zeros(()), n=4, p=2)

    def black_box(x, init):
        assert type(x) in (type(like64), np.ndarray), type(x)
        values = x if isinstance(x, np.ndarray) else np.array(backend.to_numpy(x))
        return backend.asarray(plain.solution(values), like=like64)

    function = substituted(problem, y, solver=nf.External(black_box))
    expected = backend.to_numpy(problem.hessian_product(x, u))
    close(backend, backend.jit(lambda x, u: nf.hvp(function, (x,), (u,)))(x, u), expected)
    if backend.name != "jax":
        close(backend, nf.hessian(function)(x) @ u, expected)


def test_captured_arrays(backend, like64):
    """As if they had been passed: Hessian products in what the lower cost closes over, and mixed ones."""
    problem, x, u, y = sphere(like64, n=4, p=2)
    v = backend.noise(np.random.default_rng(5), (4, 4), like=x)

    def lower(base, x, y):
        return y @ (dataclasses.replace(problem, base=base).matrix(x) @ y) / 2

    def captured(base, x):
        level = nf.Argmin(lambda x, y: lower(base, x, y), nf.Sphere(4))
        return problem.upper(x, nf.solve(level, x, init=y).value)

    def passed(base, x):
        return problem.upper(x, nf.solve(nf.Argmin(lower, nf.Sphere(4)), base, x, init=y).value)

    found, expected = backend.jit(lambda v, u: [nf.hvp(f, (problem.base, x), (v, u)) for f in (captured, passed)])(v, u)
    for one, other in zip(found, expected, strict=True):
        close(backend, one, backend.to_numpy(other), 1e-11)


def test_a_batch_of_problems_is_a_loop(backend, xp, like64):
    problem, x, _, y = sphere(like64, n=4, p=2)
    noise = backend.noise(np.random.default_rng(6), (2, 3, 2), like=x)
    points, directions = x + 0.1 * noise[0, ...], noise[1, ...]
    starts = xp.stack([y, problem.solution(points[1, ...]), -y])

    def total(x):
        values = substituted(problem, starts)(x)
        return nf.namespace(values).sum(values)

    product = backend.jit(lambda x, u: nf.hvp(total, (x,), (u,)))(points, directions)
    for i in range(2):
        expected = problem.hessian_product(points[i, ...], directions[i, ...])
        close(backend, product[i, ...], backend.to_numpy(expected))
    other = dataclasses.replace(problem, reference=-problem.reference)  # the start -y leads to the other minimum
    close(backend, product[2, ...], backend.to_numpy(other.hessian_product(points[2, ...], directions[2, ...])))
