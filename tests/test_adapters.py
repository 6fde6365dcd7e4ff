"""The adapters of PyTorch and JAX, against each other, closed forms and finite differences."""

import numpy as np
import pytest

from nestfold.backends import get_backend
from nestfold.testing._usable import double_precision

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy


@pytest.fixture(params=["torch", "jax"])
def adapter(request):
    with double_precision(request.param):
        yield get_backend(request.param)


@pytest.fixture
def both():
    with double_precision("jax"):
        yield get_backend("torch"), get_backend("jax")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def regular(n, seed=0):
    return numbers(n, n, seed=seed) + 3 * np.eye(n)


def close(backend, found, expected, tolerance=1e-12):
    found, expected = (backend.to_numpy(a) if backend.owns(a) else np.asarray(a) for a in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, abs(expected).max()))


def gradient(backend, f):
    def gradient_of_f(x):
        y, pull = backend.vjp(f, x)
        return pull(backend.xp.ones_like(y))[0]

    return gradient_of_f


def along(backend, f, direction):
    """x -> ⟨∇f(x), direction⟩, by reverse mode."""
    return lambda x: backend.xp.sum(gradient(backend, f)(x) * direction)


def pushed(backend, f, direction):
    """x -> Df(x)[direction], by forward mode."""
    return lambda x: backend.jvp(f, (x,), (direction,))[1]


def poisoned_inverse(backend):
    """x -> x⁻¹ through NumPy, which no framework can differentiate."""

    def through_numpy(x):
        return backend.call_external(lambda a: np.linalg.inv(np.asarray(a)), x, x)

    inverse = backend.custom_derivative(
        through_numpy,
        lambda primals, y, tangents: -y @ tangents[0] @ y,
        lambda primals, y, cotangent, needs: (-inverse(primals[0]).mT @ cotangent @ inverse(primals[0]).mT,),
    )
    return inverse


def test_vjp_jvp_and_linearize_agree_with_closed_forms(adapter):
    a, u, w = (adapter.asarray(v) for v in (regular(4), numbers(4, 4, seed=1), numbers(4, 4, seed=2)))
    inverse = np.linalg.inv(regular(4))
    tangent = -inverse @ numbers(4, 4, seed=1) @ inverse
    cotangent = -inverse.T @ numbers(4, 4, seed=2) @ inverse.T
    f = adapter.xp.linalg.inv
    y, pull = adapter.vjp(f, a)
    close(adapter, y, inverse)
    close(adapter, pull(w)[0], cotangent)
    close(adapter, pull(2 * w)[0], 2 * cotangent)
    close(adapter, adapter.jvp(f, (a,), (u,))[1], tangent)
    y, push = adapter.linearize(f, a)
    close(adapter, y, inverse)
    close(adapter, push(u), tangent)
    close(adapter, push(-u), -tangent)


def test_trees_unused_and_integer_arguments(adapter):
    def f(tree, unused):
        x, k = tree["x"], tree["k"]
        return {"sum": adapter.xp.sum(x * x), "next": k + 1, "pair": [x, 2 * x]}

    tree = {"x": adapter.asarray(np.array([1.0, 2.0])), "k": adapter.asarray(np.array([3]))}
    other = (adapter.asarray(np.ones(3)), [adapter.asarray(np.ones(1))])
    y, pull = adapter.vjp(f, tree, other)
    assert list(adapter.to_numpy(y["next"])) == [4]
    one = adapter.asarray(1.0, like=tree["x"])
    from_tree, from_other = pull({"sum": one, "next": y["next"], "pair": [tree["x"]] * 2})
    close(adapter, from_tree["x"], np.array([5.0, 10.0]))
    assert from_tree["k"].dtype == tree["k"].dtype and not adapter.to_numpy(from_tree["k"]).any()
    assert not adapter.to_numpy(from_other[0]).any() and not adapter.to_numpy(from_other[1][0]).any()
    y, push = adapter.linearize(f, tree, other)
    moved = push(tree, other)
    close(adapter, moved["sum"], np.array(10.0))
    close(adapter, moved["pair"][1], np.array([2.0, 4.0]))
    assert moved["next"].dtype == y["next"].dtype and not adapter.to_numpy(moved["next"]).any()


def test_function_that_ignores_its_argument(adapter):
    x = adapter.asarray(np.ones(3))
    constant = adapter.asarray(np.ones(2))
    y, pull = adapter.vjp(lambda x: constant, x)
    close(adapter, y, np.ones(2))
    close(adapter, pull(constant)[0], np.zeros(3))
    close(adapter, adapter.linearize(lambda x: constant, x)[1](x), np.zeros(2))


def test_complex_cotangents_point_along_steepest_ascent(adapter):
    z = adapter.asarray(numbers(3) + 1j * numbers(3, seed=1))
    c = adapter.asarray(numbers(3, seed=2) + 1j * numbers(3, seed=3))
    xp = adapter.xp
    _, pull = adapter.vjp(lambda z: xp.sum(xp.real(xp.conj(z) * z)), z)
    close(adapter, pull(1.0)[0], 2 * z)
    _y, pull = adapter.vjp(lambda z: z**3, z)
    close(adapter, pull(c)[0], xp.conj(3 * z**2) * c)
    close(adapter, adapter.linearize(lambda z: z**3, z)[1](c), 3 * z**2 * c)
    real = adapter.asarray(numbers(3))
    close(adapter, adapter.vjp(lambda r: r * z, real)[1](c)[0], xp.real(xp.conj(z) * c))


@pytest.mark.parametrize("order", [1, 2])
def test_every_nesting_of_modes_has_the_same_derivatives(adapter, order):
    directions = [adapter.asarray(numbers(3, 3, seed=s)) for s in range(1, 4)]
    weight = adapter.asarray(numbers(3, 3, seed=9))
    x = adapter.asarray(regular(3))

    def f(x):
        return adapter.xp.sum(adapter.xp.linalg.inv(x) * weight) ** 2

    expected = mixed_difference(adapter, f, x, directions[:order])
    for word in range(2**order):
        g = f
        for level in range(order):
            g = (pushed if word >> level & 1 else along)(adapter, g, directions[level])
        close(adapter, g(x), expected, 1e-6)


def mixed_difference(backend, f, x, directions, step=1e-2):
    """The derivative along all directions by central differences of order 8, nested."""
    if not directions:
        return backend.to_numpy(f(x))
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    total = 0.0
    for k, weight in weights.items():
        ahead = mixed_difference(backend, f, x + k * step * directions[-1], directions[:-1], step)
        behind = mixed_difference(backend, f, x - k * step * directions[-1], directions[:-1], step)
        total = total + weight * (ahead - behind) / step
    return np.asarray(total)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_custom_derivative_of_a_poisoned_function(adapter, order):
    """Right derivatives of any order through a function that goes through NumPy, in all nestings."""
    directions = [adapter.asarray(numbers(3, 3, seed=s)) for s in range(1, 4)]
    weight = adapter.asarray(numbers(3, 3, seed=9))
    x = adapter.asarray(regular(3))
    for word in range(2**order):
        answers = []
        for inverse in (adapter.xp.linalg.inv, poisoned_inverse(adapter)):

            def cost(x, inverse=inverse):
                return adapter.xp.sum(inverse(x) * weight) ** 2

            g = cost
            for level in range(order):
                g = (pushed if word >> level & 1 else along)(adapter, g, directions[level])
            answers.append(g(x))
        known, found = answers
        close(adapter, found, known, 1e-10)


def test_custom_derivative_of_trees_with_integers(adapter):
    """f({x, k}, w) = {k x w, k + 1, w}: integers in and out, a primal that is not needed."""
    asked = []

    def pushforward(primals, out, tangents):
        (tree, w), (d_tree, d_w) = primals, tangents
        k, zero = adapter.xp.astype(tree["k"], w.dtype), 0 * tree["x"]
        d_x = zero if d_tree is None else d_tree["x"]
        d_w = zero if d_w is None else d_w
        return {"y": k * (d_x * w + tree["x"] * d_w), "k": tree["k"] * 0, "w": d_w}

    def pullback(primals, out, cotangent, needs):
        asked.append(needs)
        tree, w = primals
        k = adapter.xp.astype(tree["k"], w.dtype)
        d_tree = {"x": k * w * cotangent["y"], "k": tree["k"] * 0} if needs[0] else None
        return d_tree, (k * tree["x"] * cotangent["y"] + cotangent["w"] if needs[1] else None)

    def function(tree, w):
        k = adapter.xp.astype(tree["k"], w.dtype)
        return {"y": k * tree["x"] * w, "k": tree["k"] + 1, "w": 1 * w}

    f = adapter.custom_derivative(function, pushforward, pullback)
    k, x, w = (
        adapter.asarray(np.array([2, 5])),
        adapter.asarray(numbers(2)),
        adapter.asarray(numbers(2, seed=1)),
    )
    out = f({"x": x, "k": k}, w)
    assert list(adapter.to_numpy(out["k"])) == [3, 6]

    def scalar(w):
        return adapter.xp.sum(f({"x": x, "k": k}, w)["y"] ** 2 + f({"x": w, "k": k}, x)["w"])

    close(adapter, gradient(adapter, scalar)(w), 2 * adapter.to_numpy(k * x) ** 2 * adapter.to_numpy(w))
    close(
        adapter,
        pushed(adapter, scalar, w)(w),
        np.sum(2 * (adapter.to_numpy(k * x) * adapter.to_numpy(w)) ** 2),
    )
    if adapter.name == "torch":
        assert (False, True) in asked


def dense_solve(backend):
    """A solver that autodiff cannot pass: the matrix of the operator, solved by NumPy."""

    def solve(apply, b):
        a = backend.matrix(apply, b)
        return backend.call_external(lambda a, b: np.linalg.solve(np.asarray(a), np.asarray(b)), b, a, b)

    return solve


@pytest.mark.parametrize("complex_numbers", [False, True])
def test_linear_solve_in_its_parameters_and_right_hand_side(adapter, complex_numbers):
    xp, solve = adapter.xp, dense_solve(adapter)
    turn = (1 + 0.5j) if complex_numbers else 1.0
    p, b, c = (adapter.asarray(turn * a) for a in (regular(3), numbers(3), numbers(3, seed=1)))
    dp, db = (adapter.asarray(np.conj(turn) * a) for a in (numbers(3, 3, seed=2), numbers(3, seed=3)))

    def matrix(p):
        return p + p @ p / 5

    def make(p):
        a = matrix(p)
        return (lambda v: a @ v), (lambda v: xp.conj(a).mT @ v)

    def ours(tree):
        v = adapter.linear_solve(make, tree[0], tree[1], solve, solve)
        return xp.real(xp.sum(v * c)) ** 2

    def reference(tree):
        return xp.real(xp.sum(xp.linalg.solve(matrix(tree[0]), tree[1][..., None])[..., 0] * c)) ** 2

    def directional(f, tree):
        moved = gradient(adapter, f)(tree)
        return sum(xp.sum(xp.real(xp.conj(a) * t)) for a, t in zip(moved, (dp, db), strict=True))

    def answers(f):
        first = gradient(adapter, f)((p, b))
        forward = adapter.jvp(f, ((p, b),), ((dp, db),))[1]
        second = gradient(adapter, lambda tree: directional(f, tree))((p, b))
        mixed = adapter.jvp(lambda tree: directional(f, tree), ((p, b),), ((dp, db),))[1]
        return [*first, forward, *second, mixed]

    found, expected = (adapter.jit(lambda f=f: answers(f))() for f in (ours, reference))
    for f, e in zip(found, expected, strict=True):
        close(adapter, f, e, 1e-9)


def test_linear_solve_of_a_tree_where_one_leaf_moves(adapter):
    """Two uncoupled systems, a complex one and a real one; the parameters move the first only."""
    xp = adapter.xp
    p = adapter.asarray(regular(2) + 1j * numbers(2, 2))
    b = {"z": adapter.asarray(numbers(2) + 0.5j), "x": adapter.asarray(numbers(1))}

    def make(p):
        apply = lambda v: {"z": p @ v["z"], "x": 4 * v["x"]}  # noqa: E731
        return apply, lambda v: {"z": xp.conj(p).mT @ v["z"], "x": 4 * v["x"]}

    def solve(apply, b):
        zero = {"z": 0 * b["z"], "x": 0 * b["x"]}
        a = adapter.matrix(lambda z: apply({"z": z, "x": zero["x"]})["z"], b["z"])
        return {"z": xp.linalg.solve(a, b["z"][..., None])[..., 0], "x": b["x"] / 4}

    def loss(answer):
        return lambda p: xp.real(xp.sum(answer(p)["z"] ** 3)) * xp.sum(answer(p)["x"])

    ours, reference = (
        loss(lambda p: adapter.linear_solve(make, p, b, solve, solve)),
        loss(lambda p: solve(make(p)[0], b)),
    )
    close(adapter, adapter.jit(gradient(adapter, ours))(p), adapter.jit(gradient(adapter, reference))(p))

    def twice(f):
        return adapter.jit(gradient(adapter, lambda p: xp.sum(xp.real(gradient(adapter, f)(p) * xp.conj(p)))))(p)

    close(adapter, twice(ours), twice(reference), 1e-10)


def test_hoist_finds_nothing_where_nothing_is_differentiated(adapter):
    w, y = adapter.asarray(numbers(3)), adapter.asarray(numbers(3, seed=1))
    g, captured = adapter.hoist(lambda y: w * y, y)
    assert captured == ()
    close(adapter, g(captured, y), adapter.to_numpy(w) * adapter.to_numpy(y))


def test_hoist_makes_captured_arrays_arguments(adapter):
    """d/dw of a sealed function of w: the derivative arrives through `captured` only."""
    y = adapter.asarray(numbers(3))
    xp = adapter.xp

    def sealed(f, y):
        g, captured = adapter.hoist(f, y)
        assert len(captured) == 2
        rule = adapter.custom_derivative(
            lambda captured, y: adapter.stop_gradient(g(captured, y)),
            lambda primals, out, tangents: adapter.jvp(lambda c: g(c, primals[1]), primals[:1], tangents[:1])[1],
            lambda primals, out, cotangent, needs: (adapter.vjp(g, *primals)[1](cotangent)[0], None),
        )
        return rule(captured, y)

    def loss(w, seal):
        doubled = w * w

        def cost(y):
            return xp.sum(doubled * y) ** 2 + xp.sum(xp.sin(w) * y)

        return seal(cost, y)

    w = adapter.asarray(numbers(3, seed=2))
    open_loss, sealed_loss = (lambda w: loss(w, lambda f, y: f(y))), (lambda w: loss(w, sealed))
    close(adapter, gradient(adapter, sealed_loss)(w), gradient(adapter, open_loss)(w))
    close(
        adapter,
        gradient(adapter, along(adapter, sealed_loss, y))(w),
        gradient(adapter, along(adapter, open_loss, y))(w),
    )
    close(adapter, pushed(adapter, sealed_loss, y)(w), pushed(adapter, open_loss, y)(w))
    if adapter.name == "jax":
        close(adapter, jax.jit(jax.hessian(sealed_loss))(w), jax.hessian(open_loss)(w))
    else:
        close(
            adapter,
            torch.func.jacrev(torch.func.jacrev(open_loss))(w),
            torch.autograd.functional.hessian(sealed_loss, w),
        )
        close(adapter, torch.func.grad(sealed_loss)(w), gradient(adapter, open_loss)(w))


def test_while_loop_and_repeat(adapter):
    xp = adapter.xp
    start = (adapter.asarray(np.array([1.0, 2.0])), adapter.asarray(0))

    def halve(state):
        return (state[0] / 2, state[1] + 1)

    def small(state):
        return xp.sum(state[0]) > 0.1

    x, steps = adapter.while_loop(small, halve, start, max_steps=100)
    assert int(adapter.to_numpy(steps)) == 5
    close(adapter, x, np.array([1.0, 2.0]) / 32)
    assert int(adapter.to_numpy(adapter.while_loop(small, halve, start, max_steps=3)[1])) == 3
    assert int(adapter.to_numpy(adapter.while_loop(small, halve, start, max_steps=0)[1])) == 0

    def twice(x):
        return adapter.repeat(lambda s: s * s, x, steps=3)

    x = adapter.asarray(np.array([1.1, 0.9]))
    close(adapter, gradient(adapter, twice)(x), 8 * np.array([1.1, 0.9]) ** 7)
    close(adapter, pushed(adapter, twice, x)(x), 8 * np.array([1.1, 0.9]) ** 8)
    close(adapter, adapter.jit(twice)(x), np.array([1.1, 0.9]) ** 8)
    assert adapter.repeat(halve, x, steps=0) is x if adapter.name == "torch" else True


def test_one_seed_gives_the_same_noise(both):
    draws = []
    for backend in both:
        for dtype in ("float32", "float64", "complex128"):
            like = backend.asarray(np.zeros(1, dtype=dtype))
            noise = backend.noise(np.random.default_rng(7), (3, 2), like=like)
            assert noise.dtype == like.dtype
            draws.append(backend.to_numpy(noise))
    for one, other in zip(draws[:3], draws[3:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_in_and_out(adapter):
    like = adapter.asarray(np.ones(2, dtype=np.float32))
    assert adapter.asarray([1, 2], like=like).dtype == like.dtype
    assert adapter.asarray(np.arange(2.0), like=like).dtype == like.dtype
    frozen = np.ones(3)
    frozen.flags.writeable = False
    copied = adapter.to_numpy(adapter.asarray(frozen))
    copied[0] = 5
    assert frozen[0] == 1
    assert adapter.owns(like) and not adapter.owns(frozen)
    moved = adapter.to_device(like, adapter.device(like))
    assert adapter.device(moved) == adapter.device(like)
    assert adapter.synchronize({"a": like})["a"] is like
    a = adapter.asarray(numbers(4, 4))
    close(adapter, adapter.matrix(lambda v: a @ v, a[0, ...]), numbers(4, 4))
    batch = adapter.asarray(numbers(2, 4))
    found = adapter.matrix(lambda v: v * batch, batch)
    close(adapter, found, np.stack([np.diag(row) for row in numbers(2, 4)]))


def test_what_can_be_looked_at(both):
    seen = []
    torch_backend, jax_backend = both

    def look(backend):
        def f(x):
            eager = backend.is_eager({"x": x})
            seen.append(backend.to_numpy(x)[0] if eager else None)
            return (x * x).sum()

        return f

    jax.grad(look(jax_backend))(jnp.ones(2))
    jax.jit(look(jax_backend))(jnp.ones(2))
    jax.vmap(jax.grad(look(jax_backend)))(jnp.ones((2, 2)))
    torch.func.grad(look(torch_backend))(torch.ones(2))
    torch.func.vmap(torch.func.grad(look(torch_backend)))(torch.ones(2, 2))
    look(torch_backend)(torch.ones(2, requires_grad=True))
    assert seen == [1, None, None, 1, None, 1]


def test_external_functions(adapter):
    kinds = []

    def black_box(a, b):
        kinds.append(type(a))
        return {"sum": np.asarray(a) + np.asarray(b)}

    x = adapter.asarray(np.array([1.0, 2.0], dtype=np.float32))

    def f(x):
        return adapter.xp.sum(x * adapter.call_external(black_box, {"sum": x}, x, x)["sum"])

    close(adapter, gradient(adapter, f)(x), np.array([2.0, 4.0]))
    assert all(issubclass(kind, (torch.Tensor, jax.Array)) for kind in kinds)
    if adapter.name == "jax":
        close(adapter, jax.jit(jax.grad(f))(x), np.array([2.0, 4.0]))
        close(adapter, jax.vmap(f)(jnp.stack([x, x])), np.array([10.0, 10.0]))
