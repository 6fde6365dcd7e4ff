"""Fréchet means: closed forms, every derivative by an independent formula, and what has no mean."""

from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm, logm, sqrtm

import nestfold as nf
from nestfold.backends._trees import tree_map
from nestfold.hypergrad import Karcher, frechet_mean, frechet_variance
from nestfold.testing.cases import CASES


def arrays(backend, *values) -> Any:
    found = [backend.asarray(np.asarray(value)) for value in values]
    return found if len(found) > 1 else found[0]


def spd(rng, *shape) -> Any:
    return nf.SPD(shape[-1]).random_point(rng, shape[:-2], like=np.zeros(()))


def cap(rng, *shape, radius=1.0):
    """Points of a sphere within that distance of the last unit vector."""
    sphere, pole = nf.Sphere(shape[-1]), np.eye(shape[-1])[-1]
    u = sphere.project(pole, rng.standard_normal(shape))
    size = np.linalg.norm(u, axis=-1, keepdims=True)
    return sphere.exp(pole, u / size * radius * rng.random(size.shape))


def worst(backend, found, wanted):
    found, wanted = backend.to_numpy(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return np.max(np.abs(found - wanted)) / max(1.0, np.max(np.abs(wanted)))


def on(*names):
    return pytest.mark.parametrize("backend", names, indirect=True)


#: JAX compiles each derivative for itself: it has its own tests below
quick = on("numpy", "array_api_strict", "torch")


# -- closed forms -----------------------------------------------------------------------------------------


def test_flat_space_takes_one_step(backend, rng):
    x, w = 10 * rng.standard_normal((7, 4, 2)), rng.random(7)
    found = frechet_mean(nf.Euclidean(2), *arrays(backend, x, w))
    assert worst(backend, found.value, np.average(x, axis=0, weights=w)) < 1e-14
    assert (backend.to_numpy(found.steps) == 1).all() and backend.to_numpy(found.converged).all()
    assert found.converged.shape == found.residual.shape == found.steps.shape == (4,)
    variance = frechet_variance(nf.Euclidean(2), *arrays(backend, x, w))
    mean = np.average(x, axis=0, weights=w)
    wanted = np.average(np.sum((x - mean) ** 2, axis=-1), axis=0, weights=w)
    assert worst(backend, variance, wanted) < 1e-14


def test_flat_space_far_from_the_origin(rng):
    """Where coordinates are rounded to 1e-8, no gradient of 1e-12 can be asked for."""
    x = 1e8 + rng.standard_normal((5, 3))
    found = frechet_mean(nf.Euclidean(3), x)
    assert found.converged and np.max(np.abs(found.value - x.mean(axis=0))) < 3e-8


@quick
def test_two_matrices(backend, rng):
    """The mean with the weights 1 - t, t is the geodesic at t: a (a⁻¹ b)^t."""
    a, b = spd(rng, 4, 4), spd(rng, 4, 4)
    root: Any = sqrtm(a)
    inverse = np.linalg.inv(root)
    log: Any = logm(inverse @ b @ inverse)
    for t in (0.5, 0.2):
        wanted = root @ expm(t * log) @ root
        found = frechet_mean(nf.SPD(4), *arrays(backend, np.stack([a, b]), np.array([1 - t, t])))
        assert worst(backend, found.value, wanted) < 1e-13


@quick
def test_matrices_that_commute(backend, rng):
    """exp Σ w log xᵢ."""
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    logs, w = rng.standard_normal((6, 5)), rng.random(6)
    x = q @ (np.exp(logs)[:, :, None] * q.T)
    wanted = q @ (np.exp(np.average(logs, axis=0, weights=w))[:, None] * q.T)
    found = frechet_mean(nf.SPD(5), *arrays(backend, x, w))
    assert worst(backend, found.value, wanted) < 1e-13


def test_congruence(rng):
    """The mean of a xᵢ aᵀ is a mean aᵀ, also where a is ill-conditioned."""
    x, a = spd(rng, 5, 3, 3), np.diag([1e-3, 1.0, 1e3]) @ rng.standard_normal((3, 3))
    mean = frechet_mean(nf.SPD(3), x).value
    moved = frechet_mean(nf.SPD(3), a @ x @ a.T)
    assert moved.converged
    inverse = np.linalg.inv(a)
    assert np.max(np.abs(inverse @ moved.value @ inverse.T - mean)) < 1e-9


@quick
def test_symmetric_configurations_on_the_sphere(backend):
    """Vertices of a regular polygon around the pole; with weights, points of one great circle as on a line."""
    angles = 2 * np.pi * np.arange(5) / 5 + 0.3
    x = np.stack([0.8 * np.cos(angles), 0.8 * np.sin(angles), np.full(5, 0.6)], axis=-1)
    found = frechet_mean(nf.Sphere(3), arrays(backend, x))
    assert worst(backend, found.value, [0, 0, 1]) < 1e-13
    angles, w = np.array([0.1, 0.5, 1.4, -0.6]), np.array([1.0, 2.0, 0.5, 3.0])
    x = np.stack([np.cos(angles), 0 * angles, np.sin(angles)], axis=-1)
    mean = np.average(angles, weights=w)
    found = frechet_mean(nf.Sphere(3), *arrays(backend, x, w))
    assert worst(backend, found.value, [np.cos(mean), 0, np.sin(mean)]) < 1e-13


def test_circle(rng):
    """On an arc less than half of it the circle is a line; half of it and more, the sum of logarithms vanishes."""
    angles = rng.uniform(-1.5, 1.5, 9)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    mean = frechet_mean(nf.Sphere(2), x).value
    assert abs(np.arctan2(mean[1], mean[0]) - angles.mean()) < 1e-14
    angles = np.array([0.0, 2.0, -2.5])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    found = frechet_mean(nf.Sphere(2), x)
    assert found.converged
    assert np.max(np.abs(nf.Sphere(2).log(found.value, x).sum(axis=0))) < 1e-12


@quick
def test_trees_batches_and_axes(backend, rng):
    """The mean of a product is that of the factors; each entry of a batch is a problem; `axis` finds the sample."""
    manifold = nf.Product({"a": nf.SPD(2), "b": nf.Sphere(3)})
    a, b, w = spd(rng, 3, 5, 2, 2), cap(rng, 3, 5, 3), rng.random((3, 5))
    points = {"a": arrays(backend, a), "b": arrays(backend, b)}
    found = frechet_mean(manifold, points, arrays(backend, w), axis=1)
    again = frechet_mean(manifold, points, arrays(backend, w), axis=-1)
    for i in range(3):
        one = frechet_mean(nf.SPD(2), a[i], w[i]).value
        two = frechet_mean(nf.Sphere(3), b[i], w[i]).value
        assert worst(backend, found.value["a"][i, ...], one) < 1e-12
        assert worst(backend, found.value["b"][i, ...], two) < 1e-12
        assert worst(backend, again.value["b"][i, ...], two) < 1e-12
    assert found.converged.shape == (3,) and backend.to_numpy(found.converged).all()
    variance = frechet_variance(manifold, points, arrays(backend, w), axis=1)
    parts = frechet_variance(nf.SPD(2), a, w, axis=1) + frechet_variance(nf.Sphere(3), b, w, axis=1)
    assert worst(backend, variance, parts) < 1e-12


def test_one_point_equal_points_and_no_batch_entries(rng):
    x = spd(rng, 3, 3)
    for sample in (x[None], np.stack([x] * 4)):
        found = frechet_mean(nf.SPD(3), sample)
        assert found.converged and np.max(np.abs(found.value - x)) < 1e-14
        assert frechet_variance(nf.SPD(3), sample) < 1e-28
    found = frechet_mean(nf.SPD(3), np.zeros((4, 0, 3, 3)) + x)
    assert found.value.shape == (0, 3, 3) and found.converged.shape == (0,)


def test_scale_of_weights_does_not_matter(rng):
    x, w = spd(rng, 6, 3, 3), rng.random(6)
    mean = frechet_mean(nf.SPD(3), x, w).value
    for factor in (1e-200, 7.0, 1e200):
        assert np.max(np.abs(frechet_mean(nf.SPD(3), x, factor * w).value - mean)) < 1e-13
    counts = np.array([2, 1, 0, 0, 1, 3])
    repeated = frechet_mean(nf.SPD(3), np.repeat(x, counts, axis=0)).value
    assert np.max(np.abs(frechet_mean(nf.SPD(3), x, counts).value - repeated)) < 1e-13


def test_spread_out_samples(rng):
    """Eigenvalues over nine orders of magnitude: where unit steps overshoot, the trust region ends the search."""
    q = np.linalg.qr(rng.standard_normal((12, 3, 3)))[0]
    x = q @ (np.exp(rng.uniform(-5, 5, (12, 3)))[..., None] * q.mT)
    x = 0.5 * (x + x.mT)
    found = frechet_mean(nf.SPD(3), x)
    assert found.converged
    rest = nf.SPD(3).log(found.value, x).mean(axis=0)
    assert nf.SPD(3).norm(found.value, rest) < 1e-8


@quick
def test_precision_stays(backend, rng):
    x, w = arrays(backend, spd(rng, 5, 3, 3).astype(np.float32), np.arange(1.0, 6.0))
    found = frechet_mean(nf.SPD(3), x, w)
    assert found.value.dtype == x.dtype and found.residual.dtype == x.dtype
    assert backend.to_numpy(found.converged)


@quick
def test_complex_points(backend, rng):
    """The sphere of ℂⁿ is that of ℝ²ⁿ."""
    real = cap(rng, 6, 4)
    x = real[:, 0::2] + 1j * real[:, 1::2]
    mean = backend.to_numpy(frechet_mean(nf.Sphere(2), arrays(backend, x)).value)
    wanted = frechet_mean(nf.Sphere(4), real).value
    assert np.max(np.abs(mean - (wanted[0::2] + 1j * wanted[1::2]))) < 1e-13


def test_any_solver_and_start(rng):
    x = cap(rng, 6, 3)
    wanted = frechet_mean(nf.Sphere(3), x).value
    for solver in (nf.TrustRegion(), nf.GradientDescent(), Karcher(tol=1e-10)):
        found = frechet_mean(nf.Sphere(3), x, init=x[3], solver=solver)
        assert found.converged and np.max(np.abs(found.value - wanted)) < 1e-9
    assert frechet_mean(nf.Sphere(3), x, init=wanted).steps == 0
    batch = frechet_mean(nf.Sphere(3), np.stack([x, x[::-1]], axis=1), init=wanted)
    assert batch.steps.tolist() == [0, 0]


# -- derivatives ------------------------------------------------------------------------------------------


def test_derivative_in_flat_space(rng):
    """∂mean/∂xᵢ = wᵢ/Σw, ∂mean/∂wᵢ = (xᵢ - mean)/Σw, ∂²mean/∂wᵢ∂wⱼ = -(xᵢ + xⱼ - 2 mean)/(Σw)²."""
    x, w = rng.standard_normal(5), rng.random(5)

    def mean(x, w):
        return frechet_mean(nf.Euclidean(), x, w).value

    m, total = np.average(x, weights=w), w.sum()
    assert np.max(np.abs(nf.grad(mean)(x, w) - w / total)) < 1e-13
    assert np.max(np.abs(nf.grad(mean, 1)(x, w) - (x - m) / total)) < 1e-13
    second = nf.hessian(mean, 1)(x, w)
    assert np.max(np.abs(second + (x[:, None] + x - 2 * m) / total**2)) < 1e-12
    variance = nf.grad(lambda w: frechet_variance(nf.Euclidean(), x, w))(w)
    assert np.max(np.abs(variance - ((x - m) ** 2 - np.average((x - m) ** 2, weights=w)) / total)) < 1e-13


@quick
def test_derivatives_on_the_line_of_positive_numbers(backend):
    """1 × 1 matrices: the weighted geometric mean, with all its derivatives."""
    x, w = arrays(backend, np.array([0.5, 2.0, 3.0])[:, None, None], np.array([1.0, 2.0, 0.5]))

    def mean(x):
        return frechet_mean(nf.SPD(1), x, w).value[0, 0]

    def formula(x):
        xp = nf.namespace(x)
        return xp.exp(xp.sum(w * xp.log(x[:, 0, 0])) / xp.sum(w))

    def along(f):
        def slope(t):
            return f(x + t * direction)

        return [nf.grad(slope)(zero), nf.grad(nf.grad(slope))(zero), nf.grad(nf.grad(nf.grad(slope)))(zero)]

    direction, zero = arrays(backend, np.array([0.3, -0.5, 0.7])[:, None, None], np.array(0.0))
    for found, wanted in zip(along(mean), along(formula), strict=True):
        assert worst(backend, found, backend.to_numpy(wanted)) < 1e-11


def sphere_jacobian(x, w, mean):
    """∂mean/∂w by the implicit function theorem, with the Hessian of dist²/2 in closed form.

    Hess dist²/2 (p) = ê êᵀ + θ cot θ (P - ê êᵀ), ê the direction of log(p, x): Karcher 1977, appendix.
    """
    sphere, n = nf.Sphere(len(mean)), len(mean)
    normal = np.outer(mean, mean)
    total, hessian = w.sum(), normal.copy()
    for a, b in zip(w, x, strict=True):
        log = sphere.log(mean, b)
        theta = np.linalg.norm(log)
        e = np.outer(log, log) / theta**2
        hessian += a / total * (e + theta / np.tan(theta) * (np.eye(n) - normal - e))
    return np.stack([np.linalg.solve(hessian, sphere.log(mean, b)) / total for b in x], axis=-1)


@quick
def test_derivative_in_the_weights_on_the_sphere(backend, rng):
    x, w = cap(rng, 6, 3, radius=1.3), rng.random(6) + 0.1
    points = arrays(backend, x)

    def mean(w):
        return frechet_mean(nf.Sphere(3), points, w, estimator=nf.Implicit(nf.CG(tol=1e-14))).value

    found = nf.jacobian(mean)(arrays(backend, w))
    wanted = sphere_jacobian(x, w, frechet_mean(nf.Sphere(3), x, w).value)
    assert worst(backend, found, wanted) < 1e-12


def test_derivative_in_the_points_by_equivariance(rng):
    """For xᵢ = exp(tΩ) x⁰ᵢ the mean turns along: ṁ = Ω m, m̈ = Ω² m."""
    x, skew = cap(rng, 5, 3), np.array([[0, -0.4, 0.2], [0.4, 0, 0.7], [-0.2, -0.7, 0]])
    turn = [x, x @ skew.T, x @ (skew @ skew).T]

    def mean(t):
        moved = turn[0] + t * turn[1] + 0.5 * t**2 * turn[2]
        moved = moved / np.sqrt(np.sum(moved * moved, axis=-1, keepdims=True))  # to second order in t
        return frechet_mean(nf.Sphere(3), moved).value

    def first(t):
        return nf.jvp(mean, (t,), (np.ones(()),))[1]

    m, zero = mean(np.zeros(())), np.zeros(())
    assert np.max(np.abs(first(zero) - skew @ m)) < 1e-12
    assert np.max(np.abs(nf.jvp(first, (zero,), (np.ones(()),))[1] - skew @ skew @ m)) < 1e-11


exact = nf.Implicit(nf.CG(tol=1e-14))


@quick
def test_derivative_on_spd_against_differences(backend, rng):
    x, v, w = spd(rng, 4, 3, 3), rng.standard_normal((4, 3, 3)), rng.random(4)
    v, a = v + v.mT, rng.standard_normal((3, 3))
    points, direction, weights, probe = arrays(backend, x, v, w, a)

    def cost(t):
        mean = frechet_mean(nf.SPD(3), points + t * direction, weights, estimator=exact).value
        return nf.namespace(mean).sum(probe * mean)

    def plain(t):
        return np.sum(a * frechet_mean(nf.SPD(3), x + t * v, w).value)

    h = 2e-4
    difference = np.dot([-1, 9, -45, 45, -9, 1], [plain(k * h) for k in (-3, -2, -1, 1, 2, 3)]) / (60 * h)
    found = backend.to_numpy(nf.grad(cost)(arrays(backend, np.zeros(()))))
    assert abs(found - difference) < 1e-8 * abs(difference)


def test_backward_in_torch(rng):
    import torch

    def cost(x, w):
        return nf.namespace(x).sum(frechet_mean(nf.SPD(3), x, w).value[0, ...])

    given = [spd(rng, 4, 3, 3), rng.random(4)]
    tensors = [torch.tensor(a, requires_grad=True) for a in given]
    found = torch.autograd.grad(cost(*tensors), tensors)
    for a, b in zip(found, nf.grad(cost, (0, 1))(*given), strict=True):
        assert np.max(np.abs(a.numpy() - b)) < 1e-10


def test_compiled_in_jax(rng):
    """All at once: the manifold, the points and the weights as arguments of a compiled gradient."""
    import jax

    x, w, c = 0.5 * rng.uniform(-1, 1, (4, 2)), rng.random(4), np.asarray(0.7)

    def cost(ball, x, w):
        return frechet_mean(ball, x, w).value[0]

    with jax.enable_x64(True):
        arguments = nf.PoincareBall(2, jax.numpy.asarray(c)), jax.numpy.asarray(x), jax.numpy.asarray(w)
        found = jax.jit(jax.grad(cost, (0, 1, 2)))(*arguments)
    wanted = nf.grad(lambda c, x, w: cost(nf.PoincareBall(2, c), x, w), (0, 1, 2))(c, x, w)
    for a, b in zip((found[0].c, *found[1:]), wanted, strict=True):
        assert np.max(np.abs(np.asarray(a) - b)) < 1e-11


def test_unrolled(rng):
    """The other way to a derivative, through the steps of a descent, ends at the same."""
    x, w, a = spd(rng, 4, 3, 3), rng.random(4), rng.standard_normal((3, 3))

    def cost(w, estimator):
        return np.sum(a * frechet_mean(nf.SPD(3), x, w, estimator=estimator).value)

    found, wanted = (nf.grad(cost)(w, estimator) for estimator in (nf.Unrolled(40), exact))
    assert np.max(np.abs(found - wanted)) < 1e-11


@quick
def test_derivative_in_the_curvature(backend, rng):
    """A batch of balls, each with its own curvature; the derivative against differences."""
    x, c = 0.5 * rng.uniform(-1, 1, (5, 2, 2)), np.array([0.5, 1.3])

    def mean(c, x=x):
        return frechet_mean(nf.PoincareBall(2, c), x, estimator=exact).value

    h = 1e-3
    difference = np.tensordot([-1, 9, -45, 45, -9, 1], [mean(c + k * h) for k in (-3, -2, -1, 1, 2, 3)], 1) / (60 * h)
    points, direction = arrays(backend, x, np.ones(2))
    found = nf.jvp(lambda c: mean(c, points), (arrays(backend, c),), (direction,))[1]
    assert worst(backend, found, difference) < 1e-10


def test_derivatives_where_the_manifold_moves(rng):
    """The hyperboloid of curvature -c is another set for each c: the mean moves with it, as that of the ball does."""
    x = 0.4 * rng.uniform(-1, 1, (5, 2))

    def lifted(c):  # the map of the ball to the hyperboloid, and the mean's image back
        b = 1 - c * np.sum(x * x, axis=-1, keepdims=True)
        points = np.concatenate([(2 - b) / (b * np.sqrt(c)), 2 * x / b], axis=-1)
        mean = frechet_mean(nf.Lorentz(2, c), points, estimator=exact).value
        return np.sum(mean[1:] / (1 + np.sqrt(c) * mean[0]))

    def plain(c):
        return np.sum(frechet_mean(nf.PoincareBall(2, c), x, estimator=exact).value)

    c = np.array(0.7)
    assert abs(lifted(c) - plain(c)) < 1e-13
    assert abs(nf.grad(lifted)(c) - nf.grad(plain)(c)) < 1e-12
    assert abs(nf.grad(nf.grad(lifted))(c) - nf.grad(nf.grad(plain))(c)) < 1e-10


LOGARITHMIC = [name for name, case in CASES.items() if isinstance(case.make(case.like(np.zeros(()))), nf.Logarithmic)]


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_on_every_manifold(name, rng):
    """Σ wᵢ log(p, xᵢ) = 0 at the mean p, and with the Hessian B of Σ wᵢ dist²(p, xᵢ)/2, B ṗ = Σ ẇᵢ log(p, xᵢ)."""
    case = CASES[name]
    like = case.like(np.zeros(()))
    manifold: Any = case.make(like)
    x = manifold.random_point(rng, (), like=like)
    tangents = manifold.random_tangent(rng, tree_map(lambda a: np.broadcast_to(a, (4, *a.shape)), x))
    points = manifold.exp(x, manifold.scale(0.5 * case.reach / manifold.norm(x, tangents), tangents))
    w = rng.random(4) + 0.2
    w = w / w.sum()

    def towards(p, w):
        logs = manifold.scale(w, manifold.log(p, points))
        return tree_map(lambda a: np.sum(a, axis=0), logs)

    found = frechet_mean(manifold, points, w, estimator=exact)
    assert found.converged and found.steps < 30
    p = found.value
    assert manifold.norm(p, towards(p, w)) < 1e-11
    direction = rng.standard_normal(4)
    direction -= direction.sum() * w
    p, moved = nf.jvp(lambda w: frechet_mean(manifold, points, w, estimator=exact).value, (w,), (direction,))
    bend = manifold.hessian(lambda q: 0.5 * np.sum(w * manifold.squared_dist(q, points)), p, manifold.project(p, moved))
    rest = tree_map(lambda a, b: a - b, bend, towards(p, direction))
    assert manifold.norm(p, rest) < 1e-9 * (1 + manifold.norm(p, bend))


# -- no mean, and bad input ---------------------------------------------------------------------------------


def test_antipodes_have_no_mean():
    """Every point of the equator is one; at the start one sample has no logarithm."""
    x = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    with pytest.warns(nf.ConvergenceWarning):
        found = frechet_mean(nf.Sphere(3), x)
    assert not found.converged and np.isfinite(found.value).all()


def test_a_start_opposite_to_a_sample(rng):
    """x₁ = -x₂, but the third point makes the mean unique: it lies there."""
    x = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = frechet_mean(nf.Sphere(3), x)
    assert found.converged and np.max(np.abs(found.value - x[2])) < 1e-12


def test_what_is_refused(backend, rng):
    x = spd(rng, 4, 2, 2)
    points = arrays(backend, x)
    for w, message in (
        ([1.0, -1e-3, 1.0, 1.0], "negative"),
        ([0.0, 0.0, 0.0, 0.0], "all of a sample 0"),
        ([1.0, np.nan, 1.0, 1.0], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            frechet_mean(nf.SPD(2), points, arrays(backend, np.array(w)))
    with pytest.raises(nf.ShapeError, match=r"weights have shape \(3,\)"):
        frechet_mean(nf.SPD(2), points, arrays(backend, np.ones(3)))
    with pytest.raises(nf.DTypeError, match="real"):
        frechet_mean(nf.SPD(2), points, arrays(backend, np.ones(4) + 0j))
    with pytest.raises(nf.DTypeError, match="weights must be an array"):
        frechet_mean(nf.SPD(2), points, [1.0, 2.0, 1.0, 1.0])
    with pytest.raises(nf.ShapeError, match="empty"):
        frechet_mean(nf.SPD(2), points[:0, ...])
    with pytest.raises(nf.ShapeError, match="axis 1"):
        frechet_mean(nf.SPD(2), points, axis=1)
    with pytest.raises(nf.ShapeError, match="axis 0"):
        frechet_mean(nf.SPD(2), points[0, ...])
    with pytest.raises(TypeError, match="Logarithmic"):
        frechet_mean(nf.FixedRank(3, 2, 1), points)  # type: ignore[arg-type]
    with pytest.raises(nf.NotOnManifoldError, match="points"):
        frechet_mean(nf.SPD(2), -points)
