"""`custom_derivative`: a user's own rule, given forward, backward or both, on every framework."""

from __future__ import annotations

import doctest
from typing import Any, NamedTuple

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends._trees import leaves

ns = nf.namespace
KINDS = ["both", "pullback", "pushforward"]


def total(a):
    return ns(a).sum(a)


def arrays(backend):
    return backend.asarray(np.array([0.5, -1.0, 2.0])), backend.asarray(np.array([1.0, 3.0, 0.2]))


def numbers(backend, tree):
    return np.concatenate([np.ravel(backend.to_numpy(leaf)) for leaf in leaves(tree) if backend.is_array(leaf)])


def close(backend, found, expected, tolerance=1e-11):
    found, expected = numbers(backend, found), numbers(backend, expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


class Out(NamedTuple):
    """What `ruled` returns."""

    product: Any
    parts: Any


def value(tree, w, name="product", *, scale=2):
    """The function that all rules here belong to."""
    xp = ns(tree["x"], w)
    positive = xp.astype(nf.stop_gradient(tree["x"]) > 0, xp.int64)
    return Out(scale * tree["x"] * w, {"sine": xp.sin(tree["x"]), "k": positive, "name": name})


def ruled(kind, opaque=True):
    """`value` with rules; no framework can look into it if it is `opaque`."""

    @nf.custom_derivative
    def function(tree, w, name="product", *, scale=2):
        out = value(tree, w, name, scale=scale)
        if not opaque:
            return out
        backend = nf.backend_of(w)
        copied = [backend.asarray(backend.to_numpy(a), like=a) for a in (out.product, out.parts["sine"])]
        return Out(copied[0], out.parts | {"sine": copied[1]})

    if kind != "pushforward":

        @function.pullback
        def pull(primals, out, cotangent, *, scale):
            tree, w, name = primals
            assert name in ("product", "other") and cotangent.parts["name"] is None and out.parts["name"] == name
            xp = ns(tree["x"])
            # with both rules given, the function itself may be called on vectors
            v = {"x": cotangent.product, "k": None}
            product = function(v, w, scale=scale).product if kind == "both" else scale * w * v["x"]
            x = product + xp.cos(tree["x"]) * cotangent.parts["sine"]
            return {"x": x, "k": None}, scale * tree["x"] * cotangent.product, None

    if kind != "pullback":

        @function.pushforward
        def push(primals, out, tangents, *, scale):
            (tree, w, _), (d_tree, d_w, d_name) = primals, tangents
            assert d_name is None
            product, sine = None, None
            if d_tree is not None:
                product = function(d_tree, w, scale=scale).product if kind == "both" else scale * w * d_tree["x"]
                sine = ns(tree["x"]).cos(tree["x"]) * d_tree["x"]
            if d_w is not None:
                moved = scale * tree["x"] * d_w
                product = moved if product is None else product + moved
            return Out(product, {"sine": sine, "k": None, "name": None})

    return function


def loss(f):
    def g(x, w):
        xp = ns(x, w)
        first = f({"x": x * w, "k": None}, xp.sin(w), scale=3)
        second = f({"x": first.product, "k": None}, name="other", w=first.parts["sine"])
        k = ns(x).astype(second.parts["k"], x.dtype)
        return total(second.product**2 * second.parts["sine"]) + total(first.parts["sine"] * (1 + k))

    return g


TRANSFORMS = {
    "value_and_grad": lambda f: nf.value_and_grad(f, (0, 1)),
    "jvp": lambda f: lambda x, w: nf.jvp(f, (x, w), (w, x)),
    "linearize": lambda f: lambda x, w: [nf.linearize(f, x, w)[1](v, x) for v in (x, w)],
    "hessian": lambda f: nf.hessian(f, (0, 1)),
    "hvp": lambda f: lambda x, w: nf.hvp(f, (x, w), (w, x)),
    "grad of jvp": lambda f: nf.grad(lambda x, w: nf.jvp(f, (x, w), (w, x))[1], (0, 1)),
    "grad of a Hessian": lambda f: nf.grad(lambda x, w: total(nf.hessian(f)(x, w) ** 2), (0, 1)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_every_order(backend, kind, name):
    x, w = arrays(backend)
    function = ruled(kind, opaque=backend.name != "jax")  # JAX traces what is called in a rule
    close(backend, TRANSFORMS[name](loss(function))(x, w), TRANSFORMS[name](loss(value))(x, w))


@pytest.mark.parametrize("kind", KINDS)
def test_complex_arguments(backend, kind):
    """Rules are adjoint for Re⟨conj(a), b⟩; the real part of a cotangent counts where the argument is real."""

    @nf.custom_derivative
    def product(z, x):
        return z * z * ns(x, z).astype(x, z.dtype)

    if kind != "pushforward":

        @product.pullback
        def _(primals, out, cotangent):
            z, x = primals
            xp = ns(z)
            wide = xp.astype(x, z.dtype) if not hasattr(x, "_tape") else ns(x).astype(x, z.dtype)
            return ns(z).conj(2 * z) * wide * cotangent, ns(z).conj(z * z) * cotangent

    if kind != "pullback":

        @product.pushforward
        def _(primals, out, tangents):
            (z, x), (dz, dx) = primals, tangents
            moved = 0 * out
            moved = moved if dz is None else moved + 2 * z * ns(x, z).astype(x, z.dtype) * dz
            return moved if dx is None else moved + z * z * ns(dx).astype(dx, z.dtype)

    def f(g):
        def real(z, x):
            out = g(z, x)
            return total(ns(out).real(out * out)) + total(ns(out).imag(out))

        return real

    z = backend.asarray(np.array([1 + 2j, -0.5j, 0.3]))
    x, _ = arrays(backend)
    plain = f(lambda z, x: z * z * ns(x, z).astype(x, z.dtype))
    for transform in (
        lambda g: nf.grad(g, (0, 1))(z, x),
        lambda g: nf.hvp(g, (z, x), (z * 1j, x)),
        lambda g: nf.jvp(g, (z, x), (z * 1j, x)),
    ):
        close(backend, transform(f(product)), transform(plain))


def test_the_example_of_the_docstring():
    (example,) = doctest.DocTestFinder().find(nf.custom_derivative, "custom_derivative", globs={})
    assert doctest.DocTestRunner().run(example) == (0, 6)


def test_names_defaults_and_numbers():
    function = ruled("both")
    assert function.__name__ == "function" and isinstance(function, nf.backends.CustomDerivative)
    assert nf.custom_derivative(abs)(-2.0) == 2.0
    with pytest.raises(TypeError, match="missing"):
        function({"x": np.ones(2)})

    @function.pullback
    def named(primals, out, cotangent, *, scale):
        return None, None, None

    assert named.__name__ == "named"
    x = np.ones(2)
    assert not nf.grad(lambda x: np.sum(function({"x": x, "k": None}, x).product))(x).any()


def test_unused_rules_are_not_asked(backend):
    """A pullback is asked for cotangents, a pushforward for tangents, neither where nothing is differentiated."""
    asked = []

    @nf.custom_derivative
    def twice(x):
        return 2 * x

    @twice.pullback
    def _(primals, out, cotangent):
        asked.append("pull")
        return (2 * cotangent,)

    @twice.pushforward
    def _(primals, out, tangents):
        asked.append("push")
        return 2 * tangents[0]

    x, _ = arrays(backend)
    twice(x)
    nf.grad(lambda w: total(twice(x) * w))(x)
    assert not asked
    nf.grad(lambda x: total(twice(x)))(x)
    if backend.name != "jax":  # JAX pushes first, and transposes
        assert asked == ["pull"]


# -- what is refused -----------------------------------------------------------------------------------------------
def with_rules(pull=None, push=None):
    @nf.custom_derivative
    def named(t, s):
        return {"a": t["x"] * s}

    if pull is not None:
        named.pullback(pull)
    if push is not None:
        named.pushforward(push)
    return named


def apply(function, x, forward):
    def f(x, s):
        return total(function({"x": x}, s)["a"])

    s = ns(x).ones((), dtype=x.dtype)
    return nf.jvp(f, (x, s), (x, s)) if forward else nf.grad(f, (0, 1))(x, s)


WRONG_PULLBACKS = {
    "not a tuple of 2": lambda p, o, c: c["a"],
    "1 cotangents, not a tuple of 2": lambda p, o, c: (None,),
    "structure": lambda p, o, c: (c["a"], None),
    r"shape \(2,\) where the shape is \(3,\)": lambda p, o, c: ({"x": c["a"][:2]}, None),
    r"shape \(3,\) where the shape is \(\)": lambda p, o, c: (None, c["a"]),
    "a list where": lambda p, o, c: ({"x": [1.0, 2.0, 3.0]}, None),
}
WRONG_PUSHFORWARDS = {
    "structure": lambda p, o, t: t[0]["x"],
    r"shape \(1,\) where the shape is \(3,\)": lambda p, o, t: {"a": t[0]["x"][:1]},
    "a str where": lambda p, o, t: {"a": "a"},
}


@pytest.mark.parametrize("message", WRONG_PULLBACKS)
def test_wrong_pullbacks_are_named(backend, message):
    with pytest.raises(nf.ShapeError, match=f"pullback of named returned.*{message}"):
        apply(with_rules(pull=WRONG_PULLBACKS[message]), arrays(backend)[0], forward=False)


@pytest.mark.parametrize("message", WRONG_PUSHFORWARDS)
def test_wrong_pushforwards_are_named(backend, message):
    with pytest.raises(nf.ShapeError, match=f"pushforward of named returned.*{message}"):
        apply(with_rules(push=WRONG_PUSHFORWARDS[message]), arrays(backend)[0], forward=True)


def test_a_complex_tangent_of_a_real_value_is_refused(backend):
    function = with_rules(push=lambda p, o, t: {"a": ns(t[0]["x"]).astype(t[0]["x"], ns(o["a"]).complex128)})
    with pytest.raises(nf.DTypeError, match=r"pushforward of named.*complex"):
        apply(function, arrays(backend)[0], forward=True)


def test_a_rule_that_is_not_there_is_named(backend):
    x, _ = arrays(backend)
    with pytest.raises(nf.NoDerivativeError, match=r"named has no pu.*no other rule"):
        apply(with_rules(), x, forward=False)
    # PyTorch's forward mode is its reverse mode, transposed
    missing = "pullback" if backend.name == "torch" else "pushforward"
    with pytest.raises(nf.NoDerivativeError, match=f"named has no {missing}, and no other"):
        apply(with_rules(), x, forward=True)


def test_a_rule_that_goes_round_in_circles_is_named(backend):
    """To transpose a rule that calls its function on the vectors takes the rule that is missing."""

    @nf.custom_derivative
    def twice(x):
        return 2 * x

    twice.pushforward(lambda p, o, t: twice(t[0]))
    with pytest.raises(nf.NoDerivativeError, match=r"twice has no pullback.*calls twice itself"):
        nf.grad(lambda x: total(twice(x)))(arrays(backend)[0])


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict"], indirect=True)
def test_a_rule_that_cannot_be_transposed_is_named(backend):
    """On PyTorch and JAX what they say themselves, when a derivative leaves them."""
    x, _ = arrays(backend)

    def opaque(a):
        return backend.asarray(np.asarray(a))

    function = with_rules(pull=lambda p, o, c: ({"x": opaque(c["a"])}, None))
    with pytest.raises(nf.NoDerivativeError, match="no pushforward, and its pullback cannot be transposed"):
        apply(function, x, forward=True)
    function = with_rules(push=lambda p, o, t: {"a": opaque(t[0]["x"])})
    with pytest.raises(nf.NoDerivativeError, match="no pullback, and its pushforward cannot be transposed"):
        apply(function, x, forward=False)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_no_rule_knows_of_are_refused(backend, kind):
    """Captured, or given by keyword only, and being differentiated: never a silent zero. Constants may be."""
    x, w = arrays(backend)

    def scaled(w, keyword, fixed=lambda w: w):
        captured = fixed(w)

        @nf.custom_derivative
        def function(x, *, weight=None):
            return x * (captured if weight is None else weight)

        if kind != "pushforward":
            function.pullback(lambda p, o, c, *, weight: (c * stopped,))
        if kind != "pullback":
            function.pushforward(lambda p, o, t, *, weight: t[0] * stopped)
        stopped = nf.stop_gradient(w)
        return lambda x: total(function(x, weight=captured) if keyword else function(x))

    refused = nf.NoDerivativeError if backend.name != "jax" else TypeError  # JAX: its UnexpectedTracerError
    for keyword in (False, True):
        for transform in (nf.grad, lambda f: lambda w: nf.jvp(f, (w,), (w,))):
            for moving in (x, None):  # constant arguments, and arguments that move too
                with pytest.raises(refused):
                    transform(lambda w, m=moving, k=keyword: scaled(w, k)(w * x if m is None else m))(w)
        stopped = nf.grad(lambda w, k=keyword: scaled(w, k, nf.stop_gradient)(w * x))(w)
        close(backend, stopped, x * w)


# -- inside other transformations -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_under_transformations_of_jax(backend, kind):
    import jax

    x, w = arrays(backend)
    both = ns(x).stack([x, w])
    for way in (
        lambda f: jax.jit(nf.grad(loss(f), (0, 1)))(x, w),
        lambda f: jax.jit(jax.hessian(loss(f)))(x, w),
        lambda f: jax.vmap(nf.grad(loss(f)))(both, both),
        lambda f: jax.jvp(jax.grad(loss(f)), (x, w), (w, x))[1],
    ):
        close(backend, way(ruled(kind, opaque=False)), way(value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own, on import
def test_under_transformations_of_torch(kind):
    torch = pytest.importorskip("torch")
    backend = nf.get_backend("torch")
    x, w = arrays(backend)
    both = torch.stack([x, w])
    for way in (
        lambda f: torch.func.grad(loss(f))(x, w),
        lambda f: torch.func.jvp(loss(f), (x, w), (w, x))[1],
        lambda f: torch.func.grad(lambda x: torch.sum(torch.func.grad(loss(f))(x, w) ** 2))(x),
        lambda f: torch.vmap(nf.grad(loss(f)))(both, both),
        lambda f: torch.func.grad(lambda x: torch.sum(nf.grad(loss(f))(x, w) ** 2))(x),
    ):
        close(backend, way(ruled(kind)), way(value))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own, on import
def test_captured_under_torch_func():
    torch = pytest.importorskip("torch")
    x, w = arrays(nf.get_backend("torch"))

    def scaled(w, x):
        function = nf.custom_derivative(lambda x: x * w)
        function.pullback(lambda p, o, c: (c,))
        function.pushforward(lambda p, o, t: t[0])
        return torch.sum(function(x))

    with pytest.raises(nf.NoDerivativeError, match="closes over"):
        torch.func.grad(scaled)(w, x)
    with pytest.raises(nf.NoDerivativeError, match="closes over"):
        torch.func.jvp(lambda w: scaled(w, x * w), (w,), (x,))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(nf.NoDerivativeError, match="closes over"):
        scaled(torch.autograd.forward_ad.make_dual(w, x), x)
    stopped = torch.func.jvp(lambda w: scaled(nf.stop_gradient(w), x * w), (w,), (x,))[1]
    torch.testing.assert_close(stopped, torch.sum(x * x))


def test_constants_are_told_from_what_moves(backend, like64):
    """`is_constant`: no derivative can flow, so that a shorter way may be taken."""
    x = like64 + 1.0
    assert backend.is_constant(x) and backend.is_constant(x, x)
    seen = []

    def look(p):
        seen.append(backend.is_constant(p))
        return p * p

    nf.grad(look)(x)
    nf.jvp(look, (x,), (x,))
    assert seen and not any(seen)
    if backend.name == "torch":
        assert not backend.is_constant(x.clone().requires_grad_(True))
    if backend.name == "jax":
        backend.jit(look)(x)
        assert not any(seen)
