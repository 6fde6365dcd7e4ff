"""Hypergradients of random problems against a dense reference that shares no code with nestfold.

The reference is plain NumPy: a chart of the lower manifold at the answer, gradients by complex steps, Jacobians by
sixth-order differences of those, one dense solve of the implicit function theorem. All data are non-symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nestfold as nf

Array = Any
STENCIL = ((1, 45 / 60), (2, -9 / 60), (3, 1 / 60))
CASES = {
    "euclidean": {"y": ("euclidean", (4,))},
    "sphere": {"y": ("sphere", (4,))},
    "stiefel": {"y": ("stiefel", (4, 2))},
    "spd": {"y": ("spd", (3, 3))},
    "sphere-spd": {"a": ("sphere", (3,)), "b": ("spd", (2, 2))},
    "stiefel-euclidean": {"a": ("stiefel", (3, 2)), "b": ("euclidean", (2,))},
}
OUTER = {"euclidean": {"x": ("euclidean", (3,))}, "tree": {"u": ("stiefel", (3, 2)), "v": ("euclidean", (2,))}}
COMPILED = {("sphere", "euclidean"), ("spd", "tree"), ("stiefel-euclidean", "euclidean")}
EXACT = {"solver": nf.TrustRegion(tol=1e-13), "estimator": nf.Implicit(nf.CG(tol=1e-14))}


# -- the reference --------------------------------------------------------------------------------------
def complex_gradient(f: Callable, t: Array) -> Array:
    """Im f(t + ih eᵢ)/h: exact to rounding for an analytic f."""
    steps = 1e-30j * np.eye(t.size)
    return np.array([np.imag(f(t + step)) for step in steps]) / 1e-30


def differences(f: Callable, t: Array, h: float = 1e-2) -> Array:
    """The Jacobian of f at t, columns by central differences of sixth order."""
    columns = [sum(w * (f(t + k * e) - f(t - k * e)) for k, w in STENCIL) / h for e in h * np.eye(t.size)]
    return np.stack(columns, axis=-1)


def tangent_basis(kind: str, y: Array) -> Array:
    """An orthonormal basis of the tangent space, columns: the unit eigenvectors of the dense projector."""
    parts = []
    for e in np.eye(y.size).reshape((y.size, *y.shape)):
        if kind == "sphere":
            e = e - y * (y @ e)
        elif kind == "stiefel":
            e = e - y @ (y.T @ e + e.T @ y) / 2
        elif kind == "spd":
            e = (e + e.T) / 2
        parts.append(e.ravel())
    values, vectors = np.linalg.eigh(np.stack(parts, axis=-1))
    return vectors[:, values > 0.5]


def chart(kind: str, y: Array) -> tuple[Callable[[Array], Array], int]:
    """`phi, dim`: an analytic parametrisation of the manifold near y = phi(0), and its dimension."""
    basis = tangent_basis(kind, y)

    def phi(t: Array) -> Array:
        u = (basis @ t).reshape(y.shape)
        if kind == "sphere":
            return (y + u) / np.sqrt(np.sum((y + u) ** 2))
        if kind == "stiefel":  # Cayley
            a = u - y @ (y.T @ u) / 2
            skew, eye = (a @ y.T - y @ a.T) / 2, np.eye(len(y))
            return np.linalg.solve(eye - skew, (eye + skew) @ y)
        return y + u

    return phi, basis.shape[1]


def joint_chart(kinds: list[str], ys: list[Array]) -> tuple[Callable[[Array], list[Array]], int]:
    """The chart of a product."""
    charts = [chart(kind, y) for kind, y in zip(kinds, ys, strict=True)]
    cuts = np.cumsum([dim for _, dim in charts])

    def phi(t: Array) -> list[Array]:
        return [one(part) for (one, _), part in zip(charts, np.split(t, cuts[:-1]), strict=True)]

    return phi, int(cuts[-1])


def reference(upper: Callable, lower: Callable, kinds: list[str], x: Array, ys: list[Array]) -> tuple:
    """`F(x), dF/dx, y*` with F = upper(x, y*(x)), x flat; Newton in charts from ys."""
    for _ in range(20):
        phi, dim = joint_chart(kinds, ys)
        zero = np.zeros(dim)

        def equation(t: Array, x: Array = x, phi: Callable = phi) -> Array:
            return complex_gradient(lambda s: lower(x, phi(s)), t)

        hessian = differences(equation, zero)
        step = np.linalg.solve(hessian, equation(zero))
        if np.linalg.norm(step) < 1e-13:
            break
        ys = [np.real(y) for y in phi(-step)]
    mixed = differences(lambda p: equation(zero, p), x)
    through = complex_gradient(lambda s: upper(x, phi(s)), zero)
    direct = complex_gradient(lambda p: upper(p, ys), x)
    return upper(x, ys), direct - mixed.T @ np.linalg.solve(hessian.T, through), ys


def reference_hvp(upper: Callable, lower: Callable, kinds: list[str], x: Array, ys: list[Array], v: Array) -> Array:
    """The Hessian of F times v: differences of the reference gradient."""
    return differences(lambda t: reference(upper, lower, kinds, x + t[0] * v, ys)[1], np.zeros(1), 3e-3)[:, 0]


# -- the problems ---------------------------------------------------------------------------------------
class PlainNumPy:
    """What the costs need, for complex arrays too."""

    tanh, exp, log, sin, sum = np.tanh, np.exp, np.log, np.sin, np.sum
    reshape, concat, linalg = staticmethod(np.reshape), staticmethod(np.concatenate), np.linalg


def make_data(rng: np.random.Generator, size: int, parts: list[tuple[str, tuple]]) -> dict[str, Array]:
    """Non-symmetric matrices for the costs; size is the number of coordinates of x."""
    data = {"M": rng.normal(size=(3, size)) / size**0.5, "N": rng.normal(size=(3, size)) / size**0.5}
    for i, (_, shape) in enumerate(parts):
        n, count = shape[0], int(np.prod(shape))
        data[f"A{i}"] = rng.normal(size=(n, n))
        data[f"B{i}"] = rng.normal(size=(count, 3))
        data[f"C{i}"] = rng.normal(size=(count, count)) / count
        data[f"U{i}"] = rng.normal(size=(3, count)) / count**0.5
        data[f"I{i}"], data[f"d{i}"] = np.eye(n), np.arange(1.0, 1.0 + shape[-1])
    return data


def lower_cost(xp: Any, data: dict, parts: list[tuple[str, tuple]], x: Array, ys: list[Array]) -> Array:
    """A cost on each factor, and for two factors one that couples them; x flat."""
    features, total = xp.tanh(data["M"] @ x), 0.0
    for i, ((kind, shape), y) in enumerate(zip(parts, ys, strict=True)):
        a, v, eye = data[f"A{i}"], xp.reshape(y, (-1,)), data[f"I{i}"]
        b, wave = data[f"B{i}"] @ features, xp.sum(xp.sin(data[f"C{i}"] @ v))
        if kind == "euclidean":
            total = total + 0.5 * xp.sum(v * v) + xp.sum(xp.log(1 + xp.exp(2 * (data[f"C{i}"] @ v) + b)))
        elif kind == "spd":
            c = xp.reshape(b, shape)
            total = total + xp.sum(y * (a @ a.mT + eye + 0.3 * (a - a.mT))) - xp.log(xp.linalg.det(y))
            total = total + xp.sum(xp.linalg.inv(y) * (c @ c.mT + eye + 0.2 * a)) + 0.1 * wave
        else:
            scale = data[f"d{i}"] if kind == "stiefel" else 1.0
            total = total + xp.sum((a @ y) * y * scale) + 2 * xp.sum(b * v) + 0.2 * wave
    if len(ys) == 2:
        first, second = (data[f"U{i}"] @ xp.reshape(y, (-1,)) for i, y in enumerate(ys))
        total = total + 0.3 * xp.sum(first * xp.sin(second))
    return total


def upper_cost(xp: Any, data: dict, x: Array, ys: list[Array]) -> Array:
    """Nonlinear in both."""
    total, p = 0.5 * xp.sum(x * x), data["N"] @ x
    for i, y in enumerate(ys):
        q = data[f"U{i}"] @ xp.reshape(y, (-1,))
        total = total + xp.sum(xp.sin(q) * p) + xp.exp(0.3 * xp.sum(q)) + 0.5 * xp.sum(q * q)
    return total


KINDS = {
    "euclidean": lambda shape: nf.Euclidean(*shape),
    "sphere": lambda shape: nf.Sphere(*shape),
    "stiefel": lambda shape: nf.Stiefel(*shape),
    "spd": lambda shape: nf.SPD(shape[0]),
}


def manifold_of(tree: dict[str, tuple[str, tuple]]) -> nf.Manifold:
    """One manifold, or the product over the dict."""
    factors = {name: KINDS[kind](shape) for name, (kind, shape) in tree.items()}
    return nf.Product(factors) if len(factors) > 1 else next(iter(factors.values()))


def parts_of(tree: Any) -> list[Array]:
    return list(tree.values()) if isinstance(tree, dict) else [tree]


def flat_of(backend: nf.Backend, tree: Any) -> Array:
    return np.concatenate([np.ravel(backend.to_numpy(a)) for a in parts_of(tree)])


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("case", CASES)
def test_random_problem(case, outer, backend, like64, rng):
    if backend.name == "jax" and (case, outer) not in COMPILED:
        pytest.skip("compiling takes seconds: on JAX only the problems in COMPILED")
    lower_parts, outer_parts = list(CASES[case].values()), list(OUTER[outer].values())
    inside, outside = manifold_of(CASES[case]), manifold_of(OUTER[outer])
    x, y = outside.random_point(rng, like=like64), inside.random_point(rng, like=like64)
    v = outside.random_tangent(rng, x)
    plain = make_data(rng, sum(int(np.prod(shape)) for _, shape in outer_parts), lower_parts)
    data = {name: backend.asarray(value, like=like64) for name, value in plain.items()}

    def flatten(xp: Any, x: Any) -> Array:
        return xp.concat([xp.reshape(a, (-1,)) for a in parts_of(x)])

    def lower(x: Any, y: Any) -> Array:
        xp = nf.namespace(*parts_of(x), *parts_of(y))
        return lower_cost(xp, data, lower_parts, flatten(xp, x), parts_of(y))

    def upper(x: Any, y: Any) -> Array:
        xp = nf.namespace(*parts_of(x), *parts_of(y))
        return upper_cost(xp, data, flatten(xp, x), parts_of(y))

    level = nf.Argmin(lower, inside)
    found = nf.hypergradient(nf.Bilevel(upper, outside, level), x, y, **EXACT)
    start = [backend.to_numpy(a) for a in parts_of(found.lower.value)]

    def plain_lower(x: Array, ys: list[Array]) -> Array:
        return lower_cost(PlainNumPy, plain, lower_parts, x, ys)

    def plain_upper(x: Array, ys: list[Array]) -> Array:
        return upper_cost(PlainNumPy, plain, x, ys)

    kinds, flat_x = [kind for kind, _ in lower_parts], flat_of(backend, x)
    value, gradient, ys = reference(plain_upper, plain_lower, kinds, flat_x, start)
    size = np.abs(gradient).max()

    def objective(x: Any) -> Array:
        return upper(x, nf.solve(level, x, init=y, **EXACT).value)

    assert found.adjoint is not None
    assert bool(found.lower.converged) and bool(found.adjoint.converged)
    for ours, theirs in zip(start, ys, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max())
    assert float(backend.to_numpy(found.value)) == pytest.approx(value, rel=1e-12)
    ambient, product = gradient_and_hvp(backend, objective, x, v)
    np.testing.assert_allclose(flat_of(backend, ambient), gradient, rtol=0, atol=1e-8 * size)
    expected = outside.sharp(x, as_tree(backend, outer, gradient, like64))
    np.testing.assert_allclose(flat_of(backend, found.gradient), flat_of(backend, expected), rtol=0, atol=1e-8 * size)
    expected = reference_hvp(plain_upper, plain_lower, kinds, flat_x, ys, flat_of(backend, v))
    np.testing.assert_allclose(flat_of(backend, product), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def gradient_and_hvp(backend: nf.Backend, objective: Callable, x: Any, v: Any) -> tuple:
    """The ambient gradient at x and the product of the Hessian with v: one compilation on JAX."""
    return backend.jit(lambda x, v: nf.jvp(nf.grad(objective), (x,), (v,)))(x, v)


def as_tree(backend: nf.Backend, outer: str, flat: Array, like: Array) -> Any:
    """A flat vector as a point of the outer tree."""
    shapes = {name: shape for name, (_, shape) in OUTER[outer].items()}
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])[:-1]
    parts = [
        backend.asarray(np.reshape(part, shape), like=like)
        for part, shape in zip(np.split(flat, cuts), shapes.values(), strict=True)
    ]
    return dict(zip(shapes, parts, strict=True)) if len(parts) > 1 else parts[0]
