"""Functions of symmetric matrices against mpmath: derivatives of orders 0 to 3, equal eigenvalues too."""

import math
from functools import cache

import mpmath
import numpy as np
import pytest

from nestfold.backends import NoDerivativeError, namespace
from nestfold.manifolds._divided import Exp, InverseSqrt, Log, Power, Sqrt
from nestfold.manifolds._spectral import Decomposition, spectral

FUNCTIONS = {
    "exp": (Exp(), mpmath.exp, mpmath.expm),
    "log": (Log(), mpmath.log, mpmath.logm),
    "sqrt": (Sqrt(), mpmath.sqrt, mpmath.sqrtm),
    "inverse sqrt": (InverseSqrt(), lambda a: 1 / mpmath.sqrt(a), lambda a: mpmath.inverse(mpmath.sqrtm(a))),
    "power": (Power(-1.0), lambda a: 1 / a, mpmath.inverse),
}
EIGENVALUES = {
    "apart": [0.5, 1.3, 4.0],
    "double": [0.7, 0.7, 2.0],
    "close": [1.0, 1.0 + 1e-9, 1.0 + 3e-5],
    "identity": [1.0, 1.0, 1.0],
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


# -- divided differences ------------------------------------------------------------------------------
def exact_difference(f, nodes):
    """f[nodes] to 60 digits; equal nodes are set apart by 1e-15 of themselves, which costs 1e-15."""
    with mpmath.workdps(90):
        nodes = sorted(mpmath.mpf(float(a)) for a in nodes)
        nodes = [a * (1 + i * mpmath.mpf(10) ** -18) for i, a in enumerate(nodes)]
        table = [f(a) for a in nodes]
        for k in range(1, len(nodes)):
            table = [(table[i + 1] - table[i]) / (nodes[i + k] - nodes[i]) for i in range(len(nodes) - k)]
        return table[0]


@pytest.mark.parametrize(("order", "limit"), [(1, 3e-15), (2, 3e-14), (3, 3e-13)])
def test_divided_differences_at_every_distance(function, order, limit, rng):
    f, exact, _ = function
    for trial in range(60):
        nodes = np.exp(rng.uniform(-2, 2)) * (1 + 10 ** rng.uniform(-17, 1) * rng.uniform(0, 1, order + 1))
        if trial % 5 == 0:
            nodes[1] = nodes[0]
        if trial % 7 == 0:
            nodes[:] = nodes[0]
        found = float(f.divided(np, *(np.asarray(a) for a in nodes)))
        want = float(exact_difference(exact, nodes))
        assert abs(found - want) <= limit * abs(want) * max(1.0, nodes.max() if f == Exp() else 1.0), nodes


def test_divided_differences_are_symmetric(function, rng):
    nodes = rng.uniform(0.5, 3.0, 4)
    ways = [function[0].divided(np, *(np.asarray(a) for a in rng.permutation(nodes))) for _ in range(5)]
    assert np.ptp(ways) <= 1e-13 * abs(ways[0])


# -- derivatives of matrices --------------------------------------------------------------------------
def total(a):
    """The sum of all entries, of arrays that may be traced."""
    return namespace(a).sum(a)


def symmetric(rng, n=3):
    a = rng.standard_normal((n, n))
    return (a + a.T) / 2


def with_eigenvalues(rng, eigenvalues):
    q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
    a = (q * np.asarray(eigenvalues)) @ q.T
    return (a + a.T) / 2


@cache
def exact_derivatives(name, eigenvalues):
    """A matrix, directions, and the exact value and derivatives there: the same for every backend."""
    rng = np.random.default_rng(7)
    a, directions = with_eigenvalues(rng, EIGENVALUES[eigenvalues]), [symmetric(rng) for _ in range(3)]
    matrix_function = FUNCTIONS[name][2]
    # the logarithm of a 24 x 24 matrix takes seconds, and nothing but divided differences is its own
    orders = 3 if name == "log" else 4
    exact = [exact_derivative(matrix_function, a, directions[:order]) for order in range(orders)]
    return a, directions, exact


def exact_derivative(matrix_function, a, directions):
    """The k-th derivative at `a`: the top right block of f of a triangular matrix. Higham & Relton 2014."""
    with mpmath.workdps(24):
        x = mpmath.matrix(a.tolist())
        for k, e in enumerate(directions):
            size = x.rows
            big = mpmath.zeros(2 * size)
            e_big = np.kron(np.eye(2**k), e)
            for i in range(size):
                for j in range(size):
                    big[i, j] = big[size + i, size + j] = x[i, j]
                    big[i, size + j] = mpmath.mpf(float(e_big[i, j]))
            x = big
        full, n = matrix_function(x), a.shape[0]
        return np.array([[float(full[i, full.cols - n + j]) for j in range(n)] for i in range(n)])


def directional(backend, f, e):
    """p ↦ Df(p)[e] by forward mode."""
    return lambda p: backend.jvp(f, (p,), (e,))[1]


def nested_jvp(backend, f, a, directions):
    """The k-th directional derivative by k forward derivatives, one inside the other."""
    for e in directions:
        f = directional(backend, f, e)
    return f(a)


@pytest.mark.parametrize("eigenvalues", EIGENVALUES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_against_mpmath(backend, like64, name, eigenvalues, rng):
    """Value and derivatives of orders 1 to 3, by forward and by reverse mode, one inside the other."""
    f, c = FUNCTIONS[name][0], symmetric(rng)
    a, directions, exact = exact_derivatives(name, eigenvalues)
    here = [backend.asarray(m, like=like64) for m in (a, c, *directions)]

    def pairing(p):
        return total(here[1] * spectral(f)(p))

    reverse = pairing
    for order, want in enumerate(exact):
        scale = max(1.0, np.abs(want).max())
        limit = 1e-13 if order < 2 else 1e-11
        forward = backend.to_numpy(nested_jvp(backend, spectral(f), here[0], here[2 : 2 + order]))
        assert np.abs(forward - want).max() <= limit * scale, (order, "forward")
        found = float(backend.to_numpy(reverse(here[0])))
        assert abs(found - np.sum(c * want)) <= 10 * limit * scale, (order, "reverse")
        if order < 3:
            reverse = along_gradient(backend, reverse, here[2 + order])


def along_gradient(backend, f, e):
    """p ↦ ∂f(p)·e by reverse mode."""

    def slope(p):
        value, pull = backend.vjp(f, p)
        return total(pull(namespace(value).ones_like(value))[0] * e)

    return slope


def test_fourth_derivative_is_refused_by_name(backend, like64, rng):
    a = backend.asarray(with_eigenvalues(rng, [1.0, 2.0]), like=like64)
    e = backend.asarray(symmetric(rng, 2), like=like64)
    with pytest.raises(NoDerivativeError, match=r"Log.*above 3"):
        nested_jvp(backend, spectral(Log()), a, [e] * 4)


def test_mixed_modes_agree(backend, like64, rng):
    """Forward over reverse over forward, and the reverse of a Hessian product."""
    a, e, g, c = (
        backend.asarray(m, like=like64)
        for m in (with_eigenvalues(rng, [1.0, 1.0, 3.0]), *(symmetric(rng) for _ in range(3)))
    )

    def inner(p):
        return total(c * backend.jvp(spectral(Log()), (p,), (e,))[1])

    ones = backend.xp.ones_like(inner(a))
    _, moved = backend.jvp(lambda p: backend.vjp(inner, p)[1](ones)[0], (a,), (g,))
    again = along_gradient(backend, along_gradient(backend, inner, g), e)(a)
    assert math.isclose(float(total(moved * e)), float(again), rel_tol=1e-12)


def test_unsymmetric_arguments_and_directions(backend, like64, rng):
    """f sees sym(A) alone, and its cotangent is symmetric."""
    a = with_eigenvalues(rng, [0.5, 1.0, 2.0])
    skew = rng.standard_normal((3, 3))
    skew = skew - skew.T
    plain, tilted = (backend.asarray(m, like=like64) for m in (a, a + skew))
    c = backend.asarray(rng.standard_normal((3, 3)), like=like64)
    results = []
    for p in (plain, tilted):
        value, pull = backend.vjp(spectral(Log()), p)
        results.append((backend.to_numpy(value), backend.to_numpy(pull(c)[0])))
    assert np.allclose(results[0][0], results[1][0], rtol=0, atol=1e-14)
    assert np.allclose(results[0][1], results[1][1], rtol=0, atol=1e-14)
    assert np.array_equal(results[0][1], results[0][1].T)
    assert np.array_equal(results[0][0], results[0][0].T)


def test_batches_and_dtypes(backend, rng):
    a = np.stack([with_eigenvalues(rng, [0.5, 1.0, 2.0]) for _ in range(6)]).reshape(2, 3, 3, 3)
    for dtype, limit in ((np.float64, 1e-14), (np.float32, 1e-5)):
        like = backend.asarray(np.zeros((), dtype))
        found = spectral(Sqrt())(backend.asarray(a, like=like))
        assert found.dtype == like.dtype
        square = backend.to_numpy(found @ found)
        assert np.abs(square - a).max() < limit
        empty = backend.asarray(np.zeros((2, 0, 3, 3)), like=like)
        value, pull = backend.vjp(spectral(Log()), empty)
        assert value.shape == pull(value)[0].shape == (2, 0, 3, 3)


def test_one_decomposition_serves_many_functions(backend, like64, rng):
    a = backend.asarray(with_eigenvalues(rng, [0.5, 1.0, 1.0]), like=like64)

    def product(p):
        parts = Decomposition(p)
        return parts(Sqrt()) @ parts(InverseSqrt()) @ p

    e = backend.asarray(symmetric(rng), like=like64)
    value, moved = backend.jvp(product, (a,), (e,))
    assert np.abs(backend.to_numpy(value - a)).max() < 1e-14
    assert np.abs(backend.to_numpy(moved - e)).max() < 1e-13


def test_hermitian(backend, rng):
    """exp and log undo each other on complex matrices, to second order, with equal eigenvalues."""
    like = backend.asarray(np.zeros((), dtype=np.complex128))
    z = rng.standard_normal((4, 3, 3)) + 1j * rng.standard_normal((4, 3, 3))
    q, _ = np.linalg.qr(z[0])
    hermitian = (z + z.conj().swapaxes(-1, -2)) / 2
    a = backend.asarray((q * np.array([1.0, 1.0, 3.0])) @ q.conj().T, like=like)
    e, g, c = (backend.asarray(m, like=like) for m in hermitian[1:])

    def there_and_back(p):
        return spectral(Exp())(spectral(Log())(p))

    assert np.abs(backend.to_numpy(there_and_back(a) - a)).max() < 1e-13
    assert np.abs(backend.to_numpy(nested_jvp(backend, there_and_back, a, [e]) - e)).max() < 1e-13
    assert np.abs(backend.to_numpy(nested_jvp(backend, there_and_back, a, [e, g]))).max() < 1e-12
    _, pull = backend.vjp(spectral(Log()), a)
    xp = backend.xp
    left = xp.sum(xp.real(xp.conj(pull(c)[0]) * e))
    right = xp.sum(xp.real(xp.conj(c) * nested_jvp(backend, spectral(Log()), a, [e])))
    assert math.isclose(float(left), float(right), rel_tol=1e-12)
