"""`solve` is an ordinary differentiable function of PyTorch, in every mode; each value against an exact one."""

import dataclasses
import threading

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic, tanh_fixed_point

torch = pytest.importorskip("torch")
F, ad = torch.func, torch.autograd.forward_ad
double = torch.float64
STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))

# PyTorch's own, on the import of what its forward mode is made of
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def close(found, expected, rtol=1e-9):
    """|found - expected| <= rtol |expected|."""
    assert found.shape == expected.shape
    error = float(torch.linalg.norm((found - expected).detach()) / torch.linalg.norm(expected.detach()))
    assert error <= rtol, error


class Case:
    """A problem with exact derivatives, x, three points X, a direction u, and x ↦ upper(x, y*(x)) through `solve`."""

    def __init__(self, make):
        self.problem = make(like=torch.zeros((), dtype=double), n=4, p=2)
        rng = np.random.default_rng(0)
        self.x, self.y = self.problem.start(rng)
        self.u = torch.tensor(rng.standard_normal(2))
        self.points = self.x + 0.1 * torch.tensor(rng.standard_normal((3, 2)))
        self.level = self.problem.problem().lower

    def solution(self, x):
        return nf.solve(self.level, x, init=self.y).value

    def loss(self, x):
        return self.problem.upper(x, self.solution(x))

    def gradient(self, x):
        return self.problem.euclidean_gradient(x)

    def hessian(self, x):
        return torch.stack([self.problem.hessian_product(x, e) for e in torch.eye(2, dtype=double)])

    def third(self, x):
        """D³F[u, u, ·] by finite differences of exact Hessian products."""
        h, u = 1e-3, self.u
        return sum(c * self.problem.hessian_product(x + i * h * u, u) for i, c in STENCIL) / h

    def jacobian(self, x):
        """Dy*, by finite differences of the exact solution."""
        h, eye = 1e-3, torch.eye(2, dtype=double)
        columns = [sum(c * self.problem.solution(x + i * h * e) for i, c in STENCIL) / h for e in eye]
        return torch.stack(columns, dim=-1)


@pytest.fixture(params=[smallest_eigenvector, tanh_fixed_point], ids=["sphere", "fixed_point"])
def case(request):
    return Case(request.param)


@pytest.fixture
def sphere():
    return Case(smallest_eigenvector)


# -- derivatives at one point ---------------------------------------------------------------------------------------
def forward_ad(f, x, u):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, u)
        return torch.autograd.forward_ad.unpack_dual(f(dual)).tangent


def backward(f, x, **options):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x), x, **options)[0]


def over_backward(f, x, u):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    return torch.autograd.grad(gradient @ u, x)[0]


def forward_ad_over_backward(f, x, u):
    return forward_ad(lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0], x.detach().requires_grad_(), u)


functional = torch.autograd.functional

FIRST = {
    "backward": lambda f, x, u: backward(f, x) @ u,
    "func.grad": lambda f, x, u: F.grad(f)(x) @ u,
    "func.vjp": lambda f, x, u: F.vjp(f, x)[1](torch.ones((), dtype=double))[0] @ u,
    "func.jvp": lambda f, x, u: F.jvp(f, (x,), (u,))[1],
    "func.jacfwd": lambda f, x, u: F.jacfwd(f)(x) @ u,
    "func.jacrev": lambda f, x, u: F.jacrev(f)(x) @ u,
    "forward_ad": forward_ad,
    "functional.jvp": lambda f, x, u: functional.jvp(f, x, u)[1],
    "nf.grad": lambda f, x, u: nf.grad(f)(x) @ u,
}
JACOBIANS = {
    "func.jacrev": lambda f, x: F.jacrev(f)(x),
    "func.jacfwd": lambda f, x: F.jacfwd(f)(x),
    "functional": lambda f, x: functional.jacobian(f, x),
    "functional, vectorize": lambda f, x: functional.jacobian(f, x, vectorize=True),
    "functional, forward": lambda f, x: functional.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    "is_grads_batched": lambda f, x: batched_rows(f, x),
    "nf.jacobian": lambda f, x: nf.jacobian(f)(x),
}
PRODUCTS = {
    "double backward": over_backward,
    "grad of grad": lambda f, x, u: F.grad(lambda x: F.grad(f)(x) @ u)(x),
    "jvp of grad": lambda f, x, u: F.jvp(F.grad(f), (x,), (u,))[1],
    "grad of jvp": lambda f, x, u: F.grad(lambda x: F.jvp(f, (x,), (u,))[1])(x),
    "hessian": lambda f, x, u: F.hessian(f)(x) @ u,
    "jacrev of grad": lambda f, x, u: F.jacrev(F.grad(f))(x) @ u,
    "jacfwd of grad": lambda f, x, u: F.jacfwd(F.grad(f))(x) @ u,
    "jacrev of jacfwd": lambda f, x, u: F.jacrev(F.jacfwd(f))(x) @ u,
    "vmap of products": lambda f, x, u: torch.vmap(lambda v: F.jvp(F.grad(f), (x,), (v,))[1])(torch.stack([u, x]))[0],
    "forward_ad of backward": forward_ad_over_backward,
    "functional.hvp": lambda f, x, u: functional.hvp(f, x, u)[1],
    "functional.hessian": lambda f, x, u: functional.hessian(f, x) @ u,
    "functional.hessian, vectorize": lambda f, x, u: functional.hessian(f, x, vectorize=True) @ u,
    "nf.hvp": lambda f, x, u: nf.hvp(f, (x,), (u,)),
    "nf.hvp in func.grad": lambda f, x, u: F.grad(lambda x: nf.grad(f)(x) @ u)(x),
}


def batched_rows(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.eye(len(y), dtype=double), is_grads_batched=True)[0]


@pytest.mark.parametrize("mode", FIRST)
def test_first_derivatives(case, mode):
    close(FIRST[mode](case.loss, case.x, case.u), case.gradient(case.x) @ case.u)


@pytest.mark.parametrize("mode", JACOBIANS)
def test_jacobians_of_the_answer(case, mode):
    close(JACOBIANS[mode](case.solution, case.x), case.jacobian(case.x), 1e-8)


@pytest.mark.parametrize("mode", PRODUCTS)
def test_second_derivatives(case, mode):
    """Where other libraries are silently wrong (a relative error of 0.4 to 1.2)."""
    close(PRODUCTS[mode](case.loss, case.x, case.u), case.hessian(case.x) @ case.u)


def test_third_derivatives(case):
    f, x, u = case.loss, case.x, case.u
    second = lambda x: F.grad(lambda x: F.grad(f)(x) @ u)(x) @ u  # noqa: E731
    expected = case.third(x)
    close(F.grad(second)(x), expected, 1e-8)
    close(F.jvp(F.grad(lambda x: F.grad(f)(x) @ u), (x,), (u,))[1], expected, 1e-8)
    close(F.jacfwd(F.jacrev(F.jacrev(f)))(x) @ u @ u, expected, 1e-8)


def test_forward_over_forward_is_refused_or_right(case):
    """PyTorch forgets the outer tangent of a custom function: never a silent zero."""
    f, x, u = case.loss, case.x, case.u
    for mode in (lambda: F.jvp(lambda x: F.jvp(f, (x,), (u,))[1], (x,), (u,)), lambda: F.jacfwd(F.jacfwd(f))(x)):
        with pytest.raises(nf.NoDerivativeError, match="loses"):
            mode()
    expected = case.hessian(x) @ u @ u
    close(nf.jvp(lambda x: nf.jvp(f, (x,), (u,))[1], (x,), (u,))[1], expected)
    close(F.jvp(lambda x: nf.jvp(f, (x,), (u,))[1], (x,), (u,))[1], expected)


def test_what_cannot_be_traced_is_refused_by_name(sphere):
    with pytest.raises(nf.MappedArrayError, match=r"nestfold\.linearize"):
        F.linearize(sphere.loss, sphere.x)
    unrolled = nf.Unrolled(3)
    with pytest.raises(nf.MappedArrayError, match="batch by leading axes"):
        torch.vmap(lambda x: nf.solve(sphere.level, x, init=sphere.y, estimator=unrolled).value)(sphere.points)


# -- vmap -----------------------------------------------------------------------------------------------------------
def total_gradient(f, xs):
    return backward(lambda xs: torch.vmap(f)(xs).sum(), xs)


MAPPED = {
    "vmap": (lambda f, xs: torch.vmap(f)(xs), "objective"),
    "vmap, in chunks": (lambda f, xs: torch.vmap(f, chunk_size=2)(xs), "objective"),
    "vmap of grad": (lambda f, xs: torch.vmap(F.grad(f))(xs), "gradient"),
    "grad of vmap": (lambda f, xs: F.grad(lambda xs: torch.vmap(f)(xs).sum())(xs), "gradient"),
    "backward of vmap": (total_gradient, "gradient"),
    "vmap of nf.grad": (lambda f, xs: torch.vmap(nf.grad(f))(xs), "gradient"),
    "vmap of jacrev": (lambda f, xs: torch.vmap(F.jacrev(f))(xs), "gradient"),
    "vmap of hessian": (lambda f, xs: torch.vmap(F.hessian(f))(xs), "hessian"),
    "vmap of nf.hessian": (lambda f, xs: torch.vmap(nf.hessian(f))(xs), "hessian"),
    "jacrev of vmap of grad": (
        lambda f, xs: torch.stack([F.jacrev(torch.vmap(F.grad(f)))(xs)[i, :, i] for i in range(3)]),
        "hessian",
    ),
}


@pytest.mark.parametrize("mode", MAPPED)
def test_vmap(case, mode):
    transform, what = MAPPED[mode]
    exact = {"objective": case.problem.objective, "gradient": case.gradient, "hessian": case.hessian}[what]
    close(transform(case.loss, case.points), torch.stack([exact(x) for x in case.points]))


def test_vmap_makes_one_batch_of_problems(sphere):
    """One solve of all, each with its own record; along any axis, nested, over starts, around a batch."""
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Watched(nf.TrustRegion):
        def solve(self, backend, level, outer, init, space):
            assert not torch._C._are_functorch_transforms_active() and type(outer[0]) is torch.Tensor
            seen.append(space.batch)
            return super().solve(backend, level, outer, init, space)

    case, xs = sphere, sphere.points
    exact = case.problem.solution(xs)

    def solved(x, y=case.y):
        return tuple(nf.solve(case.level, x, init=y, solver=Watched()))

    value, residual, steps, converged = torch.vmap(solved)(xs)
    close(value, exact)
    assert residual.shape == steps.shape == (3,) and converged.all() and (steps > 0).all()
    close(torch.vmap(lambda x: solved(x)[0], in_dims=1, out_dims=1)(xs.T), exact.T)
    both = torch.stack([xs, xs + 0.02])
    close(torch.vmap(torch.vmap(lambda x: solved(x)[0]))(both), case.problem.solution(both))
    close(torch.vmap(lambda x: solved(x, case.y.expand(3, 4))[0])(both), case.problem.solution(both))
    starts = torch.stack([case.y, -case.y])
    close(
        torch.vmap(lambda y: solved(case.x, y)[0])(starts),
        torch.tensor([[1.0], [-1.0]], dtype=double) * case.problem.solution(case.x),
    )
    assert seen == [(3,), (3,), (2, 3), (2, 3), (2,)]


def with_base(problem, base):
    return dataclasses.replace(problem, base=base).lower


def passed(case, base, x):
    level = nf.Argmin(lambda a, x, y: with_base(case.problem, a)(x, y), nf.Sphere(4))
    return case.problem.upper(x, nf.solve(level, base, x, init=case.y).value)


def captured(case, base, x):
    level = nf.Argmin(lambda x, y: with_base(case.problem, base)(x, y), nf.Sphere(4))
    return case.problem.upper(x, nf.solve(level, x, init=case.y).value)


@pytest.mark.parametrize("how", [passed, captured])
def test_vmap_over_some_of_the_variables(sphere, how):
    """Over one of two, which is an argument or captured; what is not mapped gets the sum of the derivatives."""
    case, x = sphere, sphere.x
    shift = torch.diag(torch.arange(4, dtype=double))
    bases = torch.stack([case.problem.base + 0.1 * i * shift for i in range(3)])
    entries = [dataclasses.replace(case.problem, base=a) for a in bases]
    by_base = torch.stack([nf.grad(lambda a: passed(case, a, x))(a) for a in bases])
    assert torch.linalg.norm(by_base) > 0.1
    f = lambda a, x: how(case, a, x)  # noqa: E731
    close(torch.vmap(f, (0, None))(bases, x), torch.stack([p.objective(x) for p in entries]))
    with torch.no_grad():
        close(torch.vmap(f, (2, None))(bases.movedim(0, 2), x), torch.stack([p.objective(x) for p in entries]))
    close(torch.vmap(F.grad(f), (0, None))(bases, x), by_base)
    gradients = torch.stack([p.euclidean_gradient(x) for p in entries])
    close(torch.vmap(F.grad(f, 1), (0, None))(bases, x), gradients)
    close(F.grad(lambda x: torch.vmap(f, (0, None))(bases, x).sum())(x), gradients.sum(0))
    products = torch.stack([p.hessian_product(x, case.u) for p in entries])
    close(torch.vmap(F.hessian(f, 1), (0, None))(bases, x) @ case.u, products)


def test_vmap_of_a_black_box(sphere):
    """A solver that autodiff cannot pass, and that sees one problem at a time."""
    case, calls = sphere, []

    def black_box(x, init):
        assert type(x) is torch.Tensor and x.shape == (2,) and init.shape == (4,) and not x.requires_grad
        calls.append(1)
        return torch.from_numpy(case.problem.solution(x).numpy().copy())

    def loss(x):
        return case.problem.upper(x, nf.solve(case.level, x, init=case.y, solver=nf.External(black_box)).value)

    close(torch.vmap(F.hessian(loss))(case.points), torch.stack([case.hessian(x) for x in case.points]))
    close(torch.vmap(F.grad(loss))(case.points), torch.stack([case.gradient(x) for x in case.points]))
    assert len(calls) == 6


ESTIMATORS = {
    "dense": nf.Implicit(nf.Dense()),
    "neumann": nf.Implicit(nf.Neumann()),
    "one Newton step": nf.OneStep(linear=nf.CG()),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_vmap_with_other_estimators(sphere, name):
    def loss(x):
        return sphere.problem.upper(x, nf.solve(sphere.level, x, init=sphere.y, estimator=ESTIMATORS[name]).value)

    close(torch.vmap(F.hessian(loss))(sphere.points), torch.stack([sphere.hessian(x) for x in sphere.points]))


def test_vmap_on_matrices_and_trees():
    """Symmetric positive matrices; a tree of a sphere and a vector, with a tree outside."""
    problem = synthetic(like=torch.zeros((), dtype=double), d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    ws = torch.stack([w, 1.1 * w])
    level = problem.problem().lower
    loss = lambda w: problem.upper(w, nf.solve(level, w, init=m).value)  # noqa: E731
    close(torch.vmap(F.grad(loss))(ws), problem.euclidean_gradient(ws))
    direction = torch.flip(w, (0,))
    h = 1e-3
    expected = sum(c * problem.euclidean_gradient(ws + i * h * direction) for i, c in STENCIL) / h
    close(torch.vmap(lambda w: F.jvp(F.grad(loss), (w,), (direction,))[1])(ws), expected, 1e-8)

    small = Case(smallest_eigenvector)
    manifold = nf.Product({"q": nf.Sphere(4), "b": nf.Euclidean(2)})

    def lower(x, y):
        pull = ((y["b"] - x["pair"][0] - y["q"][:2]) ** 2).sum() * (1 + x["pair"][1]) + (y["b"] ** 4).sum()
        return small.problem.lower(x["pair"][0], y["q"]) + pull

    def tree_loss(x):
        init = {"q": small.y, "b": torch.zeros(2, dtype=double)}
        y = nf.solve(nf.Argmin(lower, manifold), x, init=init).value
        return (y["b"] ** 3).sum() + y["q"].sum() ** 2

    xs = {"pair": (small.points, torch.tensor([0.1, 0.2, 0.3], dtype=double))}
    found = torch.vmap(F.grad(tree_loss))(xs)["pair"]
    for i in range(3):
        alone = nf.grad(tree_loss)({"pair": tuple(part[i] for part in xs["pair"])})["pair"]
        close(found[0][i], alone[0])
        close(found[1][i], alone[1])


def test_vmap_over_the_parameters_of_a_manifold():
    """y = -B⁻¹a/√(aᵀB⁻¹a) minimizes a·y where yᵀBy = 1: one problem after the other, for B makes the manifold."""
    rng = np.random.default_rng(0)
    roots, a, weights = (torch.tensor(rng.standard_normal(shape)) for shape in ((2, 2, 2), 2, 2))

    def metric(root):
        return root @ root.T + torch.eye(2, dtype=double)

    def exact(root):
        s = torch.linalg.solve(metric(root), a)
        return -(s @ weights) / torch.sqrt(a @ s)

    def loss(root):
        b, start = metric(root), -torch.sign(a)[:, None]
        start = nf.stop_gradient(start / torch.sqrt(start.T @ b @ start))
        level = nf.Argmin(lambda y: (a * y[:, 0]).sum(), nf.GeneralizedStiefel(2, 1, b))
        return nf.solve(level, init=start, estimator=nf.Implicit(nf.Dense())).value[:, 0] @ weights

    close(torch.vmap(loss)(roots), torch.stack([exact(r) for r in roots]))
    for derivative in (F.grad, F.hessian):
        close(torch.vmap(derivative(loss))(roots), torch.stack([derivative(exact)(r) for r in roots]))


# -- leaves, modes, modules -----------------------------------------------------------------------------------------
def test_only_what_requires_a_gradient_gets_one(sphere):
    case = sphere
    base, x = case.problem.base.clone(), case.x.clone().requires_grad_()
    y = nf.solve(nf.Argmin(lambda a, x, y: with_base(case.problem, a)(x, y), nf.Sphere(4)), base, x, init=case.y).value
    seen = []
    y.register_hook(lambda c: seen.append(c))
    value = case.problem.upper(x, y)
    value.backward(retain_graph=True)
    value.backward()
    close(x.grad, 2 * case.gradient(case.x))
    assert base.grad is None and len(seen) == 2


def test_leaves_that_cannot_move(sphere):
    """Integers, masks, numbers, None, text and functions pass; what is not used gets zeros, integers get None."""
    case = sphere

    def lower(o, spare, x, y):
        assert o["name"] == "a" and o["nothing"] is None and o["function"](3) == "3"
        return case.problem.lower(x, y) * o["scale"] + 0 * y[o["rows"]][o["mask"]].sum()

    others = {"rows": torch.arange(2), "mask": torch.tensor([True, False]), "scale": 2.0}
    others |= {"nothing": None, "name": "a", "function": str}

    def loss(x, spare):
        return case.problem.upper(x, nf.solve(nf.Argmin(lower, nf.Sphere(4)), others, spare, x, init=case.y).value)

    x, spare = case.x.clone().requires_grad_(), torch.ones(3, dtype=double, requires_grad=True)
    gradient, zeros = torch.autograd.grad(loss(x, spare), (x, spare))
    close(gradient, case.gradient(case.x))
    assert zeros.shape == (3,) and not zeros.any()
    close(F.grad(loss)(case.x, spare.detach()), case.gradient(case.x))
    close(F.jvp(F.grad(loss), (case.x, spare.detach()), (case.u, 0 * spare.detach()))[1], case.hessian(case.x) @ case.u)
    scaled = nf.Argmin(lambda c, x, y: c * case.problem.lower(x, y), nf.Sphere(4))
    close(
        F.grad(lambda x: case.problem.upper(x, nf.solve(scaled, 3, x, init=case.y).value))(case.x),
        case.gradient(case.x),
    )


def test_modes_of_torch(sphere):
    """`no_grad`, `inference_mode`, tensors made in it, strided tensors, threads."""
    case, expected = sphere, sphere.problem.solution(sphere.x)
    with torch.no_grad():
        y = case.solution(case.x.clone().requires_grad_())
    assert not y.requires_grad
    with torch.inference_mode():
        close(case.solution(case.x), expected)
        made = 1 * case.problem.base
    close(backward(lambda x: captured(case, made, x), case.x), case.gradient(case.x))
    close(F.grad(lambda x: captured(case, made, x))(case.x), case.gradient(case.x))
    strided = torch.stack([case.x, 0 * case.x], dim=-1)[:, 0]
    assert not strided.is_contiguous()
    close(backward(case.loss, strided), case.gradient(case.x))
    found = [None] * 4

    def work(i):
        found[i] = over_backward(case.loss, case.points[i % 3], case.u)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i, product in enumerate(found):
        close(product, case.problem.hessian_product(case.points[i % 3], case.u))


def test_single_precision():
    problem = smallest_eigenvector(like=torch.zeros((), dtype=torch.float32), n=4, p=2)
    x, y = problem.start(np.random.default_rng(0))
    loss = lambda x: problem.upper(x, nf.solve(problem.problem().lower, x, init=y).value)  # noqa: E731
    found = torch.vmap(F.hessian(loss))(x[None])[0]
    assert found.dtype == torch.float32
    close(found, torch.stack([problem.hessian_product(x, e) for e in torch.eye(2)]), 1e-4)


class Net(torch.nn.Module):
    """Two layers, a normalization between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        parts = torch.nn.Linear(2, 3), torch.nn.LayerNorm(3), torch.nn.Tanh(), torch.nn.Linear(3, 4)
        self.layers = torch.nn.Sequential(*parts).double()

    def forward(self, x):
        return self.layers(x)


def test_modules():
    """Parameters as an outer variable, an ensemble of them, and a captured module: y + 2y³ = net(x), entry by entry."""
    net, x, zeros = Net(), torch.tensor([0.3, -1.0], dtype=double), torch.zeros(4, dtype=double)
    weights = torch.arange(1, 5, dtype=double)
    params = {k: v.detach() for k, v in net.named_parameters()}
    level = nf.Argmin(
        lambda q, x, y: ((y - F.functional_call(net, q, (x,))) ** 2).sum() + (y**4).sum(), nf.Euclidean(4)
    )

    def loss(params):
        return nf.solve(level, params, x, init=zeros).value @ weights

    def exact(params):
        target, pull = F.vjp(lambda q: F.functional_call(net, q, (x,)), params)
        y = target
        for _ in range(30):
            y = y - (y + 2 * y**3 - target) / (1 + 6 * y * y)
        return pull(weights / (1 + 6 * y * y))[0]

    def agree(found):
        for name, expected in exact(params).items():
            close(found[name], expected)

    agree(F.grad(loss)(params))
    stacked = {k: torch.stack([0.9 * v, v]) for k, v in params.items()}
    agree({k: v[1] for k, v in torch.vmap(F.grad(loss))(stacked).items()})
    inside = nf.Argmin(lambda x, y: ((y - net(x)) ** 2).sum() + (y**4).sum(), nf.Euclidean(4))
    (nf.solve(inside, x, init=zeros).value @ weights).backward()
    agree({k: v.grad for k, v in net.named_parameters()})
    y = torch.utils.checkpoint.checkpoint(lambda x: nf.solve(inside, x, init=zeros).value, x, use_reentrant=False)
    agree(dict(zip(params, torch.autograd.grad(y @ weights, list(net.parameters())), strict=True)))


def test_parameters_of_a_module_as_the_inner_variable():
    """Ridge regression of a `Linear`, its parameters a dict; derivatives in the penalty to order two."""
    rng = np.random.default_rng(0)
    data, target = torch.tensor(rng.standard_normal((6, 2))), torch.tensor(rng.standard_normal((6, 1)))
    net = torch.nn.Linear(2, 1).double()
    init = {k: torch.zeros_like(v) for k, v in net.named_parameters()}
    manifold = nf.Product({k: nf.Euclidean(*v.shape) for k, v in init.items()})

    def lower(log_penalty, y):
        square = sum((v**2).sum() for v in y.values())
        return ((F.functional_call(net, y, (data,)) - target) ** 2).sum() + torch.exp(log_penalty) * square

    def loss(log_penalty):
        y = nf.solve(nf.Argmin(lower, manifold), log_penalty, init=init).value
        return ((F.functional_call(net, y, (data[:2],)) - 1) ** 2).sum()

    def exact(log_penalty):
        design = torch.cat([data, torch.ones(6, 1, dtype=double)], 1)
        gram = design.T @ design + torch.exp(log_penalty) * torch.eye(3, dtype=double)
        return ((design[:2] @ torch.linalg.solve(gram, design.T @ target) - 1) ** 2).sum()

    points = torch.tensor([0.3, -0.5], dtype=double)
    for derivative in (F.grad, F.hessian):
        close(torch.vmap(derivative(loss))(points), torch.stack([derivative(exact)(t) for t in points]))
    close(over_backward(lambda t: loss(t[0]), points[:1], points[:1]), F.hessian(exact)(points[0])[None] * points[:1])


# -- torch.compile --------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_compiled_losses(sphere):
    """`solve` is left out of what is compiled: values and gradients, of captured tensors too, are those without."""
    case, base = sphere, sphere.problem.base
    by_base = nf.grad(lambda a: captured(case, a, case.x))(base)
    for kind in ("eager", "aot_eager"):
        torch._dynamo.reset()
        compiled = torch.compile(case.loss, backend=kind)
        close(backward(compiled, case.x), case.gradient(case.x))
        if kind == "eager":  # PyTorch differentiates what it compiled by the other once only, and says so
            close(over_backward(compiled, case.x, case.u), case.hessian(case.x) @ case.u)
        with torch.no_grad():
            close(torch.compile(case.loss, backend=kind)(case.x), case.problem.objective(case.x))
        close(backward(torch.compile(lambda a: captured(case, a * 1.0, case.x), backend=kind), base), by_base)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_a_compiled_cost_without_second_derivatives_is_refused(sphere):
    """PyTorch gives None, a silent zero, for the mixed derivatives of what `aot_eager` made."""
    case = sphere
    level = nf.Argmin(torch.compile(case.problem.lower, backend="aot_eager"), nf.Sphere(4))
    with pytest.raises(nf.NoDerivativeError, match="compile"):
        backward(lambda x: case.problem.upper(x, nf.solve(level, x, init=case.y).value), case.x)


def test_a_second_derivative_keeps_no_graph():
    """Where nothing asks for one, also where a derivative is taken of a derivative."""
    s, b = torch.tensor(2.0, dtype=double), torch.tensor([1.0, 2.0], dtype=double)
    a = torch.tensor([[2.0, 0.5], [0.0, 3.0]], dtype=double)

    def solved(s):
        root = nf.Root(lambda x, y: s * (x @ y) - b, nf.Euclidean(2))
        return nf.solve(root, a, init=0 * b).value.sum()

    def system(s):
        return nf.linear_solve(lambda p, v: s * (p @ v), a, b).value.sum()

    sum_at_one = torch.linalg.solve(a, b).sum()
    for f in (solved, system):
        for order, derivative in enumerate((nf.grad(f), nf.grad(nf.grad(f)), nf.grad(nf.grad(nf.grad(f)))), start=1):
            found = derivative(s)
            assert not found.requires_grad
            close(found, sum_at_one * (-1) ** order * (1, 2, 6)[order - 1] / s ** (order + 1))


@pytest.mark.parametrize("how", ["passed", "captured", "self-adjoint"])
def test_vmap_of_linear_solve(how):
    """Against inverses; `torch.linalg.solve` of a vector is wrong under torch.vmap of func.jacfwd."""
    rng = np.random.default_rng(0)
    a, b = torch.tensor(rng.standard_normal((3, 4, 4)) + 4 * np.eye(4)), torch.tensor(rng.standard_normal((3, 4)))

    def solved(a, b):
        if how == "captured":
            return nf.linear_solve(lambda s, v: s * (a @ v), torch.ones((), dtype=double), b).value
        if how == "passed":
            return nf.linear_solve(lambda a, v: a @ v, a, b).value
        return nf.linear_solve(lambda a, v: a.mT @ (a @ v), a, b, self_adjoint=True).value

    def exact(a, b):
        return torch.linalg.inv(a) @ (torch.linalg.inv(a.mT) @ b if how == "self-adjoint" else b)

    def cubed(f):
        return lambda a, b: (f(a, b) ** 3).sum()

    maps = {
        "value": lambda f: F.vmap(f)(a, b),
        "one of two": lambda f: F.vmap(f, (None, 0))(a[0], b),
        "maps of maps": lambda f: F.vmap(lambda b: F.vmap(lambda a: f(a, b))(a))(b),
        "map of grad": lambda f: F.vmap(F.grad(cubed(f)))(a, b),
        "grad of map": lambda f: F.grad(lambda a: F.vmap(cubed(f))(a, b).sum())(a),
        "map of jacfwd": lambda f: F.vmap(F.jacfwd(cubed(f)))(a, b),
        "map of hessian": lambda f: F.vmap(F.hessian(cubed(f), 1))(a, b),
        "jacrev of map": lambda f: F.jacrev(lambda b: F.vmap(cubed(f))(a, b))(b),
    }
    for mapped in maps.values():
        close(mapped(solved), mapped(exact))


def test_forward_mode_by_what_is_captured():
    """`torch.autograd.forward_ad` by a tensor that a level, or a level within its function, closes over."""
    space, zeros, b = nf.Euclidean(2), torch.zeros(2, dtype=double), torch.tensor([1.0, -2.0], dtype=double)
    x, u = torch.tensor([1.0, 0.5], dtype=double), torch.tensor([0.3, -0.7], dtype=double)

    def argmin(x):
        return nf.solve(nf.Argmin(lambda y: ((y - x) ** 2 + y**4).sum(), space), init=zeros).value.sum()

    def composed(x):
        def inner(y):
            return nf.solve(nf.Argmin(lambda y, z: ((z - y) ** 2 * x + z**4).sum(), space), y, init=zeros).value

        cost = nf.Argmin(lambda y: (inner(y) ** 2 + (y - b) ** 2).sum(), space)
        return (b * nf.solve(cost, init=zeros).value).sum()

    def system(x):
        return (b * nf.linear_solve(lambda p, v: v * x + v.sum(), b, b).value).sum()

    for f in (argmin, composed, system):
        with ad.dual_level():
            found = ad.unpack_dual(f(ad.make_dual(x, u))).tangent
            product = ad.unpack_dual(nf.grad(f)(ad.make_dual(x, u))).tangent
        close(found, sum(c * f(x + i * 1e-3 * u) for i, c in STENCIL) / 1e-3)
        close(product, sum(c * nf.grad(f)(x + i * 1e-3 * u) for i, c in STENCIL) / 1e-3, 1e-8)
