"""`traced(xp)`: a namespace whose arrays are all wrapped; and libraries that nestfold has never heard of."""

from __future__ import annotations

import inspect
import math
import threading

import array_api_compat.numpy as compat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.array_api import make_strategies_namespace

import nestfold as nf
from nestfold.backends import NoDerivativeError, backend_of, traced
from nestfold.backends._numpy import NumpyBackend
from nestfold.backends.tape import Traced
from nestfold.testing import guarded

strict = pytest.importorskip("array_api_strict")
BASES = {"numpy": compat, "array_api_strict": strict, "guarded": guarded.xp}
each_base = pytest.mark.parametrize("base", list(BASES.values()), ids=list(BASES))

#: the functions of the standard that make arrays from nothing, or take what has no derivative
MAKERS = set("empty empty_like eye from_dlpack ones ones_like zeros zeros_like".split())
#: those whose value has no derivative by its kind, or zero wherever it has one
ZERO = set(
    "all any argmax argmin argsort bitwise_and bitwise_invert bitwise_left_shift bitwise_or bitwise_right_shift "
    "bitwise_xor can_cast ceil count_nonzero equal finfo floor floor_divide greater greater_equal iinfo isdtype "
    "isfinite isin isinf isnan less less_equal logical_and logical_not logical_or logical_xor matrix_rank nonzero "
    "not_equal result_type round searchsorted signbit trunc".split()
)
FLAGS = {"set_array_api_strict_flags", "get_array_api_strict_flags", "reset_array_api_strict_flags"}
FLAGS |= {"ArrayAPIStrictFlags", "Device", "__array_namespace_info__", "broadcast_shapes"}  # the last is of 2025.12


def standard():
    """(prefix, name) of every function of the standard."""
    for prefix, space in (("", strict), ("linalg", strict.linalg), ("fft", strict.fft)):
        for name in space.__all__:
            found = getattr(space, name)
            if (
                name not in FLAGS
                and callable(found)
                and not isinstance(found, type)
                and not hasattr(found, "_np_dtype")
            ):
                yield pytest.param(prefix, name, id=f"{prefix}.{name}".lstrip("."))


@pytest.mark.parametrize(("prefix", "name"), list(standard()))
def test_every_function_of_the_standard_is_decided_upon(prefix, name):
    """It has a rule, or derivative zero, or there is no array in it to differentiate by; none is forgotten."""
    namespace = NumpyBackend().traced_namespace
    space = getattr(namespace, prefix) if prefix else namespace
    differentiable = space._rule(name) is not None
    assert differentiable != (name in MAKERS | ZERO), "a function with a rule, or one of the lists, not both"


@each_base
def test_every_array_is_wrapped(base):
    xp = traced(base)
    x = xp.asarray([[2.0, 1.0], [1.0, 3.0]])
    found = [x, x + 1, 1 - x, x @ x, x > 0, x[0, :], x.T, xp.exp(x), xp.sum(x), xp.zeros_like(x), xp.argmax(x)]
    found += [xp.linalg.inv(x), *xp.linalg.eigh(x), *xp.unstack(x), *xp.meshgrid(x[:, 0], x[0, :]), xp.fft.rfft(x)]
    found += [xp.concat([x, x]), xp.arange(3), xp.eye(2), xp.full((2,), 1.0), xp.astype(x, xp.int64), x == x]
    assert all(isinstance(a, Traced) and a.__array_namespace__() is xp for a in found)
    assert type(xp.linalg.eigh(x)).__name__ == type(base.linalg.eigh(base.eye(2))).__name__
    assert xp.float64 == base.float64 and xp.pi == base.pi and xp.finfo(x).bits == 64


@each_base
def test_constants_are_written_to_and_cast(base):
    xp = traced(base)
    x = xp.asarray([1.0, 2.0, 3.0])
    x[0] = 5
    x[1:] = xp.asarray([7.0, 8.0])
    x[x > 7.5] = 0
    assert [float(x[i]) for i in range(3)] == [5, 7, 0]
    i = xp.asarray(2)
    assert int(i) == 2 and [0, 1, 2][i] == 2 and complex(x[0]) == 5 and bool(x[0] > 4) and not bool(x[2] > 0)
    assert float(i & 3 | 1) == 3 and int(~i) == -3 and int(i << 1) == 4 and int(1 ^ xp.asarray(2)) == 3
    i <<= 1
    assert int(i) == 4 and "Wrapped" in repr(i) and "Wrapped" in str(x)
    y = xp.asarray(x, copy=True)
    y[0] = 1
    assert float(x[0]) == 5
    assert np.array_equal(np.from_dlpack(x), [5, 7, 0])
    assert xp.isdtype(xp.from_dlpack(x).dtype, "real floating")


@each_base
def test_wrapped_arrays_are_differentiated_like_any_other(base):
    xp = traced(base)
    x, a = xp.asarray([1.0, 2.0]), xp.asarray([3.0, -1.0])

    def f(y):
        xp = nf.namespace(y)
        with pytest.raises(NoDerivativeError, match="where, concat or stack"):
            y[0] = 1
        with pytest.raises(NoDerivativeError, match="where in place of an if"):
            bool(y[0] > 0 and y[0])
        with pytest.raises(NoDerivativeError, match="where, concat or stack"):
            a[0] = y[0]
        return xp.sum(xp.exp(y) * a) + xp.sum(y[xp.asarray([0, 0])])

    to_numpy = backend_of(base.zeros(1)).to_numpy
    assert np.allclose(to_numpy(nf.grad(f)(x)), np.exp([1, 2]) * [3, -1] + [2, 0], atol=1e-14)
    assert np.allclose(to_numpy(nf.hvp(f, (x,), (a,))), np.exp([1, 2]) * [9, 1], atol=1e-14)


def test_signatures_are_those_of_the_library():
    xp = traced(strict)
    for name in ("sum", "concat", "add", "linspace", "argsort", "clip", "prod"):
        assert inspect.signature(getattr(xp, name)) == inspect.signature(getattr(strict, name)), name
        assert getattr(xp, name).__name__ == name


def test_a_namespace_with_autodiff_of_its_own_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="torch has automatic differentiation of its own"):
        traced(torch)


xps = make_strategies_namespace(traced(compat), api_version="2024.12")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_hypothesis_takes_it_for_an_array_library(data):
    """Wrapped arrays of random dtype and shape, through an expression, to the numbers of the plain ones."""
    dtype = data.draw(xps.real_dtypes())
    x = data.draw(xps.arrays(dtype, xps.array_shapes(min_dims=0, max_dims=3)))
    assert isinstance(x, Traced)
    plain, xp = x.value, x.__array_namespace__()
    with np.errstate(all="ignore"):
        found, wanted = xp.sum(xp.abs(x) * 2 + x), np.sum(np.abs(plain) * plain.dtype.type(2) + plain)
    assert found.dtype == wanted.dtype and np.array_equal(np.asarray(found), wanted, equal_nan=found.dtype.kind == "f")


@each_base
def test_signs_of_zeros_are_those_of_the_standard(base):
    """NumPy gives -0 for the sign of some complex zeros and for the real part of expm1(-0 + 0j)."""
    xp = traced(base)
    for z in (complex(a, b) for a in (0.0, -0.0) for b in (0.0, -0.0)):
        x = xp.asarray(z, dtype=xp.complex128)
        with np.errstate(invalid="ignore"):  # array_api_compat divides by |0|
            sign, moved = complex(xp.sign(x)), complex(xp.expm1(x))
        assert str(sign) == "0j" and math.copysign(1, moved.real) == 1
        assert math.copysign(1, moved.imag) == math.copysign(1, z.imag)


def test_threads_share_the_constants():
    xp, errors = traced(compat), []

    def work(k):
        for i in range(200):
            x = xp.asarray([float(k), float(i)])
            x[0] += 1
            if [float(v) for v in x * 2] != [2.0 * (k + 1), 2.0 * i]:
                errors.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# -- a library that nestfold has never heard of ---------------------------------------------------------------------
def bumpy(y):
    xp = nf.namespace(y)
    m = y[:, None] * y + 4 * xp.eye(y.shape[0])
    return xp.sum(xp.linalg.inv(m)[:, 0]) + xp.linalg.slogdet(m)[1] + xp.sum(xp.sort(y)[::2] ** 3) + xp.max(y)


def test_an_unknown_library_is_differentiated_without_leaving_it():
    """Nothing becomes a NumPy array by itself (the double would raise), and nothing waits for the device."""
    plain = np.array([0.3, -1.2, 0.7])
    x = guarded.xp.asarray(plain)
    with guarded.synchronizations() as casts:
        found = [nf.grad(bumpy)(x), nf.hvp(bumpy, (x,), (x,)), nf.linearize(bumpy, x)[1](x)]
    wanted = [nf.grad(bumpy)(plain), nf.hvp(bumpy, (plain,), (plain,)), nf.linearize(bumpy, plain)[1](plain)]
    for mine, other in zip(found, wanted, strict=True):
        assert isinstance(mine, guarded.GuardedArray)
        assert np.allclose(np.from_dlpack(mine), other, atol=1e-14)
    assert casts == []


def test_a_level_is_solved_on_an_unknown_library():
    def objective(xp, w):
        def lower(w, m):
            xp = nf.namespace(w, m)
            return xp.linalg.trace(m) + xp.linalg.trace(xp.linalg.inv(m) @ (w @ w.mT + xp.eye(4)))

        options = {"solver": nf.TrustRegion(tol=1e-12), "estimator": nf.Implicit(nf.CG(tol=1e-12))}
        m = nf.solve(nf.Argmin(lower, nf.SPD(4)), w, init=xp.eye(4), **options).value
        return nf.namespace(m).sum(m * m[0, :])

    w = np.cos(np.arange(8.0)).reshape(4, 2)
    mine = nf.grad(lambda w: objective(guarded.xp, w))(guarded.xp.asarray(w))
    assert np.allclose(np.from_dlpack(mine), nf.grad(lambda w: objective(compat, w))(w), atol=1e-10)


def test_the_double_refuses_what_a_device_refuses():
    x = guarded.xp.asarray([1.0, 2.0])
    for use in (lambda: np.asarray(x), lambda: np.ones(2) * x, lambda: x + np.ones(2), lambda: np.exp(x)):
        with pytest.raises(TypeError):
            use()
    with guarded.synchronizations() as casts:
        assert float(x[0]) == 1 and bool(x[1] > 1) and int(x[1]) == 2
    assert casts == ["float", "bool", "int"]


def test_arrays_move_between_devices():
    """Forwards and back: a cotangent returns to the device of its array."""
    here, there = strict.Device("CPU_DEVICE"), strict.Device("device1")
    x = strict.asarray([1.0, 2.0])
    assert x.device == here

    def f(y):
        moved = y.to_device(there)
        assert moved.device == there
        return strict.sum(strict.ones(1)) * nf.namespace(y).sum((moved * moved).to_device(here))

    g = nf.grad(f)(x)
    assert g.device == here and [float(v) for v in g] == [2, 4]
    h = nf.hvp(f, (x,), (x,))
    assert h.device == here and [float(v) for v in h] == [2, 4]
