"""Captured arrays made arguments: a function that closes over traced arrays, called with others in their place.

While a function is hoisted, the tapes of what it captured know what stands in for each of their arrays, and every
operation asks them before it acts on the arrays that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import NoDerivativeError
from .._trees import leaves, tree_map
from .array import Traced, raw, substitute, substituted, top_tape
from .core import Tape, substituting

Tree = Any
Array = Any


def hoist(f: Callable[..., Tree], args: tuple[Tree, ...]) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
    """`g, captured` with `g(captured, *args) == f(*args)`; see `Backend.hoist`.

    The tapes that `f` captured from show in its output on plain arguments. `f` runs once where it captured nothing,
    and once more for each tape otherwise.
    """
    captured, tapes = _captured(f, tree_map(raw, args))
    if not captured:
        return (lambda _, *args: f(*args)), ()
    places = {id(traced): place for place, traced in enumerate(captured)}

    def hoisted(given: tuple[Array, ...], *args: Tree) -> Tree:
        # As other objects, with other ids: what is passed in is not what was captured, even where it is the same array.
        known: dict[int, Traced] = {}
        given, args = tree_map(lambda a: _alias(a, known), (tuple(given), args))
        starts = {tape: len(tape.nodes) for tape in tapes}

        def stand_in(traced: Traced) -> Any:
            place = places.get(id(traced))
            if place is not None and captured[place] is traced:
                return given[place]
            if traced._index < starts[traced._tape] and id(traced) not in known:
                raise NoDerivativeError(
                    "a function met a captured array that is being differentiated and that it did not use when its "
                    "captured arrays were looked for: make the branch that uses it unconditional, or pass it in"
                )
            return traced

        with substituting(dict.fromkeys(tapes, stand_in)):
            return tree_map(substituted, f(*args))

    return hoisted, captured


def _captured(f: Callable[..., Tree], plain: tuple[Tree, ...]) -> tuple[tuple[Traced, ...], set[Tape]]:
    """The traced arrays that `f` closes over, and their tapes."""
    found: dict[int, Traced] = {}
    tapes: set[Tape] = set()

    def record(traced: Traced) -> Any:
        found.setdefault(id(traced), traced)
        return raw(traced)

    tape = top_tape(leaves(f(*plain)))
    while tape is not None:
        tapes.add(tape)
        with substituting(dict.fromkeys(tapes, record)):
            tape = top_tape(substitute(leaves(f(*plain))))
    return tuple(found.values()), tapes


def _alias(value: Any, known: dict[int, Traced]) -> Any:
    """The same array at the same places of the same tapes, as another object; `known` keeps those made."""
    if not isinstance(value, Traced):
        return value
    made = value._tape.kind(_alias(value.value, known), value._tape, value._index)
    known[id(made)] = made
    return made
