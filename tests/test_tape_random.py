"""Every differentiable function on random shapes: broadcasting, axes from behind, empty arrays and arrays of no axes.

Two references: differences and the transposition law, on shapes of any kind; and JAX, on a few shapes of each kind,
because JAX compiles every operation anew for every shape.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nestfold as nf
from nestfold.backends import get_backend

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
NUMPY = get_backend("numpy")


# -- entries: away from kinks, poles and branch cuts ---------------------------------------------------------------
def any_number(x):
    return x


def inside(x):  # |x| < 1
    return 0.8 * x / (1 + abs(x))


def above_one(x):
    return 1.3 + abs(x.real) + (0.4j * inside(x.imag) if np.iscomplexobj(x) else 0)


DOMAINS = {"any": any_number, "in": inside, "pos": above_one}
#: grids of distinct numbers, none of the one in the other, for functions with kinks where numbers are equal
GRIDS = {"even": 0.0, "odd": 0.1}


def entries(seed, shape, domain, is_complex):
    rng = np.random.default_rng(seed)
    if domain in GRIDS:
        n = math.prod(shape)
        return 0.2 * (rng.permutation(n).reshape(shape) - n // 2) + GRIDS[domain]
    x = rng.standard_normal(shape)
    x = x + 1j * rng.standard_normal(shape) if is_complex else x
    return DOMAINS[domain](x)


def seed_of(*parts):
    return zlib.crc32(repr(parts).encode())


# -- what is drawn: a function of (xp, *arrays), and the shapes and domains of the arrays ----------------------------
SIDES = {"min_side": 0, "max_side": 3}


def shapes(least=0, most=3):
    return hnp.array_shapes(min_dims=least, max_dims=most, **SIDES)


def unary(name, domain="any"):
    return st.builds(lambda s: (lambda xp, x: getattr(xp, name)(x), [(s, domain)]), shapes())


def binary(name, *domains):
    pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)
    return pairs.map(
        lambda p: (lambda xp, x, y: getattr(xp, name)(x, y), list(zip(p.input_shapes, domains, strict=True)))
    )


@st.composite
def reduced(draw, name, domain="any", least=0, side=0, axes=True, **static):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=max(side, least), max_side=3))
    n = len(shape)
    axis = st.none() | st.integers(-n, n - 1)
    if axes:
        axis |= st.lists(st.integers(-n, n - 1), min_size=1, max_size=n, unique_by=lambda a: a % n).map(tuple)
    keywords = {"axis": draw(axis), "keepdims": draw(st.booleans()), **static}
    return lambda xp, x: getattr(xp, name)(x, **keywords), [(shape, domain)]


@st.composite
def along(draw, name, domain="any", least_side=0, **static):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=least_side, max_side=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return lambda xp, x: getattr(xp, name)(x, axis=axis, **static), [(shape, domain)]


@st.composite
def permuted(draw):
    shape = draw(shapes(1))
    order = draw(st.permutations(range(len(shape))))
    return lambda xp, x: xp.permute_dims(x, tuple(order)), [(shape, "any")]


@st.composite
def indexed(draw):
    shape = draw(shapes(1))
    key = draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    return lambda xp, x: x[key], [(shape, "any")]


@st.composite
def gathered(draw):
    """By a mask, by integers (repeated too), and by `take` and `take_along_axis`."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    mask, rows = rng.random(shape) < 0.5, rng.integers(0, shape[0], size=4)
    places, flat = rng.integers(0, shape[axis], size=shape), rng.integers(0, shape[axis], size=5)
    ways = {
        "mask": lambda xp, x: x[xp.asarray(mask)],
        "rows": lambda xp, x: xp.reshape(x, (-1,))[xp.asarray(rows)],
        "take": lambda xp, x: xp.take(x, xp.asarray(flat), axis=axis),
        "along": lambda xp, x: xp.take_along_axis(x, xp.asarray(places), axis=axis),
    }
    return ways[draw(st.sampled_from(sorted(ways)))], [(shape, "any")]


@st.composite
def moved(draw):
    shape = draw(shapes(1))
    n = len(shape)
    i, j = draw(st.integers(-n, n - 1)), draw(st.integers(-n, n - 1))
    ways = {
        "moveaxis": lambda xp, x: xp.moveaxis(x, i, j),
        "expand_dims": lambda xp, x: xp.expand_dims(x, axis=i),
        "flip": lambda xp, x: xp.flip(x, axis=i),
        "flip all": lambda xp, x: xp.flip(x),
        "roll": lambda xp, x: xp.roll(x, j, axis=i),
        "roll all": lambda xp, x: xp.roll(x, j),
        "reshape": lambda xp, x: xp.reshape(x, (*shape[::-1],)),
        "flat": lambda xp, x: xp.reshape(x, (math.prod(shape),)),
        "squeeze": lambda xp, x: xp.squeeze(xp.expand_dims(x, axis=i), axis=i),
        "broadcast": lambda xp, x: xp.broadcast_to(x, (2, *shape)),
        "tile": lambda xp, x: xp.tile(x, (2, *[1] * (n - 1), 2)),
        "repeat": lambda xp, x: xp.repeat(x, 2, axis=i),
        "unstack": lambda xp, x: sum(xp.unstack(x, axis=i), start=xp.zeros_like(xp.sum(x, axis=i))),
        "meshgrid": lambda xp, x: xp.meshgrid(xp.reshape(x, (math.prod(shape),)), xp.sum(x)[None])[0],
        "astype": lambda xp, x: xp.astype(x, x.dtype),
    }
    return ways[draw(st.sampled_from(sorted(ways)))], [(shape, "any")]


@st.composite
def joined(draw):
    shape = draw(shapes(1))
    n = len(shape)
    axis, side = draw(st.integers(-n, n - 1)), draw(st.integers(0, 3))
    other = tuple(side if a == axis % n else m for a, m in enumerate(shape))
    if draw(st.booleans()):
        return lambda xp, x, y: xp.concat([x, y, x], axis=axis), [(shape, "any"), (other, "any")]
    return lambda xp, x, y: xp.stack([x, y], axis=axis), [(shape, "any"), (shape, "any")]


@st.composite
def multiplied(draw):
    """`matmul` of every kind: vectors, matrices, batches that broadcast."""
    sides = st.integers(0, 3)
    m, n, p = draw(sides), draw(sides), draw(sides)
    kind = draw(st.sampled_from(["vector", "left", "right", "batches"]))
    if kind == "vector":
        left, right = (n,), (n,)
    elif kind == "left":
        left, right = (n,), (*draw(shapes(0, 1)), n, p)
    elif kind == "right":
        left, right = (*draw(shapes(0, 1)), m, n), (n,)
    else:
        pair = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, min_side=0, max_side=2))
        left, right = (*pair.input_shapes[0], m, n), (*pair.input_shapes[1], n, p)
    return lambda xp, a, b: a @ b, [(left, "any"), (right, "any")]


@st.composite
def contracted(draw):
    m, n, p, q = (draw(st.integers(0, 3)) for _ in range(4))
    ways = {
        "vecdot": (lambda xp, a, b: xp.vecdot(a, b), [(m, n), (p, m, n)]),
        "vecdot axis": (lambda xp, a, b: xp.vecdot(a, b, axis=-2), [(m, n), (m, 1)]),
        "tensordot 0": (lambda xp, a, b: xp.tensordot(a, b, axes=0), [(m, n), (p,)]),
        "tensordot 1": (lambda xp, a, b: xp.tensordot(a, b, axes=1), [(m, n), (n, p)]),
        "tensordot": (lambda xp, a, b: xp.tensordot(a, b, axes=((-1, 0), (0, -1))), [(m, p, n), (n, q, m)]),
        "outer": (lambda xp, a, b: xp.linalg.outer(a, b), [(m,), (n,)]),
        "cross": (lambda xp, a, b: xp.linalg.cross(a, b, axis=0), [(3, n), (3, n)]),
    }
    f, found = ways[draw(st.sampled_from(sorted(ways)))]
    return f, [(s, "any") for s in found]


def hermitian(xp, a):
    at = xp.matrix_transpose(a)
    return 0.5 * (a + (xp.conj(at) if "complex" in str(a.dtype) else at))


def shifted(xp, a, factor=4.0):
    """A regular matrix."""
    return a + factor * xp.eye(a.shape[-1], dtype=a.dtype)


def spectral(xp, a):
    values, vectors = xp.linalg.eigh(hermitian(xp, a))
    adjoint = xp.matrix_transpose(vectors)
    adjoint = xp.conj(adjoint) if "complex" in str(a.dtype) else adjoint
    return (vectors * xp.expand_dims(xp.exp(0.2 * values), axis=-2)) @ adjoint


SQUARE = {
    "inv": lambda xp, a: xp.linalg.inv(shifted(xp, a)),
    "det": lambda xp, a: xp.linalg.det(a),
    "slogdet": lambda xp, a: xp.linalg.slogdet(shifted(xp, a))[1],
    "cholesky": lambda xp, a: xp.linalg.cholesky(hermitian(xp, a) + 9 * xp.eye(a.shape[-1], dtype=a.dtype)),
    "eigvalsh": lambda xp, a: xp.linalg.eigvalsh(hermitian(xp, a)),
    "eigh": spectral,
    "qr": lambda xp, a: xp.linalg.qr(shifted(xp, a))[1],
    "matrix_power": lambda xp, a: xp.linalg.matrix_power(a, 3),
    "matrix_power -1": lambda xp, a: xp.linalg.matrix_power(shifted(xp, a), -1),
    "trace": lambda xp, a: xp.linalg.trace(a, offset=1),
    "diagonal": lambda xp, a: xp.linalg.diagonal(a, offset=-1),
    "tril": lambda xp, a: xp.tril(a, k=-1),
    "triu": lambda xp, a: xp.triu(a, k=1),
    "matrix_transpose": lambda xp, a: xp.matrix_transpose(a) + a.mT,
}
RECTANGULAR = {
    "svdvals": lambda xp, a: xp.linalg.svdvals(a),
    "pinv": lambda xp, a: xp.linalg.pinv(a),
    "vector_norm": lambda xp, a: xp.linalg.vector_norm(a, axis=-2, ord=3),
    "matrix_norm": lambda xp, a: xp.linalg.matrix_norm(a),
    "matrix_norm 1": lambda xp, a: xp.linalg.matrix_norm(a, ord=1),
    "matrix_norm 2": lambda xp, a: xp.linalg.matrix_norm(a, ord=2),
    "matrix_norm nuc": lambda xp, a: xp.linalg.matrix_norm(a, ord="nuc", keepdims=True),
}


@st.composite
def square(draw, name):
    n = draw(st.integers(1 if name == "slogdet" else 0, 3))
    return SQUARE[name], [((*draw(shapes(0, 1)), n, n), "any")]


@st.composite
def rectangular(draw, name):
    m, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return RECTANGULAR[name], [((*draw(shapes(0, 1)), m, n), "pos" if name == "vector_norm" else "any")]


@st.composite
def solved(draw):
    n, p = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    right = (n,) if draw(st.booleans()) else (*draw(shapes(0, 1)), n, p)
    return lambda xp, a, b: xp.linalg.solve(shifted(xp, a), b), [((n, n), "any"), (right, "any")]


@st.composite
def transformed(draw, name):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=4))
    keywords = {"norm": draw(st.sampled_from(["backward", "ortho", "forward"]))}
    least = 2 if name in ("irfft", "hfft") else 1
    if draw(st.booleans()) or name in ("irfft", "hfft"):
        keywords["n"] = draw(st.integers(least, 5))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return lambda xp, x: getattr(xp.fft, name)(x, axis=axis, **keywords), [(shape, "any")]


@st.composite
def transformed_all(draw, name):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=3))
    axes = draw(st.sampled_from([(-1,), (0, -1), (-1, 0)]))
    s = tuple(draw(st.integers(2, 4)) for _ in axes)
    return lambda xp, x: getattr(xp.fft, name)(x, s=s, axes=axes), [(shape, "any")]


BOTH = {
    **{n: unary(n) for n in "abs conj cos cosh exp expm1 negative positive real sin sinh square tanh".split()},
    **{n: unary(n, "in") for n in "acos acosh asin asinh atan atanh tan".split() if n != "acosh"},
    **{n: unary(n, "pos") for n in "acosh log log10 log1p log2 reciprocal sqrt sign".split()},
    **{n: binary(n, "any", "any") for n in ("add", "multiply", "subtract")},
    "divide": binary("divide", "any", "pos"), "pow": binary("pow", "pos", "any"),
    "sum": reduced("sum"), "mean": reduced("mean", side=1), "prod": reduced("prod"),
    "cumulative_sum": along("cumulative_sum"), "cumulative_prod": along("cumulative_prod"),
    "cumulative_sum 0": along("cumulative_sum", include_initial=True),
    "cumulative_prod 1": along("cumulative_prod", include_initial=True), "diff": along("diff", least_side=1),
    "permute_dims": permuted(), "getitem": indexed(), "gather": gathered(), "moves": moved(), "joins": joined(),
    "matmul": multiplied(), "contractions": contracted(), "solve": solved(),
    **{f"linalg.{n}": square(n) for n in SQUARE}, **{f"linalg.{n}": rectangular(n) for n in RECTANGULAR},
    **{f"fft.{n}": transformed(n) for n in ("fft", "ifft", "irfft", "hfft")},
    **{f"fft.{n}": transformed_all(n) for n in ("fftn", "ifftn", "irfftn")},
}  # fmt: skip
REAL = {
    **{n: binary(n, "even", "odd") for n in "hypot maximum minimum".split()},
    "atan2": binary("atan2", "any", "pos"), "copysign": binary("copysign", "odd", "odd"),
    **{n: reduced(n, "odd", side=1) for n in ("max", "min")}, **{n: along("sort", "odd", descending=d) for n, d in
    (("sort", False), ("sort down", True))}, "logaddexp": binary("logaddexp", "any", "any"),
    "remainder": binary("remainder", "in", "pos").map(
        lambda c: (lambda xp, x, y: xp.remainder(0.5 * x + 2.5 * y, y), c[1])
    ),
    "var": reduced("var", side=1), "std": reduced("std", "odd", side=3, axes=False),
    "clip": shapes().map(lambda s: (lambda xp, x: xp.clip(x, -0.5, 0.7), [(s, "even")])),
    "where": binary("maximum", "even", "odd").map(lambda c: (lambda xp, x, y: xp.where(x > y, x * y, y), c[1])),
    "fft.rfft": transformed("rfft"), "fft.ihfft": transformed("ihfft"), "fft.rfftn": transformed_all("rfftn"),
}  # fmt: skip
CASES = {**BOTH, **REAL}
#: what array_api_strict does not allow by its own rules: keys with fewer indices than axes
NOT_STRICT = {"getitem"}
COMPLEX_OUT = {"fft.fft", "fft.ifft", "fft.fftn", "fft.ifftn", "fft.irfft", "fft.hfft", "fft.irfftn"}  # want complex


def pairing(a, b):
    return np.sum((np.conj(a) * b).real)


def size(*arrays):
    return 1 + max((abs(np.asarray(a)).max(initial=0.0) for a in arrays), default=0.0)


def differences(f, xs, us, step=2e-3):
    """Df(xs)[us], by central differences of order 8."""
    total = 0.0
    for k, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        ahead, behind = (f(*[x + s * k * step * u for x, u in zip(xs, us, strict=True)]) for s in (1, -1))
        total = total + weight / step * (np.asarray(ahead) - np.asarray(behind))
    return total


def example(data, name, is_complex):
    f, specs = data.draw(CASES[name])
    seed = data.draw(st.integers(0, 2**16))
    xs = [entries(seed_of(seed, i), s, d, is_complex) for i, (s, d) in enumerate(specs)]
    us = [entries(seed_of(seed, i, "u"), s, "any", is_complex) for i, (s, _) in enumerate(specs)]
    return f, xs, us, seed


def derivatives(backend, f, xs, us, seed):
    """Value, pushed and pulled, second derivatives, as NumPy arrays; and the cotangent and the gradient."""
    xs, us = ([backend.asarray(v) for v in vs] for vs in (xs, us))

    def call(*xs):
        return f(nf.namespace(*xs), *xs)

    value, pushed = backend.jvp(call, tuple(xs), tuple(us))
    plain = backend.to_numpy(value)
    w = entries(seed_of(seed, "w"), plain.shape, "any", np.iscomplexobj(plain)).astype(plain.dtype)

    def gradient(*xs):
        return nf.vjp(call, *xs)[1](backend.asarray(w))

    pulled, second = backend.jvp(gradient, tuple(xs), tuple(us))
    found = [[backend.to_numpy(a) for a in part] for part in ([value, pushed], pulled, second)]
    return found, w, gradient


def check(data, name, is_complex):
    f, xs, us, seed = example(data, name, is_complex)
    ((value, pushed), pulled, second), w, gradient = derivatives(NUMPY, f, xs, us, seed)
    plain = np.asarray(f(NUMPY.xp, *xs))
    assert value.shape == pushed.shape == plain.shape and value.dtype == pushed.dtype == plain.dtype
    assert abs(value - plain).max(initial=0) <= 1e-13 * size(plain), "value"
    for x, p, s in zip(xs, pulled, second, strict=True):
        assert p.shape == s.shape == x.shape and p.dtype == s.dtype == x.dtype
    moved = differences(lambda *xs: f(nf.namespace(*xs), *xs), xs, us)
    assert abs(pushed - moved).max(initial=0) < 1e-8 * size(pushed, value), "tangent"
    there, back = pairing(w, pushed), sum(pairing(p, u) for p, u in zip(pulled, us, strict=True))
    assert abs(there - back) < 1e-11 * size(pushed, *pulled) * (1 + value.size), "transposition"
    for k, found in enumerate(second):
        moved = differences(lambda *xs, k=k: gradient(*xs)[k], xs, us)
        assert abs(found - moved).max(initial=0) < 1e-7 * size(found, *pulled), "second derivative"
    return f, xs, us, seed, (value, pushed, *pulled, *second)


HEALTHY = (
    HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture
)  # fmt: skip


def budget(examples):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=HEALTHY,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(CASES) - COMPLEX_OUT))
@budget(12)
@given(data=st.data())
def test_real(name, data):
    check(data, name, False)


@pytest.mark.parametrize("name", sorted(BOTH))
@budget(12)
@given(data=st.data())
def test_complex(name, data):
    check(data, name, True)


#: one of each kind: third derivatives
THIRD = """
tanh divide pow abs sum prod cumulative_prod matmul solve getitem joins linalg.inv linalg.det linalg.slogdet
linalg.cholesky linalg.eigh linalg.qr linalg.pinv linalg.svdvals linalg.vector_norm fft.fft
"""


@pytest.mark.parametrize("name", THIRD.split())
@budget(6)
@given(data=st.data())
def test_third_order(name, data):
    f, xs, us, seed = example(data, name, True)
    _, _, gradient = derivatives(NUMPY, f, xs, us, seed)

    def second(*xs):
        return nf.jvp(gradient, xs, tuple(us))[1]

    third = nf.jvp(second, tuple(xs), tuple(us))[1]
    for k, found in enumerate(third):
        moved = differences(lambda *xs, k=k: second(*xs)[k], xs, us)
        assert abs(found - moved).max(initial=0) < 1e-6 * size(found, moved), "third derivative"


OTHERS = ["array_api_strict", pytest.param("cupy", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("backend", OTHERS, indirect=True)
@pytest.mark.parametrize("name", sorted(set(CASES) - COMPLEX_OUT - NOT_STRICT))
@budget(4)
@given(data=st.data())
def test_other_libraries(backend, name, data):
    """The same rules on CuPy, and on a library that has nothing but the standard, to the same numbers."""
    f, xs, us, seed = example(data, name, False)
    mine, theirs = (derivatives(b, f, xs, us, seed)[0] for b in (NUMPY, backend))
    for ours, other in zip(mine, theirs, strict=True):
        for a, b in zip(ours, other, strict=True):
            assert a.shape == b.shape and abs(a - b).max(initial=0) <= 1e-12 * size(a)


#: what JAX refuses or gets wrong: d sign z = 0, complex; norms and differences that it gives NaN for
NOT_JAX = {"sign", "linalg.matrix_norm 2"}


def compare_with_jax(data, name, is_complex):
    f, xs, us, seed = example(data, name, is_complex)
    assume(name != "linalg.det" or xs[0].shape[-1] > 0)  # of no rows and columns: JAX's own error
    found, w, _ = derivatives(NUMPY, f, xs, us, seed)

    def call(*xs):
        return f(jnp, *xs)

    def gradient(*xs):
        value = lambda *xs: jnp.sum((jnp.conj(w) * call(*xs)).real)  # noqa: E731
        return jax.vjp(value, *xs)[1](jnp.ones(()))

    pulled, second = jax.jvp(gradient, tuple(map(jnp.asarray, xs)), tuple(map(jnp.asarray, us)))
    wanted = [jax.jvp(call, tuple(xs), tuple(us)), map(jnp.conj, pulled), map(jnp.conj, second)]
    for mine, other in zip(found, wanted, strict=True):
        for a, b in zip(mine, other, strict=True):
            b = np.asarray(b)
            assert a.shape == b.shape and abs(a - b).max(initial=0) < 1e-10 * size(a), name


def against_jax(data, name):
    with enable_x64(True):
        compare_with_jax(data, name, name in COMPLEX_OUT or (name in BOTH and data.draw(st.booleans())))


with_jax = pytest.mark.parametrize("name", sorted(set(CASES) - NOT_JAX))


@with_jax
@budget(2)
@given(data=st.data())
def test_against_jax(name, data):
    """A little, as JAX compiles for every shape."""
    against_jax(data, name)


@pytest.mark.slow
@with_jax
@budget(10)
@given(data=st.data())
def test_thoroughly_against_jax(name, data):
    against_jax(data, name)
