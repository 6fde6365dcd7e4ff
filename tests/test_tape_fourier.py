"""The `fft` extension and `np.fft` on the tape: linear, with the right adjoint, at every size and scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend

strict = pytest.importorskip("array_api_strict")
NORMS = ("backward", "ortho", "forward")
SHAPE = (4, 5, 6)

#: name -> keywords; None stands for what the function takes by itself
ONE_AXIS = [{}, {"n": 4}, {"n": 7}, {"n": 1}, {"n": 2, "axis": 0}, {"n": 9, "axis": -2}, {"axis": 1}]
SEVERAL = [{}, {"axes": (0, 1)}, {"s": (3, 7), "axes": (2, 0)}, {"s": (5, 6, 3), "axes": (0, 1, 2)}, {"axes": (1,)}]
CASES = [(name, k) for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft") for k in ONE_AXIS]
CASES += [(name, k) for name in ("fftn", "ifftn", "rfftn", "irfftn") for k in SEVERAL]
CASES += [(name, k) for name in ("fftshift", "ifftshift") for k in ({}, {"axes": 1}, {"axes": (0, 2)})]


def numbers(shape, complex_numbers, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if complex_numbers else x


def inner(a, b):
    return np.sum((np.conj(a) * b).real)


def square(z):
    xp = nf.namespace(z)
    return xp.sum(xp.real(xp.conj(z) * z)) if "complex" in str(z.dtype) else xp.sum(z * z)


def check_linear(backend, f, x, u, wanted):
    """F is linear, has these values, is pushed by itself and pulled by its adjoint, and nests."""
    to, back = backend.asarray, backend.to_numpy
    y, push = nf.linearize(f, to(x))
    _, pull = nf.vjp(f, to(x))
    w = numbers(y.shape, np.iscomplexobj(back(y)), 2)
    pulled = back(pull(to(w))[0])
    assert np.allclose(back(y), wanted, atol=1e-13) and np.array_equal(back(push(to(x))), back(y))
    assert pulled.shape == x.shape and pulled.dtype == x.dtype
    assert abs(inner(back(push(to(u))), w) - inner(u, pulled)) < 1e-11
    again = nf.grad(lambda c: square(pull(c)[0]))(to(w))
    assert np.allclose(back(again), 2 * back(push(to(pulled))), atol=1e-11)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "keywords"), CASES)
def test_linear_with_its_adjoint(name, keywords, norm):
    if not name.endswith("shift"):
        keywords = {**keywords, "norm": norm}
    for complex_numbers in (False, True):
        if complex_numbers and name in ("rfft", "rfftn", "ihfft"):
            continue
        x, u = (numbers(SHAPE, complex_numbers, seed) for seed in (0, 1))
        wanted = getattr(np.fft, name)(x, **keywords)

        def f(x):
            return getattr(nf.namespace(x).fft, name)(x, **keywords)

        check_linear(get_backend("numpy"), f, x, u, wanted)
        if complex_numbers or name in ("rfft", "rfftn", "ihfft"):  # the standard has no other transforms
            check_linear(get_backend("array_api_strict"), f, x, u, wanted)


NUMPY = {
    "fft2": lambda x: np.fft.fft2(x),
    "ifft2, sizes": lambda x: np.fft.ifft2(x, (3, 9), norm="ortho"),
    "fft2, axes": lambda x: np.fft.fft2(x, axes=(0, 2)),
    "fft, by position": lambda x: np.fft.fft(x, 4, 1, "forward"),
    "fftn, by position": lambda x: np.fft.fftn(x, (4, 2), (0, 1), "ortho"),
    "fftn, whole axis": lambda x: np.fft.fftn(x, (-1, 3), (0, 1)),
    "fftn, one axis twice": lambda x: np.fft.fftn(x, axes=(0, 1, 0)),
    "irfft2": lambda x: np.fft.irfft2(x),
    "irfftn, whole axis": lambda x: np.fft.irfftn(x, (3, -1), (0, 1)),
    "irfftn, one axis twice": lambda x: np.fft.irfftn(x, (4, 6, 3), (1, 2, 1)),
    "hfft": lambda x: np.fft.hfft(x, 7, 0),
    "fftshift": lambda x: np.fft.fftshift(x, 1),
    "roundtrip": lambda x: np.fft.ifft(np.fft.fft(x)) * np.fft.fftfreq(6),
}
REAL = {
    "rfft2": lambda x: np.fft.rfft2(x),
    "rfft, sizes": lambda x: np.fft.rfft(x, 9),
    "rfftn, one axis twice": lambda x: np.fft.rfftn(x, axes=(1, 0, 1)),
    "ihfft": lambda x: np.fft.ihfft(x, norm="ortho"),
}


@pytest.mark.parametrize("case", [*NUMPY, *REAL])
def test_numpy_spelling(case):
    f = (NUMPY | REAL)[case]
    for complex_numbers in (False, True)[: 1 + (case in NUMPY)]:
        x, u = (numbers(SHAPE, complex_numbers, seed) for seed in (0, 1))
        check_linear(get_backend("numpy"), f, x, u, f(x))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_irfft_ignores_two_imaginary_parts(n):
    """Those of frequency zero and, for even n, of Nyquist's: the cotangent has none there."""
    z = numbers((n // 2 + 1,), True, 0)
    pulled = nf.vjp(lambda z: np.fft.irfft(z, n), z)[1](numbers((n,), False, 1))[0]
    ignored = [True, *[False] * (n // 2 - 1 + n % 2), *([True] if n % 2 == 0 else [])]
    assert np.array_equal(pulled.imag == 0, ignored)


def test_precision_is_kept():
    x = numbers((6,), False, 0).astype(np.float32)

    def f(x):
        z = np.fft.fft(x)
        y = np.fft.irfft(np.fft.rfft(x, 9) * 2, 5)[0] + np.abs(np.fft.ifftn(z * 1j)[1])
        return y + np.fft.hfft(z)[2] + np.real(np.fft.ihfft(x)[1])

    value, gradient = nf.value_and_grad(f)(x)
    assert value.dtype == gradient.dtype == nf.hvp(f, (x,), (x,))[0].dtype == np.float32
    z = numbers((6,), True, 0).astype(np.complex64)
    assert nf.grad(lambda z: np.sum(np.abs(np.fft.fftn(z)) ** 2))(z).dtype == np.complex64


def test_spectral_loss_to_third_order():
    """Σ |F x|⁴ through all modes, with a kernel given in frequencies, against differences."""
    x, u = numbers((5,), False, 0), numbers((5,), False, 1)

    def loss(x):
        return np.sum(np.abs(np.fft.rfft(x, 8)) ** 4) + np.sum(np.fft.irfft(np.fft.rfft(x) ** 3, 5) ** 2)

    def second(x):
        return nf.jvp(nf.grad(loss), (x,), (u,))[1]

    for f in (loss, nf.grad(loss), second):
        step, exact = 1e-3, nf.jvp(f, (x,), (u,))[1]
        rows = [(4 / 5, 1), (-1 / 5, 2), (4 / 105, 3), (-1 / 280, 4)]
        wanted = sum(c / step * (f(x + k * step * u) - f(x - k * step * u)) for c, k in rows)
        assert np.allclose(exact, wanted, rtol=1e-9, atol=1e-7)


def test_a_step_of_frequencies_may_be_differentiated():
    for f in (np.fft.fftfreq, np.fft.rfftfreq, lambda n, d: nf.namespace(d).fft.fftfreq(n, d=d)):
        value, tangent = nf.jvp(lambda d, f=f: f(5, d), (np.array(2.0),), (np.ones(()),))
        assert np.allclose(tangent, -value / 2) and value.shape in ((5,), (3,))


def test_empty_batches_and_errors():
    wrong_norm: Any = "none"
    x = np.zeros((0, 4))
    assert nf.grad(lambda x: np.sum(np.abs(np.fft.rfft(x)) ** 2))(x).shape == (0, 4)
    for wrong in (lambda x: np.fft.fft(x, 0), lambda x: np.fft.fftn(x, (1, 2, 3), (0, 1)),
                  lambda x: np.fft.fft(x, axis=5), lambda x: np.fft.fft(x, norm=wrong_norm),
                  lambda x: np.fft.rfftn(x, axes=(0, 7))):  # fmt: skip
        with pytest.raises((ValueError, IndexError)):
            nf.vjp(wrong, np.ones((2, 3)))
    with pytest.raises(NoDerivativeError, match="out="):
        nf.vjp(lambda x: np.fft.fft2(x, out=np.zeros((2, 3), dtype=complex)), np.ones((2, 3)))


def test_against_pytorch():
    """The convention of gradients in complex variables, and the adjoints of the real transforms."""
    torch = pytest.importorskip("torch")
    cases = {
        "fft": {"n": 7}, "ifft": {"norm": "ortho"}, "rfft": {"n": 9}, "irfft": {"n": 8}, "hfft": {}, "ihfft": {"n": 5},
        "fftn": {"s": (3, 8), "dim": (0, 2)}, "irfftn": {"s": (3, 7), "dim": (1, 0)}, "rfftn": {"norm": "forward"},
    }  # fmt: skip
    for name, keywords in cases.items():
        x = numbers(SHAPE, name not in ("rfft", "ihfft", "rfftn"), 3)
        y = torch.tensor(x, requires_grad=True)
        value = getattr(torch.fft, name)(y, **keywords)
        (wanted,) = torch.autograd.grad((value.abs() ** 3).sum(), y)
        ours = {"axes" if key == "dim" else key: v for key, v in keywords.items()}
        found = nf.grad(lambda x: np.sum(np.abs(getattr(np.fft, name)(x, **ours)) ** 3))(x)  # noqa: B023
        assert np.allclose(found, wanted.resolve_conj().numpy(), rtol=1e-11, atol=1e-12), name
