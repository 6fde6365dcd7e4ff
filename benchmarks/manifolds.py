"""Time per call of the operations of manifolds: nestfold against code by hand and against other libraries.

Each row is one operation on one batch, in one framework: microseconds of nestfold, its ratio to code by hand in
the same framework (`_hand_manifolds.py`; JAX compiled), and its ratio to each library that works on the same arrays:
pymanopt and geomstats on NumPy, geoopt on PyTorch. A ratio below 1 says that nestfold is faster. Nothing is
differentiated. Lengths n: vectors of n entries, n × n matrices, or n × p with the p of `COLUMNS`.

Before anything is timed, hand and nestfold must agree; what the libraries compute is not compared (metrics and
representations differ; see docs/migrating.md). Libraries without an operation, or whose
operation is something else by that name (a projection called transport), are left out. float64, one thread; codes are
timed in turn, in random order, once a round, by the time of the process, so that others' work counts as little as
it can. Times are minima over the rounds; a ratio is one of minima, and after it stands the median of the ratios of each
round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np
from _hand_manifolds import codes
from hypergradient import _ENVIRONMENT

import nestfold as nf

Call = Callable[[], Any]
OPERATIONS = ("exp", "log", "dist", "parallel_transport", "retract", "project", "inner")
SIZES, BATCHES = (3, 10, 50), (1, 100, 10000)
COLUMNS = {3: 2, 10: 5, 50: 20}
PEERS = {"pymanopt": "numpy", "geomstats": "numpy", "geoopt": "torch"}


def manifold_of(name: str, n: int) -> nf.Manifold:
    made: dict[str, Callable[[], nf.Manifold]] = {
        "sphere": lambda: nf.Sphere(n),
        "SPD": lambda: nf.SPD(n),
        "Stiefel": lambda: nf.Stiefel(n, COLUMNS[n]),
        "Grassmann": lambda: nf.Grassmann(n, COLUMNS[n]),
        "ball": lambda: nf.PoincareBall(n),
        "simplex": lambda: nf.Simplex(n),
        "rotations": lambda: nf.SpecialOrthogonal(n),
        "oblique": lambda: nf.Oblique(n, COLUMNS[n]),
        "Lorentz": lambda: nf.Lorentz(n - 1),
        "positive": lambda: nf.Positive(n),
        "couplings": lambda: nf.DoublyStochastic.uniform(n),
    }
    return made[name]()


VECTORS = ("sphere", "ball", "simplex", "Lorentz", "positive")
NAMES = ("SPD", "Stiefel", "Grassmann", "rotations", "oblique", "couplings", *VECTORS)


def sample(manifold: nf.Manifold, batch: int) -> dict[str, Any]:
    """Points near each other, and tangent vectors of length 1/2."""
    rng = np.random.default_rng(0)
    x = manifold.random_point(rng, (batch,), like=np.zeros(()))

    def tangent() -> Any:
        u = manifold.random_tangent(rng, x)
        return manifold.scale(0.5 / manifold.norm(x, u), u)

    u, v = tangent(), tangent()
    return {"x": x, "y": manifold.retract(x, tangent()), "u": u, "v": v, "a": rng.standard_normal(np.shape(x))}


ARGUMENTS = {
    **{"exp": "xu", "log": "xy", "dist": "xy", "parallel_transport": "xyu"},
    **{"retract": "xu", "project": "xa", "inner": "xuv"},
}


# -- other libraries -----------------------------------------------------------------------------------
def geoopt_code(name: str, n: int, batch: int) -> dict[str, Callable[..., Any]]:
    import geoopt

    makes = {
        **{"sphere": geoopt.Sphere, "SPD": geoopt.SymmetricPositiveDefinite, "Stiefel": geoopt.EuclideanStiefel},
        **{"ball": lambda: geoopt.PoincareBall(c=1.0), "Lorentz": lambda: geoopt.Lorentz(k=1.0)},
        "couplings": lambda: geoopt.BirkhoffPolytope(tol=1e-15),
    }
    if name not in makes:
        return {}
    m = makes[name]()
    if name == "couplings":  # its projection is `sharp`
        return {"retract": m.retr, "inner": lambda x, u, v: m.inner(x, u, v, keepdim=False)}
    found = {"exp": m.expmap, "retract": m.retr, "project": m.proju, "inner": lambda x, u, v: m.inner(x, u, v)}
    if name != "Stiefel":
        found |= {"log": m.logmap, "dist": m.dist}
    else:
        del found["exp"]  # nestfold's own is timed elsewhere: by hand there is no code to check it with
    if name in ("SPD", "ball", "Lorentz"):
        found["parallel_transport"] = m.transp
    if name in ("ball", "Lorentz"):
        found.pop("project"), found.pop("retract")
    return found


def pymanopt_code(name: str, n: int, batch: int) -> dict[str, Callable[..., Any]]:
    from pymanopt import manifolds

    many = {"k": batch}
    makes = {
        "sphere": lambda: manifolds.Oblique(n, batch),  # points in columns: its own layout, favourable to it
        "SPD": lambda: manifolds.SymmetricPositiveDefinite(n, **many),
        "Stiefel": lambda: manifolds.Stiefel(n, COLUMNS[n], **many),
        "Grassmann": lambda: manifolds.Grassmann(n, COLUMNS[n], **many),
        "ball": lambda: manifolds.PoincareBall(n, **many),
        "rotations": lambda: manifolds.SpecialOrthogonalGroup(n, **many),
        "oblique": lambda: manifolds.Oblique(n, COLUMNS[n] * batch),
        "positive": lambda: manifolds.Positive(batch, n),
    }
    if name not in makes or (name == "Stiefel" and batch == 1) or (name == "rotations" and n > 10):
        return {}
    m = makes[name]()

    def turn(a: Any) -> Any:
        if name in ("sphere", "oblique"):
            return np.ascontiguousarray(np.moveaxis(a, -1 if name == "sphere" else -2, 0).reshape(n, -1))
        return a[0] if batch == 1 and name != "positive" else a

    if name == "rotations":  # its tangent vectors are in the Lie algebra: the ambient ones are what we measure
        return {}

    def keep(method: Callable[..., Any]) -> Callable[..., Any]:
        stored: dict[tuple[int, ...], tuple[Any, ...]] = {}

        def call(*args: Any) -> Any:
            key = tuple(map(id, args))
            if key not in stored:
                stored[key] = tuple(map(turn, args))
            return method(*stored[key])

        return call

    found = {"exp": m.exp, "log": m.log, "retract": m.retraction, "project": m.projection}
    if name == "Stiefel":
        found.pop("log"), found.pop("exp")
    if name == "ball":
        found.pop("project"), found.pop("retract")
    return {operation: keep(method) for operation, method in found.items()}


def geomstats_code(name: str, n: int, batch: int) -> dict[str, Callable[..., Any]]:
    os.environ.setdefault("GEOMSTATS_BACKEND", "numpy")
    import logging

    logging.getLogger("geomstats").setLevel(logging.ERROR)
    from geomstats.geometry.hyperboloid import Hyperboloid
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.poincare_ball import PoincareBall
    from geomstats.geometry.spd_matrices import SPDMatrices

    makes = {
        **{"sphere": lambda: Hypersphere(n - 1), "SPD": lambda: SPDMatrices(n), "ball": lambda: PoincareBall(n)},
        "Lorentz": lambda: Hyperboloid(n - 1),
    }
    if name not in makes:
        return {}
    space = makes[name]()
    m = space.metric
    found = {
        "exp": lambda x, u: m.exp(u, x),
        "log": lambda x, y: m.log(y, x),
        "dist": m.dist,
        "inner": lambda x, u, v: m.inner_product(u, v, x),
    }
    if name != "ball":
        found["parallel_transport"] = lambda x, y, u: m.parallel_transport(u, x, end_point=y)
        if name != "Lorentz":
            found["project"] = lambda x, a: space.to_tangent(a, x)
    return found


PEER_CODES = {"geoopt": geoopt_code, "pymanopt": pymanopt_code, "geomstats": geomstats_code}


# -- frameworks ----------------------------------------------------------------------------------------
def framework(name: str) -> tuple[Any, Callable[[Any], Any], Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """`namespace, convert, prepare` of "numpy", "torch" or "jax"."""
    if name == "numpy":
        return np, np.asarray, lambda f: f
    if name == "torch":
        import torch

        torch.set_num_threads(1)
        return torch, lambda a: torch.from_numpy(np.ascontiguousarray(a)), lambda f: f
    import jax
    import jax.numpy as jnp

    def prepare(f: Callable[..., Any]) -> Callable[..., Any]:
        compiled = jax.jit(f)
        return lambda *args: compiled(*args).block_until_ready()

    return jnp, jnp.asarray, prepare


def rows_of(name: str, n: int, batch: int, chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    manifold = manifold_of(name, n)
    numbers = sample(manifold, batch)
    for kind in chosen.frameworks:
        np_, convert, prepare = framework(kind)
        arrays = {key: convert(value) for key, value in numbers.items()}
        by_hand = codes(np_)[name]
        peers = {p: PEER_CODES[p](name, n, batch) for p in chosen.peers if PEERS[p] == kind}
        for operation in chosen.operations:
            if not hasattr(manifold, operation):
                continue
            args = [arrays[key] for key in ARGUMENTS[operation]]
            functions = {"nestfold": prepare(getattr(manifold, operation))}
            if operation in by_hand:
                functions["hand"] = prepare(by_hand[operation])
                check(f"{name} {n} {operation} {kind}", functions, args)
            functions |= {peer: found[operation] for peer, found in peers.items() if operation in found}
            if len(functions) == 1:
                continue
            calls = {code: (lambda f=f, args=args: f(*args)) for code, f in functions.items()}
            samples = measure(calls, chosen.rounds, chosen.least)
            row = {"manifold": name, "n": n, "batch": batch, "operation": operation, "framework": kind}
            row["us"] = 1e6 * min(samples["nestfold"])
            for code, seconds in samples.items():
                if code != "nestfold":
                    row[code] = min(samples["nestfold"]) / min(seconds)
                    row[f"{code} median"] = median(a / b for a, b in zip(samples["nestfold"], seconds, strict=True))
            yield row


def measure(calls: dict[str, Call], rounds: int, least: float) -> dict[str, list[float]]:
    """Seconds of the process a call, one figure a round; a sample repeats the call for about `least` seconds."""

    def sample(call: Call, count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            call()
        return (time.process_time() - started) / count

    counts = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, round(least / max(1e-6, sample(call, 1))))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        order = list(calls)
        shuffle(order)
        for name in order:
            calls[name]()  # caches are those of the code before
            samples[name].append(sample(calls[name], counts[name]))
    return samples


def check(what: str, functions: dict[str, Callable[..., Any]], args: list[Any]) -> None:
    """Raise unless hand and nestfold agree; subspaces and signs are made comparable by their projectors."""
    ours, hand = (np.asarray(functions[code](*args)) for code in ("nestfold", "hand"))
    if "Grassmann" in what and " exp " in what:
        ours, hand = (a @ a.mT for a in (ours, hand))
    error = np.max(np.abs(ours - hand)) / np.max(np.abs(hand))
    if not error < 1e-9:
        raise SystemExit(f"{what}: hand and nestfold differ by {error:.1e}")


def table(rows: list[dict[str, Any]], peers: list[str]) -> str:
    """The rows as aligned text; `!` marks a ratio above 1.3 to hand (batches of 100 and more) or above 1 to a peer."""

    def cell(row: dict[str, Any], code: str) -> str:
        if code not in row:
            return "-"
        limit = 1.0 if code != "hand" else 1.3 if row["batch"] >= 100 else float("inf")
        return f"{row[code]:.2f}{'!' if row[code] > limit else ''} ({row[code + ' median']:.2f})"

    columns = ("hand", *peers)
    lines = [("manifold", "n", "batch", "operation", "framework", "us", *(f"/ {c}" for c in columns))]
    for row in rows:
        cells = [cell(row, code) for code in columns]
        names = (row["manifold"], str(row["n"]), str(row["batch"]), row["operation"], row["framework"])
        lines.append((*names, f"{row['us']:.1f}", *cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<>><<" + ">" * (len(widths) - 5)
    return "\n".join(
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(line, sides, widths, strict=True)).rstrip() for line in lines
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--manifolds", nargs="*", default=NAMES, choices=NAMES)
    add("--operations", nargs="*", default=OPERATIONS, choices=OPERATIONS)
    add("--sizes", type=int, nargs="*", default=SIZES, choices=SIZES)
    add("--batches", type=int, nargs="*", default=BATCHES)
    add("--frameworks", nargs="*", default=["numpy", "torch", "jax"], choices=["numpy", "torch", "jax"])
    add("--peers", nargs="*", default=[p for p in PEERS if importlib.util.find_spec(p)], choices=list(PEERS))
    add("--rounds", type=int, default=11, help="samples of each code (default: %(default)s)")
    add("--least", type=float, default=0.002, metavar="SECONDS", help="of a sample (default: %(default)s)")
    add("--json", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    if "NESTFOLD_BENCHMARK_PROCESS" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | _ENVIRONMENT)
    rows = []
    for name in chosen.manifolds:
        found = []
        for n in chosen.sizes:
            for batch in chosen.batches:
                if n * n * batch <= 2_000_000 or name in VECTORS:
                    found += list(rows_of(name, n, batch, chosen))
        print(table(found, chosen.peers), end="\n\n", flush=True)
        rows += found
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
