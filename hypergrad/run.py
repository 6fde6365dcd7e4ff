"""The one loop: progress bar, history, callback, and a stop at the last finite state."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from ..backends import Backend, ConvergenceWarning, ShapeError
from ..backends._trees import leaves
from .hypergradient import NOT_DIFFERENTIABLE, check_captured, check_problem, prepared
from .methods import RHGD, Method, State
from .nested import Bilevel, Nested
from .nested._joint import reduce_method

Tree = Any


class Record(NamedTuple):
    """One line of the history; of a batch of problems: the mean value, the largest norm, the most steps.

    `step` 0 is the start. `inner_steps` counts the lower solver's steps, those of all points that the line search
    tried included, `products` those of the linear solve; `seconds` since the start of the run.
    """

    step: int
    value: float
    gradient_norm: float
    step_size: float
    inner_steps: int
    products: int
    seconds: float


@dataclass
class Result:
    """Where a run ended: points, hypergradient, history, and why it stopped."""

    x: Tree
    y: Tree
    value: Any
    gradient: Tree
    converged: bool
    reason: str
    history: list[Record] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The number of outer steps taken."""
        return self.history[-1].step


def run(
    problem: Bilevel | Nested,
    x0: Tree,
    y0: Tree,
    *,
    method: Method | None = None,
    steps: int = 200,
    progress: bool = False,
    callback: Callable[[Record, State], bool | None] | None = None,
) -> Result:
    """Minimize a `Bilevel` problem from `x0`, with the lower level first solved from `y0`.

    Of a `Nested` problem `y0` and the result's `y` are tuples, from the outermost lower level inward, and the solver
    and estimator of the method are for all lower levels.

    Parameters
    ----------
    method : default `RHGD()`.
    steps : the most outer steps.
    progress : show a bar on standard error.
    callback : called with `(record, state)` after the start and after each step; a true answer stops the run.

    Returns a `Result`. `reason` is "tolerance", "steps", "callback", "no descent" (the line search found none: the
    accuracy of the value is exhausted) or "not finite" (then the result is the last finite state). Raises as
    `hypergradient` does.
    """
    method = RHGD() if method is None else method
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method, not {method!r}")
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")
    if isinstance(problem, Nested):
        problem.check_starts(y0)
        problem, method = reduce_method(problem, method)
    backend = check_problem(problem, x0, y0)
    problem.lower.manifold.check_point(y0, "y0")
    for name, point in (("x0", x0), ("y0", y0)):
        if any(0 in leaf.shape for leaf in leaves(point)):
            raise ShapeError(f"run needs at least one problem; {name} has {[tuple(a.shape) for a in leaves(point)]}")
    x0, y0 = backend.forbid_gradient((x0, y0), NOT_DIFFERENTIABLE)
    check_captured(backend, problem, x0, y0)
    first, advance = prepared(_compiled, backend, problem, method)
    begin = time.perf_counter()
    state = first(x0, y0)
    history = [_record(backend, 0, state, begin)]
    tol, start = method.tolerance(state.value), history[0]
    largest, least = max(abs(start.value), start.gradient_norm), min(1.0, start.gradient_norm)

    def met(record: Record) -> bool:
        """Whether the gradient is small against the size of the value, as in `cost_scale` of the solvers."""
        return record.gradient_norm <= tol * max(min(abs(record.value), largest), least)

    def proceed(state: State) -> tuple[State, Record]:
        new = advance(state)
        return new, _record(backend, len(history), new, begin)

    with _Bar(steps, progress) as bar:

        def report(state: State) -> bool:
            bar.show(history[-1])
            return callback is not None and bool(callback(history[-1], state))

        state, reason = _iterate(backend, state, history, steps, proceed, report, met)
    if reason == "not finite":
        warnings.warn(
            f"the run met a value or gradient that is not finite after {history[-1].step} steps and stopped at the "
            "last finite state; try smaller steps or another start",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Result(state.x, state.y, state.value, state.gradient, reason == "tolerance", reason, history)


def _iterate(
    backend: Backend,
    state: State,
    history: list[Record],
    steps: int,
    proceed: Callable[[State], tuple[State, Record]],
    report: Callable[[State], bool],
    met: Callable[[Record], bool],
) -> tuple[State, str]:
    """Step until there is a reason to stop: the last good state, and the reason. `history` grows."""
    while True:
        stopped = report(state)
        if not _finite(history[-1]):
            return state, "not finite"
        if stopped:
            return state, "callback"
        if met(history[-1]):
            return state, "tolerance"
        if len(history) > steps:
            return state, "steps"
        new, record = proceed(state)
        if not backend.to_numpy(new.good).all():
            return state, "no descent" if _finite(record) else "not finite"
        state = new
        history.append(record)


@lru_cache(maxsize=16)
def _compiled(backend: Backend, problem: Bilevel, method: Method) -> tuple[Callable, Callable]:
    def constant(function: Callable) -> Callable:
        def call(*args: Any) -> State:
            with backend.constants():
                return function(*args)

        return call

    return (
        constant(backend.jit(lambda x, y: method.init(backend, problem, x, y))),
        constant(backend.jit(lambda state: method.step(backend, problem, state))),
    )


def _record(backend: Backend, step: int, state: State, begin: float) -> Record:
    number = backend.to_numpy
    return Record(
        step=step,
        value=float(number(state.value).mean()),
        gradient_norm=math.sqrt(abs(float(number(state.slope).max()))),
        step_size=float(number(state.length).mean()),
        inner_steps=int(number(state.inner_steps)),
        products=int(number(state.products)),
        seconds=time.perf_counter() - begin,
    )


def _finite(record: Record) -> bool:
    return math.isfinite(record.value) and math.isfinite(record.gradient_norm)


class _Bar:
    """A progress bar of tqdm, or nothing."""

    def __init__(self, steps: int, wanted: bool):
        self.bar = None
        if wanted:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, unit="step", leave=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, record: Record) -> None:
        """One more step."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"value {record.value:.8g}, |gradient| {record.gradient_norm:.2e}", refresh=False)
            self.bar.update(1 if record.step else 0)
