"""Time per hypergradient: nestfold, code derived by hand, and other libraries, each in its own framework.

At the exact lower answer: one adjoint solve with exactly k products with the Hessian, by conjugate gradients ("cg") or
by the fixed-point series with the best step ("series"), then the cross term; nestfold stops before k at rounding. A
code that does k products gives the same error as the others that do; the error, against the exact hypergradient, is
printed.

logistic  : 500x100 is logistic regression on 500 rows with one penalty for each of 100 features (Grazzi et al. 2020).
            Each code is given the two costs in plain code of its framework.
synthetic : 50 is the problem of Han et al. 2024, section 4.1, with d = 50; of the other libraries only the code of that
            paper solves it on its manifold. Its conjugate gradients are those of the normal equations.

nestfold           : `hypergradient(...)` with `certify=False`
nestfold certified : the same with its certificate, what `hypergradient` does by default
nestfold structure : the lower cost as a `LinearPredictor`, or with its `hessian`, and `certify=False`

float64, one thread, medians of interleaved rounds. JAX is compiled beforehand, the data are arguments. Libraries that
are not installed are named; hypertorch is `github.com/prolearner/hypertorch`, rhgd (`github.com/andyjm3/rhgd`) is
imported from the folder in the environment variable RHGD.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import _hand
import _hand_logistic
import _peer_jax
import _peer_numpy
import _peer_torch
from _peer_case import Case, costs, entrywise, make_case, moved, relative_error
from _timing import aligned, in_own_process, measure

from nestfold import SPD, Euclidean, Stiefel
from nestfold.hypergrad import (
    CG,
    Argmin,
    Bilevel,
    Implicit,
    LinearPredictor,
    Neumann,
    Solution,
    Solver,
    hypergradient,
)

Call = Callable[[], Any]
METHODS = ("cg", "series")


@dataclass(frozen=True)
class Given(Solver):
    """The start is the answer: what is timed is the derivative alone."""

    def solve(self, backend: Any, level: Any, outer: Any, init: Any, space: Any) -> Solution:
        """`init` with a residual that was not looked at."""
        zero = space.full(0.0, init)
        return Solution(init, zero, space.counts(zero), space.flags(True, zero))


class Item(NamedTuple):
    """One thing to time, or why it cannot be."""

    problem: str
    task: str
    framework: str
    code: str
    call: Call | None
    error: float | None
    note: str = ""


def by_hand(framework: str, case: Case, method: str, products: int) -> Call | None:
    data, x, y = moved(framework, case)
    if case.kind == "logistic":
        gradient = getattr(_hand_logistic, f"{framework}_code")()
        call = partial(gradient, data, x, y, method, products, case.step)
    elif method == "cg":
        gradient, _ = getattr(_hand, f"{framework}_code")()
        call = partial(gradient, data, x, y, products)
    else:
        return None
    return (lambda: call().block_until_ready()) if framework == "jax" else call


def by_nestfold(
    framework: str, case: Case, method: str, products: int, certify: bool = False, structure: bool = False
) -> Call:
    linear = CG(tol=0.0, max_steps=products) if method == "cg" else Neumann(terms=products, step=case.step, tol=0.0)

    def found(problem: Bilevel, x: Any, y: Any) -> Any:
        result = hypergradient(problem, x, y, solver=Given(), estimator=Implicit(linear), certify=certify)
        return (result.gradient, result.certificate) if certify else (result.gradient,)

    if framework == "jax":
        return _peer_jax.compiled(case, lambda data, x, y: found(bilevel(framework, case, data, structure), x, y))
    data, x, y = moved(framework, case)
    problem = bilevel(framework, case, data, structure)
    return lambda: found(problem, x, y)[0]


def bilevel(framework: str, case: Case, data: tuple[Any, ...], structure: bool) -> Bilevel:
    """The problem as a user would write it, without or with what is known of its structure."""
    upper, lower = costs(framework, case.kind, data)
    if case.kind == "logistic":
        features, labels, *_ = data
        xp, softplus = entrywise(framework)
        if structure:
            lower = LinearPredictor(
                features,
                lambda x, z: softplus(-labels * z) / len(labels),
                lambda x, w: xp.exp(x) * w * w / 2,
            )
        p = case.x.shape[0]
        return Bilevel(upper, Euclidean(p), Argmin(lower, Euclidean(p)))
    d, r = case.x.shape
    known = replace(case.problem, **dict(zip(("a", "c", "k"), data[:3], strict=True)))
    level = Argmin(lower, SPD(d), known.hessian) if structure else Argmin(lower, SPD(d))
    return Bilevel(upper, Stiefel(d, r), level)


#: framework -> {name of the code: (framework's code) (case, method, products) -> call or None}
PEERS: dict[str, dict[str, Callable[[Case, str, int], Call | None]]] = {
    "numpy": {"autograd": _peer_numpy.autograd},
    "torch": {name: getattr(_peer_torch, name) for name in ("hypertorch", "torchopt", "betty", "rhgd")},
    "jax": {name: getattr(_peer_jax, name) for name in ("jaxopt", "lineax", "optimistix")},
}


def items_of(case: Case, method: str, products: int, frameworks: list[str]) -> list[Item]:
    """Every code's item; those that have no such method are left out."""
    made = []
    for framework in frameworks:
        codes: dict[str, Callable[[Case, str, int], Call | None]] = {
            "hand": partial(by_hand, framework),
            "nestfold": partial(by_nestfold, framework),
            "nestfold structure": partial(by_nestfold, framework, structure=True),
            "nestfold certified": partial(by_nestfold, framework, certify=True),
        }
        for code, make in (codes | PEERS[framework]).items():
            item = Item(f"{case.kind} {case.size}", f"{method} {products}", framework, code, None, None)
            try:
                call = make(case, method, products)
            except ImportError as missing:
                if code in codes:
                    raise
                made.append(item._replace(note=f"not installed ({missing})"))
                continue
            if call is not None:
                made.append(item._replace(call=call, error=relative_error(case, call())))
    return made


def rows_of(items: list[Item], rounds: int, least: float) -> list[dict[str, Any]]:
    """The items, timed, with ratios to the code by hand and to nestfold in the same framework."""
    timed = [item for item in items if item.call is not None]
    found = dict(zip(map(id, timed), measure([item.call for item in timed if item.call], rounds, least), strict=True))
    cpu = {(item.framework, item.code): found[id(item)][0] for item in timed}
    rows = []
    for item in items:
        row: dict[str, Any] = {name: getattr(item, name) for name in ("problem", "task", "framework", "code", "note")}
        if item.call is not None:
            seconds, wall = found[id(item)]
            hand = cpu.get((item.framework, "hand"))
            row |= {"cpu_s": seconds, "wall_s": wall, "error": item.error}
            row |= {"ratio_hand": hand and seconds / hand, "ratio_nestfold": seconds / cpu[item.framework, "nestfold"]}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned plain text."""
    lines = [("problem", "task", "framework", "code", "CPU ms", "wall ms", "/ hand", "/ nestfold", "error")]
    for row in rows:
        names = (row["problem"], row["task"], row["framework"], row["code"])
        if "cpu_s" not in row:
            lines.append((*names, "-", "-", "-", "-", row["note"]))
            continue
        milliseconds = (f"{1e3 * row[key]:.3f}" for key in ("cpu_s", "wall_s"))
        ratios = (f"{row[key]:.2f}" if row[key] else "-" for key in ("ratio_hand", "ratio_nestfold"))
        lines.append((*names, *milliseconds, *ratios, f"{row['error']:.0e}"))
    return aligned(lines, "<<<<>>>>>")


def slower(rows: list[dict[str, Any]]) -> list[str]:
    """Where a library takes less time than nestfold at no larger error; differences of a tenth may be noise."""
    told = []
    own = {(r["problem"], r["task"], r["framework"]): r for r in rows if r["code"] == "nestfold"}
    for row in rows:
        if "cpu_s" not in row or row["code"] == "hand" or row["code"].startswith("nestfold"):
            continue
        mine = own[row["problem"], row["task"], row["framework"]]
        if row["ratio_nestfold"] < 1 and row["error"] <= 2 * max(mine["error"], 1e-12):
            told.append(
                f"{row['problem']}, {row['task']}, {row['framework']}: {row['code']} takes "
                f"{row['ratio_nestfold']:.2f} of nestfold's time"
            )
    return told


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    sizes = ["500x100", "1000x1000", "10", "50", "100", "200"]
    add(
        "--sizes",
        nargs="+",
        default=sizes,
        metavar="SIZE",
        help="ROWSxCOLUMNS: logistic; D: synthetic (default: %(default)s)",
    )
    add("--products", type=int, nargs="+", default=[10, 50], metavar="K", help="k (default: %(default)s)")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="linear solvers (default: both)")
    add("--frameworks", nargs="+", default=list(PEERS), choices=list(PEERS), help="(default: all three)")
    add("--rounds", type=int, default=9, help="samples of each item (default: %(default)s)")
    add("--least", type=float, default=0.02, metavar="SECONDS", help="of a sample (default: %(default)s)")
    add("--json", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    in_own_process(chosen.frameworks)
    warnings.simplefilter("ignore")
    rows = []
    for size in chosen.sizes:
        case = make_case(size)
        for method in chosen.methods:
            for products in chosen.products:
                found = rows_of(items_of(case, method, products, chosen.frameworks), chosen.rounds, chosen.least)
                print(table(found), end="\n\n", flush=True)
                rows += found
    print("\n".join(slower(rows)) or "none of the libraries that ran is faster than nestfold in its own framework")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
