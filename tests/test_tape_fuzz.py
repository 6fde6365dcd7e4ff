"""Random programs on the tape and on PyTorch: value and derivatives of order one to three, by every mix of modes.

A program is a few random arrays and a list of random steps, each a function of values that were there before. A step is
taken only where the numbers stay moderate and away from kinks and branch cuts, so that both libraries mean the same.
"""

from __future__ import annotations

import math
import warnings

import array_api_compat.numpy as compat
import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import get_backend

torch = pytest.importorskip("torch")


# -- steps: name -> function of (xp, arrays) -----------------------------------------------------------
def is_complex(x):
    return "complex" in str(x.dtype)


def real(xp, x):
    return xp.real(x) if is_complex(x) else x


def adjoint(xp, x):
    return xp.conj(xp.matrix_transpose(x)) if is_complex(x) else xp.matrix_transpose(x)


def positive(xp, x, shift=0.7):
    """X Xᴴ + shift."""
    product = x @ adjoint(xp, x)
    return product + shift * xp.eye(product.shape[-1], dtype=product.dtype)


def with_values(xp, left, values, right):
    """left diag(values) right."""
    values = values[..., None, :]
    return (left * (xp.astype(values, left.dtype) if is_complex(left) else values)) @ right


def simple(xp, x):
    """A real matrix without repeated eigenvalues, for which PyTorch gives NaN; complex ones it suspects of phases."""
    x = real(xp, x)
    return positive(xp, x if x.shape[-2] <= x.shape[-1] else xp.matrix_transpose(x))


def of_eigenvalues(xp, x):
    values, q = xp.linalg.eigh(simple(xp, x))
    return with_values(xp, q, xp.sin(values), adjoint(xp, q))


def of_singular_values(xp, x):
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    return with_values(xp, u, xp.log(1 + s * s), vh)


def scaled(name, factor):
    return lambda xp, x: getattr(xp, name)(factor * x)


REAL = {
    "acos": lambda xp, x: xp.acos(0.6 * xp.sin(0.5 * x)),
    "acosh": lambda xp, x: xp.acosh(1.3 + x * x),
    "asin": lambda xp, x: xp.asin(0.6 * xp.sin(0.5 * x)),
    "atanh": lambda xp, x: xp.atanh(0.5 * xp.sin(x)),
    "log": lambda xp, x: xp.log(1.2 + x * x),
    "log1p": lambda xp, x: xp.log1p(0.3 * x * x),
    "log2": lambda xp, x: xp.log2(1.5 + x * x),
    "reciprocal": lambda xp, x: xp.reciprocal(1.5 + x * x),
    "sqrt": lambda xp, x: xp.sqrt(0.7 + x * x),
    "powers": lambda xp, x: 0.3 * x**3 + x**2 + x**0 + (0.8 + x * x) ** 0.5 + (1.7 + x * x) ** -1,
    "numbers": lambda xp, x: 2 / (1.4 + x * x) - (1 - x) + 1.3**x,
    "to complex": lambda xp, x: x * (0.8 + 0.6j) + 0.5j / (2 + x * x),
    "inner hvp": lambda xp, x: nf.hvp(lambda y: xp.sum(y**3 * x), (0.3 * x,), (xp.sin(x),)),
}
KINKS = {  # where they are
    "abs": (lambda xp, x: xp.abs(x), lambda x: x),
    "clip": (lambda xp, x: xp.clip(x, -0.7, 0.9), lambda x: np.minimum(abs(x + 0.7), abs(x - 0.9))),
    "floor": (lambda xp, x: x * xp.floor(x), lambda x: x - np.round(x)),
    "round": (lambda xp, x: x * xp.round(x), lambda x: x - np.floor(x) - 0.5),
    "remainder": (lambda xp, x: xp.remainder(x, 1.7), lambda x: x / 1.7 - np.round(x / 1.7)),
    "sign": (lambda xp, x: xp.sign(x) * xp.square(x), lambda x: x),
    "where": (lambda xp, x: xp.where(x > 0.1, x * x, xp.sin(x)), lambda x: x - 0.1),
}
SCALED = {
    "asinh": 0.15, "atan": 0.15, "cos": 0.4, "cosh": 0.3, "exp": 0.3, "expm1": 0.3, "sin": 0.4, "sinh": 0.3,
    "square": 1.0, "tan": 0.2, "tanh": 0.2,
}  # fmt: skip
BOTH = {
    **{name: scaled(name, factor) for name, factor in SCALED.items()},
    "negative": lambda xp, x: -x + 2,
    "stopped": lambda xp, x: x * nf.stop_gradient(x),
    "checkpoint": lambda xp, x: nf.checkpoint(lambda y: xp.sin(0.3 * y) * y)(x),
    "inner grad": lambda xp, x: nf.grad(lambda y: xp.sum(real(xp, xp.sin(0.3 * y) * xp.conj(x))))(0.5 * x),
    "inner jvp": lambda xp, x: nf.jvp(lambda y: y * xp.conj(y) * x, (xp.cos(0.3 * x),), (x,))[1],
}
COMPLEX = {
    "abs": lambda xp, x: xp.abs(x),
    "acosh": lambda xp, x: xp.acosh(6 + 0.2 * x),
    "asin": lambda xp, x: xp.asin(0.1 * xp.sin(0.1 * x) + 0.1j),
    "atan2": lambda xp, x: xp.atan2(xp.imag(x), 1.5 + xp.real(x) ** 2),
    "conj": lambda xp, x: xp.conj(x),
    "imag": lambda xp, x: xp.imag(x),
    "log": lambda xp, x: xp.log(40 + x),
    "powers": lambda xp, x: (40 + x) ** (0.3 + 0.2j) + (40 + x) ** 0.5 + (1 + 0.5j) ** (0.2 * x),
    "reciprocal": lambda xp, x: 2j / (40 + x),
    "sign": lambda xp, x: xp.sign(x),
    "sqrt": lambda xp, x: xp.sqrt(40 + x),
}
PAIRS = {
    "add": lambda xp, x, y: x + y,
    "divide": lambda xp, x, y: x / (2.5 + real(xp, xp.conj(y) * y)),
    "multiply": lambda xp, x, y: x * y,
    "subtract": lambda xp, x, y: x - y,
}
REAL_PAIRS = {
    "atan2": lambda xp, x, y: xp.atan2(x, 1 + y * y),
    "complex": lambda xp, x, y: x + 1j * y,
    "hypot": lambda xp, x, y: xp.hypot(x, 1 + y * y),
    "logaddexp": lambda xp, x, y: xp.logaddexp(x, y),
    "maximum": lambda xp, x, y: xp.maximum(x, y + 0.01) + xp.minimum(x - 0.01, y),
    "pow": lambda xp, x, y: xp.pow(1.2 + x * x, 0.3 * y),
}
MATRICES = {
    "cholesky": lambda xp, x: xp.linalg.cholesky(positive(xp, x)),
    "det": lambda xp, x: xp.linalg.det(positive(xp, 0.5 * x, 0.3)),
    "eigh": of_eigenvalues,
    "eigvalsh": lambda xp, x: xp.linalg.eigvalsh(simple(xp, x)),
    "einsum": lambda xp, x: xp.einsum("...ij,...kj->...ik", x, x),
    "gram": lambda xp, x: adjoint(xp, x) @ x,
    "inv": lambda xp, x: xp.linalg.inv(positive(xp, x)),
    "norms": lambda xp, x: xp.linalg.matrix_norm(x + 0.3) + xp.linalg.matrix_norm(x, ord="nuc"),
    "pinv": lambda xp, x: xp.linalg.pinv(x),
    "power": lambda xp, x: xp.linalg.matrix_power(0.3 * positive(xp, x), 3),
    "qr": lambda xp, x: xp.abs(xp.linalg.qr(positive(xp, x))[1] + 40),
    "slogdet": lambda xp, x: xp.linalg.slogdet(positive(xp, x))[1],
    "solve": lambda xp, x: xp.linalg.solve(positive(xp, x), x),
    "svd": of_singular_values,
    "trace": lambda xp, x: xp.linalg.trace(x),
    "triangles": lambda xp, x: xp.tril(x) + 2 * xp.triu(x, k=1),
}


def arrangement(rng, x):
    """A random function that moves, adds or multiplies the entries of such an array; or None."""
    n, size, axis = x.ndim, x.size, int(rng.integers(-x.ndim, x.ndim)) if x.ndim else None
    if axis is None or not size:
        return "reshape", lambda xp, x: xp.reshape(x, (-1, 1))
    to, keep, order = int(rng.integers(-n, n)), bool(rng.random() < 0.5), tuple(map(int, rng.permutation(n)))
    mask, places = rng.random(x.shape) < 0.6, rng.integers(0, x.shape[axis], x.shape)
    which = (None, axis, order[: int(rng.integers(1, n + 1))])[rng.integers(3)]
    gaps = np.diff(np.sort(x.real, axis=None))
    ways = {
        "along": lambda xp, x: xp.take_along_axis(x, xp.asarray(places), axis=axis),
        "concat": lambda xp, x: xp.concat([x, 2.0 * x, xp.sin(0.1 * x)], axis=axis),
        "cumulative": lambda xp, x: xp.cumulative_sum(x, axis=axis, include_initial=keep),
        "cumulative prod": lambda xp, x: xp.cumulative_prod(x, axis=axis, include_initial=keep),
        "diff": lambda xp, x: xp.diff(x, axis=axis),
        "fft": lambda xp, x: xp.fft.fft(x + 0j, axis=axis),
        "flip": lambda xp, x: xp.flip(x, axis=axis),
        "irfft": lambda xp, x: xp.fft.irfft(x + 0j, n=5, axis=axis),
        "index": lambda xp, x: x[(slice(None), -1)[n < 2], ..., None],
        "mask": lambda xp, x: x[xp.asarray(mask)],
        "mean": lambda xp, x: xp.mean(x, axis=which, keepdims=keep),
        "moveaxis": lambda xp, x: xp.moveaxis(x, axis, to),
        "permute": lambda xp, x: xp.permute_dims(x, order),
        "prod": lambda xp, x: xp.prod(x, axis=which, keepdims=keep),
        "repeat": lambda xp, x: xp.repeat(x, 2, axis=axis),
        "reshape": lambda xp, x: xp.reshape(x, (-1, x.shape[axis])),
        "roll": lambda xp, x: xp.roll(x, 2, axis=axis),
        "slices": lambda xp, x: x[(slice(None, None, 2),) * n],
        "stack": lambda xp, x: xp.stack([x, 3 - x], axis=axis),
        "sum": lambda xp, x: xp.sum(x, axis=which, keepdims=keep),
        "tensordot": lambda xp, x: xp.tensordot(x, x + 1, axes=((axis,), (axis,))),
        "tile": lambda xp, x: xp.tile(x, (2,) * n),
        "vecdot": lambda xp, x: xp.vecdot(x, 2 * x + 1, axis=-1),
    }
    if x.dtype.kind == "f" and bool(np.all(np.asarray(gaps, dtype=float) > 1e-2)):
        ways["max"] = lambda xp, x: xp.max(x, axis=which, keepdims=keep)
        ways["sort"] = lambda xp, x: xp.sort(x, axis=axis, descending=keep)
        ways["var"] = lambda xp, x: xp.var(x + 1, axis=which, keepdims=keep)
    name = str(rng.choice(sorted(ways)))
    return name, ways[name]


# -- programs --------------------------------------------------------------------------------------------
class Program:
    """Random arrays, random steps, and a real number made of all values that no later step takes."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.inputs = [self.start() for _ in range(rng.integers(1, 4))]
        self.steps, self.names, pool = [], [], list(self.inputs)
        while len(self.steps) < 7:
            found = self.draw(pool)
            if found is None:
                continue
            name, f, *where = found
            y = self.attempt(f, [pool[i] for i in where])
            if y is not None:
                self.steps.append((f, where))
                self.names.append(f"{name}{tuple(where)} -> {y.dtype.name}{y.shape}")
                pool.append(y)
        self.weights = [self.like(v) for v in pool]
        self.directions = [tuple(map(self.like, self.inputs)) for _ in range(2)]

    def start(self):
        shape = tuple(
            map(int, self.rng.choice([0, 1, 2, 3, 4], size=self.rng.integers(0, 4), p=[0.02, 0.2, 0.3, 0.3, 0.18]))
        )
        x = self.like(np.zeros(shape[-2:] if math.prod(shape) > 24 else shape))
        return np.asarray(x + 1j * self.like(x)) if self.rng.random() < 0.35 else x

    def like(self, x):
        r = self.rng.standard_normal(x.shape)
        return np.asarray(r + 1j * self.rng.standard_normal(x.shape) if x.dtype.kind == "c" else r)

    def attempt(self, f, values):
        """The value, if it is one to go on with."""
        with np.errstate(all="ignore"):
            try:
                y = np.asarray(f(compat, *values))
            except (ValueError, np.linalg.LinAlgError):
                return None
        small = y.size <= 60 and y.ndim <= 4 and np.max(np.abs(y), initial=0) < 30
        return y if small and np.all(np.isfinite(y)) else None

    def draw(self, pool):
        rng = self.rng
        i, j = (int(rng.integers(len(pool))) for _ in range(2))
        x, kind = pool[i], rng.random()
        if kind < 0.25:
            return (*arrangement(rng, x), i)
        if kind < 0.55:
            return self.elementwise(x, i)
        if kind < 0.75:
            pair = pool[i].dtype.kind + pool[j].dtype.kind
            name, f = self.pick(PAIRS | REAL_PAIRS if pair == "ff" else PAIRS)
            near = (
                pair == "ff"
                and x.size
                and pool[j].size
                and x.shape == pool[j].shape
                and np.min(abs(x - pool[j])) < 0.05
            )
            return None if near and name == "maximum" else (name, f, i, j)
        if kind < 0.8 and x.dtype == pool[j].dtype and x.ndim and pool[j].ndim:
            return "matmul", lambda xp, a, b: a @ b, i, j
        if x.ndim < 2 or not x.size:
            return None
        s = np.linalg.svd(x, compute_uv=False)
        return (*self.pick(MATRICES), i) if np.min(s) > 0.1 and np.min(-np.diff(s), initial=1) > 0.05 else None

    def elementwise(self, x, i):
        if x.dtype.kind == "c":
            return (*self.pick(BOTH | COMPLEX), i) if np.min(abs(x), initial=1) > 0.05 else None
        if self.rng.random() < 0.3:
            name, (f, distance) = self.pick(KINKS)
            return (name, f, i) if np.min(abs(distance(x)), initial=1) > 1e-2 else None
        return (*self.pick(BOTH | REAL), i)

    def pick(self, table):
        name = str(self.rng.choice(sorted(table)))
        return name, table[name]

    def __call__(self, *inputs):
        xp, pool = nf.namespace(*inputs), list(inputs)
        for f, where in self.steps:
            pool.append(f(xp, *[pool[i] for i in where]))
        used = {i for _, where in self.steps for i in where}
        total = xp.sum(0.1 * real(xp, pool[0]))
        for k, (y, w) in enumerate(zip(pool, self.weights, strict=True)):
            if k not in used:
                total = total + xp.sum(xp.sin(0.2 * real(xp, y * xp.asarray(w))))
        return total


# -- what is compared -----------------------------------------------------------------------------------
def derivatives(f, x, t, u):
    """The value and derivatives of order one to three, forwards, backwards and mixed."""
    everywhere = tuple(range(len(x)))
    gradient = nf.grad(f, everywhere)

    def pairing(a):
        parts = [(nf.namespace(v), v, w) for v, w in zip(a, t, strict=True)]
        return sum(xp.sum(real(xp, xp.conj(v) * w)) for xp, v, w in parts)

    def product(*x):
        return nf.jvp(gradient, x, t)[1]

    return {
        "value": (f(*x),),
        "gradient": gradient(*x),
        "forward": (nf.jvp(f, x, t)[1],),
        "forward over reverse": product(*x),
        "reverse over reverse": nf.grad(lambda *x: pairing(gradient(*x)), everywhere)(*x),
        "reverse over forward": nf.grad(lambda *x: nf.jvp(f, x, t)[1], everywhere)(*x),
        "third": nf.jvp(product, x, u)[1],
    }


def compare(seed):
    program = Program(seed)
    mine = derivatives(program, tuple(program.inputs), *program.directions)
    with warnings.catch_warnings():  # PyTorch's own, of complex numbers made real
        warnings.simplefilter("ignore")
        lifted = [tuple(torch.from_numpy(v.copy()) for v in vs) for vs in (program.inputs, *program.directions)]
        theirs = derivatives(program, *lifted)
    to_numpy = get_backend("torch").to_numpy
    for what, expected in theirs.items():
        expected = [to_numpy(v) for v in expected]
        scale = 1 + max(np.max(np.abs(v), initial=0) for v in expected)
        for found, v in zip(mine[what], expected, strict=True):
            assert found.shape == v.shape and found.dtype == v.dtype, (what, program.names)
            assert np.all(np.abs(found - v) <= 1e-9 * scale), (what, program.names)


@pytest.mark.parametrize("seed", range(300))
def test_random_programs_agree_with_pytorch(seed):
    compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 3000))
def test_more_random_programs_agree_with_pytorch(seed):
    compare(seed)
