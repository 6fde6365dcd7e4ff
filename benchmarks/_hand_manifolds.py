"""Manifold operations by hand, for one framework at a time: what an expert writes who needs values alone.

`codes(np)` takes NumPy, PyTorch or `jax.numpy` and returns name -> operation -> function. The arguments are those
of nestfold's methods, with one leading axis. No care is taken of derivatives at special points, of points that
coincide or of symmetry lost to rounding: that is what the comparison is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Code = dict[str, Callable[..., Any]]


def codes(np: Any) -> dict[str, Code]:
    """Operations by manifold."""
    return {
        "sphere": sphere(np),
        "SPD": spd(np),
        "Stiefel": stiefel(np),
        "Grassmann": grassmann(np),
        "ball": ball(np),
        "simplex": simplex(np),
        "rotations": rotations(np),
        "oblique": oblique(np),
        "Lorentz": lorentz(np),
        "positive": positive(np),
        "couplings": couplings(np),
    }


def dots(a: Any, b: Any) -> Any:
    """Row by row."""
    return (a * b).sum(-1)[..., None]


def sphere(np: Any) -> Code:
    def exp(x: Any, u: Any) -> Any:
        r = np.sqrt(dots(u, u))
        return np.cos(r) * x + (np.sin(r) / r) * u

    def log(x: Any, y: Any) -> Any:
        c = dots(x, y)
        t = y - c * x
        s = np.sqrt(dots(t, t))
        return (np.arctan2(s, c) / s) * t

    def dist(x: Any, y: Any) -> Any:
        d, s = x - y, x + y
        return 2 * np.arctan2(np.sqrt((d * d).sum(-1)), np.sqrt((s * s).sum(-1)))

    def transport(x: Any, y: Any, u: Any) -> Any:
        m = x + y
        return u - (2 * dots(m, u) / dots(m, m)) * m

    def retract(x: Any, u: Any) -> Any:
        a = x + u
        return a / np.sqrt(dots(a, a))

    return {
        **{"exp": exp, "log": log, "dist": dist, "parallel_transport": transport, "retract": retract},
        "project": lambda x, a: a - dots(x, a) * x,
        "inner": lambda x, u, v: (u * v).sum(-1),
    }


def oblique(np: Any) -> Code:
    def columns(a: Any, b: Any) -> Any:
        return (a * b).sum(-2)[..., None, :]

    def exp(x: Any, u: Any) -> Any:
        r = np.sqrt(columns(u, u))
        return np.cos(r) * x + (np.sin(r) / r) * u

    def log(x: Any, y: Any) -> Any:
        c = columns(x, y)
        t = y - c * x
        s = np.sqrt(columns(t, t))
        return (np.arctan2(s, c) / s) * t

    def dist(x: Any, y: Any) -> Any:
        d, s = x - y, x + y
        angles = 2 * np.arctan2(np.sqrt((d * d).sum(-2)), np.sqrt((s * s).sum(-2)))
        return np.sqrt((angles * angles).sum(-1))

    def transport(x: Any, y: Any, u: Any) -> Any:
        m = x + y
        return u - (2 * columns(m, u) / columns(m, m)) * m

    def retract(x: Any, u: Any) -> Any:
        a = x + u
        return a / np.sqrt(columns(a, a))

    return {
        **{"exp": exp, "log": log, "dist": dist, "parallel_transport": transport, "retract": retract},
        "project": lambda x, a: a - columns(x, a) * x,
        "inner": lambda x, u, v: (u * v).sum((-2, -1)),
    }


def spd(np: Any) -> Code:
    linalg = np.linalg

    def apply(l: Any, s: Any, function: Callable[[Any], Any]) -> Any:
        values, vectors = linalg.eigh(s)
        half = l @ vectors
        return (half * function(values)[..., None, :]) @ half.mT

    def white(x: Any, u: Any) -> tuple[Any, Any]:
        l = linalg.cholesky(x)
        inverse = linalg.inv(l)
        return l, inverse @ u @ inverse.mT

    def dist(x: Any, y: Any) -> Any:
        logs = np.log(linalg.eigvalsh(white(x, y)[1]))
        return np.sqrt((logs * logs).sum(-1))

    def transport(x: Any, y: Any, u: Any) -> Any:
        l = linalg.cholesky(x)
        inverse = linalg.inv(l)
        e = apply_to(l, inverse @ y @ inverse.mT) @ inverse
        return e @ u @ e.mT

    def apply_to(l: Any, s: Any) -> Any:
        values, vectors = linalg.eigh(s)
        return ((l @ vectors) * np.sqrt(values)[..., None, :]) @ vectors.mT

    def inner(x: Any, u: Any, v: Any) -> Any:
        return (linalg.solve(x, u) * linalg.solve(x, v).mT).sum((-2, -1))

    return {
        "exp": lambda x, u: apply(*white(x, u), np.exp),
        "log": lambda x, y: apply(*white(x, y), np.log),
        "dist": dist,
        "parallel_transport": transport,
        "retract": lambda x, u: x + u + 0.5 * (u @ linalg.solve(x, u)),
        "project": lambda x, a: 0.5 * (a + a.mT),
        "inner": inner,
    }


def stiefel(np: Any) -> Code:
    def project(x: Any, a: Any) -> Any:
        m = x.mT @ a
        return a - x @ (0.5 * (m + m.mT))

    def retract(x: Any, u: Any) -> Any:
        q, r = np.linalg.qr(x + u)
        return q * np.sign(np.diagonal(r, 0, -2, -1))[..., None, :]

    return {"project": project, "retract": retract, "inner": lambda x, u, v: (u * v).sum((-2, -1))}


def grassmann(np: Any) -> Code:
    def svd(a: Any) -> Any:
        return np.linalg.svd(a, full_matrices=False)

    def exp(x: Any, u: Any) -> Any:
        left, s, right = svd(u)
        return ((x @ right.mT) * np.cos(s)[..., None, :] + left * np.sin(s)[..., None, :]) @ right

    def log(x: Any, y: Any) -> Any:
        m = x.mT @ y
        left, s, right = svd((y - x @ m) @ np.linalg.inv(m))
        return (left * np.arctan(s)[..., None, :]) @ right

    def dist(x: Any, y: Any) -> Any:
        m = x.mT @ y
        sines, cosines = np.linalg.svdvals(y - x @ m), np.linalg.svdvals(m)
        angles = np.arctan2(np.flip(sines, (-1,)), cosines)
        return np.sqrt((angles * angles).sum(-1))

    return {"exp": exp, "log": log, "dist": dist, "project": lambda x, a: a - x @ (x.mT @ a)}


def ball(np: Any) -> Code:
    """Curvature -1."""

    def add(x: Any, y: Any) -> Any:
        xy, xx, yy = dots(x, y), dots(x, x), dots(y, y)
        return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)

    def exp(x: Any, u: Any) -> Any:
        r = np.sqrt(dots(u, u))
        return add(x, (np.tanh(r / (1 - dots(x, x))) / r) * u)

    def log(x: Any, y: Any) -> Any:
        m = add(-x, y)
        r = np.sqrt(dots(m, m))
        return ((1 - dots(x, x)) * np.arctanh(r) / r) * m

    def dist(x: Any, y: Any) -> Any:
        d = x - y
        below = (1 - (x * x).sum(-1)) * (1 - (y * y).sum(-1))
        return 2 * np.arcsinh(np.sqrt((d * d).sum(-1) / below))

    return {
        "exp": exp,
        "log": log,
        "dist": dist,
        "inner": lambda x, u, v: 4 * (u * v).sum(-1) / (1 - (x * x).sum(-1)) ** 2,
    }


def simplex(np: Any) -> Code:
    def dist(x: Any, y: Any) -> Any:
        a, b = np.sqrt(x), np.sqrt(y)
        d, s = a - b, a + b
        return 4 * np.arctan2(np.sqrt((d * d).sum(-1)), np.sqrt((s * s).sum(-1)))

    def retract(x: Any, u: Any) -> Any:
        a = x * np.exp(u / x)
        return a / a.sum(-1)[..., None]

    return {"dist": dist, "retract": retract, "inner": lambda x, u, v: (u * v / x).sum(-1)}


def rotations(np: Any) -> Code:
    """By the framework's own matrix exponential, where it has one for batches."""

    def project(x: Any, a: Any) -> Any:
        m = x.mT @ a
        return x @ (0.5 * (m - m.mT))

    found: Code = {"project": project}
    if np.__name__ == "torch":
        found["exp"] = lambda x, u: x @ np.linalg.matrix_exp(x.mT @ u)
    elif np.__name__ == "jax.numpy":
        import jax

        found["exp"] = lambda x, u: x @ jax.scipy.linalg.expm(x.mT @ u)
    else:
        import scipy.linalg

        found["exp"] = lambda x, u: x @ scipy.linalg.expm(x.mT @ u)
    return found


def lorentz(np: Any) -> Code:
    """Curvature -1."""

    def inner(a: Any, b: Any) -> Any:
        return (a * b).sum(-1) - 2 * a[..., 0] * b[..., 0]

    def exp(x: Any, u: Any) -> Any:
        r = np.sqrt(inner(u, u))[..., None]
        return np.cosh(r) * x + (np.sinh(r) / r) * u

    def log(x: Any, y: Any) -> Any:
        c = -inner(x, y)[..., None]
        return (np.arccosh(c) / np.sqrt(c * c - 1)) * (y - c * x)

    def transport(x: Any, y: Any, u: Any) -> Any:
        return u + (inner(y, u) / (1 - inner(x, y)))[..., None] * (x + y)

    return {
        **{"exp": exp, "log": log, "parallel_transport": transport},
        "dist": lambda x, y: np.arccosh(-inner(x, y)),
        "inner": lambda x, u, v: inner(u, v),
    }


def positive(np: Any) -> Code:
    def dist(x: Any, y: Any) -> Any:
        logs = np.log(y / x)
        return np.sqrt((logs * logs).sum(-1))

    return {
        **{"dist": dist, "exp": lambda x, u: x * np.exp(u / x), "log": lambda x, y: x * np.log(y / x)},
        "parallel_transport": lambda x, y, u: u * (y / x),
        "inner": lambda x, u, v: (u * v / (x * x)).sum(-1),
    }


def couplings(np: Any) -> Code:
    """Doubly stochastic matrices; Sinkhorn's iteration, until nothing moves."""

    def sweep(x: Any) -> Any:
        x = x / x.sum(-2)[..., None, :]
        return x / x.sum(-1)[..., None]

    def error(x: Any) -> Any:
        return abs(x.sum(-2) - 1).max()

    def retract(x: Any, u: Any) -> Any:
        y = x * np.exp(u / x)
        if np.__name__ == "jax.numpy":
            import jax

            return jax.lax.while_loop(lambda y: error(y) > 1e-14, sweep, y)
        while error(y) > 1e-14:
            y = sweep(y)
        return y

    return {"retract": retract, "inner": lambda x, u, v: (u * v / x).sum((-2, -1))}
