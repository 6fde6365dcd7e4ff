"""The transformations mean the same on every framework: each case against its result on NumPy, and its errors.

What the numbers must be is told by `test_transforms.py` and by the tests of the tape; here they must be equal, in
structure, dtype and shape too.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from optree.dataclasses import dataclass as optree_dataclass

import nestfold as nf
from nestfold.backends._trees import NAMESPACE

X, W = np.array([0.5, -1.0, 2.0]), np.array([1.0, 3.0, 0.2])
Z = np.array([1 + 2j, -0.5j, 0.3 - 1j])
INPUTS = {"x": X, "w": W, "z": Z, "s": np.array(1.5), "k": np.array([1, 2, 3]), "m": np.array([True, False, True])}


@optree_dataclass(namespace=NAMESPACE)
class Weights:
    """A dataclass that is a tree."""

    first: Any
    second: Any


class Pair(NamedTuple):
    """A named tuple."""

    left: Any
    right: Any


class Inputs:
    """The arrays that a case may use."""

    def __init__(self, backend, arrays):
        self.backend = backend
        self.__dict__.update(arrays)

    x: Any
    w: Any
    z: Any
    s: Any
    k: Any
    m: Any
    name: Any = "x"

    def array(self, value):
        return self.backend.asarray(np.asarray(value))


ns = nf.namespace


def total(*values):
    return functools.reduce(lambda a, b: a + b, [ns(v).sum(v) for v in values])


def cast(a, like):
    return ns(a, like).astype(a, like.dtype)


# -- values ------------------------------------------------------------------------------------------------------
def trees(i):
    def f(t, p):
        return total(t["a"] * t["list"][0] ** 2, t["pair"].left * t["tuple"][1], p.first["deep"] * p.second**3)

    t = {"a": i.x, "list": [i.w, None], "pair": Pair(i.x, None), "tuple": (None, i.w), "none": None, "empty": {}}
    p = Weights({"deep": i.w}, i.x)
    out = nf.value_and_grad(f, (0, 1))(t, p)
    moved = nf.jvp(lambda t, p: (f(t, p), Weights(p, [t])), (t, p), (t, p))
    pulled = nf.vjp(lambda t, p: {"f": f(t, p), "t": t, "p": Pair(p, p)}, t, p)
    return out, moved, pulled[1](pulled[0]), nf.hvp(f, (t, p), (t, p)), nf.linearize(f, t, p)[1](t, p)


def argument_numbers(i):
    def f(a, b, c):
        return total(a * b**2 * c**3)

    one = [nf.grad(f, n)(i.x, i.w, i.x) for n in (0, 1, -1, -3)]
    several = [nf.grad(f, n)(i.x, i.w, i.x) for n in ((0,), (2, 0), [-1, 1], ())]
    return one, several, nf.jacobian(f, (0, -1))(i.x, i.w, i.x), nf.hessian(f, (1, 0))(i.x, i.w, i.x)


def keywords(i):
    def f(a, b=2.0, *, power, tree=None):
        assert isinstance(power, int)
        return total(a**power * b) + (0 if tree is None else total(tree["w"] * a))

    tree = {"w": i.w, "name": "w", "k": i.k}
    done = [t(f)(i.x, power=3, tree=tree) for t in (nf.grad, nf.value_and_grad, nf.hessian, nf.jacobian)]
    return done, nf.grad(f)(i.x, power=2), nf.grad(f)(i.x, b=i.w, power=2), nf.grad(f, 1)(i.x, i.w, power=2)


def what_is_no_float(i):
    """Integers, booleans, numbers and strings among the arguments are met as they are, and have derivative zero."""

    def f(t, number):
        assert type(t["number"]) is float and type(t["flag"]) is bool and t["name"] == "f" and type(number) is int
        kept = ns(t["x"]).where(t["mask"], t["x"], 0 * t["x"])
        return total(kept * cast(t["k"], t["x"]) * t["number"] * number)

    t = {"x": i.x, "k": i.k, "mask": i.m, "number": 2.0, "flag": True, "name": "f", "none": None}
    value, pull = nf.vjp(f, t, 3)
    return nf.grad(f)(t, 3), pull(value), nf.jvp(f, (t, 3), (t, 0))


def values_of_every_kind(i):
    def f(x):
        integers = ns(x).astype(nf.stop_gradient(x) > 0, ns(x).int64)
        return {"y": x * x, "n": 3, "f": 2.5, "name": "f", "none": None, "k": i.k, "k2": integers, "fixed": i.w}

    y, pull = nf.vjp(f, i.x)
    _, push = nf.linearize(f, i.x)
    cotangent = dict(y, n=None, f=None, name=None)
    return y, pull(y), pull(cotangent), nf.jvp(f, (i.x,), (i.w,)), push(i.w)


def auxiliary(i):
    def f(x, w):
        aux = Weights({"square": x * x, "input": x, "k": i.k, "positive": nf.stop_gradient(x) > 0}, ["f", 3, None, 1.5])
        return total(x * x * w), aux

    def outer(x):
        gradient, aux = nf.grad(f, has_aux=True)(x, x)
        return total(gradient * aux.first["square"], aux.first["input"] ** 3)

    empty = nf.grad(lambda x: (total(x), None), has_aux=True)(i.x)
    return (
        nf.grad(f, (0, 1), has_aux=True)(i.x, i.w),
        nf.value_and_grad(f, 1, True)(i.x, i.w),
        nf.grad(outer)(i.x),
        empty,
    )


def unused_and_constant(i):
    def ignores(x, t):
        return total(i.w)

    y, pull = nf.vjp(ignores, i.x, {"a": i.x, "z": i.z})
    grads = nf.grad(ignores, (0, 1))(i.x, {"a": i.x, "z": i.z})
    moved = nf.jvp(ignores, (i.x, i.w), (i.w, i.w)), nf.linearize(ignores, i.x, i.w)[1](i.x, i.x)
    flat = nf.jacobian(lambda x: i.w)(i.x), nf.hessian(lambda x: total(i.w))(i.x), nf.hessian(total)(i.x)
    nothing = nf.vjp(lambda x: 2.5, i.x), nf.jvp(lambda x: 2.5, (i.x,), (i.x,))
    return grads, pull(y), moved, flat, nothing[0][0], nothing[0][1](1.0), nothing[1]


def returned_as_it_is(i):
    y, pull = nf.vjp(lambda x: x, i.x)
    both, pull_both = nf.vjp(lambda x, z: (x, [z, x]), i.x, i.z)
    moved = nf.jvp(lambda x, w: (w, x, x), (i.x, i.w), (i.w, i.x))
    return y, pull(i.w), pull_both(both), moved, nf.linearize(lambda x: x, i.x)[1](i.w), nf.grad(lambda s: s)(i.s)


def complex_numbers(i):
    """Gradients point along steepest ascent; pull is the adjoint of push for Re⟨conj(a), b⟩."""

    def f(z, x):
        xp = ns(z, x)
        return {"z": z * z * cast(x, z), "conj": xp.conj(z), "size": xp.abs(z) ** 2 * x, "re": xp.real(z * z) * x}

    y, pull = nf.vjp(f, i.z, i.x)
    _, push = nf.linearize(f, i.z, i.x)
    cotangent, tangents = {"z": i.z, "conj": y["z"], "size": i.w, "re": i.x}, (y["z"], i.w)
    size = nf.grad(lambda z: total(ns(z).abs(z) ** 2))(i.z)
    wave = nf.hvp(lambda z: total(ns(z).imag(z * z * z)), (i.z,), (y["z"],))
    holomorphic = nf.jacobian(lambda z: z * z[0])(i.z), nf.jacobian(lambda z: z[:2] * z[2])(i.z)
    of_real = nf.jacobian(lambda x: cast(x[:2], i.z) * i.z[1])(i.x)
    return (
        y,
        pull(cotangent),
        push(*tangents),
        size,
        wave,
        holomorphic,
        of_real,
        nf.grad(lambda x: total(f(i.z, x)["re"]))(i.x),
    )


def dtypes(i):
    narrow, complex_narrow = i.array(X.astype(np.float32)), i.array(Z.astype(np.complex64))

    def f(x, z):
        xp = ns(x, z)
        return xp.sum(x * x * 2) * xp.sum(xp.abs(z))

    out = nf.value_and_grad(f, (0, 1))(narrow, complex_narrow), nf.hessian(f)(narrow, complex_narrow)
    wide = nf.jvp(lambda x: x * x, (narrow,), (i.x,)), nf.vjp(lambda x: x * x, narrow)[1](i.x)
    numbers = nf.jvp(lambda s: s * s, (i.s,), (1,)), nf.vjp(lambda s: s * s, i.s)[1](2.0)
    integers = nf.jvp(lambda x: x * x, (i.x,), (i.k,)), nf.vjp(lambda x: x * x, i.x)[1](i.k)
    return out, wide, numbers, integers, nf.vjp(lambda z: z * z, i.z)[1](i.x), nf.jvp(lambda z: z * z, (i.z,), (i.x,))


def no_axes_and_no_entries(i):
    empty, hollow = i.array(np.zeros((0,))), i.array(np.zeros((2, 0)))
    scalar = nf.grad(lambda s: s**3)(i.s), nf.hessian(lambda s: s**3)(i.s), nf.jacobian(lambda s: s * i.x)(i.s)
    none = nf.value_and_grad(lambda e: total(e * e))(empty), nf.hessian(lambda e: total(e * e))(empty)
    shapes = nf.jacobian(lambda h: ns(h).sum(h, axis=1))(hollow), nf.jacobian(lambda x: x[:0])(i.x)
    return (
        scalar,
        none,
        shapes,
        nf.hvp(lambda e: total(e**3), (empty,), (empty,)),
        nf.vjp(lambda h: h * 2, hollow)[1](hollow),
    )


def higher_orders(i):
    def f(x):
        return total(x) ** 2 * total(x**3)

    def square(g):
        return lambda x: total(g(x) ** 2)

    push = lambda x: nf.linearize(lambda y: y**3, x)[1](x)  # noqa: E731
    pull = lambda x: nf.vjp(lambda y: y**3, x)[1](x)[0]  # noqa: E731
    third = nf.grad(nf.grad(nf.grad(lambda s: s**5)))(i.s), nf.grad(square(nf.grad(square(nf.grad(f)))))(i.x)
    mixed = nf.jvp(nf.grad(f), (i.x,), (i.w,)), nf.grad(lambda x: nf.jvp(f, (x,), (i.w,))[1])(i.x)
    of_maps = (
        nf.linearize(pull, i.x)[1](i.w),
        nf.vjp(push, i.x)[1](i.w),
        nf.jacobian(push)(i.x),
        nf.grad(square(pull))(i.x),
    )
    replayed = nf.linearize(lambda y: y**3, i.x)[1], nf.vjp(lambda y: y**3, i.x)[1]
    of_vectors = nf.grad(square(replayed[0]))(i.w), nf.jvp(lambda c: replayed[1](c)[0], (i.w,), (i.x,))
    matrices = nf.jacobian(nf.jacobian(lambda x: x**3))(i.x), nf.jacobian(nf.hessian(f))(i.x)
    return third, mixed, of_maps, of_vectors, matrices, nf.grad(lambda x: total(nf.hvp(f, (x,), (x,))))(i.x)


def matrices(i):
    xp = ns(i.x)
    a = xp.stack([i.x, i.w])
    f = lambda a: ns(a).sum(a @ ns(a).matrix_transpose(a)) ** 2  # noqa: E731
    few = lambda a: ns(a).sum(a, axis=1)[:1] * a[0, 0]  # noqa: E731  fewer values than arguments: pulls
    many = lambda s: s * a * s  # noqa: E731
    several = nf.hvp(lambda a, x: ns(a, x).sum(a @ x) ** 2, (a, i.x), (a, i.w))
    return nf.hessian(f)(a), nf.jacobian(few)(a), nf.jacobian(many)(i.s), several, nf.jacobian(nf.grad(f))(a)


def stopped(i):
    tree = {"x": i.x, "k": i.k, "n": 2, "name": "t", "none": None, "w": Weights(i.z, (i.s,))}

    def f(x):
        inner = nf.stop_gradient({"y": x * x, "n": 2})
        return total(inner["y"] * x * inner["n"]) + total(nf.stop_gradient(x * 1.0))

    return nf.stop_gradient(tree), nf.grad(f)(i.x), nf.hessian(f)(i.x), nf.grad(lambda x: total(nf.grad(f)(x)))(i.x)


def rules_and_recomputation(i):
    @nf.custom_derivative
    def scaled(t, factor=2, *, power):
        return {"out": factor * t["x"] ** power, "power": power, "k": t["k"]}

    @scaled.pullback
    def _(primals, out, cotangent, *, power):
        t, factor = primals
        return {"x": factor * power * t["x"] ** (power - 1) * cotangent["out"], "k": None, "name": None}, None

    @nf.checkpoint
    def again(t, factor=2, *, power):
        return {"out": factor * t["x"] ** power, "power": power, "k": t["k"]}

    def use(f):
        def loss(x):
            out = f({"x": x * i.w, "k": i.k, "name": "t"}, power=3)
            return total(out["out"] * x * cast(out["k"], x)) * out["power"]

        return nf.value_and_grad(loss)(i.x), nf.hessian(loss)(i.x), nf.jvp(nf.grad(loss), (i.x,), (i.w,))[1]

    return use(scaled), use(again)


VALUES = [
    trees, argument_numbers, keywords, what_is_no_float, values_of_every_kind, auxiliary, unused_and_constant,
    returned_as_it_is, complex_numbers, dtypes, no_axes_and_no_entries, higher_orders, matrices, stopped,
    rules_and_recomputation,
]  # fmt: skip


def as_numpy(backend, tree):
    """The paths and leaves of a result; arrays as NumPy's, other leaves as they are."""
    paths, found, _ = optree.tree_flatten_with_path(tree, none_is_leaf=True, namespace=NAMESPACE)
    return {p: backend.to_numpy(v) if backend.is_array(v) else v for p, v in zip(paths, found, strict=True)}


@functools.cache
def reference(case):
    backend = nf.get_backend("numpy")
    return as_numpy(backend, case(Inputs(backend, INPUTS)))


def check(found, expected):
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        other = found[path]
        if not isinstance(value, np.ndarray):
            assert other == value and type(other) is type(value), path
            continue
        assert isinstance(other, np.ndarray), (path, other)
        assert (other.dtype, other.shape) == (value.dtype, value.shape), path
        tolerance = 1e-11 if value.dtype.itemsize >= 8 and value.dtype != np.complex64 else 1e-5
        np.testing.assert_allclose(other, value, rtol=tolerance, atol=tolerance, err_msg=str(path))


@pytest.mark.parametrize("case", VALUES, ids=lambda case: case.__name__)
def test_values(backend, case):
    inputs = {name: backend.asarray(value) for name, value in INPUTS.items()}
    check(as_numpy(backend, case(Inputs(backend, inputs))), reference(case))


# Not `dtypes`: under `jit` its arrays of NumPy would become constants of 64 bits first.
@pytest.mark.parametrize("backend", ["jax"], indirect=True)
@pytest.mark.parametrize("case", [trees, what_is_no_float, auxiliary, complex_numbers, rules_and_recomputation])
def test_values_under_jit(backend, case):
    import jax

    inputs, kept = {name: backend.asarray(value) for name, value in INPUTS.items()}, []

    @jax.jit
    def compiled(inputs):
        arrays, skeleton = backend.split(case(Inputs(backend, inputs)))
        kept.append(skeleton)
        return arrays

    arrays = compiled(inputs)
    check(as_numpy(backend, kept[0].fill(arrays)), reference(case))


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_trees_that_are_registered_with_jax(backend):
    import jax

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Layer:
        weight: Any
        name: str = dataclasses.field(metadata={"static": True}, default="layer")

    def f(layer):
        assert layer.name == "first"
        return total(layer.weight["w"] ** 3)

    def rule(layer, x):
        return {"out": layer.weight["w"] * x}

    layer, w = Layer({"w": backend.asarray(W)}, "first"), backend.asarray(W)
    gradient, moved = nf.grad(f)(layer), nf.hvp(f, (layer,), (layer,))
    pulled = nf.vjp(lambda layer: layer, layer)[1](layer)[0]
    assert type(gradient) is type(moved) is type(pulled) is Layer and gradient.name == "first"
    np.testing.assert_allclose(gradient.weight["w"], 3 * W**2)
    np.testing.assert_allclose(moved.weight["w"], 6 * W**2)
    np.testing.assert_allclose(pulled.weight["w"], W)
    ruled = nf.custom_derivative(rule)
    ruled.pullback(
        lambda p, o, c: (dataclasses.replace(p[0], weight={"w": c["out"] * p[1]}), p[0].weight["w"] * c["out"])
    )
    for g in (ruled, nf.checkpoint(rule)):
        one, other = nf.grad(lambda layer, x, g=g: total(g(layer, x)["out"]), (0, 1))(layer, w)
        np.testing.assert_allclose(one.weight["w"], W)
        np.testing.assert_allclose(other, W)


# -- errors --------------------------------------------------------------------------------------------------------
def other_array(i):
    """An array of another framework."""
    other = "array_api_strict" if i.backend.name != "array_api_strict" else "numpy"
    return nf.get_backend(other).asarray(X)


def square(x):
    return x * x


ERRORS = {
    "a value with axes": (nf.ShapeError, r"\(3,\).*jacobian", lambda i: nf.grad(square)(i.x)),
    "an integer value": (nf.DTypeError, "int64", lambda i: nf.grad(lambda x: total(i.k))(i.x)),
    "a boolean value": (nf.DTypeError, "bool", lambda i: nf.grad(lambda x: ns(i.m).any(i.m))(i.x)),
    "a complex value": (nf.DTypeError, "complex128", lambda i: nf.grad(lambda z: total(z))(i.z)),
    "a number as value": (nf.DTypeError, "float", lambda i: nf.grad(lambda x: 1.5)(i.x)),
    "no value": (nf.DTypeError, "NoneType", lambda i: nf.grad(lambda x: None)(i.x)),
    "a tuple as value": (nf.DTypeError, "tuple.*has_aux", lambda i: nf.grad(lambda x: (total(x), x))(i.x)),
    "no pair with has_aux": (TypeError, "pair", lambda i: nf.grad(total, has_aux=True)(i.x)),
    "a list for a pair": (TypeError, "pair", lambda i: nf.grad(lambda x: [total(x), x], has_aux=True)(i.x)),
    "an argument that is not there": (nf.ShapeError, "argnums=2", lambda i: nf.grad(total, 2)(i.x)),
    "an argument before the first": (nf.ShapeError, "argnums=-2", lambda i: nf.grad(total, -2)(i.x)),
    "an argument named twice": (nf.ShapeError, "twice", lambda i: nf.grad(total, (1, -1))(i.x, i.w)),
    "argnums that are no numbers": (TypeError, "argnums=", lambda i: nf.grad(total, i.name)(i.x)),
    "integers to differentiate by": (nf.DTypeError, "argument 0.*int64", lambda i: nf.grad(total)(i.k)),
    "a number to differentiate by": (nf.DTypeError, "argument 1.*float", lambda i: nf.grad(total, 1)(i.x, 2.0)),
    "a list of numbers": (TypeError, "no array.*float", lambda i: nf.grad(total)([1.0, 2.0])),
    "no arguments": (TypeError, "no array", lambda i: nf.vjp(lambda: 1.0)),
    "two frameworks": (nf.BackendMismatchError, "two frameworks", lambda i: nf.grad(total)(i.x, other_array(i))),
    "two frameworks by keyword": (
        nf.BackendMismatchError, "two frameworks", lambda i: nf.grad(lambda x, w: total(x))(i.x, w=other_array(i))
    ),
    "a tangent of another framework": (
        nf.BackendMismatchError, "tangents", lambda i: nf.jvp(square, (i.x,), (other_array(i),))
    ),
    "a cotangent of another framework": (
        nf.BackendMismatchError, "cotangent", lambda i: nf.vjp(square, i.x)[1](other_array(i))
    ),
    "a tangent's shape": (nf.ShapeError, r"tangents\[0\].*\(2,\)", lambda i: nf.jvp(square, (i.x,), (i.x[:2],))),
    "a tangent to broadcast": (nf.ShapeError, r"\(\)", lambda i: nf.linearize(square, i.x)[1](i.s)),
    "a number as tangent": (nf.ShapeError, "number 1.0", lambda i: nf.jvp(square, (i.x,), (1.0,))),
    "a list as tangent": (nf.ShapeError, "a list", lambda i: nf.jvp(square, (i.x,), ([1.0, 2.0, 3.0],))),
    "no tangent": (nf.ShapeError, "a NoneType", lambda i: nf.jvp(lambda x, w: x * w, (i.x, i.w), (i.w, None))),
    "a complex tangent": (nf.DTypeError, "complex", lambda i: nf.jvp(square, (i.x,), (i.z,))),
    "a tangent's tree": (
        nf.ShapeError, "structure", lambda i: nf.jvp(lambda t: t["a"], ({"a": i.x},), ([i.x],))
    ),
    "a tangent's names": (
        nf.ShapeError, "structure.*'b'", lambda i: nf.hvp(lambda t: total(t["a"]), ({"a": i.x},), ({"b": i.x},))
    ),
    "too many tangents": (nf.ShapeError, "2 tangents", lambda i: nf.linearize(square, i.x)[1](i.x, i.x)),
    "too few tangents": (nf.ShapeError, "1 tangents", lambda i: nf.hvp(lambda x, w: total(x * w), (i.x, i.w), (i.x,))),
    "primals without a tuple": (TypeError, "primals must be a tuple", lambda i: nf.jvp(square, i.x, i.x)),
    "a cotangent's shape": (nf.ShapeError, r"cotangent.*\(2,\)", lambda i: nf.vjp(square, i.x)[1](i.x[:2])),
    "a cotangent to broadcast": (nf.ShapeError, r"cotangent.*\(\)", lambda i: nf.vjp(square, i.x)[1](i.s)),
    "a complex cotangent": (nf.DTypeError, "cotangent.*complex", lambda i: nf.vjp(square, i.x)[1](i.z)),
    "a cotangent's tree": (
        nf.ShapeError, "structure", lambda i: nf.vjp(lambda x: {"a": x, "b": x}, i.x)[1]([i.x, i.x])
    ),
    "a Jacobian of trees": (nf.ShapeError, "single arrays", lambda i: nf.jacobian(lambda t: t[0])([i.x])),
    "a Jacobian of a tuple": (nf.DTypeError, "tuple", lambda i: nf.jacobian(lambda x: (x, x))(i.x)),
    "a Jacobian of a number": (nf.DTypeError, "float", lambda i: nf.jacobian(lambda x: 2.0)(i.x)),
    "a Jacobian of integers": (nf.DTypeError, "int64", lambda i: nf.jacobian(lambda x: i.k)(i.x)),
    "a Jacobian by integers": (nf.DTypeError, "argument 0", lambda i: nf.jacobian(square)(i.k)),
    "a real Jacobian of a complex array": (
        nf.DTypeError, "complex Jacobian", lambda i: nf.jacobian(lambda z: ns(z).real(z))(i.z)
    ),
    "a complex Hessian": (nf.DTypeError, "complex Hessian", lambda i: nf.hessian(lambda z: total(ns(z).real(z)))(i.z)),
    "a Hessian of trees": (nf.ShapeError, "single arrays", lambda i: nf.hessian(lambda t: total(t[0]))([i.x])),
    "a Hessian of a value with axes": (nf.ShapeError, r"\(3,\)", lambda i: nf.hessian(square)(i.x)),
    "nothing to stop": (TypeError, "no array", lambda i: nf.stop_gradient({"a": 1.0})),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(backend, name):
    kind, message, call = ERRORS[name]
    with pytest.raises(kind, match=message) as caught:
        call(Inputs(backend, {name: backend.asarray(value) for name, value in INPUTS.items()}))
    assert type(caught.value) is kind


def test_an_error_of_the_function_is_handed_on(backend):
    def fails(x):
        raise KeyError("user's own")

    x = backend.asarray(X)
    for call in (
        lambda: nf.grad(fails)(x),
        lambda: nf.hessian(fails)(x),
        lambda: nf.jvp(fails, (x,), (x,)),
        lambda: nf.linearize(fails, x),
    ):
        with pytest.raises(KeyError, match="own"):
            call()


# -- PyTorch's own ways ----------------------------------------------------------------------------------------------
def test_operations_in_place():
    """Torch operations that write, in the function: to what it made itself, and to a view of it."""
    torch = pytest.importorskip("torch")

    def f(x, w):
        y = x.clone()
        y[1:] += w[1:] * x[1:]
        y.mul_(2).add_(1.0)
        out = torch.zeros(4, dtype=x.dtype)
        out[:3] = y.sin_()
        out[3].copy_(y.sum())
        return out

    def same(x, w):
        scaled = torch.sin(torch.cat([x[:1], x[1:] + x[1:] * w[1:]]) * 2 + 1)
        return torch.cat([scaled, scaled.sum()[None]])

    x, w = torch.tensor(X), torch.tensor(W)
    for way in (
        lambda f: nf.jacobian(f, (0, 1))(x, w),
        lambda f: nf.vjp(f, x, w)[1](f(x, w)),
        lambda f: nf.jvp(f, (x, w), (w, x)),
        lambda f: [nf.linearize(f, x, w)[1](v, w) for v in (x, w)],
        lambda f: nf.hessian(lambda x, w: torch.sum(f(x, w) ** 2), (0, 1))(x, w),
    ):
        torch.testing.assert_close(way(f), way(same), rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="leaf Variable"):  # PyTorch's own: an argument must not be written to
        nf.grad(lambda x: torch.sum(x.mul_(2)))(x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own, on import
def test_inside_torch_func():
    """All of them work inside `torch.func.grad`, `jvp` and `vmap`; a Jacobian is then had entry by entry."""
    torch = pytest.importorskip("torch")
    x, w = torch.tensor(X), torch.tensor(W)

    def f(x):
        return torch.sum(torch.sin(x * w) * x**2)

    def products(x):
        return torch.sum(nf.grad(f)(x) * nf.hvp(f, (x,), (w,)) * nf.jvp(torch.sin, (x,), (x * w,))[1])

    expected = nf.grad(products)(x)
    torch.testing.assert_close(torch.func.grad(products)(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.jvp(products, (x,), (w,))[1], torch.sum(expected * w), rtol=1e-12, atol=1e-12)
    both = torch.stack([x, w])
    for transform in (nf.grad, nf.hessian, nf.jacobian, lambda f: lambda x: nf.linearize(f, x)[1](x)):
        g = transform(f)
        torch.testing.assert_close(torch.vmap(g)(both), torch.stack([g(x), g(w)]), rtol=1e-12, atol=1e-12)
    (value, aux), gradient = torch.vmap(nf.value_and_grad(lambda x: (f(x), {"x": x * 2}), has_aux=True))(both)
    assert value.shape == (2,) and torch.equal(aux["x"], both * 2) and gradient.shape == both.shape
