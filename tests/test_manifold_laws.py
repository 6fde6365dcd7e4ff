"""Every manifold in the table of `nestfold.testing.cases` obeys the laws on every backend, and all backends agree."""

from dataclasses import dataclass

import numpy as np
import pytest

from nestfold.backends import NotOnManifoldError, namespace
from nestfold.backends._trees import leaves, tree_map
from nestfold.manifolds import (
    SPD,
    Exponential,
    Geodesic,
    InverseRetraction,
    Logarithmic,
    Manifold,
    Quotient,
    Sphere,
    derived_connection,
)
from nestfold.testing import laws
from nestfold.testing.cases import CASES

BATCHES = [(), (3,), (2, 0, 4)]
DTYPES = [np.float64, np.float32]
#: JAX compiles each case for seconds: by default it runs every manifold once, and these in float32 and without entries
ON_JAX = {"sphere", "SPD", "product"}
#: the logarithm of a Stiefel manifold is a program of its own, which the laws hold many times over: a minute each
HEAVY_ON_JAX = {
    *{"Stiefel, polar", "Stiefel, Cayley", "square Stiefel", "complex Stiefel", "canonical Stiefel"},
    "generalized Stiefel",
}
#: variants of manifolds that JAX compiles by default in another form
VARIANTS = {
    *{"matrices", "geodesic product", "nested product", "complex sphere", "square doubly stochastic"},
    *{"complex Grassmann", "rotations of 4-space", "complex PSD of fixed rank", "embedded Stiefel"},
    *{"stereographic, flat", "stereographic, sphere"},
}


def law_cases():
    for name in CASES:
        for batch in BATCHES:
            for dtype in DTYPES:
                for backend in ("numpy", "array_api_strict", "torch", "jax"):
                    once = batch == (3,) and dtype is np.float64 and name not in HEAVY_ON_JAX | VARIANTS
                    quick = once or (name in ON_JAX and (batch == (3,) or dtype is np.float64))
                    marks = [pytest.mark.slow] if backend == "jax" and not quick else []
                    yield pytest.param(backend, name, batch, dtype, marks=marks)


@pytest.mark.parametrize(("backend", "name", "batch", "dtype"), list(law_cases()), indirect=["backend"])
def test_laws(backend, name, batch, dtype, rng):
    CASES[name].check(backend.asarray(np.zeros((), dtype)), rng, batch)


def no_quotients():
    """A quotient has a connection for covectors of invariant costs alone, which the laws try."""
    return [name for name, case in CASES.items() if not isinstance(case.make(case.like(np.zeros(()))), Quotient)]


@pytest.mark.parametrize("name", no_quotients())
def test_the_connection_is_that_of_the_metric(name, rng):
    """`connection` agrees with the Levi-Civita connection as derived from `sharp` and `inner`."""
    case = CASES[name]
    like = case.like(np.zeros(()))
    manifold = case.make(like)
    s = laws.draw(manifold, rng, like, (2,), case.reach)
    got = manifold.project(s.x, manifold.connection(s.x, s.a, s.u))
    want = derived_connection(manifold, s.x, s.a, s.u)
    assert float(np.max(laws.gap(manifold, got, want))) < 1e-11


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.complex])
def test_the_dimension_is_the_rank_of_the_projector(name, rng):
    case = CASES[name]
    like = np.zeros(())
    manifold = case.make(like)
    x = manifold.random_point(rng, like=like)
    parts = leaves(x)
    sizes = [p.size for p in parts]
    trace = 0.0
    for k in range(sum(sizes)):
        flat = np.zeros(sum(sizes))
        flat[k] = 1.0
        pieces = np.split(flat, np.cumsum(sizes)[:-1])
        basis = iter([piece.reshape(p.shape) for piece, p in zip(pieces, parts, strict=True)])
        column = leaves(manifold.project(x, tree_map(lambda p, basis=basis: next(basis), x)))
        trace += np.concatenate([np.ravel(c) for c in column])[k]
    assert abs(trace - manifold.dim) < 1e-9


@dataclass(frozen=True)
class Mutant(Manifold):
    """Another manifold with one method spoilt."""

    of: Manifold
    method: str

    @property
    def shape(self):
        return self.of.shape

    @property
    def dim(self):
        return self.of.dim

    def _call(self, name, *args):
        result = getattr(self.of, name)(*args)
        return 1.01 * result if name == self.method else result

    def inner(self, x, u, v):
        return self._call("inner", x, u, v)

    def project(self, x, a):
        return self._call("project", x, a)

    def sharp(self, x, w):
        return self._call("sharp", x, w)

    def connection(self, x, w, u):
        return self._call("connection", x, w, u)

    def retract(self, x, u):
        return self._call("retract", x, u)

    def transport(self, x, y, u):
        return self._call("transport", x, y, u)

    def from_noise(self, z):
        return self._call("from_noise", z)

    def defect(self, x):
        return self._call("defect", x)


METHODS = ["inner", "project", "sharp", "connection", "retract", "transport", "from_noise"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["sphere", "SPD", "Stiefel, polar"])
def test_laws_notice_one_percent(name, method, rng):
    manifold = CASES[name].make(np.zeros(()))
    if isinstance(manifold, SPD) and method in ("from_noise", "retract"):
        # 1.01 x is positive definite too: a retraction then shows it by R(0) = x, noise not at all
        expected = [] if method == "from_noise" else ["R(0) = x"]
    else:
        expected = None
    mutant = Mutant(manifold, method)
    like = np.zeros(())
    if expected == []:
        laws.check_manifold(mutant, like, rng, retraction_order=2)
        return
    with pytest.raises((AssertionError, NotOnManifoldError)) as error:
        laws.check_manifold(mutant, like, rng, retraction_order=2)
    assert all(law in str(error.value) for law in expected or [])


def test_laws_notice_an_overridden_final_method(rng):
    class Bad(Mutant):
        def norm(self, x, u):
            return 0.0

    with pytest.raises(AssertionError, match="overrides final norm"):
        laws.check_manifold(Bad(Sphere(3), ""), np.zeros(()), rng)


# -- parameters ---------------------------------------------------------------------------------------
def array_parameters(manifold):
    return [p for p in leaves(manifold) if hasattr(p, "shape")]


def with_parameters():
    """The cases whose manifolds have array parameters."""
    return [name for name, case in CASES.items() if array_parameters(case.make(case.like(np.zeros(()))))]


def moved(manifold, direction, t):
    parts = iter(direction)
    return tree_map(lambda p: p + t * next(parts) if hasattr(p, "shape") else p, manifold)


def observed(manifold, s):
    """Numbers that depend on the manifold's parameters; points follow it by `retract(x, 0)`."""

    def there(p):
        return manifold.retract(p, manifold.zero_tangent(p))

    x = there(s.x)
    u = manifold.project(x, s.u)
    found = [manifold.inner(x, u, u), manifold.pair(s.a, manifold.sharp(x, s.b))]
    found += [manifold.pair(s.a, manifold.retract(x, u)), manifold.pair(u, manifold.connection(x, s.a, u))]
    if isinstance(manifold, Exponential):
        found += [manifold.pair(s.a, manifold.exp(x, u))]
    if isinstance(manifold, Logarithmic):
        found += [manifold.squared_dist(x, there(s.y)), manifold.pair(s.a, manifold.log(x, there(s.y)))]
    return found


@pytest.mark.parametrize("name", with_parameters())
def test_a_manifold_that_moves_takes_its_points_along(name, rng):
    """retract(x, 0) is a point also for an x that is slightly off, to first order: `solve` relies on it."""
    case = CASES[name]
    like = case.like(np.zeros(()))
    manifold = case.make(like)
    x = manifold.random_point(rng, like=like)
    direction = case.parameter_direction([rng.standard_normal(np.shape(p)) for p in array_parameters(manifold)])
    other = moved(manifold, direction, 1e-6)
    there = other.retract(x, other.zero_tangent(x))
    assert float(np.max(other.defect(there))) < 1e-10


@pytest.mark.parametrize("name", with_parameters())
@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
def test_derivatives_in_parameters(backend, name, like64):
    """Derivatives with respect to array parameters, forward and reverse, against differences."""
    case = CASES[name]
    like = case.like(like64)
    manifold = case.make(like)
    rng = np.random.default_rng(5)
    s = laws.draw(manifold, rng, like, (), case.reach)
    parameters = array_parameters(manifold)
    direction = case.parameter_direction([rng.standard_normal(tuple(p.shape)) for p in parameters])
    direction = [backend.asarray(d, like=p) for d, p in zip(direction, parameters, strict=True)]

    def numbers(*values):
        parts = iter(values)
        found = observed(tree_map(lambda p: next(parts) if hasattr(p, "shape") else p, manifold), s)
        return namespace(*found).stack(found)

    h = 1e-4
    steps = [numbers(*(p + k * h * d for p, d in zip(parameters, direction, strict=True))) for k in (-2, -1, 1, 2)]
    before, low, high, after = map(backend.to_numpy, steps)
    want = (before - 8 * low + 8 * high - after) / (12 * h)
    _, got = backend.jvp(numbers, tuple(parameters), tuple(direction))
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-7, atol=1e-8 * np.abs(want).max())
    _, pull = backend.vjp(numbers, *parameters)
    pulled = pull(backend.xp.ones_like(got))
    back = sum(float(backend.to_numpy(g * d).sum()) for g, d in zip(pulled, direction, strict=True))
    assert back == pytest.approx(float(want.sum()), rel=1e-6, abs=1e-7)


# -- across backends ----------------------------------------------------------------------------------
#: JAX runs these operations one by one, each compiled for itself: by default on some manifolds
AGREE_ON_JAX = {"sphere", "Stiefel, polar", "SPD", "product"}


def agree_cases():
    for backend in ("array_api_strict", "torch", "jax"):
        for name in CASES:
            slow = backend == "jax" and name not in AGREE_ON_JAX
            yield pytest.param(backend, name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("backend", "name"), list(agree_cases()), indirect=["backend"])
def test_backends_agree(backend, name, like64):
    """The same seed gives the same point, and the same values and derivatives, to 1e-12."""
    case = CASES[name]

    def results(like):
        like = case.like(like)
        manifold = case.make(like)
        s = laws.draw(manifold, np.random.default_rng(3), like, (2,), case.reach)
        cost = laws._fixed(case.cost or laws._unsymmetric(manifold), s)
        found = [s, manifold.inner(s.x, s.u, s.v), manifold.sharp(s.x, s.a), manifold.flat(s.x, s.u)]
        found += [
            manifold.gradient(cost, s.x),
            manifold.hessian(cost, s.x, s.u),
            manifold.transport(s.x, s.y, s.u),
        ]
        if isinstance(manifold, InverseRetraction):
            found += [manifold.inverse_retract(s.x, s.y)]
        if isinstance(manifold, Exponential):
            found += [manifold.exp(s.x, s.u)]
        if isinstance(manifold, Logarithmic):
            found += [manifold.log(s.x, s.y), manifold.dist(s.x, s.y), manifold.geodesic(s.x, s.y, 0.3)]
        if isinstance(manifold, Geodesic):
            found += [manifold.parallel_transport(s.x, s.y, s.u)]
        return found

    there = [backend.to_numpy(a) for a in leaves(results(like64))]
    here = leaves(results(np.zeros(())))
    for got, want in zip(there, here, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
