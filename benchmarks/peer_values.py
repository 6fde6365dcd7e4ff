"""The largest relative errors of nestfold, geoopt, pymanopt, geomstats and pyriemann, against 50 digits of mpmath.

Each row is one operation at one kind of points; each number is the largest error over `COUNT` samples, relative to the
result's norm (absolute where that is 0). Rows at other than usual points are printed where two libraries differ by a
factor of 100; `--all` prints all. All see the same arrays, rounded to the dtype; the reference is computed from
the rounded arrays, so that what counts is what the library adds. Points of spheres and subspaces are then normalized
in 50 digits. A dash: the library lacks the operation, or it is something else by that name (a projection called
transport). See docs/peers_checked.md. Run it where the four libraries and PyTorch are installed:

    python benchmarks/peer_values.py
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["GEOMSTATS_BACKEND"] = "numpy"

import mpmath
import numpy as np

import nestfold as nf

mp = mpmath.mp
COUNT = 20
LIBRARIES = ("nestfold", "geoopt", "pymanopt", "geomstats", "pyriemann")
#: how far y is from x; near: 1e-6 in float64, 1e-3 in float32
PLACES = {"x = y": 0.0, "near": 1e-6, "usual": 1.0, "far": float("inf")}
FAR = {"sphere": np.pi - 1e-3, "SPD": 12.0, "ball": 14.0, "Grassmann": np.pi / 2 - 1e-3}
Vector = Any
Operations = dict[str, Callable[..., Any]]


# -- references: matrices of mpmath ---------------------------------------------------------------------------
def exact(a: Any) -> Any:
    return mpmath.matrix(np.asarray(a, dtype=np.float64).tolist())


def norm(a: Any) -> Any:
    return mpmath.sqrt(sum((e * e for e in a), mpmath.mpf(0)))


def pair(a: Any, b: Any) -> Any:
    return sum((p * q for p, q in zip(a, b, strict=True)), mpmath.mpf(0))


def ratio(top: Any, bottom: Any) -> Any:
    """top/bottom; 1 for 0/0."""
    return top / bottom if bottom else mpmath.mpf(1)


def sphere() -> Operations:
    def unit(x: Any) -> Any:
        return x / norm(x)

    def tangent(x: Any, u: Any) -> Any:
        return u - pair(unit(x), u) * unit(x)

    def dist(x: Any, y: Any) -> Any:
        x, y = unit(x), unit(y)
        return 2 * mpmath.atan2(norm(x - y), norm(x + y))

    def exp(x: Any, u: Any) -> Any:
        x, u = unit(x), tangent(x, u)
        return mpmath.cos(norm(u)) * x + ratio(mpmath.sin(norm(u)), norm(u)) * u

    def log(x: Any, y: Any) -> Any:
        angle, y = dist(x, y), unit(y)
        return ratio(angle, mpmath.sin(angle)) * tangent(x, y)

    def transport(x: Any, y: Any, u: Any) -> Any:
        x, y, u = unit(x), unit(y), tangent(x, u)
        return u - pair(y, u) / (1 + pair(x, y)) * (x + y)

    return {"inner": lambda x, u, v: pair(u, v), "exp": exp, "log": log, "dist": dist, "transport": transport}


def ball() -> Operations:
    def plus(x: Any, y: Any) -> Any:
        xy, xx, yy = pair(x, y), pair(x, x), pair(y, y)
        return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)

    def dist(x: Any, y: Any) -> Any:
        return 2 * mpmath.atanh(norm(plus(-x, y)))

    def exp(x: Any, u: Any) -> Any:
        half = norm(u) / (1 - pair(x, x))
        return plus(x, ratio(mpmath.tanh(half), norm(u)) * u)

    def log(x: Any, y: Any) -> Any:
        v = plus(-x, y)
        return (1 - pair(x, x)) * ratio(mpmath.atanh(norm(v)), norm(v)) * v

    def transport(x: Any, y: Any, u: Any) -> Any:
        # gyr[y, -x] u, of the small vector u/1e30 so that the gyration applies to points of the ball
        small = u / mpmath.mpf(10) ** 30
        turned = plus(-plus(y, -x), plus(y, plus(-x, small))) * mpmath.mpf(10) ** 30
        return (1 - pair(y, y)) / (1 - pair(x, x)) * turned

    def inner(x: Any, u: Any, v: Any) -> Any:
        return 4 * pair(u, v) / (1 - pair(x, x)) ** 2

    return {"inner": inner, "exp": exp, "log": log, "dist": dist, "transport": transport}


def function_of(a: Any, f: Callable[[Any], Any]) -> Any:
    values, vectors = mpmath.eigsy((a + a.T) / 2)
    return vectors * mpmath.diag([f(e) for e in values]) * vectors.T


def spd() -> Operations:
    def middle(x: Any, y: Any) -> tuple[Any, Any, Any]:
        root, inverse = function_of(x, mpmath.sqrt), function_of(x, lambda e: 1 / mpmath.sqrt(e))
        return root, inverse, inverse * y * inverse

    def exp(x: Any, u: Any) -> Any:
        root, _, m = middle(x, u)
        return root * function_of(m, mpmath.exp) * root

    def log(x: Any, y: Any) -> Any:
        root, _, m = middle(x, y)
        return root * function_of(m, mpmath.log) * root

    def transport(x: Any, y: Any, u: Any) -> Any:
        root, inverse, m = middle(x, y)
        e = root * function_of(m, mpmath.sqrt) * inverse
        return e * u * e.T

    def inner(x: Any, u: Any, v: Any) -> Any:
        a, b = x**-1 * u, x**-1 * v
        return pair(a, b.T)

    def dist(x: Any, y: Any) -> Any:
        return norm(function_of(middle(x, y)[2], mpmath.log))

    return {"inner": inner, "exp": exp, "log": log, "dist": dist, "transport": transport}


def grassmann() -> Operations:
    def basis(x: Any) -> Any:
        return x * function_of(x.T * x, lambda e: 1 / mpmath.sqrt(e))

    def steps(x: Any, y: Any) -> tuple[Any, Any, Any]:
        x, y = basis(x), basis(y)
        away = y * (x.T * y) ** -1 - x
        values, vectors = mpmath.eigsy(away.T * away)
        return away, [mpmath.sqrt(abs(e)) for e in values], vectors

    def dist(x: Any, y: Any) -> Any:
        return mpmath.sqrt(sum(mpmath.atan(t) ** 2 for t in steps(x, y)[1]))

    def log(x: Any, y: Any) -> Any:
        away, tangents, v = steps(x, y)
        return away * v * mpmath.diag([ratio(mpmath.atan(t), t) for t in tangents]) * v.T

    def exp(x: Any, u: Any) -> Any:
        x = basis(x)
        u = u - x * (x.T * u)
        cosine = function_of(u.T * u, lambda t: mpmath.cos(mpmath.sqrt(abs(t))))
        sinc = function_of(u.T * u, lambda t: ratio(mpmath.sin(mpmath.sqrt(abs(t))), mpmath.sqrt(abs(t))))
        y = x * cosine + u * sinc
        return y * y.T

    return {"inner": lambda x, u, v: pair(u, v), "exp": exp, "log": log, "dist": dist}


REFERENCES = {"sphere": sphere, "SPD": spd, "ball": ball, "Grassmann": grassmann}
MANIFOLDS = {"sphere": nf.Sphere(5), "SPD": nf.SPD(3), "ball": nf.PoincareBall(3), "Grassmann": nf.Grassmann(5, 2)}


# -- the libraries, on NumPy arrays ------------------------------------------------------------------------------
def ours(name: str) -> Operations:
    m = MANIFOLDS[name]
    found = {"inner": m.inner, "exp": m.exp, "log": m.log, "dist": m.dist, "transport": m.parallel_transport}
    return found if name != "Grassmann" else found | {"exp": lambda x, u: projector(m.exp(x, u))}


def projector(x: Any) -> Any:
    return np.asarray(x, np.float64) @ np.asarray(x, np.float64).T


def geoopt(name: str) -> Operations:
    import geoopt
    import torch

    if name == "Grassmann":
        return {}
    made = {"sphere": geoopt.Sphere, "SPD": geoopt.SymmetricPositiveDefinite, "ball": geoopt.PoincareBall}
    m = made[name]()

    def on_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays: method(*map(torch.as_tensor, arrays)).detach().numpy()

    found = {"inner": m.inner, "exp": m.expmap, "log": m.logmap, "dist": m.dist}
    return {k: on_arrays(f) for k, f in (found | ({"transport": m.transp} if name != "sphere" else {})).items()}


def pymanopt(name: str) -> Operations:
    from pymanopt import manifolds

    made = {
        "sphere": lambda: manifolds.Sphere(5),
        "SPD": lambda: manifolds.SymmetricPositiveDefinite(3),
        "ball": lambda: manifolds.PoincareBall(3),
        "Grassmann": lambda: manifolds.Grassmann(5, 2),
    }
    m = made[name]()
    exp = (lambda x, u: projector(m.exp(x, u))) if name == "Grassmann" else m.exp
    return {"inner": m.inner_product, "exp": exp, "log": m.log, "dist": m.dist}


def geomstats(name: str) -> Operations:
    if name == "Grassmann":  # points are projectors there: another problem
        return {}
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.poincare_ball import PoincareBall
    from geomstats.geometry.spd_matrices import SPDMatrices

    made = {"sphere": lambda: Hypersphere(4), "SPD": lambda: SPDMatrices(3), "ball": lambda: PoincareBall(3)}
    metric = made[name]().metric
    found = {
        "inner": lambda x, u, v: metric.inner_product(u, v, x),
        "exp": lambda x, u: metric.exp(u, x),
        "log": lambda x, y: metric.log(y, x),
        "dist": metric.dist,
    }
    if name == "ball":  # its transport raises NotImplementedError
        return found
    return found | {"transport": lambda x, y, u: metric.parallel_transport(u, x, end_point=y)}


def pyriemann(name: str) -> Operations:
    if name != "SPD":
        return {}
    from pyriemann.geometry import tangentspace
    from pyriemann.geometry.distance import distance_riemann

    return {
        "inner": lambda x, u, v: tangentspace.innerproduct_riemann(u, v, x),
        "exp": lambda x, u: tangentspace.exp_map_riemann(u, x, Cm12=True),
        "log": lambda x, y: tangentspace.log_map_riemann(y, x, C12=True),
        "dist": distance_riemann,
        "transport": lambda x, y, u: tangentspace.transport_riemann(u, x, y),
    }


# -- samples and errors ----------------------------------------------------------------------------------------------
def samples(name: str, place: str, dtype: Any) -> list[dict[str, Any]]:
    """Arrays x, y, u (whose geodesic ends near y), v."""
    m, rng = MANIFOLDS[name], np.random.default_rng(0)
    found = []
    for _ in range(COUNT):
        x = m.random_point(rng, like=np.zeros(()))
        u = m.random_tangent(rng, x)
        if name == "Grassmann" and place == "far":  # the largest principal angle decides
            u = u * (FAR[name] / np.linalg.norm(u, 2))
        else:
            near = place == "near" and dtype is np.float32
            u = u * (min(1e-3 if near else PLACES[place], FAR[name]) / m.norm(x, u))
        y = x if place == "x = y" else m.exp(x, u)
        parts = {"x": x, "y": y, "u": u, "v": m.random_tangent(rng, x)}
        found.append({k: np.asarray(a, dtype) for k, a in parts.items()})
    return found


LETTERS = {"inner": "xuv", "exp": "xu", "log": "xy", "dist": "xy", "transport": "xyv"}


def error(got: Any, want: Any) -> float:
    got = np.asarray(got, np.float64)
    if not np.isfinite(got).all():
        return float("nan")
    if isinstance(want, mpmath.matrix):
        off, size = norm(exact(got) - want), norm(want)
    else:
        off, size = abs(mpmath.mpf(float(got)) - want), abs(want)
    return float(off / size) if size > mpmath.mpf(10) ** -40 else float(off)


def errors(name: str, operation: str, place: str, dtype: Any) -> dict[str, float]:
    """The largest error of each library that has the operation; NaN where a result is not finite or there is none."""
    reference, data = REFERENCES[name]()[operation], samples(name, place, dtype)
    wanted = [reference(*(exact(s[k]) for k in LETTERS[operation])) for s in data]
    found = {}
    for library, operations in zip(LIBRARIES, (ours, geoopt, pymanopt, geomstats, pyriemann), strict=True):
        method = operations(name).get(operation)
        if method is not None and (dtype is np.float64 or library in ("nestfold", "geoopt")):
            each = [error(method(*(s[k] for k in LETTERS[operation])), w) for s, w in zip(data, wanted, strict=True)]
            found[library] = max(each) if all(e == e for e in each) else float("nan")
    return found


# -- derivatives where points coincide, on PyTorch ---------------------------------------------------------------------
SPECIAL = {"sphere": None, "SPD": np.eye(3), "ball": np.zeros(3)}


def derivatives(name: str, special: bool) -> dict[str, dict[str, float]]:
    """By derivative and library: the error of d(a·exp(x, u)) at u = 0, and of the Hessian of dist²(·, x) at x."""
    import geoopt as library
    import torch
    from pyriemann.geometry import distance, tangentspace

    m, rng = MANIFOLDS[name], np.random.default_rng(0)
    x = torch.as_tensor(SPECIAL[name] if special else m.random_point(rng, like=np.zeros(())))
    a = torch.as_tensor(rng.standard_normal(tuple(x.shape)))
    a = a + a.mT if name == "SPD" else a
    made = {"sphere": library.Sphere, "SPD": library.SymmetricPositiveDefinite, "ball": library.PoincareBall}
    peer = made[name]()
    exps = {"nestfold": m.exp, "geoopt": peer.expmap}
    squares = {"nestfold": m.squared_dist, "geoopt": peer.dist2}
    if name == "SPD":
        exps["pyriemann"] = lambda x, u: tangentspace.exp_map_riemann(u, x, Cm12=True)
        squares["pyriemann"] = lambda x, y: distance.distance_riemann(x, y, squared=True)
    pa = m.project(x, a)
    found: dict[str, dict[str, float]] = {"exp at u = 0": {}, "Hessian of dist² at x = y": {}}
    for who in exps:
        u = torch.zeros_like(x).requires_grad_()
        (got,) = torch.autograd.grad(torch.sum(a * exps[who](x, u)), u)
        found["exp at u = 0"][who] = float(torch.linalg.norm(m.project(x, got) - pa) / torch.linalg.norm(pa))
        p, want = x.clone().requires_grad_(), 2 * m.flat(x, pa)
        (slope,) = torch.autograd.grad(squares[who](p, x).sum(), p, create_graph=True)
        (bend,) = torch.autograd.grad(torch.sum(slope * pa), p)
        off = torch.linalg.norm(m.project(x, bend) - want) / torch.linalg.norm(want)
        found["Hessian of dist² at x = y"][who] = float(off)
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    mp.dps = 50
    names = ("geoopt", "pymanopt", "geomstats", "pyriemann", "torch", "numpy", "mpmath")
    print("versions:", ", ".join(f"{name} {version(name)}" for name in names))
    every = "--all" in sys.argv
    print("| manifold | operation | points | " + " | ".join(LIBRARIES) + " | nestfold, float32 | geoopt, float32 |")
    print("|---" * (3 + len(LIBRARIES) + 2) + "|")
    with np.errstate(all="ignore"):
        for name in MANIFOLDS:
            for operation in REFERENCES[name]():
                for place in ("usual",) if operation == "inner" else PLACES:
                    double = errors(name, operation, place, np.float64)
                    single = errors(name, operation, place, np.float32)
                    alike = max(double.values()) <= 100 * min(double.values()) + 1e-14
                    if not every and place != "usual" and alike and all(e == e for e in double.values()):
                        continue
                    cells = [shown(double.get(library)) for library in LIBRARIES]
                    cells += [shown(single.get(library)) for library in ("nestfold", "geoopt")]
                    print("| " + " | ".join([name, operation, place, *cells]) + " |", flush=True)
        print("\n| manifold | derivative | nestfold | geoopt | pyriemann |\n|---|---|---|---|---|")
        for name, point in SPECIAL.items():
            for special in (False, True)[: 1 + (point is not None)]:
                for what, numbers in derivatives(name, special).items():
                    where = {"SPD": ", x = I", "ball": ", x = 0"}[name] if special else ""
                    cells = [shown(numbers.get(library)) for library in ("nestfold", "geoopt", "pyriemann")]
                    print("| " + " | ".join([name, what + where, *cells]) + " |", flush=True)


def shown(number: float | None) -> str:
    if number is None or number != number:
        return "–" if number is None else "NaN"
    return f"{number:.0e}" if number > 1e-40 else "0"


if __name__ == "__main__":
    main()
