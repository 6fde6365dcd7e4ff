"""What manifolds say to bad input: sizes, shapes, dtypes, values, vectors, pairs without a logarithm, two frameworks;
and the smallest sizes that are legal."""

from typing import Any

import numpy as np
import pytest

from nestfold.backends import (
    BackendMismatchError,
    CutLocusError,
    DTypeError,
    NotOnManifoldError,
    NotTangentError,
    ShapeError,
    get_backend,
)
from nestfold.backends._trees import leaves, tree_map
from nestfold.manifolds import (
    HPD,
    SPD,
    Box,
    Checked,
    Correlation,
    Curvature,
    DoublyStochastic,
    Elliptope,
    Euclidean,
    Exponential,
    FixedRank,
    Flag,
    GeneralizedStiefel,
    Geodesic,
    Grassmann,
    GrassmannProjectors,
    Hermitian,
    Lorentz,
    Multinomial,
    Oblique,
    Orthogonal,
    PoincareBall,
    Positive,
    PSDFixedRank,
    SiegelUpperHalfSpace,
    Simplex,
    SkewSymmetric,
    SPDBuresWasserstein,
    SPDFixedDeterminant,
    SPDLogCholesky,
    SPDLogEuclidean,
    SpecialEuclidean,
    SpecialOrthogonal,
    Spectrahedron,
    Sphere,
    Stereographic,
    Stiefel,
    Symmetric,
    SymmetricDoublyStochastic,
    Torus,
    Unitary,
)
from nestfold.testing import laws
from nestfold.testing.cases import CASES, flag_cost, gram_cost, product_cost

EAGER = ["numpy", "array_api_strict", "torch"]
eager = pytest.mark.parametrize("backend", EAGER, indirect=True)
every = pytest.mark.parametrize("name", CASES)


def made(name: str, like: Any) -> Any:
    case = CASES[name]
    like = case.like(like)
    return case, case.make(like), like


# -- sizes -----------------------------------------------------------------------------------------------
#: name of the class -> manifolds with one size open, the least that is legal
SIZES = [
    ("Euclidean", lambda k: Euclidean(2, k), 0),
    ("Positive", Positive, 0),
    ("Torus", lambda k: Torus(k, 2), 0),
    ("Box", lambda k: Box(0.0, 1.0, (k,)), 0),
    ("Symmetric", Symmetric, 1),
    ("Hermitian", Hermitian, 1),
    ("SkewSymmetric", SkewSymmetric, 2),
    ("Sphere", Sphere, 1),
    ("Oblique", lambda k: Oblique(k, 2), 1),
    ("Oblique", lambda k: Oblique(2, k), 1),
    ("Simplex", Simplex, 1),
    ("Multinomial", lambda k: Multinomial(2, k), 1),
    ("Multinomial", lambda k: Multinomial(k, 2), 1),
    ("DoublyStochastic", DoublyStochastic.uniform, 1),
    ("DoublyStochastic", lambda k: DoublyStochastic.uniform(3, 0 if k is None else k), 1),
    ("SymmetricDoublyStochastic", SymmetricDoublyStochastic, 1),
    ("Stiefel", lambda k: Stiefel(k, 1), 1),
    ("Stiefel", lambda k: Stiefel(4, k), 1),
    ("GeneralizedStiefel", lambda k: GeneralizedStiefel(4, k, np.eye(4)), 1),
    ("Grassmann", lambda k: Grassmann(k, 1), 1),
    ("Grassmann", lambda k: Grassmann(4, k), 1),
    ("GrassmannProjectors", lambda k: GrassmannProjectors(k, 1), 1),
    ("GrassmannProjectors", lambda k: GrassmannProjectors(4, k), 1),
    ("Flag", lambda k: Flag(k, (1,)), 1),
    ("Flag", lambda k: Flag(4, (k,)), 1),
    ("Flag", lambda k: Flag(4, (1, k)), 2),
    ("SpecialOrthogonal", SpecialOrthogonal, 1),
    ("Orthogonal", Orthogonal, 1),
    ("Unitary", Unitary, 1),
    ("SpecialEuclidean", SpecialEuclidean, 1),
    ("SPD", SPD, 1),
    ("HPD", HPD, 1),
    ("SPDLogEuclidean", SPDLogEuclidean, 1),
    ("SPDLogCholesky", SPDLogCholesky, 1),
    ("SPDBuresWasserstein", SPDBuresWasserstein, 1),
    ("SPDFixedDeterminant", SPDFixedDeterminant, 2),
    ("Correlation", Correlation, 2),
    ("PSDFixedRank", lambda k: PSDFixedRank(k, 1), 1),
    ("PSDFixedRank", lambda k: PSDFixedRank(4, k), 1),
    ("Spectrahedron", lambda k: Spectrahedron(k, 1), 1),
    ("Spectrahedron", lambda k: Spectrahedron(4, k), 1),
    ("Elliptope", lambda k: Elliptope(k, 1), 1),
    ("Elliptope", lambda k: Elliptope(4, k), 1),
    ("FixedRank", lambda k: FixedRank(k, 4, 1), 1),
    ("FixedRank", lambda k: FixedRank(4, k, 1), 1),
    ("FixedRank", lambda k: FixedRank(4, 4, k), 1),
    ("PoincareBall", PoincareBall, 1),
    ("Stereographic", lambda k: Stereographic(k, 1.0), 1),
    ("Lorentz", Lorentz, 1),
    ("SiegelUpperHalfSpace", SiegelUpperHalfSpace, 1),
]
NAMES = [f"{name} {k}" for k, (name, _, _) in enumerate(SIZES)]
#: these have no sizes of their own
MADE_OF_OTHERS = {"Product", "Scaled", "Pulled", "WithMetric", "Embedded", "Checked"}


def test_every_class_of_the_table_is_here():
    classes = {type(made(name, np.zeros(()))[1]).__name__ for name in CASES}
    assert classes - MADE_OF_OTHERS == {name for name, _, _ in SIZES}


@pytest.mark.parametrize("size", [-1, -3, 2.0, 2.5, float("nan"), "3", None, (2,)])
@pytest.mark.parametrize(("name", "make", "least"), SIZES, ids=NAMES)
def test_sizes_that_are_no_sizes(name, make, least, size):
    if isinstance(size, tuple) and name in ("SymmetricDoublyStochastic", "Sphere"):
        size = "3"  # a tuple is a marginal there
    with pytest.raises(ValueError, match=rf"^{name}"):
        make(size)


@pytest.mark.parametrize(("name", "make", "least"), SIZES, ids=NAMES)
def test_the_least_size(name, make, least):
    assert make(least).dim >= 0
    with pytest.raises(ValueError, match=rf"^{name}"):
        make(least - 1)


@pytest.mark.parametrize(("name", "make"), [case[:2] for case in SIZES], ids=NAMES)
def test_booleans_are_no_sizes(name, make):
    """`True` would be taken for 1."""
    with pytest.raises(ValueError, match=rf"^{name}"):
        make(True)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("Stiefel", lambda: Stiefel(2, 3)),
        ("GeneralizedStiefel", lambda: GeneralizedStiefel(2, 3, np.eye(2))),
        ("Grassmann", lambda: Grassmann(2, 3)),
        ("GrassmannProjectors", lambda: GrassmannProjectors(2, 3)),
        ("Flag", lambda: Flag(2, (1, 3))),
        ("PSDFixedRank", lambda: PSDFixedRank(2, 3)),
        ("Spectrahedron", lambda: Spectrahedron(2, 3)),
        ("Elliptope", lambda: Elliptope(2, 3)),
        ("FixedRank", lambda: FixedRank(2, 4, 3)),
        ("FixedRank", lambda: FixedRank(4, 2, 3)),
    ],
)
def test_more_columns_than_rows(name, make):
    with pytest.raises(ValueError, match=rf"^{name}"):
        make()


# -- points -------------------------------------------------------------------------------------------------
@eager
@every
def test_wrong_shapes(backend, name, like64, rng):
    _, m, like = made(name, like64)
    x = m.random_point(rng, (3,), like=like)
    if m.shape == ():  # there every array is a batch of points
        assert m.defect(x[..., None]).shape == (3, 1)
        return
    longer = tree_map(lambda a: backend.xp.concat([a, a], axis=-1), x)
    for wrong in (longer, tree_map(lambda a: a[..., None], x)):
        with pytest.raises(ShapeError, match="has shape"):
            m.check_point(wrong)
    with pytest.raises(ShapeError):
        m.check_point(None)


@eager
@every
def test_integers_are_no_points(backend, name, like64, rng):
    _, m, like = made(name, like64)
    x = m.random_point(rng, (3,), like=like)
    for dtype in (np.int64, np.bool_):
        with pytest.raises(DTypeError, match="floating"):
            m.check_point(tree_map(lambda a, dtype=dtype: backend.asarray(np.ones(a.shape, dtype)), x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@eager
@every
def test_values_that_are_not_finite(backend, name, bad, like64, rng):
    """One bad number: `defect` of that point is not finite and of the others 0; `check_point` says what is wrong."""
    _, m, like = made(name, like64)
    x = m.random_point(rng, (3,), like=like)
    for spoilt in range(len(leaves(x))):
        number = iter(range(len(leaves(x))))

        def one_bad(a, spoilt=spoilt, number=number):
            values = np.array(backend.to_numpy(a))
            if next(number) == spoilt:
                values[(1,) + (0,) * (values.ndim - 1)] = bad
            return backend.asarray(values, like=a)

        there = tree_map(one_bad, x)
        with np.errstate(all="ignore"):
            off = backend.to_numpy(m.defect(there))
        assert not off[1] < np.inf and np.all(off[[0, 2]] < 1e-8)
        with pytest.raises(NotOnManifoldError, match="not finite"):
            m.check_point(there)


RANK_ONE = np.ones((3, 3))
INDEFINITE = np.diag([1.0, -1.0, 2.0])
#: case -> arrays of the right shape that are no points
NO_POINTS = {
    "symmetric": [np.triu(RANK_ONE)],
    "skew-symmetric": [np.eye(3)],
    "Hermitian": [1j * np.eye(3)],
    "positive": [np.array([1.0, 0.0, 1.0]), np.array([1.0, -1.0, 1.0])],
    "box": [np.ones((3, 2)) * [-1.0, 1.0], np.ones((3, 2)) * [3.0, 1.0]],
    "sphere": [np.zeros(4), np.array([1.0, 0.1, 0, 0])],
    "complex sphere": [np.array([1j, 1.0, 0])],
    "oblique": [np.zeros((4, 3))],
    "simplex": [np.array([0.5, 0.5, 0, 0]), np.array([0.5, 1.0, -0.25, -0.25]), np.ones(4)],
    "multinomial": [np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5]])],
    "doubly stochastic": [np.ones((2, 3)), np.array([[0.3, 0, 0], [-0.1, 0.3, 0.5]])],
    "square doubly stochastic": [np.eye(3)],
    "symmetric doubly stochastic": [np.ones((3, 3))],
    "Stiefel": [np.zeros((5, 2)), np.ones((5, 2))],
    "canonical Stiefel": [2 * np.eye(5, 2)],
    "complex Stiefel": [np.ones((4, 2)) * 1j],
    "generalized Stiefel": [np.eye(4, 2)],
    "Grassmann": [np.zeros((5, 2))],
    "Grassmann, projectors": [np.eye(4), np.zeros((4, 4)), np.diag([2.0, 0, 0, 0])],
    "flags": [np.ones((5, 3))],
    "rotations": [np.diag([1.0, 1, -1]), np.zeros((3, 3))],
    "orthogonal": [np.zeros((4, 4))],
    "unitary": [2j * np.eye(3)],
    "rigid motions": [np.ones((4, 4)), np.diag([1.0, 1, 1, 2])],
    "SPD": [INDEFINITE, np.zeros((3, 3)), np.eye(3) + np.triu(RANK_ONE)],
    "HPD": [INDEFINITE, 1j * np.eye(3)],
    "log-Euclidean SPD": [INDEFINITE, np.zeros((3, 3))],
    "log-Cholesky SPD": [INDEFINITE, np.zeros((3, 3))],
    "Bures-Wasserstein SPD": [INDEFINITE, np.zeros((3, 3))],
    "SPD of fixed determinant": [INDEFINITE, np.eye(3)],
    "correlation": [2 * np.eye(4), np.eye(4)[::-1], np.eye(4) + 2 * np.eye(4)[::-1]],
    "PSD of fixed rank": [np.zeros((5, 3)), np.ones((5, 3))],
    "complex PSD of fixed rank": [np.ones((4, 2)) * 1j],
    "spectrahedron": [np.eye(5, 2), np.ones((5, 2)) / 10**0.5],
    "elliptope": [np.ones((6, 3)) / 3**0.5, np.eye(6, 3)],
    "Poincare ball": [np.array([2.0, 0, 0])],
    "stereographic, hyperbolic": [np.array([2.0, 0, 0])],
    "Siegel": [np.eye(2) + 0j, 1j * np.diag([1.0, -1.0]), np.array([[1j, 1], [0, 1j]])],
    "Lorentz": [np.zeros(4), -np.array([1.3**-0.5, 0, 0, 0])],
    "ellipsoid": [np.zeros(3)],
    "embedded Stiefel": [np.zeros((4, 2))],
    "checked": [np.diag([1.0, -1.0])],
}


@eager
@pytest.mark.parametrize("name", NO_POINTS)
def test_arrays_that_are_no_points(backend, name, like64):
    m = made(name, like64)[1]
    for bad in NO_POINTS[name]:
        x = backend.asarray(bad + np.zeros((), np.complex128 if CASES[name].complex else np.float64))
        with np.errstate(all="ignore"):
            assert float(m.defect(x)) > 1e-3
        with pytest.raises(NotOnManifoldError):
            m.check_point(x)
        assert not bool(m.contains(x))


# -- vectors --------------------------------------------------------------------------------------------------
def methods_of(m):
    found = {"inner": "xuv", "retract": "xu", "transport": "xyu", "connection": "xau"}
    found |= {"exp": "xu"} if isinstance(m, Exponential) else {}
    return found | ({"parallel_transport": "xyu"} if isinstance(m, Geodesic) else {})


@every
def test_vectors_that_are_not_tangent(name, rng):
    """`Checked` refuses a tangent vector of another point where that is none here, else noise, else takes all."""
    case, m, like = made(name, np.zeros(()))
    s = laws.draw(m, rng, like, (3,), case.reach)
    s = s._replace(a=tree_map(lambda a: 0 * a, s.a))  # a covector without a vertical part
    elsewhere = m.random_tangent(rng, m.random_point(rng, (3,), like=like))
    noise = tree_map(lambda u, a: u + a, s.u, s.b)
    bad = next((u for u in (elsewhere, noise) if not bool(np.any(m.is_tangent(s.x, u)))), None)
    everything = laws.gap(m, m.project(s.x, s.b), s.b).max() < 1e-12
    assert (bad is None) == everything
    for method, letters in methods_of(m).items():
        arguments = [getattr(s, letter) for letter in letters]
        getattr(Checked(m), method)(*arguments)
        for k, letter in enumerate(letters):
            if letter in "uv" and bad is not None:
                with pytest.raises(NotTangentError, match=f"{method}: {letter}"):
                    getattr(Checked(m), method)(*arguments[:k], bad, *arguments[k + 1 :])


@every
def test_vectors_of_another_framework(name, rng):
    case, m, like = made(name, np.zeros(()))
    s = laws.draw(m, rng, like, (3,), case.reach)
    s = s._replace(a=tree_map(lambda a: 0 * a, s.a))
    torch = get_backend("torch")
    for method, letters in methods_of(m).items():
        arguments = [getattr(s, letter) for letter in letters]
        for k, letter in enumerate(letters):
            if letter == "u":
                other = tree_map(torch.asarray, arguments[k])
                with pytest.raises(BackendMismatchError, match="numpy"):
                    getattr(Checked(m), method)(*arguments[:k], other, *arguments[k + 1 :])


# -- where there is no logarithm ---------------------------------------------------------------------------------
EYE, HALF = np.eye(4), 0.5**0.5
#: manifold, x, y, their distance
CUT = [
    (Sphere(3), np.array([0.6, 0, 0.8]), -np.array([0.6, 0, 0.8]), np.pi),
    (Sphere(1), np.ones(1), -np.ones(1), np.pi),
    (Oblique(2, 2), np.eye(2), np.diag([-1.0, 1.0]), np.pi),
    (Torus(2), np.zeros(2), np.array([np.pi, 1.0]), np.hypot(np.pi, 1)),
    (Grassmann(4, 2), EYE[:, :2], EYE[:, 1:3], np.pi / 2),
    (Grassmann(4, 2), EYE[:, :2], EYE[:, 2:], np.pi * HALF),
    (SpecialOrthogonal(2), np.eye(2), -np.eye(2), np.pi / HALF),
    (SpecialOrthogonal(3), np.eye(3), np.diag([-1.0, -1, 1]), np.pi / HALF),
    (SpecialOrthogonal(4), EYE, np.diag([-1.0, -1, 1, 1]), np.pi / HALF),
    (SpecialOrthogonal(5), np.eye(5), np.diag([-1.0, -1, 1, 1, 1]), np.pi / HALF),
    (Orthogonal(4), EYE, -EYE, 2 * np.pi),
    (Unitary(2), np.eye(2) + 0j, np.diag([-1.0 + 0j, 1]), np.pi),
    (GrassmannProjectors(4, 2), np.diag([1.0, 1, 0, 0]), np.diag([1.0, 0, 1, 0]), np.pi / 2),
    (Stereographic(2, 1.0), np.array([0.5, 0.0]), np.array([-2.0, 0.0]), np.pi),
    (PSDFixedRank(4, 2), EYE[:, :2], EYE[:, 2:], 2.0),
    (PSDFixedRank(4, 2), EYE[:, :2], EYE[:, 1:3], 2**0.5),
    (PSDFixedRank(4, 1), EYE[:, :1], EYE[:, 1:2], 2**0.5),
    (PSDFixedRank(6, 3), np.eye(6)[:, :3], np.eye(6)[:, 3:], 6**0.5),
    (Spectrahedron(4, 2), HALF * EYE[:, :2], HALF * EYE[:, 2:], np.pi / 2),
    (Spectrahedron(4, 1), EYE[:, :1], EYE[:, 1:2], np.pi / 2),
    (Orthogonal(3), np.eye(3), np.diag([1.0, 1, -1]), np.inf),
    (Stiefel(4, 2), EYE[:, :2], -EYE[:, :2], np.nan),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@eager
@pytest.mark.parametrize(("m", "x", "y", "dist"), CUT, ids=[f"{k} {case[0]}" for k, case in enumerate(CUT)])
def test_no_logarithm_or_one_of_several(backend, m, x, y, dist, dtype):
    """`log` is not finite or is a shortest one, and the distance is right; nothing raises."""
    if np.iscomplexobj(x):
        kind = np.complex128 if dtype is np.float64 else np.complex64
    else:
        kind = dtype
    x, y = backend.asarray(x.astype(kind)), backend.asarray(y.astype(kind))
    tolerance = 1e3 * float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        u, found = m.log(x, y), float(m.dist(x, y))
    assert found == pytest.approx(dist, rel=tolerance, nan_ok=True)
    if np.isfinite(backend.to_numpy(u)).all():
        assert float(laws.apart(m, m.exp(x, u), y)) < tolerance
        assert float(m.norm(x, u)) == pytest.approx(dist, rel=tolerance)
    if isinstance(m, Curvature) and np.isfinite(dist) and np.isfinite(float(m.injectivity_radius(x))):
        with np.errstate(all="ignore"), pytest.raises(CutLocusError):
            Checked(m).log(x, y)


# -- the smallest -----------------------------------------------------------------------------------------------------
SMALL = [
    (Euclidean(1), None),
    (Positive(), None),
    (Positive(1), None),
    (Torus(1), None),
    (Box(0.0, 1.0, ()), None),
    (Symmetric(1), None),
    (SkewSymmetric(2), None),
    (Sphere(1), None),
    (Sphere(2), None),
    (Oblique(1, 1), None),
    (Oblique(2, 1), None),
    (Simplex(1), None),
    (Simplex(2), None),
    (Multinomial(1, 1), None),
    (Multinomial(3), None),
    (DoublyStochastic.uniform(1), None),
    (DoublyStochastic.uniform(1, 3), None),
    (SymmetricDoublyStochastic(1), None),
    (Stiefel(1, 1), None),
    (Stiefel(2, 1), None),
    (Stiefel(2, 2, beta=0.5), None),
    (GeneralizedStiefel(1, 1, np.full((1, 1), 2.0)), None),
    (Grassmann(1, 1), gram_cost),
    (Grassmann(2, 1), gram_cost),
    (Grassmann(3, 3), gram_cost),
    (GrassmannProjectors(1, 1), None),
    (GrassmannProjectors(2, 2), None),
    (Flag(1, (1,)), gram_cost),
    (Flag(3, (3,)), gram_cost),
    (Flag(2, (1, 2)), flag_cost),
    (SpecialOrthogonal(1), None),
    (SpecialOrthogonal(2), None),
    (Orthogonal(1), None),
    (SpecialEuclidean(1), None),
    (SpecialEuclidean(2), None),
    (SPD(1), None),
    (SPDLogEuclidean(1), None),
    (SPDLogCholesky(1), None),
    (SPDBuresWasserstein(1), None),
    (SPDFixedDeterminant(2), None),
    (Correlation(2), None),
    (PSDFixedRank(1, 1), gram_cost),
    (PSDFixedRank(2, 2), gram_cost),
    (Spectrahedron(1, 1), gram_cost),
    (Spectrahedron(2, 1), gram_cost),
    (Elliptope(1, 1), gram_cost),
    (Elliptope(2, 2), gram_cost),
    (FixedRank(1, 1, 1), product_cost),
    (FixedRank(2, 2, 2), product_cost),
    (PoincareBall(1), None),
    (Stereographic(1, 1.0), None),
    (Stereographic(1, -1.0), None),
    (Lorentz(1), None),
]
SMALL_COMPLEX = [
    (Unitary(1), None),
    (HPD(1), None),
    (Hermitian(1), None),
    (SiegelUpperHalfSpace(1), None),
    (Sphere(1), None),
    (Stiefel(1, 1), None),
    (Grassmann(1, 1), gram_cost),
    (Grassmann(2, 1), gram_cost),
]


@pytest.mark.parametrize("batch", [(), (3,), (2, 0, 4)])
@pytest.mark.parametrize(
    ("m", "cost", "dtype"), [(*s, np.float64) for s in SMALL] + [(*s, np.complex128) for s in SMALL_COMPLEX]
)
def test_the_smallest_obey_the_laws(m, cost, dtype, batch, rng):
    reach = 0.1 if isinstance(m, Simplex | Multinomial | SPDBuresWasserstein | PSDFixedRank | FixedRank) else 0.5
    laws.check_manifold(m, np.zeros((), dtype), rng, batch=batch, cost=cost, reach=reach)
