"""`nestfold compare PROBLEM`: the same run on several backends, and how far apart they end."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Any

import numpy as np

from ._cli_output import STANDARD_OUTPUT, CommandError, check_writable, table, write_json
from ._cli_problem import Experiment, Settings, experiment, measured_run
from ._cli_run import settings_told
from ._version import __version__
from .testing import BACKENDS, usable_backend, usable_backends

#: what is compared, once after one hypergradient and once at the end of the run
QUANTITIES = ("value", "hypergradient", "lower solution", "outer point")


def compare(options: argparse.Namespace, settings: Settings) -> int:
    """Carry out `nestfold compare`."""
    names = chosen_backends(options.backends)
    if options.json and options.json != STANDARD_OUTPUT:
        check_writable(options.json, "--json")
    runs = []
    for name in names:
        if not options.quiet:
            print(f"running on {name} ...", file=sys.stderr, flush=True)
        runs.append(_measure(settings, name))
    told = {
        "nestfold": __version__,
        "runs": runs,
        "differences": [_difference(runs, when, what) for when in ("start", "end") for what in QUANTITIES],
    }
    for one in runs:
        for when in ("start", "end"):
            del one[when]["arrays"]
        for message in one["warnings"]:
            print(f"nestfold: warning: {one['settings']['backend']}: {message}", file=sys.stderr)
    if options.json != STANDARD_OUTPUT:
        print(_text(told, settings))
    if options.json:
        write_json(options.json, told)
    return 0


def chosen_backends(wanted: str | None) -> tuple[str, ...]:
    """The backends to compare: by default all that can compute here. `CommandError` for less than two."""
    if wanted is None:
        names = usable_backends()
        missing = f"only {', '.join(names)} can compute here; pip install 'nestfold[torch,jax]' brings two more"
    else:
        names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))
        missing = f"--backends {wanted} names {len(names)}"
        unknown = [name for name in names if name not in BACKENDS]
        if unknown:
            raise CommandError(f"--backends: no backend is called {unknown[0]!r}; there are {', '.join(BACKENDS)}")
        for name in names:
            usable_backend(name)
    if len(names) < 2:
        raise CommandError(f"compare needs at least two backends; {missing}")
    return names


def _measure(settings: Settings, name: str) -> dict[str, Any]:
    """One run, and the arrays to compare as NumPy's float64."""
    with experiment(settings, name) as made:
        outcome = measured_run(made, progress=False)
        result, first = outcome.result, outcome.first
        if result.reason == "interrupted":
            raise KeyboardInterrupt
        return {
            "settings": settings_told(made),
            "reason": result.reason,
            "steps": result.steps,
            "compile_seconds": outcome.compile_seconds,
            "seconds": result.history[-1].seconds,
            "warnings": outcome.warnings,
            "start": _state(made, first.value, first.gradient, first.y, first.x),
            "end": _state(made, result.value, result.gradient, result.y, result.x),
        }


def _state(made: Experiment, *state: Any) -> dict[str, Any]:
    """Value, hypergradient, lower solution and outer point: numbers to tell, and the arrays to compare."""
    arrays = dict(zip(QUANTITIES, map(made.numpy, state), strict=True))
    return {
        "value": float(arrays["value"]),
        "hypergradient_norm": float(np.linalg.norm(arrays["hypergradient"])),
        "hypergradient_error": made.error(state[3], state[1])["absolute_error"],
        "solution_norm": float(np.linalg.norm(arrays["lower solution"])),
        "arrays": arrays,
    }


def _difference(runs: list[dict[str, Any]], when: str, what: str) -> dict[str, Any]:
    """The largest entry of the difference of two backends, over all pairs, with the pair.

    `relative` is divided by the largest entry of the quantity itself.
    """
    found = {one["settings"]["backend"]: one[when]["arrays"][what] for one in runs}
    size = max(float(np.max(np.abs(a))) for a in found.values())
    gaps = {pair: float(np.max(np.abs(found[pair[0]] - found[pair[1]]))) for pair in itertools.combinations(found, 2)}
    pair = max(gaps, key=gaps.__getitem__)
    relative = gaps[pair] / size if size else 0.0
    return {
        "when": when,
        "quantity": what,
        "absolute": gaps[pair],
        "relative": relative,
        "between": list(pair),
    }


def _text(told: dict[str, Any], settings: Settings) -> str:
    s, heads = settings, {"start": "after one hypergradient", "end": f"after at most {settings.steps} steps"}
    sizes = f"d = {s.d}, r = {s.r}, n = {s.rows}, nu = {s.nu}, seed = {s.seed}"
    parts = [f"{s.problem}, {s.dtype}, estimator {s.estimator}, {sizes}"]
    for when, title in heads.items():
        parts += [title, _states_table(told["runs"], when, 16 if s.dtype == "float64" else 8)]
    parts += ["runs", _runs_table(told["runs"])]
    for when, title in heads.items():
        gaps = [gap for gap in told["differences"] if gap["when"] == when]
        parts += [f"largest difference {title}", _gaps_table(gaps)]
    return parts[0] + "".join(f"\n\n{title}\n{rows}" for title, rows in zip(parts[1::2], parts[2::2], strict=True))


def _states_table(runs: list[dict[str, Any]], when: str, digits: int) -> str:
    rows = [["backend", "value", "norm of hypergradient", "its error", "norm of M"]]
    for one in runs:
        state = one[when]
        numbers = (f"{state['hypergradient_norm']:.6e}", f"{state['hypergradient_error']:.1e}")
        cells = (f"{state['value']:.{digits}g}", *numbers, f"{state['solution_norm']:.6f}")
        rows.append([one["settings"]["backend"], *cells])
    return table(rows)


def _runs_table(runs: list[dict[str, Any]]) -> str:
    rows = [["backend", "steps", "end", "compiling", "running"]]
    for one in runs:
        compiling = "-" if one["compile_seconds"] is None else f"{one['compile_seconds']:.2f} s"
        cells = (str(one["steps"]), one["reason"], compiling, f"{one['seconds']:.2f} s")
        rows.append([one["settings"]["backend"], *cells])
    return table(rows)


def _gaps_table(gaps: list[dict[str, Any]]) -> str:
    rows = [["quantity", "absolute", "relative", "between"]]
    for gap in gaps:
        pair = " and ".join(gap["between"]) if gap["absolute"] else "-"
        rows.append([gap["quantity"], f"{gap['absolute']:.1e}", f"{gap['relative']:.1e}", pair])
    return table(rows)
