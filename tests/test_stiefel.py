"""The Stiefel manifolds: geodesics, logarithms and transports of a family of metrics, against independent formulas."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm as scipy_expm
from scipy.linalg import solve_continuous_lyapunov

import nestfold as nf
from nestfold.backends import backend_of, namespace
from nestfold.manifolds import GeneralizedStiefel, Retraction, Stiefel, cayley, polar, qr
from nestfold.manifolds._expm import expm
from nestfold.manifolds._lyapunov import definite_lyapunov, lyapunov

BETAS = [1.0, 0.5, 0.3, 2.0]
KINDS = ["real", "complex"]

#: JAX compiles each of these for 10 to 30 seconds
compiled_slowly = pytest.mark.parametrize(
    "backend",
    ["numpy", "array_api_strict", "torch", pytest.param("jax", marks=pytest.mark.slow)],
    indirect=True,
)


def noise(rng, shape, kind="real"):
    a = rng.standard_normal(shape)
    return a + 1j * rng.standard_normal(shape) if kind == "complex" else a


def adjoint(a):
    return np.conj(np.swapaxes(a, -1, -2))


def pair(rng, n, p, length=1.0, beta=1.0, kind="real", rank=None, batch=()):
    """A point and a tangent vector of that length, normal to x up to `rank` columns."""
    x = np.linalg.qr(noise(rng, (*batch, n, p), kind))[0]
    a = noise(rng, (*batch, p, p), kind)
    a = a - adjoint(a)
    b = noise(rng, (*batch, n, p), kind)
    if rank is not None:
        b[..., :, rank:] = 0
    b = b - x @ (adjoint(x) @ b)
    size = np.sqrt(beta * np.sum(np.abs(a) ** 2, (-2, -1)) + np.sum(np.abs(b) ** 2, (-2, -1)))
    return x, (x @ a + b) * (length / size)[..., None, None]


def relative(got, want):
    return np.max(np.abs(got - want)) / (1e-300 + np.max(np.abs(want)))


def acceleration(x, u, beta):
    """The geodesic equation: Zimmermann & Hüper 2022, eq. (8), in other words."""
    a = adjoint(x) @ u
    return -x @ (adjoint(u) @ u) + 2 * (1 - beta) * (u - x @ a) @ a


def by_basis(x, u, beta):
    """Zimmermann & Hüper 2022, eq. (10), with a QR decomposition."""
    p = x.shape[1]
    a = adjoint(x) @ u
    q, r = np.linalg.qr(u - x @ a)
    block = np.block([[2 * beta * a, -adjoint(r)], [r, np.zeros((p, p))]])
    return np.hstack([x, q]) @ scipy_expm(block)[:, :p] @ scipy_expm((1 - 2 * beta) * a)


# -- geodesics ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_exp_against_a_basis_and_the_geodesic_equation(backend, beta, kind, rng):
    for n, p in ((5, 2), (7, 3), (4, 3), (3, 3)):
        x, u = pair(rng, n, p, 2.0, beta, kind)
        manifold = Stiefel(n, p, beta=beta)
        got = backend.to_numpy(manifold.exp(backend.asarray(x), backend.asarray(u)))
        assert relative(got, by_basis(x, u, beta)) < 1e-13

        def field(t, state, n=n, p=p):
            y, v = state.reshape(2, n, p)
            return np.stack([v, acceleration(y, v, beta)]).ravel()

        end = solve_ivp(field, (0, 1), np.stack([x, u]).ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        assert relative(got, end.reshape(2, n, p)[0]) < 1e-10


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("rank", [0, 1])
def test_derivatives_of_exp_at_zero_and_low_rank(backend, beta, rank, like64, rng):
    """Orders 1 to 3 of t ↦ c·exp(x, t₀u + t v) at u = 0 and at a u of low rank, against 40 digits."""
    n, p = 5, 2
    x, u = pair(rng, n, p, 0.0 if rank == 0 else 1.0, beta, rank=rank)
    _, v = pair(rng, n, p)
    v = v - x @ (x.T @ v + v.T @ x) / 2
    c = rng.standard_normal((n, p))

    def exact(t):
        xx, w = mpmath.matrix(x), mpmath.matrix(u) + t * mpmath.matrix(v)
        a = xx.T * w
        a = (a - a.T) / 2
        b = w - xx * a
        g = b.T * b
        block = mpmath.zeros(2 * p)
        for i in range(p):
            block[p + i, i] = 1
            for j in range(p):
                block[i, j], block[i, p + j] = 2 * beta * a[i, j], -g[i, j]
        e = mpmath.expm(block) * mpmath.eye(2 * p)[:, :p]
        y = (xx * e[:p, :] + b * e[p:, :]) * mpmath.expm((1 - 2 * beta) * a)
        return sum(y[i, j] * c[i, j] for i in range(n) for j in range(p))

    with mpmath.workdps(40):
        wanted = [float(mpmath.diff(exact, 0, k)) for k in range(4)]
    x, u, v, c = (backend.asarray(z, like=like64) for z in (x, u, v, c))
    manifold = Stiefel(n, p, beta=beta)

    def curve(t):
        return manifold.pair(c, manifold.exp(x, u + t * v))

    for f, want in zip(derivatives_of(curve), wanted, strict=True):
        assert float(backend.to_numpy(f(0.0 * like64))) == pytest.approx(want, rel=1e-12, abs=1e-12)


def derivatives_of(f):
    """F and its first three derivatives, of one variable: reverse over forward over reverse."""

    def forward(h):
        return lambda t: backend_of(t).jvp(h, (t,), (backend_of(t).one(t),))[1]

    first = nf.grad(f)
    return [f, first, forward(first), nf.grad(forward(first))]


@compiled_slowly
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_log_undoes_exp_up_to_the_injectivity_radius(backend, beta, kind, rng):
    """Also for velocities of nearly low rank; beyond it a logarithm is a geodesic to y, or NaN."""
    batch = (20,)
    radius = {1.0: np.pi, 0.5: 2 * np.pi / 5**0.5}.get(beta, 2.0) * (1 if kind == "real" else 0.5**0.5)
    for n, p in ((4, 2), (7, 3), (4, 3)):
        manifold = Stiefel(n, p, beta=beta)
        for length, tolerance in ((1e-9, 1e-15), (1e-3, 1e-14), (1.0, 1e-13), (0.95 * radius, 2e-12)):
            x, u = pair(rng, n, p, length, beta, kind, batch=batch)
            x, u = backend.asarray(x), backend.asarray(u)
            log = manifold.log(x, manifold.exp(x, u))
            assert np.max(np.abs(backend.to_numpy(log - u))) < tolerance
            dist = backend.to_numpy(manifold.dist(x, manifold.exp(x, u)))
            assert np.max(np.abs(dist - length)) < tolerance
        for length in (4.0, 6.0):
            x, u = pair(rng, n, p, length, beta, kind, batch=batch)
            y = backend.to_numpy(manifold.exp(backend.asarray(x), backend.asarray(u)))
            log = manifold.log(backend.asarray(x), backend.asarray(y))
            end = backend.to_numpy(manifold.exp(backend.asarray(x), log))
            found = np.isfinite(end).all((-2, -1))
            assert np.max(np.abs(end - y)[found], initial=0.0) < 1e-7


def test_no_logarithm_is_nan(backend, like64):
    x = backend.asarray(np.eye(4)[:, :2], like=like64)
    flipped = backend.asarray(np.eye(4)[:, :2] * [1, -1], like=like64)
    for beta in (1.0, 0.5):
        for y in (-x, flipped, float("nan") * x):
            assert np.isnan(backend.to_numpy(Stiefel(4, 2, beta=beta).log(x, y))).any()
        mirror = backend.asarray(np.diag([1.0, -1.0]), like=like64)
        identity = backend.asarray(np.eye(2), like=like64)
        assert np.isnan(backend.to_numpy(Stiefel(2, 2, beta=beta).log(identity, mirror))).all()
    # one bad entry spoils no other
    both = backend.xp.stack([-x, x])
    assert np.max(np.abs(backend.to_numpy(Stiefel(4, 2).log(x, both))[1])) < 1e-15


@compiled_slowly
@pytest.mark.parametrize("beta", [1.0, 0.5, 0.3])
def test_derivatives_of_log(backend, beta, like64, rng):
    """Orders 1 to 3 of t ↦ log(x, exp(x, u + t v + t² w + t³ z)), known, at a distance and at y = x."""
    for n, p, length in ((5, 2, 1.3), (5, 2, 0.0), (3, 2, 0.7)):
        x, u = pair(rng, n, p, length, beta)
        others = [noise(rng, (n, p)) for _ in range(3)]
        v, w, z = (a - x @ (x.T @ a + a.T @ x) / 2 for a in others)
        c = noise(rng, (n, p))
        wanted = [np.sum(c * a) for a in (u, v, 2 * w, 6 * z)]
        x, u, v, w, z, c = (backend.asarray(a, like=like64) for a in (x, u, v, w, z, c))
        manifold = Stiefel(n, p, beta=beta)

        def curve(t, manifold=manifold, x=x, u=u, v=v, w=w, z=z, c=c):
            return manifold.pair(c, manifold.log(x, manifold.exp(x, u + t * v + t**2 * w + t**3 * z)))

        for f, want in zip(derivatives_of(curve), wanted, strict=True):
            assert float(backend.to_numpy(f(0.0 * like64))) == pytest.approx(want, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_parallel_transport_against_its_equation(backend, beta, kind, rng):
    """v̇ = Q(ẋ, v), Q the polar form of the geodesic acceleration, along the geodesic."""
    for n, p in ((5, 2), (4, 3), (3, 3)):
        x, u = pair(rng, n, p, 1.5, beta, kind)
        v = noise(rng, (n, p), kind)
        v = v - x @ (adjoint(x) @ v + adjoint(v) @ x) / 2

        def field(t, state, n=n, p=p):
            y, velocity, v = state.reshape(3, n, p)
            polar_form = (acceleration(y, velocity + v, beta) - acceleration(y, velocity - v, beta)) / 4
            return np.stack([velocity, acceleration(y, velocity, beta), polar_form]).ravel()

        state = np.stack([x, u, v]).ravel()
        end = solve_ivp(field, (0, 1), state, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(3, n, p)
        x, y, v = backend.asarray(x), backend.asarray(end[0]), backend.asarray(v)
        got = backend.to_numpy(Stiefel(n, p, beta=beta).parallel_transport(x, y, v))
        assert relative(got, end[2]) < 1e-9


@pytest.mark.parametrize("n", [3, 5])
def test_one_column_is_the_sphere(backend, n, like64, rng):
    """For every metric: nothing is along x."""
    x, u = pair(rng, n, 1, 2.0)
    x, u, v = (backend.asarray(a, like=like64) for a in (x, u, pair(rng, n, 1)[1]))
    sphere = nf.Sphere(n)
    y = sphere.exp(x[:, 0], u[:, 0])
    v = sphere.project(x[:, 0], v[:, 0])
    for beta in (1.0, 0.5, 3.0):
        stiefel = Stiefel(n, 1, beta=beta)
        pairs = [(stiefel.exp(x, u)[:, 0], y), (stiefel.log(x, y[:, None])[:, 0], u[:, 0])]
        moved = stiefel.parallel_transport(x, y[:, None], v[:, None])[:, 0]
        pairs += [(moved, sphere.parallel_transport(x[:, 0], y, v))]
        for got, want in pairs:
            assert relative(backend.to_numpy(got), backend.to_numpy(want)) < 1e-13


def test_square_points_are_the_orthogonal_group(backend, like64, rng):
    """Exp(x, x a) = x eᵃ for every metric, and the distance is √β |a|."""
    x, u = pair(rng, 4, 4, 2.0)
    a = x.T @ u
    for beta in BETAS:
        manifold = Stiefel(4, 4, beta=beta)
        end = manifold.exp(backend.asarray(x, like=like64), backend.asarray(u, like=like64))
        assert relative(backend.to_numpy(end), x @ scipy_expm((a - a.T) / 2)) < 1e-14
        assert float(manifold.dist(backend.asarray(x, like=like64), end)) == pytest.approx(2.0 * beta**0.5, rel=1e-13)


# -- the metric as a parameter ------------------------------------------------------------------------
def test_a_batch_of_metrics_is_one_by_one(backend, like64, rng):
    x, u = pair(rng, 5, 2, batch=(3,))
    x, u = backend.asarray(x, like=like64), backend.asarray(u, like=like64)
    values = [1.0, 0.5, 0.7]
    many = Stiefel(5, 2, beta=backend.asarray(np.array(values), like=like64))
    y = many.exp(x, u)
    together = [many.inner(x, u, u), many.sharp(x, u), many.connection(x, u, u), y, many.log(x, y)]
    together += [many.squared_dist(x, y), many.parallel_transport(x, y, u)]
    for i, beta in enumerate(values):
        one = Stiefel(5, 2, beta=beta)
        p, v, q = x[i, ...], u[i, ...], y[i, ...]
        alone = [one.inner(p, v, v), one.sharp(p, v), one.connection(p, v, v), one.exp(p, v), one.log(p, q)]
        alone += [one.squared_dist(p, q), one.parallel_transport(p, q, v)]
        for got, want in zip(together, alone, strict=True):
            assert relative(backend.to_numpy(got[i, ...]), backend.to_numpy(want)) < 1e-13
    radius = backend.to_numpy(many.injectivity_radius(x))
    assert radius[:2] == pytest.approx([np.pi, 2 * np.pi / 5**0.5]) and np.isnan(radius[2])
    low, high = many.curvature_bounds(x)
    assert backend.to_numpy(low).tolist() == [-0.5, 0, -np.inf] and backend.to_numpy(high).tolist() == [1, 1.25, np.inf]


@compiled_slowly
def test_gradients_in_the_metric(backend, like64, rng):
    """To second order, against differences of sixth order."""
    x, u = pair(rng, 5, 2)
    y = np.linalg.qr(x + 0.3 * noise(rng, (5, 2)))[0]
    y = y * np.sign(np.sum(x * y, 0))
    c = backend.asarray(noise(rng, (5, 2)), like=like64)
    x, y, u = (backend.asarray(a, like=like64) for a in (x, y, u))

    def numbers(beta):
        m = Stiefel(5, 2, beta=beta)
        moved = m.pair(c, m.parallel_transport(x, y, u))
        return m.squared_dist(x, y) + m.pair(c, m.log(x, y)) + 2 * m.pair(c, m.exp(x, u)) + 3 * moved

    at, h = 0.7, 2e-2
    values = [float(numbers(backend.asarray(at + k * h, like=like64))) for k in range(-4, 5)]
    first = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]) @ values / h
    weights = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560])
    second = weights @ values / h**2
    _, got, again, _ = derivatives_of(numbers)
    beta = backend.asarray(at, like=like64)
    assert float(backend.to_numpy(got(beta))) == pytest.approx(first, rel=1e-8)
    assert float(backend.to_numpy(again(beta))) == pytest.approx(second, rel=1e-7)


# -- retractions --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["qr", "polar", "cayley"])
@pytest.mark.parametrize("kind", KINDS)
def test_retractions_and_their_inverses(backend, name, kind, rng):
    retraction = {"qr": qr, "polar": polar, "cayley": cayley}[name]
    for n, p in ((6, 3), (3, 3), (4, 3), (5, 1)):
        manifold = Stiefel(n, p, retraction)
        x, u = pair(rng, n, p, 0.9, kind=kind, batch=(4, 3))
        y = manifold.retract(backend.asarray(x), backend.asarray(u))
        assert float(np.max(backend.to_numpy(manifold.defect(y)))) < 1e-14
        assert relative(backend.to_numpy(manifold.inverse_retract(backend.asarray(x), y)), u) < 1e-13


def test_cayley_against_its_definition(rng):
    x, u = pair(rng, 6, 2, 3.0, kind="complex")
    a = u - x @ (adjoint(x) @ u) / 2
    w, eye = a @ adjoint(x) - x @ adjoint(a), np.eye(6)
    assert relative(cayley(x, u), np.linalg.solve(eye - w / 2, (eye + w / 2) @ x)) < 1e-13
    assert relative(cayley.inverse(x, cayley(x, u)), u) < 1e-12


@compiled_slowly
def test_derivatives_of_inverse_retractions(backend, like64, rng):
    """Orders 1 to 3 of t ↦ R⁻¹(x, R(x, u + t v + t² w + t³ z))."""
    x, u = pair(rng, 5, 2, 0.8)
    v, w, z = (a - x @ (x.T @ a + a.T @ x) / 2 for a in noise(rng, (3, 5, 2)))
    c = noise(rng, (5, 2))
    wanted = [np.sum(c * a) for a in (u, v, 2 * w, 6 * z)]
    x, u, v, w, z, c = (backend.asarray(a, like=like64) for a in (x, u, v, w, z, c))
    for m in (Stiefel(5, 2, retraction) for retraction in (qr, polar, cayley)):

        def curve(t, m=m):
            return m.pair(c, m.inverse_retract(x, m.retract(x, u + t * v + t**2 * w + t**3 * z)))

        for f, want in zip(derivatives_of(curve), wanted, strict=True):
            assert float(backend.to_numpy(f(0.0 * like64))) == pytest.approx(want, rel=1e-11, abs=1e-11)


def test_a_plain_function_as_retraction(rng):
    def mine(x, u):
        return polar(x, u)

    x, u = pair(rng, 5, 2)
    manifold = Stiefel(5, 2, mine)
    np.testing.assert_array_equal(manifold.retract(x, u), polar(x, u))
    with pytest.raises(TypeError, match="plain function without an inverse"):
        manifold.inverse_retract(x, x)
    both = Stiefel(5, 2, Retraction(mine, polar.inverse))
    assert relative(both.inverse_retract(x, both.retract(x, u)), u) < 1e-13


# -- bad input, names ---------------------------------------------------------------------------------
def test_bad_input_is_refused():
    for sizes in ((2, 3), (0, 0), (3, 0), (3.0, 2), (3, -1)):
        with pytest.raises(ValueError, match="integers n ≥ p ≥ 1"):
            Stiefel(*sizes)  # pyright: ignore[reportArgumentType]  the mistake that is refused
        with pytest.raises(ValueError, match="integers n ≥ p ≥ 1"):
            GeneralizedStiefel(*sizes, np.eye(3))  # pyright: ignore[reportArgumentType]  the mistake that is refused
    for beta in (0.0, -1.0, np.array([1.0, -0.5]), float("nan")):
        with pytest.raises(ValueError, match="beta must be positive"):
            Stiefel(3, 2, beta=beta)
    with pytest.raises(ValueError, match="retraction is"):
        Stiefel(3, 2, "qr")  # pyright: ignore[reportArgumentType]  the mistake that is refused
    for b in (np.eye(2), np.array(1.0), 2.0):
        with pytest.raises(ValueError, match="B has shape"):
            GeneralizedStiefel(3, 2, b)
    for b in (-np.eye(3), np.eye(3) + [[0, 1, 0]] * 3, np.full((3, 3), np.nan), np.diag([1.0, 1.0, 0.0])):
        with pytest.raises(ValueError, match="positive definite"):
            GeneralizedStiefel(3, 2, b)


def test_equality_and_names():
    assert Stiefel(5, 2) == Stiefel(5, 2) != Stiefel(5, 2, beta=0.5)
    assert hash(Stiefel(5, 2)) == hash(Stiefel(5, 2))
    assert repr(Stiefel(5, 2)) == "Stiefel(n=5, p=2)" and repr(Stiefel(5, 2, beta=0.5)) == "Stiefel(n=5, p=2, beta=0.5)"


# -- another inner product ----------------------------------------------------------------------------
def definite(rng, n, kind="real", batch=()):
    a = noise(rng, (*batch, n, n), kind)
    b = a @ adjoint(a) / n + 0.2 * np.eye(n)
    return (b + adjoint(b)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_generalized_stiefel_is_isometric_to_stiefel(backend, kind, rng):
    """Through x ↦ lᴴx, B = llᴴ; the array B is a batch."""
    n, p = 5, 2
    b = definite(rng, n, kind, (3,))
    l = np.linalg.cholesky(b)
    z, w = pair(rng, n, p, kind=kind, batch=(3,))
    _, v = pair(rng, n, p, kind=kind, batch=(3,))
    v = v - z @ (adjoint(z) @ v + adjoint(v) @ z) / 2
    x, u, t = (np.linalg.solve(adjoint(l), a) for a in (z, w, v))
    here, there = GeneralizedStiefel(n, p, backend.asarray(b)), Stiefel(n, p, polar)
    x, u, t = (backend.asarray(a) for a in (x, u, t))
    y, end = here.exp(x, u), there.exp(z, w)
    away = np.linalg.solve(adjoint(l), end)
    for got, want in [
        (y, away),
        (here.log(x, y), backend.to_numpy(u)),
        (here.parallel_transport(x, y, t), np.linalg.solve(adjoint(l), there.parallel_transport(z, end, v))),
        (here.retract(x, u), np.linalg.solve(adjoint(l), there.retract(z, w))),
        (here.inverse_retract(x, y), np.linalg.solve(adjoint(l), there.inverse_retract(z, end))),
        (here.squared_dist(x, y), there.squared_dist(z, end)),
        (here.inner(x, u, t), there.inner(z, w, v)),
    ]:
        assert relative(backend.to_numpy(got), want) < 2e-13


def test_generalized_stiefel_projects_in_the_ambient_dot(rng):
    """Against least squares on a basis of the tangent space."""
    n, p = 4, 2
    b = definite(rng, n)
    manifold = GeneralizedStiefel(n, p, b)
    x = manifold.random_point(rng, like=np.zeros(()))
    _, s, rows = np.linalg.svd(
        np.stack([((x.T @ b @ e).T + x.T @ b @ e).ravel() for e in np.eye(n * p).reshape(-1, n, p)], 1)
    )
    tangent = rows[np.sum(s > 1e-12) :].T
    a = noise(rng, (n, p))
    want = (tangent @ (tangent.T @ a.ravel())).reshape(n, p)
    assert tangent.shape[1] == manifold.dim
    assert relative(manifold.project(x, a), want) < 1e-14


@compiled_slowly
def test_gradient_in_the_inner_product(backend, like64, rng):
    """Of a distance in B, second order: along B + t c against differences."""
    n, p = 4, 2
    b, c = definite(rng, n), definite(rng, n)
    x, y = np.linalg.qr(noise(rng, (2, n, p)))[0]
    y = x + 0.3 * y
    a = backend.asarray(noise(rng, (n, p)), like=like64)
    b, c, x, y = (backend.asarray(z, like=like64) for z in (b, c, x, y))

    def numbers(t):
        m = GeneralizedStiefel(n, p, b + t * c)
        at, to = m.retract(x, 0 * x), m.retract(y, 0 * y)
        v = m.project(at, a)
        moved = m.pair(a, m.parallel_transport(at, to, v))
        return m.squared_dist(at, to) + m.pair(a, m.log(at, to)) + m.inner(at, v, v) + moved

    h = 1e-2
    values = [float(numbers(backend.asarray(k * h, like=like64))) for k in range(-4, 5)]
    first = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]) @ values / h
    second = np.array([-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]) @ values / h**2
    _, got, again, _ = derivatives_of(numbers)
    assert float(backend.to_numpy(got(0 * like64))) == pytest.approx(first, rel=1e-7)
    assert float(backend.to_numpy(again(0 * like64))) == pytest.approx(second, rel=1e-6)


# -- the tools ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_lyapunov(backend, kind, rng):
    for p in (1, 3, 8):
        m = np.eye(p) + 0.4 * noise(rng, (2, p, p), kind) / p**0.5
        g = definite(rng, p, kind, (2,))
        c = noise(rng, (2, p, p), kind)
        for solver, left in ((lyapunov, m), (definite_lyapunov, g)):
            got = backend.to_numpy(solver(backend.asarray(left), backend.asarray(c)))
            want = np.stack([solve_continuous_lyapunov(a, b) for a, b in zip(left, c, strict=True)])
            assert relative(got, want) < 1e-13
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    for m in (-np.eye(2), turn, np.full((2, 2), np.nan)):
        assert np.isnan(backend.to_numpy(lyapunov(backend.asarray(m), backend.asarray(np.eye(2))))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_exponential(backend, kind, rng):
    """Against SciPy over sizes and norms, batched together; |e^a - exact| ≤ 1e-15 |a| |e^a| for skew a."""
    for n in (1, 2, 3, 5, 12):
        a = noise(rng, (8, n, n), kind)
        a = (
            a
            / np.linalg.norm(a, 1, (-2, -1))[:, None, None]
            * np.array([0, 1e-8, 0.3, 1, 4, 9, 20, 100])[:, None, None]
        )
        skew = (a - adjoint(a)) / 2
        for b in (a, skew):
            got, want = backend.to_numpy(expm(backend.asarray(b))), np.stack([scipy_expm(c) for c in b])
            off = np.max(np.abs(got - want), (-2, -1)) / np.max(np.abs(want), (-2, -1))
            assert np.max(off / (1 + np.linalg.norm(b, 1, (-2, -1)))) < 3e-14
    nan = backend.to_numpy(expm(backend.asarray(np.stack([np.eye(2), np.full((2, 2), np.nan)]))))
    assert relative(nan[0], np.e * np.eye(2)) < 1e-15 and np.isnan(nan[1]).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 100.0])
def test_derivatives_of_the_matrix_exponential(backend, scale, like64, rng):
    """Orders 0 to 3 along a line, against 60 digits: general, nilpotent and skew matrices."""
    n = 3
    general = rng.standard_normal((n, n))
    general = general / np.linalg.norm(general, 2)
    nilpotent = np.triu(np.ones((n, n)), 1)
    for a in (general, nilpotent, general - general.T):
        b, c = rng.standard_normal((2, n, n))
        a = scale * a

        def exact(t, a=a, b=b, c=c):
            e = mpmath.expm(mpmath.matrix(a) + t * mpmath.matrix(b), method="taylor")
            return sum(e[i, j] * c[i, j] for i in range(n) for j in range(n))

        with mpmath.workdps(60):
            values = [float(mpmath.diff(exact, 0, k)) for k in range(4)]
        aa, bb, cc = (backend.asarray(z, like=like64) for z in (a, b, c))

        def curve(t, aa=aa, bb=bb, cc=cc):
            return namespace(t).sum(cc * expm(aa + t * bb))

        size = np.max(np.abs(scipy_expm(a))) * (1 + scale)
        for f, want in zip(derivatives_of(curve), values, strict=True):
            assert float(backend.to_numpy(f(0.0 * like64))) == pytest.approx(want, rel=1e-12, abs=3e-13 * size)
