"""Manifolds made of others: of exactly the kinds of their parts, values, trees, and right against closed forms."""

import copy
import dataclasses
import pickle
from typing import Any

import mpmath
import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import CutLocusError, DTypeError, NotOnManifoldError, NotTangentError, ShapeError, namespace
from nestfold.backends._trees import leaves, tree_map
from nestfold.manifolds import (
    SPD,
    Box,
    Checked,
    Congruence,
    Curvature,
    Embedded,
    Euclidean,
    Exponential,
    Geodesic,
    Grassmann,
    InverseRetraction,
    Logarithmic,
    Manifold,
    PoincareBall,
    Positive,
    Product,
    Pulled,
    Quotient,
    Scaled,
    SpecialOrthogonal,
    Sphere,
    Stiefel,
    WithMetric,
    derived_connection,
)
from nestfold.manifolds._kinds import KINDS, kinds_of
from nestfold.testing import laws
from nestfold.testing.cases import gram_cost, orthonormal, uneven

LIKE = np.zeros(())
#: for what JAX compiles for a minute, and goes through in the table of laws
FEW = ["numpy", "array_api_strict", "torch"]


def only(*kinds: type) -> Any:
    """The sphere in ℝ³, but of these kinds alone."""
    names = set().union(*(kind.__abstractmethods__ for kind in (Manifold, *kinds)))
    body: dict[str, Any] = {name: delegated(name) for name in names - {"shape", "dim"}}
    body |= {"shape": property(lambda self: (3,)), "dim": property(lambda self: 2)}
    return type("Only", kinds or (Manifold,), body)()


def delegated(name: str) -> Any:
    return lambda self, *args: getattr(Sphere(3), name)(*args)


COMBINATIONS = [
    (),
    (Exponential,),
    (Logarithmic,),
    (Geodesic,),
    (InverseRetraction,),
    (Curvature,),
    (Logarithmic, Curvature),
    (Geodesic, InverseRetraction, Curvature),
]
WRAPPERS = {
    "scaled": lambda m: Scaled(m, 2.0),
    "checked": Checked,
    "pulled": lambda m: Pulled(Sphere(3), m, turned, turned),
    "product": lambda m: Product({"a": m, "b": Euclidean(2)}),
    "checked product": lambda m: Checked(Product({"a": m, "b": (SPD(2),)})),
    "nested": lambda m: Scaled(Product([Checked(m), Positive(2)]), 0.5),
}


def turned(x):
    """An isometry of ℝ³ and its own inverse."""
    return namespace(x).flip(x, axis=-1)


# -- kinds --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kinds", COMBINATIONS, ids=lambda kinds: "+".join(k.__name__ for k in kinds) or "none")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_constructions_have_the_kinds_of_their_parts_and_obey_their_laws(wrapper, kinds, rng):
    part = only(*kinds)
    m = WRAPPERS[wrapper](part)
    assert kinds_of(m) == kinds_of(part)
    for kind in KINDS:
        missing = kind.__abstractmethods__ - Manifold.__abstractmethods__
        assert isinstance(m, kind) or not all(hasattr(m, name) for name in missing)
    laws.check_manifold(m, LIKE, rng, retraction_order=2)


def test_congruence_and_quotient(rng):
    assert isinstance(Scaled(SPD(2), 3.0), Congruence) and isinstance(Checked(SPD(2)), Congruence)
    assert not isinstance(Product([SPD(2)]), Congruence)
    assert not isinstance(Pulled(SPD(2), SPD(2), lambda x: 2 * x, lambda y: 0.5 * y), Congruence)
    g = Grassmann(4, 2)
    mixed = Product([g, Sphere(3)])
    assert isinstance(mixed, Quotient) and kinds_of(mixed) - {Quotient} == kinds_of(g) & kinds_of(Sphere(3))
    for wrapped in (Scaled(g, 2.0), Checked(g)):
        assert kinds_of(wrapped) == kinds_of(g)
    with pytest.raises(TypeError, match="Quotient"):
        Pulled(Euclidean(4, 2), g, turned, turned)

    def cost(p, a, b):
        return gram_cost(p[0], a[0], b[0]) + laws._unsymmetric(Sphere(3))(p[1], a[1], b[1])

    laws.check_manifold(mixed, LIKE, rng, cost=cost)
    laws.check_manifold(Scaled(g, 2.0), LIKE, rng, cost=gram_cost)
    x = mixed.random_point(rng, (3,), like=LIKE)
    w = [x[0] @ np.array([[0.0, 3.0], [-3.0, 0.0]]), x[1]]
    np.testing.assert_allclose(mixed.vertical(x, w), g.vertical(x[0], w[0]), rtol=1e-14)


def test_scaled_congruence(rng):
    """With l = `factor`, ⟨l u lᵀ, l v lᵀ⟩ = u·v, for numbers and batches of weights."""
    for weight in (2.5, np.array([0.5, 3.0, 1.0])):
        m = Scaled(SPD(3), weight)
        s = laws.draw(m, rng, LIKE, (3,))
        l = m.factor(s.x)
        u, v = (l @ t @ l.mT for t in (s.u, s.v))
        np.testing.assert_allclose(m.inner(s.x, u, v), np.sum(s.u * s.v, axis=(-2, -1)), rtol=1e-12, atol=1e-13)


def test_curvature_of_products(backend, like64, rng):
    """Sphere: [1, 1], radius π; with a flat factor [0, 1]; with a hyperbolic one [-1, 1]; alone, its own."""
    for manifold, low, high, radius in (
        (Product([Sphere(3)]), 1, 1, np.pi),
        (Product([Sphere(3), Positive(2)]), 0, 1, np.pi),
        (Product([Sphere(3), Scaled(Sphere(4), 0.25)]), 0, 4, np.pi / 2),
        (Product([Sphere(3), PoincareBall(2)]), -1, 1, np.pi),
        (Scaled(Product([Scaled(PoincareBall(2), 0.5), Euclidean(1)]), 4.0), -0.5, 0, np.inf),
    ):
        x = manifold.random_point(rng, (2,), like=like64)
        bounds = [backend.to_numpy(b) for b in manifold.curvature_bounds(x)]
        np.testing.assert_allclose(bounds, [[low, low], [high, high]], rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(backend.to_numpy(manifold.injectivity_radius(x)), [radius] * 2, rtol=1e-14)


def test_products_have_dist_log_and_the_rest(backend, like64, rng):
    """dist² is the sum; peers' products have no dist and no log."""
    m = Product({"s": Sphere(3), "p": (SPD(2), Scaled(Euclidean(2), 4.0))})
    s = laws.draw(m, rng, like64, (4,))
    parts = [(Sphere(3), s.x["s"], s.y["s"]), (SPD(2), s.x["p"][0], s.y["p"][0])]
    want = sum(backend.to_numpy(n.squared_dist(x, y)) for n, x, y in parts)
    want = want + 4 * np.sum(backend.to_numpy(s.x["p"][1] - s.y["p"][1]) ** 2, axis=-1)
    np.testing.assert_allclose(backend.to_numpy(m.dist(s.x, s.y)), np.sqrt(want), rtol=1e-13)
    u = m.log(s.x, s.y)
    np.testing.assert_allclose(backend.to_numpy(m.norm(s.x, u)), np.sqrt(want), rtol=1e-13)


# -- values and trees -----------------------------------------------------------------------------------
EXAMPLES = {
    "product": lambda a: Product({"w": Sphere(3), "b": [Scaled(Euclidean(2), a), SPD(2)]}),
    "scaled": lambda a: Scaled(SPD(2), a),
    "checked": lambda a: Checked(Scaled(Positive(2), a)),
    "pulled": lambda a: Pulled(Sphere(3), Scaled(Sphere(3), a), turned, turned),
    "own metric": lambda a: WithMetric(Scaled(Sphere(3), a), uneven),
    "box": lambda a: Box(-a, a, (3,)),
    "embedded": lambda a: Embedded.from_constraint(shell, (3,), a),
}


def shell(x, radius):
    """Zero where |x| = radius."""
    return namespace(x, radius).sum(x * x, axis=-1) - radius * radius


@pytest.mark.parametrize("name", EXAMPLES)
def test_constructions_are_values(name, rng):
    m = EXAMPLES[name](1.5)
    assert m == EXAMPLES[name](1.5) != EXAMPLES[name](2.5)
    assert hash(m) == hash(EXAMPLES[name](1.5))
    x = m.random_point(rng, (2,), like=LIKE)
    m.check_point(x)
    for again in (pickle.loads(pickle.dumps(m)), copy.copy(m), copy.deepcopy(m), tree_map(lambda a: a, m)):
        assert again == m and type(again) is type(m) and repr(again) == repr(m) and again.ndims == m.ndims
        np.testing.assert_array_equal(leaves(again.project(x, x))[0], leaves(m.project(x, x))[0])


def test_written_as_made():
    assert repr(Product([Scaled(Sphere(3), 2.0), {"b": Euclidean(3)}])) == (
        "Product([Scaled(manifold=Sphere(n=3), weight=2.0), {'b': Euclidean(3)}])"
    )
    assert repr(Checked(Sphere(3))) == "Checked(manifold=Sphere(n=3))"
    assert repr(Box(0.0, 1.0, (3,))) == "Box(0.0, 1.0, (3,))"
    assert "orthonormal" in repr(Embedded.from_constraint(orthonormal, (4, 2)))
    assert isinstance(Product([Sphere(3)]), Product) and type(Product([Sphere(3)])).__name__ == "Product"


def test_another_part_makes_another_kind():
    m = dataclasses.replace(Scaled(Sphere(3), 2.0), manifold=only())
    assert kinds_of(m) == frozenset() and m.weight == 2.0 and m.dim == 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_of_parts_are_leaves_with_derivatives(backend, like64, name, rng):
    """d/da of a number made of points that do not depend on `a`, against differences."""
    make, a = EXAMPLES[name], backend.asarray(1.5, like=like64)
    m = make(a)
    assert len(leaves(m)) == (2 if name == "box" else 1)
    x = EXAMPLES[name](1.5).random_point(np.random.default_rng(1), like=like64)
    u = m.random_tangent(rng, x)

    def number(manifold):
        return manifold.pair(u, manifold.sharp(x, u)) + manifold.pair(u, manifold.retract(x, manifold.scale(0.1, u)))

    def value(t):
        return float(backend.to_numpy(number(make(backend.asarray(t, like=like64)))))

    h = 1e-3
    want = (value(1.5 - 2 * h) - 8 * value(1.5 - h) + 8 * value(1.5 + h) - value(1.5 + 2 * h)) / (12 * h)
    got = float(backend.to_numpy(nf.grad(lambda t: number(make(t)))(a)))
    whole = leaves(nf.grad(number)(m))
    assert abs(got - want) < 1e-8 * (1 + abs(want))
    if name != "box":
        assert abs(float(backend.to_numpy(whole[0])) - got) < 1e-13 * (1 + abs(got))


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_constructions_are_arguments_of_jit(backend, like64, rng):
    """Types and kinds survive; parameters are traced; nothing is validated again."""
    import jax

    m = Scaled(Product([Sphere(3), Checked(SPD(2))]), backend.asarray(2.0, like=like64))
    s = laws.draw(m, rng, like64)
    dist = jax.jit(lambda manifold, x, y: manifold.dist(x, y))
    assert abs(float(dist(m, s.x, s.y)) - float(m.dist(s.x, s.y))) < 1e-14
    slope = jax.grad(lambda manifold: manifold.squared_dist(s.x, s.y))(m)
    assert type(slope) is type(m)
    assert abs(float(slope.weight) - float(m.squared_dist(s.x, s.y)) / 2) < 1e-14


# -- Scaled -------------------------------------------------------------------------------------------
def test_scaled_by_a_batch_of_weights(backend, like64, rng):
    weight = backend.asarray(np.array([1.0, 4.0, 0.25]), like=like64)
    m, sphere = Scaled(Sphere(3), weight), Sphere(3)
    s = laws.draw(sphere, rng, like64, (3,))
    np.testing.assert_allclose(
        backend.to_numpy(m.dist(s.x, s.y)), backend.to_numpy(sphere.dist(s.x, s.y)) * [1, 2, 0.5], rtol=1e-14
    )
    back = m.flat(s.x, m.sharp(s.x, s.a))
    assert np.abs(backend.to_numpy(back - sphere.project(s.x, s.a))).max() < 1e-14
    one = m.sharp(s.x[0, ...], s.a[0, ...])
    assert one.shape == (3, 3)
    assert np.allclose(backend.to_numpy(m.curvature_bounds(s.x)[1]), [1, 0.25, 4])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), np.array([1.0, -2.0])])
def test_scaled_refuses_weights_that_are_not_positive(bad):
    with pytest.raises(ValueError, match="weight > 0"):
        Scaled(Sphere(3), bad)


@pytest.mark.parametrize("make", [lambda: Scaled(3, 1.0), lambda: Checked(None), lambda: WithMetric(3, uneven)])
def test_constructions_take_manifolds(make):
    with pytest.raises(TypeError, match="manifold"):
        make()


# -- Pulled -------------------------------------------------------------------------------------------
def onto_sphere(x):
    """(2x, |x|² - 1)/(|x|² + 1), the inverse of the stereographic projection from the north pole."""
    xp = namespace(x)
    squared = xp.sum(x * x, axis=-1, keepdims=True)
    return xp.concat([2 * x, squared - 1], axis=-1) / (squared + 1)


def onto_plane(y):
    return y[..., :2] / (1 - y[..., 2:])


def test_the_stereographic_chart(backend, like64, rng):
    """The sphere in the plane: ⟨u, v⟩ = 4 u·v/(1 + |x|²)², dist = 2 atan |x - y|/…, curvature 1."""
    m = Pulled(Euclidean(2), Sphere(3), onto_sphere, onto_plane)
    assert m.dim == 2 and m.shape == (2,)
    s = laws.draw(m, rng, like64, (5,), 0.5)
    x, y, u, v, a = (backend.to_numpy(p) for p in (s.x, s.y, s.u, s.v, s.a))
    squared = np.sum(x * x, axis=-1)
    conformal = 4 / (1 + squared) ** 2
    np.testing.assert_allclose(
        backend.to_numpy(m.inner(s.x, s.u, s.v)), conformal * np.sum(u * v, -1), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(backend.to_numpy(m.sharp(s.x, s.a)), a / conformal[:, None], rtol=1e-12, atol=1e-14)
    gap = np.sum((x - y) ** 2, -1)
    want = 2 * np.arctan2(np.sqrt(gap), np.sqrt((1 + squared) * (1 + np.sum(y * y, -1)) - gap))
    np.testing.assert_allclose(backend.to_numpy(m.dist(s.x, s.y)), want, rtol=1e-12)
    # Christoffel symbols of the conformal factor e^{2φ}, ∂φ = -2x/(1 + |x|²)
    slope = -2 * x / (1 + squared)[:, None]
    dot = lambda p, q: np.sum(p * q, -1, keepdims=True)  # noqa: E731
    want = dot(a, slope) * u - dot(slope, u) * a - dot(a, u) * slope
    np.testing.assert_allclose(backend.to_numpy(m.connection(s.x, s.a, s.u)), want, rtol=1e-11, atol=1e-13)
    assert np.allclose(backend.to_numpy(m.curvature_bounds(s.x)[0]), 1)


def test_laws_of_the_stereographic_chart(rng):
    m = Pulled(Euclidean(2), Sphere(3), onto_sphere, onto_plane)
    laws.check_manifold(m, LIKE, rng, retraction_order=2, reach=0.3)


def test_pulled_from_a_tree(backend, like64, rng):
    """Polar coordinates: a tree of radius and angle against the plane."""

    def polar(p):
        xp = namespace(p["r"])
        return xp.stack([p["r"] * xp.cos(p["t"]), p["r"] * xp.sin(p["t"])], axis=-1)

    def back(y):
        xp = namespace(y)
        return {"r": xp.sqrt(y[..., 0] ** 2 + y[..., 1] ** 2), "t": xp.atan2(y[..., 1], y[..., 0])}

    m = Pulled(Product({"r": Positive(), "t": Box(-1.0, 1.0)}), Euclidean(2), polar, back)
    s = laws.draw(m, rng, like64, (4,), 0.1)
    got = m.sharp(s.x, s.a)
    np.testing.assert_allclose(backend.to_numpy(got["r"]), backend.to_numpy(s.a["r"]), rtol=1e-12)
    np.testing.assert_allclose(backend.to_numpy(got["t"]), backend.to_numpy(s.a["t"] / s.x["r"] ** 2), rtol=1e-12)
    # Γ^r_tt = -r, Γ^t_rt = 1/r
    c = m.connection(s.x, s.a, s.u)
    r, (u, w) = s.x["r"], (s.u, s.a)
    np.testing.assert_allclose(backend.to_numpy(c["r"]), backend.to_numpy(-w["t"] * u["t"] / r), rtol=1e-11)
    want = r * w["r"] * u["t"] - w["t"] * u["r"] / r
    np.testing.assert_allclose(backend.to_numpy(c["t"]), backend.to_numpy(want), rtol=1e-11, atol=1e-13)


def test_pulled_needs_equal_dimensions():
    with pytest.raises(ValueError, match="dimensions 3 and 2"):
        Pulled(Euclidean(3), Sphere(3), onto_sphere, onto_plane)


# -- WithMetric -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", FEW, indirect=True)
def test_own_metric_that_is_a_known_one(backend, like64, rng):
    """SPD's metric by its formula, and the Poincaré ball's: gradients, connections and Hessians agree."""

    def affine(x, u):
        inverse = namespace(x).linalg.inv(x)
        return inverse @ u @ inverse

    def conformal(x, u):
        return (2 / (1 - namespace(x).sum(x * x, axis=-1, keepdims=True))) ** 2 * u

    for known, metric, reach in ((SPD(2), affine, 0.75), (PoincareBall(2), conformal, 0.5)):
        m = WithMetric(known, metric)
        s = laws.draw(known, rng, like64, (3,), reach)
        f = laws._fixed(laws._unsymmetric(known), s)
        for got, want in (
            (m.inner(s.x, s.u, s.v), known.inner(s.x, s.u, s.v)),
            (m.sharp(s.x, s.a), known.sharp(s.x, s.a)),
            (m.hessian(f, s.x, s.u), known.hessian(f, s.x, s.u)),
            (m.project(s.x, m.connection(s.x, s.a, s.u)), known.project(s.x, known.connection(s.x, s.a, s.u))),
        ):
            np.testing.assert_allclose(backend.to_numpy(got), backend.to_numpy(want), rtol=1e-11, atol=1e-11)


def test_own_metric_on_a_tree_and_on_complex_points(rng):
    """A coupled metric of a product, by its 6 × 6 matrix; and twice the metric of complex points."""
    matrix = rng.standard_normal((5, 5))
    matrix = matrix @ matrix.T + np.eye(5)

    def metric(x, u):
        v = namespace(u["a"], u["b"]).concat([u["a"], u["b"]], axis=-1)
        w = (matrix @ v[..., None])[..., 0]
        return {"a": w[..., :2], "b": w[..., 2:]}

    m = WithMetric(Product({"a": Euclidean(2), "b": Euclidean(3)}), metric)
    s = laws.draw(m, rng, LIKE, (4,))
    got = m.sharp(s.x, s.a)
    want = np.linalg.solve(matrix, np.concatenate([s.a["a"], s.a["b"]], axis=-1)[..., None])[..., 0]
    np.testing.assert_allclose(np.concatenate([got["a"], got["b"]], axis=-1), want, rtol=1e-11, atol=1e-12)
    sphere = Sphere(3)
    m = WithMetric(sphere, lambda x, u: 2 * u)
    s = laws.draw(sphere, rng, np.zeros((), np.complex128), (4,))
    assert np.abs(m.sharp(s.x, s.a) - 0.5 * sphere.sharp(s.x, s.a)).max() < 1e-14
    assert isinstance(m, InverseRetraction) is isinstance(sphere, InverseRetraction) and not isinstance(m, Exponential)


# -- Embedded -------------------------------------------------------------------------------------------
def unit(x):
    return 0.5 * (namespace(x).sum(x * x, axis=-1) - 1)


def donut(x):
    """The torus in ℝ³ with the radii 2 and 1."""
    xp = namespace(x)
    ring = xp.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2) - 2
    return 0.5 * (ring * ring + x[..., 2] ** 2 - 1)


def rotation(x):
    """Zero where xᵀx = I, for 3 × 3 matrices."""
    xp, gram = namespace(x), x.mT @ x
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    return xp.stack([gram[..., i, j] - float(i == j) for i, j in pairs], axis=-1)


def test_embedded_sphere(backend, like64, rng):
    m, sphere = Embedded.from_constraint(unit, (4,)), Sphere(4)
    assert m.dim == 3
    s = laws.draw(sphere, rng, like64, (5,), 0.6)
    for got, want in (
        (m.project(s.x, s.a), sphere.project(s.x, s.a)),
        (m.project(s.x, m.connection(s.x, s.a, s.u)), sphere.project(s.x, sphere.connection(s.x, s.a, s.u))),
        (m.from_noise(s.a), sphere.from_noise(s.a)),
        (m.retract(s.x, s.u), 0.8 * s.x + s.u),
        (m.inverse_retract(s.x, s.y), sphere.project(s.x, s.y - s.x)),
    ):
        assert np.abs(backend.to_numpy(got - want)).max() < 4e-15


def test_embedded_retraction_has_derivatives_to_third_order(backend, like64):
    """On the circle R(t) = √(1 - t²) x + t u, also at t = 0; against mpmath."""
    m = Embedded.from_constraint(unit, (2,))
    x, u = (backend.asarray(np.array(p), like=like64) for p in ([0.6, 0.8], [0.8, -0.6]))
    one = backend.xp.ones_like(like64)
    for at in (0.0, 0.3, -0.7):
        f, here = (lambda t: m.pair(x, m.retract(x, t * u))), backend.asarray(at, like=like64)
        for order in range(4):
            want = float(mpmath.diff(lambda t: mpmath.sqrt(1 - t * t), at, order))
            assert abs(float(backend.to_numpy(f(here))) - want) < 1e-11 * (1 + abs(want)), (at, order)
            f = (lambda g: lambda t: backend.jvp(g, (t,), (one,))[1])(f)


@pytest.mark.parametrize("backend", FEW, indirect=True)
def test_embedded_stiefel_and_rotations(backend, like64, rng):
    for m, known in (
        (Embedded.from_constraint(orthonormal, (4, 2)), Stiefel(4, 2)),
        (Embedded.from_constraint(rotation, (3, 3)), SpecialOrthogonal(3)),
    ):
        assert m.dim == known.dim
        s = laws.draw(known, rng, like64, (3,), 0.3)
        assert np.abs(backend.to_numpy(m.defect(s.x))).max() < 1e-14
        assert np.abs(backend.to_numpy(m.project(s.x, s.a) - known.project(s.x, s.a))).max() < 1e-14
        retracted = m.retract(s.x, m.project(s.x, s.u))
        assert np.abs(backend.to_numpy(m.defect(retracted))).max() < 1e-14
        # the Hessian of |p - a|²/2 in the ambient metric: u - (the shape operator), here by finite differences of
        # projected gradients
        f = lambda p, a=s.a: 0.5 * namespace(p).sum((p - a) * (p - a), axis=(-2, -1))  # noqa: E731
        h = 1e-4
        there, back = (m.retract(s.x, sign * h * s.u) for sign in (1, -1))
        bend = m.project(s.x, m.gradient(f, there) - m.gradient(f, back)) / (2 * h)
        assert np.abs(backend.to_numpy(m.hessian(f, s.x, s.u) - bend)).max() < 1e-7


def test_torus_in_space(rng):
    """Principal curvatures 1 and cos/(2 + cos): the connection of the normal covector is -(second fundamental form)."""
    m = Embedded.from_constraint(donut, (3,))
    laws.check_manifold(m, LIKE, rng, retraction_order=2, reach=0.3)
    t, p = np.array([0.3, 2.0, -1.1, 3.0]), np.array([0.0, 1.0, -2.0, 3.0])
    ring = np.stack([np.cos(p), np.sin(p), 0 * p], -1)
    normal = np.cos(t)[:, None] * ring + np.sin(t)[:, None] * np.array([0, 0, 1.0])
    x = 2 * ring + normal
    around, along = (
        np.stack([-np.sin(p), np.cos(p), 0 * p], -1),
        -np.sin(t)[:, None] * ring + np.cos(t)[:, None] * [0, 0, 1],
    )
    for u, curvature in ((along, np.ones(4)), (around, np.cos(t) / (2 + np.cos(t)))):
        got = m.project(x, m.connection(x, normal, u))
        np.testing.assert_allclose(got, -curvature[:, None] * u, atol=1e-14)
    s = laws.draw(m, rng, LIKE, (3,), 0.3)
    want = derived_connection(m, s.x, s.a, s.u)
    assert np.abs(m.project(s.x, m.connection(s.x, s.a, s.u)) - want).max() < 1e-12


def test_embedded_noise_is_smooth(backend, like64):
    """The derivative of `from_noise`, forward and reverse, against differences; float32 converges too."""
    m = Embedded.from_constraint(donut, (3,))
    z = backend.asarray(np.array([[1.5, -0.4, 0.7], [0.3, 2.9, -0.5]]), like=like64)
    e = backend.asarray(np.array([[0.3, 1.0, -0.6], [1.0, 0.2, 0.4]]), like=like64)
    y, moved = backend.jvp(m.from_noise, (z,), (e,))
    assert float(backend.xp.max(m.defect(y))) < 1e-15
    h = 1e-4
    want = backend.to_numpy(m.from_noise(z + h * e) - m.from_noise(z - h * e)) / (2 * h)
    assert np.abs(backend.to_numpy(moved) - want).max() < 1e-7
    _, pull = backend.vjp(m.from_noise, z)
    back = backend.to_numpy(m.pair(pull(e)[0], e)) - backend.to_numpy(m.pair(e, moved))
    assert np.abs(back).max() < 1e-13
    small = backend.asarray(backend.to_numpy(z).astype(np.float32))
    assert float(backend.xp.max(m.defect(m.from_noise(small)))) < 1e-6


def test_embedded_batches_of_arguments(backend, like64, rng):
    """Shells of several radii are each what one shell is."""
    radii = np.array([0.5, 2.0, 3.0])
    m = Embedded.from_constraint(shell, (3,), backend.asarray(radii, like=like64))
    assert m.dim == 2
    x = m.from_noise(backend.noise(rng, (3,), like=like64))
    np.testing.assert_allclose(np.linalg.norm(backend.to_numpy(x), axis=-1), radii, rtol=1e-14)
    u = 0.1 * m.random_tangent(rng, x)
    y = backend.to_numpy(m.retract(x, u))
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), radii, rtol=1e-14)
    a = backend.noise(rng, (3,), like=like64)
    for i, radius in enumerate(radii):
        one = Embedded.from_constraint(shell, (3,), float(radius), like=like64)
        for got, want in (
            (m.connection(x, a, u), one.connection(x[i, ...], a, u[i, ...])),
            (m.project(x, a), one.project(x[i, ...], a)),
        ):
            assert np.abs(backend.to_numpy(got[i, ...] - want)).max() < 1e-14


def test_embedded_where_there_is_no_manifold(backend, like64):
    """Rank-deficient equations and steps that do not come back give NaN, and a full point keeps its value."""
    twice = Embedded.from_constraint(lambda x: namespace(x).stack([unit(x), 2 * unit(x)], axis=-1), (3,))
    x = backend.asarray(np.array([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]), like=like64)
    assert np.isnan(backend.to_numpy(twice.project(x, x))).all()
    m = Embedded.from_constraint(unit, (3,))
    u = backend.asarray(np.array([[0.8, -0.6, 0.0], [0.0, 0.0, 3.0]]), like=like64)
    y = backend.to_numpy(m.retract(x, 0.5 * u))
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()
    assert np.isnan(backend.to_numpy(m.from_noise(0 * x))).all()


@pytest.mark.parametrize(
    ("h", "shape"),
    [(rotation, (3, 3, 1)), (lambda x: x, (3,)), (lambda x: x[..., None, :2], (3,)), (unit, (1,))],
)
def test_embedded_refuses_what_is_no_system(h, shape):
    with pytest.raises((ValueError, IndexError)):
        Embedded.from_constraint(h, shape)


# -- Checked ------------------------------------------------------------------------------------------
def test_checked_names_method_and_argument(backend, like64, rng):
    m, sphere = Checked(Sphere(3)), Sphere(3)
    s = laws.draw(sphere, rng, like64, (2,))
    wrong = s.u + 0.1 * s.x
    for call, error, message in (
        (lambda: m.exp(s.x + 0.1, s.u), NotOnManifoldError, r"exp: x is not on"),
        (lambda: m.log(s.x, 1.1 * s.y), NotOnManifoldError, r"log: y is not on"),
        (lambda: m.exp(s.x, wrong), NotTangentError, r"exp: u is not tangent .*2 of 2.*project"),
        (lambda: m.inner(s.x, s.u, wrong), NotTangentError, r"inner: v is not tangent"),
        (lambda: m.norm(s.x, wrong), NotTangentError, r"inner: u"),
        (lambda: m.transport(s.x, s.y, wrong), NotTangentError, r"transport: u"),
        (lambda: m.connection(s.x, s.a, wrong), NotTangentError, r"connection: u"),
        (lambda: m.hessian(lambda p: m.pair(p, p), s.x, wrong), NotTangentError, r"connection: u"),
        (lambda: m.retract(s.x, s.u[..., :2]), ShapeError, r"retract: u has shape \(2, 2\)"),
        (
            lambda: m.sharp(s.x, backend.xp.stack([s.a[0, ...]] * 3)),
            ShapeError,
            r"sharp: w has the leading axes \(3,\)",
        ),
        (lambda: m.retract(s.x, backend.xp.zeros((3,), dtype=backend.xp.int64)), DTypeError, r"retract: u .*int64"),
        (lambda: m.retract(s.x, float("nan") * s.u), ValueError, r"retract: u holds .* not finite"),
        (lambda: m.sharp(s.x, float("nan") * s.a), ValueError, r"sharp: w holds .* not finite"),
        (lambda: m.log(s.x, -s.x), CutLocusError, r"log: y .*3.14159"),
        (lambda: m.parallel_transport(s.x, -s.x, s.u), CutLocusError, r"parallel_transport"),
        (lambda: m.project([s.x], s.a), ShapeError, r"project: x is a list"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert np.abs(backend.to_numpy(m.exp(s.x, s.u) - sphere.exp(s.x, s.u))).max() == 0


def test_checked_finds_bad_results(rng):
    class Bad(type(only(Exponential))):
        def exp(self, x, u):
            return 1.1 * x

        def sharp(self, x, w):
            return w

    m = Checked(Bad())
    s = laws.draw(Sphere(3), rng, LIKE)
    with pytest.raises(NotOnManifoldError, match="the result of exp"):
        m.exp(s.x, s.u)
    with pytest.raises(NotTangentError, match="the result of sharp"):
        m.sharp(s.x, s.a)


def test_checked_quotients_report_costs_that_are_not_invariant(backend, like64, rng):
    g = Grassmann(4, 2)
    m = Checked(g)
    s = laws.draw(g, rng, like64)
    good, bad = (lambda p: gram_cost(p, s.a, s.b)), (lambda p: g.pair(s.a, p))
    m.gradient(good, s.x)
    got, want = m.hessian(good, s.x, s.u), g.hessian(good, s.x, s.u)
    assert np.abs(backend.to_numpy(got - want)).max() == 0
    for call in (lambda: m.gradient(bad, s.x), lambda: m.hessian(bad, s.x, s.u), lambda: m.sharp(s.x, s.a)):
        with pytest.raises(NotTangentError, match=r"w has a vertical part .*f\(x·g\)"):
            call()


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_checked_under_jit_looks_at_shapes_alone(backend, like64, rng):
    m = Checked(Sphere(3))
    x = m.random_point(rng, like=like64)
    off = backend.jit(lambda x, u: m.retract(x, u))
    assert np.isfinite(backend.to_numpy(off(2 * x, x))).all()
    with pytest.raises(ShapeError, match="retract: u"):
        off(x, x[:2])
