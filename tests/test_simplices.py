"""Spheres, angles, distributions and matrices with given marginals, against independent formulas and 50 digits."""

import math

import mpmath
import numpy as np
import pytest

import nestfold
from nestfold import DoublyStochastic, Multinomial, Oblique, Simplex, Sphere, SymmetricDoublyStochastic, Torus
from nestfold.backends import namespace

DIGITS = 50
#: without JAX, which compiles every operation of every size for itself; there, the laws are checked
EAGER = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
#: lengths at which the order of a retraction is read off
STEPS = [0.01, 0.02, 0.04]


def arrays(backend, like, *values):
    return [backend.asarray(np.asarray(v, float), like=like) for v in values]


def fisher_gap(got, want, x):
    """The norm √Σ(·)²/x of got - want relative to that of `want`, with `want` and x in mpmath's numbers."""
    off = mpmath.fsum((mpmath.mpf(float(g)) - w) ** 2 / a for g, w, a in zip(np.ravel(got), want, x, strict=True))
    return float(mpmath.sqrt(off / mpmath.fsum(w * w / a for w, a in zip(want, x, strict=True))))


def exact(a):
    return [mpmath.mpf(float(t)) for t in np.ravel(a)]


def fit_slope(errors):
    return np.polyfit(np.log(STEPS), np.log(errors), 1)[0]


# -- spheres ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1e-12, 1e-7, 1e-2, 1.0, 30.0])
def test_inverse_of_the_normalizing_retraction(backend, like64, size):
    """u = y/(x·y) - x: to rounding for the nearest points and for those close to the equator."""
    m = Sphere(3)
    x, u = np.array([0.0, 0.6, 0.8]), size * np.array([0.6, 0.64, -0.48])
    hx, hu = arrays(backend, like64, x, u)
    got = backend.to_numpy(m.inverse_retract(hx, m.retract(hx, hu)))
    with mpmath.workdps(DIGITS):
        px, py = exact(x), exact(backend.to_numpy(m.retract(hx, hu)))
        length = mpmath.sqrt(mpmath.fsum(a * a for a in px))
        px = [a / length for a in px]
        product = mpmath.fsum(a * b for a, b in zip(px, py, strict=True))
        want = [float(b / product - a) for a, b in zip(px, py, strict=True)]
    assert np.abs(got - want).max() <= 1e-15 * (size + size**2)
    assert np.abs(got - u).max() <= 1e-15 * (1 + size**2)


@EAGER
@pytest.mark.parametrize("kind", [np.float64, np.complex128])
def test_oblique_is_the_sphere_column_by_column(backend, kind, rng):
    m, one, like = Oblique(4, 3), Sphere(4), backend.asarray(np.zeros((), kind))
    x, y = m.random_point(rng, (2,), like=like), m.random_point(rng, (2,), like=like)
    u = m.random_tangent(rng, x)
    a = backend.noise(rng, (2, 4, 3), like=like)
    total = 0.0
    for j in range(3):
        xj, yj, uj, aj = (p[..., j] for p in (x, y, u, a))
        pairs = [
            (m.project(x, a), one.project(xj, aj)),
            (m.connection(x, a, u), one.connection(xj, aj, uj)),
            (m.retract(x, u), one.retract(xj, uj)),
            (m.inverse_retract(x, y), one.inverse_retract(xj, yj)),
            (m.exp(x, u), one.exp(xj, uj)),
            (m.log(x, y), one.log(xj, yj)),
            (m.parallel_transport(x, y, u), one.parallel_transport(xj, yj, uj)),
            (m.from_noise(a), one.from_noise(aj)),
        ]
        for got, want in pairs:
            np.testing.assert_allclose(backend.to_numpy(got)[..., j], backend.to_numpy(want), rtol=1e-13, atol=1e-14)
        total = total + backend.to_numpy(one.squared_dist(xj, yj))
    np.testing.assert_allclose(backend.to_numpy(m.squared_dist(x, y)), total, rtol=1e-14)


@EAGER
def test_curvature_of_spheres(backend, like64):
    def bounds(m, like=like64):
        x = m.random_point(np.random.default_rng(0), (2,), like=like)
        found = [*m.curvature_bounds(x), m.injectivity_radius(x)]
        assert all(tuple(f.shape) == (2,) and f.dtype == like64.dtype for f in found)
        return tuple(float(f[0]) for f in found)

    assert bounds(Sphere(3)) == (1, 1, math.pi)
    assert bounds(Sphere(2)) == (0, 0, math.pi)
    assert bounds(Sphere(1), backend.asarray(np.zeros((), complex))) == (0, 0, math.pi)
    assert bounds(Sphere(2), backend.asarray(np.zeros((), complex))) == (1, 1, math.pi)
    assert bounds(Oblique(3, 1)) == (1, 1, math.pi)
    assert bounds(Oblique(3, 2)) == (0, 1, math.pi)
    assert bounds(Oblique(2, 2)) == (0, 0, math.pi)
    assert bounds(Torus(2)) == (0, 0, math.pi)
    assert bounds(Simplex(3))[:2] == (0.25, 0.25)
    assert bounds(Simplex(2))[:2] == (0, 0)
    assert bounds(Multinomial(2, 3))[:2] == (0, 0.25)


# -- angles -------------------------------------------------------------------------------------------
def test_torus_measures_around_the_circle(backend, like64):
    m = Torus(3)
    x, y = arrays(backend, like64, [3.0, -3.0, 0.5], [-3.0, 3.0, 0.5 + 8 * math.pi])
    gap = 2 * math.pi - 6
    np.testing.assert_allclose(backend.to_numpy(m.log(x, y)), [gap, -gap, 0], atol=1e-14)
    assert abs(float(m.dist(x, y)) - math.sqrt(2) * gap) < 1e-14
    np.testing.assert_allclose(backend.to_numpy(m.align(x, y)), [3 + gap, -3 - gap, 0.5], atol=1e-14)
    np.testing.assert_allclose(backend.to_numpy(m.gradient(lambda p: m.squared_dist(p, y), x))[:2], [-2 * gap, 2 * gap])
    assert float(m.defect(y)) == 0
    assert bool(m.contains(1e6 * y))


def test_torus_wraps_into_half_open_turns(backend, like64, rng):
    a = np.concatenate([rng.uniform(-50, 50, 1000), np.pi * np.arange(-9, 10)])
    zero, far = arrays(backend, like64, np.zeros(a.size), a)
    d = backend.to_numpy(Torus(a.size).log(zero, far))
    assert d.min() >= -np.pi and d.max() <= np.pi
    assert np.abs(np.sin((d - a) / 2)).max() < 1e-14
    assert np.all(np.abs(d[:1000]) < np.pi)


def test_torus_noise_is_uniform(backend, like64):
    rng = np.random.default_rng(5)
    turns = np.exp(1j * backend.to_numpy(Torus().random_point(rng, (40000,), like=like64)))
    assert max(abs((turns**k).mean()) for k in (1, 2, 3)) < 0.015


def test_the_circle_is_a_torus_of_numbers(backend, like64):
    x, y = arrays(backend, like64, [0.1, 6.2], [6.2, 0.1])
    assert Torus().shape == ()
    np.testing.assert_allclose(backend.to_numpy(Torus().dist(x, y)), 2 * np.pi - 6.1, rtol=1e-14)


# -- distributions --------------------------------------------------------------------------------------
def distributions(rng, near):
    """Two distributions with entries down to 1e-12; close to each other if asked."""
    x = 10.0 ** rng.uniform(-12, 0, 5)
    x /= x.sum()
    y = x * (1 + near * rng.standard_normal(5)) if near else 10.0 ** rng.uniform(-12, 0, 5)
    return x, y / y.sum()


@EAGER
@pytest.mark.parametrize("near", [0, 1e-10, 1e-6, 1e-2])
def test_simplex_near_the_boundary(backend, like64, near, rng):
    """x = s² takes the unit sphere to it, distances doubled."""
    m = Simplex(5)
    for _ in range(10):
        x, y = distributions(rng, near)
        hx, hy, w = arrays(backend, like64, x, y, rng.standard_normal(5))
        u = m.sharp(hx, w)
        with mpmath.workdps(DIGITS):
            px, py, pu = exact(x), exact(y), exact(backend.to_numpy(u))
            px, py = ([a / mpmath.fsum(p) for a in p] for p in (px, py))
            roots = [(mpmath.sqrt(a), mpmath.sqrt(b)) for a, b in zip(px, py, strict=True)]
            angle = 2 * mpmath.asin(mpmath.sqrt(mpmath.fsum((a - b) ** 2 for a, b in roots)) / 2)
            factor = 2 * angle / mpmath.sin(angle)
            log = [factor * (a * b - mpmath.cos(angle) * a * a) for a, b in roots]
            half = mpmath.sqrt(mpmath.fsum(a * a / b for a, b in zip(pu, px, strict=True))) / 2
            end = [(mpmath.cos(half) * b + mpmath.sinc(half) * a / 2) ** 2 / b for a, b in zip(pu, px, strict=True)]
            assert abs(float(float(m.dist(hx, hy)) / (2 * angle)) - 1) <= 1e-15 + 1e-17 / (near or 1)
            assert fisher_gap(backend.to_numpy(m.log(hx, hy)), log, px) <= 1e-14 + 1e-16 / (near or 1)
            got = backend.to_numpy(m.exp(hx, u))
            assert max(abs(float(g / e) - 1) for g, e in zip(exact(got), end, strict=True)) < 1e-13
            straight = [a * mpmath.log(b / a) for a, b in zip(exact(x), exact(y), strict=True)]
            inverse = [s - a * mpmath.fsum(straight) for s, a in zip(straight, exact(x), strict=True)]
            got = backend.to_numpy(m.inverse_retract(hx, hy))
            assert fisher_gap(got, inverse, exact(x)) < 1e-12 + 1e-16 / (near or 1)


def test_simplex_transport_is_that_of_the_sphere(backend, like64, rng):
    m, sphere = Simplex(4), Sphere(4)
    x, y = m.random_point(rng, (3,), like=like64), m.random_point(rng, (3,), like=like64)
    u = m.random_tangent(rng, x)
    xp = namespace(x)
    sx, sy = xp.sqrt(x), xp.sqrt(y)
    want = 2 * sy * sphere.parallel_transport(sx, sy, u / (2 * sx))
    assert np.abs(backend.to_numpy(m.parallel_transport(x, y, u) - want)).max() < 1e-14
    assert np.abs(backend.to_numpy(m.dist(x, y) - 2 * sphere.dist(sx, sy))).max() < 1e-15


def test_simplex_geodesics_are_reflected_at_the_boundary(backend, like64):
    """`injectivity_radius` is the distance from the boundary: `log` undoes `exp` up to it and not beyond."""
    m = Simplex(3)
    # straight to the side where the first entry vanishes: away from its corner, on the great circle through s and e₁
    x, u = arrays(backend, like64, [0.04, 0.46, 0.5], [-0.96, 0.46, 0.5])
    u = u / m.norm(x, u)
    radius = float(m.injectivity_radius(x))
    assert abs(radius - 2 * math.asin(0.2)) < 1e-15
    for length in (0.5 * radius, 0.999 * radius):
        assert np.abs(backend.to_numpy(m.log(x, m.exp(x, length * u)) - length * u)).max() < 1e-12
    assert backend.to_numpy(m.exp(x, radius * u))[0] < 1e-30
    beyond = m.exp(x, 1.5 * radius * u)
    assert float(m.defect(beyond)) < 1e-14
    assert np.abs(backend.to_numpy(beyond - m.exp(x, 0.5 * radius * u)))[0] < 1e-15
    assert float(m.dist(x, beyond)) < 1.4 * radius


def test_orders_of_the_retractions(backend, like64, rng):
    """By the slope of |R(tu) - exp(tu)| on the simplex, and of the acceleration across the geodesic elsewhere."""
    m = Simplex(4)
    x = m.random_point(rng, like=like64)
    u = m.random_tangent(rng, x)
    errors = [float(m.dist(m.exp(x, t * u), m.retract(x, t * u))) for t in STEPS]
    assert abs(fit_slope(errors) - 2) < 0.1
    for m in (Oblique(4, 3), Sphere(4)):
        x = m.random_point(rng, like=like64)
        u = m.random_tangent(rng, x)
        errors = [float(m.dist(m.exp(x, t * u), m.retract(x, t * u))) for t in STEPS]
        assert abs(fit_slope(errors) - 3) < 0.05


@EAGER
def test_multinomial_is_the_simplex_row_by_row(backend, like64, rng):
    m, row = Multinomial(2, 3), Simplex(3)
    x, y = m.random_point(rng, (4,), like=like64), m.random_point(rng, (4,), like=like64)
    a = backend.noise(rng, (4, 2, 3), like=like64)
    u = m.sharp(x, a)
    for name, *args in [
        ("sharp", x, a),
        ("exp", x, u),
        ("log", x, y),
        ("retract", x, u),
        ("parallel_transport", x, y, u),
    ]:
        got, want = getattr(m, name)(*args), getattr(row, name)(*args)
        np.testing.assert_array_equal(backend.to_numpy(got), backend.to_numpy(want))
    for got, want in ((m.squared_dist(x, y), row.squared_dist(x, y)), (m.inner(x, u, u), row.inner(x, u, u))):
        np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(want).sum(-1), rtol=1e-14)
    radii = backend.to_numpy(row.injectivity_radius(x))
    np.testing.assert_array_equal(backend.to_numpy(m.injectivity_radius(x)), radii.min(-1))
    assert Multinomial(2, 3).dim == 4 and Multinomial(5).shape == (5,)


def derivatives(backend, f, t, orders=3):
    """f(t) and its derivatives at a number."""
    one, found = backend.xp.ones_like(t), []
    for _ in range(orders + 1):
        found.append(float(f(t)))
        f = (lambda g: lambda s: backend.jvp(g, (s,), (one,))[1])(f)
    return found


@pytest.mark.parametrize("t", [0.0, 1e-9, 0.03])
def test_squared_distance_on_the_simplex_to_third_order(backend, like64, t):
    """Along a straight line through the other point, and through it."""
    m = Simplex(3)
    y, v = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.25, -0.75])
    hy, hv, ht = arrays(backend, like64, y, v, t)
    got = derivatives(backend, lambda s: m.squared_dist(hy + s * hv, hy), ht)

    with mpmath.workdps(80):
        y = [mpmath.mpf(2) / 10, mpmath.mpf(3) / 10, mpmath.mpf(5) / 10]
        want = [float(w) for w in taylor(lambda s: 4 * mpmath.acos(overlap(y, v, s)) ** 2, t)]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def overlap(y, v, s):
    return mpmath.fsum(mpmath.sqrt((a + s * mpmath.mpf(b)) * a) for a, b in zip(y, v, strict=True))


def taylor(f, t, orders=3):
    """Value and derivatives of an analytic function, of a polynomial through points just to the right of t."""
    h, t, count = mpmath.mpf(10) ** -12, mpmath.mpf(t), 8
    weights = mpmath.matrix(count, count)
    for i in range(count):
        for j in range(count):
            weights[i, j] = mpmath.mpf(i + 1) ** j
    series = mpmath.lu_solve(weights, mpmath.matrix([f(t + (i + 1) * h) for i in range(count)]))
    return [series[k] * mpmath.factorial(k) / h**k for k in range(orders + 1)]


# -- given marginals ------------------------------------------------------------------------------------
def multipliers(x, w):
    """w - α - βᵀ by the dense system, with 50 digits."""
    n, m = x.shape
    matrix, right = mpmath.zeros(n + m), mpmath.zeros(n + m, 1)
    for i in range(n):
        for j in range(m):
            a, b = mpmath.mpf(float(x[i, j])), mpmath.mpf(float(w[i, j]))
            for s, t in ((i, i), (n + j, n + j), (i, n + j), (n + j, i)):
                matrix[s, t] += a
            right[i] += a * b
            right[n + j] += a * b
    size = n + m - 1  # the last multiplier is chosen as zero
    found = [*mpmath.lu_solve(matrix[:size, :size], right[:size]), mpmath.mpf(0)]
    return [[mpmath.mpf(float(w[i, j])) - found[i] - found[n + j] for j in range(m)] for i in range(n)]


SCALES = {
    "even": lambda rng, n, m: rng.standard_normal((n, m)),
    "1e-12 to 1e3": lambda rng, n, m: math.log(10) * rng.uniform(-12, 3, (n, m)),
    "almost a permutation": lambda rng, n, m: (
        np.where(np.arange(n)[:, None] % m == np.arange(m), 0.0, -25.0) + rng.standard_normal((n, m))
    ),
    "one huge entry": lambda rng, n, m: np.where(np.arange(n * m).reshape(n, m) == 1, 600.0, 0.0),
    "hundreds": lambda rng, n, m: 100 * rng.standard_normal((n, m)),
}


@EAGER
@pytest.mark.parametrize("scale", ["even", "1e-12 to 1e3", "almost a permutation"])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 3), (3, 5), (1, 3), (4, 0)])
def test_gradients_for_badly_scaled_couplings(backend, like64, n, m, scale, rng):
    """The multipliers, entry by entry, against the whole singular system with 50 digits."""
    p, q = rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, m)
    if m:
        manifold = DoublyStochastic(*arrays(backend, like64, p, q * p.sum() / q.sum()))
    else:  # equal marginals: almost a permutation then means an entry that all but fills its row and column
        m, manifold = n, DoublyStochastic.uniform(n)
    logits, w = arrays(backend, like64, SCALES[scale](rng, n, m), rng.standard_normal((n, m)))
    x = manifold.from_noise(logits)
    got = backend.to_numpy(manifold.sharp(x, w) / x)
    with mpmath.workdps(DIGITS):
        want = np.array(multipliers(backend.to_numpy(x), backend.to_numpy(w)), float)
    assert np.abs(got - want).max() <= 1e-13 * (1 + np.abs(want).max())


@EAGER
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n", [3, 12])
def test_scaling_converges_for_entries_of_all_sizes(backend, like64, like32, n, scale, rng):
    """Marginals met to rounding; what Sinkhorn keeps, the ratios x₁₁x₂₂/(x₁₂x₂₁), is kept."""
    p, q = rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, n)
    logits = SCALES[scale](rng, n, n)
    for like, eps in ((like64, 2.3e-16), (like32, 1.2e-7)):
        manifold = DoublyStochastic(*arrays(backend, like, p, q * p.sum() / q.sum()))
        x = backend.to_numpy(manifold.from_noise(backend.asarray(logits, like=like)))
        assert x.dtype == backend.to_numpy(like).dtype
        limit = 16 * eps * (1 + np.abs(logits).max())
        assert np.abs(x.sum(-1) / p - 1).max() < 16 * eps
        assert np.abs(x.sum(-2) * q.sum() / (q * p.sum()) - 1).max() < limit
        with np.errstate(divide="ignore"):
            l = np.log(x)
        if scale in ("even", "1e-12 to 1e3"):
            cross = l[:-1, :-1] + l[1:, 1:] - l[:-1, 1:] - l[1:, :-1]
            want = logits[:-1, :-1] + logits[1:, 1:] - logits[:-1, 1:] - logits[1:, :-1]
            assert np.abs(cross - want).max() < limit


@EAGER
@pytest.mark.parametrize("scale", ["even", "1e-12 to 1e3", "almost a permutation"])
def test_retraction_between_couplings_is_undone(backend, like64, scale, rng):
    m = DoublyStochastic.uniform(5, 4)
    logits = SCALES[scale](rng, 5, 4)
    x, y = (m.from_noise(a) for a in arrays(backend, like64, logits, logits + rng.standard_normal((5, 4))))
    got = m.retract(x, m.inverse_retract(x, y))
    assert np.abs(backend.to_numpy(got / y) - 1).max() < 1e-12


@EAGER
def test_order_of_the_retraction_of_couplings(backend, like64, rng):
    """First order: the curve bends twice as much as a geodesic. ẍ = sharp(x, (u/x)²) against half of that."""
    m = DoublyStochastic.uniform(3)
    x = m.random_point(rng, like=like64)
    u = m.random_tangent(rng, x)
    bend = backend.jvp(lambda v: backend.jvp(lambda s: m.retract(x, s), (v,), (u,))[1], (m.zero_tangent(x),), (u,))[1]
    assert np.abs(backend.to_numpy(bend - m.sharp(x, (u / x) ** 2))).max() < 1e-12
    acceleration = 0.5 * m.sharp(x, (u / x) ** 2)

    def error(t):
        off = backend.to_numpy(m.retract(x, t * u) - x - t * u - 0.5 * t**2 * acceleration)
        return float(np.linalg.norm(off))

    assert abs(fit_slope([error(t) for t in STEPS]) - 2) < 0.1


def odds(p, q, z):
    """x₁₁ of the 2 × 2 coupling of (p, 1 - p) and (q, 1 - q) with the logarithm z of its odds ratio."""
    r = mpmath.exp(z) - 1
    s = 1 + (p + q) * r
    return (s - mpmath.sqrt(s * s - 4 * (r + 1) * r * p * q)) / (2 * r)


@pytest.mark.parametrize(
    ("backend", "of", "z"),
    [(name, of, z) for name in ("numpy", "array_api_strict", "torch") for of in "zpq" for z in (0.7, -8.0)]
    + [("jax", "p", 0.7)],
    indirect=["backend"],
)
def test_scaling_and_its_marginals_to_third_order(backend, like64, of, z):
    """Derivatives of a 2 × 2 coupling in the logits and in each marginal, against its closed form."""
    at = {"z": z, "p": 0.3, "q": 0.45}

    def entry(t):
        now = {name: arrays(backend, like64, value)[0] for name, value in at.items()} | {of: t}
        xp = namespace(t)
        p, q = (xp.stack([now[name], 1 - now[name]]) for name in ("p", "q"))
        zero = 0.0 * now["z"]
        logits = xp.stack([xp.stack([now["z"], zero]), xp.stack([zero, zero])])
        return DoublyStochastic(p, q).from_noise(logits)[0, 0]

    got = derivatives(backend, entry, arrays(backend, like64, at[of])[0])
    with mpmath.workdps(80):
        exactly = {name: mpmath.mpf(value) for name, value in at.items()}
        want = [float(d) for d in taylor(lambda s: odds(**(exactly | {of: s})), at[of])]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@EAGER
def test_gradient_in_the_marginals(backend, like64, rng):
    """Points move with p and q: their sums do, and the gradient of a cost is that of differences.

    q is scaled to the total of p, so that each entry of p may move by itself.
    """
    p, q, z, a = arrays(
        backend,
        like64,
        [[0.5, 1.5], [1.0, 2.0]],
        [1.0, 2.0, 3.0],
        rng.standard_normal((2, 2, 3)),
        rng.standard_normal((2, 3)),
    )
    xp = namespace(p)
    q = q * (xp.sum(p, axis=-1, keepdims=True) / 6)

    def cost(m):
        x = m.from_noise(z)
        return namespace(x).sum(a * x * x)

    m = DoublyStochastic(p, q)
    got = nestfold.grad(cost)(m)
    h = 1e-5
    for name in ("p", "q"):
        base = backend.to_numpy(getattr(m, name))
        want = np.zeros_like(base)
        for place in np.ndindex(*base.shape):
            values = []
            for sign in (1, -1):
                moved = base.copy()
                moved[place] += sign * h
                there = arrays(backend, like64, moved)[0]
                values.append(float(cost(raw(m, **{name: there}))))
            want[place] = (values[0] - values[1]) / (2 * h)
        np.testing.assert_allclose(backend.to_numpy(getattr(got, name)), want, rtol=1e-7, atol=1e-8)

    def rows(t):
        x = DoublyStochastic(t, q).from_noise(z)
        return namespace(x).sum(x, axis=-1)

    moved = backend.jvp(rows, (p,), (xp.ones_like(p),))[1]
    np.testing.assert_allclose(backend.to_numpy(moved), 1.0, rtol=1e-13)


@EAGER
def test_a_single_row_is_its_marginal(backend, like64, rng):
    """x = q Σp/Σq, whatever the noise: exactly, with its derivatives."""
    p, q, u, z = arrays(backend, like64, [0.75], [0.25, 0.5], [1.0], rng.standard_normal((1, 2)))
    for flip in (False, True):

        def point(t, flip=flip):
            x = DoublyStochastic(q, t).from_noise(z.mT) if flip else DoublyStochastic(t, q).from_noise(z)
            return namespace(x).sum(x, axis=-1 if flip else -2)

        x, moved = backend.jvp(point, (p,), (u,))
        np.testing.assert_allclose(backend.to_numpy(x), [0.25, 0.5], rtol=1e-15)
        # where p is the marginal of the columns it is scaled to the total of the rows, and cannot move alone
        np.testing.assert_allclose(backend.to_numpy(moved), np.zeros(2) if flip else [1 / 3, 2 / 3], atol=1e-15)
    assert float(backend.to_numpy(DoublyStochastic(p, q).sharp(x[None, :], z)).max()) == 0


def raw(m, **changes):
    """`m` with other parameters, unchecked, as derivatives see it."""
    result = object.__new__(type(m))
    for name in m.parameters:
        object.__setattr__(result, name, changes.get(name, getattr(m, name)))
    return result


@EAGER
def test_batched_marginals_are_one_manifold_each(backend, like64, rng):
    p, q = arrays(backend, like64, [[0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], [0.2, 0.3, 0.5])
    z, u = backend.noise(rng, (3, 2, 3), like=like64), backend.noise(rng, (3, 2, 3), like=like64)
    many = DoublyStochastic(p, q)
    x = many.from_noise(z)
    u = many.project(x, u)
    y = many.retract(x, u)
    assert float(backend.to_numpy(many.defect(y)).max()) < 1e-14
    assert tuple(many.from_noise(z[0, ...]).shape) == (3, 2, 3)
    for i in range(3):
        one = DoublyStochastic(p[i, ...], q)
        alone = one.from_noise(z[i, ...])
        assert np.abs(backend.to_numpy(x[i, ...] - alone)).max() < 1e-15
        assert np.abs(backend.to_numpy(y[i, ...] - one.retract(alone, u[i, ...]))).max() < 1e-14


@EAGER
def test_symmetric_couplings_are_a_part_of_all(backend, like64, rng):
    """Every formula is that of `DoublyStochastic(p, p)`, and symmetric to the last bit."""
    (p,) = arrays(backend, like64, [0.5, 1.0, 2.0, 0.25])
    m, whole = SymmetricDoublyStochastic(p), DoublyStochastic(p, p)
    x = m.random_point(rng, like=like64)
    a = backend.noise(rng, (4, 4), like=like64)
    a = a + a.mT
    u = m.sharp(x, a)
    pairs = [(u, whole.sharp(x, a)), (m.project(x, a), whole.project(x, a)), (m.retract(x, u), whole.retract(x, u))]
    pairs += [(m.connection(x, a, u), whole.connection(x, a, u)), (x, x)]
    for got, want in pairs:
        got, want = backend.to_numpy(got), backend.to_numpy(want)
        assert np.abs(got - want).max() < 1e-14
        assert np.array_equal(got, got.T)
    assert float(whole.defect(x)) < 1e-14
    assert m.dim == 6


def test_symmetric_couplings_that_are_almost_bipartite(backend, like64):
    """[[ε, 1 - ε], [1 - ε, ε]]: diag(p) + x is singular to rounding, the gradient is not."""
    m = SymmetricDoublyStochastic(2)
    e = 1e-14
    x, w = arrays(backend, like64, [[e, 1 - e], [1 - e, e]], [[1.0, 0.2], [0.4, -2.0]])
    got = backend.to_numpy(m.sharp(x, w))
    # one dimension: u = c (I - J) with c ⟨I - J, I - J⟩ₓ = w·(I - J)
    c = (1.0 - 2.0 - 0.6) / (2 / e + 2 / (1 - e))
    np.testing.assert_allclose(got, c * np.array([[1, -1], [-1, 1]]), rtol=1e-2)
    np.testing.assert_allclose(np.diag(got), c, rtol=1e-13)


# -- what is refused --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sphere(0), r"Sphere\(n\).*n = 0"),
        (lambda: Oblique(3, 0), r"Oblique\(n, p\).*p = 0"),
        (lambda: Oblique(2.0, 1), "integers"),  # pyright: ignore[reportArgumentType]
        (lambda: Torus(-1), "integers ≥ 0"),
        (lambda: Simplex(0), r"Simplex\(n\)"),
        (lambda: Multinomial(), "one or more"),
        (lambda: Multinomial(3, 0), "integers ≥ 1"),
        (lambda: DoublyStochastic([1.0, 0.0], [0.5, 0.5]), "p is to be positive"),
        (lambda: DoublyStochastic([1.0, 1.0], [2.0, math.nan]), "q is to be positive"),
        (lambda: DoublyStochastic([1.0, 1.0], [0.5, 0.5]), r"same total.*2\.0 and 1\.0.*scale"),
        (lambda: DoublyStochastic(np.ones((2, 3)), np.ones((2, 2))), "same total"),
        (lambda: DoublyStochastic([], []), "size ≥ 1"),
        (lambda: DoublyStochastic([np.ones(2)], [1.0, 1.0]), "sequence of numbers"),
        (lambda: DoublyStochastic(np.ones(2, int), np.ones(2)), "int64.*floating"),
        (lambda: DoublyStochastic(2, 2), "sequence of numbers"),
        (lambda: DoublyStochastic.uniform(0), "integers"),
        (lambda: SymmetricDoublyStochastic(0), "n ≥ 1"),
        (lambda: SymmetricDoublyStochastic([1.0, -1.0]), "positive"),
    ],
)
def test_impossible_manifolds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@EAGER
def test_manifolds_of_numbers_are_values(backend, like32):
    """Marginals given as numbers belong to no framework; they follow the points."""
    assert DoublyStochastic.uniform(3) == DoublyStochastic([1, 1, 1], (1.0, 1.0, 1.0)) != DoublyStochastic.uniform(3, 2)
    assert hash(SymmetricDoublyStochastic(3)) == hash(SymmetricDoublyStochastic([1.0, 1.0, 1.0]))
    assert repr(DoublyStochastic([1, 1], [2])) == "DoublyStochastic(p=(1.0, 1.0), q=(2.0,))"
    assert (DoublyStochastic.uniform(4, 2).shape, DoublyStochastic.uniform(4, 2).dim) == ((4, 2), 3)
    x = DoublyStochastic.uniform(3).random_point(np.random.default_rng(0), (2,), like=like32)
    assert x.dtype == like32.dtype
    DoublyStochastic.uniform(3).check_point(x)


@pytest.mark.parametrize("m", [Simplex(3), Multinomial(1, 3), DoublyStochastic([0.5], [0.25, 0.25])])
def test_what_is_not_positive_is_off(backend, like64, m):
    size = m.shape[-1]
    shape = (size,) if isinstance(m, Simplex) else (1, size)
    total = 0.5 if isinstance(m, DoublyStochastic) else 1.0
    for bad in (
        [0.0] * (size - 1) + [total],
        [-total] + [2 * total] + [0.0] * (size - 2),
        [np.nan] * size,
        [np.inf] * size,
    ):
        (x,) = arrays(backend, like64, np.reshape(bad, shape))
        assert not bool(m.contains(x)), bad


def test_far_regimes_in_single_precision(backend, like32):
    """Entries of 1e-12 next to 1, distances of 1e-4 and nearly the largest."""
    m = Simplex(3)
    x, y, close = arrays(backend, like32, [1e-12, 0.5, 0.5], [1.0, 1e-12, 1e-12], [1e-12, 0.5 + 2**-14, 0.5 - 2**-14])
    assert abs(float(m.dist(x, y)) / (2 * math.acos(math.sqrt(5e-13) * 2 + 1e-6)) - 1) < 1e-6
    assert abs(float(m.dist(x, close)) / 2**-13 - 1) < 1e-6
    got = backend.to_numpy(m.exp(x, m.log(x, y)))
    assert abs(got[0] - 1) < 1e-6
