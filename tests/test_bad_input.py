"""Wrong input is told early, by name, with what was wrong and what to do; and leaves nothing behind."""

import warnings
from typing import Any

import numpy as np
import pytest

import nestfold as nf
from nestfold.hypergrad.problems import synthetic, tanh_fixed_point

#: nestfold for those who do not check types
ANYHOW: Any = nf
FLAT = nf.Euclidean(3)


def square(x, y):
    return ((y - x) ** 2).sum()


LOWER = nf.Argmin(square, FLAT)
BILEVEL = nf.Bilevel(lambda x, y: (y**2).sum(), FLAT, LOWER)


def vector(backend, like):
    return backend.asarray(np.array([1.0, -2.0, 3.0]), like=like)


def works(x):
    """A correct call, after a wrong one: nothing was left behind."""
    gradient = nf.grad(lambda x: nf.namespace(x).sum(nf.solve(QUIET, x, init=0 * x).value ** 2))(x)
    np.testing.assert_allclose(nf.backend_of(x).to_numpy(gradient), [2, -4, 6], rtol=1e-10)


QUIET = nf.Argmin(lambda x, y: nf.namespace(x, y).sum((y - x) ** 2), FLAT)


# -- frameworks and devices --------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["numpy", "torch", "array_api_strict", "jax"])
def test_two_frameworks(backend, like64, other):
    if other == backend.name:
        pytest.skip("two of a kind")
    x, y = vector(backend, like64), nf.get_backend(other).asarray(np.zeros(3, dtype=np.float32))
    calls = [
        lambda: nf.solve(QUIET, x, init=y),
        lambda: nf.solve(QUIET, {"x": x, "spare": y}, init=x),
        lambda: nf.hypergradient(BILEVEL, x, y),
        lambda: nf.run(BILEVEL, x, y),
    ]
    for call in calls:
        with pytest.raises(nf.BackendMismatchError, match="two frameworks") as caught:
            call()
        assert backend.name in str(caught.value) and other in str(caught.value)
    if backend.name != "jax":
        works(x)


def test_a_cost_that_mixes_frameworks():
    """The captured data is of another framework: whatever error it is, it is no silent conversion."""
    import torch

    data = torch.ones(3, dtype=torch.float64)
    level = nf.Argmin(lambda x, y: ((y - x - data) ** 2).sum(), FLAT)
    with pytest.raises((TypeError, nf.NoDerivativeError)):
        nf.grad(lambda x: nf.solve(level, x, init=0 * x).value.sum())(np.ones(3))
    works(np.array([1.0, -2.0, 3.0]))


@pytest.mark.parametrize("backend", ["array_api_strict"], indirect=True)
def test_two_devices(backend, xp, like64):
    x = vector(backend, like64)
    y = xp.asarray(np.zeros(3), device=xp.Device("device1"))
    for call in (
        lambda: nf.solve(QUIET, x, init=y),
        lambda: nf.hypergradient(BILEVEL, x, y),
        lambda: nf.run(BILEVEL, x, y),
    ):
        with pytest.raises(nf.BackendMismatchError, match=r"two devices.*device1"):
            call()
    works(x)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_two_devices_in_torch(backend, like64):
    import torch

    x = vector(backend, like64)
    with pytest.raises(nf.BackendMismatchError, match=r"two devices.*cpu and meta"):
        nf.solve(QUIET, x, init=torch.zeros(3, dtype=torch.float64, device="meta"))
    works(x)


def test_no_array_at_all():
    with pytest.raises(TypeError, match="no array of a known framework"):
        nf.solve(LOWER, [1.0, 2.0, 3.0], init=[0.0, 0.0, 0.0])
    with pytest.raises(nf.ShapeError, match=r"init is a list; a point of Euclidean\(3\) is one array"):
        nf.solve(LOWER, np.ones(3), init=[0.0, 0.0, 0.0])


# -- points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", "torch"], indirect=True)
def test_wrong_shapes(backend, like64):
    x = vector(backend, like64)
    with pytest.raises(nf.ShapeError, match=r"init has shape \(2,\).*Euclidean\(3\) has shape \(3,\)"):
        nf.solve(QUIET, x, init=x[:2])
    with pytest.raises(nf.ShapeError, match=r"x has shape \(2,\).*\(3,\)"):
        nf.hypergradient(BILEVEL, x[:2], x)
    with pytest.raises(nf.ShapeError, match=r"(init|y0?) has shape \(2,\).*\(3,\)"):
        nf.hypergradient(BILEVEL, x, x[:2])
    pair = nf.Product({"a": FLAT, "b": FLAT})
    with pytest.raises(nf.ShapeError, match="structure"):
        nf.solve(nf.Argmin(lambda x, y: square(x, y["a"]) + square(x, y["b"]), pair), x, init={"a": x})
    works(x)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_for_points(backend, like64, dtype):
    y = backend.asarray(np.zeros(3, dtype=dtype))
    with pytest.raises(nf.DTypeError, match=f"init has dtype .*{dtype}.*floating"):
        nf.solve(QUIET, vector(backend, like64), init=y)
    with pytest.raises(nf.DTypeError, match=f"x has dtype .*{dtype}"):
        nf.hypergradient(BILEVEL, y, vector(backend, like64))


@pytest.mark.parametrize(
    "fault, words",
    [("negative", "SPD"), ("skew", "SPD"), ("nan", "not finite"), ("inf", "not finite")],
)
def test_points_off_the_manifold(backend, like64, fault, words):
    problem = synthetic(like=like64, d=4, r=2, n=8)
    w, _ = problem.start(np.random.default_rng(0))
    bad = np.eye(4)
    bad[0, 1] = {"negative": 0.0, "skew": 0.5, "nan": np.nan, "inf": np.inf}[fault]
    if fault == "negative":
        bad[0, 0] = -1.0
    m = backend.asarray(bad, like=like64)
    with pytest.raises(nf.NotOnManifoldError, match=f"init .*{words}"):
        nf.solve(problem.problem().lower, w, init=m)
    with pytest.raises(nf.NotOnManifoldError, match=f"(init|y0?) .*{words}"):
        nf.hypergradient(problem.problem(), w, m)
    with pytest.raises(nf.NotOnManifoldError, match=r"x .*Stiefel"):
        nf.run(problem.problem(), 2 * w, backend.asarray(np.eye(4), like=like64))


@pytest.mark.parametrize("function", [nf.hypergradient, nf.run])
def test_arguments_are_called_by_their_names(function):
    """`hypergradient` and `run` have no argument `init`."""
    x = np.array([1.0, -2.0, 3.0])
    with pytest.raises(nf.ShapeError, match=r"^y"):
        function(BILEVEL, x, x[:2])
    with pytest.raises(nf.NotOnManifoldError, match=r"^y"):
        function(BILEVEL, x, x * np.nan)
    with pytest.raises(nf.NotOnManifoldError, match=r"^x"):
        function(BILEVEL, x * np.nan, x)


def test_one_bad_point_of_a_batch():
    problem = synthetic(like=np.zeros(()), d=4, r=2, n=8)
    w, m = problem.start(np.random.default_rng(0))
    with pytest.raises(nf.NotOnManifoldError, match="1 of 3 points"):
        nf.solve(problem.problem().lower, np.stack([w] * 3), init=np.stack([m, m, -m]))


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_an_outer_variable_that_is_not_finite(backend, like64):
    """Nothing is silent: the warning says that the solver got nowhere."""
    x = vector(backend, like64) * float("nan")
    with pytest.warns(nf.ConvergenceWarning):
        found = nf.solve(QUIET, x, init=vector(backend, like64))
    assert not bool(found.converged)


# -- costs, maps and fields --------------------------------------------------------------------------------


WRONG_COSTS = {
    "number": (lambda x, y: 1.0, nf.DTypeError, "the lower cost returned a float, not an array"),
    "none": (lambda x, y: None, nf.DTypeError, "the lower cost returned a NoneType, not an array"),
    "shape": (lambda x, y: (y - x) ** 2, nf.ShapeError, r"returned shape \(3,\).*leading axes \(\).*\(3,\)"),
    "row": (lambda x, y: ((y - x) ** 2).sum()[None], nf.ShapeError, r"returned shape \(1,\)"),
    "complex": (lambda x, y: (y - x).sum() * 1j, nf.DTypeError, "returned dtype .*complex"),
    "integer": (lambda x, y: (y > x).sum(), nf.DTypeError, "returned dtype .*int"),
}


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"], indirect=True)
@pytest.mark.parametrize("name", WRONG_COSTS)
def test_wrong_costs(backend, like64, name):
    cost, error, words = WRONG_COSTS[name]
    x = vector(backend, like64)
    with pytest.raises(error, match=words):
        nf.solve(nf.Argmin(cost, FLAT), x, init=0 * x)
    upper = nf.Bilevel(cost, FLAT, LOWER)
    with pytest.raises(error, match=words.replace("lower", "upper")):
        nf.hypergradient(upper, x, 0 * x)
    with pytest.raises(error, match=words.replace("lower", "upper")):
        nf.run(upper, x, 0 * x)
    with pytest.raises(error, match=words):
        nf.grad(lambda x: nf.solve(nf.Argmin(cost, FLAT), x, init=0 * x).value.sum())(x)
    if backend.name != "jax":
        works(x)


def test_the_shape_of_a_batch():
    """Both shapes are named, and what to return."""
    x = np.ones((2, 4, 3))
    level = nf.Argmin(lambda x, y: ((y - x) ** 2).sum(axis=(0, 2)), FLAT)
    with pytest.raises(nf.ShapeError, match=r"\(4,\).*\(2, 4\).*\(3,\).*Return shape \(\)"):
        nf.solve(level, x, init=0 * x)
    for axes, shape in (((0, 1, 2), ()), ((1, 2), (2,)), (2, (2, 4))):
        level = nf.Argmin(lambda x, y, axes=axes: ((y - x) ** 2).sum(axis=axes), FLAT)
        assert nf.solve(level, x, init=0 * x).residual.shape == shape


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
@pytest.mark.parametrize("kind", [nf.FixedPoint, nf.Root])
def test_wrong_maps_and_fields(backend, like64, kind):
    x = vector(backend, like64)
    word = "the map" if kind is nf.FixedPoint else "the field"
    with pytest.raises(nf.ShapeError, match=rf"{word} returned shapes \[\(2,\)\]; y has \[\(3,\)\]"):
        nf.solve(kind(lambda x, y: (x + 0.1 * y)[:2], FLAT), x, init=x)
    with pytest.raises((nf.ShapeError, nf.DTypeError, TypeError), match=word):
        nf.solve(kind(lambda x, y: 1.0, FLAT), x, init=x)
    with pytest.raises((nf.ShapeError, nf.DTypeError), match=word):
        nf.solve(kind(lambda x, y: y > x, FLAT), x, init=x)
    works(x)


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_an_error_in_a_cost_goes_through(backend, like64):
    """As it is, from any depth; and the next call is none the worse."""
    x, calls = vector(backend, like64), []

    def cost(x, y):
        calls.append(1)
        if len(calls) > 4:
            raise KeyError("the user's own")
        return ((y - x) ** 4).sum() + ((y - x) ** 2).sum()

    for _ in range(2):
        calls.clear()
        with pytest.raises(KeyError, match="the user's own"):
            nf.grad(lambda x: nf.solve(nf.Argmin(cost, FLAT), x, init=0 * x).value.sum())(x)
        works(x)


# -- what does not go together -----------------------------------------------------------------------------


def test_solvers_and_levels():
    problem = tanh_fixed_point(like=np.zeros(()), n=3, p=3)
    fixed = problem.problem().lower
    root = nf.Root(lambda x, y: y - x, FLAT)
    x = np.array([0.1, -0.2, 0.3])
    pairs = [
        (LOWER, nf.Picard(), None, "Picard iterates a map; a Argmin needs TrustRegion"),
        (LOWER, nf.Newton(), None, r"use TrustRegion\(\) for an Argmin"),
        (root, nf.Picard(), None, "Picard iterates a map; a Root needs"),
        (fixed, nf.TrustRegion(), None, r"TrustRegion minimi[sz]es a cost; a FixedPoint needs Picard\(\)"),
        (fixed, nf.GradientDescent(), None, r"GradientDescent minimi[sz]es a cost; a FixedPoint needs"),
        (root, nf.TrustRegion(), None, r"a Root needs .*Newton\(\)"),
        (fixed, None, nf.Implicit(nf.CG()), r"CG needs a symmetric operator.*FixedPoint.*Neumann\(\)"),
        (root, None, nf.Implicit(nf.CG()), r"CG needs a symmetric operator.*Root.*GMRES\(\)"),
        (
            LOWER,
            nf.TrustRegion(),
            nf.Unrolled(3),
            r"TrustRegion has none to differentiate.*GradientDescent\(\)",
        ),
        (root, None, nf.Unrolled(3), "Newton has none to differentiate"),
        (LOWER, nf.External(lambda x, y: y), nf.Unrolled(3), "External has none to differentiate"),
    ]
    for level, solver, estimator, words in pairs:
        with pytest.raises(TypeError, match=words):
            nf.solve(level, x, init=x, solver=solver, estimator=estimator)
        problem = nf.Bilevel(lambda x, y: y.sum(), FLAT, level)
        with pytest.raises(TypeError, match=words):
            nf.hypergradient(problem, x, x, solver=solver, estimator=estimator)
        works(np.array([1.0, -2.0, 3.0]))


def test_things_that_are_none():
    x = np.ones(3)
    with pytest.raises(TypeError, match="solve takes an Argmin, FixedPoint or Root, not a function"):
        ANYHOW.solve(square, x, init=x)
    with pytest.raises(TypeError, match="expected a Bilevel problem, not a Argmin"):
        ANYHOW.hypergradient(LOWER, x, x)
    with pytest.raises(TypeError, match="expected a Bilevel problem, not a tuple"):
        ANYHOW.run((square, LOWER), x, x)
    with pytest.raises(TypeError, match="init"):
        ANYHOW.solve(LOWER, x)
    with pytest.raises(TypeError, match="positional"):
        nf.solve(nf.Argmin(lambda y: (y**2).sum(), FLAT), x, init=x)  # a cost that forgets x


@pytest.mark.parametrize(
    "make",
    [
        lambda: nf.Unrolled(-1),
        lambda: nf.Neumann(0),
        lambda: nf.CG(tol=-1.0),
        lambda: nf.TrustRegion(radius=-1.0),
        lambda: nf.GradientDescent(step=-0.1),
        lambda: ANYHOW.GradientDescent(step="long"),
        lambda: ANYHOW.Implicit(nf.TrustRegion()),
        lambda: ANYHOW.RHGD(solver=nf.CG()),
    ],
    ids=["unrolled", "terms", "tol", "radius", "length", "rule", "linear", "solver"],
)
def test_impossible_settings(make):
    """Said where they are made, or at the latest where they are used; never a silent nonsense."""
    made, x = None, np.array([1.0, -2.0, 3.0])
    with pytest.raises((ValueError, TypeError)):
        made = make()
        use(made, x)
    works(x)


def use(made, x):
    if isinstance(made, nf.LinearSolver):
        made = nf.Implicit(made)
    if isinstance(made, nf.RHGD):
        nf.run(BILEVEL, x, x, method=made, steps=1)
    elif isinstance(made, nf.Estimator):
        nf.hypergradient(BILEVEL, x, 0 * x, estimator=made)
    else:
        nf.solve(LOWER, x, init=0 * x, solver=made)


def test_negative_steps_of_a_run():
    with pytest.raises(ValueError, match="steps"):
        nf.run(BILEVEL, np.ones(3), np.ones(3), steps=-1)


def test_no_warning_of_ours_where_all_is_well():
    x = np.array([1.0, -2.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nf.hypergradient(BILEVEL, x, 0 * x)
        nf.run(BILEVEL, x, 0 * x)
        works(x)


def test_parts_of_levels_are_told_early():
    """A size or a class in the place of a manifold, a number in that of a function."""
    flat = nf.Euclidean(2)
    for make, name in ((nf.Argmin, "cost"), (nf.Root, "field"), (nf.FixedPoint, "map")):
        with pytest.raises(TypeError, match=f"{make.__name__}: manifold must be a manifold such as"):
            make(lambda y: y @ y, 3)  # pyright: ignore
        with pytest.raises(TypeError, match="manifold must be a manifold"):
            make(lambda y: y @ y, nf.Euclidean)  # pyright: ignore
        with pytest.raises(TypeError, match=f"{make.__name__}: {name} must be a function"):
            make(1.0, flat)  # pyright: ignore
