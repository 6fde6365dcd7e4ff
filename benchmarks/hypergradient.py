"""Time per hypergradient on Han's synthetic problem: nestfold against code derived by hand.

adjoint : at the exact lower solution M*, one linear solve by conjugate gradients with exactly 20 products,
          then the cross term. Both sides do the same mathematics; by hand a product is one matrix product.
solve   : from M = I to a true relative hypergradient error of at most 1e-8. By hand: Riemannian gradient
          descent with the best fixed step, 2 / (smallest + largest eigenvalue of the Hessian at M*), and the
          fewest steps and products that reach it, all three found beforehand with the exact answer. nestfold:
          trust region and conjugate gradients, no step given; its tolerances, the same at every size, are on
          the safe side, so that it ends below 1e-8. The algorithms differ: this row is no measure of
          overhead, and gradient descent is not the fastest that can be written by hand.

One thread, float64; every item of a size is timed once a round, in random order; medians over the rounds.
CPU time is that of the process; ratios are of CPU times. JAX is compiled beforehand, the data are arguments.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import _hand
import numpy as np
from _timing import ENVIRONMENT as _ENVIRONMENT  # noqa: F401  manifolds.py takes it from here
from _timing import aligned, in_own_process, measure

from nestfold.backends import get_backend
from nestfold.hypergrad import CG, Bilevel, Implicit, Solution, Solver, TrustRegion, hypergradient
from nestfold.hypergrad.problems import synthetic

RANKS = {10: 5, 50: 20, 100: 40, 200: 50}
PRODUCTS = 20
TARGET = 1e-8


class Item(NamedTuple):
    """One thing to time: what, in which framework, whose code, the code, and its relative error."""

    task: str
    backend: str
    code: str
    call: Callable[[], Any]
    error: float


class Case(NamedTuple):
    """One size: the problem in NumPy, W on the Stiefel manifold, M*, the exact Riemannian gradient."""

    problem: Any
    w: Any
    m: Any
    exact: Any


def make_case(d: int) -> Case:
    r = RANKS.get(d, max(1, 2 * d // 5))
    problem = synthetic(like=np.zeros(1), d=d, r=r, n=max(100, 2 * d))
    w, _ = problem.start(np.random.default_rng(1))
    ambient = problem.euclidean_gradient(w)
    lean = w.T @ ambient
    return Case(problem, w, problem.solution(w), ambient - w @ (lean + lean.T) / 2)


def relative_error(case: Case, gradient: Any) -> float:
    return float(np.linalg.norm(gradient - case.exact) / np.linalg.norm(case.exact))


def best_plan(case: Case) -> tuple[float, int, int]:
    """The step, the fewest descent steps and then the fewest products with an error of at most TARGET."""
    _, pipeline = _hand.numpy_code()
    a, c, k, nu = case.problem.a, case.problem.c, case.problem.k, case.problem.nu
    factor = np.linalg.cholesky(case.m)
    spectrum = np.linalg.eigvalsh(2 * factor.T @ a @ factor)  # of the Hessian at M*, where M A M = B
    step = 2 / (spectrum[0] + spectrum[-1])

    def error(steps: int, products: int) -> float:
        return relative_error(case, pipeline((a, c, k, nu), case.w, step, steps, products))

    steps = smallest(lambda n: error(n, 80) <= TARGET / 2)
    return step, steps, smallest(lambda n: error(steps, n) <= TARGET)


def smallest(holds: Callable[[int], bool]) -> int:
    """The smallest n >= 1 from which on `holds(n)`, by doubling and bisection."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def hand_items(backend: str, case: Case, plan: tuple[float, int, int]) -> list[Item]:
    gradient, pipeline = getattr(_hand, f"{backend}_code")()
    problem, w, m = moved(backend, case)
    data = (problem.a, problem.c, problem.k, problem.nu)
    calls = {
        "adjoint": lambda: gradient(data, w, m, PRODUCTS),
        "solve": lambda: pipeline(data, w, *plan),
    }
    return [finished(task, backend, "hand", call, case) for task, call in calls.items()]


def nestfold_items(backend: str, case: Case) -> list[Item]:
    problem, w, m = moved(backend, case)
    _, identity = problem.start(np.random.default_rng(0))
    items = []
    for task, function, start in (("adjoint", nestfold_adjoint, m), ("solve", nestfold_solve, identity)):
        call = (compiled if backend == "jax" else eager)(function, problem, w, start)
        items.append(finished(task, backend, "nestfold", call, case))
    return items


@dataclass(frozen=True)
class Given(Solver):
    """The start is the answer: what is timed is the derivative alone."""

    def solve(self, backend: Any, level: Any, outer: Any, init: Any, space: Any) -> Solution:
        """`init` with a residual that was not looked at."""
        zero = space.full(0.0, init)
        return Solution(init, zero, space.counts(zero), space.flags(True, zero))


def nestfold_adjoint(problem: Bilevel, w: Any, m: Any) -> Any:
    """At the given M, with exactly PRODUCTS products."""
    estimator = Implicit(CG(tol=0.0, max_steps=PRODUCTS))
    return hypergradient(problem, w, m, solver=Given(), estimator=estimator, certify=False).gradient


def nestfold_solve(problem: Bilevel, w: Any, start: Any) -> Any:
    """From `start`, by tolerances that give TARGET at every size."""
    solver, estimator = TrustRegion(tol=TARGET / 100), Implicit(CG(tol=TARGET / 10))
    return hypergradient(problem, w, start, solver=solver, estimator=estimator, certify=False).gradient


def eager(function: Callable[..., Any], problem: Any, w: Any, start: Any) -> Callable[[], Any]:
    """`function` on the problem made once."""
    made = problem.problem()
    return lambda: function(made, w, start)


def compiled(function: Callable[..., Any], problem: Any, w: Any, start: Any) -> Callable[[], Any]:
    """`function` under `jax.jit`, with the data as arguments."""
    import jax

    whole = jax.jit(lambda a, c, k, w, m: function(replace(problem, a=a, c=c, k=k).problem(), w, m))
    return lambda: whole(problem.a, problem.c, problem.k, w, start)


def moved(backend: str, case: Case) -> tuple[Any, Any, Any]:
    """The problem, W and M* as arrays of `backend`."""
    there = get_backend(backend).asarray
    parts = {name: there(getattr(case.problem, name)) for name in ("a", "c", "k")}
    return replace(case.problem, **parts), there(case.w), there(case.m)


def finished(task: str, backend: str, code: str, call: Callable[[], Any], case: Case) -> Item:
    """The item with its error, timed to the end of the computation."""
    there = get_backend(backend)
    wait = (lambda: call().block_until_ready()) if backend == "jax" else call
    return Item(task, backend, code, wait, relative_error(case, there.to_numpy(wait())))


def rows_of(d: int, backends: list[str], codes: list[str], rounds: int) -> list[dict[str, Any]]:
    """Every item of one size, timed, with its ratios to the code by hand: in its framework, and the best."""
    case = make_case(d)
    plan = best_plan(case)
    items = [item for b in backends if "hand" in codes for item in hand_items(b, case, plan)]
    items += [item for b in backends if "nestfold" in codes for item in nestfold_items(b, case)]
    timed = sorted(
        zip(items, measure([item.call for item in items], rounds), strict=True), key=lambda pair: pair[0][:3]
    )
    own = {(item.task, item.backend): cpu for item, (cpu, _) in timed if item.code == "hand"}
    best = {task: min(cpu for (t, _), cpu in own.items() if t == task) for task, _ in own}
    return [
        {
            **{"task": item.task, "d": d, "r": case.w.shape[1], "backend": item.backend, "code": item.code},
            **{"cpu_s": cpu, "wall_s": wall, "error": item.error, "steps": plan[1], "products": plan[2]},
            "ratio_own": cpu / own[item.task, item.backend] if own else None,
            "ratio_best": cpu / best[item.task] if own else None,
        }
        for item, (cpu, wall) in timed
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned plain text."""
    lines = [("task", "d", "r", "framework", "code", "CPU ms", "wall ms", "/ own hand", "/ best hand", "error")]
    for row in rows:
        names = (row["task"], str(row["d"]), str(row["r"]), row["backend"], row["code"])
        milliseconds = (f"{1e3 * row[key]:.3f}" for key in ("cpu_s", "wall_s"))
        ratios = (f"{row[key]:.2f}" if row[key] else "-" for key in ("ratio_own", "ratio_best"))
        lines.append((*names, *milliseconds, *ratios, f"{row['error']:.0e}"))
    return aligned(lines, "<>><<>>>>>")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--sizes",
        type=int,
        nargs="+",
        default=list(RANKS),
        metavar="D",
        help="sizes d (default: %(default)s)",
    )
    add("--rounds", type=int, default=9, help="samples of each item (default: %(default)s)")
    names = ["numpy", "torch", "jax"]
    add("--backends", nargs="+", default=names, choices=names, help="frameworks (default: all three)")
    add("--codes", nargs="+", default=["hand", "nestfold"], choices=["hand", "nestfold"], help="whose code")
    add("--json", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    in_own_process(chosen.backends)
    rows = []
    for d in chosen.sizes:
        rows += rows_of(d, chosen.backends, chosen.codes, chosen.rounds)
        print(table([row for row in rows if row["d"] == d]), flush=True)
        print(f"by hand from M = I: {rows[-1]['steps']} steps, {rows[-1]['products']} products\n", flush=True)
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
