"""Subspaces and flags against references of 50 digits, SciPy, and known facts."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg

from nestfold.backends import backend_of, namespace
from nestfold.manifolds import Flag, Grassmann, GrassmannProjectors, qr
from nestfold.manifolds._polar import AngleOverSine

PI = math.pi


def mp_matrix(a):
    return mpmath.matrix(np.asarray(a).tolist())


def double(matrix):
    return np.array([[float(matrix[i, j]) for j in range(matrix.cols)] for i in range(matrix.rows)])


def orthonormal(rng, n, p):
    return mpmath.qr(mp_matrix(rng.standard_normal((n, p))), mode="skinny")[0]


def subspaces(rng, n, angles):
    """`x, u, y, yg`, rounded from 50 digits: the geodesic from x with velocity u ends at y; g is a rotation."""
    p = len(angles)
    with mpmath.workdps(50):
        q, v, g = orthonormal(rng, n, 2 * p), orthonormal(rng, p, p), orthonormal(rng, p, p)
        x, normal = q[:, :p], q[:, p:]
        c, s = (mpmath.diag([f(mpmath.mpf(a)) for a in angles]) for f in (mpmath.cos, mpmath.sin))
        y = (x * c + normal * s) * v.T
        u = normal * mpmath.diag([mpmath.mpf(a) for a in angles]) * v.T
        return [double(k) for k in (x * v.T, u, y, y * g)]


def derivatives(backend, f, count=4):
    """Values and derivatives at 0 of a function of one number, by nested forward differentiation."""
    zero, one = (backend.asarray(np.asarray(v)) for v in (0.0, 1.0))
    found = []
    for _ in range(count):
        found.append(backend.to_numpy(f(zero)))
        f = slope(backend, f, one)
    return found


def slope(backend, f, one):
    return lambda t: backend.jvp(f, (t,), (one,))[1]


def taylor(curve, count=4):
    """The same of a matrix-valued curve of mpmath: a polynomial through points near 0."""
    with mpmath.workdps(150):
        h, size = mpmath.mpf(10) ** -15, count + 3
        vandermonde = mpmath.matrix(size, size)
        for i in range(size):
            for j in range(size):
                vandermonde[i, j] = mpmath.mpf(i + 1) ** j
        inverse, values = vandermonde**-1, [curve(h * (i + 1)) for i in range(size)]
        found = []
        for k in range(count):
            series = sum((inverse[k, i] * values[i] for i in range(1, size)), inverse[k, 0] * values[0])
            found.append(double(series * (mpmath.factorial(k) / h**k)))
        return found


def on(backend, like, *arrays):
    return [backend.asarray(a, like=like) for a in arrays]


# -- values -------------------------------------------------------------------------------------------
ANGLES = [
    [0.0, 0.0], [1e-9, 1e-9], [0.0, 0.7], [0.3, 0.3], [0.5, 1.2], [1e-5, 1.5],
    [0.2, PI / 2 - 1e-3], [0.2, PI / 2 - 1e-9], [PI / 2 - 1e-2, PI / 2 - 1e-3], [0.4, 0.4, 0.4],
]  # fmt: skip


@pytest.mark.parametrize("angles", ANGLES, ids=str)
def test_exp_log_and_dist_at_all_principal_angles(backend, like64, rng, angles):
    """To rounding, up to one right angle; of two near it, to eps over the sum of their cosines."""
    n, p = 7, len(angles)
    m, projectors = Grassmann(n, p), GrassmannProjectors(n, p)
    x, u, y, yg = subspaces(rng, n, angles)
    hx, hu, hy = on(backend, like64, x, u, yg)
    cosines = sum(sorted(map(math.cos, angles))[:2])
    bound = 2e-14 * (1 + 0.1 / cosines)
    assert np.abs(backend.to_numpy(m.exp(hx, hu)) - y).max() < 1e-14
    assert np.abs(backend.to_numpy(m.log(hx, hy)) - u).max() < bound
    assert np.abs(backend.to_numpy(m.align(hx, hy)) - y).max() < bound
    assert abs(float(m.dist(hx, hy)) - np.linalg.norm(angles)) < 1e-14
    px, py, pu = projectors.of_basis(hx), projectors.of_basis(hy), projectors.of_lift(hx, hu)
    assert np.abs(backend.to_numpy(projectors.exp(px, pu)) - y @ y.T).max() < 1e-14
    # half of the rotation s_y s_x is had from its cosines: 1e-13 at π/2 - 1e-9
    assert np.abs(backend.to_numpy(projectors.log(px, py)) - (x @ u.T + u @ x.T)).max() < 10 * bound
    assert abs(float(projectors.dist(px, py)) - np.linalg.norm(angles)) < 1e-14


def test_distance_is_that_of_scipy(backend, like64, rng):
    m = Grassmann(6, 3)
    x, y = (m.random_point(rng, like=like64) for _ in range(2))
    angles = scipy.linalg.subspace_angles(backend.to_numpy(x), backend.to_numpy(y))
    assert abs(float(m.dist(x, y)) - np.linalg.norm(angles)) < 1e-13
    z = np.linalg.qr(rng.standard_normal((2, 6, 3)) + 1j * rng.standard_normal((2, 6, 3)))[0]
    hx, hy = (backend.asarray(k) for k in z)
    assert abs(float(m.dist(hx, hy)) - np.linalg.norm(scipy.linalg.subspace_angles(*z))) < 1e-13


def test_orthogonal_subspaces_have_a_distance_and_finite_derivatives(backend, like64):
    x, y = on(backend, like64, np.eye(4)[:, :2], np.eye(4)[:, 2:])
    m = Grassmann(4, 2)
    assert abs(float(m.squared_dist(x, y)) - PI**2 / 2) < 1e-14
    assert np.isfinite(backend.to_numpy(m.gradient(lambda q: m.squared_dist(q, y), x))).all()


def test_float32_subspaces_are_at_no_distance_from_themselves(backend, like32, rng):
    for m in (Grassmann(5, 2), GrassmannProjectors(5, 2)):
        x = m.random_point(rng, (50,), like=like32)
        assert m.dist(x, x).dtype == x.dtype
        assert float(backend.to_numpy(m.dist(x, x)).max()) < 5e-6


# -- derivatives --------------------------------------------------------------------------------------
#: equal subspaces, one angle 0, repeated and large angles
THIRD = [[0.0, 0.0], [0.0, 0.9], [0.8, 0.8], [1.4, 0.3]]


@pytest.mark.parametrize(
    ("backend", "angles"),
    [(name, a) for a in THIRD for name in ("numpy", "array_api_strict", "torch")]
    + [pytest.param("jax", THIRD[0], marks=pytest.mark.slow)],
    indirect=["backend"],
)
def test_exp_and_log_to_third_order(backend, rng, angles):
    """Of exp(x, u + ta) and log(x, y + tb + t²c), at u = 0, of less than full rank, and with equal angles."""
    x, u, _, y = subspaces(rng, 5, angles)
    b, c = rng.standard_normal((2, 5, 2))
    a = b - x @ (x.T @ b)
    hx, hu, hy, ha, hb, hc = (backend.asarray(k) for k in (x, u, y, a, b, c))
    m = Grassmann(5, 2)
    with mpmath.workdps(150):
        mx, mu, my, ma, mb, mc = (mp_matrix(k) for k in (x, u, y, a, b, c))

    def spectral(s, f):
        values, vectors = mpmath.eigsy(s)
        roots = [mpmath.sqrt(abs(v)) for v in values]
        return vectors * mpmath.diag([f(r) for r in roots]) * vectors.T

    def exp(t):
        v = mu + t * ma
        s = v.T * v
        return mx * spectral(s, mpmath.cos) + v * spectral(s, mpmath.sinc)

    def orthonormalized(z):
        return z * spectral(z.T * z, lambda r: 1 / r)

    def log(t):
        z = orthonormalized(my + t * mb + t * t * mc)
        tangent = z * (mx.T * z) ** -1
        tangent = tangent - mx * (mx.T * tangent)
        return tangent * spectral(tangent.T * tangent, lambda r: mpmath.atan(r) / r if r > 1e-60 else mpmath.mpf(1))

    with mpmath.workdps(150):
        mx, my = orthonormalized(mx), orthonormalized(my)

    def curve(t):
        return qr(hy, t * hb + t * t * hc)

    pairs = [
        (derivatives(backend, lambda t: m.exp(hx, hu + t * ha)), taylor(exp)),
        (derivatives(backend, lambda t: m.log(hx, curve(t))), taylor(log)),
    ]
    for got, want in pairs:
        for order, (g, w) in enumerate(zip(got, want, strict=True)):
            # the third derivative of the logarithm grows like 1/cos³θ
            assert np.linalg.norm(g - w) < 1e-12 * (1 + np.linalg.norm(w)), order


@pytest.mark.parametrize("nodes", [[1.0, 1.0, 1.0, 1.0], [1.0, 0.999, 0.5, 0.5], [0.0, 1e-9, 0.3, 1.0]], ids=str)
def test_divided_differences_of_angle_over_sine(nodes):
    f = AngleOverSine()

    def exact(points):
        # f[c₀ … cₖ] as a contour integral about [0, 1], within the domain of analyticity
        with mpmath.workdps(30):
            count, total = 400, mpmath.mpc(0)
            for k in range(count):
                e = mpmath.expjpi(2 * (k + mpmath.mpf("0.5")) / count)
                z = mpmath.mpf("0.5") + mpmath.mpf("1.2") * e
                value = mpmath.acos(z) / mpmath.sqrt(1 - z * z)
                bottom = mpmath.mpf(1)
                for point in points:
                    bottom *= z - mpmath.mpf(point)
                total += value / bottom * mpmath.mpf("1.2") * e
            return float((total / count).real)

    for order in (1, 2, 3):
        got = float(f.divided(np, *(np.asarray(a) for a in nodes[: order + 1])))
        want = exact(nodes[: order + 1])
        assert abs(got / want - 1) < 1e-13


def test_gradient_of_the_squared_distance_in_both_points(backend, like64, rng):
    """-2 log, as autodiff finds it through the rule, broadcast over a batch too."""
    for m in (Grassmann(5, 2), GrassmannProjectors(5, 2)):
        x, y = m.random_point(rng, like=like64), m.random_point(rng, (3,), like=like64)
        value, pull = backend.vjp(lambda a, b, m=m: namespace(a).sum(m.squared_dist(a, b)), x, y)
        ones = backend.xp.ones_like(value)
        gx, gy = (backend.to_numpy(g) for g in pull(ones))
        scale = 1.0 if isinstance(m, Grassmann) else 0.5
        assert np.abs(gx + 2 * scale * backend.to_numpy(m.log(x, y)).sum(axis=0)).max() < 1e-13
        assert np.abs(gy + 2 * scale * backend.to_numpy(m.log(y, x))).max() < 1e-13


# -- quotient -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [float, complex])
def test_everything_is_independent_of_the_bases(dtype, rng):
    """With bases xg, yh, results are those at x, y, times g or h."""
    m, like = Grassmann(5, 2), np.zeros((), dtype)
    x, y, (g, h) = (
        m.random_point(rng, like=like),
        m.random_point(rng, like=like),
        Grassmann(2, 2).random_point(rng, (2,), like=like),
    )
    u = m.random_tangent(rng, x)
    same = [
        (m.exp(x @ g, u @ g), m.exp(x, u) @ g),
        (m.retract(x @ g, u @ g), m.retract(x, u) @ g),
        (m.log(x @ g, y @ h), m.log(x, y) @ g),
        (m.inverse_retract(x @ g, y @ h), m.inverse_retract(x, y) @ g),
        (m.align(x @ g, y @ h), m.align(x, y) @ g),
        (m.transport(x @ g, y @ h, u @ g), m.transport(x, y, u) @ h),
        (m.parallel_transport(x @ g, y @ h, u @ g), m.parallel_transport(x, y, u) @ h),
        (m.dist(x @ g, y @ h), m.dist(x, y)),
    ]
    for k, (got, want) in enumerate(same):
        assert np.linalg.norm(got - want) < 1e-13, k


def test_vertical_tells_costs_that_are_not_invariant(rng):
    m = Grassmann(5, 2)
    x, (a, b) = m.random_point(rng, like=np.zeros(())), rng.standard_normal((2, 5, 2))
    s = a @ b.T + b @ a.T
    assert float(m.vertical(x, 2 * s @ x)) < 1e-14
    assert float(m.vertical(x, a)) > 0.1
    flag = Flag(5, (1, 2))
    weighted = 2 * s @ x * np.array([1.0, 3.0])
    assert float(flag.vertical(x, weighted)) == 0.0
    assert float(m.vertical(x, weighted)) > 0.1


def test_the_views_as_bases_and_as_projectors_are_isometric(backend, like64, rng):
    m, q = Grassmann(5, 2), GrassmannProjectors(5, 2)
    x = m.random_point(rng, like=like64)
    u, v = (m.random_tangent(rng, x) for _ in range(2))
    u = m.scale(1.2 / m.norm(x, u), u)
    y = m.exp(x, u)
    p, r = q.of_basis(x), q.of_basis(y)
    pu, pv = q.of_lift(x, u), q.of_lift(x, v)
    moved = backend.jvp(q.of_basis, (x,), (u,))[1]
    pairs = [
        (moved, pu),
        (q.lift(x, pu), u),
        (q.inner(p, pu, pv), m.inner(x, u, v)),
        (q.exp(p, pu), r),
        (q.log(p, r), pu),
        (q.dist(p, r), m.dist(x, y)),
        (q.retract(p, pu), q.of_basis(m.retract(x, u))),
        (q.parallel_transport(p, r, pv), q.of_lift(y, m.parallel_transport(x, y, v))),
    ]
    for k, (got, want) in enumerate(pairs):
        assert np.abs(backend.to_numpy(got) - backend.to_numpy(want)).max() < 1e-14, k
    # the Hessian of tr(a P)² in either view
    a = backend.asarray(rng.standard_normal((5, 5)), like=like64)
    f = lambda k: namespace(k).sum(a * k) ** 2  # noqa: E731
    got = q.inner(p, q.hessian(f, p, pu), pv)
    want = m.inner(x, m.hessian(lambda b: f(q.of_basis(b)), x, u), v)
    assert abs(float(got) - float(want)) < 1e-12 * (1 + abs(float(want)))


@pytest.mark.parametrize("m", [Grassmann(6, 3), GrassmannProjectors(5, 2)], ids=str)
def test_parallel_transport_along_a_geodesic_has_no_tangential_derivative(m, rng):
    x = m.random_point(rng, like=np.zeros(()))
    u, v = m.random_tangent(rng, x), m.random_tangent(rng, x)
    v, t = 1.2 / m.norm(x, v) * v, np.asarray(0.6)

    def carried(t):
        return m.parallel_transport(x, m.exp(x, t * v), u)

    rate = backend_of(t).jvp(carried, (t,), (np.asarray(1.0),))[1]
    assert np.linalg.norm(m.project(m.exp(x, t * v), rate)) < 1e-13
    assert np.linalg.norm(rate) > 0.01


# -- curvature ----------------------------------------------------------------------------------------
def sectional(a, b):
    """For tangent vectors x⊥a, x⊥b (Wong 1968; Bendokat, Zimmermann & Absil 2024, §4): ⟨R(a, b)b, a⟩ over the area."""
    t = lambda k: k.conj().T  # noqa: E731
    curved = a @ t(b) @ b + b @ t(b) @ a - 2 * b @ t(a) @ b
    aa, bb, ab = (np.real(np.vdot(p, q)) for p, q in ((a, a), (b, b), (a, b)))
    return np.real(np.vdot(a, curved)) / (aa * bb - ab**2)


@pytest.mark.parametrize(
    ("n", "p", "dtype"),
    [(4, 2, float), (5, 1, float), (5, 4, float), (2, 1, complex), (4, 1, complex), (4, 2, complex)],
)
def test_curvature_bounds_are_attained_and_hold(n, p, dtype, rng):
    low, high = (float(k) for k in Grassmann(n, p).curvature_bounds(np.zeros((n, p), dtype)))
    one = np.zeros((n - p, p), dtype)
    one[0, 0] = 1
    candidates = []
    if dtype is complex:
        candidates.append((one, 1j * one))
    if n - p > 1:
        other = np.roll(one, 1, axis=0)
        candidates.append((one, other))
    if p > 1:
        candidates.append((one, np.roll(one, 1, axis=1)))
    if min(p, n - p) > 1:
        turn = np.array([[0, -1], [1, 0]], dtype)
        candidates += [(np.eye(2, dtype=dtype), turn), (one, np.roll(one, (1, 1), (0, 1)))]
    found = [sectional(*pair) for pair in candidates]
    assert abs(min(found) - low) < 1e-15 and abs(max(found) - high) < 1e-15
    for _ in range(300):
        a, b = rng.standard_normal((2, n - p, p)) + (1j * rng.standard_normal((2, n - p, p)) if dtype is complex else 0)
        assert low - 1e-9 <= sectional(a, b) <= high + 1e-9


def test_the_formula_of_the_curvature_is_that_of_geodesics(rng):
    """Geodesics from x with velocities a, b part by |a - b|² s² - ⟨R(a, b)b, a⟩ s⁴/3 + …"""
    a, b = rng.standard_normal((2, 3, 2))
    m, x = Grassmann(5, 2), np.eye(5)[:, :2]
    u, v = (np.concat([np.zeros((2, 2)), k]) for k in (a, b))
    area = np.vdot(a, a) * np.vdot(b, b) - np.vdot(a, b) ** 2
    want = -sectional(a, b) * area / 3
    errors = []
    for s in (0.02, 0.01):
        apart = float(m.squared_dist(m.exp(x, s * u), m.exp(x, s * v)))
        errors.append((apart - s**2 * np.sum((a - b) ** 2)) / s**4 - want)
    assert abs(errors[1]) < 1e-2 * abs(want)
    assert abs(errors[1]) < 0.3 * abs(errors[0])


def test_the_injectivity_radius_is_where_two_geodesics_meet(rng):
    m = Grassmann(5, 2)
    x, _, _, _ = subspaces(rng, 5, [0.0, 0.0])
    u = 2 / PI * subspaces(np.random.default_rng(0), 5, [PI / 2, 0.0])[1]
    u = u - x @ (x.T @ u)
    left, _, right = np.linalg.svd(u, full_matrices=False)
    u = np.outer(left[:, 0], right[0]) * float(m.injectivity_radius(x))
    q = GrassmannProjectors(5, 2)
    assert np.linalg.norm(q.of_basis(m.exp(x, u)) - q.of_basis(m.exp(x, -u))) < 1e-14
    assert np.linalg.norm(m.log(x, m.exp(x, 0.999 * u)) - 0.999 * u) < 1e-13
    assert float(Grassmann(3, 3).injectivity_radius(np.eye(3))) == math.inf


# -- flags --------------------------------------------------------------------------------------------
def test_a_flag_of_one_subspace_is_grassmann(rng):
    f, m = Flag(5, (2,)), Grassmann(5, 2)
    x, (a, b) = m.random_point(rng, like=np.zeros(())), rng.standard_normal((2, 5, 2))
    u = m.project(x, a)
    s = a @ a.T - b @ b.T

    def cost(q):
        return np.sum((s @ q) * q) ** 2 if isinstance(q, np.ndarray) else ((s @ q) * q).sum() ** 2

    pairs = [
        (f.project(x, a), m.project(x, a)), (f.sharp(x, a), m.sharp(x, a)), (f.exp(x, u), m.exp(x, u)),
        (f.inner(x, u, u), m.inner(x, u, u)), (f.hessian(cost, x, u), m.hessian(cost, x, u)),
        (f.align(x, m.exp(x, u) @ np.array([[0.6, -0.8], [0.8, 0.6]])), m.exp(x, u)),
    ]  # fmt: skip
    for k, (got, want) in enumerate(pairs):
        assert np.linalg.norm(got - want) < 1e-12 * (1 + np.linalg.norm(want)), k
    assert f.dim == m.dim


def test_geodesics_of_flags_against_scipy(rng):
    """[x, x⊥] exp [[a, -bᵀ], [b, 0]], for velocities of any rank; they stay horizontal, at constant speed."""
    f = Flag(6, (1, 3))
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    x = q[:, :3]
    for rank in (0, 1, 3):
        u = f.project(x, rng.standard_normal((6, rank)) @ rng.standard_normal((rank, 3)))
        a, b = x.T @ u, q[:, 3:].T @ u
        whole = np.block([[a, -b.T], [b, np.zeros((3, 3))]])
        y = f.exp(x, u)
        assert np.linalg.norm(y - (q @ scipy.linalg.expm(whole))[:, :3]) < 1e-13
        t = np.asarray(1.0)
        speed = backend_of(t).jvp(lambda t, u=u: f.exp(x, t * u), (t,), (t,))[1]
        assert np.linalg.norm(f.project(y, speed) - speed) < 1e-12
        assert abs(float(f.norm(y, speed)) - float(f.norm(x, u))) < 1e-12


def test_flags_are_independent_of_the_basis(rng):
    f = Flag(5, (1, 3))
    x, y = f.random_point(rng, (2,), like=np.zeros(()))
    g, h = (scipy.linalg.block_diag([[s]], np.linalg.qr(rng.standard_normal((2, 2)))[0]) for s in (-1, 1))
    u = f.random_tangent(rng, x)
    same = [
        (f.exp(x @ g, u @ g), f.exp(x, u) @ g), (f.retract(x @ g, u @ g), f.retract(x, u) @ g),
        (f.transport(x @ g, y @ h, u @ g), f.transport(x, y, u) @ h), (f.align(x @ g, y @ h), f.align(x, y) @ g),
    ]  # fmt: skip
    for k, (got, want) in enumerate(same):
        assert np.linalg.norm(got - want) < 1e-13, k


# -- bad input ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Grassmann, GrassmannProjectors])
@pytest.mark.parametrize(("n", "p"), [(2, 3), (3, 0), (3, -1), (3.0, 2), (3, 1.0)])
def test_bad_sizes(kind, n, p):
    with pytest.raises(ValueError, match=f"{kind.__name__}\\(n, p\\) needs integers with 1 ≤ p ≤ n"):
        kind(n, p)


@pytest.mark.parametrize("dims", [(), (0, 1), (2, 2), (2, 1), (1, 5), (1.0,), 2, [1, 2]])
def test_bad_flags(dims):
    with pytest.raises(ValueError, match="Flag\\(n, dims\\) needs"):
        Flag(4, dims)


def test_projectors_know_their_rank(backend, like64):
    x = backend.asarray(np.diag([1.0, 1.0, 0.0, 0.0]), like=like64)
    assert bool(GrassmannProjectors(4, 2).contains(x)) and not bool(GrassmannProjectors(4, 1).contains(x))
    assert not bool(GrassmannProjectors(4, 2).contains(x * float("nan")))
