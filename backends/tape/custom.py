"""Functions whose derivative is given by hand: one node of the tape, with a pushforward and a pullback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._errors import NoDerivativeError, ShapeError
from .._trees import flatten, leaves, matching, still
from .array import Traced, substitute, top_tape
from .maps import Joint, Packed, Select
from .refusals import leaked

Tree = Any
Lists = Callable[..., list[Any]]


def custom_derivative(ns: Any, function: Any, pushforward: Any, pullback: Any) -> Callable[..., Tree]:
    """`function` of trees to a tree with its derivative given; see `Backend.custom_derivative`."""

    def wrapped(*trees: Tree) -> Tree:
        if all(map(_plain, trees)):
            out = function(*trees)
            return out if _plain(out) else _all_checked(out)
        inputs = [flatten(tree) for tree in trees]
        rebuild_out: list[Callable[[list[Any]], Tree]] = []

        def run(args: list[Any]) -> list[Any]:
            outs, rebuild = flatten(function(*_cut(args, inputs)))
            rebuild_out.append(rebuild)
            return outs

        def push(args: list[Any], outs: list[Any], tangents: list[Any]) -> list[Any]:
            moved = _cut(
                tangents, inputs, lambda i: ns.zeros_like(args[i]) if hasattr(args[i], "dtype") else still(args[i])
            )
            return leaves(pushforward(_cut(args, inputs), rebuild_out[0](outs), moved))

        def pull(args: list[Any], outs: list[Any], cotangents: list[Any], needs: list[bool]) -> list[Any]:
            filled = [ns.zeros_like(o) if c is None else c for c, o in zip(cotangents, outs, strict=True)]
            wanted = tuple(any(part) for part in _parts(needs, inputs))
            rebuild = rebuild_out[0]
            pulled = pullback(_cut(args, inputs), rebuild(outs), rebuild(filled), wanted)
            if len(pulled) != len(inputs):
                raise ShapeError(f"a pullback returned {len(pulled)} cotangents for {len(inputs)} arguments")
            return [v for p, own in zip(pulled, inputs, strict=True) for v in _entries(p, *own)]

        outs = call_with_rule(run, push, pull, [leaf for found, _ in inputs for leaf in found])
        return rebuild_out[0](outs)

    return wrapped


def _plain(tree: Tree) -> bool:
    """Whether this is a single array that is not traced."""
    return hasattr(tree, "dtype") and not isinstance(tree, Traced)


def _all_checked(out: Tree) -> Tree:
    _checked(leaves(out))
    return out


def _entries(vector: Tree | None, found: list[Any], rebuild: Callable[[list[Any]], Tree]) -> list[Any]:
    """What a vector has where the leaves of a tree stand; None for what cannot move."""
    if vector is None:
        return [None] * len(found)
    given = leaves(vector)
    return given if len(given) == len(found) else matching(vector, rebuild(found), "a cotangent")


def _parts(values: list[Any], inputs: list[tuple[list[Any], Any]]) -> list[list[Any]]:
    """`values`, one for each leaf, cut into one list for each argument."""
    rest = iter(values)
    return [[next(rest) for _ in found] for found, _ in inputs]


def _cut(
    values: list[Any], inputs: list[tuple[list[Any], Any]], zero: Callable[[int], Any] | None = None
) -> tuple[Tree, ...]:
    """`values` as trees, one for each argument; None where all leaves of one are None."""
    if zero is None:
        return tuple(rebuild(part) for part, (_, rebuild) in zip(_parts(values, inputs), inputs, strict=True))
    trees, places = [], _parts(list(range(len(values))), inputs)
    for part, (_, rebuild) in zip(places, inputs, strict=True):
        if part and all(values[i] is None for i in part):
            trees.append(None)
        else:
            trees.append(rebuild([zero(i) if values[i] is None else values[i] for i in part]))
    return tuple(trees)


def call_with_rule(function: Lists, pushforward: Lists, pullback: Lists, args: Sequence[Any]) -> list[Any]:
    """A function of a list of arrays to a list of arrays, with its derivative given.

    `pushforward(args, outs, tangents)` and `pullback(args, outs, cotangents, needs)` work on lists, in which
    None stands for zero (tangents, cotangents) and for not wanted (the result of `pullback`).
    """
    args = substitute(args)
    top = top_tape(args)
    if top is None:
        return _checked(function(args))
    if not top.is_open:
        raise leaked("a function with a custom derivative")
    low = [a.value if isinstance(a, Traced) and a._tape is top else a for a in args]
    outs = call_with_rule(function, pushforward, pullback, low)
    places = [i for i, a in enumerate(args) if isinstance(a, Traced) and a._tape is top]
    needs = [i in places for i in range(len(args))]

    def push(tangents: list[Any]) -> Packed:
        given = dict(zip(places, tangents, strict=True))
        moved = pushforward(low, outs, [given.get(i) for i in range(len(args))])
        return Packed(_like(top.ns, moved, outs, "the pushforward"))

    def pull(cotangents: Packed) -> list[Any]:
        wanted = pullback(low, outs, cotangents.items, needs)
        return _like(top.ns, [wanted[i] for i in places], [low[i] for i in places], "the pullback")

    parents = tuple(args[i]._index for i in places)
    joint = top.hidden(parents, Joint(push, pull))
    return [
        top.record(o, (joint,), (Select(k, len(outs)),)) if top.backend.is_inexact(o) else o for k, o in enumerate(outs)
    ]


def _checked(outs: list[Any]) -> list[Any]:
    if top_tape(outs) is not None:
        raise NoDerivativeError(
            "a function with a custom derivative closes over an array that is being differentiated, of which "
            "its rule knows nothing: pass the array as an argument (Backend.hoist does it)"
        )
    return outs


def _like(ns: Any, moved: list[Any], originals: list[Any], what: str) -> list[Any]:
    """What a rule returned, in the dtypes of `originals`; raises `ShapeError` where shapes differ."""
    if len(moved) != len(originals):
        raise ShapeError(f"{what} of a custom derivative returned {len(moved)} arrays, not {len(originals)}")
    fitted = []
    for m, o in zip(moved, originals, strict=True):
        if m is None or not ns.backend.is_inexact(o):
            fitted.append(None)
            continue
        if getattr(m, "shape", None) != o.shape:
            shape = getattr(m, "shape", type(m).__name__)
            raise ShapeError(f"{what} of a custom derivative returned shape {shape}, not {o.shape}")
        fitted.append(ns.fit_dtype(m, o.dtype))
    return fitted
