"""Draws docs/images: runs the code of docs/manifolds.md, and saves `axes` wherever the page shows an image."""

import contextlib
import io
import re
from pathlib import Path

DOCS = Path(__file__).parents[1]
PART = re.compile(r"^```python\n(.*?)^```|^!\[[^\]]*\]\((.*?)\)", flags=re.MULTILINE | re.DOTALL)

if __name__ == "__main__":
    scope: dict = {}
    for code, image in PART.findall((DOCS / "manifolds.md").read_text(encoding="utf-8")):
        if image:
            scope["axes"].figure.savefig(DOCS / image, dpi=80)
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, scope)
