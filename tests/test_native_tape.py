"""`solve` is an ordinary differentiable function on the tape: NumPy, and the strict namespace in the place of CuPy."""

import dataclasses
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from optree.dataclasses import dataclass as tree_dataclass

import nestfold as nf
from nestfold.backends._trees import NAMESPACE
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


@pytest.fixture(params=["numpy", "array_api_strict"])
def like(request):
    """A zero in float64."""
    xp = nf.get_backend(request.param).xp
    return xp.zeros((), dtype=xp.float64)


def close(found, expected, rtol=1e-9):
    """|found - expected| <= rtol |expected|."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= rtol, error


def slope(f, x, u, h=1e-3):
    """The derivative of f along u by five points."""
    return sum(c * f(x + i * h * u) for i, c in STENCIL) / h


class Case:
    """A problem with exact derivatives, x, a direction u, and x ↦ upper(x, y*(x)) through `solve`."""

    def __init__(self, make, like):
        self.problem = make(like=like, n=4, p=2)
        rng = np.random.default_rng(0)
        self.x, self.y = self.problem.start(rng)
        self.u = nf.backend_of(like).noise(rng, (2,), like=like)
        self.level = self.problem.problem().lower

    def loss(self, x):
        return self.problem.upper(x, nf.solve(self.level, x, init=self.y).value)

    def answer(self, x):
        return nf.solve(self.level, x, init=self.y).value


@pytest.fixture(params=[smallest_eigenvector, tanh_fixed_point], ids=["sphere", "fixed_point"])
def case(request, like):
    return Case(request.param, like)


@pytest.fixture
def sphere(like):
    return Case(smallest_eigenvector, like)


FIRST = {
    "grad": lambda f, x, u: nf.grad(f)(x) @ u,
    "value_and_grad": lambda f, x, u: nf.value_and_grad(f)(x)[1] @ u,
    "vjp": lambda f, x, u: nf.vjp(f, x)[1](1.0)[0] @ u,
    "jvp": lambda f, x, u: nf.jvp(f, (x,), (u,))[1],
    "linearize": lambda f, x, u: nf.linearize(f, x)[1](u),
    "jacobian": lambda f, x, u: nf.jacobian(f)(x) @ u,
}
SECOND = {
    "hvp": lambda f, x, u: nf.hvp(f, (x,), (u,)),
    "hessian": lambda f, x, u: nf.hessian(f)(x) @ u,
    "grad of grad": lambda f, x, u: nf.grad(lambda x: nf.grad(f)(x) @ u)(x),
    "grad of jvp": lambda f, x, u: nf.grad(lambda x: nf.jvp(f, (x,), (u,))[1])(x),
    "jvp of grad": lambda f, x, u: nf.jvp(nf.grad(f), (x,), (u,))[1],
    "jacobian of grad": lambda f, x, u: nf.jacobian(nf.grad(f))(x) @ u,
    "jacobian of jacobian": lambda f, x, u: nf.jacobian(nf.jacobian(f))(x) @ u,
    "linearized grad": lambda f, x, u: nf.linearize(nf.grad(f), x)[1](u),
    "grad of checkpoint": lambda f, x, u: nf.hvp(lambda x: nf.checkpoint(f)(x), (x,), (u,)),
}


@pytest.mark.parametrize("mode", FIRST)
def test_first_derivatives(case, mode):
    close(FIRST[mode](case.loss, case.x, case.u), case.problem.euclidean_gradient(case.x) @ case.u)


@pytest.mark.parametrize("mode", SECOND)
def test_second_derivatives(case, mode):
    close(SECOND[mode](case.loss, case.x, case.u), case.problem.hessian_product(case.x, case.u))


def test_third_and_fourth_derivatives(case):
    f, x, u = case.loss, case.x, case.u
    product = lambda x: case.problem.hessian_product(x, u)  # noqa: E731
    third = lambda x: nf.grad(lambda x: nf.grad(lambda x: nf.grad(f)(x) @ u)(x) @ u)(x)  # noqa: E731
    expected = slope(product, x, u)
    close(third(x), expected, 1e-8)
    forward = nf.jvp(lambda x: nf.jvp(lambda x: nf.jvp(f, (x,), (u,))[1], (x,), (u,))[1], (x,), (u,))[1]
    close(forward, expected @ u, 1e-8)
    close(nf.jvp(third, (x,), (u,))[1], slope(lambda x: slope(product, x, u, 1e-2), x, u, 1e-2), 1e-5)


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
def test_third_derivatives_on_positive_matrices(backend, like64):
    """D³F[u, u, u] of the synthetic problem against finite differences of its exact gradient."""
    problem = synthetic(like=like64, d=3, r=2, n=6)
    w, m = problem.start(np.random.default_rng(0))
    u = backend.noise(np.random.default_rng(1), (3, 2), like=w)
    level = problem.problem().lower

    def along(t):
        y = nf.solve(level, w + t * u, init=m).value
        return problem.upper(w + t * u, y)

    zero = 0 * like64
    found = nf.grad(nf.grad(nf.grad(along)))(zero)
    gradient = lambda t: float(backend.xp.sum(problem.euclidean_gradient(w + t * u) * u))  # noqa: E731
    h = 1e-2
    weights = {-3: 1 / 90, -2: -3 / 20, -1: 3 / 2, 0: -49 / 18, 1: 3 / 2, 2: -3 / 20, 3: 1 / 90}
    expected = sum(c * gradient(i * h) for i, c in weights.items()) / h**2
    assert float(found) == pytest.approx(expected, rel=1e-7)


# -- trees and leaves -----------------------------------------------------------------------------------------------
class Pair(NamedTuple):
    """A named tuple."""

    x: Any
    scale: Any


@tree_dataclass(namespace=NAMESPACE)
class Record:
    """A dataclass registered with optree."""

    x: Any
    scale: Any


CONTAINERS = {
    "dict": (lambda x, s: {"x": x, "scale": s}, lambda t: (t["x"], t["scale"])),
    "list": (lambda x, s: [x, s], tuple),
    "nested": (lambda x, s: ({"a": [x]}, (s,)), lambda t: (t[0]["a"][0], t[1][0])),
    "named tuple": (Pair, lambda t: (t.x, t.scale)),
    "dataclass": (Record, lambda t: (t.x, t.scale)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_trees_outside(sphere, kind):
    make, parts = CONTAINERS[kind]
    case, one = sphere, nf.namespace(sphere.x).ones((), dtype=sphere.x.dtype)
    level = nf.Argmin(lambda t, y: parts(t)[1] * case.problem.lower(parts(t)[0], y), nf.Sphere(4))

    def loss(t):
        return case.problem.upper(parts(t)[0], nf.solve(level, t, init=case.y).value)

    found = nf.grad(loss)(make(case.x, 2 * one))
    assert type(found) is type(make(case.x, one))
    close(parts(found)[0], case.problem.euclidean_gradient(case.x))
    assert abs(float(parts(found)[1])) < 1e-12  # the answer does not depend on the scale
    moved = nf.hvp(loss, (make(case.x, 2 * one),), (make(case.u, 0 * one),))
    close(parts(moved)[0], case.problem.hessian_product(case.x, case.u))


def test_leaves_that_cannot_move(sphere):
    """Integers, masks, numbers, None, text and functions pass; what is not used gets zeros."""
    case, xp = sphere, nf.backend_of(sphere.x).xp
    others = {"rows": xp.arange(2), "mask": xp.asarray([True, False]), "scale": 2.0, "nothing": None, "name": "a"}

    def lower(o, spare, x, y):
        assert o["name"] == "a" and o["nothing"] is None and o["function"](3) == "3" and o["rows"].shape == (2,)
        return case.problem.lower(x, y) * o["scale"]

    def loss(x, spare):
        level = nf.Argmin(lower, nf.Sphere(4))
        y = nf.solve(level, others | {"function": str}, spare, x, init=case.y).value
        return case.problem.upper(x, y)

    spare = {"a": [xp.ones(3, dtype=xp.float64)]}
    gradient, zeros = nf.grad(loss, argnums=(0, 1))(case.x, spare)
    close(gradient, case.problem.euclidean_gradient(case.x))
    assert zeros["a"][0].shape == (3,) and not np.any(np.asarray(zeros["a"][0]))
    alone = lambda x: loss(x, spare)  # noqa: E731
    close(nf.jvp(alone, (case.x,), (case.u,))[1], case.problem.euclidean_gradient(case.x) @ case.u)
    product = case.problem.hessian_product(case.x, case.u)
    close(nf.hvp(alone, (case.x,), (case.u,)), product)
    close(nf.grad(lambda x: nf.jvp(alone, (x,), (case.u,))[1])(case.x), product)


def test_captured_arrays_of_every_level(sphere):
    """What the cost captures is traced by the outer derivative, by the inner one, or by both."""
    case = sphere

    def loss(base, x):
        lower = lambda y: y @ (dataclasses.replace(case.problem, base=base).matrix(x) @ y) / 2  # noqa: E731
        return case.problem.upper(x, nf.solve(nf.Argmin(lower, nf.Sphere(4)), init=case.y).value)

    def passed(base, x):
        lower = lambda a, x, y: y @ (dataclasses.replace(case.problem, base=a).matrix(x) @ y) / 2  # noqa: E731
        return case.problem.upper(x, nf.solve(nf.Argmin(lower, nf.Sphere(4)), base, x, init=case.y).value)

    base = case.problem.base
    close(nf.hvp(lambda x: loss(base, x), (case.x,), (case.u,)), case.problem.hessian_product(case.x, case.u))
    mixed = [nf.grad(lambda x, f=f: nf.namespace(x).sum(nf.grad(f)(base, x) * base))(case.x) for f in (loss, passed)]
    assert np.linalg.norm(np.asarray(mixed[1])) > 0.1
    close(mixed[0], mixed[1], 1e-11)


# -- how it is called -----------------------------------------------------------------------------------------------
def test_threads(sphere):
    """Each thread has its own tape; a traced array of one may be used by another while it waits."""
    case, found = sphere, {}

    def work(i):
        x = case.x + 0.01 * i
        found[i] = nf.hvp(case.loss, (x,), (case.u,))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i in range(4):
        close(found[i], case.problem.hessian_product(case.x + 0.01 * i, case.u))


def test_an_error_leaves_nothing_behind(sphere):
    """After a cost that raises in the middle of a derivative, the next derivative is right."""
    case, count = sphere, []

    def fragile(x, y):
        count.append(1)
        if len(count) == 7:
            raise RuntimeError("in the middle")
        return case.problem.lower(x, y)

    def loss(x):
        return case.problem.upper(x, nf.solve(nf.Argmin(fragile, nf.Sphere(4)), x, init=case.y).value)

    with pytest.raises(RuntimeError, match="in the middle"):
        nf.grad(loss)(case.x)
    close(nf.grad(loss)(case.x), case.problem.euclidean_gradient(case.x))


def test_a_poisoned_solver(case):
    """It sees plain arrays only, and derivatives of every order pass it by."""
    plain = Case(type_of(case.problem), np.zeros(()))
    backend = nf.backend_of(case.x)

    def black_box(x, init):
        assert type(x) is type(case.x) and type(init) is type(case.x)
        return backend.asarray(plain.problem.solution(np.asarray(x)), like=case.x)

    def loss(x):
        return case.problem.upper(x, nf.solve(case.level, x, init=case.y, solver=nf.External(black_box)).value)

    close(nf.hessian(loss)(case.x) @ case.u, case.problem.hessian_product(case.x, case.u))
    third = nf.grad(lambda x: nf.hvp(loss, (x,), (case.u,)) @ case.u)(case.x)
    close(third, slope(lambda x: case.problem.hessian_product(x, case.u), case.x, case.u), 1e-8)


def type_of(problem):
    return smallest_eigenvector if type(problem).__name__ == "SmallestEigenvector" else tanh_fixed_point


def three_levels(s, x, zeros):
    """x ↦ y*(x) ↦ z*(y): the innermost of the composed solves captured s."""
    space = nf.Euclidean(2)

    def inner(y):
        level = nf.Argmin(lambda y, z: total((z - y * x) ** 2 + 0.3 * z**4 + s * z * y), space)
        return nf.solve(level, y, init=zeros).value

    def cost(x, y):
        z = inner(y)
        return total((y - x - z) ** 2 + 0.1 * y**4 + z**2)

    y = nf.solve(nf.Argmin(cost, space), x, init=zeros).value
    return total((y - inner(y)) ** 2)


def total(a):
    return nf.namespace(a).sum(a)


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_captured_by_the_innermost_of_composed_solves(backend, like64):
    """Its rule runs after the functions around it have returned, what stands in for s there included."""
    s, x, u, zeros = (
        backend.asarray(np.array(a), like=like64) for a in ([0.1, 0.2], [0.3, -0.2], [1.0, -2.0], [0.0, 0.0])
    )
    f = lambda s: three_levels(s, x, zeros)  # noqa: E731
    gradient = nf.grad(f)
    close(float(total(gradient(s) * u)), float(slope(f, s, u)))
    close(float(nf.jvp(f, (s,), (u,))[1]), float(slope(f, s, u)))
    close(backend.to_numpy(nf.hvp(f, (s,), (u,))), backend.to_numpy(slope(gradient, s, u)), 1e-8)
