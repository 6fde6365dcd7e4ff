"""Where a result has no derivative, asking for one raises `NoDerivativeError` on every backend: never a silent zero."""

import numpy as np
import pytest

import nestfold as nf

FLAT = nf.Euclidean(2)

# PyTorch's own, on the import of what its forward mode is made of
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def problem(scale):
    lower = nf.Argmin(lambda x, y: total((y - scale * x) ** 2), FLAT)
    return nf.Bilevel(lambda x, y: total(y * y), FLAT, lower)


def total(a):
    return nf.namespace(a).sum(a)


def functions(make):
    """A number s, and functions of it that have no derivative, by what it is in them."""
    s, one, matrix = make(2.0), make(np.ones(2)), make(np.arange(9.0).reshape(3, 3))
    return s, {
        "captured": lambda s: nf.hypergradient(problem(s), one, 0 * one).value,
        "a matrix": lambda s: nf.FixedRank(3, 3, 1).from_matrix(s * matrix)["s"][0, 0],
        "x": lambda t: nf.hypergradient(problem(s), t * one, 0 * one).gradient[0],
        "y0": lambda t: nf.hypergradient(problem(s), one, t * one).value,
        "captured by a run": lambda s: nf.run(problem(s), one, 0 * one, steps=1).value,
        "x0 of a run": lambda t: nf.run(problem(s), t * one, 0 * one, steps=1).value,
    }


def chosen(backend, found):
    """All of them, but one where each is compiled anew."""
    return list(found.values())[: 1 if backend.name == "jax" else None]


@pytest.fixture
def make(backend, like64):
    return lambda value: backend.asarray(np.asarray(value), like=like64)


MODES = {
    "grad": lambda f, s: nf.grad(f)(s),
    "jvp": lambda f, s: nf.jvp(f, (s,), (s,)),
    "grad of grad": lambda f, s: nf.grad(nf.grad(lambda s: s * s * f(s)))(s),
    "grad of an inner grad": lambda f, s: nf.grad(lambda s: nf.grad(lambda t: t * t * f(s))(s))(s),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_derivative_that_is_not_there_is_refused(backend, make, mode):
    s, found = functions(make)
    for f in chosen(backend, found):
        with pytest.raises(nf.NoDerivativeError):
            MODES[mode](f, s)


def test_constants_of_a_derivative_pass(backend, make):
    s, found = functions(make)
    for f in chosen(backend, found):
        expected = float(f(s))
        for product in (lambda t, f=f: t * f(nf.stop_gradient(t)), lambda t, f=f: t * f(1.0 * s)):
            assert abs(float(nf.grad(product)(s)) - expected) <= 1e-12 * abs(expected)


def torch_modes():
    torch = pytest.importorskip("torch")
    func, ad = torch.func, torch.autograd.forward_ad

    def dual(f, s):
        with ad.dual_level():
            return f(ad.make_dual(s, s))

    return {
        "grad": lambda f, s: func.grad(f)(s),
        "jvp": lambda f, s: func.jvp(f, (s,), (s,)),
        "grad of grad": lambda f, s: func.grad(func.grad(lambda s: s * s * f(s)))(s),
        "jvp of grad": lambda f, s: func.jvp(func.grad(lambda s: s * s * f(s)), (s,), (s,)),
        "grad of jvp": lambda f, s: func.grad(lambda s: func.jvp(lambda s: s * s * f(s), (s,), (s,))[1])(s),
        "jvp of an inner grad": lambda f, s: func.jvp(lambda s: func.grad(lambda t: t * f(s))(s), (s,), (s,)),
        "nf.grad of an inner grad": lambda f, s: nf.grad(lambda s: func.grad(lambda t: t * f(s))(s))(s),
        "grad of an inner nf.grad": lambda f, s: func.grad(lambda s: nf.grad(lambda t: t * f(s))(s))(s),
        "forward_ad": dual,
        "nf.grad by a parameter": lambda f, s: nf.grad(f)(s.clone().requires_grad_()),
        "nf.grad by what a parameter makes": lambda f, s: nf.grad(f)(1.0 * s.clone().requires_grad_()),
    }


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_every_mode_of_torch_is_refused(make):
    s, found = functions(make)
    for mode in torch_modes().values():
        for f in found.values():
            with pytest.raises(nf.NoDerivativeError):
                mode(f, s)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_constants_of_every_mode_of_torch_pass(make):
    func = pytest.importorskip("torch").func
    s, found = functions(make)
    for f in found.values():
        expected = f(s)
        for gradient in (
            func.grad(lambda t, f=f: t * f(t.detach()))(s),
            func.grad(lambda t, f=f: t * f(1.0 * s))(s),
            func.jvp(lambda t, f=f: t * f(1.0 * s), (s,), (s,))[1] / s,
            func.jvp(func.grad(lambda t, f=f: t * t * f(1.0 * s)), (s,), (s,))[1] / (2 * s),
        ):
            assert abs(gradient - expected) <= 1e-12 * abs(expected)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_parameters_of_a_user_pass(make):
    """They get a result without a graph, within the derivative by something else too."""
    s, found = functions(make)
    parameter = s.clone().requires_grad_()
    for f in found.values():
        expected = f(s)
        for given in (parameter, 1.0 * parameter):
            value = f(given)
            assert not value.requires_grad
            assert abs(value - expected) <= 1e-12 * abs(expected)
            gradient = nf.grad(lambda t, f=f, given=given: t * f(given))(s)
            assert abs(gradient - expected) <= 1e-12 * abs(expected)
