"""Orthogonal and unitary groups and rigid motions against references of 50 digits, SciPy, and known facts."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation

from nestfold.backends import backend_of, namespace
from nestfold.manifolds import Orthogonal, SpecialEuclidean, SpecialOrthogonal, Stiefel, Unitary, cayley, polar, qr
from nestfold.manifolds._rotations import rotation_exp, rotation_log, rotation_root
from nestfold.manifolds._trig import cos_sinc

PI = math.pi


# -- references ---------------------------------------------------------------------------------------
def random_orthogonal(rng, n):
    return mpmath.qr(mpmath.matrix(rng.standard_normal((n, n)).tolist()), mode="skinny")[0]


def double(matrix):
    return np.array([[float(matrix[i, j]) for j in range(matrix.cols)] for i in range(matrix.rows)])


def rotation(rng, n, angles):
    """`a, e^a, e^(a/2)`, rounded from 50 digits: a turns random planes by `angles`."""
    with mpmath.workdps(50):
        q, parts = random_orthogonal(rng, n), []
        for scale in (None, mpmath.mpf(1), mpmath.mpf("0.5")):
            m = mpmath.zeros(n) if scale is None else mpmath.eye(n)
            for k, angle in enumerate(angles):
                c, s = (0, mpmath.mpf(angle)) if scale is None else mpmath.cos_sin(scale * mpmath.mpf(angle))
                i, j = 2 * k, 2 * k + 1
                m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
            parts.append(double(q * m * q.T))
    return parts


def taylor(curve, count=4):
    """Values and derivatives at t = 0 of a matrix-valued curve of mpmath: a polynomial through points near it."""
    with mpmath.workdps(150):
        h, size = mpmath.mpf(10) ** -15, count + 3
        vandermonde = mpmath.matrix(size, size)
        for i in range(size):
            for j in range(size):
                vandermonde[i, j] = mpmath.mpf(i + 1) ** j
        inverse = vandermonde**-1
        values = [curve(h * (i + 1)) for i in range(size)]
        found = []
        for k in range(count):
            series = sum((inverse[k, i] * values[i] for i in range(1, size)), inverse[k, 0] * values[0])
            found.append(double(series * (mpmath.factorial(k) / h**k)))
        return found


def derivatives(backend, f, count=4):
    """The same of a function of one number, by nested forward differentiation."""
    zero, one = (backend.asarray(np.asarray(v)) for v in (0.0, 1.0))
    found = []
    for _ in range(count):
        found.append(backend.to_numpy(f(zero)))
        f = slope(backend, f, one)
    return found


def slope(backend, f, one):
    return lambda t: backend.jvp(f, (t,), (one,))[1]


def across_backends(*cases):
    """All cases on three backends, the first one on JAX too, which compiles for ten seconds: among the slow tests."""
    quick = [(backend, *case) for case in cases for backend in ("numpy", "array_api_strict", "torch")]
    return [*quick, pytest.param("jax", *cases[0], marks=pytest.mark.slow)]


def skew_pair(rng, n):
    a, b = rng.standard_normal((2, n, n))
    return a - a.T, b - b.T


# -- values -------------------------------------------------------------------------------------------
ANGLES = [
    (2, [0.0]), (2, [1e-9]), (2, [2.0]), (2, [PI - 1e-9]),
    (3, [0.0]), (3, [1e-9]), (3, [1.0]), (3, [2.2]), (3, [PI - 1e-3]), (3, [PI - 1e-9]),
    (5, [0.0, 0.0]), (5, [1e-9, 1e-5]), (5, [1.0, 1.0]), (5, [3.0, 0.1]), (5, [PI - 1e-6, 1.0]),
    (4, [2.0, 2.0]), (4, [PI - 1e-3, PI - 1e-3]),
]  # fmt: skip


@pytest.mark.parametrize(("n", "angles"), ANGLES)
def test_exp_log_dist_and_root_at_all_angles(backend, like64, rng, n, angles):
    """To rounding; of two angles near π, to eps over what is left to 2π. SciPy's logm loses 1e-6 at π - 1e-9."""
    m = SpecialOrthogonal(n)
    x = double(random_orthogonal(rng, n))
    a, r, half = rotation(rng, n, angles)
    hx, hy, hu, hr = (backend.asarray(v, like=like64) for v in (x, x @ r, x @ a, r))
    left = 2 * PI - sum(angles) if n > 3 else 1.0
    bound = 1e-14 * (1 + 1 / min(left, 1.0))
    assert np.abs(backend.to_numpy(m.exp(hx, hu)) - x @ r).max() < 1e-14
    assert np.abs(backend.to_numpy(m.log(hx, hy)) - x @ a).max() < bound
    assert np.abs(backend.to_numpy(rotation_root(hr)) - half).max() < bound
    assert abs(float(m.dist(hx, hy)) - math.sqrt(2) * np.linalg.norm(angles)) < 1e-14


def test_small_rotations(rng):
    for n in (2, 3, 4):
        a, _, _ = rotation(rng, n, [1e-12])
        assert np.linalg.norm(rotation_log(rotation_exp(a)) - a) < 1e-15
        x = SpecialOrthogonal(n).random_point(rng, like=a)
        assert abs(float(SpecialOrthogonal(n).dist(np.eye(n), np.eye(n) + a)) - math.sqrt(2) * 1e-12) < 1e-17
        assert float(SpecialOrthogonal(n).dist(x, x)) < 1e-15


def test_rotations_of_space_against_scipy(backend, like64, rng):
    r, s = (Rotation.from_quat(q) for q in rng.standard_normal((2, 200, 4)))
    m, turn = SpecialOrthogonal(3), (r.inv() * s).as_rotvec()
    hx, hy = (backend.asarray(v.as_matrix(), like=like64) for v in (r, s))
    log = backend.to_numpy(m.log(hx, hy))
    a = r.inv().as_matrix() @ log
    assert np.abs(np.stack([a[:, 2, 1], a[:, 0, 2], a[:, 1, 0]], axis=-1) - turn).max() < 1e-13
    assert np.abs(backend.to_numpy(m.dist(hx, hy)) - math.sqrt(2) * np.linalg.norm(turn, axis=-1)).max() < 1e-13


def test_unitary_against_scipy(backend, like64, rng):
    z = rng.standard_normal((3, 4, 4)) + 1j * rng.standard_normal((3, 4, 4))
    x, y = np.linalg.qr(z[0])[0], np.linalg.qr(z[1])[0]
    a = 0.4 * (z[2] - z[2].conj().T)
    m = Unitary(4)
    hx, hy, hu = (backend.asarray(v) for v in (x, y, x @ a))
    assert np.abs(backend.to_numpy(m.exp(hx, hu)) - x @ scipy.linalg.expm(a)).max() < 1e-13
    r = x.conj().T @ y
    assert np.abs(backend.to_numpy(m.log(hx, hy)) - x @ scipy.linalg.logm(r)).max() < 1e-13
    angles = np.angle(np.linalg.eigvals(r))
    assert abs(float(m.dist(hx, hy)) - np.linalg.norm(angles)) < 1e-13


# -- derivatives --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("backend", "n", "angles"),
    across_backends((4, [0.0, 0.0]), (3, [0.0]), (3, [2.5]), (4, [1.0, 1.0]), (5, [1.0, 0.0]), (4, [2.9, 0.3])),
    indirect=["backend"],
)
def test_log_and_root_to_third_order(backend, rng, n, angles):
    """Of r e^(ta) e^(t²b) at t = 0, with r the identity, with equal angles, and with one near π."""
    _, r, _ = rotation(rng, n, angles)
    r = scipy.linalg.polar(r)[0]
    a, b = skew_pair(rng, n)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    hr, ha, hb = (backend.asarray(v) for v in (r, a, b))

    with mpmath.workdps(150):
        mr, ma, mb = (mpmath.matrix(v.tolist()) for v in (r, a, b))
        for _ in range(4):  # orthogonal to all digits
            mr = 0.5 * (mr + mr.T**-1)

    def root(t):
        y = mr * mpmath.expm(t * ma) * mpmath.expm(t * t * mb)
        w = y + mpmath.eye(n)
        for _ in range(14):  # Newton's iteration for the polar factor of I + y
            w = 0.5 * (w + w.T**-1)
        return w

    def log(t):
        # log y = 2ᵏ log y^(1/2ᵏ), and log(I + e) by its series
        w, k = root(t), 1
        while mpmath.mnorm(w - mpmath.eye(n)) > 0.02:
            e = w + mpmath.eye(n)
            for _ in range(12):
                e = 0.5 * (e + e.T**-1)
            w, k = e, k + 1
        e = (w - mpmath.eye(n)) * (w + mpmath.eye(n)) ** -1
        term, total = e, mpmath.zeros(n)
        for j in range(1, 80, 2):
            total, term = total + term / j, term * e * e
        return total * 2 ** (k + 1)

    def curve(t):
        return hr @ rotation_exp(t * ha) @ rotation_exp(t * t * hb)

    for function, reference in ((rotation_log, log), (rotation_root, root)):
        got, want = derivatives(backend, lambda t, f=function: f(curve(t))), taylor(reference)
        for order, (g, w) in enumerate(zip(got, want, strict=True)):
            assert np.linalg.norm(g - w) < 1e-12 * (1 + np.linalg.norm(w)), (function.__name__, order)


@pytest.mark.parametrize(("backend", "size"), across_backends((40.0,), (0.3,), (0.0,)), indirect=["backend"])
def test_cosine_and_sine_of_a_root_to_third_order(backend, rng, size):
    """Of a + t b at t = 0, at a = 0 and for angles up to 2π, against the exponential of [[0, -a], [I, 0]]."""
    g, b = rng.standard_normal((2, 3, 3))
    a = size * g @ g.T / np.linalg.norm(g @ g.T)
    b = b + b.T
    ha, hb = (backend.asarray(v) for v in (a, b))

    def reference(t):
        m = mpmath.zeros(6)
        for i in range(3):
            m[3 + i, i] = mpmath.mpf(1)
            for j in range(3):
                m[i, 3 + j] = -(mpmath.mpf(float(a[i, j])) + t * mpmath.mpf(float(b[i, j])))
        e = mpmath.expm(m)
        return mpmath.matrix([[e[i, j] for j in range(3)] for i in range(6)])

    want = taylor(reference)
    got = derivatives(backend, lambda t: namespace(t).concat(list(cos_sinc(ha + t * hb)), axis=-2))
    for order, (x, y) in enumerate(zip(got, want, strict=True)):
        assert np.linalg.norm(x - y) < 1e-12 * (1 + np.linalg.norm(y)), order


@pytest.mark.parametrize(
    "m", [SpecialOrthogonal(3), SpecialOrthogonal(4), Unitary(3), SpecialEuclidean(2)], ids=lambda m: str(m)
)
def test_parallel_transport_along_a_geodesic_has_no_tangential_derivative(m, rng):
    like = np.zeros((), complex) if isinstance(m, Unitary) else np.zeros(())
    x = m.random_point(rng, like=like)
    u, v = m.random_tangent(rng, x), m.random_tangent(rng, x)
    v = 2.0 / m.norm(x, v) * v
    t = np.asarray(0.6)

    def carried(t):
        return m.parallel_transport(x, m.exp(x, t * v), u)

    rate = backend_of(t).jvp(carried, (t,), (np.asarray(1.0),))[1]
    assert np.linalg.norm(m.project(m.exp(x, t * v), rate)) < 1e-13
    assert np.linalg.norm(rate) > 0.01


# -- facts --------------------------------------------------------------------------------------------
def test_components_of_the_orthogonal_group(backend, like64, rng):
    m = Orthogonal(3)
    x = m.random_point(rng, (400,), like=like64)
    signs = np.linalg.det(backend.to_numpy(x))
    assert 120 < (signs > 0).sum() < 280
    rotations = SpecialOrthogonal(3).random_point(rng, (400,), like=like64)
    assert np.abs(np.linalg.det(backend.to_numpy(rotations)) - 1).max() < 1e-14
    y = backend.asarray(backend.to_numpy(x) * np.array([1.0, 1.0, -1.0]), like=like64)
    assert np.all(np.isinf(backend.to_numpy(m.dist(x, y))))
    assert np.all(np.isnan(backend.to_numpy(m.log(x, y))))
    assert float(backend.to_numpy(SpecialOrthogonal(3).defect(y)).min()) < 1e-14
    assert abs(float(backend.to_numpy(SpecialOrthogonal(3).defect(y)).max()) - 2) < 1e-14


@pytest.mark.parametrize("n", [2, 3, 4])
def test_random_rotations_are_uniform(n, rng):
    """Moments of the trace over SO(n): E tr = 0, E tr² = 1 (2 for n = 2), and left translation changes neither."""
    x = SpecialOrthogonal(n).random_point(rng, (40000,), like=np.zeros(()))
    for fixed in (np.eye(n), rotation(rng, n, [1.0])[1]):
        trace = np.trace(fixed @ x, axis1=1, axis2=2)
        assert abs(trace.mean()) < 0.03
        assert abs((trace**2).mean() - (2 if n == 2 else 1)) < 0.06


def sectional(a, b):
    """|[a, b]|²/4 over the area of the parallelogram: a bi-invariant metric (Milnor 1976, §7)."""
    aa, bb, ab = (np.real(np.vdot(p, q)) for p, q in ((a, a), (b, b), (a, b)))
    return 0.25 * np.linalg.norm(a @ b - b @ a) ** 2 / (aa * bb - ab**2)


def basis(n, i, j):
    e = np.zeros((n, n))
    e[i, j], e[j, i] = -1.0, 1.0
    return e


def test_curvature_bounds_are_attained_and_hold(rng):
    # two pairs of orthogonal planes of 4-space: left multiplications by the quaternions i and j
    i4, j4 = basis(4, 0, 1) + basis(4, 2, 3), basis(4, 0, 2) - basis(4, 1, 3)
    sigma = [1j * np.array([[0, 1], [1, 0]]), 1j * np.array([[0, -1j], [1j, 0]])]
    extremes = {
        SpecialOrthogonal(3): [(basis(3, 0, 1), basis(3, 0, 2))],
        Orthogonal(4): [(basis(4, 0, 1), basis(4, 2, 3)), (i4, j4)],
        Unitary(2): [(1j * np.eye(2), sigma[0]), tuple(sigma)],
    }
    for m, pairs in extremes.items():
        low, high = (float(k) for k in m.curvature_bounds(np.eye(m.n)))
        found = [sectional(*pair) for pair in pairs]
        assert abs(min(found) - low) < 1e-15 and abs(max(found) - high) < 1e-15
        for _ in range(300):
            a, b = skew_pair(rng, m.n)
            if isinstance(m, Unitary):
                c, d = rng.standard_normal((2, m.n, m.n))
                a, b = a + 1j * (c + c.T), b + 1j * (d + d.T)
            assert low - 1e-12 <= sectional(a, b) <= high + 1e-12


@pytest.mark.parametrize("m", [SpecialOrthogonal(2), SpecialOrthogonal(3), SpecialOrthogonal(5), Unitary(3)], ids=str)
def test_the_injectivity_radius_is_where_two_geodesics_meet(m, rng):
    like = np.zeros((), complex) if isinstance(m, Unitary) else np.zeros(())
    x, radius = m.random_point(rng, like=like), float(m.injectivity_radius(np.eye(m.n)))
    one = basis(m.n, 0, 1) / math.sqrt(2)
    if isinstance(m, Unitary):
        one = 1j * np.diag(np.eye(m.n)[0])
    assert np.linalg.norm(m.exp(x, radius * x @ one) - m.exp(x, -radius * x @ one)) < 1e-14
    inside = 0.999 * radius * x @ one
    assert np.linalg.norm(m.log(x, m.exp(x, inside)) - inside) < 1e-13
    for _ in range(20):
        u = m.random_tangent(rng, x)
        u = 0.999 * radius / m.norm(x, u) * u
        assert np.linalg.norm(m.log(x, m.exp(x, u)) - u) < 1e-12


@pytest.mark.parametrize("retraction", [cayley, polar, qr], ids=["cayley", "polar", "qr"])
def test_retractions_are_those_of_square_stiefel(retraction, rng):
    for n in (2, 3, 5):
        m, s = SpecialOrthogonal(n, retraction), Stiefel(n, n, retraction)
        x = m.random_point(rng, like=np.zeros(()))
        u = 0.5 * m.random_tangent(rng, x)
        assert np.linalg.norm(m.retract(x, u) - s.retract(x, u)) < 1e-14
        assert np.linalg.norm(m.inverse_retract(x, m.retract(x, u)) - u) < 1e-13


def test_float32_points_are_at_no_distance_from_themselves(backend, like32, rng):
    for m in (SpecialOrthogonal(3), SpecialOrthogonal(6)):
        x = m.random_point(rng, (50,), like=like32)
        assert m.dist(x, x).dtype == x.dtype
        assert float(backend.to_numpy(m.dist(x, x)).max()) < 5e-6


# -- rigid motions ------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_rigid_motions_are_a_product_and_left_invariant(backend, like64, rng, n):
    m, so = SpecialEuclidean(n), SpecialOrthogonal(n)
    x, y, g = (m.random_point(rng, like=like64) for _ in range(3))
    u = m.random_tangent(rng, x)
    a, b, v = (backend.to_numpy(k) for k in (x, y, u))
    want = np.eye(n + 1)
    want[:n, :n] = so.exp(a[:n, :n], v[:n, :n])
    want[:n, n] = a[:n, n] + v[:n, n]
    assert np.abs(backend.to_numpy(m.exp(x, u)) - want).max() < 1e-14
    squared = float(so.squared_dist(a[:n, :n], b[:n, :n])) + np.sum((a - b)[:n, n] ** 2)
    assert abs(float(m.squared_dist(x, y)) - squared) < 1e-13 * (1 + squared)
    assert abs(float(m.dist(g @ x, g @ y)) - float(m.dist(x, y))) < 1e-13 * (1 + squared)
    assert abs(float(m.inner(g @ x, g @ u, g @ u)) - float(m.inner(x, u, u))) < 1e-13 * float(m.inner(x, u, u))


@pytest.mark.parametrize(("backend", "n"), across_backends((4,), (1,), (2,), (3,)), indirect=["backend"])
def test_screw_motions_against_scipy(backend, like64, rng, n):
    m = SpecialEuclidean(n)
    x = m.random_point(rng, like=like64)
    u = m.random_tangent(rng, x)
    u = 1.5 / m.norm(x, u) * u
    a, v = backend.to_numpy(x), backend.to_numpy(u)
    y = backend.to_numpy(m.group_exp(x, u))
    assert np.abs(y - a @ scipy.linalg.expm(np.linalg.solve(a, v))).max() < 1e-13
    assert np.abs(backend.to_numpy(m.group_log(x, m.group_exp(x, u))) - v).max() < 1e-13
    assert np.abs(backend.to_numpy(m.group_log(x, x))).max() < 1e-14
    # a pure translation and its derivative, where the rotation is the identity
    moved = backend.jvp(lambda t: m.group_log(x, m.group_exp(x, t * u)), (0.0 * like64,), (1.0 + 0.0 * like64,))[1]
    assert np.abs(backend.to_numpy(moved) - v).max() < 1e-13


# -- bad input ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Orthogonal, SpecialOrthogonal, Unitary, SpecialEuclidean])
@pytest.mark.parametrize("n", [0, -1, 2.0, "3"])
def test_bad_sizes(kind, n):
    with pytest.raises(ValueError, match=f"{kind.__name__}\\(n\\) needs an integer n ≥ 1"):
        kind(n)


def test_bad_retraction():
    with pytest.raises(ValueError, match="cayley, polar, qr or another Retraction"):
        SpecialOrthogonal(3, lambda x, u: x + u)  # pyright: ignore[reportArgumentType]


def test_points_that_are_not_finite_are_no_points(like64, backend):
    x = backend.asarray(np.full((3, 3), np.nan), like=like64)
    assert not bool(Orthogonal(3).contains(x)) and not bool(SpecialOrthogonal(3).contains(x))
    z = backend.asarray(np.array([[1.0, 0, np.inf], [0, 1, 0], [0, 0, 1]]), like=like64)
    assert not bool(SpecialEuclidean(2).contains(z))
