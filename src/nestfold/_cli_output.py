"""What the command line writes: tables, JSON, a picture; and files, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: `--json -` means standard output.
STANDARD_OUTPUT = "-"


class CommandError(Exception):
    """What the user asked for cannot be done; the message says in one line why, and what to do."""


def check_writable(name: str, option: str) -> None:
    """Raise `CommandError` unless a file called `name` can be made or replaced. Leaves nothing behind."""
    path = Path(name)
    if path.is_dir():
        raise CommandError(f"{option} {name}: this is a folder; name a file")
    if not path.parent.is_dir():
        raise CommandError(f"{option} {name}: there is no folder {path.parent}; make it first, or name another file")
    try:
        _temporary(path).touch(exist_ok=True)
        _temporary(path).unlink()
    except OSError as error:
        raise CommandError(f"{option} {name}: cannot write there ({error.strerror}); name another file") from error


def write_atomically(name: str, content: bytes) -> None:
    """The whole content under a temporary name, then renamed: readers see the old file or the new one."""
    path = Path(name)
    try:
        _temporary(path).write_bytes(content)
        os.replace(_temporary(path), path)
    except OSError as error:
        _temporary(path).unlink(missing_ok=True)
        raise CommandError(f"cannot write {name} ({error.strerror})") from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_json(name: str, told: Any) -> None:
    """`told` as JSON, to standard output for `-`. A number that is not finite becomes null."""
    text = json.dumps(_plain(told), indent=2, allow_nan=False) + "\n"
    if name == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        write_atomically(name, text.encode())


def _plain(told: Any) -> Any:
    """`told` as the types that JSON knows."""
    if isinstance(told, dict):
        return {str(key): _plain(value) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [_plain(value) for value in told]
    if isinstance(told, np.ndarray | np.generic):
        return _plain(told.tolist())
    if isinstance(told, float):
        return told if math.isfinite(told) else None
    return told


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows of equal length as text: the first column flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(indent + line.rstrip() for line in lines)


def facts(rows: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Names and what is known of them, in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in rows)
