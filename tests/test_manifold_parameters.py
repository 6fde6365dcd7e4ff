"""Manifolds are trees: their array parameters are arguments, move with derivatives, and move the answers of levels."""

import copy
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, namespace
from nestfold.backends._trees import _listeners, leaves, on_node, tree_map
from nestfold.manifolds import Manifold, Product
from nestfold.manifolds._linalg import dot
from nestfold.manifolds._parameters import expand


@dataclass(frozen=True, eq=False)
class Shell(Manifold):
    """{x : |x| = r}, whose radius may be learned."""

    parameters: ClassVar = ("radius",)

    n: int
    radius: Any

    @property
    def shape(self):
        return (self.n,)

    @property
    def dim(self):
        return self.n - 1

    def inner(self, x, u, v):
        return dot(u, v, 1)

    def project(self, x, a):
        return a - (dot(x, a, 1, keepdims=True) / dot(x, x, 1, keepdims=True)) * x

    def sharp(self, x, w):
        return self.project(x, w)

    def connection(self, x, w, u):
        return -(dot(x, w, 1, keepdims=True) / dot(x, x, 1, keepdims=True)) * u

    def retract(self, x, u):
        y = x + u
        squared = dot(y, y, 1, keepdims=True)
        return expand(self.radius, 1) * (y / namespace(squared).sqrt(squared))

    def transport(self, x, y, u):
        return self.project(y, u)

    def from_noise(self, z):
        return self.retract(z, 0.0 * z)

    def defect(self, x):
        return namespace(x, self.radius).abs(dot(x, x, 1) - self.radius**2)


def answer(manifold, a, y0):
    """argmin of a·y + (a·y)²/5 + Σ sinh y on a small sphere: no closed form, and every derivative matters."""

    def cost(a, y):
        xp = namespace(a, y)
        return xp.sum(a * y) + xp.sum(a * y) ** 2 / 5 + xp.sum(xp.sinh(y))

    options = {"solver": nf.TrustRegion(tol=1e-13), "estimator": nf.Implicit(nf.CG(tol=1e-14))}
    return nf.solve(nf.Argmin(cost, manifold), a, init=y0, **options).value


@pytest.fixture
def problem(backend, like64):
    """`a, start, weight`: the outer variable, a point of the shell of radius 1/2, and a covector."""
    values = [[0.5, -0.2, 0.3], [0.3, 0.4, 0.0], [1.0, 0.3, -0.7]]
    return tuple(backend.asarray(np.array(v), like=like64) for v in values)


def numerically(f, t, order):
    """The derivative of `f`, by central differences."""
    h = 1e-3 if order > 1 else 1e-4
    stencil = {
        1: ([-1 / 60, 3 / 20, -3 / 4, 0, 3 / 4, -3 / 20, 1 / 60], 1),
        2: ([1 / 90, -3 / 20, 1.5, -49 / 18, 1.5, -3 / 20, 1 / 90], 2),
    }
    weights, power = stencil[order]
    return sum(w * f(t + k * h) for k, w in zip(range(-3, 4), weights, strict=True)) / h**power


def test_an_answer_moves_with_its_manifold(backend, like64, problem):
    """First and second derivatives with respect to the radius, alone and mixed with the outer variable."""
    a, start, weight = problem
    xp = backend.xp

    def value(r, s):
        y = answer(Shell(3, r), s * a, backend.stop_gradient(r) * 2 * start)
        return namespace(y).sum(weight * y)

    r, s = (backend.asarray(np.array(v), like=like64) for v in (0.5, 1.3))
    number = lambda t: float(backend.to_numpy(t))  # noqa: E731
    plain = lambda r, s: number(value(*(backend.asarray(np.array(v), like=like64) for v in (r, s))))  # noqa: E731
    first = nf.grad(value, argnums=(0, 1))(r, s)
    assert number(first[0]) == pytest.approx(numerically(lambda t: plain(t, 1.3), 0.5, 1), abs=1e-9)
    assert number(first[1]) == pytest.approx(numerically(lambda t: plain(0.5, t), 1.3, 1), abs=1e-9)
    one = xp.ones_like(r)
    forward = nf.jvp(lambda r: value(r, s), (r,), (one,))[1]
    assert number(forward) == pytest.approx(number(first[0]), abs=1e-12)
    second = nf.grad(lambda r: nf.grad(value)(r, s))(r)
    mixed = nf.grad(lambda s: nf.grad(value)(r, s))(s)
    assert number(second) == pytest.approx(numerically(lambda t: plain(t, 1.3), 0.5, 2), abs=1e-6)
    slope = lambda t: number(nf.grad(value)(r, backend.asarray(np.array(t), like=like64)))  # noqa: E731
    assert number(mixed) == pytest.approx(numerically(slope, 1.3, 1), abs=1e-9)


@pytest.mark.parametrize("kind", ["Root", "FixedPoint"])
def test_answers_of_other_levels_move_too(backend, like64, problem, kind):
    """y = -r a/|a| as the zero of the field a, and as the fixed point of a map: dy/dr = -a/|a|."""
    a, start, weight = problem

    def value(r):
        manifold = Shell(3, r)
        if kind == "Root":
            level = nf.Root(lambda y: a, manifold)
        else:
            level = nf.FixedPoint(lambda y: manifold.retract(y, -0.5 * manifold.project(y, a)), manifold)
        y = nf.solve(level, init=-start, estimator=nf.Implicit(nf.Dense())).value
        return namespace(y).sum(weight * y)

    r = backend.asarray(np.array(0.5), like=like64)
    exact = -float(backend.to_numpy(backend.xp.sum(weight * a))) / 0.38**0.5
    assert float(backend.to_numpy(value(r))) == pytest.approx(0.5 * exact, abs=1e-10)
    assert float(backend.to_numpy(nf.grad(value)(r))) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "jax"], indirect=True)
def test_hypergradient_refuses_a_manifold_that_is_differentiated(backend, like64, problem):
    a, start, _ = problem

    def value(r):
        lower = nf.Argmin(lambda x, y: namespace(y).sum(x * y), Shell(3, r))
        return nf.hypergradient(nf.Bilevel(lambda x, y: namespace(y).sum(y), nf.Euclidean(3), lower), a, start).value

    r = backend.asarray(np.array(0.5), like=like64)
    with pytest.raises(NoDerivativeError):
        nf.grad(value)(r)


# -- trees --------------------------------------------------------------------------------------------
def test_a_manifold_is_a_tree_of_its_parameters(backend, like64):
    r = backend.asarray(np.array([1.0, 2.0]), like=like64)
    product = Product({"a": Shell(3, r), "b": nf.Sphere(2)})
    assert len(leaves(product)) == 1 and leaves(product)[0] is r
    doubled = tree_map(lambda t: 2 * t, product)
    assert repr(doubled).startswith("Product({'a': Shell(n=3, radius=")
    np.testing.assert_array_equal(backend.to_numpy(doubled.factors[0].radius), [2.0, 4.0])
    assert leaves(nf.Sphere(3)) == [] and leaves([nf.Sphere(3), r]) == [r]


def test_derivatives_with_respect_to_a_manifold(backend, like64):
    """A manifold is an argument of `grad`; what comes back is a tree of the same structure."""
    r = backend.asarray(np.array([1.0, 2.0]), like=like64)
    z = backend.asarray(np.array([[3.0, 0.0], [0.6, 0.8]]), like=like64)
    gradient = nf.grad(lambda m: namespace(m.radius).sum(m.from_noise(z)))(Shell(2, r))
    np.testing.assert_allclose(backend.to_numpy(gradient.radius), [1.0, 1.4], rtol=1e-15)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_manifolds_pass_through_jit(backend, like64):
    import jax

    z = backend.asarray(np.array([3.0, 4.0]), like=like64)
    compiled = jax.jit(lambda m, z: (m.from_noise(z), m))
    traces = []
    counted = jax.jit(lambda m, z: traces.append(m) or m.from_noise(z))
    for radius in (1.0, 2.0):
        m = Shell(2, backend.asarray(np.array(radius), like=like64))
        point, same = compiled(m, z)
        np.testing.assert_allclose(backend.to_numpy(point), radius * np.array([0.6, 0.8]), rtol=1e-15)
        assert isinstance(same, Shell) and same.n == 2
        counted(m, z)
    assert len(traces) == 1
    gradient = jax.grad(lambda m: m.from_noise(z).sum())(Shell(2, like64 + 2))
    assert float(gradient.radius) == pytest.approx(1.4)
    assert jax.jit(lambda m, x: m.dist(x, -x))(nf.Sphere(2), z / 5) == pytest.approx(np.pi)
    product = nf.Product([nf.Sphere(2), Shell(2, like64 + 1)])
    assert jax.tree_util.tree_structure(product) == jax.tree_util.tree_structure(
        nf.Product([nf.Sphere(2), Shell(2, z)])
    )


def test_equality_is_that_of_fields_and_arrays_equal_only_themselves(backend, like64):
    r, other = like64 + 1.0, like64 + 1.0
    assert Shell(3, r) == Shell(3, r) != Shell(3, other)
    assert Shell(3, 1.0) == Shell(3, 1.0) != Shell(3, 2.0)
    assert hash(Shell(3, r)) == hash(Shell(3, r)) and hash(Shell(3, 1.0)) == hash(Shell(3, 1.0))
    assert Shell(3, r) != Shell(4, r) and Shell(3, r) != nf.Sphere(3)
    assert len({Shell(3, r), Shell(3, r), Shell(3, other)}) == 2


def test_manifolds_are_copied_and_pickled():
    for manifold in (nf.Sphere(3), nf.Stiefel(3, 2), nf.Product({"a": nf.Sphere(3)})):
        assert pickle.loads(pickle.dumps(manifold)) == manifold == copy.deepcopy(manifold)


def test_who_listens_for_trees_twice_hears_once():
    """A second adapter of JAX, as after a reset of the registry, must not register every class again."""
    heard = []
    listen = heard.append

    def listener(cls, flatten, unflatten):
        listen(cls)

    try:
        on_node(listener)
        count = len(heard)
        on_node(listener)
        assert len(heard) == count > 50 and len(set(heard)) == count
    finally:
        _listeners.remove(listener)
