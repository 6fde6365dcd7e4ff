"""The tape: the record of what was done to traced arrays, and the linear program that the record is.

Differentiating `f` at x means: give f an array that remembers. A `Traced` array holds a plain value and
the index of a node on a `Tape`; every differentiable function computes its value and appends one node,
which says of each traced argument by which *linear map* its tangent enters the tangent of the result. The
list of nodes is a straight-line linear program. Run forwards (`push`) it is the derivative, run backwards
with every map transposed (`pull`) it is the gradient; both may be run any number of times, and nothing
nonlinear is computed again.

Nesting. Each tape has a level, larger than that of every tape older than it; a function acts on the
arguments of the highest level among them, and calls itself for the levels below. The value of a traced
array and the constants inside a linear map may thus be traced on older tapes: that is what higher
derivatives are, and why perturbations cannot be confused. Operations ask no stack of active tapes and no other
global state: an exception leaves nothing behind, and threads do not meet.

The maps hold arrays by reference, as they were given: an array that is written to in place after it was
used gives wrong derivatives. Traced arrays refuse such writes; NumPy's own arrays cannot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from .array import Traced, substitute, top_tape
from .maps import Fitted
from .refusals import leaked

_levels = itertools.count(1)


class Tape:
    """One recording. `nodes[i] = (parents, maps)`: the tangent of node i is Σ maps[k].push(tangent of
    parents[k]).
    """

    __slots__ = ("backend", "is_open", "kind", "level", "nodes", "ns", "substitutes")

    def __init__(self, backend: Any):
        self.backend = backend
        self.ns = backend.traced_namespace
        self.kind = backend.traced_kind
        self.level = next(_levels)
        self.nodes: list[tuple[tuple[int, ...], Any]] = []
        self.is_open = True
        #: while a function is hoisted: what stands in for which traced array of this tape
        self.substitutes: Callable[[Traced], Any] | None = None

    def input(self, value: Any) -> Traced:
        """A fresh independent variable."""
        return self.record(value, (), ())

    def record(self, value: Any, parents: tuple[int, ...], maps: Any) -> Traced:
        """A traced array of this value, whose tangent is Σ maps[k].push(tangent of parents[k])."""
        nodes = self.nodes
        nodes.append((parents, maps))
        return self.kind(value, self, len(nodes) - 1)

    def constant(self, value: Any) -> Any:
        """`value`, which came of arrays of this tape and has no tangent."""
        return value

    def hidden(self, parents: tuple[int, ...], maps: Any) -> int:
        """The index of a node that has a tangent but no value: an intermediate result of several outputs."""
        self.nodes.append((parents, maps))
        return len(self.nodes) - 1


class Constants(Tape):
    """The tape of arrays that are wrapped without being differentiated: level 0, and it records nothing."""

    __slots__ = ()

    def __init__(self, backend: Any, ns: Any):
        super().__init__(backend)
        self.ns, self.level = ns, 0

    def record(self, value: Any, parents: tuple[int, ...], maps: Any) -> Traced:
        """`value`, wrapped."""
        return self.kind(value, self, -1)

    def constant(self, value: Any) -> Any:
        """`value`, wrapped if it is an array."""
        return self.ns.wrap(value)


class Primitive:
    """A function with one output and a derivative rule: rules[i](ns, out, *args, **static) -> Map for
    argument i.

    Arrays are the first arguments, as many as there are rules; what else is given by position gets its
    name from
    `names`, and keywords are static. With `elementwise`, shapes broadcast and dtypes promote, and the maps
    are fitted to the arguments' own shape and dtype here, once for all rules.
    """

    __slots__ = ("count", "elementwise", "name", "names", "raw", "rules")

    def __init__(
        self,
        name: str,
        raw: Callable[..., Any],
        rules: tuple,
        *,
        elementwise: bool = False,
        names: tuple[str, ...] = (),
    ):
        self.name, self.raw, self.rules, self.elementwise, self.names = name, raw, rules, elementwise, names
        self.count = len(rules)

    def __call__(self, *args: Any, **static: Any) -> Any:
        top = None
        for a in args:
            if isinstance(a, Traced):
                tape = a._tape
                if tape.substitutes is not None:
                    args = tuple(substitute(args))
                    top = top_tape(args)
                    break
                if top is None or tape.level > top.level:
                    top = tape
        if top is None:
            return self.raw(*args, **static)
        if not top.is_open:
            raise leaked(self.name)
        if len(args) > self.count:
            static.update(zip(self.names, args[self.count :], strict=False))
            args = args[: self.count]
        low, nested, operands = [], False, top.ns.operands
        for a in args:
            if isinstance(a, Traced):
                if a._tape is top:
                    a = a.value
                if isinstance(a, Traced):
                    nested = True
            elif type(a) not in operands:
                return self(*map(top.ns.operand, args), **static)
            low.append(a)
        out = self(*low, **static) if nested else self.raw(*low, **static)
        if type(out) is complex:  # of a Python complex number and a NumPy scalar, which is a Python float as well
            out = top.backend.asarray(out)
        return self._record(top, args, low, out, static) if top.level else top.constant(out)

    def _record(self, top: Tape, args: Sequence[Any], low: list[Any], out: Any, static: dict[str, Any]) -> Any:
        ns, parents, maps = top.ns, [], []
        for a, rule in zip(args, self.rules, strict=False):
            if isinstance(a, Traced) and a._tape is top:
                linear = rule(ns, out, *low, **static)
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
    """A function of one array with several outputs: rule(ns, outs, x) -> hidden map, [map of each output
    or None].

    The hidden map takes the tangent of x to an intermediate result that the outputs' maps start from, so that
    what they share is computed once.
    """

    __slots__ = ("name", "raw", "rule")

    def __init__(self, name: str, raw: Callable[..., Any], rule: Callable[..., Any]):
        self.name, self.raw, self.rule = name, raw, rule

    def __call__(self, x: Any, /, **static: Any) -> Any:
        (x,) = substitute((x,))
        if not isinstance(x, Traced):
            return self.raw(x, **static)
        tape = x._tape
        if not tape.is_open:
            raise leaked(self.name)
        outs = self(x.value, **static)
        if not tape.level:
            return tape.constant(outs)
        hidden_map, maps = self.rule(tape.ns, outs, x.value, **static)
        hidden = tape.hidden((x._index,), (hidden_map,))
        pairs = zip(outs, maps, strict=True)
        traced = [o if m is None else tape.record(o, (hidden,), (m,)) for o, m in pairs]
        return type(outs)(*traced) if hasattr(outs, "_fields") else tuple(traced)
