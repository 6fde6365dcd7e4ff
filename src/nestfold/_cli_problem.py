"""A ready-made problem on one backend, measured against its closed form: what `run` and `compare` share."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._cli_info import devices
from ._cli_output import CommandError
from .backends import Backend, ConvergenceWarning
from .hypergrad import (
    CG,
    RHGD,
    Bilevel,
    Dense,
    GradientDescent,
    Implicit,
    Neumann,
    Result,
    Unrolled,
    run,
)
from .hypergrad.problems import Synthetic, synthetic
from .testing import double_precision, usable_backend

Array = Any

PROBLEMS = ("synthetic",)
DTYPES = ("float64", "float32")
#: how the hypergradient is had; the solver tolerance 0 means: as exact as the dtype allows
ESTIMATORS: dict[str, Callable[[int], RHGD]] = {
    "cg": lambda steps: RHGD(estimator=Implicit(CG())),
    "neumann": lambda steps: RHGD(estimator=Implicit(Neumann())),
    "dense": lambda steps: RHGD(estimator=Implicit(Dense())),
    "unrolled": lambda steps: RHGD(solver=GradientDescent(), estimator=Unrolled(steps)),
}


@dataclass(frozen=True)
class Settings:
    """What a run is of, but for the backend. `n` None is 2 d."""

    problem: str = "synthetic"
    dtype: str = "float64"
    estimator: str = "cg"
    unrolled_steps: int = 50
    steps: int = 100
    d: int = 50
    r: int = 20
    n: int | None = None
    nu: float = 0.01
    seed: int = 0

    @property
    def rows(self) -> int:
        """The rows of the data matrices."""
        return 2 * self.d if self.n is None else self.n

    def method(self) -> RHGD:
        """The outer method with the chosen estimator."""
        return ESTIMATORS[self.estimator](self.unrolled_steps)


@dataclass(frozen=True)
class Experiment:
    """The problem and its start on one backend; closed forms are had in NumPy's float64, on its data."""

    backend: Backend
    device: str
    settings: Settings
    data: Synthetic
    x: Array
    y: Array

    @property
    def problem(self) -> Bilevel:
        """The problem as `run` takes it."""
        return self.data.problem()

    def numpy(self, array: Array) -> np.ndarray:
        """`array` as NumPy's float64."""
        return np.asarray(self.backend.to_numpy(array), dtype=np.float64)

    def objective(self, x: Array) -> float:
        """The upper cost at the exact lower solution, by the closed form."""
        return float(self._exact().objective(self.numpy(x)))

    def error(self, x: Array, gradient: Array) -> dict[str, float]:
        """The norm of the exact Riemannian hypergradient at x, and how far `gradient` is from it."""
        exact, point = self._exact(), self.numpy(x)
        manifold = exact.problem().manifold
        wanted = manifold.sharp(point, manifold.project(point, exact.euclidean_gradient(point)))
        norm, off = float(np.linalg.norm(wanted)), float(np.linalg.norm(self.numpy(gradient) - wanted))
        return {"norm": norm, "absolute_error": off, "relative_error": off / norm if norm else float("nan")}

    def _exact(self) -> Synthetic:
        parts = (self.numpy(part) for part in (self.data.a, self.data.c, self.data.k))
        return Synthetic(*parts, nu=self.data.nu)


@contextlib.contextmanager
def experiment(settings: Settings, name: str, device: str | None = None) -> Iterator[Experiment]:
    """The problem on the backend called `name`; float64 stays float64 within the block.

    Raises `BackendUnavailableError`, `ShapeError`, and `CommandError` for a device that is not there.
    """
    backend = usable_backend(name)
    wide = double_precision(name) if settings.dtype == "float64" else contextlib.nullcontext()
    with wide:
        chosen, there = _device(backend, device)
        like = backend.asarray(np.zeros((), dtype=settings.dtype), device=there)
        data = synthetic(like=like, d=settings.d, r=settings.r, n=settings.rows, nu=settings.nu, seed=settings.seed)
        x, y = data.start(np.random.default_rng([settings.seed, 1]))
        yield Experiment(backend, chosen, settings, data, x, y)


def _device(backend: Backend, wanted: str | None) -> tuple[str, Any]:
    """The device by its name; `cuda` means `cuda:0`. None: the framework's own choice."""
    found = devices(backend)
    if wanted is None:
        made = backend.device(backend.asarray(np.zeros((), dtype=np.float32)))
        return next((name for name, device in found.items() if device == made), str(made)), None
    for name in (wanted.lower(), f"{wanted.lower()}:0"):
        if name in found:
            return name, found[name]
    raise CommandError(f"--device {wanted}: {backend.name} has no such device here; there is {', '.join(found)}")


@dataclass
class Outcome:
    """What a run left behind: its result, the method's state at the start, times, and the warnings met."""

    result: Result
    first: Any
    compile_seconds: float | None
    warnings: list[str] = field(default_factory=list)


def measured_run(made: Experiment, *, progress: bool) -> Outcome:
    """The run; one that is interrupted ends with the last finite state and the reason "interrupted".

    On JAX two steps are taken first and thrown away, so that compiling is timed apart from running. Raises
    `KeyboardInterrupt` when it is interrupted before the first hypergradient.
    """
    problem, method, states, records = made.problem, made.settings.method(), [], []

    def keep(record: Any, state: Any) -> None:
        states[1:] = [state]
        records.append(record)

    with warnings.catch_warnings(record=True, action="always", category=ConvergenceWarning) as met:
        compile_seconds = None
        try:
            if made.backend.name == "jax":
                begin = time.perf_counter()
                run(problem, made.x, made.y, method=method, steps=min(2, made.settings.steps))
                compile_seconds = time.perf_counter() - begin
            options = {"method": method, "steps": made.settings.steps, "progress": progress, "callback": keep}
            result = run(problem, made.x, made.y, **options)
        except KeyboardInterrupt:
            if not states:
                raise
            last = states[-1]
            result = Result(last.x, last.y, last.value, last.gradient, False, "interrupted", records)
    if compile_seconds is not None:
        compile_seconds = max(0.0, compile_seconds - result.history[min(2, result.steps)].seconds)
    return Outcome(result, states[0], compile_seconds, list(dict.fromkeys(str(one.message) for one in met)))
