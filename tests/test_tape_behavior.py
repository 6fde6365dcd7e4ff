"""What the tape promises besides right numbers: nesting, refusals, no traces left behind, captured arrays."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend

backend = get_backend("numpy")
strict = pytest.importorskip("array_api_strict")


def derivative(f):
    """The derivative of a function of one number, forward."""
    return lambda x: nf.jvp(f, (x,), (np.ones(()),))[1]


ORDERS = [nf.grad, derivative]
ONE, TWO = np.array(1.0), np.array(2.0)


# -- nesting -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("outer", ORDERS)
@pytest.mark.parametrize("inner", ORDERS)
def test_perturbations_are_not_confused(outer, inner):
    """Radul et al. (2018): d/dx [x d/dy (x + y)] = 1; and the example of autodidax."""
    assert outer(lambda x: x * inner(lambda y: x + y)(x))(TWO) == 1
    assert outer(lambda x: x * inner(lambda y: x * y)(x))(np.array(3.0)) == 6

    def f(x):
        return inner(lambda y: inner(lambda z: x * y * z * z)(y) * x)(x)  # d/dy(2 x² y²) = 4 x² y at y = x

    assert outer(f)(TWO) == 12 * 4


@pytest.mark.parametrize("modes", [(a, b, c) for a in ORDERS for b in ORDERS for c in ORDERS])
def test_third_derivatives_in_every_nesting_of_modes(modes):
    def f(x):
        return np.exp(2 * x) * np.sin(x)

    for mode in modes:
        f = mode(f)
    x = 0.3
    expected = math.exp(2 * x) * (2 * math.sin(x) + 11 * math.cos(x))
    assert abs(f(np.array(x)) - expected) < 1e-12


def test_a_replayed_linear_map_is_differentiable():
    """`pull` and `push` made outside are functions of their argument, also where they are differentiated
    inside.
    """
    x = np.array([1.0, 2.0])
    _, pull = nf.vjp(np.sin, x)
    _, push = nf.linearize(np.sin, x)
    for f in (lambda c: pull(c)[0], push):
        found = nf.grad(lambda c, f=f: np.sum(f(c) ** 2))(x)
        assert np.allclose(found, 2 * np.cos(x) ** 2 * x, atol=1e-15)


# -- nothing is left behind ----------------------------------------------------------------------------------
def test_exceptions_leave_no_state():
    def fails(x):
        nf.grad(lambda y: np.sum(x * y))(x)
        raise RuntimeError("user's own")

    x = np.ones(3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="own"):
            nf.grad(fails)(x)
        with pytest.raises(RuntimeError, match="own"):
            backend.hoist(fails, x)
    assert np.array_equal(nf.grad(lambda x: np.sum(x * x))(x), 2 * x)
    assert type(x * 2) is np.ndarray


def test_two_threads_at_once():
    x, errors, start = np.linspace(0.1, 1, 5), [], threading.Barrier(2)

    def work(k):
        start.wait()
        for i in range(200):
            factor = k + i % 7
            found = nf.hvp(lambda x, factor=factor: np.sum(np.sin(factor * x)), (x,), (np.ones(5),))
            if not np.allclose(found, -(factor**2) * np.sin(factor * x)):
                errors.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_long_chain_needs_no_stack():
    def f(x):
        for _ in range(50_000):
            x = 0.5 * x + 0.5
        return x

    x = np.array(3.0)
    y, pull = nf.vjp(f, x)
    push = nf.linearize(f, x)[1]
    assert y == 1 and pull(ONE)[0] == 0 and push(ONE) == 0
    del pull, push
    gc.collect()


def test_memory_is_released():
    class Watched(np.ndarray):
        pass

    alive = []

    def watch(y):
        kept = np.ones(1000).view(Watched)
        alive.append(weakref.ref(kept))
        return np.sum(y * kept)

    gc.disable()
    try:
        x = np.ones(1000)
        nf.grad(watch)(x)
        nf.hvp(watch, (x,), (x,))
        assert not any(ref() is not None for ref in alive)
        _, pull = nf.vjp(watch, x)
        assert alive[-1]() is not None
        del pull
        assert alive[-1]() is None
    finally:
        gc.enable()


def test_a_leaked_array_is_told_by_name():
    kept = []
    nf.grad(lambda x: kept.append(x) or np.sum(x))(np.ones(2))
    (leak,) = kept
    for use in (
        lambda: leak + 1,
        lambda: leak > 0,
        lambda: np.exp(leak),
        lambda: leak[0],
        lambda: leak @ leak,
    ):
        with pytest.raises(NoDerivativeError, match="has returned"):
            use()
    assert "shape=(2,)" in repr(leak)


# -- what is refused, and what is not
# ----------------------------------------------------------------------------
def write(y):
    y[0] = 1


def write_into_plain(y):
    plain = np.ones(3)
    plain += y


def fill_a_buffer(y):
    plain = np.zeros(3)
    with pytest.raises(ValueError) as caught:  # NumPy's own error, caused by ours
        plain[0] = y[0]
    assert isinstance(caught.value.__cause__, NoDerivativeError)
    plain[:] = y


def expm(y):
    import scipy.linalg

    return scipy.linalg.expm(y[:, None] * y)


REFUSED = {
    "concat or stack": write,
    "a = a \\+ b": write_into_plain,
    "float": lambda y: float(y[0]),
    "where in place of an if": lambda y: 1 if y[0] else 0,
    "int": lambda y: int(y[0]),
    "index": lambda y: [1, 2][y[0]],
    "complex": lambda y: complex(y[0]),
    "copying": copy.deepcopy,
    "copying of": copy.copy,
    "pickling": pickle.dumps,
    "conversion to a plain NumPy": np.asarray,
    "plain NumPy array": lambda y: np.array([y[0], y[1]]),
    "it cannot leave its framework": fill_a_buffer,
    "np.fft.fft into a plain array": lambda y: np.fft.fft(y, out=np.zeros(3, dtype=complex)),
    "np.sum into a plain array": lambda y: np.sum(y, out=np.zeros(())),
    "histogram2d": lambda y: np.histogram2d(y, y),
    "np.quantile by its second argument": lambda y: np.quantile(np.ones(3), y[0]),
    "np.where\\(mask, values, y\\)": lambda y: np.putmask(np.ones(3), y > 0, y),
    "reflect_type": lambda y: np.pad(y, 2, "reflect", reflect_type="odd"),
    "np.bincount": lambda y: np.add.at(np.zeros(3), [0, 1, 1], y),
    "np.exp with where": lambda y: np.exp(y, where=y > 0),
    "scipy.*expm": expm,
    "float\\(\\)": lambda y: math.exp(y[0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_lose_the_derivative_is_refused(message):
    if "scipy" in message:
        pytest.importorskip("scipy")

    def f(y):
        REFUSED[message](y)
        return np.sum(y)

    with pytest.raises(NoDerivativeError, match=message):
        nf.grad(f)(np.array([1.0, 2.0, 3.0]))


def test_unsupported_functions_run_where_no_derivative_flows():
    a = np.arange(3.0)

    def f(y):
        xp = nf.namespace(y)
        assert np.array_equal(xp.fft.fft(a), np.fft.fft(a)) and xp.linalg.svd(a[:, None]).S.shape == (1,)
        return xp.sum(y) * np.max(np.linalg.svd(nf.stop_gradient(y)[:, None])[1])

    assert np.allclose(nf.grad(f)(a), np.linalg.norm(a))


def test_constants_are_plain_and_steer_the_flow():
    def f(y):
        plain = [y > 0, y == y, y // 1, np.argmax(y), np.floor(y), np.isnan(y), y.argsort(), np.sign(y)]
        plain += [nf.namespace(y).zeros_like(y), np.isclose(y, 0), y.astype(int), np.size(y), np.rint(y)]
        assert all(isinstance(p, np.ndarray | np.generic | int) for p in plain)
        if y.sum() > 0 and np.all(y > -10) and not (y > 100).any():
            y = y * 3
        elif y[0] < 0:
            y = y * 100
        total = 0.0
        for row in y:
            total = total + row
        y += 1  # functional: the argument stays what it was
        y *= 2
        return np.sum(y) + total + len(y)

    x = np.array([1.0, -0.5])
    assert np.array_equal(nf.grad(f)(x), [9, 9]) and np.array_equal(x, [1, -0.5])


def test_strings_and_attributes():
    def f(y):
        assert y.shape == (2, 3) and y.ndim == 2 and y.size == 6 and y.dtype == np.float32 and len(y) == 2
        assert "float32" in f"{y}" and not hasattr(y, "sort") and not hasattr(y, "__array_interface__")
        with pytest.raises(TypeError, match="no axes"):
            iter(y[0, 0])
        return np.sum(y)

    assert nf.grad(f)(np.ones((2, 3), dtype=np.float32)).dtype == np.float32


def test_stack_depth_of_the_caller_is_kept():
    """A traced function is called about as deep as a plain one."""
    depth = []

    def f(x):
        frame, n = sys._getframe(), 0
        while frame is not None:
            frame, n = frame.f_back, n + 1
        depth.append(n)
        return np.sum(x)

    f(np.ones(1))
    nf.grad(f)(np.ones(1))
    assert depth[1] - depth[0] < 10


def test_conventions_at_points_without_a_derivative():
    """Ties are shared, and what has a kink at 0 has the middle of its one-sided derivatives there; no warnings."""
    zero = np.zeros(2)
    for f in (np.linalg.norm, lambda x: np.hypot(x[0], x[1]), lambda x: np.sum(np.abs(x))):
        assert np.array_equal(nf.grad(f)(zero), zero)
    assert not nf.hessian(lambda x: np.hypot(x[0], x[1]))(zero).any()
    assert np.array_equal(nf.grad(np.max)(np.ones(4)), np.full(4, 0.25))
    assert np.array_equal(nf.grad(lambda x: np.sum(np.maximum(x, 0)))(zero), [0.5, 0.5])
    assert np.array_equal(nf.grad(lambda z: np.sum(np.abs(z)))(np.zeros(2, dtype=complex)), zero)


def test_derivatives_on_a_branch_cut_go_with_the_value():
    """A zero imaginary part has a sign, and says from which side the cut is approached."""
    for f in (np.arccos, np.arcsin):
        for z in (2 + 0j, complex(2, -0.0), -2 + 0j, complex(-2, -0.0)):
            step = 1e-6
            moved = (f(np.array(complex(z.real + step, z.imag))) - f(np.array(complex(z.real - step, z.imag)))) / (
                2 * step
            )
            assert abs(nf.jvp(f, (np.array(z),), (np.array(1 + 0j),))[1] - moved) < 1e-8


def test_infinite_derivatives_have_their_sign():
    one = np.array(1.0)
    with np.errstate(divide="ignore"):
        assert nf.grad(np.arcsin)(one) == np.inf and nf.grad(np.arccos)(one) == -np.inf
        assert nf.grad(np.sqrt)(0 * one) == np.inf and nf.grad(np.log)(0 * one) == np.inf


def test_powers_of_a_negative_number_have_no_real_derivative():
    found = nf.grad(lambda x: (-2.0) ** x)(np.array(2.0))
    assert np.isnan(found) and found.dtype == np.float64
    z = np.array(2.0 + 0j)
    assert np.allclose(nf.jvp(lambda z: (-2.0) ** z, (z,), (z,))[1], 2 * 4 * np.log(-2 + 0j))


def test_a_python_complex_number_times_a_numpy_scalar_is_an_array():
    """NumPy's float64 is a Python float too, so Python multiplies them itself."""
    x = np.array(2.0)
    assert nf.grad(lambda x: nf.namespace(x).real(1j * x * (-1j) * x))(x) == 4
    assert nf.grad(lambda x: nf.namespace(x).imag(1j / x))(x) == -0.25
    assert nf.hvp(lambda x: nf.namespace(x).real((1j - x) ** 3), (x,), (x,)) == -24


def test_a_gradient_is_the_callers_own():
    """It can be written to, and writing to it changes nothing else."""
    x = np.ones(3)
    for f in (np.sum, lambda x: np.sum(x * x), lambda x: np.sum(np.stack([x, x]))):
        first = nf.grad(f)(x)
        first *= 0.5
        assert np.array_equal(nf.grad(f)(x), 2 * first) and np.array_equal(x, np.ones(3))
