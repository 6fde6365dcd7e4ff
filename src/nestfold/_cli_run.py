"""`nestfold run PROBLEM`: one run on one backend, told in full."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from ._cli_output import STANDARD_OUTPUT, CommandError, check_writable, facts, table, write_json
from ._cli_plot import check_plot, write_plot
from ._cli_problem import Experiment, Outcome, Settings, experiment, measured_run
from ._version import __version__

#: what `Result.reason` means
REASONS = {
    "tolerance": "the hypergradient is within the tolerance",
    "steps": "all steps are taken",
    "no descent": "the line search found no lower value; the accuracy of the value is exhausted",
    "not finite": "a value or gradient was not finite; this is the last finite state",
    "interrupted": "interrupted; this is the last finite state",
}


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Carry out `nestfold run`. The exit code: 0, 1 after a value that is not finite, 130 after Ctrl-C."""
    _check_files(options)
    with experiment(settings, options.backend, options.device) as made:
        silent = options.json == STANDARD_OUTPUT
        if not options.quiet and not silent:
            print(_settings_text(made), flush=True)
        outcome = measured_run(made, progress=not options.quiet)
        told = _told(made, outcome)
        tolerance = settings.method().tolerance(made.x)
    for message in outcome.warnings:
        print(f"nestfold: warning: {message}", file=sys.stderr)
    if not silent:
        print(summary_text(told))
    if options.json:
        write_json(options.json, told)
    if options.plot:
        write_plot(options.plot, told, tolerance)
    return {"interrupted": 130, "not finite": 1}.get(told["reason"], 0)


def _check_files(options: argparse.Namespace) -> None:
    """Raise `CommandError` now for what would fail after the run."""
    if options.json and options.json == options.plot:
        raise CommandError(f"--json and --plot both name {options.json}; name two files")
    if options.json and options.json != STANDARD_OUTPUT:
        check_writable(options.json, "--json")
    if options.plot:
        check_plot(options.plot)
        check_writable(options.plot, "--plot")


def _told(made: Experiment, outcome: Outcome) -> dict[str, Any]:
    """All that is known of a run, as `--json` writes it."""
    result, history = outcome.result, outcome.result.history
    value, first = float(made.numpy(result.value)), outcome.first
    ends = {"start": made.error(first.x, first.gradient), "end": made.error(result.x, result.gradient)}
    return {
        "nestfold": __version__,
        "settings": settings_told(made),
        "reason": result.reason,
        "converged": result.converged,
        "steps": result.steps,
        "value": value,
        "objective": made.objective(result.x),
        "hypergradient": ends,
        "lower_steps": sum(record.inner_steps for record in history),
        "products": sum(record.products for record in history),
        "compile_seconds": outcome.compile_seconds,
        "seconds": history[-1].seconds,
        "warnings": outcome.warnings,
        "history": [record._asdict() for record in history],
    }


def settings_told(made: Experiment) -> dict[str, Any]:
    """What the run is of."""
    s, name = made.settings, made.backend.name
    version = getattr(importlib.import_module(name), "__version__", "")
    sizes = {"d": s.d, "r": s.r, "n": s.rows, "nu": s.nu, "seed": s.seed}
    unrolled = {"unrolled_steps": s.unrolled_steps} if s.estimator == "unrolled" else {}
    where = {"backend": name, "version": version, "device": made.device, "dtype": s.dtype}
    return {"problem": s.problem, **where, "estimator": s.estimator, **unrolled, "steps": s.steps, **sizes}


def _settings_text(made: Experiment) -> str:
    told, method = settings_told(made), made.settings.method()
    ways = {
        "cg": "implicit, conjugate gradients",
        "neumann": "implicit, Neumann series",
        "dense": "implicit, the whole matrix factorized",
        "unrolled": f"through {made.settings.unrolled_steps} unrolled steps of gradient descent",
    }
    rows = [
        ("backend", f"{told['backend']} {told['version']}, {told['dtype']}, on {told['device']}"),
        ("data", ", ".join(f"{name} = {told[name]}" for name in ("d", "r", "n", "nu", "seed"))),
        ("method", f"Riemannian hypergradient descent, at most {told['steps']} steps"),
        ("hypergradient", ways[made.settings.estimator]),
        ("tolerance", f"{method.tolerance(made.x):.1e} on its norm"),
    ]
    title = "synthetic: a Stiefel manifold outside, positive definite matrices inside (Han et al. 2024, 4.1)"
    return f"{title}\n{facts(rows)}\n"


def summary_text(told: dict[str, Any]) -> str:
    """The end of a run, readably."""
    digits = 16 if told["settings"]["dtype"] == "float64" else 8
    off = abs(told["value"] - told["objective"])
    seconds = f"{told['seconds']:.2f}"
    if told["compile_seconds"] is not None:
        seconds += f", after {told['compile_seconds']:.2f} for compiling"
    rows = [
        ("value reached", f"{told['value']:.{digits}g}"),
        ("exact objective there", f"{told['objective']:.{digits}g} (difference {off:.1e})"),
        ("lower-level steps", str(told["lower_steps"])),
        ("products of linear solves", str(told["products"])),
        ("seconds", seconds),
    ]
    ends = told["hypergradient"]["start"], told["hypergradient"]["end"]
    names = {"exact norm": "norm", "error": "absolute_error", "error / exact norm": "relative_error"}
    errors = [[title, *(f"{end[key]:.2e}" for end in ends)] for title, key in names.items()]
    head = f"{told['steps']} step{'' if told['steps'] == 1 else 's'}: {REASONS[told['reason']]}"
    columns = table([["hypergradient", "at the start", "at the end"], *errors])
    return f"{head}\n{facts(rows)}\n\n{columns}"
