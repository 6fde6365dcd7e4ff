"""Peak memory of a hypergradient against the number of steps of the lower solver.

Logistic regression with one penalty per feature; gradient descent takes exactly T steps from w = 0. `Implicit` keeps
nothing of the path; `Unrolled` keeps what the derivative of every step needs, with checkpoints about √T states and one
segment. `Implicit` is given the same number of products at every T.

NumPy   : the peak of `tracemalloc` above what was there before, all allocations of NumPy and of Python.
PyTorch : the most bytes that the graphs of autograd keep at a time, counted by saved-tensor hooks; each storage once.
JAX     : the temporary buffers of the compiled program, as the compiler plans them.
"""

from __future__ import annotations

import argparse
import gc
import json
import tracemalloc
import warnings
import weakref
from typing import Any

from _peer_case import Case, costs, make_logistic, moved
from _timing import aligned, in_own_process

from nestfold import Euclidean
from nestfold.hypergrad import CG, Argmin, Bilevel, GradientDescent, Implicit, Unrolled, hypergradient

PRODUCTS = 10


#: name -> the estimator for T steps
ESTIMATORS = {
    "Implicit": lambda steps: Implicit(CG(tol=0.0, max_steps=PRODUCTS)),
    "Unrolled": lambda steps: Unrolled(steps),
    "Unrolled, checkpoints": lambda steps: Unrolled(steps, checkpoint=True),
}


def gradient_of(framework: str, case: Case, steps: int, estimator: Any) -> Any:
    """`function(data, x, w0)`: T steps, and the derivative."""
    solver = GradientDescent(step=case.step, max_steps=steps, tol=0.0)

    def function(data: Any, x: Any, w: Any) -> Any:
        upper, lower = costs(framework, case.kind, data)
        p = case.x.shape[0]
        problem = Bilevel(upper, Euclidean(p), Argmin(lower, Euclidean(p)))
        return hypergradient(problem, x, w, solver=solver, estimator=estimator, certify=False).gradient

    return function


def in_numpy(function: Any, parts: tuple[Any, Any, Any]) -> int:
    """The peak above the start, in bytes."""
    function(*parts)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        function(*parts)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class _Kept:
    """The bytes that saved tensors keep alive, now and at most."""

    def __init__(self, known: set[int]) -> None:
        self.known, self.users, self.now, self.most = known, {}, 0, 0

    def pack(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self.known:
            self.users[key] = self.users.get(key, 0) + 1
            if self.users[key] == 1:
                self.now += size
                self.most = max(self.most, self.now)
        held = _Held(tensor.detach())  # with its graph it would keep the node alive that keeps it
        if key not in self.known:
            weakref.finalize(held, self.release, key, size)
        return held

    def release(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            self.now -= size


class _Held:
    """A saved tensor."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def in_torch(function: Any, parts: tuple[Any, Any, Any]) -> int:
    """The most that graphs keep, in bytes, the data left out."""
    import torch

    data, x, w = parts
    kept = _Kept({a.untyped_storage().data_ptr() for a in (*data, x, w)})
    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor):
        function(*parts)
    return kept.most


def in_jax(function: Any, parts: tuple[Any, Any, Any]) -> int:
    """The temporary buffers of the compiled program, in bytes."""
    import jax

    return jax.jit(function).lower(*parts).compile().memory_analysis().temp_size_in_bytes


MEASURES = {"numpy": in_numpy, "torch": in_torch, "jax": in_jax}


def rows_of(framework: str, case: Case, steps: list[int]) -> list[dict[str, Any]]:
    data, x, _ = moved(framework, case)
    parts = (data, x, 0 * x)
    return [
        {
            "framework": framework,
            "estimator": name,
            "bytes": {t: MEASURES[framework](gradient_of(framework, case, t, make(t)), parts) for t in steps},
        }
        for name, make in ESTIMATORS.items()
    ]


def table(rows: list[dict[str, Any]], steps: list[int], unit: int) -> str:
    """Peaks in vectors of the lower variable's size."""
    lines = [("framework", "estimator", *(f"T = {t}" for t in steps))]
    lines += [(r["framework"], r["estimator"], *(f"{r['bytes'][t] / unit:.0f}" for t in steps)) for r in rows]
    return aligned(lines, "<<" + ">" * len(steps))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", type=int, nargs=2, default=[500, 1000], metavar=("ROWS", "COLUMNS"), help="(default: %(default)s)")
    add("--steps", type=int, nargs="+", default=[10, 50, 200, 800], metavar="T", help="(default: %(default)s)")
    add("--frameworks", nargs="+", default=list(MEASURES), choices=list(MEASURES), help="(default: all three)")
    add("--json", metavar="FILE", help="write the rows there too")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    in_own_process(chosen.frameworks)
    warnings.simplefilter("ignore")
    case = make_logistic(*chosen.size)
    rows = [row for framework in chosen.frameworks for row in rows_of(framework, case, chosen.steps)]
    print(f"peak memory in vectors of {chosen.size[1]} numbers; the data are {chosen.size[0]} of them")
    print(table(rows, chosen.steps, 8 * chosen.size[1]))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
