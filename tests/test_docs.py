"""Pages of the docs that are executed: each block of Python, in order, prints the block of text below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import nestfold as nf
from nestfold import manifolds
from nestfold.testing import laws
from nestfold.testing.cases import CASES

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]\d+)?")
#: what counts up from run to run
COUNTER = re.compile(r"level=\d+")
EXECUTED = ["automatic_differentiation.md", "manifolds.md", "hypergradients.md", "add_a_manifold.md", "migrating.md"]


def normalized(text):
    """The words, and the numbers apart: last digits depend on the machine."""
    text = COUNTER.sub("level=#", text)
    return NUMBER.sub("#", text).split(), [float(n) for n in NUMBER.findall(text)]


@pytest.mark.parametrize("page", EXECUTED)
def test_the_page_prints_what_it_shows(page):
    scope = {"__name__": "page"}
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(blocks) > 5
    for code, shown in blocks:
        told = io.StringIO()
        with contextlib.redirect_stdout(told), np.printoptions(precision=8):
            exec(compile(code, page, "exec", dont_inherit=True), scope)
        words, numbers = normalized(told.getvalue())
        wanted_words, wanted_numbers = normalized(shown)
        assert words == wanted_words, f"{code}\nprinted\n{told.getvalue()}"
        assert np.allclose(numbers, wanted_numbers, rtol=1e-7, atol=1e-8), f"{code}\nprinted\n{told.getvalue()}"


# -- the tables of docs/manifolds.md and docs/migrating.md ---------------------------------------------------
KINDS = [nf.Exponential, nf.Logarithmic, nf.Geodesic, nf.InverseRetraction, nf.Curvature, nf.Quotient]
#: made of others: of the kinds of their parts, in a table of their own
MADE_OF_OTHERS = {"Product", "Scaled", "Pulled", "WithMetric", "Embedded", "Checked"}


def rows(page, header):
    """The cells of the table whose header line begins so, without the header."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        yield [cell.strip() for cell in cells]


def class_name(cell):
    found = re.match(r"`([A-Za-z]+)", cell)
    assert found is not None, cell
    return found.group(1)


def cases_by_class():
    found: dict[str, list] = {}
    for case in CASES.values():
        like = case.like(np.zeros(()))
        manifold = case.make(like)
        found.setdefault(type(manifold).__name__, []).append((case, manifold))
    return found


CAPABILITIES = list(rows("manifolds.md", "| manifold | points | metric"))


def test_every_manifold_is_in_the_table():
    named = [class_name(row[0]) for row in CAPABILITIES]
    assert len(named) == len(set(named))
    found = set(cases_by_class())
    exported = {
        name
        for name, value in vars(manifolds).items()
        if isinstance(value, type)
        and issubclass(value, nf.Manifold)
        and not getattr(value, "__abstractmethods__", None)
    }
    assert set(named) == (found | exported) - MADE_OF_OTHERS
    assert {class_name(row[0]) for row in rows("manifolds.md", "| construction | is |")} == MADE_OF_OTHERS


@pytest.mark.parametrize("row", CAPABILITIES, ids=[class_name(row[0]) for row in CAPABILITIES])
def test_the_table_of_capabilities(row, rng):
    """Kinds and parameters are those of the class; what is said to take complex points obeys the laws with them."""
    for case, manifold in cases_by_class()[class_name(row[0])]:
        marks = row[3 : 3 + len(KINDS)]
        assert marks == ["•" if isinstance(manifold, kind) else "" for kind in KINDS]
        assert re.findall(r"`(\w+)`", row[-1]) == list(type(manifold).parameters)
        assert row[-2] in ("", "•", "only") and (row[-2] or not case.complex)
    if row[-2]:
        case, manifold = cases_by_class()[class_name(row[0])][0]
        options = {"cost": case.cost, "retraction_order": case.retraction_order, "reach": case.reach}
        laws.check_manifold(manifold, np.zeros((), np.complex128), rng, batch=(2,), **options)


def test_names_in_the_tables_of_migration_exist():
    for cell, *_ in rows("migrating.md", "| nestfold | geoopt | pymanopt | geomstats |"):
        for name in re.findall(r"`([a-z_]+)[(`]", cell):
            assert hasattr(nf.Geodesic, name) or hasattr(nf.InverseRetraction, name) or hasattr(nf.Curvature, name), (
                name
            )
    text = (DOCS / "migrating.md").read_text(encoding="utf-8")
    table = text[text.index("## Manifolds") : text.index("## A step of gradient descent")]
    for line in table.splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([A-Z]\w+)", line.split("|")[1]):
                assert hasattr(nf, name), name


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_of_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        assert (DOCS / target).exists(), target


def test_images_are_small():
    images = list((DOCS / "images").iterdir())
    assert len(images) >= 3 and all(image.stat().st_size < 100_000 for image in images)
