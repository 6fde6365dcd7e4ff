"""What a cost closes over gets its gradient, and solvers that autodiff cannot pass are no obstacle."""

import dataclasses
import functools

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, tanh_fixed_point


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


def close(backend, found, expected, rtol=1e-10):
    """|found - expected| <= rtol |expected|, leaf by leaf."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= rtol * np.linalg.norm(expected)


def lower_with(problem, base, x, y):
    """The lower cost with another A₀; operators alone, which need no namespace."""
    return y @ (dataclasses.replace(problem, base=base).matrix(x) @ y) / 2


def captures(problem, x, y):
    """The same function of the matrix A₀, which the lower cost finds in six ways: as an argument, and not."""

    def outer(level, *variables):
        return problem.upper(x, nf.solve(level, *variables, x, init=y).value)

    def as_argument(base):
        level = nf.Argmin(lambda b, x, y: lower_with(problem, b, x, y), nf.Sphere(4))
        return outer(level, base)

    def by_closure(base):
        return outer(nf.Argmin(lambda x, y: lower_with(problem, base, x, y), nf.Sphere(4)))

    def by_partial(base):
        return outer(nf.Argmin(functools.partial(lower_with, problem, base), nf.Sphere(4)))

    def by_container(base):
        kept = {"list": [base]}
        cost = lambda x, y: lower_with(problem, kept["list"][0], x, y)  # noqa: E731
        return outer(nf.Argmin(cost, nf.Sphere(4)))

    def by_default(base):
        cost = lambda x, y, b=base: lower_with(problem, b, x, y)  # noqa: E731
        return outer(nf.Argmin(cost, nf.Sphere(4)))

    def by_a_value_made_of_it(base):
        square = base @ base / 4
        half = square + base - square  # what the cost captures is no leaf
        return outer(nf.Argmin(lambda x, y: lower_with(problem, half, x, y), nf.Sphere(4)))

    return as_argument, by_closure, by_partial, by_container, by_default, by_a_value_made_of_it


def captured_case(like):
    problem = smallest_eigenvector(like=like, n=4, p=2)
    return problem, *problem.start(np.random.default_rng(1))


@on("numpy", "array_api_strict", "torch")
def test_captured_arrays_get_their_gradient(backend, like64):
    problem, x, y = captured_case(like64)
    expected, *found = [nf.grad(f)(problem.base) for f in captures(problem, x, y)]
    assert np.linalg.norm(backend.to_numpy(expected)) > 0.1
    for gradient in found:
        close(backend, gradient, backend.to_numpy(expected), 1e-12)


@on("numpy", "array_api_strict", "torch")
def test_a_captured_object_gets_its_gradient_or_says_no(backend, like64):
    """A bound method of an object that holds the array; the namespace that it uses is that of x and y."""
    problem, x, y = captured_case(like64)

    def outer(base):
        level = nf.Argmin(dataclasses.replace(problem, base=base).lower, nf.Sphere(4))
        return problem.upper(x, nf.solve(level, x, init=y).value)

    try:
        found = nf.grad(outer)(problem.base)
    except nf.NoDerivativeError as error:
        assert backend.name == "array_api_strict" and "namespace" in str(error)
        return
    close(backend, found, backend.to_numpy(nf.grad(captures(problem, x, y)[0])(problem.base)), 1e-12)


@on("jax")
def test_captured_tracers_get_their_gradient(backend, like64):
    import jax

    problem, x, y = captured_case(like64)
    argument, closure, *_, made = captures(problem, x, y)
    functions = (argument, closure, made)
    expected, *found = jax.jit(lambda base: [jax.grad(f)(base) for f in functions])(problem.base)
    assert np.linalg.norm(expected) > 0.1
    for gradient in [*found, jax.grad(closure)(problem.base)]:
        close(backend, gradient, expected, 1e-12)


@on("torch")
@pytest.mark.parametrize("leaf", [True, False])
def test_captured_tensors_in_torch(backend, like64, leaf):
    """A leaf gets its `.grad`; a non-leaf passes the gradient on; x, an argument, gets its own beside it."""
    problem, x, y = captured_case(like64)
    weight = problem.base.clone().requires_grad_()
    base = weight if leaf else 1.0 * weight
    x.requires_grad_()
    level = nf.Argmin(lambda x, y: dataclasses.replace(problem, base=base).lower(x, y), nf.Sphere(4))
    problem.upper(x, nf.solve(level, x, init=y).value).backward()
    close(
        backend,
        weight.grad,
        backend.to_numpy(nf.grad(captures(problem, x.detach(), y)[0])(problem.base)),
        1e-12,
    )
    close(backend, x.grad, backend.to_numpy(problem.euclidean_gradient(x.detach())))


@on("torch")
def test_parameters_of_a_captured_module(backend, like64):
    import torch

    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2).double()
    x = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    level = nf.Argmin(lambda x, y: ((y - net(x)) ** 2).sum() + (y**4).sum(), nf.Euclidean(2))
    y = nf.solve(level, x, init=torch.zeros(2, dtype=torch.float64)).value
    y.sum().backward()
    slope = 2 / (2 + 12 * y.detach() ** 2)  # of y* with respect to net(x)
    close(backend, net.bias.grad, slope.numpy())
    close(backend, net.weight.grad, np.outer(slope, x))


@on("numpy", "torch")
def test_a_captured_map_and_field(backend, like64):
    """Captured by a `FixedPoint` and by a `Root`: W ≠ Wᵀ."""
    problem = tanh_fixed_point(like=like64, n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))

    def outer(level, *variables):
        return problem.upper(x, nf.solve(level, *variables, x, init=y).value)

    def argument(weight):
        level = nf.FixedPoint(lambda w, x, y: dataclasses.replace(problem, weight=w).map(x, y), nf.Euclidean(4))
        return outer(level, weight)

    def fixed_point(weight):
        return outer(nf.FixedPoint(dataclasses.replace(problem, weight=weight).map, nf.Euclidean(4)))

    def root(weight):
        this = dataclasses.replace(problem, weight=weight)
        return outer(nf.Root(lambda x, y: this.map(x, y) - y, nf.Euclidean(4)))

    expected, *found = [nf.grad(f)(problem.weight) for f in (argument, fixed_point, root)]
    assert np.abs(backend.to_numpy(expected - expected.mT)).max() > 0.1
    for gradient in found:
        close(backend, gradient, backend.to_numpy(expected), 1e-10)


# -- a solver that autodiff cannot pass --------------------------------------------------------------------


def test_a_solver_outside_of_autodiff(backend, like64):
    """Through NumPy and back, and one that refuses traced arrays: the same gradients."""
    problem = smallest_eigenvector(like=like64, n=4, p=2)
    plain = smallest_eigenvector(like=np.zeros(()), n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))
    level = problem.problem().lower

    def through_numpy(x, init):
        return backend.asarray(plain.solution(np.array(backend.to_numpy(x))), like=like64)

    def refuses(x, init):
        assert type(x) in (type(like64), np.ndarray), type(x)
        assert not getattr(x, "requires_grad", False)
        return through_numpy(x, init) if backend.owns(x) else plain.solution(x)

    def outer(x, function):
        return problem.upper(x, nf.solve(level, x, init=y, solver=nf.External(function)).value)

    expected = backend.to_numpy(problem.euclidean_gradient(x))
    close(backend, nf.grad(outer)(x, through_numpy), expected, 1e-12)
    close(backend, backend.jit(nf.grad(lambda x: outer(x, refuses)))(x), expected, 1e-12)


@on("numpy", "array_api_strict", "torch")
def test_a_solver_that_answers_in_numpy(backend, like64):
    problem = smallest_eigenvector(like=like64, n=4, p=2)
    plain = smallest_eigenvector(like=np.zeros(()), n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))
    solver = nf.External(lambda x, init: plain.solution(backend.to_numpy(x)))
    found = nf.solve(problem.problem().lower, x, init=y, solver=solver)
    assert backend.owns(found.value) and found.value.dtype == y.dtype
    close(backend, found.value, backend.to_numpy(problem.solution(x)), 1e-12)
