"""`solve` is an ordinary differentiable function of JAX, in any nesting; each value against an exact one."""

import dataclasses

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, tanh_fixed_point
from nestfold.testing._usable import double_precision

jax = pytest.importorskip("jax")
jnp = jax.numpy
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))


@pytest.fixture(autouse=True)
def _double_precision():
    with double_precision("jax"):
        yield


def close(found, expected, rtol=1e-9, what="it"):
    """|found - expected| <= rtol |expected|."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= rtol, (what, error)


class Case:
    """A problem with exact derivatives, x, three points, u, and x ↦ upper(x, y*(x)) through `solve`."""

    def __init__(self, make, dtype="float64"):
        self.problem, self.plain = (make(like=like, n=4, p=2) for like in (jnp.zeros((), dtype), np.zeros(())))
        rng = np.random.default_rng(0)
        self.x, self.y = self.problem.start(rng)
        self.u = jnp.asarray(rng.standard_normal(2), dtype)
        self.points = self.x + jnp.asarray(0.1 * rng.standard_normal((3, 2)), dtype)
        self.level = self.problem.problem().lower

    def loss(self, x):
        return self.problem.upper(x, nf.solve(self.level, x, init=self.y).value)

    def gradient(self, x):
        return self.plain.euclidean_gradient(np.asarray(x))

    def product(self, x):
        return self.plain.hessian_product(np.asarray(x), np.asarray(self.u))

    def third(self, x):
        """D³F[u, u, ·] by finite differences of exact Hessian products."""
        x, u, h = np.asarray(x), np.asarray(self.u), 1e-3
        return sum(c * self.plain.hessian_product(x + i * h * u, u) for i, c in STENCIL) / h


def first(f, x, u):
    return {
        "grad": jax.grad(f)(x) @ u,
        "vjp": jax.vjp(f, x)[1](jnp.ones((), x.dtype))[0] @ u,
        "jvp": jax.jvp(f, (x,), (u,))[1],
        "jacfwd": jax.jacfwd(f)(x) @ u,
        "jacrev": jax.jacrev(f)(x) @ u,
        "linearize": jax.linearize(f, x)[1](u),
        "linear_transpose": jax.linear_transpose(jax.linearize(f, x)[1], x)(jnp.ones((), x.dtype))[0] @ u,
        "checkpoint": jax.grad(jax.checkpoint(f))(x) @ u,
        "nf.grad": nf.grad(f)(x) @ u,
    }


def second(f, x, u):
    return {
        "hessian": jax.hessian(f)(x) @ u,
        "jacfwd of jacfwd": jax.jacfwd(jax.jacfwd(f))(x) @ u,
        "grad of grad": jax.grad(lambda x: jax.grad(f)(x) @ u)(x),
        "grad of jvp": jax.grad(lambda x: jax.jvp(f, (x,), (u,))[1])(x),
        "linearized grad": jax.linearize(jax.grad(f), x)[1](u),
        "grad of grad of checkpoint": jax.grad(lambda x: jax.grad(jax.checkpoint(f))(x) @ u)(x),
    }


def around(f, xs, u):
    """Loops, branches and maps around it."""
    branch = lambda x: jax.lax.cond(x[0] > -9, f, lambda x: jnp.sum(x), x)  # noqa: E731
    return {
        "vmap of grad": jax.vmap(jax.grad(f))(xs),
        "grad of vmap": jax.grad(lambda xs: jnp.sum(jax.vmap(f)(xs)))(xs),
        "vmap along an axis": jax.vmap(jax.grad(f), in_axes=1, out_axes=1)(xs.T).T,
        "lax.map": jax.lax.map(jax.grad(f), xs),
        "grad of scan": jax.grad(lambda xs: jax.lax.scan(lambda sum_, x: (sum_ + f(x), None), 0.0, xs)[0])(xs),
        "cond": jax.vmap(jax.grad(branch))(xs),
    }


@pytest.mark.parametrize("make", [smallest_eigenvector, tanh_fixed_point])
@pytest.mark.parametrize("modes", [first, second])
@pytest.mark.slow
def test_derivatives_at_a_point(make, modes):
    case = Case(make)
    expected = case.gradient(case.x) @ np.asarray(case.u) if modes is first else case.product(case.x)
    for name, found in jax.jit(lambda x, u: modes(case.loss, x, u))(case.x, case.u).items():
        close(found, expected, what=name)


@pytest.mark.parametrize("make", [smallest_eigenvector, tanh_fixed_point])
@pytest.mark.slow
def test_loops_and_maps_around_it(make):
    case = Case(make)
    expected = case.gradient(case.points)
    for name, found in jax.jit(lambda xs, u: around(case.loss, xs, u))(case.points, case.u).items():
        close(found, expected, what=name)


@pytest.mark.parametrize("make", [smallest_eigenvector, pytest.param(tanh_fixed_point, marks=pytest.mark.slow)])
def test_telling_nestings(make):
    """Maps of Hessians, and scans of reverse over reverse: each mixes three transformations."""
    case = Case(make)

    @jax.jit
    def found(xs, u):
        def scanned(u):
            return jax.lax.scan(lambda c, x: (c, jax.grad(lambda x: jax.grad(case.loss)(x) @ u)(x)), 0.0, xs)[1]

        return jax.vmap(jax.hessian(case.loss))(xs) @ u, scanned(u)

    for product in found(case.points, case.u):
        close(product, np.stack([case.product(x) for x in case.points]))


def test_third_derivatives():
    case = Case(smallest_eigenvector)

    @jax.jit
    def third(x, u):
        return jax.jvp(jax.grad(lambda x: jax.grad(case.loss)(x) @ u), (x,), (u,))[1]

    close(third(case.x, case.u), case.third(case.x), 1e-8)


@pytest.mark.slow
def test_third_derivatives_in_every_mode():
    case = Case(tanh_fixed_point)

    @jax.jit
    def found(x, u):
        along = lambda t: case.loss(x + t * u)  # noqa: E731
        return (
            jax.jacfwd(jax.jacfwd(jax.jacfwd(case.loss)))(x) @ u @ u,
            jax.jacrev(jax.jacrev(jax.jacrev(case.loss)))(x) @ u @ u,
            jax.grad(jax.grad(jax.grad(along)))(0.0),
        )

    expected = case.third(case.x)
    *gradients, number = found(case.x, case.u)
    for gradient in gradients:
        close(gradient, expected, 1e-8)
    close(number, expected @ np.asarray(case.u), 1e-8)


@jax.tree_util.register_pytree_node_class
class Point:
    """A pytree of JAX's own."""

    def __init__(self, x, scale):
        self.x, self.scale = x, scale

    def tree_flatten(self):
        return (self.x, self.scale), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_pytrees_integers_and_captured_tracers():
    """A custom pytree outside, beside integers, masks and None; the cost captures x, which is mapped."""
    case = Case(smallest_eigenvector)
    others = {"rows": jnp.arange(3), "mask": jnp.asarray([True, False]), "nothing": None, "scale": 2.0}

    def lower(others, point, y):
        assert others["nothing"] is None
        return point.scale * others["scale"] * case.problem.lower(point.x, y) + 0 * y[others["rows"]][0]

    def loss(others, point):
        y = nf.solve(nf.Argmin(lower, nf.Sphere(4)), others, point, init=case.y).value
        return case.problem.upper(point.x, y)

    def captured(x):
        level = nf.Argmin(lambda y: case.problem.lower(x, y), nf.Sphere(4))
        return case.problem.upper(x, nf.solve(level, init=case.y).value)

    @jax.jit
    def found(x, xs):
        integers, point = jax.grad(loss, argnums=(0, 1), allow_int=True)(others, Point(x, jnp.asarray(2.0)))
        kinds.update({name: value.dtype for name, value in integers.items() if value is not None})
        return point.x, point.scale, jax.vmap(jax.grad(captured))(xs)

    kinds = {}
    gradient, scale, mapped = found(case.x, case.points)
    close(gradient, case.gradient(case.x))
    assert abs(float(scale)) < 1e-12  # the answer does not depend on the scale
    assert kinds["rows"] == kinds["mask"] == jax.dtypes.float0
    close(mapped, case.gradient(case.points))


def test_captured_by_the_outer_derivative_alone():
    """Mixed derivatives: the gradient in what is captured, differentiated by what is passed."""
    case = Case(smallest_eigenvector)

    def loss(base, x):
        problem = dataclasses.replace(case.problem, base=base)
        return case.problem.upper(x, nf.solve(nf.Argmin(problem.lower, nf.Sphere(4)), x, init=case.y).value)

    @jax.jit
    def mixed(base, x, v, u):
        return jax.jvp(lambda x: jnp.sum(jax.grad(loss)(base, x) * v), (x,), (u,))[1]

    shift = np.diag(np.arange(4.0))
    along = [dataclasses.replace(case.plain, base=case.plain.base + i * 1e-3 * shift) for i, _ in STENCIL]
    x, u = np.asarray(case.x), np.asarray(case.u)
    expected = sum(c * p.euclidean_gradient(x) @ u for (_, c), p in zip(STENCIL, along, strict=True)) / 1e-3
    close(mixed(case.problem.base, case.x, jnp.asarray(shift), case.u), expected, 1e-8)


@pytest.mark.slow
def test_single_precision():
    case = Case(smallest_eigenvector, "float32")
    found = jax.jit(jax.hessian(case.loss))(case.x)
    assert found.dtype == np.float32
    close(found @ case.u, case.product(case.x), 1e-4)


@pytest.mark.slow
def test_a_poisoned_solver():
    """Called back with NumPy's arrays, once for each entry of a map."""
    case, calls = Case(smallest_eigenvector), []

    def black_box(x, init):
        assert type(x) is np.ndarray and x.shape == (2,)
        calls.append(1)
        return case.plain.solution(x)

    def loss(x):
        return case.problem.upper(x, nf.solve(case.level, x, init=case.y, solver=nf.External(black_box)).value)

    found = jax.jit(jax.vmap(jax.hessian(loss)))(case.points)
    close(found @ case.u, np.stack([case.product(x) for x in case.points]))
    assert len(calls) == 3


SPACE = nf.Euclidean(2)
ONES = np.ones(2)
MATRIX = np.asarray([[2.0, 0.5], [0.0, 3.0]])
NUMBERS = {
    "Argmin, passed": lambda s: (
        nf.solve(nf.Argmin(lambda s, y: jnp.sum((y - s) ** 2 + y**4), SPACE), s, init=jnp.zeros(2)).value
    ),
    "Root, captured": lambda s: (
        nf.solve(nf.Root(lambda x, y: s * (x @ y) + y**3 - 1, SPACE), jnp.asarray(MATRIX), init=jnp.zeros(2)).value
    ),
    "FixedPoint, captured": lambda s: (
        nf.solve(
            nf.FixedPoint(lambda x, y: jnp.sin(0.3 * s * y) + x * s, SPACE), jnp.asarray(ONES), init=jnp.zeros(2)
        ).value
    ),
    "OneStep": lambda s: (
        nf.solve(nf.FixedPoint(lambda s, y: 0.1 * y + s, SPACE), s, init=jnp.zeros(2), estimator=nf.OneStep()).value
    ),
    "linear_solve, passed": lambda s: nf.linear_solve(lambda s, v: s * (MATRIX @ v), s, jnp.asarray(ONES)).value,
    "linear_solve, captured": lambda s: (
        nf.linear_solve(lambda p, v: s * (p @ v), jnp.asarray(MATRIX), jnp.asarray(ONES)).value
    ),
}


def test_a_number_of_python():
    """`jax.grad(f)(2.0)` outside of `jit` traces a number of Python, no array."""
    exact = -np.sum(np.linalg.solve(MATRIX, ONES)) / 4
    close(jax.grad(lambda s: jnp.sum(NUMBERS["linear_solve, captured"](s)))(2.0), exact)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.slow
def test_a_number_of_python_in_every_mode(name):
    f = lambda s: jnp.sum(NUMBERS[name](s))  # noqa: E731
    first, second = jax.grad(f), jax.grad(jax.grad(f))
    exact = jax.jit(first)(2.0)
    assert abs(float(exact)) > 0.05
    for found in (first(2.0), jax.jacfwd(f)(2.0), jax.linearize(f, 2.0)[1](1.0), jax.vjp(f, 2.0)[1](1.0)[0]):
        close(found, exact)
    exact = jax.jit(second)(2.0)
    close(1 + second(2.0), 1 + exact)
    close(1 + jax.jvp(first, (2.0,), (1.0,))[1], 1 + exact)
