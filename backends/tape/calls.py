"""Functions of one and of two arrays: what `Primitive` does for any number of them, without its loops.

Costs are mostly made of these, and on small arrays the tape takes longer than the arithmetic. Whatever is not
the common case, arrays of open tapes that nothing stands in for, is left to `Primitive`.
"""

from __future__ import annotations

from typing import Any

from .array import Traced
from .core import Primitive
from .maps import Fitted, Map


def make_primitive(name: str, raw: Any, rules: tuple, **options: Any) -> Primitive:
    """A `Primitive`, of the kind that is fastest for its number of arguments."""
    return {1: Unary, 2: Binary}.get(len(rules), Primitive)(name, raw, rules, **options)


class Unary(Primitive):
    """A function of one array."""

    __slots__ = ()

    def __call__(self, x: Any, *rest: Any, **static: Any) -> Any:
        if not isinstance(x, Traced):
            return self.raw(x, *rest, **static)
        tape = x._tape
        if tape.substitutes is not None or not tape.is_open or not tape.level:
            return super().__call__(x, *rest, **static)
        if rest:
            static.update(zip(self.names, rest, strict=False))
        ns, value = tape.ns, x.value
        out = self(value, **static) if isinstance(value, Traced) else self.raw(value, **static)
        linear = self.rules[0](ns, out, value, **static)
        if linear is None:
            return out
        if self.elementwise and value.dtype != out.dtype:
            linear = Fitted(ns, linear, value, out)
        nodes = tape.nodes
        nodes.append(((x._index,), (linear,)))
        return tape.kind(out, tape, len(nodes) - 1)


class Binary(Primitive):
    """A function of two arrays."""

    __slots__ = ()

    def __call__(self, *args: Any, **static: Any) -> Any:
        if len(args) != 2:
            return super().__call__(*args, **static)
        a, b = args
        of_a = a._tape if isinstance(a, Traced) else None
        of_b = b._tape if isinstance(b, Traced) else None
        tape, other = (of_a, of_b) if of_b is None or (of_a and of_a.level >= of_b.level) else (of_b, of_a)
        if tape is None:
            return self.raw(a, b, **static)
        if tape.substitutes or not tape.is_open or not tape.level or (other and other.substitutes):
            return super().__call__(*args, **static)
        if other is None and type(b if of_a else a) not in tape.ns.operands:
            return self(tape.ns.operand(a), tape.ns.operand(b), **static)
        x = a.value if of_a is tape else a
        y = b.value if of_b is tape else b
        nested = isinstance(x, Traced) or isinstance(y, Traced)
        out = self(x, y, **static) if nested else self.raw(x, y, **static)
        if type(out) is complex:  # see Primitive
            out = tape.backend.asarray(out)
        first = self._map(0, tape.ns, out, x, y, x, static) if of_a is tape else None
        second = self._map(1, tape.ns, out, x, y, y, static) if of_b is tape else None
        if first is None:
            if second is None:
                return out
            node = (b._index,), (second,)
        elif second is None:
            node = (a._index,), (first,)
        else:
            node = (a._index, b._index), (first, second)
        nodes = tape.nodes
        nodes.append(node)
        return tape.kind(out, tape, len(nodes) - 1)

    def _map(self, k: int, ns: Any, out: Any, x: Any, y: Any, mine: Any, static: dict[str, Any]) -> Map | None:
        """The linear map of argument k, which is `mine`."""
        linear = self.rules[k](ns, out, x, y, **static)
        if linear is not None and self.elementwise and (mine.shape != out.shape or mine.dtype != out.dtype):
            return Fitted(ns, linear, mine, out)
        return linear
