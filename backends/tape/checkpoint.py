"""Recompute instead of store: one node of the tape that keeps its inputs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .array import substitute, top_tape
from .custom import call_with_rule
from .hoist import call_hoisted

Tree = Any
Lists = Callable[[list[Any]], list[Any]]


def checkpoint(backend: Any, f: Callable[..., Tree], args: tuple[Tree, ...]) -> Tree:
    """`f(*args)`; see `Backend.checkpoint`. Arrays that f captured are inputs like its arguments."""
    # copies: a write into an argument is a write into a local variable where the argument is traced
    value, g, captured = call_hoisted(f, args, lambda leaf: backend.copied(leaf) if backend.is_array(leaf) else leaf)
    arrays, inputs = backend.split(args)
    known = [*captured, *arrays]
    if top_tape(substitute(known)) is None:
        return value
    outs, outputs = backend.split(value)

    def on_arrays(given: list[Any]) -> list[Any]:
        taken = tuple(given[: len(captured)])
        return backend.split(g(taken, *inputs.fill(given[len(captured) :])))[0]

    return outputs.fill(_replayed(backend, on_arrays, known, outs))


def _replayed(backend: Any, f: Lists, args: Sequence[Any], value: list[Any] | None = None) -> list[Any]:
    """`f(args)`, or `value` where that is known already, with derivatives that run f again.

    They are such functions themselves: higher derivatives store no more than their inputs either.
    """
    n = len(args)

    def at(primals: list[Any], live: list[int]) -> Callable[..., list[Any]]:
        """F as a function of some of its arguments."""

        def along(*moving: Any) -> list[Any]:
            filled = list(primals)
            for i, x in zip(live, moving, strict=True):
                filled[i] = x
            return f(filled)

        return along

    def push(args: list[Any], outs: list[Any], tangents: list[Any]) -> list[Any]:
        live = [i for i, t in enumerate(tangents) if t is not None]

        def pushed(given: list[Any]) -> list[Any]:
            primals = given[:n]
            return backend.jvp(at(primals, live), tuple(primals[i] for i in live), tuple(given[n:]))[1]

        return _replayed(backend, pushed, [*args, *(tangents[i] for i in live)])

    def pull(args: list[Any], outs: list[Any], cotangents: list[Any], needs: list[bool]) -> list[Any]:
        live = [i for i, needed in enumerate(needs) if needed]
        chosen = [k for k, c in enumerate(cotangents) if c is not None]

        def pulled(given: list[Any]) -> list[Any]:
            primals = given[:n]
            along = at(primals, live)
            transpose = backend.vjp(lambda *moving: _pick(along(*moving), chosen), *(primals[i] for i in live))[1]
            return list(transpose(given[n:]))

        found = iter(_replayed(backend, pulled, [*args, *(cotangents[k] for k in chosen)]))
        return [next(found) if needed else None for needed in needs]

    return call_with_rule(lambda low: f(low) if value is None else value, push, pull, args)


def _pick(values: list[Any], chosen: list[int]) -> list[Any]:
    return [values[k] for k in chosen]
