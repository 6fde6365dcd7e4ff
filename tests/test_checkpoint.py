"""`checkpoint`: the same values and derivatives, less memory, more evaluations."""

from __future__ import annotations

import functools
import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends._trees import leaves

ns = nf.namespace


def plain(f):
    return f


def arrays(backend):
    return backend.asarray(np.array([0.5, -1.0, 2.0])), backend.asarray(np.array([1.0, 3.0, 0.2]))


def numbers(backend, tree):
    return np.concatenate([np.ravel(backend.to_numpy(leaf)) for leaf in leaves(tree) if backend.is_array(leaf)])


def agree(backend, transform, loss, *args):
    """The transform of a loss that uses `checkpoint` is that of the same loss without."""
    found, expected = [numbers(backend, transform(loss(mark))(*args)) for mark in (nf.checkpoint, plain)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def total(a):
    return ns(a).sum(a)


# -- losses, made with `mark` for the function that marks what is recomputed
def trees_and_keywords(mark):
    @mark
    def part(tree, w, power=2, *, name, shift=None):
        xp = ns(tree["x"], w)
        assert name == "part" and type(power) is int
        positive = xp.astype(nf.stop_gradient(tree["x"]) > 0, xp.int64)
        return {"y": xp.sin(tree["x"] * w) ** power + shift, "k": positive, "name": name, "none": None, "n": 3}

    def loss(x, w):
        out = part({"x": x * x, "label": "x"}, w=w, name="part", shift=x)
        assert out["name"] == "part" and out["none"] is None and out["n"] == 3
        return total(out["y"] * ns(x).astype(out["k"] + out["n"], x.dtype) * w)

    return loss


def captured(mark):
    """Of every level, passed and captured at once, and in a function whose arguments are constant."""

    def loss(x, w):
        product = x * w
        constant = nf.stop_gradient(x)
        first = mark(lambda y: ns(y, w).sin(y * w) * product)(x)
        second = mark(lambda y: total(ns(w).exp(w * y) * product))(constant)
        return total(mark(lambda y: y * y * w)(w)) * second + total(first * first)

    return loss


def nested(mark):
    def loss(x, w):
        @mark
        def outer(y):
            u = y * w

            @mark
            def inner(z):
                return mark(lambda t: ns(t).cos(t * u * w) * x)(z * z)

            return inner(y) * mark(lambda z: z * u)(y)

        return total(outer(x * w) ** 2)

    return loss


def derivatives_inside(mark):
    """A checkpoint of a gradient, in a gradient, in a product of a Hessian."""

    def loss(x, w):
        inner = mark(lambda y, v: total(ns(y, v).sin(y * v * w)))
        gradient = mark(lambda y: nf.grad(lambda v: inner(v, w) * total(v * x))(y))
        pushed = mark(lambda y: nf.jvp(lambda v: v * v * v * w, (y,), (x,))[1])
        return total(gradient(x) * pushed(w))

    return loss


LOSSES = [trees_and_keywords, captured, nested, derivatives_inside]
TRANSFORMS = {
    "value_and_grad": lambda loss: nf.value_and_grad(loss, (0, 1)),
    "grad of a Hessian": lambda loss: nf.grad(lambda x, w: total(nf.hessian(loss)(x, w) ** 2), (0, 1)),
    "hvp": lambda loss: lambda x, w: nf.hvp(loss, (x, w), (w, x)),
    "grad of jvp": lambda loss: nf.grad(lambda x, w: nf.jvp(loss, (x, w), (w, x))[1]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_derivatives_of_every_order(backend, loss, name):
    agree(backend, TRANSFORMS[name], loss, *arrays(backend))


def test_third_order_in_every_nesting_of_modes(backend):
    orders = [nf.grad, lambda f: lambda s: nf.jvp(f, (s,), (ns(s).ones_like(s),))[1]]
    s = backend.asarray(np.array(0.3))
    for modes in [(a, b, c) for a in orders for b in orders for c in orders]:
        f = nf.checkpoint(lambda s: ns(s).exp(2 * s) * ns(s).sin(s))
        for mode in modes:
            f = nf.checkpoint(mode(f))
        expected = np.exp(0.6) * (2 * np.sin(0.3) + 11 * np.cos(0.3))
        assert abs(float(backend.to_numpy(f(s))) - expected) < 1e-12


def test_complex_arrays_and_integer_results(backend):
    z = backend.asarray(np.array([1 + 2j, -0.5j]))
    k = backend.asarray(np.array([2, 1]))

    def loss(mark):
        part = mark(lambda z, k: (z * z * ns(z).astype(ns(k).astype(k, ns(k).float64), z.dtype), k + k, ns(z).abs(z)))

        def f(z):
            square, doubled, size = part(z, k)
            return total(ns(z).real(square)) * total(size) * total(ns(z).astype(doubled, size.dtype))

        return f

    agree(backend, nf.grad, loss, z)
    agree(backend, lambda f: lambda z: nf.hvp(f, (z,), (z * 1j,)), loss, z)
    out = nf.checkpoint(lambda z, k: k + k)(z, k)
    assert backend.to_numpy(out).tolist() == [4, 2]


def test_what_is_not_differentiated_runs_once(backend):
    calls = []
    f = nf.checkpoint(lambda x: calls.append(0) or x * x)
    x, _ = arrays(backend)
    assert backend.to_numpy(f(x)).tolist() == [0.25, 1, 4] and len(calls) == 1
    assert f(3.0) == 9.0 and nf.checkpoint(lambda: 1)() == 1
    with pytest.raises(nf.BackendMismatchError):
        f([x, np.ones(3) if backend.name != "numpy" else pytest.importorskip("torch").ones(3)])


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
def test_a_gradient_evaluates_once_more(backend):
    """Once forward, once for each pull, whatever is captured; JAX traces once and repeats what it traced."""
    calls = []

    def segment(w):
        def f(x):
            calls.append(0)
            return ns(x, w).sin(x * w)

        return nf.checkpoint(f)

    x, w = arrays(backend)
    value, pull = nf.vjp(lambda x, w: segment(w)(x), x, w)
    assert len(calls) == 1
    for n in (2, 3):
        pull(value)
        assert len(calls) == n
    calls.clear()
    nf.grad(lambda w: total(segment(w)(x)))(w)
    assert len(calls) == 2


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict"], indirect=True)
def test_writing_to_an_argument_is_as_without(backend):
    """On the tape `x += 1` makes another array. It must not write into the array that is recomputed from."""

    def loss(mark):
        @mark
        def part(x, w):
            x += w
            x *= x
            return x

        return lambda x: total(part(x * 1.0, x))

    agree(backend, lambda f: nf.value_and_grad(f), loss, arrays(backend)[0])
    x, w = arrays(backend)
    part = nf.checkpoint(lambda x: x.__iadd__(w))
    part(x)
    assert backend.to_numpy(x).tolist() == [0.5, -1, 2]


def test_captured_on_the_tape_of_another_thread():
    """Its tape is not known to be open here: it is found by what comes out."""

    def loss(w):
        def segment(x):
            return np.sin(x * w)

        found = []
        thread = threading.Thread(target=lambda: found.append(nf.checkpoint(segment)(x)))
        thread.start()
        thread.join()
        return np.sum(found[0] ** 2)

    x, w = arrays(nf.get_backend("numpy"))
    np.testing.assert_allclose(nf.grad(loss)(w), 2 * np.sin(x * w) * np.cos(x * w) * x, rtol=1e-14)


def test_exceptions_and_names(backend):
    x, _ = arrays(backend)

    @nf.checkpoint
    def fails(x):
        """Docstring."""
        raise RuntimeError("user's own")

    assert fails.__name__ == "fails" and fails.__doc__ == "Docstring."
    for call in (fails, nf.grad(lambda x: total(fails(x)))):
        with pytest.raises(RuntimeError, match="own"):
            call(x)
    with pytest.raises(TypeError, match="missing"):
        nf.checkpoint(lambda x, w: x)(x)
    np.testing.assert_array_equal(backend.to_numpy(nf.grad(lambda x: total(x * x))(x)), 2 * backend.to_numpy(x))


def test_an_exception_while_it_is_run_again():
    """Nothing stays behind: neither stand-ins nor open tapes."""
    runs = []

    def fails_later(x):
        runs.append(0)
        if len(runs) == 2:
            raise RuntimeError("second run")
        return w * x

    x, w = np.ones(3), np.full(3, 2.0)
    with pytest.raises(RuntimeError, match="second"):
        nf.grad(lambda x: np.sum(nf.checkpoint(fails_later)(x)))(x)
    assert np.array_equal(nf.grad(lambda x: np.sum(nf.checkpoint(fails_later)(x)))(x), w)


def test_a_captured_array_that_was_not_met_before_is_refused():
    """A function that does not do the same again would lose a derivative: never a silent zero."""

    def loss(w):
        runs = []

        def f(x):
            runs.append(0)
            return x * w if len(runs) > 1 else x * 1.0

        return np.sum(nf.checkpoint(f)(w))

    with pytest.raises(nf.NoDerivativeError):
        nf.grad(loss)(np.ones(3))


def test_captured_in_a_level_that_is_hoisted():
    """What a function captured stays a stand-in when a checkpoint in it is run again later."""
    for name in ("numpy", "torch"):
        if name not in nf.available_backends():
            continue
        backend = nf.get_backend(name)
        x, w = arrays(backend)

        def loss(w, backend=backend, x=x):
            def f(y):
                return nf.checkpoint(lambda y: ns(y, w).sin(y * w) * y)(y)

            g, captured = backend.hoist(f, x)
            others = [nf.stop_gradient(c) * 2 for c in captured]
            _, pull = backend.vjp(lambda y: g(tuple(others), y), x)
            _, expected = backend.vjp(lambda y: ns(y).sin(2 * nf.stop_gradient(w) * y) * y, x)
            np.testing.assert_allclose(backend.to_numpy(pull(x)[0]), backend.to_numpy(expected(x)[0]), rtol=1e-13)
            return total(g(captured, x))

        expected = nf.grad(lambda w, x=x: total(ns(x, w).sin(x * w) * x))(w)
        np.testing.assert_allclose(backend.to_numpy(nf.grad(loss)(w)), backend.to_numpy(expected), rtol=1e-13)


# -- memory ------------------------------------------------------------------------------------------------------
SIZE = 10_000


def chain(steps, segment, w):
    """x after `steps` steps, in checkpointed segments; None: without."""

    def step(x):
        return np.sin(x * w) + x

    def run(x, n=segment or steps):
        for _ in range(n):
            x = step(x)
        return x

    part = nf.checkpoint(run) if segment else run
    return lambda x: np.sum(functools.reduce(lambda x, _: part(x), range(steps // (segment or steps)), x))


def peak(f):
    """The largest number of arrays alive at once while f runs."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        f()
        return (tracemalloc.get_traced_memory()[1] - before) / (8 * SIZE)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["grad", "grad by what is captured", "hvp", "jvp"])
def test_memory_grows_like_the_square_root(kind):
    x, w = np.linspace(0.1, 1, SIZE), np.linspace(0.5, 1, SIZE)
    ways = {
        "grad": lambda n, s: nf.grad(chain(n, s, w))(x),
        "grad by what is captured": lambda n, s: nf.grad(lambda w: chain(n, s, w)(x))(w),
        "hvp": lambda n, s: nf.hvp(chain(n, s, w), (x,), (w,)),
        "jvp": lambda n, s: nf.jvp(chain(n, s, w), (x,), (w,)),
    }
    way = ways[kind]
    np.testing.assert_allclose(leaves(way(16, 4))[-1], leaves(way(16, None))[-1], rtol=1e-12)
    few, many, stored = peak(lambda: way(16, 4)), peak(lambda: way(144, 12)), peak(lambda: way(144, None))
    assert many < 3.5 * few, "nine times the steps, three times the memory"
    assert many < 0.25 * stored


def test_memory_is_released_at_once():
    """No cycle of references waits for the garbage collector."""

    class Watched(np.ndarray):
        pass

    alive = []

    def watch(x, w):
        kept = np.ones(100).view(Watched)
        alive.append(weakref.ref(kept))
        return np.sin(x * kept * w)

    x, w = np.ones(100), np.linspace(0, 1, 100)
    gc.disable()
    try:
        nf.grad(lambda w: np.sum(nf.checkpoint(lambda x: watch(x, w))(x * w)))(w)
        nf.hvp(lambda x: np.sum(nf.checkpoint(watch)(x, w)), (x,), (w,))
        assert len(alive) >= 4 and not any(ref() is not None for ref in alive)
    finally:
        gc.enable()


def test_torch_keeps_the_inputs_of_segments_alone():
    torch = pytest.importorskip("torch")
    alive = []

    def step(x):
        y = torch.sin(x)
        alive.append(weakref.ref(y))
        return y

    def segment(x):
        for _ in range(10):
            x = step(x)
        return x

    def count(part):
        alive.clear()
        _, pull = nf.vjp(lambda x: functools.reduce(lambda x, _: part(x), range(10), x), torch.ones(5))
        kept = sum(ref() is not None for ref in alive)
        pull(torch.ones(5))
        return kept

    assert count(segment) == 100 and count(nf.checkpoint(segment)) <= 10


def test_torch_repeats_random_numbers():
    torch = pytest.importorskip("torch")
    x = torch.ones(1000, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value, pull = nf.vjp(nf.checkpoint(lambda x: torch.nn.functional.dropout(x * x)), x)
    assert torch.equal(pull(x)[0], 2 * value)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own, on import
def test_inside_torch_func():
    torch = pytest.importorskip("torch")
    x, w = arrays(nf.get_backend("torch"))
    part = nf.checkpoint(lambda x, w: torch.sin(x * w))
    loss, expected = lambda x: torch.sum(part(x, w) ** 2), lambda x: torch.sum(torch.sin(x * w) ** 2)
    both = torch.stack([x, w])
    for way in (
        lambda f: torch.func.grad(f)(x),
        lambda f: torch.func.hessian(f)(x),
        lambda f: torch.func.jvp(f, (x,), (w,))[1],
        lambda f: torch.vmap(nf.grad(f))(both),
        lambda f: torch.func.grad(lambda x: torch.sum(nf.grad(f)(x) ** 2))(x),
    ):
        torch.testing.assert_close(way(loss), way(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_under_transformations_of_jax(backend):
    import jax

    x, w = arrays(backend)

    def loss(mark):
        part = mark(lambda tree, name: {"y": ns(tree["x"]).sin(tree["x"] * w) * tree["x"], "name": name})
        return lambda x: total(part(part({"x": x}, "a") | {"x": x}, "b")["y"] ** 2)

    for way in (
        lambda f: jax.jit(nf.grad(f))(x),
        lambda f: jax.hessian(f)(x),
        lambda f: jax.vmap(nf.grad(f))(ns(x).stack([x, w])),
    ):
        np.testing.assert_allclose(way(loss(nf.checkpoint)), way(loss(plain)), rtol=1e-12)

    def residuals(mark):
        f = mark(lambda x: functools.reduce(lambda x, _: ns(x).sin(x) * x, range(10), x))
        return len(jax.tree_util.tree_leaves(jax.vjp(f, x)[1]))

    assert residuals(nf.checkpoint) <= 2 and residuals(plain) >= 10
