"""Dtypes, shapes and arguments: what goes into a derivative decides what comes out."""

from __future__ import annotations

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import get_backend

strict = pytest.importorskip("array_api_strict")


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_float32_stays_float32(name):
    backend = get_backend(name)
    x = backend.asarray(np.array([0.5, 1.5], dtype=np.float32))
    scalar = backend.asarray(np.array(2.0, dtype=np.float32))

    def f(x, s):
        xp = nf.namespace(x)
        y = xp.clip(2 * x**2 + 0.1, 0.0, 9.0) / 3 + s * xp.maximum(x, 0.3) - xp.pow(2.0, x)
        y = xp.where(x > 1, y, 1.0) + xp.mean(y) + xp.std(y) + xp.prod(y)
        y = xp.concat([y, xp.stack([s, s])])
        m = xp.eye(4, dtype=y.dtype, device=backend.device(y)) * 3 + xp.linalg.outer(y, y)
        q = xp.linalg.eigh(m + m.mT)[0] + xp.linalg.solve(m, y) + xp.linalg.cholesky(m @ m.mT)[:, 0]
        total = xp.linalg.vector_norm(q) + xp.linalg.det(m) + xp.linalg.slogdet(m)[1]
        return xp.sum(y[xp.argsort(y)]) + total if name == "numpy" else xp.sum(y) + total

    value, gradients = nf.value_and_grad(f, (0, 1))(x, scalar)
    moved = nf.hvp(f, (x, scalar), (x, scalar))
    tangent = nf.jvp(f, (x, scalar), (x, scalar))[1]
    for found in (value, tangent, *gradients, *moved):
        assert found.dtype == x.dtype


def test_mixed_precision_and_integers():
    a32, a64 = np.ones(3, dtype=np.float32), np.array([1.0, 2.0, 3.0])
    z64, counts = np.array([1j, 1, 2 - 1j], dtype=np.complex64), np.array([1, 2, 3])

    def f(a, b, z):
        y = counts * a + b**counts + (a @ b) * a + np.concatenate([a, b])[2:5] + np.where(counts > 1, a, b)
        return np.sum(y) + np.sum(np.abs(z * a) ** 2) + np.sum((b * z).real)

    gradients = nf.grad(f, (0, 1, 2))(a32, a64, z64)
    assert [g.dtype for g in gradients] == [np.float32, np.float64, np.complex64]
    assert np.allclose(gradients[1], counts * a64 ** (counts - 1) + 3 * a32 + [0, 0, 0] + [1, 1, 0] * a32 * 0
                       + np.array([1, 1, 0]) + [1, 0, 0] + z64.real)  # fmt: skip
    assert np.allclose(gradients[2], 2 * z64 + a64)
    assert nf.vjp(lambda a: a * 1.0, a32)[1](a64)[0].dtype == np.float32
    assert nf.jvp(lambda a: a * 1.0, (a32,), (a64,))[1].dtype == np.float32


def test_arguments_of_pull_and_push_are_checked():
    y, pull = nf.vjp(lambda x: (np.sum(x), x), np.ones(3))
    with pytest.raises(nf.ShapeError, match="cotangent has another structure"):
        pull(y[0])
    with pytest.raises(nf.ShapeError, match=r"number 1.0 where an array of shape \(3,\)"):
        pull((1.0, 1.0))
    assert np.array_equal(pull((1.0, np.zeros(3)))[0], np.ones(3))


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_jacobian_inside_a_derivative(name):
    """Plain operations of the library on traced arrays, `Backend.matrix` among them."""
    backend = get_backend(name)
    x = backend.asarray(np.array([0.5, -1.0, 2.0]))

    def f(x):
        j = nf.jacobian(lambda x: x**3)(x)
        return nf.namespace(j).sum(j * j)

    assert np.allclose(backend.to_numpy(nf.grad(f)(x)), 36 * backend.to_numpy(x) ** 3)
