"""The two problems that peers are compared on, and their costs as a user of each framework would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nestfold.backends import get_backend
from nestfold.hypergrad.problems import logistic, synthetic

Cost = Callable[..., Any]


class Case(NamedTuple):
    """A problem in NumPy, the outer variable x, the exact lower answer y and the exact Riemannian hypergradient.

    kind : "logistic" or "synthetic" · step : 2/(h_min + h_max), h the eigenvalues of the lower Hessian in the metric,
    of the fixed-point series · arrays : those of each framework, made once, as where they lie makes a difference.
    """

    kind: str
    size: str
    problem: Any
    data: tuple[Any, ...]
    x: Any
    y: Any
    exact: Any
    step: float
    arrays: dict[str, tuple[Any, ...]]


def make_logistic(rows: int, columns: int) -> Case:
    problem = logistic(like=np.zeros(1), n=rows, p=columns)
    x, _ = problem.start(np.random.default_rng(1))
    y = problem.solution(x)
    spectrum = np.linalg.eigvalsh(problem.matrix(x, y))
    data = (problem.features, problem.labels, problem.held_out, problem.goals)
    step = float(2 / (spectrum[0] + spectrum[-1]))
    return Case("logistic", f"{rows}x{columns}", problem, data, x, y, problem.euclidean_gradient(x), step, {})


def make_synthetic(d: int) -> Case:
    r = {10: 5, 50: 20, 100: 40, 200: 50}.get(d, max(1, 2 * d // 5))
    problem = synthetic(like=np.zeros(1), d=d, r=r, n=max(100, 2 * d))
    w, _ = problem.start(np.random.default_rng(1))
    m = problem.solution(w)
    ambient = problem.euclidean_gradient(w)
    lean = w.T @ ambient
    spectrum = np.linalg.eigvalsh(2 * np.linalg.cholesky(m).T @ problem.a @ np.linalg.cholesky(m))  # M A M = B
    data = (problem.a, problem.c, problem.k, problem.nu)
    step = float(2 / (spectrum[0] + spectrum[-1]))
    return Case("synthetic", f"d={d}", problem, data, w, m, ambient - w @ (lean + lean.T) / 2, step, {})


def make_case(name: str) -> Case:
    """`500x100` is a logistic regression of so many rows and columns, `50` the synthetic problem of that d."""
    return make_logistic(*map(int, name.split("x"))) if "x" in name else make_synthetic(int(name))


def moved(framework: str, case: Case) -> tuple[tuple[Any, ...], Any, Any]:
    """`data, x, y` as arrays of a framework."""
    if framework not in case.arrays:
        there = get_backend(framework).asarray
        data = tuple(there(np.ascontiguousarray(a)) if np.ndim(a) else a for a in case.data)
        case.arrays[framework] = data, there(case.x), there(case.y)
    return case.arrays[framework]  # type: ignore[return-value]


def costs(framework: str, kind: str, data: tuple[Any, ...]) -> tuple[Cost, Cost]:
    """`upper(x, y), lower(x, y)` in plain code of the framework."""
    return (_logistic if kind == "logistic" else _synthetic)(framework, data)


def entrywise(framework: str) -> tuple[Any, Any]:
    """The framework's namespace, and its log(1 + exp z); "autograd" is HIPS autograd's NumPy."""
    if framework == "torch":
        import torch

        return torch, torch.nn.functional.softplus
    if framework == "jax":
        import jax

        return jax.numpy, jax.nn.softplus
    if framework == "autograd":
        import autograd.numpy

        return autograd.numpy, lambda z: autograd.numpy.logaddexp(0.0, z)
    return np, lambda z: np.logaddexp(0.0, z)


def _logistic(framework: str, data: tuple[Any, ...]) -> tuple[Cost, Cost]:
    features, labels, held_out, goals = data
    xp, softplus = entrywise(framework)

    def upper(x: Any, w: Any) -> Any:
        return xp.mean(softplus(-goals * (held_out @ w)))

    def lower(x: Any, w: Any) -> Any:
        return xp.mean(softplus(-labels * (features @ w))) + xp.sum(xp.exp(x) * w * w) / 2

    return upper, lower


def _synthetic(framework: str, data: tuple[Any, ...]) -> tuple[Cost, Cost]:
    a, c, k, nu = data
    xp, _ = entrywise(framework)

    def upper(w: Any, m: Any) -> Any:
        return -xp.sum((m @ c) * w)

    def lower(w: Any, m: Any) -> Any:
        b = w @ (k @ w.T) + nu * xp.eye(len(a), dtype=a.dtype)
        return xp.sum(m * a + xp.linalg.inv(m) * b)

    return upper, lower


def relative_error(case: Case, gradient: Any) -> float:
    """Of a Riemannian hypergradient."""
    gradient = get_backend("torch").to_numpy(gradient) if type(gradient).__module__ == "torch" else np.asarray(gradient)
    return float(np.linalg.norm(gradient - case.exact) / np.linalg.norm(case.exact))
