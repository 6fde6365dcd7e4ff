"""Manifolds of low rank against mpmath, SciPy and dense matrices; their solutions and derivatives."""

from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg

import nestfold as nf
from nestfold.backends import NoDerivativeError, namespace
from nestfold.manifolds import Elliptope, FixedRank, PSDFixedRank, Spectrahedron
from nestfold.manifolds._procrustes import lyapunov, polar_factor, vertical_part
from nestfold.testing.cases import CASES, gram_cost
from nestfold.testing.laws import check_manifold

FACTORED = [PSDFixedRank(6, 3), Spectrahedron(6, 3), Elliptope(6, 3)]
NAMES = ["PSD of fixed rank", "complex PSD of fixed rank", "spectrahedron", "elliptope", "fixed rank"]


def of(name):
    """`manifold, cost, like` of a case."""
    case: Any = CASES[name]
    like: Any = case.like(np.zeros(()))
    manifold: Any = case.make(like)
    return manifold, case.cost, like


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def orthogonal(rng, k, dtype=np.float64):
    a = rng.standard_normal((k, k))
    return np.linalg.qr(a if dtype is np.float64 else a + 1j * rng.standard_normal((k, k)))[0]


def with_values(rng, n, values, dtype=np.float64):
    """An n × k matrix with these singular values."""
    return orthogonal(rng, n, dtype)[:, : len(values)] * np.asarray(values) @ orthogonal(rng, len(values), dtype)


def noise(rng, shape, dtype):
    a = rng.standard_normal(shape)
    return a if dtype is np.float64 else a + 1j * rng.standard_normal(shape)


# -- polar factors and Lyapunov equations -----------------------------------------------------------------
def exact(a):
    return mpmath.matrix(np.asarray(a).tolist())


def exact_polar(m):
    """m (mᴴm)^(-1/2) in the precision of mpmath."""
    e, v = mpmath.eighe(m.H * m) if any(mpmath.im(a) for a in m) else mpmath.eigsy(m.T * m)
    return m * v * mpmath.diag([1 / mpmath.sqrt(a) for a in e]) * v.H


def to_float(m, dtype):
    read = complex if dtype is np.complex128 else float
    return np.array([[read(m[i, j]) for j in range(m.cols)] for i in range(m.rows)])


MATRICES = {
    "2 x 2": (2, [3.0, 0.5], np.float64),
    "2 x 2, equal": (2, [1.5, 1.5], np.float64),
    "3 x 3": (3, [2.0, 1.0, 0.3], np.float64),
    "3 x 3, equal": (3, [2.0, 2.0, 2.0], np.float64),
    "5 x 3, a pair": (5, [2.0, 0.7, 0.7], np.float64),
    "one column": (4, [1.7], np.float64),
    "complex 2 x 2": (2, [1.5, 1.5], np.complex128),
    "complex 4 x 3": (4, [2.0, 2.0, 0.7], np.complex128),
}


#: all of them on each backend, on JAX, which compiles for seconds, one
PAIRS = [(b, name) for b in ("numpy", "array_api_strict", "torch") for name in MATRICES] + [("jax", "5 x 3, a pair")]


@pytest.mark.parametrize(("backend", "name"), PAIRS, indirect=["backend"])
def test_polar_factor_to_third_order(name, backend, like64):
    """Value and three derivatives along a line, forwards and backwards, at equal singular values too."""
    n, values, dtype = MATRICES[name]
    rng = np.random.default_rng(5)
    m, e, c = with_values(rng, n, values, dtype), *(noise(rng, (n, len(values)), dtype) for _ in range(2))
    with mpmath.workdps(60):
        mm, me, mc = exact(m), exact(e), exact(c)

        def line(t):
            q = exact_polar(mm + t * me)
            return sum(mpmath.re(mpmath.conj(a) * b) for a, b in zip(mc, q, strict=True))

        want = [float(mpmath.diff(line, 0, k, h=mpmath.mpf(10) ** -12)) for k in range(4)]
        value = to_float(exact_polar(mm), dtype)
    here_m, here_e, here_c = (backend.asarray(a) for a in (m, e, c))
    assert relative(backend.to_numpy(polar_factor(here_m)), value) < 1e-14

    def f(t):
        xp = namespace(t)
        q = polar_factor(here_m + t * here_e)
        return xp.sum(xp.real(xp.conj(here_c) * q)) if dtype is np.complex128 else xp.sum(here_c * q)

    def slope(g):
        return lambda t: nf.jvp(g, (t,), (namespace(t).ones_like(t),))[1]

    reverse = [f, nf.grad(f), nf.grad(nf.grad(f)), nf.grad(nf.grad(nf.grad(f)))]
    forward = [f, slope(f), slope(slope(f)), slope(slope(slope(f)))]
    found = backend.jit(lambda t: [g(t) for g in reverse + forward])(like64)
    np.testing.assert_allclose([float(backend.to_numpy(a)) for a in found], 2 * want, rtol=3e-13, atol=3e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("k", [2, 3, 6])
def test_polar_factor_of_condition_one_hundred(k, dtype, rng):
    m = with_values(rng, k, np.geomspace(1, 1e-2, k), dtype)
    with mpmath.workdps(50):
        want = to_float(exact_polar(exact(m)), dtype)
    assert relative(polar_factor(m), want) < 3e-14


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_lyapunov_against_scipy(k, dtype, rng):
    """gΩ + Ωg = c for a batch, and its derivative in g and c."""
    g = [with_values(rng, k, np.geomspace(2, 0.2, k), dtype) for _ in range(3)]
    g = np.stack([a @ a.conj().T for a in g])
    c = noise(rng, (3, k, k), dtype)
    c = c - c.conj().mT
    solution = np.stack([scipy.linalg.solve_continuous_lyapunov(a, b) for a, b in zip(g, c, strict=True)])
    np.testing.assert_allclose(lyapunov(g, c), solution, rtol=1e-12, atol=1e-12)
    dg, dc = noise(rng, (3, k, k), dtype), noise(rng, (3, k, k), dtype)
    dg, dc = dg + dg.conj().mT, dc - dc.conj().mT
    moved = nf.jvp(lyapunov, (g, c), (dg, dc))[1]
    np.testing.assert_allclose(g @ moved + moved @ g, dc - dg @ solution - solution @ dg, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_horizontal_projection_at_condition_one_hundred(k, rng):
    x, a = with_values(rng, 7, np.geomspace(1, 1e-2, k) if k > 1 else [0.3]), rng.standard_normal((7, k))
    with mpmath.workdps(50):
        mx, ma = exact(x), exact(a)
        g, c = mx.T * mx, mx.T * ma - ma.T * mx
        eye = mpmath.eye(k)
        system = mpmath.zeros(k * k)
        for i in range(k):
            for j in range(k):
                for p in range(k):
                    for q in range(k):
                        system[i * k + j, p * k + q] = g[i, p] * eye[j, q] + eye[i, p] * g[q, j]
        omega = mpmath.lu_solve(system, mpmath.matrix([c[i, j] for i in range(k) for j in range(k)]))
        want = to_float(mx * exact_square(omega, k), np.float64)
    assert np.linalg.norm(vertical_part(x, a) - want) < 1e-12 * np.linalg.norm(a)


def exact_square(vector, k):
    return mpmath.matrix([[vector[i * k + j] for j in range(k)] for i in range(k)])


# -- every manifold -----------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [PSDFixedRank, Spectrahedron, Elliptope])
@pytest.mark.parametrize("sizes", [(2, 3), (0, 0), (3, 0), (3.0, 2), (3, -1)])
def test_bad_sizes(make, sizes):
    with pytest.raises(ValueError, match=make.__name__):
        make(*sizes)


@pytest.mark.parametrize("sizes", [(2, 5, 3), (5, 2, 3), (3, 3, 0), (3, 2.0, 1)])
def test_bad_sizes_of_fixed_rank(sizes):
    with pytest.raises(ValueError, match="FixedRank"):
        FixedRank(*sizes)


@pytest.mark.parametrize("manifold", FACTORED, ids=str)
def test_defect(manifold, backend, rng, like64):
    """0 on the manifold; a dependent column, a scaled point, or NaN is noticed, each entry by itself."""
    x = np.array(backend.to_numpy(manifold.random_point(rng, (4,), like=like64)))
    x[1, :, 2] = 2 * x[1, :, 1]
    x[2] *= 1.1
    x[3, 0, 0] = np.nan
    found = backend.to_numpy(manifold.defect(backend.asarray(x)))
    assert found[0] < 1e-14 and found[1] >= 1 and not found[3] < 1
    assert found[2] == 0 if isinstance(manifold, PSDFixedRank) else found[2] > 0.1


def test_random_points_are_well_conditioned(rng):
    """Singular values of square factors stay within a factor of 20 of each other; k ≪ n: of 3."""
    for manifold, limit in [(PSDFixedRank(4, 4), 20), (PSDFixedRank(40, 4), 3), (Elliptope(4, 4), 20)]:
        values = np.linalg.svdvals(manifold.random_point(rng, (2000,), like=np.zeros(())))
        assert np.max(values[:, 0] / values[:, -1]) < limit


@pytest.mark.parametrize("name", NAMES)
def test_covectors_of_invariant_costs_have_no_vertical_part(name, rng):
    m, cost, like = of(name)
    x, a, b = (m.random_point(rng, (2,), like=like) for _ in range(3))
    w = nf.grad(lambda p: namespace(cost(p, a, b)).sum(cost(p, a, b)))(x)
    size = np.sqrt(m.pair(w, w))
    assert np.all(m.vertical(x, w) < 1e-12 * size)
    assert np.all(m.vertical(x, a) > 1e-3)


@pytest.mark.parametrize("manifold", FACTORED, ids=str)
def test_the_vertical_part_is_what_the_projection_takes_away(manifold, rng):
    x = manifold.random_point(rng, like=np.zeros(()))
    skew = rng.standard_normal((3, 3))
    skew = skew - skew.T
    np.testing.assert_allclose(manifold.vertical(x, x @ skew), np.linalg.norm(x @ skew), rtol=1e-13)
    assert np.linalg.norm(manifold.project(x, x @ skew)) < 1e-13 * np.linalg.norm(x @ skew)
    # of any ambient array: pymanopt's Elliptope (2.2.1) has the wrong sign here
    product = x.T @ manifold.project(x, rng.standard_normal((6, 3)))
    np.testing.assert_allclose(product, product.T, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_alignment_undoes_the_group(name, rng):
    """Align(x, x q) = x."""
    m, _, like = of(name)
    x = m.random_point(rng, like=like)
    dtype = like.dtype.type
    if isinstance(m, FixedRank):
        p, q = orthogonal(rng, 2), orthogonal(rng, 2)
        y = {"u": x["u"] @ p, "s": p.T @ x["s"] @ q, "v": x["v"] @ q}
        aligned = m.align(x, y)
        assert max(relative(aligned[key], x[key]) for key in x) < 1e-13
    else:
        assert relative(m.align(x, x @ orthogonal(rng, m.k, dtype)), x) < 1e-13


EXTREMES = [
    (PSDFixedRank(3, 1), np.complex128),
    (PSDFixedRank(3, 3), np.float64),
    (Spectrahedron(4, 2), np.complex128),
    (Spectrahedron(3, 3), np.float64),
    (Elliptope(4, 2), np.complex128),
    (Elliptope(3, 3), np.float64),
    (FixedRank(4, 3, 2), np.complex128),
    (FixedRank(3, 3, 3), np.float64),
    (FixedRank(4, 1, 1), np.float64),
]


@pytest.mark.parametrize(("manifold", "dtype"), EXTREMES, ids=str)
def test_laws_for_complex_factors_and_extreme_ranks(manifold, dtype, rng):
    cost = CASES["fixed rank"].cost if isinstance(manifold, FixedRank) else gram_cost
    check_manifold(manifold, np.zeros((), dtype), rng, cost=cost, retraction_order=2, reach=0.1)


# -- distances and curvature ------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_distances_are_those_of_bures(k, dtype, rng):
    """tr a + tr b - 2F, F = tr (a^½ b a^½)^½, and acos F, from the dense matrices to 50 digits."""
    x, y = noise(rng, (4, k), dtype), noise(rng, (4, k), dtype)
    with mpmath.workdps(50):
        mx, my = exact(x), exact(y)
        values = mpmath.svd_c(mx.H * my, compute_uv=False)
        fidelity = sum(values)
        size_x, size_y = (sum(abs(a) ** 2 for a in m) for m in (mx, my))
        bures = float(mpmath.sqrt(size_x + size_y - 2 * fidelity))
        angle = float(mpmath.acos(fidelity / mpmath.sqrt(size_x * size_y)))
    np.testing.assert_allclose(PSDFixedRank(4, k).dist(x, y), bures, rtol=1e-13)
    there, here = x / np.linalg.norm(x), y / np.linalg.norm(y)
    np.testing.assert_allclose(Spectrahedron(4, k).dist(there, here), angle, rtol=1e-13)
    dense = scipy.linalg.sqrtm(x @ x.conj().T + 0j)
    again = np.trace(scipy.linalg.sqrtm(dense @ (y @ y.conj().T) @ dense + 0j)).real
    np.testing.assert_allclose(float(fidelity), again, rtol=1e-6)


@pytest.mark.parametrize("manifold", [PSDFixedRank(5, 3), Spectrahedron(5, 3)], ids=str)
def test_the_distance_of_close_points_in_single_precision(manifold, backend, like32, rng):
    x = manifold.random_point(rng, like=like32)
    u = manifold.random_tangent(rng, x)
    y = manifold.exp(x, manifold.scale(1e-3 / manifold.norm(x, u), u))
    np.testing.assert_allclose(backend.to_numpy(manifold.dist(x, y)), 1e-3, rtol=3e-3)
    gradient = backend.to_numpy(manifold.gradient(lambda p: manifold.dist(p, x), y))
    np.testing.assert_allclose(np.linalg.norm(gradient), 1, rtol=3e-3)


def sectional(manifold, x, u, v, t):
    """K of orthonormal u, v: dist(exp tu, exp tv)² = t²|u - v|² - K t⁴/3 + …, extrapolated from two t."""

    def at(t):
        return 3 * (2 * t**2 - manifold.squared_dist(manifold.exp(x, t * u), manifold.exp(x, t * v))) / t**4

    return (4 * at(t) - at(2 * t)) / 3


def orthonormal_pair(manifold, x, u, v):
    u = manifold.project(x, u)
    u = u / np.linalg.norm(u)
    v = manifold.project(x, v)
    v = v - np.sum(np.conj(u) * v).real * u
    return u, v / np.linalg.norm(v)


@pytest.mark.parametrize("make", [PSDFixedRank, Spectrahedron])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_curvature_bounds(make, dtype, rng):
    """They hold for random planes, and are attained by a plane normal to the range of x."""
    m = make(6, 3)
    x = with_values(rng, 6, [1.0, 0.8, 0.6], dtype)
    x = x / np.linalg.norm(x) if make is Spectrahedron else x
    low, high = m.curvature_bounds(x)
    for _ in range(100):
        u, v = orthonormal_pair(m, x, noise(rng, (6, 3), dtype), noise(rng, (6, 3), dtype))
        assert low - 1e-3 <= sectional(m, x, u, v, 0.02) <= high + 1e-3
    left, _, right = np.linalg.svd(x)
    u = left[:, 4:5] @ right[2:3]
    v = 1j * u if dtype is np.complex128 else left[:, 4:5] @ right[1:2]
    u, v = orthonormal_pair(m, x, u, v)
    np.testing.assert_allclose(sectional(m, x, u, v, 0.02), high, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 0.0), (np.complex128, 3 / 4)])
def test_curvature_of_rank_one(dtype, bound, rng):
    """Vectors modulo a sign are flat; modulo a phase, and of unit length, they are the complex projective space."""
    x = noise(rng, (4, 1), dtype)
    x = x / np.linalg.norm(x)
    np.testing.assert_allclose(PSDFixedRank(4, 1).curvature_bounds(2 * x), (0.0, bound))
    np.testing.assert_allclose(Spectrahedron(4, 1).curvature_bounds(x), (1.0, 1.0 if dtype is np.float64 else 4.0))
    np.testing.assert_allclose(Spectrahedron(4, 1).injectivity_radius(x), np.pi / 2, rtol=1e-14)


@pytest.mark.parametrize("make", [PSDFixedRank, Spectrahedron])
def test_the_injectivity_radius(make, rng):
    """Towards lower rank, log undoes exp up to the radius; there the rank drops, and beyond, it does not."""
    m = make(5, 3)
    x = with_values(rng, 5, [1.0, 0.8, 0.3])
    x = x / np.linalg.norm(x) if make is Spectrahedron else x
    radius = m.injectivity_radius(x)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    u = -left[:, 2:] @ right[2:]
    u = u - np.sum(u * x) * x if make is Spectrahedron else u
    u = u / np.linalg.norm(u)
    np.testing.assert_allclose(m.project(x, u), u, atol=1e-14)
    within, beyond = 0.99 * radius * u, 1.01 * radius * u
    assert np.linalg.svdvals(m.exp(x, radius * u))[-1] < 1e-14
    np.testing.assert_allclose(m.log(x, m.exp(x, within)), within, atol=1e-13)
    assert np.linalg.norm(m.log(x, m.exp(x, beyond)) - beyond) > 1e-3
    for _ in range(50):
        v = m.random_tangent(rng, x)
        v = 0.999 * radius * v / np.linalg.norm(v)
        np.testing.assert_allclose(m.log(x, m.exp(x, v)), v, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
def test_third_derivatives_of_the_squared_distance_where_points_meet(backend, like64, rng):
    """Along x + tu + t²a, y + tv, with x = y and equal singular values: against mpmath."""
    x = with_values(rng, 4, [2.0, 2.0, 2.0])
    u, a, v = rng.standard_normal((3, 4, 3))
    with mpmath.workdps(60):
        mx, mu, ma, mv = map(exact, (x, u, a, v))

        def line(t):
            p, q = mx + t * mu + t * t * ma, mx + t * mv
            off = q * exact_polar(q.T * p) - p
            return sum(b * b for b in off)

        want = [float(mpmath.diff(line, 0, k, h=mpmath.mpf(10) ** -12)) for k in range(4)]
    x, u, a, v = (backend.asarray(b, like=like64) for b in (x, u, a, v))

    def f(t):
        return PSDFixedRank(4, 3).squared_dist(x + t * u + t * t * a, x + t * v)

    ways = [f, nf.grad(f), nf.grad(nf.grad(f)), nf.grad(nf.grad(nf.grad(f)))]
    found = [float(backend.to_numpy(g(like64))) for g in ways]
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)


def test_elliptope_geodesics_stay_horizontal_and_are_no_shorter_than_dense_ones(rng):
    """The velocity of exp is horizontal all along, of constant length, and its Gram matrix has a unit diagonal."""
    m = Elliptope(6, 3)
    x = m.random_point(rng, like=np.zeros(()))
    u = m.random_tangent(rng, x)
    for t in (0.2, 0.5, 0.9):
        y, v = nf.jvp(lambda s: m.exp(x, s * u), (np.asarray(t),), (np.asarray(1.0),))
        np.testing.assert_allclose(m.project(y, v), v, atol=1e-13)
        np.testing.assert_allclose(np.linalg.norm(v), np.linalg.norm(u), rtol=1e-13)
        np.testing.assert_allclose(np.diagonal(y @ y.T), 1, rtol=1e-13)


# -- matrices of fixed rank, against dense ones -----------------------------------------------------------
def dense(x, h):
    """The tangent matrix that `h` stands for."""
    u, s, v = x["u"], x["s"], x["v"].conj().mT
    return h["u"] @ s @ v + u @ h["s"] @ v + u @ s @ h["v"].conj().mT


def tangent_part(x, a):
    """The embedded projection of a dense matrix."""
    left, right = x["u"] @ x["u"].conj().mT, x["v"] @ x["v"].conj().mT
    return left @ a + a @ right - left @ a @ right


def entry_products(rng, m, n):
    """F(X) = Σ c X + d X²/2 + e X³/6, entry by entry, with its gradient and Hessian."""
    c, d, e = rng.standard_normal((3, m, n))
    return (
        lambda a: namespace(a).sum(c * a + d * a**2 / 2 + e * a**3 / 6, axis=(-2, -1)),
        lambda a: c + d * a + e * a**2 / 2,
        lambda a, h: (d + e * a) * h,
    )


@pytest.mark.parametrize(("m", "n", "k"), [(6, 5, 2), (4, 4, 3), (3, 5, 1), (4, 4, 4)])
def test_gradient_and_hessian_are_those_of_the_embedded_matrices(m, n, k, rng):
    """Hess F(X)[H] = P(F''[H]) + P_u^⊥ (W V_p) S⁻¹ Vᵀ + …: Vandereycken 2013, in dense matrices."""
    manifold = FixedRank(m, n, k)
    x = manifold.random_point(rng, like=np.zeros(()))
    h = manifold.random_tangent(rng, x)
    value, gradient, hessian = entry_products(rng, m, n)
    matrix = manifold.to_matrix(x)
    w = gradient(matrix)
    u, s, v = x["u"], x["s"], x["v"]
    off_u, off_v = np.eye(m) - u @ u.T, np.eye(n) - v @ v.T
    want = tangent_part(x, hessian(matrix, dense(x, h)))
    want = want + off_u @ w @ (h["v"] @ s.T) @ np.linalg.inv(s).T @ np.linalg.inv(s) @ s @ v.T
    want = want + u @ s @ np.linalg.inv(s) @ np.linalg.inv(s).T @ (s.T @ h["u"].T) @ w @ off_v
    found = manifold.hessian(lambda p: value(manifold.to_matrix(p)), x, h)
    assert relative(dense(x, manifold.gradient(lambda p: value(manifold.to_matrix(p)), x)), tangent_part(x, w)) < 1e-13
    assert relative(dense(x, found), want) < 1e-12


def test_the_metric_transport_and_retraction_are_those_of_the_embedded_matrices(backend, like64, rng):
    m = FixedRank(6, 5, 2)
    x, y = m.random_point(rng, (3,), like=like64), m.random_point(rng, (3,), like=like64)
    u, v = m.random_tangent(rng, x), m.random_tangent(rng, x)
    z = m.retract(x, m.scale(0.3, u))
    inner, moved, back, apart = m.inner(x, u, v), m.transport(x, y, u), m.inverse_retract(x, z), m.vertical(x, u)
    x, y, u, v, z, moved, back = (
        {key: backend.to_numpy(a) for key, a in t.items()} for t in (x, y, u, v, z, moved, back)
    )
    du, dv, x_dense, z_dense = dense(x, u), dense(x, v), m.to_matrix(x), m.to_matrix(z)
    np.testing.assert_allclose(backend.to_numpy(inner), np.sum(du * dv, axis=(-2, -1)), rtol=1e-12)
    np.testing.assert_allclose(dense(y, moved), tangent_part(y, du), atol=1e-12)
    np.testing.assert_allclose(tangent_part(x, z_dense - x_dense), 0.3 * du, atol=1e-13)
    np.testing.assert_allclose(dense(x, back), 0.3 * du, atol=1e-13)
    assert np.all(np.linalg.svdvals(z_dense)[..., 2:] < 1e-14)
    assert backend.to_numpy(apart).shape == (3,)


def test_the_retraction_is_of_second_order_like_the_metric_projection(rng):
    """R(tu) - P(X + tu) = O(t³), P by a truncated singular value decomposition."""
    m = FixedRank(6, 5, 2)
    x = m.random_point(rng, like=np.zeros(()))
    u = m.random_tangent(rng, x)

    def gap(t):
        left, values, right = np.linalg.svd(m.to_matrix(x) + t * dense(x, u))
        return np.linalg.norm(m.to_matrix(m.retract(x, m.scale(t, u))) - left[:, :2] * values[:2] @ right[:2])

    assert 7.5 < gap(0.02) / gap(0.01) < 8.5


def test_factors_stay_orthonormal(rng):
    """Rounding does not add up over a thousand steps."""
    m = FixedRank(8, 6, 2)
    x = m.random_point(rng, like=np.zeros(()))
    for _ in range(1000):
        u = m.random_tangent(rng, x)
        x = m.retract(x, m.scale(0.1 / m.norm(x, u), u))
    assert m.defect(x) < 1e-14


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_matrices_products_and_entries(dtype, backend, rng):
    m = FixedRank(6, 5, 2)
    like = backend.asarray(np.zeros((), dtype))
    x = m.random_point(rng, (3,), like=like)
    matrix = backend.to_numpy(m.to_matrix(x))
    b = noise(rng, (3, 5), dtype)
    rows, columns = np.array([0, 5, 2, 2]), np.array([4, 0, 1, 1])
    found = m.entries(x, backend.asarray(rows), backend.asarray(columns))
    np.testing.assert_allclose(backend.to_numpy(found), matrix[:, rows, columns], atol=1e-13)
    product = backend.to_numpy(m.apply(x, backend.asarray(b)))
    np.testing.assert_allclose(product, (matrix @ b[..., None])[..., 0], atol=1e-13)
    again = m.from_matrix(m.to_matrix(x))
    m.check_point(again)
    np.testing.assert_allclose(backend.to_numpy(m.to_matrix(again)), matrix, atol=1e-13)


def test_the_nearest_matrix_has_no_silent_derivative(rng):
    m = FixedRank(4, 3, 2)
    with pytest.raises(NoDerivativeError, match="from_matrix"):
        nf.grad(lambda a: namespace(a).sum(m.to_matrix(m.from_matrix(a))))(rng.standard_normal((4, 3)))


def test_the_metric_of_complex_matrices(rng):
    m = FixedRank(5, 4, 2)
    x = m.random_point(rng, like=np.zeros((), np.complex128))
    u = m.random_tangent(rng, x)
    np.testing.assert_allclose(m.inner(x, u, u), np.linalg.norm(dense(x, u)) ** 2, rtol=1e-13)


# -- solutions ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_matrix_completion(backend, like64):
    """A 50 × 40 matrix of rank 2 is found again from 60 % of its entries, never formed."""
    rng = np.random.default_rng(0)
    m = FixedRank(50, 40, 2)
    truth = rng.standard_normal((50, 2)) @ rng.standard_normal((2, 40))
    mask = rng.uniform(size=(50, 40)) < 0.6
    rows, columns = (backend.asarray(a) for a in np.nonzero(mask))
    seen = backend.asarray(truth[mask], like=like64)

    def cost(x):
        off = m.entries(x, rows, columns) - seen
        return 0.5 * namespace(off).sum(off * off)

    start = m.from_matrix(backend.asarray(np.where(mask, truth, 0.0) / 0.6, like=like64))
    found = nf.solve(nf.Argmin(cost, m), init=start, solver=nf.TrustRegion())
    assert bool(found.converged)
    assert relative(backend.to_numpy(m.to_matrix(found.value)), truth) < 1e-10


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_the_nearest_matrix_and_its_derivatives(backend, like64):
    """argmin |X - C(t)|² over matrices of rank 2 is the truncated singular value decomposition, to second order."""
    rng = np.random.default_rng(3)
    m = FixedRank(5, 4, 2)
    c, e, d = rng.standard_normal((3, 5, 4))
    c = c + 2 * with_values(rng, 5, [2.0, 2.0]) @ with_values(rng, 4, [1.0, 1.0]).T
    with mpmath.workdps(50):
        mc, me, md = map(exact, (c, e, d))

        def truncated(t):
            a = mc + t * me
            _, vectors = mpmath.eigsy(a.T * a)
            kept = vectors[:, 2:4]
            return sum(p * q for p, q in zip(md, a * kept * kept.T, strict=True))

        want = [float(mpmath.diff(truncated, 0, k, h=mpmath.mpf(10) ** -12)) for k in range(3)]
    start = m.from_matrix(backend.asarray(c + 0.1 * e, like=like64))
    c, e, d = (backend.asarray(a, like=like64) for a in (c, e, d))

    def cost(t, x):
        off = m.to_matrix(x) - c - t * e
        return 0.5 * namespace(off).sum(off * off)

    def answer(t):
        x = nf.solve(nf.Argmin(cost, m), t, init=start).value
        return namespace(x["u"]).sum(d * m.to_matrix(x))

    found = [float(backend.to_numpy(f(like64))) for f in (answer, nf.grad(answer), nf.grad(nf.grad(answer)))]
    np.testing.assert_allclose(found, want, rtol=1e-10)


@pytest.mark.parametrize("manifold", FACTORED, ids=str)
def test_a_matrix_of_low_rank_is_found_and_differentiated(manifold, rng):
    """argmin |xxᵀ - C|² on each manifold is C itself, and so are the derivatives in what C is made of."""
    target, direction, d = rng.standard_normal((3, 6, 3))
    d = d @ d.T

    def factor(t):
        a = target + t * direction
        xp = namespace(a)
        if isinstance(manifold, Elliptope):
            return a / xp.sqrt(xp.sum(a * a, axis=-1, keepdims=True))
        return a / xp.sqrt(xp.sum(a * a)) if isinstance(manifold, Spectrahedron) else a

    def cost(t, x):
        f = factor(t)
        off = x @ x.mT - f @ f.mT
        return namespace(off).sum(off * off)

    start = manifold.retract(factor(0.0), manifold.scale(0.1, manifold.random_tangent(rng, factor(0.0))))

    def answer(t):
        x = nf.solve(nf.Argmin(cost, manifold), t, init=start @ orthogonal(rng, 3)).value
        return namespace(x).sum(d * (x @ x.mT))

    def exact_answer(t):
        f = factor(t)
        return namespace(f).sum(d * (f @ f.mT))

    at = np.asarray(0.0)
    np.testing.assert_allclose(answer(at), exact_answer(at), rtol=1e-12)
    np.testing.assert_allclose(nf.grad(answer)(at), nf.grad(exact_answer)(at), rtol=1e-10)
    np.testing.assert_allclose(nf.grad(nf.grad(answer))(at), nf.grad(nf.grad(exact_answer))(at), rtol=1e-9)


def test_the_hessian_does_not_depend_on_the_representative(rng):
    """Hess f(xq)[uq] = Hess f(x)[u] q."""
    for manifold in FACTORED:
        x = manifold.random_point(rng, like=np.zeros(()))
        u, a, b = manifold.random_tangent(rng, x), *rng.standard_normal((2, 6, 3))
        q = orthogonal(rng, 3)
        here = manifold.hessian(lambda p, a=a, b=b: gram_cost(p, a, b), x, u)
        there = manifold.hessian(lambda p, a=a, b=b: gram_cost(p, a, b), x @ q, u @ q)
        assert relative(there, here @ q) < 1e-12
