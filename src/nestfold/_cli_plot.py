"""`nestfold run --plot FILE`: the objective and the norm of the hypergradient against the outer steps."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

from ._cli_output import CommandError, write_atomically

_BLUE, _ORANGE, _GRAY = "#0072b2", "#d55e00", "#555555"


def check_plot(name: str) -> None:
    """Raise `CommandError` unless matplotlib is there and knows the kind of file."""
    kinds = _figure().canvas.get_supported_filetypes()
    if _kind(name) not in kinds:
        raise CommandError(f"--plot {name}: matplotlib knows no such kind of file; end the name in .png, .pdf or .svg")


def _figure() -> Any:
    """An empty figure: matplotlib's own classes, none of pyplot's global state."""
    try:
        figure = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise CommandError("--plot needs matplotlib, which is not installed: pip install 'nestfold[cli]'") from error
    return figure(figsize=(10.0, 4.2), layout="constrained")


def _kind(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")


def write_plot(name: str, told: dict[str, Any], tolerance: float) -> None:
    """Draw what `run` told, and write it whole or not at all."""
    figure, settings, history = _figure(), told["settings"], told["history"]
    left, right = figure.subplots(1, 2)
    steps = [record["step"] for record in history]
    style = {"marker": "o", "markersize": 3.5, "linewidth": 1.4, "clip_on": False, "zorder": 3}
    left.plot(steps, [r["value"] for r in history], color=_BLUE, label="upper cost at the lower answer", **style)
    left.axhline(told["objective"], color=_GRAY, linestyle="--", linewidth=1, label="exact objective at the result")
    left.set(ylabel="objective", title="Objective")
    norms = [r["gradient_norm"] if r["gradient_norm"] > 0 else float("nan") for r in history]
    right.semilogy(steps, norms, color=_ORANGE, label="norm of the hypergradient", **style)
    limit = tolerance * max(1.0, abs(told["value"]))
    right.axhline(limit, color=_GRAY, linestyle="--", linewidth=1, label=f"tolerance, {limit:.1e}")
    right.set(ylabel="norm in the Stiefel metric", title="Riemannian hypergradient")
    for axes in (left, right):
        axes.set_xlabel("outer step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", frameon=True, framealpha=0.9, fontsize=9)
    sizes = ", ".join(f"{key} = {settings[key]}" for key in ("d", "r", "n", "seed"))
    where = f"{settings['backend']}, {settings['dtype']}, {settings['estimator']}"
    figure.suptitle(f"nestfold run {settings['problem']}: {where}; {sizes}; {told['seconds']:.2g} s", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_kind(name), dpi=150)
    write_atomically(name, buffer.getvalue())
