"""Hyperbolic and constant-curvature spaces against mpmath, against each other, and far out."""

import mpmath
import numpy as np
import pytest

from nestfold.backends import namespace
from nestfold.manifolds import (
    Lorentz,
    PoincareBall,
    SiegelUpperHalfSpace,
    Sphere,
    Stereographic,
    ball_to_lorentz,
    lorentz_to_ball,
)
from nestfold.manifolds import _smooth as smooth

DIGITS = 200
#: what goes through many cases runs where nothing is compiled
eager = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(DIGITS):
        yield


# -- references -----------------------------------------------------------------------------------------
def exact(a):
    return [mpmath.mpf(float(t)) for t in a]


def times(t, a):
    return [t * p for p in a]


def minus(a, b):
    return [p - q for p, q in zip(a, b, strict=True)]


def plain(a, b):
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def size(a):
    return mpmath.sqrt(plain(a, a))


def moebius(kappa, x, y):
    """The sum of Ungar 2008."""
    xy, xx, yy = plain(x, y), plain(x, x), plain(y, y)
    bottom = 1 - 2 * kappa * xy + kappa**2 * xx * yy
    return [((1 - 2 * kappa * xy - kappa * yy) * p + (1 + kappa * xx) * q) / bottom for p, q in zip(x, y, strict=True)]


def conformal(kappa, x):
    return 2 / (1 + kappa * plain(x, x))


def ratio(function, kappa, r):
    """function(√κ r)/(√κ r) for tan or atan, also for κ < 0."""
    root = mpmath.sqrt(mpmath.mpc(kappa)) * r
    return mpmath.mpf(1) if root == 0 else mpmath.re(function(root) / root)


def true_dist(kappa, x, y):
    w = size(moebius(kappa, times(-1, x), y))
    return 2 * w * ratio(mpmath.atan, kappa, w)


def true_exp(kappa, x, u):
    half = times(conformal(kappa, x) / 2, u)
    return moebius(kappa, x, times(ratio(mpmath.tan, kappa, size(half)), half))


def true_log(kappa, x, y):
    w = moebius(kappa, times(-1, x), y)
    return times(2 / conformal(kappa, x) * ratio(mpmath.atan, kappa, size(w)), w)


def true_transport(kappa, x, y, u):
    """(λₓ/λ_y) gyr[y, -x] u by the definition -(a ⊕ b) ⊕ (a ⊕ (b ⊕ u)), of a short u: gyrations are linear."""
    short, a, b = mpmath.mpf(10) ** -70, y, times(-1, x)
    turned = moebius(kappa, times(-1, moebius(kappa, a, b)), moebius(kappa, a, moebius(kappa, b, times(short, u))))
    return times(conformal(kappa, x) / conformal(kappa, y) / short, turned)


def minkowski(a, b):
    return plain(a[1:], b[1:]) - a[0] * b[0]


def lifted(c, spatial):
    return [mpmath.sqrt(1 / c + plain(spatial, spatial)), *spatial]


def tangent(x, spatial):
    return [plain(x[1:], spatial) / x[0], *spatial]


def lorentz_dist(c, x, y):
    gap = minus(x, y)
    return 2 / mpmath.sqrt(c) * mpmath.asinh(mpmath.sqrt(c * minkowski(gap, gap)) / 2)


def over(arrays, backend, like):
    return tuple(backend.asarray(a, like=like) for a in arrays)


def slope(backend, f, direction):
    """The derivative of f along a fixed direction, as a function."""
    return lambda p: backend.jvp(f, (p,), (direction,))[1]


def unit(rng, *shape):
    a = rng.standard_normal(shape)
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


# -- smooth functions -----------------------------------------------------------------------------------
def at_zero(f, value=1):
    return lambda t: mpmath.mpf(value) if t == 0 else mpmath.re(f(mpmath.sqrt(mpmath.mpc(t))))


SMOOTH = {
    "cosh √t": (smooth.cosh_sqrt, at_zero(mpmath.cosh), 1e5),
    "sinhc √t": (smooth.sinhc_sqrt, at_zero(lambda r: mpmath.sinh(r) / r), 1e5),
    "tanhc √t": (smooth.tanhc_sqrt, at_zero(lambda r: mpmath.tanh(r) / r), 1e30),
    "sech² √t": (smooth.squared_sech_sqrt, at_zero(lambda r: mpmath.sech(r) ** 2), 1e4),
    "asinh² √t": (smooth.squared_asinh_sqrt, at_zero(lambda r: mpmath.asinh(r) ** 2, 0), 1e30),
    "asinh √t/√(t(1 + t))": (
        smooth.asinh_sqrt_ratio,
        at_zero(lambda r: mpmath.asinh(r) / (r * mpmath.sqrt(1 + r * r))),
        1e30,
    ),
}
PLACES = [0.0, 1e-30, 1e-9, 1e-3, 0.1499, 0.1501, 0.299, 0.301, 0.999, 1.001, 5.0, 60.0, 1e4, 1e5, 1e10, 1e30]


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_to_third_order(backend, name):
    """In units of |f|/(1 + t)ᵏ for the k-th derivative, at once for all t."""
    function, reference, last = SMOOTH[name]
    places = [t for t in PLACES if t <= last]
    wants = []
    for t in places:
        with mpmath.workdps(150):
            h = mpmath.mpf(10) ** -30 * (1 + mpmath.mpf(t))
            wants.append([float(d) for d in mpmath.diffs(reference, mpmath.mpf(t), 3, h=h)])
    wants = np.asarray(wants)
    for dtype, limit, highest in ((np.float64, 1e-12, 1e30), (np.float32, 1e-3, 1e4)):
        kept = np.asarray(places) <= min(highest, last / 1e3 if dtype is np.float32 else last)
        t = np.asarray(places, dtype)[kept]
        one = backend.asarray(np.ones_like(t))
        orders = [lambda p: function(namespace(p), p)]
        for _ in range(3):
            orders.append(slope(backend, orders[-1], one))
        found = backend.jit(lambda p, orders=orders: [f(p) for f in orders])(backend.asarray(t))
        for order, value in enumerate(map(backend.to_numpy, found)):
            want = wants[kept, order]
            unit = np.abs(wants[kept, 0]) / (1 + t.astype(float)) ** order + np.abs(want)
            assert value.dtype == dtype
            assert (np.abs(value - want) <= limit * unit + (1e-30 if dtype is np.float32 else 0)).all(), (dtype, order)


# -- the ball -------------------------------------------------------------------------------------------
def ball_sample(rng, edge, c, dtype, count=9, n=4):
    """Points at 1 - √c|x| from `edge` down to half of it: near to each other, opposite, and anywhere; vectors."""
    first, second = unit(rng, count, n), unit(rng, count, n)
    second[::3] = -first[::3]
    second[1::3] = first[1::3] + edge * second[1::3]
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    x = ((1 - edge) * first / np.sqrt(c)).astype(dtype)
    y = ((1 - edge * rng.uniform(0.5, 1, (count, 1))) * second / np.sqrt(c)).astype(dtype)
    u = unit(rng, count, n)
    u[::2] = -first[::2]
    scale = rng.uniform(0.1, 6, (count, 1)) * (1 - c * np.sum(x.astype(float) ** 2, -1, keepdims=True)) / 2
    return x, y, (scale * u).astype(dtype)


EDGES = [(np.float64, e) for e in (0.5, 1e-3, 1e-6, 1e-9, 1e-12)] + [
    (np.float32, e) for e in (0.5, 1e-2, 1e-3, 1e-5, 3e-7)
]


@eager
@pytest.mark.parametrize(("dtype", "edge"), EDGES)
@pytest.mark.parametrize("c", [1.0, 0.25])
def test_ball_near_its_boundary(backend, rng, dtype, edge, c):
    """All errors within 10 λ eps/√c, the length of a few units of rounding in the coordinates."""
    x, y, u = ball_sample(rng, edge, c, dtype)
    m, eps, kappa = PoincareBall(4, c), float(np.finfo(dtype).eps), -mpmath.mpf(c)
    hx, hy, hu = over((x, y, u), backend, backend.asarray(np.zeros((), dtype)))
    found = [m.dist(hx, hy), m.log(hx, hy), m.exp(hx, hu), m.parallel_transport(hx, hy, hu)]
    found += [m.gradient(lambda p: m.squared_dist(p, hy), hx)]
    dist, log, end, moved, grad = (backend.to_numpy(a) for a in found)
    assert (backend.to_numpy(m.defect(m.exp(hx, hu))) == 0).all()
    for k in range(x.shape[0]):
        p, q, v = exact(x[k]), exact(y[k]), exact(u[k])
        lx, ly = conformal(kappa, p), conformal(kappa, q)
        limit = 10 * eps * max(lx, ly) / mpmath.sqrt(c)
        d, l = true_dist(kappa, p, q), true_log(kappa, p, q)
        assert abs(exact([dist[k]])[0] - d) <= limit * d
        assert lx * size(minus(exact(log[k]), l)) <= limit * (1 + d)
        assert lx * size(minus(exact(grad[k]), times(-2, l))) <= 2 * limit * (1 + d)
        target = true_exp(kappa, p, v)
        assert true_dist(kappa, exact(end[k]), target) <= 10 * eps * max(lx, conformal(kappa, target)) / mpmath.sqrt(c)
        carried = true_transport(kappa, p, q, v)
        assert ly * size(minus(exact(moved[k]), carried)) <= limit * lx * size(v)


def test_ball_transport_is_isometric_everywhere(backend, like64, rng):
    m = PoincareBall(4)
    for edge in (0.5, 1e-3, 1e-9):
        x, y, u = over(ball_sample(rng, edge, 1.0, np.float64, count=300), backend, like64)
        change = m.norm(y, m.parallel_transport(x, y, u)) / m.norm(x, u) - 1
        assert np.abs(backend.to_numpy(change)).max() < 1e-14


@eager
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ball_is_not_left_by_long_steps(backend, rng, dtype):
    m, like = PoincareBall(4, 2.0), backend.asarray(np.zeros((), dtype))
    for edge in (0.9, 0.1, 1e-3, 1e-6):
        for length in (1.0, 30.0, 1e4):
            x, _, u = over(ball_sample(rng, edge, 2.0, dtype, count=60), backend, like)
            for step in (m.exp, m.retract):
                y = step(x, length * u)
                assert (backend.to_numpy(m.defect(y)) == 0).all()
                assert np.isfinite(backend.to_numpy(m.dist(x, y))).all()
                assert np.isfinite(backend.to_numpy(m.gradient(lambda p: m.squared_dist(p, x), y))).all()  # noqa: B023


@pytest.mark.parametrize("m", [PoincareBall(2, 4.0), Stereographic(2, -4.0)])
def test_ball_defect_tells_points_from_others(backend, like64, m):
    points = backend.asarray(np.array([[0.3, 0.39], [0.5, 0.0], [0.4, 0.4], [np.nan, 0.0], [np.inf, 0.0]]), like=like64)
    defect = backend.to_numpy(m.defect(points))
    assert defect[0] == 0 and (defect[1:3] >= 1).all() and not (defect[3:] <= 1).any()


@pytest.mark.parametrize("kind", ["ball", "stereographic"])
def test_derivatives_in_the_curvature(backend, like64, rng, kind):
    """Of dist, exp and log, to second order, for a batch of curvatures, against mpmath."""
    kappas = -np.array([0.3, 1.0, 2.5]) if kind == "ball" else np.array([-0.9, 0.0, 1e-9, 1e-3, 0.7])
    count = kappas.size
    x, y, u = 0.3 * rng.standard_normal((3, count, 2))
    hx, hy, hu = over((x, y, u), backend, like64)
    parameter = backend.asarray(-kappas if kind == "ball" else kappas, like=like64)
    one = backend.xp.ones_like(parameter)
    make = (lambda p: PoincareBall(2, p)) if kind == "ball" else (lambda p: Stereographic(2, p))
    sign = -1 if kind == "ball" else 1
    functions = {
        "dist": (lambda p: make(p).dist(hx, hy), lambda k, a, b, v: [true_dist(k, a, b)]),
        "squared_dist": (lambda p: make(p).squared_dist(hx, hy), lambda k, a, b, v: [true_dist(k, a, b) ** 2]),
        "exp": (lambda p: make(p).exp(hx, hu), lambda k, a, b, v: true_exp(k, a, v)),
        "log": (lambda p: make(p).log(hx, hy), lambda k, a, b, v: true_log(k, a, b)),
        "transport": (
            lambda p: make(p).parallel_transport(hx, hy, hu),
            lambda k, a, b, v: true_transport(k, a, b, v),
        ),
    }
    for name, (f, reference) in functions.items():
        first = slope(backend, f, one)
        found = [backend.to_numpy(g(parameter)).reshape(count, -1) for g in (first, slope(backend, first, one))]
        for k in range(count):
            want = curvature_slopes(reference, float(kappas[k]), exact(x[k]), exact(y[k]), exact(u[k]))
            for order in (1, 2):
                expected = sign**order * want[order - 1]
                error = np.abs(found[order - 1][k] - expected)
                assert (error <= 2e-12 * (1 + np.abs(expected))).all(), (name, order, k)


def curvature_slopes(reference, kappa, x, y, u):
    """First and second derivative in κ, by central differences with many digits."""
    h = mpmath.mpf(10) ** -30
    before, here, after = (reference(kappa + t, x, y, u) for t in (-h, mpmath.mpf(0), h))
    first = [float((b - a) / (2 * h)) for a, b in zip(before, after, strict=True)]
    second = [float((a - 2 * p + b) / h**2) for a, p, b in zip(before, here, after, strict=True)]
    return np.array(first), np.array(second)


@eager
# -- the hyperboloid ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dtype", "reach"), [(np.float64, 1.0), (np.float64, 1e3), (np.float64, 1e6), (np.float32, 1.0), (np.float32, 1e3)]
)
@pytest.mark.parametrize("c", [1.0, 0.25])
def test_lorentz_far_from_the_origin(backend, rng, dtype, reach, c):
    """Errors within 10 √c x₀ eps, what moving a coordinate by a unit of rounding does; distances above 1 to 3 eps."""
    count, n = 12, 4
    first, second = unit(rng, count, n), unit(rng, count, n)
    second[::4] = -first[::4]
    second[1::4] = first[1::4] + second[1::4] / reach
    second[2::4] = first[2::4] * np.array([[0.5], [1 + 1e-6], [3 / reach]])
    vectors = unit(rng, count, n)
    vectors[::2] -= first[::2] * np.sum(first[::2] * vectors[::2], axis=-1, keepdims=True)
    vectors[1::2] = reach * first[1::2]
    x, y, u = (a.astype(dtype) for a in (reach * first, reach * second, vectors))
    m, eps = Lorentz(n, c), float(np.finfo(dtype).eps)
    points = [[lifted(mpmath.mpf(c), exact(s)) for s in a] for a in (x, y)]
    tangents = [tangent(p, exact(s)) for p, s in zip(points[0], u, strict=True)]
    arrays = [np.array([[float(t) for t in p] for p in a]).astype(dtype) for a in (*points, tangents)]
    hx, hy, hu = over(arrays, backend, backend.asarray(np.zeros((), dtype)))
    found = [m.dist(hx, hy), m.log(hx, hy), m.exp(hx, hu), m.parallel_transport(hx, hy, hu), m.norm(hx, hu)]
    dist, log, end, moved, norm = (backend.to_numpy(a) for a in found)
    for defect in (m.defect(m.exp(hx, 3 * hu)), m.defect(m.retract(hx, 100 * hu))):
        assert (backend.to_numpy(defect) <= 2 * eps).all()
    root = mpmath.sqrt(c)
    for k in range(count):
        p, q, v = points[0][k], points[1][k], tangents[k]
        limit = 10 * eps * root * max(p[0], q[0])
        d = lorentz_dist(mpmath.mpf(c), p, q)
        error = abs(exact([dist[k]])[0] - d)
        assert error <= limit and (d < 1 or error <= 3 * eps * d)
        length = mpmath.sqrt(minkowski(v, v))
        assert abs(exact([norm[k]])[0] - length) <= limit * length
        log_there = times(root * d / mpmath.sinh(root * d), minus(q, times(mpmath.cosh(root * d), p)))
        assert mpmath.sqrt(abs(_squared(p, minus(exact(log[k]), log_there)))) <= limit * (1 + d)
        cosh, sinhc = mpmath.cosh(root * length), mpmath.sinh(root * length) / (root * length)
        target = [cosh * a + sinhc * b for a, b in zip(p, v, strict=True)]
        off = lorentz_dist(mpmath.mpf(c), lifted(mpmath.mpf(c), exact(end[k][1:])), target)
        assert off <= 10 * eps * root * max(p[0], target[0])
        bend = c * minkowski(q, v) / (1 - c * minkowski(p, q))
        carried = [a + bend * (b + e) for a, b, e in zip(v, p, q, strict=True)]
        assert mpmath.sqrt(abs(_squared(q, minus(exact(moved[k]), carried)))) <= limit * length


def _squared(x, error):
    """⟨v, v⟩ of the tangent vector with the spatial part of an error."""
    v = tangent(x, error[1:])
    return minkowski(v, v)


@eager
def test_lorentz_stays_on_the_hyperboloid_through_many_steps(like64, backend, rng):
    m = Lorentz(3, 0.7)
    x = m.random_point(rng, (20,), like=like64)
    for _ in range(60):
        u = m.random_tangent(rng, x)
        x = m.exp(x, m.scale(0.8 / m.norm(x, u), u))
    assert backend.to_numpy(m.defect(x)).max() < 1e-15
    assert backend.to_numpy(m.dist(x, m.from_noise(0 * x))).min() > 1


def test_lorentz_defect_tells_points_from_others(backend, like64):
    m = Lorentz(1, 1.0)
    root = np.sqrt(2.0)
    points = [[root, 1.0], [-root, 1.0], [1.0, 1.0], [1 + 1e-6, 0.0], [np.inf, 0.0], [np.inf, np.inf], [np.nan, 0.0]]
    defect = backend.to_numpy(m.defect(backend.asarray(np.array(points), like=like64)))
    assert defect[0] < 1e-15 and (defect[1:3] > 0.2).all() and abs(defect[3] - 1e-6) < 1e-12
    assert not (defect[4:] <= 1).any()


# -- one model and another ------------------------------------------------------------------------------
@pytest.mark.parametrize("c", [1.0, 0.4])
def test_maps_between_ball_and_hyperboloid_are_isometries(backend, like64, rng, c):
    """Points, distances, tangent vectors, exp, log and transport; distances to the third derivative."""
    ball, lorentz = PoincareBall(3, c), Lorentz(3, c)
    x, y = (ball.random_point(rng, (5,), like=like64) for _ in range(2))
    u, v = (ball.random_tangent(rng, x) for _ in range(2))

    def there(p):
        return ball_to_lorentz(p, c)

    def push(p, a):
        return backend.jvp(there, (p,), (a,))[1]

    def same(got, want, limit=1e-13):
        np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(want), rtol=limit, atol=limit)

    mx, my, mu, mv = there(x), there(y), push(x, u), push(x, v)
    assert backend.to_numpy(lorentz.defect(mx)).max() < 1e-14
    assert backend.to_numpy(lorentz.is_tangent(mx, mu, 1e-13)).all()
    same(lorentz_to_ball(mx, c), x)
    same(lorentz.inner(mx, mu, mv), ball.inner(x, u, v))
    same(backend.jvp(lambda p: lorentz_to_ball(p, c), (mx,), (mu,))[1], u)
    same(lorentz.dist(mx, my), ball.dist(x, y))
    same(lorentz.log(mx, my), push(x, ball.log(x, y)), 1e-12)
    w = ball.scale(0.7 / ball.norm(x, u), u)
    same(lorentz.exp(mx, push(x, w)), there(ball.exp(x, w)), 1e-12)
    same(lorentz.parallel_transport(mx, my, mu), push(y, ball.parallel_transport(x, y, u)), 1e-12)
    here, away = (lambda p: ball.squared_dist(p, y)), (lambda p: lorentz.squared_dist(there(p), my))
    for _ in range(4):
        same(away(x), here(x), 1e-11)
        here, away = slope(backend, here, w), slope(backend, away, w)


def test_maps_take_a_batch_of_curvatures(like64, backend, rng):
    c = backend.asarray(np.array([0.5, 2.0]), like=like64)
    x = PoincareBall(3, c).random_point(rng, (2,), like=like64)
    y = ball_to_lorentz(x, c)
    assert backend.to_numpy(Lorentz(3, c).defect(y)).max() < 1e-14
    np.testing.assert_allclose(backend.to_numpy(lorentz_to_ball(y, c)), backend.to_numpy(x), rtol=1e-13)


def test_stereographic_of_negative_curvature_is_the_ball(backend, like64, rng):
    ball, m = PoincareBall(3, 0.8), Stereographic(3, -0.8)
    x, y = (ball.random_point(rng, (20,), like=like64) for _ in range(2))
    u = ball.random_tangent(rng, x)
    for method, args in (("dist", (x, y)), ("exp", (x, u)), ("log", (x, y)), ("parallel_transport", (x, y, u))):
        got, want = (backend.to_numpy(getattr(a, method)(*args)) for a in (m, ball))
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


def test_stereographic_without_curvature_is_flat(backend, like64, rng):
    """With λ = 2: lengths are twice those of ℝⁿ."""
    m = Stereographic(3, 0.0)
    x, y, u = over(rng.standard_normal((3, 20, 3)), backend, like64)
    wants = [2 * np.linalg.norm(backend.to_numpy(x - y), axis=-1), x + u, y - x, u, x + u]
    found = [m.dist(x, y), m.exp(x, u), m.log(x, y), m.parallel_transport(x, y, u), m.retract(x, u)]
    for got, want in zip(found, wants, strict=True):
        want = want if isinstance(want, np.ndarray) else backend.to_numpy(want)
        np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kappa", [1.0, 2.5])
def test_stereographic_of_positive_curvature_is_the_sphere(backend, like64, rng, kappa):
    """By stereographic projection onto the sphere of radius 1/√κ."""
    m, sphere, root = Stereographic(3, kappa), Sphere(4), kappa**0.5
    x, y = over(0.8 * rng.standard_normal((2, 20, 3)), backend, like64)
    u = 0.5 * m.random_tangent(rng, x)

    def there(p):
        xp = namespace(p)
        squared = kappa * xp.sum(p * p, axis=-1, keepdims=True)
        return xp.concat([2 * root * p, 1 - squared], axis=-1) / (1 + squared)

    def push(p, a):
        return backend.jvp(there, (p,), (a,))[1]

    pairs = [
        (root * m.dist(x, y), sphere.dist(there(x), there(y))),
        (push(x, m.log(x, y)), sphere.log(there(x), there(y))),
        (there(m.exp(x, u)), sphere.exp(there(x), push(x, u))),
        (push(y, m.parallel_transport(x, y, u)), sphere.parallel_transport(there(x), there(y), push(x, u))),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(want), rtol=1e-11, atol=1e-12)
    radius, (low, high) = m.injectivity_radius(x), m.curvature_bounds(x)
    np.testing.assert_allclose(backend.to_numpy(radius), np.full(20, np.pi / root), rtol=1e-15)
    assert (backend.to_numpy(low) == kappa).all() and (backend.to_numpy(high) == kappa).all()


def test_stereographic_points_are_finite(backend, like64):
    x = backend.asarray(np.array([[1e3, -1e3], [np.nan, 0.0], [np.inf, 0.0]]), like=like64)
    for kappa in (0.0, 1.0):
        defect = backend.to_numpy(Stereographic(2, kappa).defect(x))
        assert defect[0] == 0 and not np.isfinite(defect[1:]).any()


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-8, 1e-4])
def test_stereographic_of_nearly_opposite_points(backend, like64, off):
    """Where D cancels, the distance keeps its digits."""
    x = np.array([1.3, -0.4, 0.2])
    y = -x / (x @ x) + off * np.array([1.0, 2.0, -1.0])
    m = Stereographic(3, 1.0)
    found = float(m.dist(*over((x, y), backend, like64)))
    assert abs(found - float(true_dist(mpmath.mpf(1), exact(x), exact(y)))) < 4e-15


# -- the Siegel upper half space ------------------------------------------------------------------------
def siegel_sample(backend, like64, rng, n, count=4):
    m, like = SiegelUpperHalfSpace(n), backend.asarray(np.zeros((), np.complex128))
    return m, *(m.random_point(rng, (count,), like=like) for _ in range(2))


def test_siegel_distance_is_that_of_the_cross_ratio(backend, like64, rng):
    """Siegel 1943: Σ (2 artanh √r)² over the eigenvalues r of (z - w)(z - w̄)⁻¹(z̄ - w̄)(z̄ - w)⁻¹."""
    m, x, y = siegel_sample(backend, like64, rng, 3)
    z, w = (backend.to_numpy(a) for a in (x, y))
    ratio = (z - w) @ np.linalg.inv(z - w.conj()) @ (z.conj() - w.conj()) @ np.linalg.inv(z.conj() - w)
    want = np.sum((2 * np.arctanh(np.sqrt(np.linalg.eigvals(ratio).real))) ** 2, axis=-1)
    np.testing.assert_allclose(backend.to_numpy(m.squared_dist(x, y)), want, rtol=1e-11)


def test_siegel_inversion_is_an_isometry(backend, like64, rng):
    """Z ↦ -Z⁻¹, the symplectic map that the formulas do not show."""
    m, x, y = siegel_sample(backend, like64, rng, 2)
    u = m.random_tangent(rng, x)

    def there(z):
        return -namespace(z).linalg.inv(z)

    px, pu = backend.jvp(there, (x,), (u,))
    pairs = [
        (m.dist(px, there(y)), m.dist(x, y)),
        (m.inner(px, pu, pu), m.inner(x, u, u)),
        (m.log(px, there(y)), backend.jvp(there, (x,), (m.log(x, y),))[1]),
        (m.parallel_transport(px, there(y), pu), backend.jvp(there, (y,), (m.parallel_transport(x, y, u),))[1]),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(want), rtol=1e-11, atol=1e-11)


def test_siegel_half_plane_is_the_hyperbolic_plane(backend, like64, rng):
    """N = 1 is the disk by (z - i)/(z + i)."""
    m, x, y = siegel_sample(backend, like64, rng, 1)
    disk = []
    for z in (x, y):
        z = backend.to_numpy(z)[:, 0, 0]
        w = (z - 1j) / (z + 1j)
        disk.append(backend.asarray(np.stack([w.real, w.imag], axis=-1), like=like64))
    np.testing.assert_allclose(
        backend.to_numpy(m.dist(x, y)), backend.to_numpy(PoincareBall(2).dist(*disk)), rtol=1e-12
    )


def test_siegel_curvature_is_within_its_bounds_and_attains_them(like64, backend, rng):
    """At iI, from the commutators of (v, u; u, -v)."""
    bounds = SiegelUpperHalfSpace(2).curvature_bounds(backend.asarray(1j * np.eye(2)))
    low, high = (float(backend.to_numpy(b)) for b in bounds)

    def curvature(a, b):
        s, t = (np.block([[p.imag, p.real], [p.real, -p.imag]]) for p in (a, b))
        bracket = s @ t - t @ s
        area = np.sum(s * s) * np.sum(t * t) - np.sum(s * t) ** 2
        return 0.5 * np.trace(bracket @ bracket) / area

    first, second = np.diag([1.0, 0.0]) + 0j, np.diag([0.0, 1.0]) + 0j
    assert abs(curvature(first, 1j * first) - low) < 1e-14 and abs(curvature(first, second) - high) < 1e-14
    for _ in range(200):
        a, b = rng.standard_normal((2, 2, 2, 2)) @ np.array([1, 1j])
        assert low - 1e-12 <= curvature(a + a.T, b + b.T) <= high + 1e-12


# -- input ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [PoincareBall, Lorentz, lambda n: Stereographic(n, 1.0), SiegelUpperHalfSpace])
@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_sizes_are_positive_integers(make, n):
    with pytest.raises(ValueError, match="integer n of at least 1"):
        make(n)


@pytest.mark.parametrize("c", [0.0, -1.0, np.nan, np.inf, np.array([1.0, -1.0])])
@pytest.mark.parametrize("make", [PoincareBall, Lorentz])
def test_curvatures_have_a_sign(make, c):
    with pytest.raises(ValueError, match="finite c > 0"):
        make(3, c)


@pytest.mark.parametrize("kappa", [np.nan, np.inf, np.array([0.0, -np.inf])])
def test_curvatures_are_finite(kappa):
    with pytest.raises(ValueError, match="finite kappa"):
        Stereographic(3, kappa)
