"""Metrics on positive definite matrices against mpmath, closed forms and each other, to third order."""

import mpmath
import numpy as np
import pytest

from nestfold.backends import namespace
from nestfold.manifolds import (
    HPD,
    SPD,
    Congruence,
    Geodesic,
    InverseRetraction,
    SPDBuresWasserstein,
    SPDFixedDeterminant,
    SPDLogCholesky,
    SPDLogEuclidean,
)
from nestfold.manifolds._divided import LogRatio
from nestfold.manifolds._spectral import Decomposition, Exp, exponential, spectral, squared_log
from nestfold.testing import laws

DIGITS = 70
EIGENVALUES = {
    "apart": [0.5, 1.3, 4.0],
    "double": [0.7, 0.7, 2.0],
    "close": [1.0, 1.0 + 1e-9, 1.0 + 3e-5],
    "identity": [1.0, 1.0, 1.0],
}
#: for closed forms: JAX runs these operations one by one, each compiled for itself
without_jax = pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
METRICS = [SPD, SPDLogEuclidean, SPDBuresWasserstein, SPDLogCholesky]


# -- matrices of many digits ----------------------------------------------------------------------------
def exact(a):
    return mpmath.matrix(np.asarray(a).tolist())


def of_matrix(f, a):
    """f(a) of a symmetric matrix of mpmath, by its eigenvalues."""
    values, vectors = mpmath.eigsy((a + a.T) / 2)
    return vectors * mpmath.diag([f(value) for value in values]) * vectors.T


def squared_norm(a):
    return mpmath.fsum(entry**2 for entry in a)


def trace(a):
    return mpmath.fsum(a[i, i] for i in range(a.rows))


def log_cholesky(a):
    l = mpmath.cholesky(a)
    for i in range(a.rows):
        l[i, i] = mpmath.log(l[i, i])
    return l


def exact_squared_dist(kind, x, y):
    """The squared distance by the definition that is best known."""
    if kind is SPD:
        root = of_matrix(lambda t: 1 / mpmath.sqrt(t), x)
        return squared_norm(of_matrix(mpmath.log, root * y * root))
    if kind is SPDLogEuclidean:
        return squared_norm(of_matrix(mpmath.log, x) - of_matrix(mpmath.log, y))
    if kind is SPDBuresWasserstein:
        root = of_matrix(mpmath.sqrt, x)
        return trace(x) + trace(y) - 2 * trace(of_matrix(mpmath.sqrt, root * y * root))
    return squared_norm(log_cholesky(x) - log_cholesky(y))


def exact_derivatives(f, a, e):
    """F and its first three derivatives at `a` along `e`, by differences of 1e-12 in 70 digits."""
    h = mpmath.mpf(10) ** -12
    far, near, here, up, top = (f(a + k * h * e) for k in (-2, -1, 0, 1, 2))
    first = (far - 8 * near + 8 * up - top) / (12 * h)
    second = (-far + 16 * near - 30 * here + 16 * up - top) / (12 * h**2)
    third = (-far + 2 * near - 2 * up + top) / (2 * h**3)
    return [float(value) for value in (here, first, second, third)]


# -- matrices of doubles --------------------------------------------------------------------------------
def symmetric(rng, n=3):
    a = rng.standard_normal((n, n))
    return (a + a.T) / 2


def with_eigenvalues(rng, eigenvalues):
    q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
    a = (q * np.asarray(eigenvalues)) @ q.T
    return (a + a.T) / 2


def definite(rng, n=3):
    return with_eigenvalues(rng, np.exp(rng.uniform(-1, 1, n)))


def along(backend, f, a, e, order):
    """The derivatives of t ↦ f(a + te) at 0, of orders 0 to `order`, by nested forward mode."""

    def moved(f):
        return lambda p: backend.jvp(f, (p,), (e,))[1]

    found = []
    for _ in range(order + 1):
        found.append(float(backend.to_numpy(f(a))))
        f = moved(f)
    return found


def total(a):
    return namespace(a).sum(a)


def assert_derivatives(found, want, limit):
    scale = max(map(abs, want))
    for order, (got, expected) in enumerate(zip(found, want, strict=True)):
        assert abs(got - expected) <= limit * max(scale, 1e-2), (order, got, expected)


# -- spectral functions ---------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [1, 2, 3])
def test_divided_differences_of_the_ratio_at_every_distance(order, rng):
    for trial in range(60):
        nodes = np.exp(rng.uniform(-2, 2)) * (1 + 10 ** rng.uniform(-17, 1) * rng.uniform(0, 1, order + 1))
        nodes[: trial % (order + 2)] = nodes[0]
        found = float(LogRatio().divided(np, *(np.asarray(a) for a in nodes)))
        with mpmath.workdps(90):
            apart = [mpmath.mpf(float(a)) * (1 + i * mpmath.mpf(10) ** -18) for i, a in enumerate(sorted(nodes))]
            table = [mpmath.log(a) / a for a in apart]
            for k in range(1, len(nodes)):
                table = [(table[i + 1] - table[i]) / (apart[i + k] - apart[i]) for i in range(len(nodes) - k)]
        # the largest term of the derivative: the whole may vanish
        size = (1 + abs(np.log(nodes).max())) / nodes.min() ** (order + 1)
        assert abs(found - float(table[0])) <= 1e-13 * size, nodes


@pytest.mark.parametrize("eigenvalues", EIGENVALUES)
def test_squared_log_to_third_order(backend, like64, eigenvalues, rng):
    """Σ log² λ and its derivatives, forward and in reverse."""
    a, e = with_eigenvalues(rng, EIGENVALUES[eigenvalues]), symmetric(rng)
    with mpmath.workdps(DIGITS):
        want = exact_derivatives(
            lambda p: mpmath.fsum(mpmath.log(t) ** 2 for t in mpmath.eigsy(p, eigvals_only=True)), exact(a), exact(e)
        )
    a, e = (backend.asarray(m, like=like64) for m in (a, e))
    assert_derivatives(along(backend, squared_log, a, e, 3), want, 2e-13)

    def slope(f):
        return lambda p: total(e * pulled(backend, f, p))

    f, found = squared_log, []
    for _ in range(4):
        found.append(float(backend.to_numpy(f(a))))
        f = slope(f)
    assert_derivatives(found, want, 2e-13)


def pulled(backend, f, p):
    value, pull = backend.vjp(f, p)
    return pull(namespace(value).ones_like(value))[0]


@pytest.mark.parametrize("eigenvalues", EIGENVALUES)
def test_lyapunov_to_third_order(backend, like64, eigenvalues, rng):
    """C·X with aX + Xa = c, against its solution as a linear system of n² unknowns."""
    a, e, c, d = with_eigenvalues(rng, EIGENVALUES[eigenvalues]), symmetric(rng), symmetric(rng), symmetric(rng)

    def exact_pairing(p):
        n = p.rows
        big = mpmath.zeros(n * n)
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    big[i * n + j, k * n + j] += p[i, k]
                    big[i * n + j, i * n + k] += p[k, j]
        solution = mpmath.lu_solve(big, mpmath.matrix(c.ravel().tolist()))
        return mpmath.fsum(solution[i] * value for i, value in enumerate(d.ravel().tolist()))

    with mpmath.workdps(DIGITS):
        want = exact_derivatives(exact_pairing, exact(a), exact(e))
    a, e, c, d = (backend.asarray(m, like=like64) for m in (a, e, c, d))
    assert_derivatives(along(backend, lambda p: total(d * Decomposition(p).lyapunov(c)), a, e, 3), want, 1e-13)


@without_jax
def test_values_without_and_with_derivatives_agree(backend, like64, rng):
    """Constants take short cuts: eigenvalues alone, exponentials by products; the answer is the same."""
    a = np.stack([symmetric(rng, 20) for _ in range(4)])
    here = backend.asarray(a, like=like64)
    value, moved = backend.jvp(exponential, (here,), (here,))
    plain = backend.to_numpy(exponential(here))
    by_vectors = backend.to_numpy(spectral(Exp())(here))
    assert np.abs(plain - by_vectors).max() <= 1e-13 * np.abs(by_vectors).max()
    assert np.abs(backend.to_numpy(value) - by_vectors).max() <= 1e-13 * np.abs(by_vectors).max()
    # d/dt e^(a + ta) = a eᵃ
    assert np.abs(backend.to_numpy(moved) - a @ by_vectors).max() <= 1e-12 * np.abs(by_vectors).max()
    positive = backend.asarray(by_vectors, like=like64)
    value, _ = backend.jvp(squared_log, (positive,), (here,))
    assert np.allclose(backend.to_numpy(squared_log(positive)), backend.to_numpy(value), rtol=1e-13)


# -- distances ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("eigenvalues", ["apart", "double", "identity"])
@pytest.mark.parametrize("kind", METRICS)
def test_squared_distances_to_third_order(backend, like64, kind, eigenvalues, rng):
    """Value and derivatives in x, at equal eigenvalues too, against the definition in 70 digits."""
    x, y, e = with_eigenvalues(rng, EIGENVALUES[eigenvalues]), definite(rng), symmetric(rng)
    with mpmath.workdps(DIGITS):
        want = exact_derivatives(lambda p: exact_squared_dist(kind, p, exact(y)), exact(x), exact(e))
    x, y, e = (backend.asarray(m, like=like64) for m in (x, y, e))
    assert_derivatives(along(backend, lambda p: kind(3).squared_dist(p, y), x, e, 3), want, 1e-12)


@pytest.mark.parametrize("kind", METRICS)
def test_squared_distances_at_coincident_points_to_third_order(backend, like64, kind, rng):
    x, e = with_eigenvalues(rng, EIGENVALUES["double"]), symmetric(rng)
    with mpmath.workdps(DIGITS):
        want = exact_derivatives(lambda p: exact_squared_dist(kind, p, exact(x)), exact(x), exact(e))
    x, e = (backend.asarray(m, like=like64) for m in (x, e))
    assert_derivatives(along(backend, lambda p: kind(3).squared_dist(p, x), x, e, 3), want, 1e-12)


@without_jax
@pytest.mark.parametrize("kind", METRICS)
def test_logarithms_undo_exponentials_far_away(backend, like64, kind, rng):
    """Points of condition 1e4: geoopt's log-Euclidean and Stein metrics change the distance alone."""
    m = kind(4)
    x, y = (with_eigenvalues(rng, np.geomspace(1e-2, 1e2, 4)) for _ in range(2))
    x, y = (backend.asarray(p, like=like64) for p in (x, y))
    u = m.log(x, y)
    size = float(backend.to_numpy(m.norm(x, u)))
    assert float(backend.to_numpy(m.dist(x, y))) == pytest.approx(size, rel=1e-10)
    end = backend.to_numpy(m.exp(x, u))
    assert np.abs(end - backend.to_numpy(y)).max() <= 1e-9 * np.abs(backend.to_numpy(y)).max()


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9, 1e-12])
def test_bures_wasserstein_keeps_its_digits_at_close_points(backend, like64, step, rng):
    """tr x + tr y - 2 tr √… would be 0 or negative at 1e-9."""
    x = definite(rng, 4)
    y = x + step * symmetric(rng, 4)
    with mpmath.workdps(DIGITS):
        want = float(exact_squared_dist(SPDBuresWasserstein, exact(x), exact(y)))
    x, y = (backend.asarray(p, like=like64) for p in (x, y))
    assert float(backend.to_numpy(SPDBuresWasserstein(4).squared_dist(x, y))) == pytest.approx(want, rel=1e-12)


def test_bures_wasserstein_of_commuting_matrices(backend, like64):
    """|√x - √y|, also from far away to almost singular matrices."""
    a, b = np.asarray([1e3, 1.0, 1e-3]), np.asarray([1e-9, 1e2, 1e-3])
    x, y = (backend.asarray(np.diag(d), like=like64) for d in (a, b))
    m = SPDBuresWasserstein(3)
    want = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert float(backend.to_numpy(m.squared_dist(x, y))) == pytest.approx(want, rel=1e-13)
    log = backend.to_numpy(m.log(x, y))
    assert np.allclose(np.diag(log), 2 * (np.sqrt(a * b) - a), rtol=1e-12)


# -- the metrics one by one -----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [SPD, SPDLogEuclidean, SPDBuresWasserstein, SPDLogCholesky])
def test_hermitian_matrices_obey_the_laws(kind, rng):
    """Every metric takes complex arrays."""
    reach = 0.2 if kind is SPDBuresWasserstein else 0.75
    laws.check_manifold(kind(3), np.zeros((), np.complex128), rng, batch=(2,), retraction_order=2, reach=reach)


@without_jax
def test_hpd_is_isometric_to_real_matrices(backend, like64, rng):
    """A + ib ↦ [[a, -b], [b, a]]/√2 in norm."""
    m, big = HPD(3), SPD(6)
    x, y = (m.random_point(rng, like=np.zeros((), np.complex128)) for _ in range(2))
    u = m.random_tangent(rng, x)
    here = [backend.asarray(p) for p in (x, y, u)]
    there = [backend.asarray(doubled(p), like=like64) for p in (x, y, u)]
    pairs = [
        (m.exp(here[0], here[2]), big.exp(there[0], there[2])),
        (m.log(here[0], here[1]), big.log(there[0], there[1])),
        (m.retract(here[0], here[2]), big.retract(there[0], there[2])),
        (m.inverse_retract(here[0], here[0] + 0.1 * here[2]), big.inverse_retract(there[0], there[0] + 0.1 * there[2])),
        (m.parallel_transport(*here), big.parallel_transport(*there)),
    ]
    for complex_one, real_one in pairs:
        np.testing.assert_allclose(doubled(backend.to_numpy(complex_one)), backend.to_numpy(real_one), atol=1e-12)
    dist, double = backend.to_numpy(m.dist(*here[:2])), backend.to_numpy(big.dist(*there[:2]))
    assert float(dist) == pytest.approx(float(double) / 2**0.5, rel=1e-13)
    assert (m.dim, HPD(1).dim) == (9, 1) and isinstance(m, Congruence)


def doubled(a):
    return np.block([[a.real, -a.imag], [a.imag, a.real]])


def test_inverse_retraction_of_spd(backend, like64, rng):
    """It exists where 2y - x is positive definite, up to the border, and keeps the digits of small steps."""
    m, x = SPD(3), definite(rng)
    here = backend.asarray(x, like=like64)
    for factor in (0.5 + 1e-6, 0.7, 30.0):
        u = backend.to_numpy(m.inverse_retract(here, factor * here))
        np.testing.assert_allclose(u, (np.sqrt(2 * factor - 1) - 1) * x, rtol=1e-8 if factor < 0.6 else 1e-12)
    with np.errstate(invalid="ignore"):
        assert np.isnan(backend.to_numpy(m.inverse_retract(here, 0.4 * here))).all()
    small = 1e-9 * symmetric(rng)
    found = backend.to_numpy(m.inverse_retract(here, here + backend.asarray(small, like=like64)))
    want = small - 0.5 * small @ np.linalg.solve(x, small)
    # what y itself is rounded by
    assert np.abs(found - want).max() <= 4e-16 * np.abs(x).max()


@without_jax
def test_log_euclidean_mean_is_geometric_for_commuting_matrices(backend, like64):
    x, y = (backend.asarray(np.diag(d), like=like64) for d in ([1.0, 4.0], [9.0, 1.0]))
    for m in (SPDLogEuclidean(2), SPD(2), SPDLogCholesky(2)):
        np.testing.assert_allclose(backend.to_numpy(m.geodesic(x, y, 0.5)), np.diag([3.0, 2.0]), rtol=1e-13, atol=1e-15)
    half = backend.to_numpy(SPDBuresWasserstein(2).geodesic(x, y, 0.5))
    np.testing.assert_allclose(half, np.diag([4.0, 2.25]), rtol=1e-13, atol=1e-15)


@without_jax
def test_log_cholesky_against_its_definition(backend, like64, rng):
    x, y = definite(rng, 5), definite(rng, 5)
    lx, ly = np.linalg.cholesky(x), np.linalg.cholesky(y)
    log = np.log(np.diag(lx) / np.diag(ly))
    want = np.sqrt(np.sum(np.tril(lx - ly, -1) ** 2) + np.sum(log**2))
    m = SPDLogCholesky(5)
    here = [backend.asarray(p, like=like64) for p in (x, y)]
    assert float(backend.to_numpy(m.dist(*here))) == pytest.approx(want, rel=1e-13)
    middle = backend.to_numpy(m.geodesic(here[0], here[1], 0.5))
    assert np.linalg.det(middle) ** 2 == pytest.approx(np.linalg.det(x) * np.linalg.det(y), rel=1e-12)


@without_jax
def test_bures_wasserstein_ends_at_its_injectivity_radius(backend, like64, rng):
    """Towards -vvᵀ, v the eigenvector of the smallest eigenvalue, I + L is singular at just this length."""
    m, x = SPDBuresWasserstein(3), definite(rng)
    here = backend.asarray(x, like=like64)
    radius = float(backend.to_numpy(m.injectivity_radius(here)))
    values, vectors = np.linalg.eigh(x)
    assert radius == pytest.approx(values[0] ** 0.5, rel=1e-13)
    u = backend.asarray(-np.outer(vectors[:, 0], vectors[:, 0]), like=like64)
    unit = u / m.norm(here, u)
    for t in (0.5, 0.999):
        assert float(backend.to_numpy(m.dist(here, m.exp(here, t * radius * unit)))) == pytest.approx(t * radius)
    assert abs(np.linalg.eigvalsh(backend.to_numpy(m.exp(here, radius * unit)))[0]) <= 1e-14


# -- curvature ------------------------------------------------------------------------------------------
def sectional(m, x, u, v, h):
    """K of orthonormal u, v at x from four distances: dist²(exp hu, exp hv) = 2h² - K h⁴/3 + …"""
    result = 0.0
    for s in (h, -h):
        for t in (h, -h):
            result += m.squared_dist(m.exp(x, s * u), m.exp(x, t * v)) / 4
    return 3 * (2 * h**2 - result) / h**4


def orthonormal(m, x, u, v):
    u = u / m.norm(x, u)
    v = v - m.inner(x, u, v) * u
    return u, v / m.norm(x, v)


def extremal(m):
    """A point with a plane of the least or the largest curvature."""
    one, other = np.diag([1.0, -1.0, 0.0])[: m.n, : m.n], np.zeros((m.n, m.n))
    other[0, 1] = other[1, 0] = 1.0
    if not isinstance(m, SPDBuresWasserstein):
        return np.eye(m.n), one, other
    x = np.diag([0.3, 0.8, 2.0])
    s, t = np.diag([1 / 0.3, -1 / 0.8, 0.0]), other
    return x, s @ x + x @ s, t @ x + x @ t


@pytest.mark.parametrize("m", [SPD(3), SPDBuresWasserstein(3), SPDFixedDeterminant(3), SPDFixedDeterminant(2)])
def test_bounds_of_the_curvature_hold_and_are_attained(m, rng):
    x, u, v = extremal(m)
    low, high = m.curvature_bounds(x)
    extreme = high if isinstance(m, SPDBuresWasserstein) else low
    assert sectional(m, x, *orthonormal(m, x, u, v), 0.01 * min(1, np.linalg.eigvalsh(x)[0])) == pytest.approx(
        extreme, rel=2e-3
    )
    x = m.random_point(rng, like=np.zeros(()))
    low, high = m.curvature_bounds(x)
    found = []
    for _ in range(10):
        plane = orthonormal(m, x, m.random_tangent(rng, x), m.random_tangent(rng, x))
        found.append(sectional(m, x, *plane, 0.01))
    assert low - 1e-2 <= min(found) and max(found) <= high + 1e-2
    assert max(map(abs, found)) > 1e-2


# -- one determinant ------------------------------------------------------------------------------------
@without_jax
def test_fixed_determinant_is_a_totally_geodesic_part(backend, like64, rng):
    m, whole = SPDFixedDeterminant(4, 1e-3), SPD(4)
    x, y = (m.random_point(rng, like=like64) for _ in range(2))
    u = 0.05 * m.random_tangent(rng, x)
    assert abs(float(backend.to_numpy(total(np_inverse(backend, x) * u)))) <= 1e-13
    for ours, theirs in [
        (m.exp(x, u), whole.exp(x, u)),
        (m.log(x, y), whole.log(x, y)),
        (m.parallel_transport(x, y, u), whole.parallel_transport(x, y, u)),
    ]:
        np.testing.assert_array_equal(backend.to_numpy(ours), backend.to_numpy(theirs))
    for point in (x, m.exp(x, u), m.retract(x, u), m.geodesic(x, y, 0.4)):
        assert np.linalg.det(backend.to_numpy(point)) == pytest.approx(1e-3, rel=1e-12)
    # orthogonal to what is normal in the ambient dot
    a = backend.asarray(rng.standard_normal((4, 4)), like=like64)
    off = backend.to_numpy(a - m.project(x, a))
    inverse = np.linalg.inv(backend.to_numpy(x))
    ratio = (off + off.T) / inverse
    assert np.ptp(ratio) <= 1e-11 * np.abs(ratio).max()


def np_inverse(backend, x):
    return backend.asarray(np.linalg.inv(backend.to_numpy(x)), like=x)


@without_jax
def test_determinants_may_be_batched_and_differentiated(backend, like64, rng):
    c = backend.asarray(np.asarray([0.5, 1.0, 20.0]), like=like64)
    m = SPDFixedDeterminant(3, c)
    x = m.random_point(rng, (3,), like=like64)
    np.testing.assert_allclose(np.linalg.det(backend.to_numpy(x)), [0.5, 1.0, 20.0], rtol=1e-13)
    u = m.random_tangent(rng, x)
    assert backend.to_numpy(m.defect(m.retract(x, u))).max() <= 1e-13
    assert backend.to_numpy(SPDFixedDeterminant(3, 2 * c).defect(x)) == pytest.approx(np.full(3, np.log(2.0)))
    # R is c^(1/n) times what does not depend on c
    value, moved = backend.jvp(lambda c: SPDFixedDeterminant(3, c).retract(x, u), (c,), (c,))
    np.testing.assert_allclose(backend.to_numpy(moved), backend.to_numpy(value) / 3, rtol=1e-13, atol=1e-14)


def test_determinants_of_large_matrices_do_not_overflow(rng):
    m = SPDFixedDeterminant(60, 3.0)
    x = 1e4 * m.random_point(rng, like=np.zeros((), np.float32))
    scaled = m._scaled(x)
    assert scaled.dtype == np.float32 and abs(np.linalg.slogdet(scaled.astype(float))[1] - np.log(3)) <= 1e-3


# -- checks ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [SPD, HPD, SPDLogEuclidean, SPDLogCholesky, SPDBuresWasserstein, SPDFixedDeterminant])
@pytest.mark.parametrize("n", [0, -2, 2.0, True, "3"])
def test_impossible_sizes_are_refused(kind, n):
    with pytest.raises(ValueError, match=f"{kind.__name__}\\(n\\) needs an integer"):
        kind(n)


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan"), float("inf"), np.asarray([1.0, -2.0])])
def test_impossible_determinants_are_refused(c):
    with pytest.raises(ValueError, match="determinant > 0"):
        SPDFixedDeterminant(3, c)
    with pytest.raises(ValueError, match="n ≥ 2"):
        SPDFixedDeterminant(1)


def test_kinds():
    assert all(isinstance(kind(3), InverseRetraction) for kind in METRICS)
    assert [isinstance(kind(3), Geodesic) for kind in METRICS] == [True, True, False, True]
    assert not isinstance(SPDFixedDeterminant(3), (InverseRetraction, Congruence))
    assert SPD(3) != HPD(3) and SPD(3) == SPD(3) and repr(HPD(2)) == "HPD(n=2)"


@without_jax
@pytest.mark.parametrize("kind", [*METRICS, SPDFixedDeterminant])
def test_points_of_float32_far_apart(backend, like32, kind, rng):
    """Conditions of 1e4 in single precision: finite, symmetric, and right to four digits."""
    m = kind(4)
    x, y = (with_eigenvalues(rng, np.geomspace(1e-2, 1e2, 4)) for _ in range(2))
    here = [backend.asarray(p.astype(np.float32), like=like32) for p in (x, y)]
    found = [m.log(*here), m.geodesic(*here, 0.5), m.squared_dist(*here)]
    want = [m.log(x, y), m.geodesic(x, y, 0.5), m.squared_dist(x, y)]
    for single, double in zip(found, want, strict=True):
        single = backend.to_numpy(single)
        assert single.dtype == np.float32
        assert np.abs(single - double).max() <= 2e-2 * np.abs(double).max()
