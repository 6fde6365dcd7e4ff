"""docs/hypergradients.md: its blocks for PyTorch and JAX run, and its tables name what there is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import nestfold as nf
from nestfold.testing._usable import double_precision

PAGE = (Path(__file__).parents[1] / "docs" / "hypergradients.md").read_text(encoding="utf-8")


def shown_and_printed(framework):
    """What the page shows below each block of a framework, and what the block prints."""
    pytest.importorskip(framework)
    blocks = re.findall(rf"^```python {framework}\n(.*?)^```\n\n```text\n(.*?)^```\n", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for code, shown in blocks:
        told = io.StringIO()
        with contextlib.redirect_stdout(told), double_precision(framework):
            exec(compile(code, "docs/hypergradients.md", "exec", dont_inherit=True), {"__name__": "page"})
        yield shown, told.getvalue()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_blocks_of_other_frameworks(framework):
    for shown, printed in shown_and_printed(framework):
        assert printed == shown


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("| level | its answer", nf.Level),
        ("| linear solver | for", nf.LinearSolver),
        ("| estimator | cost", nf.Estimator),
        ("| solver | for", nf.Solver),
    ],
    ids=["levels", "linear solvers", "estimators", "solvers"],
)
def test_the_tables_are_complete(header, kind):
    """Every public class of a kind is in its table, and everything named there is public."""
    start = PAGE.index(header)
    table = PAGE[start : PAGE.index("\n\n", start)].splitlines()[2:]
    named = {name for line in table for name in re.findall(r"`([A-Z]\w+)", line.split("|")[1])}
    public = {
        name
        for name, value in vars(nf).items()
        if isinstance(value, type) and issubclass(value, kind) and not getattr(value, "__abstractmethods__", None)
    }
    nested = {"Flattened"}  # told in the section on more than two levels
    assert public - nested <= named
    assert all(hasattr(nf, name) for name in named)
