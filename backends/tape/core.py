"""The tape: a traced array, the record of what was done to it, and the linear program that the record is.

Differentiating `f` at x means: give f an array that remembers. A `Traced` array holds a plain value and the index of
a node on a `Tape`; every differentiable function computes its value and appends one node, which says of each traced
argument by which *linear map* its tangent enters the tangent of the result. The list of nodes is a straight-line
linear program. Run forwards (`push`) it is the derivative, run backwards with every map transposed (`pull`) it is the
gradient; both may be run any number of times, and nothing nonlinear is computed again.

Nesting. Each tape has a level, larger than that of every tape older than it; a function acts on the arguments of
the highest level among them, and calls itself for the levels below. The value of a traced array and the
constants inside a linear map may thus be traced on older tapes: that is what higher derivatives are, and why
perturbations cannot be confused. There is no stack of active tapes and no other global state: an exception
leaves nothing behind, and threads do not meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .._errors import NoDerivativeError
from .maps import Fitted, Joint, Map, Packed, Select

_levels = itertools.count(1)


class Tape:
    """One recording. `nodes[i] = (parents, maps)`: the tangent of node i is Σ maps[k].push(tangent of parents[k])."""

    __slots__ = ("backend", "is_open", "kind", "level", "nodes", "ns", "substitutes")

    def __init__(self, backend: Any):
        self.backend = backend
        self.ns = backend.traced_namespace
        self.kind = backend.traced_kind
        self.level = next(_levels)
        self.nodes: list[tuple[tuple[int, ...], Any]] = []
        self.is_open = True
        #: while a function is hoisted: what stands in for which traced array of this tape, by id
        self.substitutes: Callable[[Traced], Any] | None = None

    def input(self, value: Any) -> Traced:
        """A fresh independent variable."""
        return self.record(value, (), ())

    def record(self, value: Any, parents: tuple[int, ...], maps: Any) -> Traced:
        """A traced array of this value, whose tangent is Σ maps[k].push(tangent of parents[k])."""
        nodes = self.nodes
        nodes.append((parents, maps))
        return self.kind(value, self, len(nodes) - 1)

    def hidden(self, parents: tuple[int, ...], maps: Any) -> int:
        """The index of a node that has a tangent but no value: an intermediate result of several outputs."""
        self.nodes.append((parents, maps))
        return len(self.nodes) - 1


class Traced:
    """An array that is being differentiated: a value and its place on a tape.

    Its operators, methods and NumPy protocols are attached by `array.py`, which needs the namespace. Backends make
    instances of a leaf class: `TracedArray`, or one of their own where constants would not yield to it in `a @ y`.
    """

    __slots__ = ()
    value: Any
    _tape: Tape
    _index: int


class TracedArray(Traced):
    """A traced array as NumPy sees it."""

    __slots__ = ("__weakref__", "_index", "_tape", "value")

    def __init__(self, value: Any, tape: Tape, index: int):
        self.value = value
        self._tape = tape
        self._index = index


def raw(value: Any) -> Any:
    """`value` without any tracing, whatever its nesting."""
    while isinstance(value, Traced):
        value = value.value
    return value


def substitute(args: Sequence[Any]) -> list[Any]:
    """`args` with the stand-ins of a hoisted function put in place of the arrays that it captured."""
    return [
        a._tape.substitutes(a) if isinstance(a, Traced) and a._tape.substitutes is not None else a for a in args
    ]


def top_tape(args: Sequence[Any]) -> Tape | None:
    """The youngest tape among the traced arguments."""
    top = None
    for a in args:
        if isinstance(a, Traced) and (top is None or a._tape.level > top.level):
            top = a._tape
    return top


@contextmanager
def substituting(stand_ins: dict[Tape, Callable[[Traced], Any]]) -> Iterator[None]:
    """Let `stand_ins[tape](traced)` take the place of traced arrays of these tapes."""
    before = {tape: tape.substitutes for tape in stand_ins}
    try:
        for tape, stand_in in stand_ins.items():
            tape.substitutes = stand_in
        yield
    finally:
        for tape, old in before.items():
            tape.substitutes = old


def leaked(name: str) -> NoDerivativeError:
    """The error for a traced array that outlived its derivative."""
    return NoDerivativeError(
        f"{name} met an array that was being differentiated by a call of grad, vjp or linearize which has "
        "returned: do not keep such arrays in globals, attributes or lists; return them from the function instead"
    )


class Primitive:
    """A function with one output and a derivative rule: rules[i](ns, out, *args, **static) -> Map for argument i.

    All array arguments are positional; keywords are static. With `elementwise`, shapes broadcast and dtypes
    promote, and the maps are fitted to the arguments' own shape and dtype here, once for all rules.
    """

    __slots__ = ("elementwise", "name", "raw", "rules")

    def __init__(self, name: str, raw: Callable[..., Any], rules: tuple, elementwise: bool):
        self.name, self.raw, self.rules, self.elementwise = name, raw, rules, elementwise

    def __call__(self, *args: Any, **static: Any) -> Any:
        top = None
        for a in args:
            if isinstance(a, Traced):
                tape = a._tape
                if tape.substitutes is not None:
                    return self._trace(substitute(args), static)
                if top is None or tape.level > top.level:
                    top = tape
        if top is None:
            return self.raw(*args, **static)
        return self._trace(args, static, top)

    def _trace(self, args: Sequence[Any], static: dict[str, Any], top: Tape | None = None) -> Any:
        top = top or top_tape(args)
        if top is None:
            return self.raw(*args, **static)
        if not top.is_open:
            raise leaked(self.name)
        low = [a.value if isinstance(a, Traced) and a._tape is top else a for a in args]
        out = self(*low, **static)
        ns, rules, parents, maps = top.ns, self.rules, [], []
        for i, a in enumerate(args):
            if isinstance(a, Traced) and a._tape is top:
                linear = rules[i if i < len(rules) else -1](ns, out, *low, **static)
                if linear is None:
                    continue
                if self.elementwise:
                    value = a.value
                    if value.shape != out.shape or value.dtype != out.dtype:
                        linear = Fitted(ns, linear, value, out)
                parents.append(a._index)
                maps.append(linear)
        if not parents:
            return out
        nodes = top.nodes
        nodes.append((tuple(parents), tuple(maps)))
        return top.kind(out, top, len(nodes) - 1)


class MultiPrimitive:
    """A function of one array with several outputs: rule(ns, outs, x) -> hidden map, [map of each output or None].

    The hidden map takes the tangent of x to an intermediate result that the outputs' maps start from, so that
    what they share is computed once.
    """

    __slots__ = ("name", "raw", "rule")

    def __init__(self, name: str, raw: Callable[..., Any], rule: Callable[..., Any]):
        self.name, self.raw, self.rule = name, raw, rule

    def __call__(self, x: Any, **static: Any) -> Any:
        (x,) = substitute((x,))
        if not isinstance(x, Traced):
            return self.raw(x, **static)
        tape = x._tape
        if not tape.is_open:
            raise leaked(self.name)
        outs = self(x.value, **static)
        hidden_map, maps = self.rule(tape.ns, outs, x.value, **static)
        hidden = tape.hidden((x._index,), (hidden_map,))
        traced = [o if m is None else tape.record(o, (hidden,), (m,)) for o, m in zip(outs, maps, strict=True)]
        return type(outs)(*traced) if hasattr(outs, "_fields") else tuple(traced)


def call_with_rule(
    function: Callable[..., list[Any]],
    pushforward: Callable[..., list[Any]],
    pullback: Callable[..., list[Any]],
    args: Sequence[Any],
) -> list[Any]:
    """A function of a list of arrays to a list of arrays, with its derivative given.

    `pushforward(args, outs, tangents)` and `pullback(args, outs, cotangents, needs)` work on lists, in which
    None stands for zero (tangents, cotangents) and for not wanted (the result of `pullback`).
    """
    args = substitute(args)
    top = top_tape(args)
    if top is None:
        return function(args)
    if not top.is_open:
        raise leaked("a function with a custom derivative")
    low = [a.value if isinstance(a, Traced) and a._tape is top else a for a in args]
    outs = call_with_rule(function, pushforward, pullback, low)
    places = [i for i, a in enumerate(args) if isinstance(a, Traced) and a._tape is top]
    needs = [i in places for i in range(len(args))]

    def push(tangents: list[Any]) -> Packed:
        given = dict(zip(places, tangents, strict=True))
        return Packed(pushforward(low, outs, [given.get(i) for i in range(len(args))]))

    def pull(cotangents: Packed) -> list[Any]:
        wanted = pullback(low, outs, cotangents.items, needs)
        return [wanted[i] for i in places]

    parents = tuple(args[i]._index for i in places)
    joint = top.hidden(parents, Joint(push, pull))
    return [
        top.record(o, (joint,), (Select(k, len(outs)),)) if top.backend.is_inexact(o) else o
        for k, o in enumerate(outs)
    ]


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
            if type(maps) is tuple:
                if len(parents) == 1:
                    p = parents[0]
                    g = maps[0].pull(c)
                    at[p] = at[p] + g if p in at else g
                    continue
                pulled = [m.pull(c) for m in maps]
            else:
                pulled = maps.pull(c)
            for p, g in zip(parents, pulled, strict=True):
                if g is not None:
                    at[p] = at[p] + g if p in at else g
        return [at.get(i) for i in self.inputs]

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """Tangents of the inputs -> tangents of the outputs; None where zero."""
        at = {i: t for i, t in zip(self.inputs, tangents, strict=True) if t is not None}
        for i, parents, maps in reversed(self.steps):
            if type(maps) is tuple:
                total = None
                for p, m in zip(parents, maps, strict=True):
                    t = at.get(p)
                    if t is not None:
                        t = m.push(t)
                        total = t if total is None else total + t
                if total is not None:
                    at[i] = total
            elif any(p in at for p in parents):
                at[i] = maps.push([at.get(p) for p in parents])
        return [None if i is None else at.get(i) for i in self.outputs]


__all__ = ["Map", "MultiPrimitive", "Primitive", "Program", "Tape", "Traced", "call_with_rule", "raw"]
