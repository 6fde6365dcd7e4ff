"""Linear programs of the tape, folded: few steps, and the same map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestfold as nf
from nestfold.backends import get_backend
from nestfold.backends.tape import Program, Tape
from nestfold.backends.tape.products import Product
from nestfold.backends.tape.program import FOLD_AFTER
from nestfold.hypergrad.problems import synthetic

BACKEND = get_backend("numpy")
RNG = np.random.default_rng(7)
MATRIX = RNG.standard_normal((4, 4))


def record(f, *arrays):
    """The program of `f` at these arrays, and its value."""
    tape = Tape(BACKEND)
    out = f(*[tape.input(x) for x in arrays])
    tape.is_open = False
    return Program(tape, range(len(arrays)), [out._index]), out.value


def folded(program, *given):
    """`program` after so many pushes that it is folded."""
    for _ in range(FOLD_AFTER + 1):
        program.push(given)
    return program


def both_ways(program, tangents, cotangent):
    """One push and one pull, None as 0."""
    pushed, pulled = program.push(tangents)[0], program.pull([cotangent])
    zero = [np.zeros_like(t) for t in tangents]
    pushed = np.zeros_like(cotangent) if pushed is None else pushed
    return pushed, [z if p is None else p for p, z in zip(pulled, zero, strict=True)]


def maps_of(program):
    return [m for _, _, maps in program.steps if type(maps) is tuple for m in maps]


# -- few steps ---------------------------------------------------------------------------------------
def test_an_elementwise_chain_is_one_multiplication():
    x = np.linspace(0.1, 1.0, 10)

    def f(x):
        y = x
        for _ in range(34):
            y = np.sin(y) * 1.01 + x
        return y

    program, _ = record(f, x)
    before = both_ways(program, [x], x)
    assert len(program.steps) == 102
    assert len(folded(program, x).steps) == len(maps_of(program)) == 1
    after = both_ways(program, [x], x)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    np.testing.assert_allclose(after[1], before[1], rtol=1e-12)


def test_the_hessian_of_the_synthetic_cost_is_four_products():
    problem = synthetic(like=np.zeros(1), d=6, r=3, n=20)
    w, _ = problem.start(np.random.default_rng(1))
    m = problem.solution(w)
    program, _ = record(lambda m: nf.grad(problem.lower, 1)(w, m), m)
    u = RNG.standard_normal((6, 6))
    before = both_ways(program, [u], u.T)
    folded(program, u)
    after = both_ways(program, [u], u.T)
    products = [p for p in maps_of(program) if isinstance(p, Product)]
    assert sum((p.left is not None) + (p.right is not None) for p in products) == 4
    np.testing.assert_allclose(after[0], before[0], rtol=1e-10)
    np.testing.assert_allclose(after[1][0], before[1][0], rtol=1e-10)


def test_the_hessian_of_the_logistic_cost_is_two_products():
    a, b = RNG.standard_normal((30, 5)), np.sign(RNG.standard_normal(30))

    def cost(x):
        return np.sum(np.logaddexp(0, -b * (a @ x))) + 0.05 * (x @ x)

    x, v = RNG.standard_normal(5), RNG.standard_normal(5)
    program, _ = record(nf.grad(cost), x)
    assert len(folded(program, v).steps) == 3
    z = a @ x
    weight = np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2
    np.testing.assert_allclose(program.push([v])[0], a.T @ (weight * (a @ v)) + 0.1 * v, rtol=1e-12)


def test_matrices_are_multiplied_only_where_that_pays():
    wide, x = RNG.standard_normal((40, 3)), RNG.standard_normal((3, 3))
    program, _ = record(lambda x: wide.T @ (wide @ x), x)  # 3 x 40 x 3: one product of 3 x 3 instead
    assert len(folded(program, x).steps) == 1 and maps_of(program)[0].left.shape == (3, 3)
    program, _ = record(lambda y: wide @ (wide.T @ y), RNG.standard_normal((40, 3)))  # would be 40 x 40
    assert len(folded(program, np.ones((40, 3))).steps) == 2
    square, v = RNG.standard_normal((30, 30)), np.ones(30)
    program, _ = record(lambda v: square @ (square @ v), v)  # a matrix product to save a product with a vector
    assert len(folded(program, v).steps) == 2


def test_a_shared_product_is_not_made_twice():
    a, x = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 4))

    def f(x):
        y = a @ x
        return a @ y + y @ a + y

    program, _ = record(f, x)
    folded(program, x)
    found = [m for m in maps_of(program) if isinstance(m, Product)]
    assert sum((p.left is not None) + (p.right is not None) for p in found) == 3
    y = a @ x
    np.testing.assert_allclose(program.push([x])[0], a @ y + y @ a + y, rtol=1e-12)


def test_an_output_on_the_way_is_kept():
    a, x = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 4))

    def f(x):
        y, z = a @ x, x @ a
        return y, a @ y, z, -z, 2 * x

    _, push = nf.linearize(f, x)
    for _ in range(FOLD_AFTER + 2):
        found = push(x)
    for one, expected in zip(found, f(x), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-12)


def test_users_that_came_by_detours_count():
    """What was used through nodes that are dropped is used directly afterwards, and must not be dropped itself."""
    a, b, d, x = RNG.standard_normal((4, 4, 4))

    def f(x):
        y = a @ x
        one, other = y.T.T, y.T.T
        return one + other, d * one - 2 * other, b @ y

    _, push = nf.linearize(f, x)
    for _ in range(FOLD_AFTER + 2):
        found = push(x)
    for one, expected in zip(found, f(x), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-12)


# -- folding changes nothing -------------------------------------------------------------------------
INDEX = np.array([2, 0, 2])
UNARY = {
    "sin": lambda xp, a: xp.sin(a),
    "exp": lambda xp, a: xp.exp(0.1 * a),
    "neg": lambda xp, a: -a,
    "square": lambda xp, a: a * a,
    "three": lambda xp, a: 3 * a - a / 7,
    "transpose": lambda xp, a: xp.matrix_transpose(a) if len(a.shape) == 2 else a,
    "flip": lambda xp, a: xp.flip(a, axis=0) if a.shape else a,
    "rows": lambda xp, a: a[::2] if a.shape else a,
    "index": lambda xp, a: a[INDEX[: a.shape[0]] % a.shape[0]] if a.shape else a,
    "sum": lambda xp, a: xp.sum(a, axis=0) if a.shape else a,
    "mean": lambda xp, a: xp.mean(a, axis=-1, keepdims=True) if a.shape else a,
    "total": lambda xp, a: xp.sum(a),
    "positive": lambda xp, a: +a,
    "where": lambda xp, a: xp.where(xp.real(a) > 0, a, 0.5 * a),
    "real": lambda xp, a: xp.real(a) + xp.imag(a) * 1j if "complex" in str(a.dtype) else a,
}
BINARY = {
    "add": lambda xp, a, b: a + b,
    "sub": lambda xp, a, b: a - b,
    "mul": lambda xp, a, b: a * b,
    "div": lambda xp, a, b: a / (2 + xp.abs(b)),
    "matmul": lambda xp, a, b: a @ b / 3 if a.shape and b.shape else a * b,
    "tanh": lambda xp, a, b: xp.tanh(xp.abs(a) * b / (1 + xp.abs(b))),
}
STEP = st.tuples(
    st.sampled_from([*UNARY, *BINARY, *["matmul"] * 8, *["transpose"] * 3]), st.integers(0, 99), st.integers(0, 99)
)


def straight_line(steps, constants):
    """The function that runs these steps on a pool of arrays; what does not fit is left out."""

    def f(*arrays):
        xp, pool, fresh = nf.namespace(*arrays), [*arrays, *constants], list(arrays)
        for name, i, j in steps:
            a, b = pool[-1 - i % len(pool)], pool[j % len(pool)]
            try:
                c = UNARY[name](xp, a) if name in UNARY else BINARY[name](xp, a, b)
            except (ValueError, IndexError):
                continue
            pool.append(c)
            fresh.append(c)
        return sum((xp.sum(c * c) for c in fresh[-3:]), start=xp.sum(fresh[0]))

    return f


def arrays_like(rng, shapes, dtype):
    found = []
    for shape in shapes:
        a = rng.standard_normal(shape)
        found.append((a + 1j * rng.standard_normal(shape) if "complex" in dtype else a).astype(dtype))
    return found


SHAPES = st.lists(st.sampled_from([(3, 3), (3, 3), (3, 3), (3,), (), (1, 3), (2, 3, 3)]), min_size=1, max_size=3)
DTYPES = st.sampled_from(["float64", "complex128", "float32"])


def close(found, expected, dtype):
    tolerance = 2e-4 if dtype == "float32" else 1e-9
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=12), SHAPES, SHAPES, DTYPES, st.integers(0, 2**20))
def test_folded_programs_are_the_same_map(steps, shapes, others, dtype, seed):
    rng = np.random.default_rng(seed)
    f = straight_line(steps, [*arrays_like(rng, others, dtype), np.arange(3)])
    with np.errstate(all="ignore"):
        at = arrays_like(rng, shapes, dtype)
        program, value = record(f, *at)
        if not np.isfinite(value) or abs(value) > 1e6:
            return
        tangents, (cotangent,) = arrays_like(rng, shapes, dtype), arrays_like(rng, [()], str(value.dtype))
        pushed, pulled = both_ways(program, tangents, cotangent)
        folded(program, *tangents)
        again, pulled_again = both_ways(program, tangents, cotangent)
    close(again, pushed, dtype)
    assert again.dtype == pushed.dtype
    for one, other, x in zip(pulled_again, pulled, at, strict=True):
        close(one, other, dtype)
        assert one.dtype == x.dtype and one.shape == x.shape
    left = np.sum(np.conj(cotangent) * again).real
    right = sum(np.sum(np.conj(g) * t).real for g, t in zip(pulled_again, tangents, strict=True))
    close(left, right, dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(STEP, min_size=1, max_size=8), SHAPES, st.sampled_from(["float64", "complex128"]), st.integers(0, 2**20)
)
def test_folded_programs_can_be_differentiated(steps, shapes, dtype, seed):
    """A second derivative: the program of a gradient, pulled back through, before and after it was folded."""
    rng = np.random.default_rng(seed)
    f = straight_line(steps, [np.arange(3.0)])
    at, along = arrays_like(rng, shapes, dtype), arrays_like(rng, shapes, dtype)
    n = len(at)

    def real(*xs):
        return nf.namespace(*xs).real(f(*xs))

    def moved(push):
        def g(*ts):
            out = push(*ts)
            return sum(nf.namespace(o).sum(nf.namespace(o).abs(o) ** 2) for o in out)

        return nf.grad(g, tuple(range(n)))(*along)

    with np.errstate(all="ignore"):
        value, push = nf.linearize(nf.grad(real, tuple(range(n))), *at)
        if not all(np.all(np.isfinite(v)) and np.max(np.abs(v)) < 1e4 for v in value):
            return
        before = moved(push)
        for _ in range(FOLD_AFTER + 1):
            push(*along)
        after = moved(push)
    for one, other in zip(after, before, strict=True):
        close(one, other, dtype)


def test_constants_of_older_tapes_are_not_folded():
    """A program whose constants are being differentiated, applied often: as without folding."""
    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    lengths = []

    def f(w):
        for g in (lambda x: x * w * w * w, lambda x: (w * MATRIX) @ ((w * MATRIX) @ ((w * MATRIX) @ x))):
            program, _ = record(g, MATRIX)
            lengths.append(len(folded(program, MATRIX).steps))
        _, push = nf.linearize(lambda x: np.exp(w * np.sin(w * x)) * 2 * w, x)
        t = v
        for _ in range(FOLD_AFTER + 4):
            t = 0.5 * push(t)
        return np.sum(t)

    def by_hand(w):
        d = np.exp(w * np.sin(w * x)) * 2 * w * w * np.cos(w * x) * w
        t = v
        for _ in range(FOLD_AFTER + 4):
            t = 0.5 * d * t
        return np.sum(t)

    w = np.linspace(0.2, 0.6, 4)
    np.testing.assert_allclose(nf.grad(f)(w), nf.grad(by_hand)(w), rtol=1e-10)
    assert lengths == [3, 3]
    along = np.cos(w)
    second = nf.hvp(f, (w,), (along,)), nf.hvp(by_hand, (w,), (along,))
    np.testing.assert_allclose(second[0], second[1], rtol=1e-9)


def test_single_precision_stays_and_does_not_weaken_double():
    x, weak = RNG.standard_normal((5, 5)), RNG.standard_normal(5).astype("float32")
    matrix = RNG.standard_normal((5, 5)).astype("float32")
    program, _ = record(lambda x: (x * weak * weak * weak, matrix @ (matrix @ (x * weak)))[1] * weak * weak, x)
    before = program.push([x])[0]
    assert folded(program, x).push([x])[0].dtype == np.float64
    np.testing.assert_allclose(program.push([x])[0], before, rtol=1e-14)
    single = x.astype("float32")
    program, _ = record(lambda x: np.sin(x * weak) * 3 * weak, single)
    assert folded(program, single).push([single])[0].dtype == np.float32
    assert len(program.steps) == 1 and program.pull([single])[0].dtype == np.float32


def test_integer_constants_do_not_overflow():
    small = np.array([100, 100, 100], dtype=np.int8)
    program, _ = record(lambda x: x * small * small * small, np.ones(3))
    np.testing.assert_array_equal(folded(program, np.ones(3)).push([np.ones(3)])[0], 1e6 * np.ones(3))


def test_constants_whose_product_overflows_are_left_alone():
    x = np.full(3, 1e-200)
    program, _ = record(lambda x: x * np.full(3, 1e200) * np.full(3, 1e200), x)
    np.testing.assert_allclose(folded(program, x).push([x])[0], 1e200)
    assert len(program.steps) == 2
    program, _ = record(lambda x: x * 1e200 * 1e200, x)
    np.testing.assert_allclose(folded(program, x).push([x])[0], 1e200)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 1, 3, 3)])
def test_batches_of_matrices_fold(shape):
    a, b, x = RNG.standard_normal((2, 3, 3)), RNG.standard_normal((3, 3)), RNG.standard_normal(shape)

    def f(x):
        ns = nf.namespace(x)
        return ns.matrix_transpose(b @ (x @ a)) @ b * 2 - ns.linalg.inv(x + 3 * np.eye(3)) @ a

    program, value = record(f, x)
    cotangent = RNG.standard_normal(value.shape)
    before = both_ways(program, [x], cotangent)
    steps = len(program.steps)
    folded(program, x)
    after = both_ways(program, [x], cotangent)
    assert len(program.steps) < steps
    np.testing.assert_allclose(after[0], before[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(after[1][0], before[1][0], rtol=1e-10, atol=1e-12)


def test_rows_and_columns_are_not_mixed_up():
    """A vector is a column for a factor on the left, a row for one on the right: (A v) B is not A (v B)."""
    a, b, v = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 2)), RNG.standard_normal(3)
    program, _ = record(lambda v: (a @ v) @ b, v)
    cotangent = RNG.standard_normal(2)
    before = both_ways(program, [v], cotangent)
    folded(program, v)
    after = both_ways(program, [v], cotangent)
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    np.testing.assert_allclose(after[1][0], a.T @ (b @ cotangent), rtol=1e-12)
