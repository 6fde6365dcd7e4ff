"""The adapter of PyTorch: its transformations, modes and graphs."""

import gc
import weakref

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend

torch = pytest.importorskip("torch")
TORCH = get_backend("torch")
forward_mode_of_torch = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def regular(n, seed=0):
    return numbers(n, n, seed=seed) + 3 * np.eye(n)


def close(found, expected, tolerance=1e-12):
    found, expected = (TORCH.to_numpy(a) if TORCH.owns(a) else np.asarray(a) for a in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, abs(expected).max()))


def reverse_only(primals, out, tangents):
    raise AssertionError("a pushforward was called in reverse mode")


def gradient(f):
    def gradient_of_f(x):
        y, pull = TORCH.vjp(f, x)
        return pull(TORCH.xp.ones_like(y))[0]

    return gradient_of_f


def poisoned_inverse():
    """x -> x⁻¹ through NumPy, which no framework can differentiate."""

    def through_numpy(x):
        return TORCH.call_external(lambda a: np.linalg.inv(np.asarray(a)), x, x)

    inverse = TORCH.custom_derivative(
        through_numpy,
        lambda primals, y, tangents: -y @ tangents[0] @ y,
        lambda primals, y, cotangent, needs: (-inverse(primals[0]).mT @ cotangent @ inverse(primals[0]).mT,),
    )
    return inverse


def test_linearize_keeps_writes_into_constants():
    def f(x):
        constant = torch.zeros(2, dtype=x.dtype)
        constant[0] = 3.0
        return constant * x + TORCH.xp.eye(2, dtype=x.dtype) @ x

    x = torch.ones(2, dtype=torch.float64)
    close(TORCH.linearize(f, x)[1](x), np.array([4.0, 1.0]))


@forward_mode_of_torch
def test_custom_derivative_under_transformations_of_torch():
    weight, v, x = (torch.asarray(a) for a in (numbers(3, 3, seed=9), numbers(3, 3), regular(3)))
    answers = []
    for inverse in (torch.linalg.inv, poisoned_inverse()):

        def f(x, inverse=inverse):
            return torch.sum(inverse(x) * weight) ** 2

        once = gradient(f)
        answers.append(
            [
                torch.func.jacrev(torch.func.jacrev(f))(x),
                torch.func.hessian(f)(x),
                torch.func.vmap(torch.func.grad(f))(torch.stack([x, x + v])),
                torch.func.grad(lambda x, once=once: torch.sum(once(x) * v))(x),
                torch.func.jvp(once, (x,), (v,))[1],
                torch.func.grad(lambda x, f=f: TORCH.jvp(f, (x,), (v,))[1])(x),
                dual_derivative(once, x, v),
            ]
        )
    for expected, found in zip(*answers, strict=True):
        close(found, expected, 1e-10)


def dual_derivative(f, x, v):
    from torch.autograd import forward_ad

    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


@forward_mode_of_torch
def test_forward_over_forward_of_torch_is_refused():
    """PyTorch itself would give a wrong number without a word."""
    inverse, x = poisoned_inverse(), torch.asarray(regular(3))

    def inner(x):
        return torch.func.jvp(inverse, (x,), (x,))[1]

    with pytest.raises(NoDerivativeError, match="inside torch"):
        torch.func.jvp(inner, (x,), (x,))


def test_backward_of_a_graph_of_the_user():
    """`loss.backward()`, and twice with create_graph; a gradient that nobody asked for leaves no graph."""
    inverse, x = poisoned_inverse(), torch.asarray(regular(3)).requires_grad_()
    reference = torch.autograd.functional.hessian(lambda x: torch.linalg.inv(x)[0].sum(), x)
    (first,) = torch.autograd.grad(inverse(x)[0].sum(), x, create_graph=True)
    close(
        torch.stack([torch.autograd.grad(e, x, retain_graph=True)[0] for e in first.flatten()]),
        reference.reshape(9, 3, 3),
    )
    inverse(x)[0].sum().backward()
    close(x.grad, first)
    assert not x.grad.requires_grad
    y, pull = TORCH.vjp(lambda a: (a**3).sum(), torch.ones(2))
    assert not y.requires_grad and not pull(torch.ones(()))[0].requires_grad


def test_what_a_rule_saved_is_freed():
    class Token:
        pass

    token = Token()
    alive = weakref.ref(token)
    double = TORCH.custom_derivative(
        lambda x: 2 * x, reverse_only, lambda primals, out, cotangent, needs, token=token: (2 * cotangent,)
    )
    y = double(torch.ones(2, requires_grad=True))
    del token, double
    assert alive() is not None
    del y
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_derivatives_while_torch_records_nothing(mode):
    x = torch.ones(3, requires_grad=True)
    with getattr(torch, mode)():
        y, pull = TORCH.vjp(lambda x: gradient(lambda z: (z**4).sum())(x), x)
        (second,) = pull(torch.ones(3))
        moved = TORCH.linearize(lambda x: x**3, x.clone())[1](torch.ones(3))
    assert not y.requires_grad and not second.requires_grad
    close(second.detach(), 12 * np.ones(3))
    close(moved, 3 * np.ones(3))


class Foreign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, cotangent):
        return 2 * cotangent


def test_hoist_refuses_what_it_cannot_follow():
    w, y = torch.ones(3, requires_grad=True), torch.ones(3)
    doubled = 2 * w
    with pytest.raises(NoDerivativeError, match="outer variable"):
        TORCH.hoist(lambda y: (Foreign.apply(w) * y).sum(), y)
    with pytest.raises(NoDerivativeError, match="outer variable"):
        TORCH.hoist(lambda y: (Foreign.apply(doubled) * y).sum(), y)
    runs = []

    def changes_its_mind(y):
        runs.append(0)
        return (w * y).sum() if len(runs) == 1 else (w * y).sum() + other.sum()

    other = torch.ones(2, requires_grad=True)
    g, captured = TORCH.hoist(changes_its_mind, y)
    with pytest.raises(NoDerivativeError, match="branch"):
        g(captured, y)


def test_hoist_sees_modules_nested_levels_and_linear_maps():
    module, y = torch.nn.Linear(3, 1), torch.ones(3)
    assert len(TORCH.hoist(lambda y: module(y).sum(), y)[1]) == 2
    with torch.no_grad():
        assert TORCH.hoist(lambda y: module(y).sum(), y)[1] == ()

    def nested(y):
        g, captured = TORCH.hoist(lambda z: (z * y * module.bias).sum(), y)
        return TORCH.custom_derivative(g, reverse_only, lambda p, out, c, needs: TORCH.vjp(g, *p)[1](c))(captured, y)

    g, captured = TORCH.hoist(nested, y)
    assert [id(c) for c in captured] == [id(module.bias)]
    stand_in = torch.ones(1, requires_grad=True)
    assert torch.autograd.grad(g((stand_in,), y), stand_in)[0].item() == 3
    _, push = TORCH.linearize(lambda x: x**3, y)
    g, captured = TORCH.hoist(push, y)
    close(g(captured, y), 3 * np.ones(3))


def test_derivative_is_refused_where_trees_do_not_match():
    _, pull = TORCH.vjp(lambda x: (x, x), torch.ones(2))
    with pytest.raises(ValueError, match="2 are expected"):
        pull(torch.ones(2))


def test_a_zero_without_memory_becomes_zeros():
    """PyTorch keeps a second derivative that is zero by structure as a tensor without memory."""
    f = lambda x: nf.namespace(x).linalg.matrix_norm(x, ord=1)  # noqa: E731
    gradient = lambda x: nf.vjp(f, x)[1](torch.ones(()))[0]  # noqa: E731
    second = nf.jvp(gradient, (torch.eye(3),), (torch.ones(3, 3),))[1]
    assert not get_backend("torch").to_numpy(second).any()
