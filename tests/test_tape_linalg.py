"""`linalg` on the tape: every function with its parameters, against differences, PyTorch and JAX, to second order.

What a decomposition leaves open (signs, phases, bases of repeated values) differs between libraries: such functions
are tested through functions of them that do not see it.
"""

from __future__ import annotations

import functools
import itertools
import types
import zlib

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import get_backend
from nestfold.backends._numpy import NumpyBackend
from nestfold.backends.tape import TracedNamespace
from nestfold.backends.tape.rules import determinant

INF = float("inf")


# -- what all tests use --------------------------------------------------------------------------------
def adjoint(a):
    xp = nf.namespace(a)
    a = xp.matrix_transpose(a)
    return xp.conj(a) if is_complex(a) else a


def is_complex(a):
    return "complex" in str(a.dtype)


def hermitian(a):
    return 0.5 * (a + adjoint(a))


def size(a):
    """|a|², real."""
    xp = nf.namespace(a)
    return xp.real(a) ** 2 + xp.imag(a) ** 2 if is_complex(a) else a**2


def pairing(w, value):
    """Re⟨w, value⟩."""
    xp = nf.namespace(w, value)
    return xp.sum(xp.real(xp.conj(w) * value)) if is_complex(value) else xp.sum(w * value)


def like(value, seed):
    """Random numbers of the shape and dtype of a NumPy array."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(value.shape)
    w = w + 1j * rng.standard_normal(value.shape) if np.iscomplexobj(value) else w
    return w.astype(value.dtype)


def arrays(shapes, complex_numbers, seed=0):
    dtype = np.dtype(complex if complex_numbers else float)
    return [like(np.zeros(shape, dtype), seed + 10 * i) for i, shape in enumerate(shapes)]


def difference(f, xs, us, step=2e-3):
    """Df[u] by central differences of order 8."""
    total = np.zeros(())
    for k, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        ahead, behind = (f(*[x + sign * k * step * u for x, u in zip(xs, us, strict=True)]) for sign in (1, -1))
        total = total + weight / step * (np.asarray(ahead) - np.asarray(behind))
    return total


def close(found, wanted, what, tolerance=1e-9):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype, (what, found.shape, found.dtype, wanted.shape)
    if wanted.size:
        error = abs(found - wanted).max() / (1 + abs(wanted).max())
        assert error < tolerance, f"{what}: wrong by {error:.1e}"


def gradient_of(f, w):
    return lambda *xs: nf.vjp(f, *xs)[1](w)


def answers(name, f, xs):
    """Value, push, pull, and the second derivative in both modes, on one backend, as NumPy arrays."""
    backend = get_backend(name)
    us, vs = ([backend.asarray(like(x, seed)) for x in xs] for seed in (5, 6))
    value = backend.to_numpy(f(*[backend.asarray(x) for x in xs]))
    w = backend.asarray(like(value, 7))
    xs = [backend.asarray(x) for x in xs]
    same, pushed = nf.jvp(f, tuple(xs), tuple(us))
    gradient = gradient_of(f, w)
    pulled, second = nf.jvp(gradient, tuple(xs), tuple(us))
    reverse = nf.vjp(gradient, *xs)[1](tuple(vs))
    found = [[value, to_numpy(backend, same), to_numpy(backend, pushed)]]
    return found + [[to_numpy(backend, a) for a in part] for part in (pulled, second, reverse)]


def to_numpy(backend, a):
    return backend.to_numpy(a + backend.xp.zeros_like(a))  # PyTorch's own zeros are no arrays


def check(f, xs, tolerance=1e-8):
    """All laws that can be stated without another library."""
    found = answers("numpy", f, xs)
    us, vs = ([like(x, seed) for x in xs] for seed in (5, 6))
    (value, same, pushed), pulled, second, reverse = found
    close(same, value, "value", 1e-12)
    close(pushed, difference(f, xs, us).astype(value.dtype), "push", tolerance)
    w = like(value, 7)
    there, back = pairing(w, pushed), sum(pairing(u, p) for u, p in zip(us, pulled, strict=True))
    assert abs(there - back) < 1e-9 * (1 + abs(back)), "the modes do not transpose each other"
    gradient = gradient_of(f, w)
    for k, x in enumerate(xs):
        assert pulled[k].shape == x.shape and pulled[k].dtype == x.dtype
        wanted = difference(lambda *xs, k=k: gradient(*xs)[k], xs, us).astype(x.dtype)
        close(second[k], wanted, "second derivative", 10 * tolerance)
    there, back = (sum(pairing(a, b) for a, b in zip(p, q, strict=True)) for p, q in ((vs, second), (us, reverse)))
    assert abs(there - back) < 1e-8 * (1 + abs(back)), "second derivatives in the two modes do not transpose each other"
    return found


def compare(found, other, tolerance=1e-9):
    for mine, its in zip(found, other, strict=True):
        for a, b in zip(mine, its, strict=True):
            close(a, b, "another library", tolerance)


# -- every function with its parameters ----------------------------------------------------------------
def xp_of(f):
    """f(xp, *xs) as a function of arrays alone."""
    return lambda *xs: f(nf.namespace(*xs), *xs)


def regular(x):
    """A function of one square matrix, moved away from the singular ones."""
    xp = nf.namespace(x)
    return x + 4 * xp.eye(x.shape[-1], dtype=x.dtype)


def positive(x):
    xp = nf.namespace(x)
    return x @ adjoint(x) + xp.eye(x.shape[-2], dtype=x.dtype)


def rows(xp, *parts):
    """Stacks of matrices of several shapes as one stack of vectors."""
    return xp.concat([xp.reshape(p, (*p.shape[:-2], p.shape[-2] * p.shape[-1])) for p in parts], axis=-1)


def of_svd(xp, x, **keywords):
    u, s, vh = xp.linalg.svd(x, **keywords)
    k = s.shape[-1]
    rest = u[..., :, k:] @ adjoint(u[..., :, k:]), adjoint(vh[..., k:, :]) @ vh[..., k:, :]
    u, vh = u[..., :, :k], vh[..., :k, :]
    first = u[..., :, :1] @ vh[..., :1, :]
    whole = (u * xp.expand_dims(s**2, axis=-2)) @ vh
    return rows(xp, whole, first, size(u) + 0 * whole[..., :, :1], size(vh) + 0 * whole[..., :1, :], *rest)


def of_eigh(xp, x):
    values, q = xp.linalg.eigh(hermitian(x))
    first = q[..., :, :1] @ adjoint(q[..., :, :1])
    return (q * xp.expand_dims(xp.sin(values), axis=-2)) @ adjoint(q) + 2 * first + 3 * size(q)


def of_qr(xp, x, mode):
    q, r = xp.linalg.qr(x, mode=mode)
    n = min(x.shape[-2:])
    return rows(xp, q[..., :, :n], r, q[..., :, n:] @ adjoint(q[..., :, n:]))


def both(pair):
    return pair[0] + pair[1]


A, TALL, WIDE, STACK = (4, 4), (5, 3), (3, 5), (2, 3, 3)
CASES = {
    "cholesky": (lambda xp, x: xp.linalg.cholesky(positive(x)), [A], [STACK], [WIDE]),
    "cholesky upper": (lambda xp, x: xp.linalg.cholesky(positive(x), upper=True), [A], [STACK]),
    "cholesky of the Hermitian part": (lambda xp, x: xp.linalg.cholesky(hermitian(regular(x))), [A]),
    "cross": (lambda xp, a, b: xp.linalg.cross(a, b), [(3,), (3,)], [(4, 3), (3,)], [(1, 3), (5, 2, 3)]),
    "cross axis": (lambda xp, a, b: xp.linalg.cross(a, b, axis=-2), [(2, 3, 4), (2, 3, 4)], [(3, 1), (2, 3, 4)]),
    "cross first axis": (lambda xp, a, b: xp.linalg.cross(a, b, axis=0), [(3, 4), (3, 4)]),
    "det": (lambda xp, x: xp.linalg.det(x), [A], [STACK], [(1, 1)], [(2, 2)]),
    "diagonal": (lambda xp, x: xp.linalg.diagonal(x), [A], [TALL], [WIDE], [STACK]),
    "diagonal 1": (lambda xp, x: xp.linalg.diagonal(x, offset=1), [A], [TALL], [WIDE], [STACK]),
    "diagonal -2": (lambda xp, x: xp.linalg.diagonal(x, offset=-2), [A], [TALL], [WIDE], [STACK]),
    "eigh": (of_eigh, [A], [STACK], [(1, 1)], [(2, 2)]),
    "eigh values": (lambda xp, x: xp.linalg.eigh(hermitian(x)).eigenvalues, [A], [STACK]),
    "eigvalsh": (lambda xp, x: xp.linalg.eigvalsh(hermitian(x)), [A], [STACK]),
    "inv": (lambda xp, x: xp.linalg.inv(regular(x)), [A], [STACK], [(1, 1)]),
    "matmul": (lambda xp, a, b: xp.linalg.matmul(a, b), [TALL, WIDE], [STACK, (3, 2)], [(3,), STACK], [STACK, (3,)]),
    "matrix_power 0": (lambda xp, x: xp.linalg.matrix_power(x, 0) + x, [A], [STACK]),
    "matrix_power 1": (lambda xp, x: xp.linalg.matrix_power(x, 1), [A]),
    "matrix_power 5": (lambda xp, x: xp.linalg.matrix_power(x, 5), [A], [STACK]),
    "matrix_power -3": (lambda xp, x: xp.linalg.matrix_power(regular(x), -3), [A], [STACK]),
    "matrix_rank": (lambda xp, x: xp.astype(xp.linalg.matrix_rank(x), x.dtype) * x[..., 0, 0], [A], [TALL]),
    "matrix_transpose": (lambda xp, x: xp.linalg.matrix_transpose(x) * 2, [TALL], [STACK]),
    "outer": (lambda xp, a, b: xp.linalg.outer(a, b), [(3,), (4,)]),
    "pinv": (lambda xp, x: xp.linalg.pinv(x), [A], [TALL], [WIDE], [STACK]),
    "pinv rtol": (lambda xp, x: xp.linalg.pinv(x, rtol=1e-6), [TALL], [STACK]),
    "qr": (lambda xp, x: of_qr(xp, x, "reduced"), [A], [TALL], [WIDE], [STACK], [(2, 3, 5)], [(1, 4)]),
    "qr complete": (lambda xp, x: of_qr(xp, x, "complete"), [A], [TALL], [WIDE], [STACK], [(2, 5, 3)], [(4, 1)]),
    "slogdet": (lambda xp, x: xp.linalg.slogdet(x).logabsdet, [A], [STACK]),
    "slogdet sign": (lambda xp, x: both(xp.linalg.slogdet(x)), [A], [STACK]),
    "solve": (lambda xp, a, b: xp.linalg.solve(regular(a), b), [A, (4, 2)], [A, (4,)], [STACK, (3, 2)], [A, (2, 4, 1)]),
    "svd": (lambda xp, x: of_svd(xp, x, full_matrices=False), [A], [TALL], [WIDE], [STACK], [(2, 3, 5)], [(4, 1)]),
    "svd full": (lambda xp, x: of_svd(xp, x), [A], [TALL], [WIDE], [STACK], [(2, 3, 5)], [(1, 4)]),
    "svdvals": (lambda xp, x: xp.linalg.svdvals(x), [A], [TALL], [WIDE], [STACK]),
    "tensordot": (lambda xp, a, b: xp.linalg.tensordot(a, b), [(2, 3, 4), (3, 4, 2)]),
    "tensordot 0": (lambda xp, a, b: xp.linalg.tensordot(a, b, axes=0), [(2, 3), (2,)]),
    "tensordot 1": (lambda xp, a, b: xp.linalg.tensordot(a, b, axes=1), [(2, 3), (3, 4)]),
    "tensordot axes": (lambda xp, a, b: xp.linalg.tensordot(a, b, axes=((-1, 0), (1, -2))), [(2, 3, 4), (5, 4, 2, 3)]),
    "trace": (lambda xp, x: xp.linalg.trace(x), [A], [TALL], [WIDE], [STACK]),
    "trace 2": (lambda xp, x: xp.linalg.trace(x, offset=2), [A], [TALL], [WIDE], [STACK]),
    "trace -1": (lambda xp, x: xp.linalg.trace(x, offset=-1), [A], [TALL], [WIDE], [STACK]),
    "vecdot": (lambda xp, a, b: xp.linalg.vecdot(a, b), [(4,), (4,)], [(3, 4), (4,)], [(2, 1, 4), (3, 4)]),
    "vecdot axis": (lambda xp, a, b: xp.linalg.vecdot(a, b, axis=-2), [(3, 4), (3, 4)], [(3, 1), (2, 3, 4)]),
}  # fmt: skip
for _ord in ("fro", "nuc", 1, -1, 2, -2, INF, -INF):
    for _keep in (False, True):
        CASES[f"matrix_norm {_ord} {_keep}"] = (
            lambda xp, x, ord=_ord, keep=_keep: xp.linalg.matrix_norm(x, ord=ord, keepdims=keep),
            *([[A], [TALL], [WIDE], [STACK]] if _keep else [[TALL], [STACK]]),
        )
for _ord in (0, 1, 2, 3, 0.5, 2.5, -1, -2, -0.5, INF, -INF):
    for _axis, _keep in ((None, False), (1, True), ((0, -1), False)):
        CASES[f"vector_norm {_ord} {_axis} {_keep}"] = (
            lambda xp, x, ord=_ord, axis=_axis, keep=_keep: (
                xp.linalg.vector_norm(x, ord=ord, axis=axis, keepdims=keep) + 0 * xp.abs(x[0, 0, 0])
            ),
            [(2, 3, 4)],
        )
RUNS = [(name, tuple(shapes)) for name, (_, *lists) in CASES.items() for shapes in lists]


NUMBERS = pytest.mark.parametrize("complex_numbers", [False, True], ids=["real", "complex"])
#: what a library does not have: axes of cross counted from the front; derivatives of the further columns of Q, U and V
MISSING = {
    "array_api_strict": {"cross first axis"},
    "torch": {"qr complete", "svd full"},
    "jax": {"qr complete", "svd full"},
}


@functools.cache
def checked(name, shapes, complex_numbers):
    xs = arrays(shapes, complex_numbers, zlib.crc32(name.encode()) % 1000)
    if "norm" in name:  # away from kinks
        order = np.random.default_rng(1).permutation(xs[0].size).reshape(xs[0].shape)
        xs = [x / abs(x) * (1 + 0.15 * order) for x in xs]
    return xs, check(xp_of(CASES[name][0]), xs)


@NUMBERS
@pytest.mark.parametrize(("name", "shapes"), RUNS)
def test_against_differences(name, shapes, complex_numbers):
    checked(name, shapes, complex_numbers)


def run(name, other, shapes, complex_numbers):
    pytest.importorskip(other)
    if name in MISSING[other]:
        pytest.skip(f"{other} has no {name}")
    xs, found = checked(name, shapes, complex_numbers)
    compare(found, answers(other, xp_of(CASES[name][0]), xs))


@NUMBERS
@pytest.mark.parametrize(("name", "shapes"), RUNS)
def test_on_strict(name, shapes, complex_numbers):
    run(name, "array_api_strict", shapes, complex_numbers)


@NUMBERS
@pytest.mark.parametrize(("name", "shapes"), RUNS)
def test_against_torch(name, shapes, complex_numbers):
    run(name, "torch", shapes, complex_numbers)


@pytest.mark.slow
@NUMBERS
@pytest.mark.parametrize(("name", "shapes"), RUNS)
def test_against_jax(name, shapes, complex_numbers):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        run(name, "jax", shapes, complex_numbers)


# -- repeated values -----------------------------------------------------------------------------------
def orthonormal(rows, columns, complex_numbers, seed):
    return np.linalg.qr(arrays([(rows, columns)], complex_numbers, seed)[0])[0]


def with_eigenvalues(values, complex_numbers):
    q = orthonormal(len(values), len(values), complex_numbers, 3)
    return hermitian((q * np.asarray(values)) @ adjoint(q))


def with_singular_values(values, shape, complex_numbers, seed=3):
    m, n = shape
    u, v = (orthonormal(size, len(values), complex_numbers, seed + i) for i, size in enumerate((m, n)))
    return (u * np.asarray(values)) @ adjoint(v)


def projector(xp, x, part):
    q = xp.linalg.eigh(hermitian(x)).eigenvectors[..., :, part]
    return q @ adjoint(q)


REPEATED = [1.0, 1.0, 1.0, 2.0, 2.0, 5.0]
OF_EIGENVALUES = {
    "projector on the repeated": lambda xp, x: projector(xp, x, slice(0, 3)),
    "projector on the other repeated": lambda xp, x: projector(xp, x, slice(3, 5)),
    "projector on the rest": lambda xp, x: projector(xp, x, slice(3, None)),
    "sum": lambda xp, x: xp.sum(xp.linalg.eigvalsh(hermitian(x))[..., :3], axis=-1),
    "trace": lambda xp, x: xp.sum(xp.linalg.eigvalsh(hermitian(x)), axis=-1),
    "single": lambda xp, x: xp.linalg.eigvalsh(hermitian(x))[..., -1],
    "squares": lambda xp, x: xp.sum(xp.linalg.eigh(hermitian(x)).eigenvalues ** 2, axis=-1),
    "log": lambda xp, x: xp.sum(xp.log(xp.linalg.eigvalsh(hermitian(x)))) ** 2,
    "both": lambda xp, x: xp.sum(xp.linalg.eigvalsh(hermitian(x))[..., :3] ** 3) * projector(xp, x, slice(3, 5)),
    "slogdet": lambda xp, x: xp.linalg.slogdet(x).logabsdet,
    "inv": lambda xp, x: xp.linalg.inv(x),
    "det": lambda xp, x: xp.linalg.det(x),
    "cholesky": lambda xp, x: xp.linalg.cholesky(hermitian(x)),
}


@NUMBERS
@pytest.mark.parametrize("name", OF_EIGENVALUES)
def test_repeated_eigenvalues(name, complex_numbers):
    x = with_eigenvalues(REPEATED, complex_numbers)
    batch = np.stack([x, with_eigenvalues([1, 1, 1, 3, 4, 6.0], complex_numbers), np.eye(6) + 0 * x])
    found = check(xp_of(OF_EIGENVALUES[name]), [x])
    compare(found, answers("array_api_strict", xp_of(OF_EIGENVALUES[name]), [x]))
    check(xp_of(OF_EIGENVALUES[name]), [batch[: 2 if "pro" in name or name in ("single", "both", "sum") else 3]])


def of_block(xp, x, part):
    u, _, vh = xp.linalg.svd(x)
    return u[..., :, part] @ vh[..., part, :]


def polar(xp, x):
    u, _, vh = xp.linalg.svd(x, full_matrices=False)
    return u @ vh


OF_SINGULAR_VALUES = {
    "polar": polar,
    "block": lambda xp, x: of_block(xp, x, slice(1, 4)),
    "pinv": lambda xp, x: xp.linalg.pinv(x),
    "pinv without the smallest": lambda xp, x: xp.linalg.pinv(x, rtol=0.4),
    "nuclear": lambda xp, x: xp.linalg.matrix_norm(x, ord="nuc"),
    "nuclear squared": lambda xp, x: xp.linalg.matrix_norm(x, ord="nuc") ** 2,
    "largest": lambda xp, x: xp.linalg.matrix_norm(x, ord=2),
    "smallest": lambda xp, x: xp.linalg.matrix_norm(x, ord=-2),
    "sum": lambda xp, x: xp.sum(xp.linalg.svdvals(x), axis=-1),
    "Ky Fan": lambda xp, x: xp.sum(xp.linalg.svdvals(x)[..., :4], axis=-1),
    "Schatten": lambda xp, x: xp.sum(xp.linalg.svdvals(x) ** 3) ** (1 / 3),
}


@NUMBERS
@pytest.mark.parametrize("shape", [(5, 5), (6, 5), (5, 6)])
@pytest.mark.parametrize("name", OF_SINGULAR_VALUES)
def test_repeated_singular_values(name, shape, complex_numbers):
    x = with_singular_values([3.0, 2.0, 2.0, 2.0, 1.0], shape, complex_numbers)
    found = check(xp_of(OF_SINGULAR_VALUES[name]), [x])
    compare(found, answers("array_api_strict", xp_of(OF_SINGULAR_VALUES[name]), [x]))
    batch = np.stack([x, with_singular_values([4.0, 2.0, 2.0, 2.0, 0.5], shape, complex_numbers, 9)])
    check(xp_of(OF_SINGULAR_VALUES[name]), [batch])


SMOOTH = {
    "squares": lambda xp, x: xp.sum(xp.linalg.svdvals(x) ** 2),
    "roots": lambda xp, x: xp.sum(xp.sqrt(xp.linalg.svdvals(x) ** 2 + 1)),
    "coupled": lambda xp, x: xp.log(1 + xp.sum(xp.linalg.svdvals(x) ** 4)) * xp.sum(xp.linalg.svdvals(x) ** 2),
}


@NUMBERS
@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (4, 6)])
@pytest.mark.parametrize("values", [[3.0, 2, 2, 0], [1.0, 1, 0, 0], [0.0] * 4], ids=str)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_of_zero_singular_values(name, values, shape, complex_numbers):
    x = with_singular_values(values, shape, complex_numbers)
    found = check(xp_of(SMOOTH[name]), [np.stack([x, x[::-1]])])
    compare(found, answers("array_api_strict", xp_of(SMOOTH[name]), [np.stack([x, x[::-1]])]))


@NUMBERS
@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
def test_nuclear_norm_of_orthonormal_columns(shape, complex_numbers):
    for seed in range(3):
        x = orthonormal(max(shape), 4, complex_numbers, seed)
        check(xp_of(OF_SINGULAR_VALUES["nuclear"]), [x if shape[0] >= shape[1] else x.T])
    check(xp_of(OF_SINGULAR_VALUES["polar"]), [np.eye(*shape) + 0 * x[0, 0]])


def test_norms_where_they_have_no_derivative():
    """Among the subgradients the most symmetric one is taken, as `max` and `abs` do."""

    def gradient(x, ord):
        return nf.grad(lambda x: np.linalg.matrix_norm(x, ord=ord))(x)

    np.testing.assert_allclose(gradient(np.eye(3), 2), np.eye(3) / 3, atol=1e-15)
    np.testing.assert_allclose(gradient(2 * np.eye(3), -2), np.eye(3) / 3, atol=1e-15)
    for ord in ("fro", "nuc", 2, -2):
        assert not gradient(np.zeros((2, 3)), ord).any()
    np.testing.assert_allclose(gradient(np.diag([2.0, 0.0]), "nuc"), np.diag([1.0, 0.0]), atol=1e-15)
    assert not gradient(np.diag([2.0, 0.0]), -2).any()
    for ord in (2, 3, 1.5, 0.5, -1, -2, INF, 1):
        norm = functools.partial(np.linalg.vector_norm, ord=ord)
        assert not nf.grad(norm)(np.zeros(3)).any()
        assert np.isfinite(nf.grad(norm)(np.array([0.0, 1.0, -2.0]))).all()
        assert np.isfinite(nf.hvp(norm, (np.array([0.0, 1.0, -2.0]),), (np.ones(3),))).all()


# -- pseudoinverses of less than full rank -------------------------------------------------------------
@NUMBERS
@pytest.mark.parametrize("rtol", [None, 1e-9], ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_pinv_along_matrices_of_one_rank(shape, rtol, complex_numbers):
    a, b = arrays([(shape[0], 2), (2, shape[1])], complex_numbers, 4)
    keywords = {} if rtol is None else {"rtol": rtol}
    check(xp_of(lambda xp, a, b: xp.linalg.pinv(a @ b, **keywords)), [a, b])
    check(xp_of(lambda xp, a, b: xp.linalg.matrix_norm(a @ b, ord="nuc")), [a, b])


@NUMBERS
def test_pinv_of_a_batch_of_ranks(complex_numbers):
    x = np.stack([with_singular_values(s, (4, 3), complex_numbers) for s in ([3.0, 2, 1], [3.0, 1, 0.1], [4.0, 3, 2])])
    rtol = np.array([0.5, 0.2, 0.1])

    def f(x):
        xp = nf.namespace(x)
        return xp.linalg.pinv(x, rtol=get_backend("numpy").asarray(rtol) if x.shape[0] == 3 else 0.5)

    check(f, [x])


# -- determinants of singular matrices -----------------------------------------------------------------
def leibniz(x):
    """The determinant as a polynomial: right to any order on the tape by its definition."""
    n, total = x.shape[-1], 0
    for p in itertools.permutations(range(n)):
        term = round(np.linalg.det(np.eye(n)[list(p)]))
        for i in range(n):
            term = x[..., i, p[i]] * term
        total = total + term
    return total


def det(x):
    return nf.namespace(x).linalg.det(x)


def orders(backend, f, x):
    """f, Df[u], ∇f, ∇²f[u], ∇³f[u, v], ∇⁴f[u, v, w]."""
    us = [backend.asarray(like(x, seed)) for seed in (1, 2, 3)]
    x = backend.asarray(x)
    one = backend.xp.ones(x.shape[:-2], dtype=x.dtype)

    def moved(f, u):
        return lambda x: nf.jvp(f, (x,), (u,))[1]

    def gradient(x):
        return nf.vjp(f, x)[1](one)[0]

    second = moved(gradient, us[0])
    third = moved(second, us[1])
    found = f(x), moved(f, us[0])(x), gradient(x), second(x), third(x), moved(third, us[2])(x)
    return [backend.to_numpy(a) for a in found]


@NUMBERS
@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
@pytest.mark.parametrize(
    "values", [[1, 0.5, 0.3, 0], [1, 0.5, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0.1, 1e-3, 1e-9], [1, 0.3, 1e-5, 1e-5]]
)
def test_det_of_singular_matrices(values, name, complex_numbers):
    x = with_singular_values(values, (4, 4), complex_numbers)
    backend = get_backend(name)
    for mine, wanted in zip(orders(backend, det, x), orders(get_backend("numpy"), leibniz, x), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-11, atol=1e-11)


@NUMBERS
def test_det_of_a_batch_of_ranks(complex_numbers):
    values = [1, 1, 1, 1], [1, 0.5, 0.3, 0], [1, 0.5, 0, 0], [1, 0.7, 0.4, 0.2], [0, 0, 0, 0], [1, 1, 1, 0]
    x = np.stack([with_singular_values(v, (4, 4), complex_numbers) for v in values]).reshape(2, 3, 4, 4)
    pairs = zip(orders(get_backend("numpy"), det, x), orders(get_backend("numpy"), leibniz, x), strict=True)
    for mine, wanted in pairs:
        np.testing.assert_allclose(mine, wanted, rtol=1e-11, atol=1e-13)


def test_det_by_the_adjugate():
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    np.testing.assert_allclose(nf.grad(det)(x), [[-3, 6, -3], [6, -12, 6], [-3, 6, -3]], atol=1e-13)
    np.testing.assert_allclose(nf.grad(det)(np.zeros((1, 1))), [[1.0]])
    np.testing.assert_allclose(nf.hessian(det)(np.zeros((2, 2))).reshape(4, 4), np.fliplr(np.diag([1.0, -1, -1, 1])))
    for n in (8, 9):  # so many zeros that the expansion into minors would be too long
        x = np.diag([1.0] + [0.0] * (n - 1))
        assert all(not a.any() for a in orders(get_backend("numpy"), det, x))
    rank = with_singular_values([3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.1, 0.0], (8, 8), False)
    check(det, [rank])


def test_a_polynomial_of_many_small_values():
    (s,) = arrays([(2, 7, 7)], True)
    ns = TracedNamespace(get_backend("numpy"))
    np.testing.assert_allclose(determinant._by_traces(ns, s), np.linalg.det(s), rtol=1e-11)
    np.testing.assert_allclose(determinant._by_minors(ns, s[..., :5, :5]), np.linalg.det(s[..., :5, :5]), rtol=1e-11)


def test_det_of_what_is_no_number():
    x = np.stack([np.eye(2), np.full((2, 2), np.nan)])
    with np.errstate(invalid="ignore"):  # NumPy's own determinant warns
        value, pull = nf.vjp(det, x)
    assert value[0] == 1 and np.isnan(value[1])
    np.testing.assert_allclose(pull(np.ones(2))[0][0], np.eye(2))


def test_slogdet_of_a_singular_matrix():
    x = np.stack([np.eye(3), np.diag([1.0, 1.0, 0.0])])
    value, gradient = nf.vjp(lambda x: nf.namespace(x).linalg.slogdet(x).logabsdet, x)
    assert value[0] == 0 and value[1] == -INF
    (found,) = gradient(np.ones(2))
    np.testing.assert_allclose(found[0], np.eye(3))
    assert np.isnan(found[1]).all()


def test_qr_of_a_deficient_matrix_passes_the_value_through():
    x = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert nf.grad(lambda x: np.sum(x) + 0 * float(nf.stop_gradient(np.linalg.qr(x)[1])[0, 0]))(x).all()
    assert np.isnan(nf.grad(lambda x: np.sum(np.linalg.qr(x)[1] ** 2))(x)).all()


# -- what is factorised is factorised once -------------------------------------------------------------
FACTORISE = "cholesky det eigh eigvalsh inv pinv qr slogdet solve svd svdvals matrix_rank".split()


def counting():
    """A backend of NumPy, and the list of what it has factorised."""
    calls = []

    def counted(name, function):
        def call(*args, **keywords):
            calls.append(name)
            return function(*args, **keywords)

        return call if name in FACTORISE else function

    def copied(space):
        return {name: counted(name, getattr(space, name)) for name in dir(space) if name[0] != "_"}

    class Counting(NumpyBackend):
        xp = types.SimpleNamespace(**copied(NumpyBackend.xp) | {"linalg": types.SimpleNamespace(**copied(np.linalg))})

    return Counting(), calls


ONCE = {
    "cholesky": (lambda l, a, b: l.cholesky(hermitian(a)), ["cholesky", "inv"]),
    "det": (lambda l, a, b: l.det(a), ["det", "inv"]),
    "eigh": (lambda l, a, b: l.eigh(hermitian(a))[1], ["eigh"]),
    "eigvalsh": (lambda l, a, b: l.eigvalsh(hermitian(a)), ["eigh"]),
    "inv": (lambda l, a, b: l.inv(a), ["inv"]),
    "nuc": (lambda l, a, b: l.matrix_norm(a, ord="nuc"), ["svd"]),
    "2": (lambda l, a, b: l.matrix_norm(a, ord=2), ["svd"]),
    "-2": (lambda l, a, b: l.matrix_norm(a, ord=-2), ["svd"]),
    "pinv": (lambda l, a, b: l.pinv(a), ["pinv"]),
    "power": (lambda l, a, b: l.matrix_power(a, -3), ["inv"]),
    "qr": (lambda l, a, b: l.qr(a).R, ["qr", "inv"]),
    "slogdet": (lambda l, a, b: l.slogdet(a)[1], ["slogdet", "inv"]),
    "solve": (lambda l, a, b: l.solve(a, b), ["solve", "inv"]),
    "svd": (lambda l, a, b: l.svd(a)[0], ["svd"]),
    "svdvals": (lambda l, a, b: l.svdvals(a), ["svd"]),
}


@NUMBERS
@pytest.mark.parametrize("name", ONCE)
def test_maps_do_not_factorise(name, complex_numbers):
    backend, calls = counting()
    f, wanted = ONCE[name]
    a, b = arrays([(4, 4), (4, 2)], complex_numbers)
    a = a @ adjoint(a) + np.eye(4)

    def of(a, b):
        return f(backend.traced_namespace.linalg, a, b) + 0 * b[0, 0]

    value, push = backend.linearize(of, a, b)
    assert sorted(calls) == sorted(wanted)
    _, pull = backend.vjp(of, a, b)
    calls.clear()
    for i in range(4):
        push(a, b + i)
        pull(i * value)
    assert calls == []

    def gradient(a, b):
        return backend.vjp(of, a, b)[1](value)

    backend.linearize(gradient, a, b)  # nested twice: still once
    assert sorted(calls) == sorted(wanted)


# -- sizes and dtypes ----------------------------------------------------------------------------------
EMPTY = {
    "cholesky": [(0, 0), (0, 3, 3)], "det": [(0, 0), (0, 3, 3), (2, 0, 0)], "eigh": [(0, 3, 3), (2, 0, 0)],
    "eigvalsh": [(0, 3, 3), (2, 0, 0)], "inv": [(0, 0), (0, 3, 3)], "matrix_power": [(0, 0), (0, 3, 3)],
    "pinv": [(0, 3, 2), (0, 4), (4, 0)], "qr": [(0, 3, 2), (0, 2, 3)], "slogdet": [(0, 0), (0, 3, 3)],
    "solve": [(0, 0), (0, 3, 3)], "svd": [(0, 3, 2), (0, 2, 3)], "svdvals": [(0, 3, 2), (2, 0, 3)],
    "matrix_norm": [(0, 3, 2), (3, 0)], "vector_norm": [(0,), (0, 3)], "trace": [(0, 0), (0, 3)], "diagonal": [(0, 3)],
    "matrix_norm nuc": [(0, 3, 2)], "matrix_norm 2": [(0, 3, 2)], "matrix_norm 1": [(0, 3, 2)],
}  # fmt: skip


@NUMBERS
@pytest.mark.parametrize("backend_name", ["numpy", "array_api_strict"])
@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in EMPTY.items() for shape in shapes])
def test_empty(name, shape, backend_name, complex_numbers):
    backend = get_backend(backend_name)
    (x,) = arrays([shape], complex_numbers)
    x = backend.asarray(x)
    name, _, ord = name.partition(" ")
    more = {"matrix_power": (3,), "solve": (x,)}.get(name, ())
    keywords = {"ord": int(ord) if ord.isdigit() else ord} if ord else {}

    def f(x):
        found = getattr(nf.namespace(x).linalg, name)(x, *more, **keywords)
        return tuple(found) if isinstance(found, tuple) else found

    plain = f(x)
    value, pull = nf.vjp(f, x)
    _, pushed = nf.jvp(f, (x,), (x,))
    for a, b, c in zip(*(v if isinstance(v, tuple) else (v,) for v in (plain, value, pushed)), strict=True):
        assert a.shape == b.shape == c.shape and a.dtype == b.dtype == c.dtype
    (pulled,) = pull(value)
    assert pulled.shape == x.shape and pulled.dtype == x.dtype
    second = nf.jvp(lambda x: nf.vjp(f, x)[1](value)[0], (x,), (x,))[1]
    assert second.shape == x.shape and not backend.to_numpy(second).any()


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"matrix_rank"}))
def test_single_precision(name, dtype):
    f, shapes = xp_of(CASES[name][0]), CASES[name][1]
    xs = [x.astype(dtype) for x in arrays(shapes, dtype is np.complex64, 1)]
    value, pull = nf.vjp(f, *xs)
    assert value.dtype in (np.float32, dtype) and f(*xs).dtype == value.dtype
    _, pushed = nf.jvp(f, tuple(xs), tuple(xs))
    assert pushed.dtype == value.dtype
    pulled, second = nf.jvp(gradient_of(f, value), tuple(xs), tuple(xs))
    assert all(a.dtype == dtype for a in (*pull(value), *pulled, *second))


def check_third(f, xs):
    us = [like(x, 5) for x in xs]
    gradient = gradient_of(f, like(f(*xs), 7))

    def second(*xs):
        return nf.jvp(gradient, xs, tuple(us))[1]

    _, third = nf.jvp(second, tuple(xs), tuple(us))
    for k, found in enumerate(third):
        close(found, difference(lambda *xs, k=k: second(*xs)[k], xs, us), "third derivative", 1e-6)


@pytest.mark.parametrize("name", ["cholesky", "det", "eigh", "pinv", "qr", "svd full", "svdvals", "solve", "slogdet"])
def test_third_order(name):
    check_third(xp_of(CASES[name][0]), arrays(CASES[name][1], True, 2))


@NUMBERS
def test_third_order_where_values_repeat(complex_numbers):
    x = with_eigenvalues(REPEATED, complex_numbers)
    for name in ("projector on the repeated", "projector on the other repeated", "sum", "single", "slogdet"):
        check_third(xp_of(OF_EIGENVALUES[name]), [x])
    for shape in ((5, 5), (6, 5), (5, 6)):
        x = with_singular_values([3.0, 2.0, 2.0, 2.0, 1.0], shape, complex_numbers)
        for name in ("polar", "block", "pinv", "pinv without the smallest", "nuclear", "largest", "smallest", "Ky Fan"):
            check_third(xp_of(OF_SINGULAR_VALUES[name]), [x])


def test_the_hermitian_part_is_differentiated():
    """Libraries read one triangle: the derivative does not depend on which."""
    (x,) = arrays([(3, 3)], True, 3)
    x = x @ adjoint(x) + np.eye(3)
    for f in (
        lambda x: np.linalg.eigh(x).eigenvalues[0],
        lambda x: np.sum(np.linalg.eigvalsh(x, UPLO="U") ** 2),
        lambda x: np.real(np.linalg.cholesky(x)[2, 1]),
    ):
        gradient = nf.grad(f)(x)
        np.testing.assert_allclose(gradient, gradient.conj().T, atol=1e-14)


def test_parameters_of_trace_and_rank():
    (x,) = arrays([(3, 3)], False)
    value, pull = nf.vjp(lambda x: np.linalg.trace(x, offset=1, dtype=complex), x)
    assert value.dtype == complex
    np.testing.assert_allclose(pull(np.asarray(2.0 + 3j))[0], 2 * np.eye(3, k=1))
    found = nf.grad(lambda x: np.sum(x) * np.linalg.matrix_rank(x, rtol=1e-3))(np.diag([1.0, 1.0, 1e-6]))
    np.testing.assert_allclose(found, 2 * np.ones((3, 3)))


@pytest.mark.parametrize("n", [2.5, "2"])
def test_matrix_power_takes_integers(n):
    with pytest.raises(TypeError):
        nf.grad(lambda x: np.sum(nf.namespace(x).linalg.matrix_power(x, n)))(np.eye(2))


def test_matrix_power_takes_square_matrices():
    for n in (0, 1):
        with pytest.raises(ValueError, match="square"):
            nf.grad(lambda x, n=n: np.sum(nf.namespace(x).linalg.matrix_power(x, n)))(np.ones((2, 3)))


def test_captured_matrices_are_looked_at_anew():
    """A hoisted function meets other values than those that it captured: the way taken depends on them."""
    backend = get_backend("numpy")

    def f(a, b):
        xp = nf.namespace(a, b)
        return xp.linalg.det(a) * xp.linalg.inv(xp.linalg.pinv(a + b, rtol=0.4) + b)

    a, w = np.diag([2.0, 3.0, 4.0]) + 0.1, like(np.eye(3), 1)
    last = a * np.array([[0.0], [0.0], [1.0]])

    def hoisted(a):
        g, captured = backend.hoist(lambda b: f(a, b), np.eye(3))
        return g(tuple(c - last for c in captured), 3 * np.eye(3))

    (wanted,) = nf.vjp(lambda a: f(a - last, 3 * np.eye(3)), a)[1](w)
    np.testing.assert_allclose(nf.vjp(hoisted, a)[1](w)[0], wanted, atol=1e-13)
    assert abs(wanted).max() > 0.1


# -- accuracy ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_derivatives_of_solve_are_as_accurate_as_a_solve(seed):
    """At a condition number of 1e8, against fifty digits: an inverse that is kept costs no more than a small factor."""
    mpmath = pytest.importorskip("mpmath")
    n, condition = 8, 1e8
    a = with_singular_values(np.geomspace(1, 1 / condition, n), (n, n), False, 7 * seed + 1)
    b, t, c = arrays([(n, 2), (n, n), (n, 2)], False, 40 + seed)
    with mpmath.workdps(50):
        matrix = [mpmath.matrix(m.tolist()) for m in (a, b, t, c)]
        inverse = mpmath.inverse(matrix[0])
        y = inverse * matrix[1]
        of_b = inverse.T * matrix[3]
        wanted = [-(inverse * (matrix[2] * y)), -(of_b * y.T), of_b]
        wanted = [np.array(m.tolist(), dtype=float) for m in wanted]
    f = xp_of(lambda xp, a, b: xp.linalg.solve(a, b))
    found = [nf.jvp(lambda a: f(a, b), (a,), (t,))[1], *nf.vjp(f, a, b)[1](c)]
    for mine, exact in zip(found, wanted, strict=True):
        assert np.linalg.norm(mine - exact) < 4 * np.finfo(float).eps * condition * np.linalg.norm(exact)
