"""The linear program of the tape: what it replays, how long it may be, what it keeps."""

from __future__ import annotations

import collections
import gc
import sys
import threading
import time
import tracemalloc

import array_api_compat.numpy as xp
import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import get_backend
from nestfold.backends._numpy import NumpyBackend
from nestfold.backends.tape import Program, Tape
from nestfold.backends.tape.program import FOLD_AFTER
from nestfold.backends.tape.rules import elementwise

BACKEND = get_backend("numpy")
RNG = np.random.default_rng(7)


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


# -- nothing nonlinear is computed again -------------------------------------------------------------
class Counted:
    """A namespace that counts the calls of its functions."""

    def __init__(self, space, counts, prefix=""):
        self._space, self._counts, self._prefix = space, counts, prefix

    def __getattr__(self, name):
        own = getattr(self._space, name)
        if name in ("linalg", "fft"):
            return Counted(own, self._counts, f"{name}.")
        if not callable(own) or isinstance(own, type):
            return own

        def call(*args, **keywords):
            self._counts[self._prefix + name] += 1
            return own(*args, **keywords)

        return call


class CountingBackend(NumpyBackend):
    """NumPy with every function of the namespace counted."""

    direct = {}  # noqa: RUF012

    def __init__(self):
        self.counts = collections.Counter()
        self.xp = Counted(xp, self.counts)
        super().__init__()


LINEAR = {"abs", "add", "conj", "imag", "multiply", "negative", "positive", "real", "subtract", "where"}
NONLINEAR = set(elementwise.ELEMENTWISE) - LINEAR
SYMMETRIC = (lambda a: a @ a.T + 4 * np.eye(4))(RNG.standard_normal((4, 4)))
WEIGHT = RNG.standard_normal((4, 4))
COSTS = {
    "inv": lambda ns, m: ns.linalg.inv(m) * WEIGHT,
    "solve": lambda ns, m: ns.linalg.solve(m, WEIGHT @ m),
    "solve a vector": lambda ns, m: ns.linalg.solve(m, WEIGHT @ m[0, :]) * WEIGHT[0],
    "cholesky": lambda ns, m: ns.linalg.cholesky(m) * WEIGHT,
    "eigh": lambda ns, m: (lambda e: (e[1] * ns.log(e[0])) @ (e[1].mT * WEIGHT))(ns.linalg.eigh(m)),
    "eigvalsh": lambda ns, m: ns.linalg.eigvalsh(m) * WEIGHT[0],
    "svd": lambda ns, m: (lambda s: (s[0] * s[1]) @ (s[2] * WEIGHT))(ns.linalg.svd(m + WEIGHT, full_matrices=False)),
    "qr": lambda ns, m: ns.linalg.qr(m)[1] * WEIGHT,
    "pinv": lambda ns, m: ns.linalg.pinv(m[:, :3]) * WEIGHT[:3],
    "det": lambda ns, m: ns.linalg.det(m) * WEIGHT,
    "slogdet": lambda ns, m: ns.linalg.slogdet(m)[1] * WEIGHT,
    "matrix_power": lambda ns, m: ns.linalg.matrix_power(m, -3) * WEIGHT,
    "vector_norm": lambda ns, m: ns.linalg.vector_norm(m) * WEIGHT,
    "elementwise": lambda ns, m: ns.exp(-m) * ns.sin(m) + ns.tanh(m) / ns.sqrt(m * m + 1) + ns.logaddexp(m, 2 * m),
    "powers": lambda ns, m: m**3 + ns.abs(m) ** 1.5 + 2.0**m + ns.atan2(m, 1 + m * m) + ns.log1p(m * m),
    "softmax": lambda ns, m: (lambda e: e / ns.sum(e, axis=1, keepdims=True))(ns.exp(m)) * WEIGHT,
}


@pytest.mark.parametrize("what", COSTS)
def test_a_replay_computes_nothing_nonlinear(what):
    backend = CountingBackend()

    def cost(m):
        ns = nf.namespace(m)
        return ns.sum(COSTS[what](ns, m) ** 2)

    gradient, push = backend.linearize(lambda m: nf.grad(cost)(m), SYMMETRIC)
    again, pull = backend.vjp(lambda m: nf.grad(cost)(m), SYMMETRIC)
    np.testing.assert_array_equal(gradient, again)
    tangent = WEIGHT + WEIGHT.T
    first = push(tangent), pull(tangent)[0]
    backend.counts.clear()
    for _ in range(FOLD_AFTER + 3):
        later = push(tangent), pull(tangent)[0]
        np.testing.assert_allclose(later, first, rtol=1e-10, atol=1e-10 * np.max(np.abs(first)))
    called = set(backend.counts)
    assert not {name for name in called if name.startswith(("linalg.", "fft."))}
    assert not called & NONLINEAR


# -- what is run ---------------------------------------------------------------------------------------
def test_what_is_not_needed_is_dropped():
    program, _ = record(lambda x: (np.exp(x), np.sin(x) @ np.cos(x), 2 * x)[2], np.ones(3))
    assert len(program.steps) == 1


def test_few_applications_are_not_folded():
    x = np.ones(3)
    program, _ = record(lambda x: np.exp(np.sin(x)), x)
    steps = program.steps
    for _ in range(FOLD_AFTER):
        program.pull([x])
        assert program.steps is steps
    program.pull([x])
    assert len(program.steps) < len(steps)


def test_inputs_are_not_written_to_and_may_be_tuples_of_themselves():
    x = RNG.standard_normal((3, 3))
    _, push = nf.linearize(lambda x: (x, -x, x.T, x + x, x), x)
    t = x.copy()
    for _ in range(FOLD_AFTER + 2):
        same, minus, turned, twice, again = push(t)
        np.testing.assert_array_equal(t, x)
        np.testing.assert_array_equal(same, x)
        np.testing.assert_array_equal(again, x)
        np.testing.assert_array_equal(minus, -x)
        np.testing.assert_array_equal(turned, x.T)
        np.testing.assert_array_equal(twice, 2 * x)


# -- long chains, memory, threads --------------------------------------------------------------------
def long_chain(n):
    def f(x):
        y = x
        for _ in range(n // 2):
            y = y * 0.999 + x
        return np.sum(y)

    return f


def test_very_long_chains():
    x, n = np.ones(3), 100_000
    assert n > 20 * sys.getrecursionlimit()
    value, pull = nf.vjp(long_chain(n), x)
    slope = (1 - 0.999 ** (n // 2 + 1)) / (1 - 0.999)
    np.testing.assert_allclose(value, 3 * slope, rtol=1e-9)
    for _ in range(FOLD_AFTER + 2):
        np.testing.assert_allclose(pull(np.float64(1.0))[0], slope, rtol=1e-9)
    _, moved = nf.jvp(long_chain(n), (x,), (x,))
    np.testing.assert_allclose(moved, 3 * slope, rtol=1e-9)


def test_time_is_linear_in_the_length():
    def seconds(n):
        found = []
        for _ in range(3):
            started = time.process_time()
            pull = nf.vjp(long_chain(n), np.ones(3))[1]
            for _ in range(FOLD_AFTER + 2):
                pull(np.float64(1.0))
            found.append(time.process_time() - started)
        return min(found)

    seconds(100)
    assert seconds(20_000) < 40 * seconds(2_000)


def test_memory_is_released():
    x = np.ones(100_000)  # 0.8 MB; the interpreter itself keeps some 0.2 MB of small objects

    def f(x):
        y = x
        for _ in range(50):
            y = np.sin(y) * 1.01 + x
        return np.sum(y)

    def use():
        pull = nf.vjp(f, x)[1]
        for _ in range(FOLD_AFTER + 2):
            pull(np.float64(1.0))
        nf.hvp(f, (x,), (x,))

    use()
    gc.collect()
    gc.disable()  # nothing may wait for the collector of cycles
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            use()
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak - before > 50 * x.nbytes
    assert left - before < x.nbytes


def test_a_folded_program_keeps_only_its_own_constants():
    x = np.ones(10_000)

    def f(x):
        y = x
        for _ in range(50):
            y = np.sin(y) * 1.01 + x
        return y

    tracemalloc.start()
    try:
        program, _ = record(f, x)
        whole = tracemalloc.get_traced_memory()[0]
        folded(program, x)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert whole > 50 * x.nbytes and left < 4 * x.nbytes
    assert peak < whole + 10 * x.nbytes  # what is multiplied on the way is not kept


def test_threads_share_a_program():
    x = RNG.standard_normal((20, 20))
    _, push = nf.linearize(lambda x: np.exp(np.sin(x)) @ x - 2 * x.T, x)
    expected, wrong = push(x), []

    def work():
        for _ in range(50):
            if not np.allclose(push(x), expected, rtol=1e-12, atol=1e-12):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
