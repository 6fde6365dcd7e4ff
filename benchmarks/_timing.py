"""What the benchmarks share: one thread, interleaved samples, medians, aligned tables.

Ratios of CPU times travel between machines, milliseconds do not. All items that are compared run in one process,
each once a round, in random order, so that a busy machine slows all of them.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

#: Read by the libraries when they are loaded, hence set in a process of its own.
ENVIRONMENT = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")},
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "0",
    "NESTFOLD_BENCHMARK_PROCESS": "1",
}


def in_own_process(frameworks: Iterable[str]) -> None:
    """Start again with `ENVIRONMENT`, unless that was done; then PyTorch too has one thread."""
    if "NESTFOLD_BENCHMARK_PROCESS" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)
    if "torch" in frameworks:
        import torch

        torch.set_num_threads(1)


def measure(calls: Sequence[Callable[[], Any]], rounds: int, least: float = 0.02) -> list[tuple[float, float]]:
    """Median CPU and wall time of a call in seconds; a sample repeats the call for about `least` seconds."""
    repeats = []
    for call in calls:
        started = time.perf_counter()
        call()
        repeats.append(max(1, round(least / (time.perf_counter() - started))))
    samples: list[list[tuple[float, float]]] = [[] for _ in calls]
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        order = list(range(len(calls)))
        shuffle(order)
        for i in order:
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(repeats[i]):
                calls[i]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            samples[i].append((cpu / repeats[i], wall / repeats[i]))
    return [tuple(median(column) for column in zip(*rows, strict=True)) for rows in samples]  # type: ignore[misc]


def aligned(lines: Sequence[Sequence[str]], aligns: str) -> str:
    """The lines as a table of plain text; `aligns` has < or > for each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = ([f"{c:{a}{w}}" for c, a, w in zip(line, aligns, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in cells)
