"""The adapter of JAX: under its transformations, and its types."""

import numpy as np
import pytest

from nestfold.backends import DTypeError, get_backend
from nestfold.testing._usable import double_precision

jax = pytest.importorskip("jax")
jnp = jax.numpy
JAX = get_backend("jax")


@pytest.fixture(autouse=True)
def sixty_four_bits():
    with double_precision("jax"):
        yield


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def regular(n, seed=0):
    return numbers(n, n, seed=seed) + 3 * np.eye(n)


def close(found, expected, tolerance=1e-12):
    found, expected = (JAX.to_numpy(a) if JAX.owns(a) else np.asarray(a) for a in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, abs(expected).max()))


def poisoned_inverse():
    """x -> x⁻¹ through NumPy, which no framework can differentiate."""

    def through_numpy(x):
        return JAX.call_external(lambda a: np.linalg.inv(np.asarray(a)), x, x)

    inverse = JAX.custom_derivative(
        through_numpy,
        lambda primals, y, tangents: -y @ tangents[0] @ y,
        lambda primals, y, cotangent, needs: (-inverse(primals[0]).mT @ cotangent @ inverse(primals[0]).mT,),
    )
    return inverse


def dense_solve():
    """A solver that autodiff cannot pass: the matrix of the operator, solved by NumPy."""

    def solve(apply, b):
        a = JAX.matrix(apply, b)
        return JAX.call_external(lambda a, b: np.linalg.solve(np.asarray(a), np.asarray(b)), b, a, b)

    return solve


def test_custom_derivative_under_transformations_of_jax():
    weight, v, x = (jnp.asarray(a) for a in (numbers(3, 3, seed=9), numbers(3, 3), regular(3)))
    answers = []
    for inverse in (jnp.linalg.inv, poisoned_inverse()):

        def f(x, inverse=inverse):
            return jnp.sum(inverse(x) * weight) ** 2

        third = jax.grad(lambda x, f=f: jax.jvp(jax.grad(f), (x,), (v,))[1][0, 1])
        answers.append(
            [
                jax.jit(jax.hessian(f))(x),
                jax.jit(third)(x),
                jax.grad(jax.jit(f))(x),
                jax.vmap(jax.grad(f))(jnp.stack([x, x + v])),
            ]
        )
    for expected, found in zip(*answers, strict=True):
        close(found, expected, 1e-10)


def test_linear_solve_under_jit_hessian_and_vmap():
    solve = dense_solve()
    p, b, c = (jnp.asarray(a) for a in (regular(3), numbers(3), numbers(3, seed=1)))

    def make(p):
        a = jnp.sin(p) + 3 * jnp.eye(3)
        return (lambda v: a @ v), (lambda v: a.T @ v)

    def ours(p, b):
        return jnp.sum(JAX.linear_solve(make, p, b, solve, solve) * c) ** 2

    def reference(p, b):
        return jnp.sum(jnp.linalg.solve(jnp.sin(p) + 3 * jnp.eye(3), b) * c) ** 2

    close(jax.jit(jax.hessian(ours))(p, b), jax.jit(jax.hessian(reference))(p, b), 1e-10)
    batch = jnp.stack([p, 2 * p]), jnp.stack([b, c])
    found = jax.jit(jax.vmap(jax.grad(ours, argnums=(0, 1))))(*batch)
    expected = jax.vmap(jax.grad(reference, argnums=(0, 1)))(*batch)
    for f, e in zip(found, expected, strict=True):
        close(f, e, 1e-10)


def test_hoist_sees_the_present_value_of_a_closure():
    """One function object, another array behind it each time: nothing stale is used."""
    held = {}

    def cost(y):
        return jnp.sum(held["w"] * y)

    def loss(w):
        held["w"] = w
        g, captured = JAX.hoist(cost, jnp.arange(3.0))
        assert len(captured) == 1
        return g(captured, jnp.arange(3.0))

    for _ in range(2):
        close(jax.grad(loss)(jnp.ones(3)), np.arange(3.0))


def test_loop_keeps_weak_types():
    """A state of Python numbers, of which JAX makes weak types: the loop fixes them."""

    def body(state):
        return {"x": state["x"] * jnp.float32(2), "n": state["n"] + 1, "done": state["x"] > 10}

    state = {"x": jnp.asarray(1.0, dtype=jnp.float32), "n": 0, "done": False}
    end = jax.jit(lambda s: JAX.while_loop(lambda s: ~s["done"], body, s, max_steps=50))(state)
    assert float(end["x"]) == 32 and int(end["n"]) == 5


def test_sixty_four_bits_must_be_switched_on():
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable_x64(False):
        for ask in ({"dtype": jnp.float64}, {}):
            with pytest.raises(DTypeError, match="jax_enable_x64"):
                JAX.asarray(np.ones(2), **ask)
        assert JAX.asarray(np.ones(2), dtype=jnp.float32).dtype == jnp.float32
        assert JAX.asarray([1.0]).dtype == jnp.float32
        assert JAX.asarray(np.array([1])).dtype == jnp.int32


def test_jit_compiles_one_function_once():
    runs = []

    def f(x):
        runs.append(0)
        return x + 1

    for _ in range(3):
        JAX.jit(f)(jnp.ones(2))
    assert len(runs) == 1
