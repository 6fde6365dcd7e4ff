"""The linear program of a closed tape, run forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .core import Tape
from .folding import fold

#: A program that was applied so often is folded before it is applied again: by then it has cost about as much
#: as folding does, so that at worst the work is doubled.
FOLD_AFTER = 5


class Program:
    """The linear map from chosen inputs of a closed tape to chosen nodes: what these do not need is dropped."""

    __slots__ = ("applied", "forward", "inputs", "ns", "outputs", "steps")

    def __init__(self, tape: Tape, inputs: Sequence[int], outputs: Sequence[int | None], *, all_inputs: bool = True):
        wanted = {i for i in outputs if i is not None}
        nodes, steps = tape.nodes, []
        for i in range(max(wanted, default=-1), -1, -1):
            if i in wanted:
                parents, maps = nodes[i]
                if parents:
                    wanted.update(parents)
                    steps.append((i, parents, maps))
        if not all_inputs:
            steps = _reached(steps, inputs)
        self.ns, self.applied, self.forward = tape.ns, 0, (None, [])
        self.steps, self.inputs, self.outputs = steps, tuple(inputs), tuple(outputs)

    def _ready(self, given: Sequence[Any]) -> list[Any]:
        """The steps, last node first; after a few applications in as few as it takes."""
        self.applied = times = self.applied + 1
        if times == FOLD_AFTER + 1:
            self.steps = fold(self.ns, self.steps, self.outputs, given)
        return self.steps

    def pull(self, cotangents: Sequence[Any]) -> list[Any]:
        """Cotangents of the outputs -> cotangents of the inputs; None where zero."""
        at: dict[int, Any] = {}
        for i, c in zip(self.outputs, cotangents, strict=True):
            if i is not None and c is not None:
                at[i] = at[i] + c if i in at else c
        pop = at.pop
        for i, parents, maps in self._ready(cotangents):
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

    def _forward(self, given: Sequence[Any]) -> list[Any]:
        """The steps, first node first, each with the nodes that are needed there for the last time."""
        steps = self._ready(given)
        known, found = self.forward
        if known is not steps:
            later, found = set(self.outputs), []
            for i, parents, maps in steps:
                found.append((i, parents, maps, [p for p in parents if p not in later]))
                later.update(parents)
            found.reverse()
            self.forward = steps, found
        return found

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """Tangents of the inputs -> tangents of the outputs; None where zero."""
        at = {i: t for i, t in zip(self.inputs, tangents, strict=True) if t is not None and i >= 0}
        get, pop = at.get, at.pop
        for i, parents, maps, done in self._forward(tangents):
            if type(maps) is not tuple:
                if any(p in at for p in parents):
                    at[i] = maps.push([get(p) for p in parents])
            else:
                total = None
                for p, m in zip(parents, maps, strict=True):
                    t = get(p)
                    if t is not None:
                        t = m.push(t)
                        total = t if total is None else total + t
                if total is not None:
                    at[i] = total
            for p in done:
                pop(p, None)
        return [None if i is None else get(i) for i in self.outputs]


def _reached(steps: list[Any], inputs: Sequence[int]) -> list[Any]:
    """The steps, last node first, that some of the inputs lead to."""
    found, kept = set(inputs), []
    for i, parents, maps in reversed(steps):
        edges = [k for k, p in enumerate(parents) if p in found]
        if not edges:
            continue
        found.add(i)
        if type(maps) is tuple and len(edges) < len(parents):
            parents, maps = tuple(parents[k] for k in edges), tuple(maps[k] for k in edges)
        kept.append((i, parents, maps))
    kept.reverse()
    return kept
