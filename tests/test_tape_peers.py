"""What running another library's test suite, and wrong input of every kind, against the tape has brought to light."""

from __future__ import annotations

import warnings

import array_api_compat.numpy as compat
import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend

rng = np.random.default_rng(11)
X3, X23, X32, X33 = (rng.standard_normal(s) for s in ((3,), (2, 3), (3, 2), (3, 3)))


def traced(f, *arrays):
    """The value of f(namespace, *arrays) while it is being differentiated."""
    return nf.vjp(lambda *a: f(nf.namespace(*a), *a), *arrays)[0]


def pairing(a, b):
    return np.sum(np.real(np.conj(a) * b))


def numbers_like(x):
    r = rng.standard_normal(x.shape)
    return r + 1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else r


# -- wrong arguments: what NumPy refuses is refused, and answered with no number ------------------------------------
WRONG = {
    "concat": (lambda xp, x: xp.concat([x, x], axis=2), X23),
    "concat of numbers": (lambda xp, x: xp.concat([x, x]), np.array(1.0)),
    "cross": (lambda xp, x: xp.linalg.cross(x, x), rng.standard_normal(4)),
    "cumulative_prod": (lambda xp, x: xp.cumulative_prod(x, axis=5), X23),
    "cumulative_prod of a matrix": (lambda xp, x: xp.cumulative_prod(x), X23),
    "det of a number": (lambda xp, x: xp.linalg.det(x), np.array(1.0)),
    "diagonal": (lambda xp, x: xp.linalg.diagonal(x), X3),
    "diff": (lambda xp, x: xp.diff(x, axis=-3), X23),
    "matrix_power": (lambda xp, x: xp.linalg.matrix_power(x, 2), X23),
    "matrix_power of a vector": (lambda xp, x: xp.linalg.matrix_power(x, 2), X3),
    "mean": (lambda xp, x: xp.mean(x, axis=2), X23),
    "moveaxis": (lambda xp, x: xp.moveaxis(x, 2, 0), X23),
    "prod": (lambda xp, x: xp.prod(x, axis=1), X3),
    "prod twice": (lambda xp, x: xp.prod(x, axis=(0, -2)), X23),
    "qr of a vector": (lambda xp, x: xp.linalg.qr(x), X3),
    "tensordot": (lambda xp, x: xp.tensordot(x, X32, axes=2), X23),  # as many entries, other lengths
    "unstack": (lambda xp, x: xp.unstack(x, axis=2), X23),
    "var": (lambda xp, x: xp.var(x, axis=(0, 0)), X23),
    "vecdot": (lambda xp, x: xp.vecdot(x, x[:1]), X3),
    "vecdot of numbers": (lambda xp, x: xp.vecdot(x, x), np.array(1.0)),
    "vector_norm": (lambda xp, x: xp.linalg.vector_norm(x, ord="fro"), X3),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_axes_and_shapes_are_refused(name):
    f, x = WRONG[name]
    with pytest.raises((ValueError, IndexError, TypeError)):
        f(compat, x)
    with pytest.raises(ValueError):
        traced(f, x)


def test_outer_takes_vectors():
    with pytest.raises(nf.ShapeError, match="vectors"):
        traced(lambda xp, x: xp.linalg.outer(x, x), X23)


LIKE_NUMPY = {
    "cross": (lambda xp, x, y: xp.linalg.cross(x, y, axis=0), X33, X3),
    "linspace": (lambda xp, x, y: xp.linspace(x, y, 4), X33, X3),
    "linspace without end": (lambda xp, x, y: xp.linspace(x, y, 4, endpoint=False), X3, np.array(2.0)),
    "tensordot": (lambda xp, x, y: xp.tensordot(x, y, axes=((-1, 0), (0, 1))), X23, X32),
    "vecdot": (lambda xp, x, y: xp.vecdot(x, y, axis=-2), X33, X3[:, None]),
    "vector_norm": (lambda xp, x, y: xp.linalg.vector_norm(x, ord=None) * y, X33, X3),
}


@pytest.mark.parametrize("name", LIKE_NUMPY)
def test_unusual_arguments_mean_what_numpy_means(name):
    f, *arrays = LIKE_NUMPY[name]
    expected, found = f(compat, *arrays), traced(f, *arrays)
    assert found.shape == expected.shape and np.allclose(found, expected)
    check_derivatives(lambda *a: f(nf.namespace(*a), *a), arrays)


def check_derivatives(f, arrays, order=2):
    """Both modes against differences and each other, and their derivatives too."""
    us, eps = [numbers_like(x) for x in arrays], 1e-4
    value, pull = nf.vjp(f, *arrays)
    pushed = nf.jvp(f, tuple(arrays), tuple(us))[1]
    near = {k: f(*(x + k * eps * u for x, u in zip(arrays, us, strict=True))) for k in (-2, -1, 1, 2)}
    assert np.allclose(pushed, (8 * (near[1] - near[-1]) - near[2] + near[-2]) / (12 * eps), rtol=1e-6, atol=1e-6)
    w = numbers_like(value)
    there, back = pairing(w, pushed), sum(map(pairing, pull(w), us))
    assert np.isclose(there, back, rtol=1e-10, atol=1e-12)
    if order > 1:
        check_derivatives(lambda *a: nf.jvp(f, a, tuple(us))[1], arrays, order - 1)
        check_derivatives(lambda *a: nf.vjp(f, *a)[1](w)[0], arrays, order - 1)


# -- corners of elementwise functions ---------------------------------------------------------------------------------
CORNERS = {
    "complex number times a number": (lambda x: nf.namespace(x).real(1j * x * (-1j)), 2.0, 1.0, 0.0),
    "asin at the end": (lambda x: nf.namespace(x).asin(x), 1.0, np.inf, None),
    "acos at the end": (lambda x: nf.namespace(x).acos(x), -1.0, -np.inf, None),
    "power of a negative number": (lambda x: (-2.0) ** x, 2.0, np.nan, np.nan),
    "hypot at zero": (lambda x: nf.namespace(x).hypot(x, 0 * x), 0.0, 0.0, 0.0),
    "zeroth power at zero": (lambda x: x**0, 0.0, 0.0, 0.0),
    "first power at zero": (lambda x: x**1.0, 0.0, 1.0, 0.0),
    "square at zero": (lambda x: x**2, 0.0, 0.0, 2.0),
    "one and a half at zero": (lambda x: x**1.5, 0.0, 0.0, np.inf),
    "NumPy's deviation of one number": (lambda x: np.std(x), 3.5, 0.0, 0.0),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name):
    f, x, first, second = CORNERS[name]
    x = np.array(x)
    with np.errstate(all="ignore"):
        found = nf.grad(f)(x)
        assert np.array_equal(found, first, equal_nan=True) and found.dtype == np.float64
        assert second is None or np.array_equal(nf.grad(nf.grad(f))(x), second, equal_nan=True)


# -- the standard deviation of equal numbers ---------------------------------------------------------------------------
@pytest.mark.parametrize("x", [np.full((2, 3), 1.5), np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]]), np.ones((1, 1))])
def test_the_deviation_of_equal_numbers_has_derivative_zero(x):
    def f(x):
        return nf.namespace(x).sum(nf.namespace(x).std(x, axis=1))

    rows = np.std(x, axis=1) == 0
    for found in (nf.grad(f)(x), nf.hvp(f, (x,), (np.arange(x.size, dtype=float).reshape(x.shape),))):
        assert np.all(found[rows] == 0) and np.all(np.isfinite(found))
    d = x - np.mean(x, axis=1, keepdims=True)
    assert np.allclose(
        nf.grad(f)(x)[~rows], (d / (x.shape[1] * np.std(x, axis=1, keepdims=True) + rows[:, None]))[~rows]
    )


# -- eigenvalues of matrices that are not symmetric -------------------------------------------------------------------
MATRICES = {
    "real": rng.standard_normal((4, 4)),
    "complex": rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)),
    "batch": rng.standard_normal((2, 3, 3)) + np.diag([0.0, 3.0, 6.0]),
    "triangular": np.triu(rng.standard_normal((3, 3))) + np.diag([0.0, 3.0, 6.0]),  # real eigenvalues
}


@pytest.mark.parametrize("name", MATRICES)
def test_eigenvalues_and_eigenvectors(name):
    x = MATRICES[name]

    def f(x):  # in whatever order they come
        values, v = np.linalg.eig(x)
        values = np.sin(np.real(values)) + np.cos(np.imag(values))
        sizes = np.real(v) ** 2 + np.imag(v) ** 2
        return np.sum(values, axis=-1), np.sum(sizes * values[..., None, :], axis=-1)

    assert np.allclose(traced(lambda xp, x: np.linalg.eig(x)[0], x), np.linalg.eig(x)[0])
    for k in range(2):
        check_derivatives(lambda x, k=k: f(x)[k], [x])


@pytest.mark.parametrize("name", MATRICES)
def test_power_sums_of_eigenvalues_are_traces(name):
    x, t = MATRICES[name], numbers_like(MATRICES[name])

    def by_values(x):
        return np.sum(np.real(np.linalg.eigvals(x) ** 3))

    def by_trace(x):
        return np.sum(np.real(np.trace(x @ x @ x, axis1=-2, axis2=-1)))

    assert np.allclose(nf.grad(by_values)(x), nf.grad(by_trace)(x))
    assert np.allclose(nf.hvp(by_values, (x,), (t,)), nf.hvp(by_trace, (x,), (t,)))
    assert np.allclose(nf.grad(lambda x: nf.jvp(by_values, (x,), (t,))[1])(x), nf.hvp(by_trace, (x,), (t,)))


def test_equal_eigenvalues():
    """Symmetric functions of them: the first derivative is right, the second one unknown."""
    x = np.diag([2.0, 2.0, 3.0])

    def f(x):
        return np.sum(np.real(np.linalg.eigvals(x)) ** 3)

    assert np.allclose(nf.grad(f)(x), np.diag([12.0, 12.0, 27.0]))
    assert np.all(np.isnan(nf.hvp(f, (x,), (np.ones((3, 3)),))))
    assert nf.grad(f)(np.zeros((0, 0))).shape == (0, 0)
    assert nf.grad(f)(x.astype(np.float32)).dtype == np.float32


# -- arrays that are more than arrays ----------------------------------------------------------------------------------
def foreign():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return {"matrix": np.matrix(X33), "MaskedArray": np.ma.masked_array(X33, mask=X33 > 0)}


@pytest.mark.parametrize("name", ["matrix", "MaskedArray"])
def test_arrays_with_arithmetic_of_their_own_are_refused(name):
    """The product of two `matrix` is that of matrices, sums over a masked array leave entries out."""
    array = foreign()[name]
    for call in (
        lambda: nf.grad(lambda x: np.sum(x * x))(array),
        lambda: nf.vjp(np.sin, X33)[1](array),
        lambda: nf.jvp(np.sin, (X33,), (array,)),
    ):
        with pytest.raises(TypeError, match=f"NumPy's {name}"):
            call()


@pytest.mark.parametrize("name", ["matrix", "MaskedArray"])
def test_constants_with_arithmetic_of_their_own_are_refused(name):
    constant = foreign()[name]
    for f in (lambda x: np.sum(x * constant), lambda x: x + constant, lambda x: np.where(X33 > 0, x, constant)):
        with pytest.raises(TypeError, match=f"NumPy's {name}"):
            nf.vjp(f, X33)


def test_sparse_matrices_and_arrays_of_other_libraries_are_refused():
    """The product of an array and a sparse matrix is that of matrices; JAX's arrays would make it single precision."""
    sparse = pytest.importorskip("scipy.sparse")
    strict = pytest.importorskip("array_api_strict")
    for constant in (sparse.csr_matrix(X33), sparse.csr_array(X33), strict.asarray(X33)):
        for f in (lambda x, c=constant: x * c, lambda x, c=constant: x @ c):
            with pytest.raises(nf.BackendMismatchError, match="met arrays of numpy"):
                nf.vjp(f, X33)
    for other in (None, "text", {}):
        with pytest.raises(TypeError, match="neither an array nor a number"):
            nf.vjp(lambda x, other=other: x * other, X33)


def test_lists_are_arrays():
    numbers = [1.0, 2.0, 3.0]
    for f in (
        lambda x, c: x + c, lambda x, c: x - c, lambda x, c: x * c, lambda x, c: x / c, lambda x, c: x**c,
        lambda x, c: x @ c, lambda x, c: c - x, lambda x, c: np.maximum(c, x),
    ):  # fmt: skip
        x = np.array([0.5, 1.5, 3.5])
        assert np.array_equal(
            nf.jacobian(lambda x, f=f: f(x, numbers))(x), nf.jacobian(lambda x, f=f: f(x, np.array(numbers)))(x)
        )
    assert np.array_equal(nf.grad(lambda x: np.sum(x * [x[0], 1.0, x[2]]))(x), [1.0, 1.0, 7.0])


def test_object_arrays_are_refused():
    with pytest.raises(nf.DTypeError, match="object"):
        nf.grad(lambda x: np.sum(x * np.array([1, 2, 3], dtype=object)))(X3)


def test_a_complex_power_keeps_single_precision():
    z = np.ones(2, np.complex64)
    assert nf.jvp(lambda z: z ** (0.3 + 0.2j), (z,), (z,))[1].dtype == np.complex64


@pytest.mark.parametrize("transform", [nf.grad, nf.value_and_grad, nf.jacobian, nf.hessian])
def test_argnums_are_integers(transform):
    for wrong in ("x", 0.0, None, (0, "x")):
        with pytest.raises(TypeError, match="argnums="):
            transform(np.sum, wrong)
    at = np.int64(0)
    assert np.array_equal(transform(np.sum, at)(X3)[-1], transform(np.sum, 0)(X3)[-1])


@pytest.mark.parametrize(
    "array",
    [X33[::-1, ::2], np.asfortranarray(X23), X33.astype(">f8"), np.rec.array(X3), np.broadcast_to(X3, (2, 3))],
    ids=["strides", "Fortran", "byte order", "recarray", "read-only"],
)
def test_arrays_of_every_layout(array):
    gradient = nf.grad(lambda x: np.sum(np.sin(x) * x))(array)
    assert np.allclose(gradient, np.sin(array) + array * np.cos(array))
    assert np.allclose(nf.hvp(lambda x: np.sum(x**3), (array,), (array,)), 6 * array**2)


@pytest.mark.parametrize("dtype", ["e", "f", "d", "g", "F", "D", "G"])
def test_every_floating_point_dtype_comes_back(dtype):
    x = np.array([0.5, 1.5], dtype=dtype)

    def f(x):
        return np.sum(np.abs(x * x) * np.arange(2, dtype=np.int8))

    assert nf.grad(f)(x).dtype == x.dtype and nf.hvp(f, (x,), (x,)).dtype == x.dtype
    assert np.allclose(nf.grad(f)(x), [0, 3])
    f64, x64 = np.array([1.0, 2.0]), np.array([1.0, 2.0], dtype=dtype)
    for g, x in zip(nf.grad(lambda a, b: np.sum(np.abs(a * b)), (0, 1))(f64, x64), (f64, x64), strict=True):
        assert g.dtype == x.dtype


def test_storing_an_entry_is_refused_with_advice():
    def f(y):
        b = np.zeros(2)
        b[0] = y[0]

    with pytest.raises(ValueError) as caught:  # NumPy's own error, caused by ours
        nf.grad(f)(X3)
    assert isinstance(caught.value.__cause__, NoDerivativeError) and "stack" in str(caught.value.__cause__)


def test_a_backend_takes_subclasses_that_are_arrays():
    class Named(np.ndarray):
        pass

    assert get_backend("numpy").owns(X3.view(Named)) and np.all(nf.grad(np.sum)(X3.view(Named)) == 1)
