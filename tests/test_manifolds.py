"""Every manifold obeys the laws on every backend, agrees across backends, and with independent references."""

import mpmath
import numpy as np
import pytest
import scipy.linalg

from nestfold.backends import DTypeError, NotOnManifoldError, ShapeError, namespace
from nestfold.backends._trees import leaves, tree_map
from nestfold.manifolds import SPD, Euclidean, FixedRank, Geodesic, Product, Sphere, Stiefel, polar
from nestfold.manifolds import _smooth as smooth
from nestfold.testing import laws
from nestfold.testing.cases import CASES

BATCHES = [(), (3,), (2, 0, 4)]
#: the first manifolds, on which single properties are tried
NAMES = ["numbers", "matrices", "sphere", "Stiefel", "Stiefel, polar", "SPD", "product", "geodesic product"]


def manifold_of(name):
    return CASES[name].make(np.zeros(()))


@pytest.fixture(params=NAMES)
def manifold(request):
    return manifold_of(request.param)


@pytest.fixture(params=["numbers", "sphere", "SPD", "geodesic product"])
def geodesic(request):
    return manifold_of(request.param)


def to_numpy(backend, tree):
    return [backend.to_numpy(a) for a in leaves(tree)]


# -- independent references ---------------------------------------------------------------------------
def matrices(rng, n=5):
    """Two SPD matrices with condition numbers of about a hundred, and a symmetric one."""
    x, y = (q @ np.diag(np.geomspace(0.1, 10, n)) @ q.T for q in np.linalg.qr(rng.standard_normal((2, n, n)))[0])
    u = rng.standard_normal((n, n))
    return (x + x.T) / 2, (y + y.T) / 2, (u + u.T) / 2


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def test_spd_against_scipy(backend, like64, rng):
    """x expm(x⁻¹u), x logm(x⁻¹y), distance by generalized eigenvalues, transport by (y x⁻¹)^(1/2)."""
    x, y, u = matrices(rng)
    u = 0.3 * u @ x + 0.3 * x @ u
    m = SPD(5)
    hx, hy, hu = (backend.asarray(a, like=like64) for a in (x, y, u))
    e = np.real(scipy.linalg.sqrtm(y @ np.linalg.inv(x)))
    assert relative(backend.to_numpy(m.exp(hx, hu)), x @ scipy.linalg.expm(np.linalg.solve(x, u))) < 1e-12
    assert relative(backend.to_numpy(m.log(hx, hy)), x @ np.real(scipy.linalg.logm(np.linalg.solve(x, y)))) < 1e-12
    assert relative(backend.to_numpy(m.parallel_transport(hx, hy, hu)), e @ u @ e.T) < 1e-12
    want = np.linalg.norm(np.log(scipy.linalg.eigh(y, x, eigvals_only=True)))
    assert abs(float(m.dist(hx, hy)) / want - 1) < 1e-12


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-3, 0.1, 0.6, 0.62, 1.5, 3.0, 3.14159, np.pi - 1e-7])
def test_sphere_against_closed_forms(backend, like64, angle):
    """At every angle, the smallest and nearly opposite points included."""
    m, t = Sphere(3), np.array([0.0, 0.6, 0.8])
    x, y = np.array([1.0, 0.0, 0.0]), np.cos(angle) * np.array([1.0, 0, 0]) + np.sin(angle) * t
    hx, hy, hu = (backend.asarray(a, like=like64) for a in (x, y, angle * t))
    accuracy = 1e-15 + 4e-15 / max(np.sin(angle), 1e-15) * (angle > 3)
    assert np.abs(backend.to_numpy(m.exp(hx, hu)) - y).max() < 5e-16
    # the coordinates of y are themselves rounded, by eps
    assert abs(float(m.dist(hx, hy)) - angle) <= 4e-16 * (1 + angle)
    assert np.abs(backend.to_numpy(m.log(hx, hy)) - angle * t).max() <= accuracy * (1 + angle)
    rotated = np.cos(angle) * t - np.sin(angle) * x
    carried = m.parallel_transport(hx, hy, backend.asarray(t, like=like64))
    assert np.abs(backend.to_numpy(carried) - rotated).max() <= accuracy


def test_sphere_opposite_points_have_a_distance_and_finite_derivatives(backend, like64):
    m = Sphere(3)
    x = backend.asarray(np.array([0.6, 0.8, 0.0]), like=like64)
    assert abs(float(m.dist(x, -x)) - np.pi) < 1e-15
    assert np.isfinite(backend.to_numpy(m.gradient(lambda p: m.squared_dist(p, -x), x))).all()


def test_distances_of_float32_points_from_themselves_are_zero(backend, like32, geodesic, rng):
    x = geodesic.random_point(rng, (50,), like=like32)
    assert float(backend.to_numpy(geodesic.dist(x, x)).max()) < 2e-6


# -- smooth functions ---------------------------------------------------------------------------------
def squared_angle(xp, r):
    """As a function of r = s/c alone."""
    return smooth.squared_angle(xp, r, xp.ones_like(r))


def angle_over_sine(xp, r):
    return smooth.angle_over_sine(xp, r, xp.ones_like(r))


SMOOTH = {
    "cos √t": (smooth.cos_sqrt, lambda t: mpmath.cos(mpmath.sqrt(t))),
    "sinc √t": (smooth.sinc_sqrt, lambda t: mpmath.sinc(mpmath.sqrt(t))),
    "θ²": (squared_angle, lambda r: (2 * mpmath.atan(mpmath.sqrt(r))) ** 2),
    "θ/sin θ": (angle_over_sine, lambda r: mpmath.atan(mpmath.sqrt(r)) * (1 + r) / mpmath.sqrt(r)),
}


def exact_taylor(f, t):
    """Value and three derivatives: a polynomial through 8 points to the right of t, with 120 digits."""
    with mpmath.workdps(120):
        h, t = mpmath.mpf(10) ** -20, mpmath.mpf(float(t))
        points = [f(t + (i + 1) * h) for i in range(8)]
        weights = [mpmath.matrix(8, 8), None]
        for i in range(8):
            for j in range(8):
                weights[0][i, j] = mpmath.mpf(i + 1) ** j
        series = mpmath.lu_solve(weights[0], mpmath.matrix(points))
        return [float(series[k] * mpmath.factorial(k) / h**k) for k in range(4)]


def slope(backend, f, one):
    return lambda p: backend.jvp(f, (p,), (one,))[1]


@pytest.mark.parametrize("t", [0.0, 1e-30, 1e-9, 1e-3, 0.0999, 0.1001, 0.5, 0.999, 1.001, 5.0, 60.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_to_third_order(backend, name, t):
    function, reference = SMOOTH[name]
    want = exact_taylor(reference, t)
    for dtype, limit in ((np.float64, 1e-12), (np.float32, 2e-4)):
        here = backend.asarray(np.asarray(t, dtype))
        one = backend.asarray(np.ones((), dtype))
        f = lambda p: function(namespace(p), p)  # noqa: E731
        for order in range(4):
            found = float(backend.to_numpy(f(here)))
            assert abs(found - want[order]) <= limit * (1 + abs(want[order])), (dtype, order)
            f = slope(backend, f, one)


def test_root_has_no_slope_at_zero_and_keeps_nan(backend, like64):
    t = backend.asarray(np.array([0.0, 4.0, -1e-20, np.nan]), like=like64)
    value, pull = backend.vjp(lambda p: smooth.root(namespace(p), p), t)
    np.testing.assert_array_equal(backend.to_numpy(value), [0.0, 2.0, 0.0, np.nan])
    np.testing.assert_array_equal(backend.to_numpy(pull(backend.xp.ones_like(t))[0])[:3], [0.0, 0.25, 0.0])


# -- single properties --------------------------------------------------------------------------------
def test_cost_of_batch_shape_is_one_problem_for_each_entry(backend, like64, manifold, rng):
    s = laws.draw(manifold, rng, like64, (3,))
    batch = manifold.gradient(lambda p: manifold.pair(s.a, p) ** 2, s.x)
    for i in range(3):
        x, a = (tree_map(lambda p, i=i: p[i, ...], part) for part in (s.x, s.a))
        alone = manifold.gradient(lambda p, a=a: manifold.pair(a, p) ** 2, x)
        for got, want in zip(to_numpy(backend, batch), to_numpy(backend, alone), strict=True):
            np.testing.assert_allclose(got[i], want, rtol=1e-12, atol=1e-13)


def test_spd_retraction_is_positive_for_every_vector(backend, like64, rng):
    m = SPD(4)
    x = m.random_point(rng, (20,), like=like64)
    r = backend.to_numpy(m.retract(x, 5 * m.random_tangent(rng, x)))
    assert np.array_equal(r, r.swapaxes(-1, -2))
    assert np.linalg.eigvalsh(r).min() > 0


def test_spd_transport_is_an_isometry(backend, like64, rng):
    m = SPD(3)
    s = laws.draw(m, rng, like64, (4,))
    moved = m.inner(s.y, m.transport(s.x, s.y, s.u), m.transport(s.x, s.y, s.v))
    assert np.abs(backend.to_numpy(moved - m.inner(s.x, s.u, s.v))).max() < 1e-13


def test_complex_sphere(backend, rng):
    """Unit vectors of ℂⁿ with the real inner product."""
    m, like = Sphere(3), backend.asarray(np.zeros((), np.complex128))
    x, y = m.random_point(rng, (4,), like=like), m.random_point(rng, (4,), like=like)
    u = m.random_tangent(rng, x)
    assert float(backend.to_numpy(m.defect(m.exp(x, u))).max()) < 1e-14
    assert np.abs(backend.to_numpy(m.exp(x, m.log(x, y)) - y)).max() < 1e-14
    slope = backend.jvp(lambda p: m.squared_dist(p, y), (x,), (u,))[1]
    grad = m.gradient(lambda p: m.squared_dist(p, y), x)
    assert np.abs(backend.to_numpy(m.inner(x, grad, u) - slope)).max() < 1e-13


def test_geodesic_takes_times_of_batch_shape(backend, like64, geodesic, rng):
    s = laws.draw(geodesic, rng, like64, (3,))
    t = backend.asarray(np.array([0.0, 0.25, 1.0]), like=like64)
    here = geodesic.geodesic(s.x, s.y, t)
    ratio = geodesic.dist(s.x, here) / geodesic.dist(s.x, s.y)
    assert np.abs(backend.to_numpy(ratio - t)).max() < 1e-12


# -- what a manifold is -------------------------------------------------------------------------------
def test_manifolds_are_values():
    assert Stiefel(5, 2) == Stiefel(5, 2) != Stiefel(5, 2, polar)
    assert Product({"a": Sphere(3), "b": SPD(2)}) == Product({"b": SPD(2), "a": Sphere(3)})
    assert len({Sphere(3), Sphere(3), Product([Sphere(3)]), Product((Sphere(3),))}) == 3
    assert repr(Product([Stiefel(5, 2), {"b": Euclidean(3)}])) == "Product([Stiefel(n=5, p=2), {'b': Euclidean(3)}])"


def test_shapes_and_dimensions():
    assert (Sphere(4).dim, Stiefel(5, 2).dim, SPD(3).dim, Euclidean(2, 3).dim, Euclidean().dim) == (
        3,
        7,
        6,
        6,
        1,
    )
    product = Product({"w": Stiefel(5, 2), "b": (Euclidean(), Sphere(3))})
    assert product.shape == {"w": (5, 2), "b": ((), (3,))}
    assert product.dim == 10


def test_a_product_is_geodesic_where_all_factors_are():
    assert isinstance(Product([Sphere(3), Product((SPD(2),))]), Geodesic)
    assert not isinstance(Product([Sphere(3), FixedRank(3, 3, 2)]), Geodesic)
    assert not hasattr(Product([FixedRank(3, 3, 2)]), "exp")


@pytest.mark.parametrize("tree", [{}, [], {"a": Sphere(3), "b": ()}])
def test_a_product_needs_manifolds(tree):
    with pytest.raises(ValueError, match="manifold"):
        Product(tree)


def test_a_product_takes_manifolds_alone():
    with pytest.raises(TypeError, match="found a int"):
        Product({"a": 3})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stiefel(2, 3),
        lambda: Euclidean(2, -1),
        lambda: Euclidean((3, 2)),  # pyright: ignore[reportArgumentType]  the mistake that is refused
    ],
)
def test_impossible_manifolds_are_refused(make):
    with pytest.raises(ValueError, match=r"n ≥ p|integers ≥ 0"):
        make()


# -- checks -------------------------------------------------------------------------------------------
def test_points_pass_their_check(backend, like64, manifold, rng):
    for batch in BATCHES:
        x = manifold.random_point(rng, batch, like=like64)
        manifold.check_point(x)
        assert backend.to_numpy(manifold.contains(x)).all()
        assert backend.to_numpy(manifold.is_tangent(x, manifold.random_tangent(rng, x))).all()


def test_a_wrong_shape_is_named(backend, like64):
    with pytest.raises(ShapeError, match=r"init has shape \(2, 5\).*Stiefel\(n=5, p=2\) has shape \(5, 2\)"):
        Stiefel(5, 2).check_point(backend.xp.zeros((2, 5), dtype=like64.dtype), "init")
    with pytest.raises(ShapeError, match="one array"):
        Sphere(3).check_point([like64])


def test_integers_are_refused(backend):
    with pytest.raises(DTypeError, match=r"int.*floating"):
        Euclidean(3).check_point(backend.asarray(np.arange(3)))


@pytest.mark.parametrize("name", ["sphere", "Stiefel", "SPD", "product"])
def test_a_point_off_the_manifold_is_refused(backend, like64, name, rng):
    manifold = manifold_of(name)
    x = manifold.random_point(rng, (3,), like=like64)
    wrong = tree_map(lambda a: a - 1.5, x)
    assert not backend.to_numpy(manifold.contains(wrong)).any()
    with pytest.raises(NotOnManifoldError, match=r"3 of 3 points are off by .*random_point"):
        manifold.check_point(wrong, "x0")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(backend, like64, manifold, bad, rng):
    x = tree_map(lambda a: a + bad, manifold.random_point(rng, like=like64))
    with np.errstate(invalid="ignore"):
        assert not float(backend.to_numpy(manifold.defect(x))) < np.inf
        with pytest.raises(NotOnManifoldError, match="not finite"):
            manifold.check_point(x)


def test_spd_refuses_singular_and_asymmetric_matrices(backend, like64):
    m = SPD(2)
    for bad in ([[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0.1], [0, 1]], [[1, 2], [2, 1]]):
        assert not bool(m.contains(backend.asarray(np.array(bad, float), like=like64))), bad


def test_a_vector_that_is_not_tangent_is_found(like64, rng, backend):
    for manifold in (Sphere(3), Stiefel(4, 2), SPD(3)):
        x = manifold.random_point(rng, like=like64)
        a = backend.noise(rng, tuple(x.shape), like=like64)
        assert not bool(manifold.is_tangent(x, a))


def test_products_check_structure_and_leading_axes(backend, like64, rng):
    m = Product({"w": Sphere(3), "b": Euclidean(2)})
    x = m.random_point(rng, (4,), like=like64)
    with pytest.raises(ShapeError, match="structure"):
        m.check_point([x["w"], x["b"]])
    with pytest.raises(ShapeError, match="Product"):
        m.project(x, [x["w"], x["b"]])
    lopsided = {"w": x["w"], "b": x["b"][0, ...]}
    with pytest.raises(ShapeError, match=r"leading .*\(\), \(4,\)"):
        m.check_point(lopsided)
    with pytest.raises(ShapeError, match=r"inner.*leading"):
        m.inner(lopsided, lopsided, lopsided)


def test_hessian_wants_vectors_of_the_shape_of_the_point(backend, like64, rng):
    m = Sphere(3)
    x = m.random_point(rng, like=like64)
    with pytest.raises(ShapeError, match="broadcast"):
        m.hessian(lambda p: m.pair(p, p), x, m.random_tangent(rng, backend.xp.stack([x, x])))


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_under_jit_values_are_not_looked_at(backend, like64):
    """Shapes are still checked; the manifold is a static, hashable part of the function."""
    import jax

    def project(manifold, x):
        manifold.check_point(x)
        return manifold.project(x, x)

    compiled = jax.jit(project, static_argnums=0)
    assert compiled(Sphere(3), backend.xp.ones(3)).shape == (3,)
    with pytest.raises(ShapeError):
        compiled(Sphere(4), backend.xp.ones(3))
