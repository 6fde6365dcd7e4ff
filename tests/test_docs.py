"""Pages of the docs that are executed: each block of Python, in order, prints the block of text below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]\d+)?")
#: what counts up from run to run
COUNTER = re.compile(r"level=\d+")
EXECUTED = ["automatic_differentiation.md"]


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
            exec(compile(code, page, "exec"), scope)
        words, numbers = normalized(told.getvalue())
        wanted_words, wanted_numbers = normalized(shown)
        assert words == wanted_words, f"{code}\nprinted\n{told.getvalue()}"
        assert np.allclose(numbers, wanted_numbers, rtol=1e-7, atol=1e-8), f"{code}\nprinted\n{told.getvalue()}"
