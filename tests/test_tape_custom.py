"""Functions with a derivative given by hand, and functions that close over what is being differentiated."""

from __future__ import annotations

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend
from nestfold.backends.tape import Traced

backend = get_backend("numpy")


def derivative(f):
    """The derivative of a function of one number, forward."""
    return lambda x: nf.jvp(f, (x,), (np.ones(()),))[1]


ORDERS = [nf.grad, derivative]


def poisoned(calls=None):
    """(x, w) ↦ {product: x w, sine: sin x}, by functions that no tape can pass."""

    def function(x, w):
        assert type(x) is np.ndarray and type(w) is np.ndarray
        return {"product": np.array((x * w).tolist()), "sine": np.array(np.sin(x).tolist())}

    def pushforward(primals, out, tangents):
        (x, w), (dx, dw) = primals, tangents
        product = 0 * out["product"]
        product = product + (0 if dx is None else rule(dx, w)["product"]) + (0 if dw is None else x * dw)
        return {"product": product, "sine": 0 * x if dx is None else np.cos(x) * dx}

    def pullback(primals, out, cotangent, needs):
        x, w = primals
        if calls is not None:
            calls.append(needs)
        dx = rule(cotangent["product"], w)["product"] + np.cos(x) * cotangent["sine"]
        return dx if needs[0] else None, x * cotangent["product"] if needs[1] else None

    rule = backend.custom_derivative(function, pushforward, pullback)
    return rule


@pytest.mark.parametrize("modes", [(), (0,), (1,), (0, 1), (1, 0), (0, 0), (1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 1)])
def test_custom_derivatives_of_every_order(modes):
    x, w, v = np.array([0.3, -1.2]), np.array([2.0, 0.7]), np.array([1.0, 0.5])

    def value(rule, x, w):
        out = rule(x, w)
        return np.sum(out["product"] ** 2 * out["sine"])

    found = []
    for rule in (poisoned(), lambda x, w: {"product": x * w, "sine": np.sin(x)}):

        def f(t, rule=rule):
            return value(rule, x + t * v, w * (1 + t))

        for mode in modes:
            f = ORDERS[mode](f)
        found.append(f(np.array(0.1)))
    assert abs(found[0] - found[1]) < 1e-11 * (1 + abs(found[1]))


def test_custom_derivatives_are_asked_for_what_is_needed():
    calls = []
    rule = poisoned(calls)
    x, w = np.ones(2), np.ones(2)
    nf.grad(lambda w: np.sum(rule(x, w)["product"]))(w)
    assert calls == [(False, True)]


def test_custom_derivatives_are_checked():
    x = np.ones(3)

    def short(primals, out, tangents):
        return out[:2]

    wrong = backend.custom_derivative(lambda x: 2 * x, short, lambda p, o, c, n: (c[0],))
    with pytest.raises(nf.ShapeError, match=r"pullback.*\(\).*\(3,\)"):
        nf.grad(lambda x: np.sum(wrong(x)))(x)
    with pytest.raises(nf.ShapeError, match=r"pushforward.*\(2,\).*\(3,\)"):
        nf.jvp(wrong, (x,), (x,))

    def closes_over(w):
        sealed = backend.custom_derivative(lambda x: w * x, lambda *_: x, lambda *_: (x,))
        return np.sum(sealed(x))

    with pytest.raises(NoDerivativeError, match="hoist"):
        nf.grad(closes_over)(x)


# -- captured arrays
# -----------------------------------------------------------------------------------------------
def sealed(f, *args):
    """f(*args) through `hoist` and a rule that the tape cannot look into: derivatives arrive by `captured`
    alone.
    """
    g, captured = backend.hoist(f, *args)

    def function(captured, args):
        out = g(captured, *args)
        assert not isinstance(out, Traced), "the function saw a traced array"
        return out

    def pushforward(primals, out, tangents):
        moved = 0.0
        for k, tangent in enumerate(tangents):
            if tangent is not None:

                def along(p, k=k):
                    captured, args = (*primals[:k], p, *primals[k + 1 :])
                    return g(captured, *args)

                moved = moved + nf.jvp(along, (primals[k],), (tangent,))[1]
        return moved

    def pullback(primals, out, cotangent, needs):
        return nf.vjp(lambda captured, args: g(captured, *args), *primals)[1](cotangent)

    return backend.custom_derivative(function, pushforward, pullback)(captured, args), captured


def opened(f, *args):
    return f(*args), ()


V = np.array([0.3, -0.7, 1.1])
Y = np.array([1.0, 2.0, -1.0])


def one_array(seal):
    return lambda w: seal(lambda y: np.sum(np.sin(w) * y * w), Y)[0]


def only_among_themselves(seal):
    """What is captured meets only itself before it meets y."""
    return lambda w: seal(lambda y: np.sum((w @ w) * y + np.exp(w)), Y)[0]


def intermediate_results(seal):
    def f(w):
        square, total = w * w, np.sum(w)
        return seal(lambda y: total * (square @ y) + w @ y, Y)[0]

    return f


def captured_and_passed(seal):
    """The argument is the captured array itself: its two roles are kept apart."""
    return lambda w: seal(lambda y: np.sum(np.sin(y) * w * w), w)[0]


def two_roles_of_one_value(seal):
    """The level-two array and the array below that is its value are captured both."""

    def f(w):
        def inner(z):
            return seal(lambda y: np.sum(w * z * z * y), Y)[0]

        return np.sum(nf.grad(inner)(w) * w)

    return f


def two_levels(seal):
    def f(w):
        def inner(z):
            c = w * z
            return seal(lambda y: np.sum(np.sin(c) * y * w + z**3), Y)[0]

        return nf.grad(inner)(w * 2) * nf.jvp(inner, (w,), (Y,))[1] * V

    return lambda w: np.sum(f(w))


def nested_seals(seal):
    """A sealed function inside a sealed function; the inner one captures what the outer captures, and its
    argument.
    """

    def f(w):
        def outer(y):
            u = y * w
            return seal(lambda z: np.sum(np.sin(z) * w * u + w * y), V)[0] ** 2

        return seal(outer, Y)[0]

    return f


def three_seals(seal):
    def f(w):
        def first(y):
            def second(z):
                return seal(lambda t: np.sum(t * w * y * z), w)[0] + y @ z

            return seal(second, V)[0] * np.sum(w * y)

        return seal(first, Y)[0]

    return f


def returned_as_it_is(seal):
    return lambda w: np.sum(seal(lambda y: w, Y)[0] * w)


def sorted_inside(seal):
    return lambda w: seal(lambda y: np.sum(np.sort(w * y) * Y), Y)[0]


CASES = [
    one_array, only_among_themselves, intermediate_results, captured_and_passed, two_roles_of_one_value,
    two_levels, nested_seals, three_seals, returned_as_it_is, sorted_inside,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_is_captured_keeps_its_derivatives(case):
    f, reference = case(sealed), case(opened)
    assert np.allclose(f(V), reference(V))
    for order in (nf.grad, lambda f: nf.grad(lambda x: np.sum(nf.grad(f)(x) * Y)), nf.hessian):
        assert np.allclose(order(f)(V), order(reference)(V), rtol=1e-11, atol=1e-11)
    mixed = [nf.jvp(nf.grad(g), (V,), (Y,))[1] for g in (f, reference)]
    assert np.allclose(*mixed, rtol=1e-11, atol=1e-11)
    third = [nf.jvp(nf.hessian(g), (V,), (Y,))[1] for g in (f, reference)]
    assert np.allclose(*third, rtol=1e-11, atol=1e-11)


def test_nothing_captured():
    calls = []
    g, captured = backend.hoist(lambda y: calls.append(0) or V * y, Y)
    assert captured == () and len(calls) == 1
    assert np.array_equal(g((), Y), V * Y)


def test_other_values_may_be_given_for_what_was_captured():
    """`g` is a function of `captured`: values, comparisons, sorting and constants follow what is given."""

    def loss(w):
        def f(y):
            xp = nf.namespace(y, w)
            kept = xp.sort(w) * xp.astype(w > 0, w.dtype) * nf.stop_gradient(w) + xp.floor(w)
            return xp.sum(xp.where(w > 0, kept, y))

        g, captured = backend.hoist(f, Y)
        other = np.array([3.5, -1.0, 2.0])
        places = [nf.stop_gradient(c) if c is not w else other for c in captured]
        for _ in range(2):
            assert g(tuple(places), Y) == f_plain(other)
        assert nf.stop_gradient(g(captured, Y)) == f_plain(V)
        return g(captured, Y)

    def f_plain(w):
        return np.sum(np.where(w > 0, np.sort(w) * (w > 0) * w + np.floor(w), Y))

    nf.grad(loss)(V)


def test_an_array_that_was_not_there_before_is_refused():
    def loss(w):
        runs = []

        def f(y):
            runs.append(0)
            return np.sum(w * y) + (np.sum(other * y) if len(runs) > 1 else 0.0)

        other = 3 * w
        g, captured = backend.hoist(f, Y)
        assert len(captured) == 1
        return g(captured, Y)

    with pytest.raises(NoDerivativeError, match="branch"):
        nf.grad(loss)(V)


def test_stand_ins_go_when_the_function_fails():
    def loss(w):
        def f(y):
            if y[0] > 5:
                raise RuntimeError("user's own")
            return np.sum(w * y)

        g, _ = backend.hoist(f, Y)
        with pytest.raises(RuntimeError, match="own"):
            g((0 * w,), Y + 10)
        return np.sum(w * Y)

    assert np.array_equal(nf.grad(loss)(V), Y)
