"""Linear spaces of arrays, positive arrays and boxes: closed forms, extreme arguments, parameters, bad input."""

import mpmath
import numpy as np
import pytest

from nestfold.manifolds import SPD, Box, Euclidean, Hermitian, Positive, SkewSymmetric, Symmetric
from nestfold.testing import laws

mpmath.mp.dps = 50
#: x, y pairs for positive numbers: near and far, in every direction
PAIRS = [
    (1.0, 1.0),
    (3.0, 3.0 * (1 + 1e-12)),
    (3.0, 3.0 * (1 - 1e-9)),
    (2.0, 0.9),
    (1e-8, 1e7),
    (1e9, 1e-6),
    (0.7, 2.5),
]


def relative(got, want):
    return abs(float(got) / float(want) - 1) if want else abs(float(got))


def derivatives(backend, f, at):
    """f and its first three derivatives at a number."""
    one, found = backend.xp.ones_like(at), []
    for _ in range(4):
        found.append(float(backend.to_numpy(f(at))))
        f = (lambda g: lambda p: backend.jvp(g, (p,), (one,))[1])(f)
    return found


def taylor(f, at):
    """The same by mpmath."""
    return [float(mpmath.diff(f, mpmath.mpf(float(at)), k)) for k in range(4)]


# -- linear spaces ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("manifold", "dim", "mirror"),
    [(Symmetric(4), 10, 1), (SkewSymmetric(4), 6, -1), (Hermitian(4), 16, 1)],
    ids=["symmetric", "skew", "Hermitian"],
)
def test_matrix_spaces(backend, like64, rng, manifold, dim, mirror):
    """Points mirror themselves exactly, the metric is the trace, and a straight line is a geodesic."""
    if isinstance(manifold, Hermitian):
        like64 = backend.asarray(np.zeros((), np.complex128))
    assert manifold.dim == dim
    s = laws.draw(manifold, rng, like64, (3,))
    x, y, u, v, a = (backend.to_numpy(p) for p in (s.x, s.y, s.u, s.v, s.a))
    turned = x.swapaxes(-1, -2).conj() if isinstance(manifold, Hermitian) else x.swapaxes(-1, -2)
    assert np.array_equal(x, mirror * turned)
    inner = backend.to_numpy(manifold.inner(s.x, s.u, s.v))
    want = np.real(mirror * np.trace(u @ v, axis1=-2, axis2=-1))
    assert np.abs(inner - want).max() < 1e-13
    assert np.abs(backend.to_numpy(manifold.dist(s.x, s.y)) - np.linalg.norm(y - x, axis=(-2, -1))).max() < 1e-13
    low, high = manifold.curvature_bounds(s.x)
    assert not backend.to_numpy(low).any() and not backend.to_numpy(high).any()
    assert np.isinf(backend.to_numpy(manifold.injectivity_radius(s.x))).all()
    assert backend.to_numpy(low).dtype == np.float64 and backend.to_numpy(low).shape == (3,)
    off = backend.asarray(x + 1e-3 * np.triu(np.ones((4, 4)), 1), like=s.x)
    assert not backend.to_numpy(manifold.contains(off)).any()
    assert backend.to_numpy(manifold.contains(1e150 * s.x)).all() and backend.to_numpy(manifold.contains(0 * s.x)).all()
    assert (
        np.abs(backend.to_numpy(manifold.project(s.x, s.a)) - (a + mirror * turned_of(manifold, a)) / 2).max() < 1e-15
    )


def turned_of(manifold, a):
    swapped = a.swapaxes(-1, -2)
    return swapped.conj() if isinstance(manifold, Hermitian) else swapped


@pytest.mark.parametrize("manifold", [Euclidean(2), Symmetric(3), SkewSymmetric(3)], ids=repr)
def test_laws_of_complex_points(manifold, rng):
    like = np.zeros((), np.complex128)
    laws.check_manifold(manifold, like, rng, retraction_order=2)
    x = manifold.random_point(rng, like=like)
    assert manifold.curvature_bounds(x)[0].dtype == manifold.injectivity_radius(x).dtype == np.float64


def test_complex_euclidean_gradient(backend):
    """The gradient of |x - c|²/2 is x - c for complex points, too."""
    like = backend.asarray(np.zeros((), np.complex128))
    c = backend.asarray(np.array([1 + 2j, -0.5j]), like=like)
    m, x = Euclidean(2), backend.asarray(np.array([0.3 - 1j, 2.0 + 0j]), like=like)
    got = m.gradient(lambda p: 0.5 * m.squared_dist(p, c), x)
    assert np.abs(backend.to_numpy(got - (x - c))).max() < 1e-15


@pytest.mark.parametrize("make", [lambda: Euclidean(0), lambda: Positive(0), lambda: Euclidean(2, 0)])
def test_spaces_without_entries(like64, backend, make):
    m = make()
    x = backend.xp.zeros((4, *m.shape), dtype=like64.dtype)
    assert m.dim == 0
    assert not backend.to_numpy(m.dist(x, x)).any() and not backend.to_numpy(m.curvature_bounds(x)[0]).any()
    assert backend.to_numpy(m.contains(x)).all()


# -- positive numbers ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_positive_against_mpmath(backend, like64, x, y):
    """Log, distance, exp and both retractions to rounding, for close and for far points."""
    m, hx, hy = Positive(), backend.asarray(x, like=like64), backend.asarray(y, like=like64)
    p, q = mpmath.mpf(x), mpmath.mpf(y)
    log = p * mpmath.log(q / p)
    assert relative(m.log(hx, hy), log) < 4e-16
    assert relative(m.dist(hx, hy), abs(mpmath.log(q / p))) < 4e-16
    assert relative(m.exp(hx, m.log(hx, hy)), q) < 1e-14
    u = backend.asarray(float(q - p), like=like64)
    s = mpmath.mpf(float(q - p)) / p
    assert relative(m.retract(hx, u), p * (s / 2 + mpmath.sqrt(1 + s * s / 4)) ** 2) < 1e-15
    back = m.inverse_retract(hx, hy)
    assert relative(back, (q - p) * mpmath.sqrt(p / q)) < 1e-15
    assert relative(m.retract(hx, back), q) < 1e-14


@pytest.mark.parametrize("at", [1.0, 1 + 1e-9, 0.5, 0.49, 2.0, 1e-3, 50.0])
def test_positive_derivatives(backend, like64, at):
    """Derivatives of orders 1 to 3 of dist², log and the retraction, at close points and at branches."""
    m, one = Positive(), backend.xp.ones_like(like64)
    y = backend.asarray(at, like=like64)
    for f, reference in (
        (lambda p: m.squared_dist(one, p), lambda t: mpmath.log(t) ** 2),
        (lambda p: m.log(p, one), lambda t: -t * mpmath.log(t)),
        (lambda p: m.retract(one, p - 1), lambda t: ((t - 1) / 2 + mpmath.sqrt(1 + ((t - 1) / 2) ** 2)) ** 2),
    ):
        for got, want in zip(derivatives(backend, f, y), taylor(reference, at), strict=True):
            assert abs(got - want) < 1e-12 * (1 + abs(want))


def test_positive_is_spd_of_size_one(backend, like64, rng):
    m, spd = Positive(), SPD(1)
    s = laws.draw(m, rng, like64, (5,))
    x, y, u, w = (p[..., None, None] for p in (s.x, s.y, s.u, s.a))
    for got, want in (
        (m.inner(s.x, s.u, s.v), spd.inner(x, u, s.v[..., None, None])),
        (m.sharp(s.x, s.a), spd.sharp(x, w)[..., 0, 0]),
        (m.connection(s.x, s.a, s.u), spd.connection(x, w, u)[..., 0, 0]),
        (m.exp(s.x, s.u), spd.exp(x, u)[..., 0, 0]),
        (m.log(s.x, s.y), spd.log(x, y)[..., 0, 0]),
        (m.dist(s.x, s.y), spd.dist(x, y)),
        (m.parallel_transport(s.x, s.y, s.u), spd.parallel_transport(x, y, u)[..., 0, 0]),
    ):
        assert np.abs(backend.to_numpy(got - want)).max() < 1e-13


def test_positive_retraction_is_positive_and_finite_for_every_vector(backend, like64, like32):
    for like, far in ((like64, 1e100), (like32, 1e15)):
        x = backend.asarray(np.array([1.0, 1e-10, 3.0, 3.0]), like=like)
        u = backend.asarray(np.array([-far, 1.0, far, -1e-20]), like=like)
        y = backend.to_numpy(Positive(4).retract(x, u))
        assert (y > 0).all() and np.isfinite(y).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_what_is_not_positive_is_found(backend, like64, bad):
    x = backend.asarray(np.array([1.0, bad]), like=like64)
    assert not bool(Positive(2).contains(x))
    assert not bool(Box(0.0, 2.0, (2,)).contains(x))


# -- boxes --------------------------------------------------------------------------------------------
def logit(x, low, high):
    return mpmath.log((x - low) / (high - x))


def expit(t, low, high):
    return low + (high - low) / (1 + mpmath.exp(-t))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 3.0), (0.0, 1e6)])
@pytest.mark.parametrize(
    ("x", "y"), [(0.5, 0.5 + 1e-13), (0.3, 0.8), (1e-12, 0.5), (1e-9, 2e-9), (0.9, 1e-6), (0.5, 0.999)]
)
def test_box_against_mpmath(backend, like64, low, high, x, y):
    """Log, distance, exp and retraction to rounding, near the bounds too (x, y are shares of the width)."""
    m = Box(low, high)
    x, y = (low + (high - low) * share for share in (x, y))
    hx, hy = backend.asarray(x, like=like64), backend.asarray(y, like=like64)
    p, q, lo, hi = (mpmath.mpf(t) for t in (x, y, low, high))
    rate = 1 / (p - lo) + 1 / (hi - p)
    gap = logit(q, lo, hi) - logit(p, lo, hi)
    assert relative(m.log(hx, hy), gap / rate) < 2e-15
    assert relative(m.dist(hx, hy), abs(gap)) < 2e-15
    # the end is known to the rounding of y, or of y - low where low is 0
    unit = abs(y) if low == 0.0 else max(abs(low), abs(high))
    assert abs(float(m.exp(hx, m.log(hx, hy))) - y) < 2e-14 * unit
    assert abs(float(m.retract(hx, m.inverse_retract(hx, hy))) - y) < 2e-14 * unit
    s = float(gap)
    moved = expit(logit(p, lo, hi) + mpmath.mpf(float(backend.asarray(s, like=like64))), lo, hi)
    assert abs(float(m.exp(hx, backend.asarray(float(s / rate), like=like64))) - float(moved)) < 2e-14 * unit


@pytest.mark.parametrize("at", [0.5, 0.5 + 1e-9, 0.1, 0.95, 0.3])
def test_box_derivatives(backend, like64, at):
    """Derivatives of orders 1 to 3 of dist², log and both maps, at close points and at branches."""
    m, half = Box(0.0, 1.0), backend.asarray(0.5, like=like64)
    y = backend.asarray(at, like=like64)

    def rho(t):
        h = 2 * (t - mpmath.mpf(0.5))
        odds = (h + mpmath.sqrt(1 + h * h)) ** 2
        return odds / (1 + odds)

    for f, reference in (
        (lambda p: m.squared_dist(half, p), lambda t: logit(t, 0, 1) ** 2),
        (lambda p: m.log(p, half), lambda t: -t * (1 - t) * logit(t, 0, 1)),
        (lambda p: m.exp(half, p - 0.5), lambda t: expit(4 * (t - mpmath.mpf(0.5)), 0, 1)),
        (lambda p: m.retract(half, p - 0.5), rho),
    ):
        for got, want in zip(derivatives(backend, f, y), taylor(reference, at), strict=True):
            assert abs(got - want) < 1e-12 * (1 + abs(want)), (got, want)


def test_box_far_steps_stay_in_the_box(backend, like64, like32):
    for like in (like64, like32):
        m = Box(backend.asarray(np.array([-1.0, 0.0]), like=like), backend.asarray(np.array([1.0, 2.0]), like=like))
        x = backend.asarray(np.array([0.3, 1e-5]), like=like)
        for far in (-1e4, 1e4):
            y = backend.to_numpy(m.exp(x, far * backend.xp.ones_like(x)))
            assert np.isfinite(y).all() and (y >= [-1, 0]).all() and (y <= [1, 2]).all()
            assert bool(m.contains(m.retract(x, 1e-3 * far * backend.xp.ones_like(x))))


def test_box_with_batches_of_bounds(backend, like64, rng):
    """Bounds with leading axes are those of the entries, one by one; their derivative is that of a closed form."""
    low, high = rng.standard_normal((4, 3)), 3 + rng.random((4, 3))
    m = Box(backend.asarray(low, like=like64), backend.asarray(high, like=like64), (3,))
    assert m.shape == (3,) and m.dim == 3
    x = m.random_point(rng, (4,), like=like64)
    y = m.random_point(rng, (4,), like=like64)
    whole = backend.to_numpy(m.dist(x, y))
    for i in range(4):
        one = Box(backend.asarray(low[i], like=like64), backend.asarray(high[i], like=like64))
        assert abs(float(one.dist(x[i, ...], y[i, ...])) - whole[i]) < 1e-14
    _, pull = backend.vjp(lambda b: b.squared_dist(x, y), m)
    got = backend.to_numpy(pull(backend.asarray(np.ones(4), like=like64))[0].low)
    px, py = backend.to_numpy(x), backend.to_numpy(y)
    gap = np.log((py - low) * (high - px) / ((high - py) * (px - low)))
    want = 2 * gap * (1 / (px - low) - 1 / (py - low))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Symmetric(0), "n ≥ 1"),
        (lambda: SkewSymmetric(1), "n ≥ 2"),
        (lambda: Hermitian(2.5), "integer"),  # pyright: ignore[reportArgumentType]
        (lambda: Positive(-1), "≥ 0"),
        (lambda: Box(1.0, 1.0), "low < high"),
        (lambda: Box(np.array([0.0, 2.0]), 1.0), "low < high"),
        (lambda: Box(0.0, np.inf), "finite"),
        (lambda: Box(np.zeros(3), 1.0, (2,)), "broadcast"),
    ],
)
def test_impossible_spaces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
