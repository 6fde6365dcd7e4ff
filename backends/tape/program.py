"""The linear program of a closed tape, run forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core import Tape


class Program:
    """The linear map from the inputs of a closed tape to chosen nodes: what they do not need is dropped."""

    __slots__ = ("inputs", "outputs", "steps")

    def __init__(self, tape: Tape, inputs: Sequence[int], outputs: Sequence[int | None]):
        needed = {i for i in outputs if i is not None}
        steps = []
        for i in range(max(needed, default=-1), -1, -1):
            if i in needed:
                parents, maps = tape.nodes[i]
                if parents:
                    needed.update(parents)
                    steps.append((i, parents, maps))
        self.steps, self.inputs, self.outputs = steps, tuple(inputs), tuple(outputs)

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Cotangents of the outputs -> cotangents of the inputs; None where zero."""
        at: dict[int, Any] = {}
        for i, c in zip(self.outputs, cotangents, strict=True):
            if i is not None and c is not None:
                at[i] = at[i] + c if i in at else c
        pop = at.pop
        for i, parents, maps in self.steps:
            c = pop(i, None)
            if c is None:
                continue
            if type(maps) is not tuple:
                pulled = maps.pull(c)
            elif len(parents) == 1:
                p = parents[0]
                g = maps[0].pull(c)
                at[p] = at[p] + g if p in at else g
                continue
            else:
                pulled = [m.pull(c) for m in maps]
            for p, g in zip(parents, pulled, strict=True):
                if g is not None:
                    at[p] = at[p] + g if p in at else g
        return [at.get(i) for i in self.inputs]

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """Tangents of the inputs -> tangents of the outputs; None where zero."""
        at = {i: t for i, t in zip(self.inputs, tangents, strict=True) if t is not None and i >= 0}
        get = at.get
        for i, parents, maps in reversed(self.steps):
            if type(maps) is not tuple:
                if any(p in at for p in parents):
                    at[i] = maps.push([get(p) for p in parents])
                continue
            total = None
            for p, m in zip(parents, maps, strict=True):
                t = get(p)
                if t is not None:
                    t = m.push(t)
                    total = t if total is None else total + t
            if total is not None:
                at[i] = total
        return [None if i is None else get(i) for i in self.outputs]
