"""`solve` as an ordinary differentiable function: written as a user would, in each framework."""

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import smallest_eigenvector, synthetic


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


def close(backend, found, expected, rtol=1e-10):
    """|found - expected| <= rtol |expected|, leaf by leaf."""
    found, expected = backend.to_numpy(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= rtol * np.linalg.norm(expected)


@pytest.fixture
def case(backend, like64):
    """The synthetic problem, a W, M = I, and the exact ambient gradient at W."""
    problem = synthetic(like=like64, d=5, r=2, n=10)
    w, m = problem.start(np.random.default_rng(0))
    return problem, w, m, backend.to_numpy(problem.euclidean_gradient(w))


# -- the user's own words ----------------------------------------------------------------------------------


def torch_costs(problem):
    """Both costs in plain PyTorch."""
    import torch

    a, c, k, eye = problem.a, problem.c, problem.k, torch.eye(5, dtype=torch.float64)

    def upper(w, m):
        return -torch.trace(m @ c @ w.T)

    def lower(w, m):
        return torch.trace(m @ a) + torch.trace(torch.linalg.inv(m) @ (w @ k @ w.T + problem.nu * eye))

    return upper, lower


@on("torch")
def test_backward_in_torch(backend, case):
    problem, w, m, expected = case
    upper, lower = torch_costs(problem)
    w.requires_grad_()
    y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value
    loss = upper(w, y)
    loss.backward()
    close(backend, w.grad, expected)
    assert m.grad is None and not m.requires_grad


@on("torch")
def test_autograd_grad_in_torch(backend, case):
    import torch

    problem, w, m, expected = case
    upper, lower = torch_costs(problem)
    w.requires_grad_()
    y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value
    (found,) = torch.autograd.grad(upper(w, y), w, retain_graph=True)
    close(backend, found, expected)
    (again,) = torch.autograd.grad(upper(w, y), w)  # a second call on the same graph
    close(backend, again, expected)


@on("torch")
def test_an_optimizer_of_torch(backend, case):
    """A training loop: solve, backward, step; the value goes down."""
    import torch

    problem, w, m, _ = case
    upper, lower = torch_costs(problem)
    free = torch.nn.Parameter(w)
    optimizer = torch.optim.SGD([free], lr=0.5)
    values = []
    for _ in range(4):
        optimizer.zero_grad()
        m = nf.solve(nf.Argmin(lower, nf.SPD(5)), free, init=m.detach()).value
        loss = upper(free, m)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values == sorted(values, reverse=True)


@on("torch")
def test_no_grad_and_no_gradient_wanted_in_torch(backend, case):
    import torch

    problem, w, m, _ = case
    _, lower = torch_costs(problem)
    assert not nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value.requires_grad
    with torch.no_grad():
        y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w.requires_grad_(), init=m).value
        assert not torch.is_grad_enabled()
    close(backend, y, backend.to_numpy(problem.solution(w)), 1e-9)


@on("jax")
def test_grad_and_jit_in_jax(backend, case):
    import jax
    import jax.numpy as jnp

    problem, w, m, expected = case

    def lower(w, m):
        target = w @ problem.k @ w.T + problem.nu * jnp.eye(5)
        return jnp.trace(m @ problem.a) + jnp.trace(jnp.linalg.inv(m) @ target)

    def outer(w):
        y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value
        return -jnp.trace(y @ problem.c @ w.T)

    close(backend, jax.grad(outer)(w), expected)
    close(backend, jax.jit(jax.grad(outer))(w), expected)


@on("numpy")
def test_grad_in_numpy(backend, case):
    problem, w, m, expected = case

    def lower(w, m):
        target = w @ problem.k @ w.T + problem.nu * np.eye(5)
        return np.trace(m @ problem.a) + np.trace(np.linalg.inv(m) @ target)

    def outer(w):
        y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value
        return -np.trace(y @ problem.c @ w.T)

    close(backend, nf.grad(outer)(w), expected)
    value, found = nf.value_and_grad(outer)(w)
    close(backend, found, expected)
    assert float(value) == pytest.approx(float(problem.objective(w)), rel=1e-12)


def test_grad_in_any_framework(backend, case):
    """Costs in the namespace of their arguments: one text for all."""
    problem, w, m, expected = case

    def lower(w, m):
        xp = nf.namespace(m, w)
        eye = xp.eye(5, dtype=m.dtype)
        return xp.linalg.trace(m @ problem.a) + xp.linalg.trace(
            xp.linalg.inv(m) @ (w @ problem.k @ w.mT + problem.nu * eye)
        )

    def outer(w):
        y = nf.solve(nf.Argmin(lower, nf.SPD(5)), w, init=m).value
        return -nf.namespace(y).sum((y @ problem.c) * w)

    close(backend, backend.jit(nf.grad(outer))(w), expected)


def test_the_record(backend, like64, rng):
    """Value, residual, steps and converged, as arrays of the framework, also from a compiled function."""
    problem = smallest_eigenvector(like=like64, n=5)
    x, y = problem.start(rng)
    found = backend.jit(lambda x, y: nf.solve(problem.problem().lower, x, init=y))(x, y)
    close(backend, found.value, backend.to_numpy(problem.solution(x)), 1e-11)
    assert all(backend.owns(part) for part in found)
    assert tuple(part.shape for part in found[1:]) == ((), (), ())
    assert bool(found.converged) and 1 <= int(found.steps) < 10
    assert float(found.residual) < 1e-11


# -- what the derivative is of -----------------------------------------------------------------------------


@on("numpy", "array_api_strict", "torch")
def test_the_start_has_no_derivative(backend, case):
    problem, w, m, _ = case
    lower = problem.problem().lower
    found = nf.grad(lambda m: problem.upper(w, nf.solve(lower, w, init=m).value))(m)
    assert float(backend.xp.max(backend.xp.abs(found))) == 0


@on("numpy", "array_api_strict", "torch")
def test_only_the_value_has_a_derivative(backend, case):
    problem, w, m, _ = case
    found = nf.grad(lambda w: nf.solve(problem.problem().lower, w, init=m).residual * 1)(w)
    assert float(backend.xp.max(backend.xp.abs(found))) == 0


def test_an_unused_outer_variable_gets_zeros(backend, xp, like64, rng):
    problem = smallest_eigenvector(like=like64, n=5)
    x, y = problem.start(rng)
    spare = {"spare": backend.noise(rng, (2,), like=x)}
    lower = nf.Argmin(lambda s, x, y: problem.lower(x, y), nf.Sphere(5))

    def outer(spare, x):
        return problem.upper(x, nf.solve(lower, spare, x, init=y).value)

    zeros, found = backend.jit(nf.grad(outer, argnums=(0, 1)))(spare, x)
    close(backend, zeros["spare"], np.zeros(2))
    close(backend, found, backend.to_numpy(problem.euclidean_gradient(x)))


def test_integers_among_the_outer_variables(backend, xp, like64, rng):
    """Indices into data: constants of the derivative, whatever the framework says of their gradients."""
    data, x = backend.noise(rng, (6, 3), like=like64), backend.noise(rng, (3,), like=like64)
    rows = xp.asarray([4, 0, 4])
    lower = nf.Argmin(
        lambda rows, x, y: nf.namespace(x, y).sum((y - nf.namespace(x, y).take(data, rows, axis=0) @ x) ** 2),
        nf.Euclidean(3),
    )
    zeros = xp.zeros_like(x)

    def outer(x):
        return xp_sum(nf.solve(lower, rows, x, init=zeros).value ** 2)

    picked = backend.to_numpy(data)[[4, 0, 4]]
    expected = 2 * picked.T @ picked @ backend.to_numpy(x)
    close(backend, backend.jit(nf.grad(outer))(x), expected)


def xp_sum(a):
    return nf.namespace(a).sum(a)


# -- trees -------------------------------------------------------------------------------------------------


def tree_problem(backend, like, rng):
    """A lower level over Stiefel × Euclidean × SPD, all parts coupled, its outer variable a tree too."""
    manifold = nf.Product({"q": nf.Stiefel(4, 2), "b": nf.Euclidean(3), "s": nf.SPD(2)})
    a, mix = backend.noise(rng, (4, 4), like=like), backend.noise(rng, (3, 2), like=like)
    base = a + a.mT + backend.asarray(np.diag([1.0, 4.0, 8.0, 12.0]) * 4, like=like)
    weights = backend.asarray(np.array([2.0, 1.0]), like=like)

    def lower(x, y):
        q, b, s = y["q"], y["b"], y["s"]
        xp = nf.namespace(b, x["u"], x["pair"][0])
        u, (h, k) = x["u"], x["pair"]
        trace = xp.sum(q * (base @ q) * weights) + xp.sum(q * (h[:, None] * q))
        spring = xp.sum((b - u - 0.3 * (mix @ (s @ xp.ones_like(weights)))) ** 2)
        return (
            trace
            + spring
            + xp.sum(s * s)
            + xp.sum(xp.linalg.inv(s)) * (2 + k**2)
            + xp.sum(xp.linalg.inv(s) * (q.mT @ (base @ q))) / 10
        )

    def upper(x, y):
        xp = nf.namespace(y["b"], x["u"])
        return xp.sum(y["q"][0, :] * weights) * xp.sum(y["b"] ** 2) + xp.sum(y["s"] ** 3) + xp.sum(x["u"] ** 2)

    x = {"u": backend.noise(rng, (3,), like=like), "pair": (backend.noise(rng, (4,), like=like), like + 0.7)}
    return upper, nf.Argmin(lower, manifold), x, manifold.random_point(rng, like=like)


def test_trees_below_and_above(backend, xp, like64, rng):
    upper, lower, x, y0 = tree_problem(backend, like64, rng)
    y0 = nf.solve(lower, x, init=y0).value if backend.name != "jax" else y0

    def outer(x):
        return upper(x, nf.solve(lower, x, init=y0).value)

    found = backend.jit(nf.grad(outer))(x)
    assert set(found) == {"u", "pair"} and isinstance(found["pair"], tuple)
    if backend.name == "jax":  # the same numbers, for less time in the compiler
        backend, like64, rng = nf.get_backend("numpy"), np.zeros(()), fresh(rng)
        found = {"u": np.asarray(found["u"]), "pair": tuple(np.asarray(p) for p in found["pair"])}
        upper, lower, x, y0 = tree_problem(backend, like64, rng)
        y0 = nf.solve(lower, x, init=y0).value
    h = 1e-3
    for name, pick in (("u", lambda t: t["u"]), ("h", lambda t: t["pair"][0]), ("k", lambda t: t["pair"][1])):
        step = backend.noise(np.random.default_rng(3), tuple(pick(x).shape), like=pick(x))
        values = [float(outer_at(upper, lower, y0, moved(x, name, t * h * step))) for t in (-2, -1, 1, 2)]
        slope = (8 * (values[2] - values[1]) - (values[3] - values[0])) / (12 * h)
        assert float(xp_sum(pick(found) * step)) == pytest.approx(slope, rel=1e-8)


def fresh(rng):
    """A generator in the state that `rng` was born in."""
    return np.random.Generator(type(rng.bit_generator)(rng.bit_generator.seed_seq))


def outer_at(upper, lower, y0, x):
    return upper(x, nf.solve(lower, x, init=y0, solver=nf.TrustRegion(tol=1e-14)).value)


def moved(x, name, step):
    """`x` with one of its leaves moved."""
    u, (h, k) = x["u"], x["pair"]
    return {
        "u": u + step if name == "u" else u,
        "pair": (h + step if name == "h" else h, k + step if name == "k" else k),
    }


# -- complex numbers ---------------------------------------------------------------------------------------


def test_complex_arrays(backend, like64, rng):
    """½ yᴴHy - Re xᴴy: the gradient of Re cᴴy*(x) points along steepest ascent, H⁻¹c."""
    a, c, x = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in ((3, 3), 3, 3))
    matrix = a @ a.conj().T + np.eye(3)
    h, target, start = (backend.asarray(values) for values in (matrix, c, x))

    def real_dot(u, v):
        xp = nf.namespace(u, v)
        return xp.sum(xp.real(xp.conj(u) * v))

    level = nf.Argmin(lambda x, y: real_dot(y, h @ y) / 2 - real_dot(x, y), nf.Euclidean(3))
    found = backend.jit(nf.grad(lambda x: real_dot(target, nf.solve(level, x, init=0 * x).value)))(start)
    close(backend, found, np.linalg.solve(matrix, c), 1e-11)


# -- batches -----------------------------------------------------------------------------------------------


def test_independent_problems_are_a_loop(backend, xp, like64):
    """A cost of shape (B,); the entries need different numbers of steps."""
    problem = synthetic(like=like64, d=4, r=2, n=8)
    starts = [problem.start(np.random.default_rng(seed))[0] for seed in range(3)]
    w, eye = xp.stack(starts), xp.eye(4, dtype=like64.dtype)
    m = xp.stack([eye, 30 * eye, 1e-2 * eye])
    level = problem.problem().lower

    def outer(w):
        found = nf.solve(level, w, init=m)
        return xp_sum(problem.upper(w, found.value) ** 2), (
            found.steps,
            found.residual,
            found.converged,
            found.value,
        )

    gradient, (steps, residual, converged, y) = backend.jit(nf.grad(outer, has_aux=True))(w)
    assert tuple(residual.shape) == (3,) and backend.to_numpy(converged).all()
    assert len(set(backend.to_numpy(steps).tolist())) > 1
    close(backend, y, backend.to_numpy(problem.solution(w)), 1e-9)
    expected = 2 * problem.objective(w)[:, None, None] * problem.euclidean_gradient(w)
    close(backend, gradient, backend.to_numpy(expected), 1e-10)
    if backend.name != "jax":
        for i in range(3):
            alone = nf.solve(level, w[i, ...], init=m[i, ...])
            assert int(alone.steps) == int(steps[i])
            close(backend, y[i, ...], backend.to_numpy(alone.value), 1e-12)


@on("jax")
def test_vmap_in_jax(backend, like64):
    """Over the outer variable, with one start for all."""
    import jax

    problem = smallest_eigenvector(like=like64, n=4, p=2)
    x, y = problem.start(np.random.default_rng(1))
    points = x + 0.1 * backend.noise(np.random.default_rng(2), (3, 2), like=x)
    outer = lambda x: problem.upper(x, nf.solve(problem.problem().lower, x, init=y).value)  # noqa: E731
    close(backend, jax.jit(jax.vmap(jax.grad(outer)))(points), problem.euclidean_gradient(points))


def test_coupled_points_are_one_problem(backend, xp, like64, rng):
    """Three points under one scalar cost share every coefficient: H is (3·2)², not three times 2²."""
    a = rng.standard_normal((6, 6))
    hessian = a @ a.T + np.eye(6)
    matrix, x = backend.asarray(hessian, like=like64), backend.noise(rng, (6,), like=like64)
    level = nf.Argmin(
        lambda x, y: nf.namespace(x, y).reshape(y, (6,)) @ (matrix @ nf.namespace(x, y).reshape(y, (6,)) / 2 - x),
        nf.Euclidean(2),
    )
    zeros = xp.zeros((3, 2), dtype=x.dtype)

    def outer(x):
        found = nf.solve(level, x, init=zeros)
        return xp_sum(found.value**3), found.converged

    gradient, converged = backend.jit(nf.grad(outer, has_aux=True))(x)
    assert converged.shape == ()
    y = np.linalg.solve(hessian, backend.to_numpy(x))
    close(backend, gradient, np.linalg.solve(hessian, 3 * y**2), 1e-10)
