"""`grad` and its kin: one meaning on every framework."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import nestfold as nf


def close(backend, found, wanted, tolerance=1e-12):
    assert backend.owns(found) or np.isscalar(found)
    found, wanted = backend.to_numpy(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def pair(backend):
    return backend.asarray(np.array([0.5, -1.0, 2.0])), backend.asarray(np.array([1.0, 3.0, 0.2]))


def product(x, y):
    xp = nf.namespace(x, y)
    return xp.sum(x * x * y)


def test_argnums(backend):
    x, y = pair(backend)
    a, b = (backend.to_numpy(v) for v in (x, y))
    close(backend, nf.grad(product)(x, y), 2 * a * b)
    close(backend, nf.grad(product, 1)(x, y), a * a)
    close(backend, nf.grad(product, -1)(x, y), a * a)
    second, first = nf.grad(product, (1, 0))(x, y)
    close(backend, second, a * a)
    close(backend, first, 2 * a * b)
    value, (only,) = nf.value_and_grad(product, [1])(x, y)
    close(backend, value, np.sum(a * a * b))
    close(backend, only, a * a)


def test_keywords_are_constants(backend):
    x, y = pair(backend)
    close(backend, nf.grad(lambda x, *, w: product(x, w))(x, w=y), 2 * backend.to_numpy(x * y))


class State(NamedTuple):
    position: object
    count: object


def test_trees_and_integers(backend):
    x, y = pair(backend)
    counts = backend.asarray(np.array([1, 2, 3]))

    def f(tree, state):
        xp = nf.namespace(tree["a"], tree["b"][0], state.position)
        weight = xp.astype(state.count, x.dtype)
        return xp.sum(weight * tree["a"] * tree["b"][0]) + xp.sum(state.position**3)

    tree, state = {"a": x, "b": [y]}, State(y, counts)
    found, of_state = nf.grad(f, (0, 1))(tree, state)
    k = np.array([1, 2, 3])
    close(backend, found["a"], k * backend.to_numpy(y))
    close(backend, found["b"][0], k * backend.to_numpy(x))
    close(backend, of_state.position, 3 * backend.to_numpy(y) ** 2)
    assert of_state.count.shape == (3,) and not backend.to_numpy(of_state.count).any()
    moved = nf.hvp(lambda tree: f(tree, state), (tree,), ({"a": x, "b": [y]},))
    close(backend, moved["a"], k * backend.to_numpy(y))


def test_aux(backend):
    x, y = pair(backend)

    def f(x, y):
        return product(x, y), {"squares": x * x, "name": "f", "steps": backend.asarray(np.array(3)), "none": None}

    gradient, aux = nf.grad(f, has_aux=True)(x, y)
    (value, again), _ = nf.value_and_grad(f, has_aux=True)(x, y)
    close(backend, gradient, backend.to_numpy(2 * x * y))
    close(backend, value, np.sum(backend.to_numpy(x * x * y)))
    for tree in (aux, again):
        close(backend, tree["squares"], backend.to_numpy(x * x))
        assert tree["name"] == "f" and tree["none"] is None and int(tree["steps"]) == 3
    with pytest.raises(TypeError, match="pair"):
        nf.grad(product, has_aux=True)(x, y)


def test_aux_keeps_the_derivatives_of_the_levels_outside(backend):
    x, _ = pair(backend)

    def outer(x):
        gradient, aux = nf.grad(lambda y: (product(y, x), y * y * x), has_aux=True)(x)
        xp = nf.namespace(x)
        return xp.sum(gradient) + xp.sum(aux)

    a = backend.to_numpy(x)
    close(backend, nf.grad(outer)(x), 4 * a + 3 * a * a)


def test_vjp_jvp_linearize_and_hvp(backend):
    x, y = pair(backend)
    a, b = backend.to_numpy(x), backend.to_numpy(y)
    value, pull = nf.vjp(lambda x, y: x * x * y, x, y)
    close(backend, value, a * a * b)
    for _ in range(2):
        of_x, of_y = pull(y)
        close(backend, of_x, 2 * a * b * b)
        close(backend, of_y, a * a * b)
    close(backend, nf.jvp(lambda x, y: x * x * y, (x, y), (y, x))[1], 2 * a * b * b + a**3)
    push = nf.linearize(lambda x, y: x * x * y, x, y)[1]
    close(backend, push(y, x), 2 * a * b * b + a**3)
    close(backend, nf.hvp(product, (x, y), (y, x))[0], 2 * b * b + 2 * a * a)
    close(backend, nf.hvp(product, (x, y), (y, x))[1], 2 * a * b)
    close(backend, nf.hvp(lambda x: product(x, y), (x,), (y,)), 2 * b * b)


def test_jacobian_and_hessian(backend):
    x, y = pair(backend)
    a, b = backend.to_numpy(x), backend.to_numpy(y)
    xp = backend.xp

    def f(x, y):
        return nf.namespace(x, y).linalg.outer(x * x, y)[:, :2]

    expected = np.einsum("ij,k,il->jkl", np.eye(3)[:, :], b[:2], np.diag(2 * a))
    expected = np.stack([np.outer(2 * a * np.eye(3)[i], b)[:, :2] for i in range(3)], axis=-1)
    close(backend, nf.jacobian(f)(x, y), expected)
    assert nf.jacobian(f, 1)(x, y).shape == (3, 2, 3)
    close(backend, nf.hessian(product)(x, y), np.diag(2 * b))
    close(backend, nf.hessian(product, 1)(x, y), np.zeros((3, 3)))
    scalar = backend.asarray(np.array(2.0))
    close(backend, nf.hessian(lambda s: s**3)(scalar), 12.0)
    empty = xp.zeros((0,), dtype=x.dtype)
    assert nf.jacobian(lambda e: e * 2)(empty).shape == (0, 0)
    matrix = xp.reshape(xp.concat([x, y]), (2, 3))
    assert nf.jacobian(lambda m: nf.namespace(m).sum(m * m, axis=0))(matrix).shape == (3, 2, 3)
    close(backend, nf.jacobian(lambda y: nf.jacobian(lambda x: x**3)(y) @ y)(x), np.diag(9 * a * a))


def test_gradients_of_complex_arrays_point_uphill(backend):
    z = backend.asarray(np.array([1 + 2j, -0.5j]))
    w = backend.asarray(np.array([2 - 1j, 1 + 1j]))

    def f(z):
        xp = nf.namespace(z)
        return xp.real(xp.sum(z * z * w)) + xp.sum(xp.abs(z) ** 2)

    a, b = backend.to_numpy(z), backend.to_numpy(w)
    gradient = nf.grad(f)(z)
    close(backend, gradient, np.conj(2 * a * b) + 2 * a)
    ahead = float(backend.to_numpy(f(z + 1e-6 * gradient))) - float(backend.to_numpy(f(z)))
    assert abs(ahead / (1e-6 * np.sum(np.abs(backend.to_numpy(gradient)) ** 2)) - 1) < 1e-4
    close(backend, nf.hvp(f, (z,), (w,)), np.conj(2 * b * b) + 2 * b)
    close(backend, nf.jacobian(lambda z: z**3)(z), np.diag(3 * a * a))
    for refused in (nf.jacobian, nf.hessian):
        with pytest.raises(nf.DTypeError, match="complex"):
            refused(f)(z)


def test_what_cannot_be_differentiated_is_told(backend):
    x, y = pair(backend)
    integers = backend.asarray(np.array([1, 2]))
    with pytest.raises(nf.ShapeError, match=r"\(3,\).*jacobian"):
        nf.grad(lambda x: x * x)(x)
    with pytest.raises(nf.DTypeError, match="int"):
        nf.grad(lambda k: backend.xp.sum(k))(integers)
    with pytest.raises(nf.DTypeError, match="int"):
        nf.grad(lambda x: backend.xp.argmax(nf.stop_gradient(x)))(x)
    with pytest.raises(nf.DTypeError, match="float"):
        nf.grad(lambda x: 1.5)(x)
    with pytest.raises(nf.DTypeError, match="complex"):
        nf.grad(lambda x: nf.namespace(x).sum(x * 1j) if backend.name != "array_api_strict" else _complex(x))(x)
    with pytest.raises(nf.DTypeError, match=r"argument 1.*float"):
        nf.grad(product, (0, 1))(x, 2.0)
    with pytest.raises(nf.ShapeError, match="argnums=2"):
        nf.grad(product, 2)(x, y)
    with pytest.raises(TypeError, match="no array"):
        nf.grad(lambda x: x * x)(2.0)
    with pytest.raises(nf.ShapeError, match="tangents"):
        nf.jvp(product, (x, y), (x, y[:2]))
    with pytest.raises(nf.ShapeError, match="tangents"):
        nf.hvp(product, (x, y), (x,))
    with pytest.raises(nf.ShapeError, match="single arrays"):
        nf.hessian(lambda t: product(t[0], t[1]))([x, y])


def _complex(x):
    xp = nf.namespace(x)
    return xp.sum(xp.astype(x, xp.complex128))


def test_float32_and_scalars(backend, like32):
    x = backend.asarray(np.array([0.5, 2.0]), like=like32)
    for found in (nf.grad(product)(x, x), nf.hvp(product, (x, x), (x, x))[1], nf.hessian(product)(x, x)):
        assert found.dtype == x.dtype
    s = backend.asarray(np.array(3.0), like=like32)
    gradient = nf.grad(lambda s: s * s)(s)
    assert gradient.shape == () and float(gradient) == 6


def test_of_a_function_that_ignores_its_argument(backend):
    x, y = pair(backend)
    close(backend, nf.grad(lambda x: nf.namespace(y).sum(y))(x), np.zeros(3))


def test_stop_gradient(backend):
    x, _ = pair(backend)
    close(backend, nf.grad(lambda x: product(nf.stop_gradient(x), x))(x), backend.to_numpy(x) ** 2)


def test_tensors_that_require_grad():
    torch = pytest.importorskip("torch")
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    gradient = nf.grad(lambda x: torch.sum(weight * x**3))(x)
    np.testing.assert_allclose(gradient.detach().numpy(), [9, 48])
    loss = torch.sum(gradient**2)
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.array([9, 48]) * 6 * np.array([3, 8]))
    np.testing.assert_allclose(weight.grad.numpy(), 2 * np.array([9, 48]) * 3 * np.array([1, 4]))


def test_under_jit():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray([0.5, -1.0, 2.0])
    for transform in (nf.grad, nf.hessian, nf.value_and_grad):
        for a, b in zip(
            jax.tree_util.tree_leaves(jax.jit(transform(product))(x, x)),
            jax.tree_util.tree_leaves(transform(product)(x, x)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    found = jax.jit(lambda x, v: nf.hvp(lambda x: product(x, x), (x,), (v,)))(x, x)
    np.testing.assert_allclose(found, 6 * x * x, rtol=1e-6)
    with pytest.raises(nf.ShapeError):
        jax.jit(nf.grad(lambda x: x * x))(x)
