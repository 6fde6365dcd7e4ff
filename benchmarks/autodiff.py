"""Time per gradient and per Hessian product on NumPy: nestfold's tape against formulas derived by hand.

synthetic : the inner cost of Han's problem, tr(MA) + tr(M⁻¹B) with B = W YᵀY Wᵀ + νI, as a function of M (d x d).
            By hand the gradient is A - M⁻¹BM⁻¹ and a Hessian product M⁻¹VS + (M⁻¹VS)ᵀ with S = M⁻¹BM⁻¹, for
            symmetric V. That V is symmetric a library cannot know: for any V four matrix products are needed.
logistic  : Σ log(1 + exp(-bᵢ aᵢ·x)) + ½ reg |x|², 500 x 100. By hand stable for large arguments too.
chain     : 102 elementwise operations on a vector of ten, and a sum: what an operation costs. Here the column of
            hand-written code is the forward evaluation alone, without any derivative.

gradient  : `nestfold.grad(cost)(x)`, everything recorded anew.
push, pull: the Hessian product repeated at a point, by `linearize(grad(cost), x)` and `vjp(grad(cost), x)`.

The cost is written once, with a namespace `np` as a user of that library would write it. Before anything is timed
all codes must give the same numbers. float64, one thread; the codes of a task are timed in turn, in random
order, once a round; ratios are taken within a round, and their median is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from _timing import aligned, in_own_process
from hypergradient import RANKS

import nestfold as nf
from nestfold.hypergrad.problems import synthetic

Call = Callable[[], Any]
#: What the project wants: ratios to the code by hand; for the chain, microseconds.
AIMS = {
    ("synthetic 50", "gradient"): "<= 2",
    ("synthetic 50", "push"): "<= 2.5",
    ("synthetic 50", "pull"): "<= 2.5",
    ("logistic", "gradient"): "<= 5",
    ("logistic", "push"): "<= 2.5",
    ("logistic", "pull"): "<= 2.5",
    ("chain", "gradient"): "<= 500 us",
}
OPERATIONS = 102
PEERS = ("autograd", "torch", "jax")


class Problem(NamedTuple):
    """A cost, `cost(np, data, x)`; its data and a point; a direction; the gradient and the Hessian by hand."""

    name: str
    cost: Callable[..., Any]
    data: tuple[Any, ...]
    x: Any
    v: Any
    gradient: Callable[[Any], Any]
    hessian: Callable[[Any], Callable[[Any], Any]]


class Code(NamedTuple):
    """How a library does it: each is a call of no arguments that gives a NumPy array, or its library's own."""

    gradient: Call
    push: Call | None
    pull: Call | None


# -- the three problems ------------------------------------------------------------------------------
def synthetic_problem(d: int) -> Problem:
    rank = RANKS.get(d, max(1, 2 * d // 5))
    made = synthetic(like=np.zeros(1), d=d, r=rank, n=max(100, 2 * d))
    w, _ = made.start(np.random.default_rng(1))
    a, k, nu = made.a, made.k, made.nu
    v = np.random.default_rng(2).standard_normal((d, d))

    def cost(np: Any, data: tuple[Any, ...], m: Any) -> Any:
        a, w, k, identity = data
        b = w @ (k @ w.T) + nu * identity
        return np.sum(m * a) + np.sum(np.linalg.inv(m) * b)

    def parts(m: Any) -> tuple[Any, Any]:
        b = w @ (k @ w.T)
        b.flat[:: d + 1] += nu
        inverse = np.linalg.inv(m)
        return inverse, inverse @ b @ inverse

    def hessian(m: Any) -> Callable[[Any], Any]:
        inverse, middle = parts(m)

        def product(v: Any) -> Any:
            half = inverse @ v @ middle
            return half + half.T

        return product

    data = (a, w, k, np.eye(d))
    x = made.solution(w) + np.diag(np.linspace(0.1, 0.2, d))  # at the solution the gradient is zero
    return Problem(f"synthetic {d}", cost, data, x, v + v.T, gradient=lambda m: a - parts(m)[1], hessian=hessian)


def logistic_problem(rows: int = 500, columns: int = 100, reg: float = 0.1) -> Problem:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, columns)), np.sign(rng.standard_normal(rows))
    x, v = rng.standard_normal(columns) / 10, rng.standard_normal(columns)

    def cost(np: Any, data: tuple[Any, ...], x: Any) -> Any:
        a, b, zero = data
        return np.sum(np.logaddexp(zero, -b * (a @ x))) + reg * (x @ x) / 2

    def gradient(x: Any) -> Any:
        z = b * (a @ x)
        e = np.exp(-np.abs(z))
        return reg * x - a.T @ (b * (np.where(z > 0, e, 1.0) / (1 + e)))

    def hessian(x: Any) -> Callable[[Any], Any]:
        e = np.exp(-np.abs(a @ x))
        weight = e / (1 + e) ** 2
        return lambda v: a.T @ (weight * (a @ v)) + reg * v

    return Problem("logistic", cost, (a, b, 0.0), x, v, gradient, hessian)


def chain_problem() -> Problem:
    x = np.linspace(0.1, 1.0, 10)

    def cost(np: Any, data: tuple[Any, ...], x: Any) -> Any:
        y = x
        for _ in range(OPERATIONS // 3):
            y = np.sin(y)
            y = y * 1.01
            y = y + x
        return np.sum(y)

    return Problem("chain", cost, (), x, x, gradient=lambda x: cost(np, (), x), hessian=lambda x: lambda v: None)


# -- who does it -------------------------------------------------------------------------------------
def by_hand(problem: Problem) -> Code:
    product = problem.hessian(problem.x)
    return Code(lambda: problem.gradient(problem.x), *[lambda: product(problem.v)] * 2)


def by_nestfold(problem: Problem) -> Code:
    def cost(x: Any) -> Any:
        return problem.cost(np, problem.data, x)

    gradient = nf.grad(cost)
    _, push = nf.linearize(gradient, problem.x)
    _, pull = nf.vjp(gradient, problem.x)
    return Code(lambda: gradient(problem.x), lambda: push(problem.v), lambda: pull(problem.v)[0])


def by_autograd(problem: Problem) -> Code:
    import autograd
    import autograd.numpy as anp

    def cost(x: Any) -> Any:
        return problem.cost(anp, problem.data, x)

    gradient = autograd.grad(cost)
    product = autograd.make_vjp(gradient)(problem.x)[0]
    return Code(lambda: gradient(problem.x), None, lambda: product(problem.v))


def by_torch(problem: Problem) -> Code:
    import torch

    data = tuple(torch.from_numpy(np.array(a)) for a in problem.data)
    x, v = torch.from_numpy(problem.x).requires_grad_(), torch.from_numpy(problem.v)

    def gradient(**options: Any) -> Any:
        return torch.autograd.grad(problem.cost(torch, data, x), x, **options)[0]

    kept = gradient(create_graph=True)
    return Code(gradient, None, lambda: torch.autograd.grad(kept, x, v, retain_graph=True)[0])


def by_jax(problem: Problem) -> Code:
    """Compiled; the data are arguments of the gradient, and constants of the Hessian product at a point."""
    import jax
    import jax.numpy as jnp

    data, x, v = jax.tree.map(jnp.asarray, (problem.data, problem.x, problem.v))
    gradient = jax.grad(lambda data, x: problem.cost(jnp, data, x), argnums=1)
    compiled = jax.jit(gradient)
    push = jax.jit(jax.linearize(lambda x: gradient(data, x), x)[1])
    pull = jax.jit(jax.vjp(lambda x: gradient(data, x), x)[1])
    return Code(
        lambda: compiled(data, x).block_until_ready(),
        lambda: push(v).block_until_ready(),
        lambda: pull(v)[0].block_until_ready(),
    )


CODES = {"hand": by_hand, "nestfold": by_nestfold, "autograd": by_autograd, "torch": by_torch, "jax": by_jax}


# -- measuring ---------------------------------------------------------------------------------------
def measure(calls: dict[str, Call], rounds: int, least: float) -> dict[str, list[float]]:
    """Seconds of a call, one figure a round; a sample repeats the call for about `least` seconds."""
    repeats = {}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, round(least / max(1e-6, time.perf_counter() - started)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        order = list(calls)
        shuffle(order)
        for name in order:
            call, n = calls[name], repeats[name]
            for _ in range(n // 4):  # caches are those of the code before
                call()
            started = time.perf_counter()
            for _ in range(n):
                call()
            samples[name].append((time.perf_counter() - started) / n)
    return samples


def check(problem: Problem, task: str, calls: dict[str, Call]) -> None:
    """Raise unless all codes agree; the chain has no gradient by hand."""
    found = {name: np.asarray(call()) for name, call in calls.items() if (problem.name, name) != ("chain", "hand")}
    reference = next(iter(found.values()))
    for name, value in found.items():
        error = np.max(np.abs(value - reference)) / np.max(np.abs(reference))
        if not error < 1e-9:
            raise SystemExit(f"{problem.name}, {task}: {name} differs by {error:.1e}")


def rows_of(problem: Problem, peers: list[str], rounds: int, least: float) -> Iterator[dict[str, Any]]:
    codes = {name: CODES[name](problem) for name in ("hand", "nestfold", *peers)}
    for task in Code._fields if problem.name != "chain" else ("gradient",):
        calls = {name: getattr(code, task) for name, code in codes.items() if getattr(code, task) is not None}
        check(problem, task, calls)
        samples = measure(calls, rounds, least)
        for name, seconds in samples.items():
            ratios = [mine / hand for mine, hand in zip(seconds, samples["hand"], strict=True)]
            yield {
                **{"problem": problem.name, "task": task, "code": name},
                **{"median_s": median(seconds), "least_s": min(seconds), "ratio": median(ratios)},
                "aim": AIMS.get((problem.name, task), "") if name == "nestfold" else "",
            }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned plain text."""
    lines: list[tuple[str, ...]] = [("problem", "task", "code", "median us", "least us", "/ hand", "aim")]
    for row in rows:
        names = (row["problem"], row["task"], row["code"])
        times = (f"{1e6 * row[key]:.1f}" for key in ("median_s", "least_s"))
        lines.append((*names, *times, f"{row['ratio']:.2f}", row["aim"]))
    return aligned(lines, "<<<>>><")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sizes", type=int, nargs="*", default=[10, 50, 100], metavar="D", help="d (default: %(default)s)")
    add("--rounds", type=int, default=41, help="samples of each code (default: %(default)s)")
    add("--least", type=float, default=0.01, metavar="SECONDS", help="of a sample (default: %(default)s)")
    add("--peers", nargs="*", default=[], choices=PEERS, help="libraries to compare with (default: none)")
    add("--json", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    in_own_process(chosen.peers)
    problems = [*map(synthetic_problem, chosen.sizes), logistic_problem(), chain_problem()]
    rows = []
    for problem in problems:
        found = list(rows_of(problem, chosen.peers, chosen.rounds, chosen.least))
        print(table(found), end="\n\n", flush=True)
        rows += found
    chain = {row["code"]: row["median_s"] for row in rows if row["problem"] == "chain"}
    each = ", ".join(f"{name} {1e6 * s / OPERATIONS:.2f} us" for name, s in chain.items())
    print(f"an operation of the chain, with its derivative (by hand: without): {each}")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
