"""Correlation matrices in the Euclidean-Cholesky metric."""

import mpmath
import numpy as np
import pytest

from nestfold.backends import namespace
from nestfold.manifolds import Correlation


def unit_lower(x):
    """diag(l)⁻¹ l below the diagonal, x = llᵀ."""
    l = np.linalg.cholesky(x)
    return np.tril(l / np.diag(l)[:, None], -1)


def exact_squared_dist(x, y):
    def coordinates(a):
        l = mpmath.cholesky(a)
        return [l[i, j] / l[i, i] for i in range(a.rows) for j in range(i)]

    return mpmath.fsum((a - b) ** 2 for a, b in zip(coordinates(x), coordinates(y), strict=True))


def test_two_by_two(backend, like64):
    """One number, ρ/√(1 - ρ²): everything by hand."""
    m = Correlation(2)

    def point(r):
        return backend.asarray(np.asarray([[1.0, r], [r, 1.0]]), like=like64)

    def tangent(t):
        return backend.asarray(np.asarray([[0.0, t], [t, 0.0]]), like=like64)

    a, b = 0.3, -0.9
    ta, tb = a / np.sqrt(1 - a**2), b / np.sqrt(1 - b**2)
    assert float(backend.to_numpy(m.dist(point(a), point(b)))) == pytest.approx(abs(ta - tb), rel=1e-14)
    middle = (ta + tb) / 2
    found = backend.to_numpy(m.geodesic(point(a), point(b), 0.5))
    np.testing.assert_allclose(found[0, 1], middle / np.sqrt(1 + middle**2), rtol=1e-13)
    np.testing.assert_array_equal(np.diag(found), 1.0)
    slope = (1 - a**2) ** -1.5
    assert float(backend.to_numpy(m.norm(point(a), tangent(2.0)))) == pytest.approx(2 * slope, rel=1e-14)
    log = backend.to_numpy(m.log(point(a), point(b)))
    np.testing.assert_allclose(log, [[0, (tb - ta) / slope], [(tb - ta) / slope, 0]], rtol=1e-13)
    w = backend.asarray(np.asarray([[5.0, 1.0], [2.0, -4.0]]), like=like64)
    np.testing.assert_allclose(
        backend.to_numpy(m.sharp(point(a), w)), np.asarray([[0, 3.0], [3.0, 0]]) / slope**2, rtol=1e-13
    )


def test_distance_against_its_definition(backend, like64, rng):
    m = Correlation(5)
    x, y = (m.random_point(rng, like=like64) for _ in range(2))
    want = np.linalg.norm(unit_lower(backend.to_numpy(x)) - unit_lower(backend.to_numpy(y)))
    assert float(backend.to_numpy(m.dist(x, y))) == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("same", [False, True])
def test_squared_distance_to_third_order(backend, like64, same, rng):
    """At x = I, where all eigenvalues are equal, and at coincident points."""
    m = Correlation(3)
    x = np.eye(3)
    y = x if same else m.random_point(rng, like=np.zeros(()))
    e = m.random_tangent(rng, x)
    with mpmath.workdps(60):
        h = mpmath.mpf(10) ** -12
        a, b, c = (mpmath.matrix(p.tolist()) for p in (x, y, e))
        far, near, here, up, top = (exact_squared_dist(a + k * h * c, b) for k in (-2, -1, 0, 1, 2))
        first, second = (up - near) / (2 * h), (up - 2 * here + near) / h**2
        want = [here, first, second, (top - 2 * up + 2 * near - far) / (2 * h**3)]
    x, y, e = (backend.asarray(p, like=like64) for p in (x, y, e))

    def moved(f):
        return lambda p: backend.jvp(f, (p,), (e,))[1]

    f = lambda p: m.squared_dist(p, y)  # noqa: E731
    for expected in want:
        assert float(backend.to_numpy(f(x))) == pytest.approx(float(expected), rel=1e-11, abs=1e-11)
        f = moved(f)


def test_vectors_have_no_diagonal(backend, like64, rng):
    """Exactly, so that the diagonal of a point stays 1 in sums too."""
    m = Correlation(4)
    x, y = (m.random_point(rng, like=like64) for _ in range(2))
    w = backend.asarray(rng.standard_normal((4, 4)), like=like64)
    u = m.sharp(x, w)
    for vector in (u, m.log(x, y), m.project(x, w), m.connection(x, w, u), m.transport(x, y, u)):
        np.testing.assert_array_equal(np.diag(backend.to_numpy(vector)), 0.0)
    np.testing.assert_array_equal(np.diag(backend.to_numpy(m.exp(x, u))), 1.0)


def test_almost_singular_correlations(backend, like64):
    """|ρ| within 1e-8 of 1: far away, but as exact as the number itself."""
    m = Correlation(2)
    r = 1 - 1e-8
    x = backend.asarray(np.asarray([[1.0, r], [r, 1.0]]), like=like64)
    with mpmath.workdps(50):
        want = float(mpmath.mpf(r) / mpmath.sqrt(1 - mpmath.mpf(r) ** 2))
    origin = backend.asarray(np.eye(2), like=like64)
    assert float(backend.to_numpy(m.dist(origin, x))) == pytest.approx(want, rel=1e-8)
    back = backend.to_numpy(m.exp(origin, m.log(origin, x)))
    assert back[0, 1] == pytest.approx(r, rel=1e-15)


def test_random_points_of_many_variables(rng):
    m = Correlation(40)
    x = m.random_point(rng, (20,), like=np.zeros(()))
    assert m.defect(x).max() <= 1e-14
    assert np.linalg.cond(x).max() < 1e4


def test_points_are_checked(backend, like64, rng):
    m = Correlation(3)
    x = m.random_point(rng, like=like64)
    assert float(backend.to_numpy(m.defect(2 * x))) == pytest.approx(1.0)
    indefinite = backend.asarray(np.asarray([[1.0, 1.1, 0], [1.1, 1.0, 0], [0, 0, 1.0]]), like=like64)
    assert float(backend.to_numpy(m.defect(indefinite))) == pytest.approx(1.1)
    assert np.isinf(backend.to_numpy(m.defect(x + float("nan") * x)))
    assert m.dim == 3
    for n in (1, 0):
        with pytest.raises(ValueError, match="n ≥ 2"):
            Correlation(n)


def test_flat(rng):
    m = Correlation(4)
    x = m.random_point(rng, (2,), like=np.zeros(()))
    low, high = m.curvature_bounds(x)
    assert namespace(low).all(low == 0) and (high == 0).all() and np.isinf(m.injectivity_radius(x)).all()
    assert low.shape == (2,)
    # transport does not depend on the way
    y, z = (m.random_point(rng, (2,), like=np.zeros(())) for _ in range(2))
    u = m.random_tangent(rng, x)
    around = m.parallel_transport(z, x, m.parallel_transport(y, z, m.parallel_transport(x, y, u)))
    np.testing.assert_allclose(around, u, rtol=1e-11, atol=1e-12)
