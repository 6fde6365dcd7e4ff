"""Captured arrays made arguments: a function that closes over traced arrays, called with others in their
place.

While a function is hoisted, the tapes of what it captured know what stands in for each of their arrays, and
every operation asks them before it acts on the arrays that it was given. Scopes are lexical: a function that
was hoisted inside another hoisted function finds the stand-ins of both whenever it is called, also later,
when a derivative is pulled back. Two context variables hold the tapes that are being recorded on, from which
alone something can be captured, and the scopes that are in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from .._errors import NoDerivativeError
from .._trees import flatten, tree_map
from .array import Traced, raw, substitute, substituted, top_tape
from .core import Tape
from .maps import IDENTITY

Tree = Any
Array = Any


class Scope(NamedTuple):
    """What stands in for the arrays of some tapes."""

    tapes: frozenset[Tape]
    stand_in: Callable[[Traced], Any]


_scopes: ContextVar[tuple[Scope, ...]] = ContextVar("nestfold_hoisted", default=())
#: the tapes that are being recorded on here, the youngest last
open_tapes: ContextVar[tuple[Tape, ...]] = ContextVar("nestfold_open_tapes", default=())
#: those of all threads: where there are none, nothing is being differentiated anywhere
every_open_tape: set[Tape] = set()


@contextmanager
def _inside(scopes: tuple[Scope, ...]) -> Iterator[None]:
    """Let these scopes, the innermost last, be in force, and no others."""
    tapes = {tape for scope in (*_scopes.get(), *scopes) for tape in scope.tapes}
    before = {tape: tape.substitutes for tape in tapes}
    token = _scopes.set(scopes)
    try:
        for tape in tapes:
            tape.substitutes = None
        for scope in scopes:
            for tape in scope.tapes:
                tape.substitutes = scope.stand_in
        yield
    finally:
        _scopes.reset(token)
        for tape, old in before.items():
            tape.substitutes = old


def hoist(f: Callable[..., Tree], args: tuple[Tree, ...]) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
    """`g, captured` with `g(captured, *args) == f(*args)`; see `Backend.hoist`."""
    return call_hoisted(f, args)[1:]


def in_hoisted() -> bool:
    """`Backend.in_hoisted`."""
    return bool(_scopes.get())


def call_hoisted(
    f: Callable[..., Tree], args: tuple[Tree, ...], copy: Callable[[Any], Any] = lambda leaf: leaf
) -> tuple[Tree, Callable[..., Tree], tuple[Array, ...]]:
    """`value, g, captured`: what `f(*args)` is without any tracing, of copies, and what `hoist` gives.

    `f` runs once. Where it captured arrays of a tape that is recorded on in another thread, which show in its output
    only, it runs once more for each such tape.
    """
    outer = _scopes.get()
    value, captured, tapes = _captured(f, tree_map(lambda a: copy(raw(substituted(a))), args), outer)
    if not captured and not outer:
        return value, (lambda _, *args: f(*args)), ()
    places = {id(traced): place for place, traced in enumerate(captured)}

    def hoisted(given: tuple[Array, ...], *args: Tree) -> Tree:
        # What is passed in is not what was captured, even where it is the same array: hence other objects.
        starts = {tape: len(tape.nodes) for tape in tapes}
        given, args = tree_map(lambda a: _alias(substituted(a)), (tuple(given), args))

        def stand_in(traced: Traced) -> Any:
            place = places.get(id(traced))
            if place is not None and captured[place] is traced:
                return given[place]
            if traced._index < starts[traced._tape]:
                raise NoDerivativeError(
                    "a function met a captured array that is being differentiated and that it did not use "
                    "when its captured arrays were looked for: take the branch that uses it always, or pass "
                    "the array as an argument"
                )
            return traced

        with _inside((*outer, Scope(tapes, stand_in))):
            return tree_map(substituted, f(*args))

    return value, hoisted, captured


def _captured(
    f: Callable[..., Tree], plain: tuple[Tree, ...], outer: tuple[Scope, ...]
) -> tuple[Tree, tuple[Traced, ...], frozenset[Tape]]:
    """The value of `f` without any tracing, the traced arrays that it closes over, and the tapes to watch."""
    found: dict[int, Traced] = {}
    tapes = set(open_tapes.get())
    known = {tape: scope.stand_in for scope in outer for tape in scope.tapes}

    def record(traced: Traced) -> Any:
        found.setdefault(id(traced), traced)
        value: Any = traced
        while isinstance(value, Traced) and value._tape in known:
            other = known[value._tape](value)
            if other is value:
                break
            value = other
        return raw(value)

    while True:
        with _inside((*outer, Scope(frozenset(tapes), record))):
            outs, rebuild = flatten(f(*plain))
            outs = substitute(outs)
        tape = top_tape(outs)
        if tape is None:
            return rebuild(outs), tuple(found.values()), frozenset(tapes)
        tapes.add(tape)


def _alias(value: Any) -> Any:
    """The same array, as another object and, where its tape is open, at a place of its own on it."""
    if not isinstance(value, Traced):
        return value
    tape, inner = value._tape, _alias(value.value)
    if not tape.is_open:
        return tape.kind(inner, tape, value._index)
    return tape.record(inner, (value._index,), (IDENTITY,))
