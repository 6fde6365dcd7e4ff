"""The backend of every array-API library without autodiff: arrays by its namespace, derivatives by the tape."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import array_api_compat

from ._base import Array, Backend, Tree
from ._errors import NoDerivativeError
from ._trees import flatten, leaves, tree_map
from .tape import Program, Tape, Traced, TracedArray, TracedNamespace, call_with_rule, raw, substituting, top_tape


class ArrayAPIBackend(Backend):
    """A namespace and the tape; NumPy, CuPy and array_api_strict differ by a few lines each."""

    #: what a traced array of this library is made as
    traced_kind: type[Traced] = TracedArray

    def __init__(self) -> None:
        self.traced_namespace = TracedNamespace(self)
        self._inexact: dict[Any, bool] = {}

    @abstractmethod
    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """`flat[places] += values`, repeated places adding up; in place, on plain arrays of one axis."""

    def is_inexact(self, leaf: Any) -> bool:
        """Whether a derivative with respect to this leaf makes sense: real or complex floating point."""
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            return False
        found = self._inexact.get(dtype)
        if found is None:
            kinds = ("real floating", "complex floating")
            found = self._inexact[dtype] = bool(self.xp.isdtype(dtype, kinds))
        return found

    # -- arrays -----------------------------------------------------------------------------------------------------
    def is_eager(self, *trees: Tree) -> bool:
        """Always: these libraries compute at once."""
        return True

    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """See the base class."""
        if like is not None:
            like = raw(like)
            dtype, device = dtype or like.dtype, device or self.device(like)
        return self.xp.asarray(value, dtype=dtype, device=device)

    def device(self, array: Array) -> Any:
        """See the base class."""
        return array_api_compat.device(raw(array))

    def to_device(self, array: Array, device: Any) -> Array:
        """See the base class."""
        return array_api_compat.to_device(array, device)

    def synchronize(self, tree: Tree) -> Tree:
        """See the base class; there is nothing to wait for."""
        return tree

    # -- differentiation --------------------------------------------------------------------------------------------
    def _trace(self, f: Callable[..., Tree], primals: tuple[Tree, ...]) -> Any:
        """Run `f` on a fresh tape: the values, the structure of inputs and output, and the linear program."""
        tape = Tape(self)
        ins, rebuild = flatten(primals) if len(primals) != 1 else flatten(primals[0])
        traced = [tape.input(x) if self.is_inexact(x) else x for x in ins]
        try:
            out = f(rebuild(traced)) if len(primals) == 1 else f(*rebuild(traced))
        finally:
            tape.is_open = False
        outs, rebuild_out = flatten(out)
        mine = [isinstance(o, Traced) and o._tape is tape for o in outs]
        values = [o.value if m else o for o, m in zip(outs, mine, strict=True)]
        inputs = [t._index if self.is_inexact(x) else -1 for t, x in zip(traced, ins, strict=True)]
        program = Program(tape, inputs, [o._index if m else None for o, m in zip(outs, mine, strict=True)])
        tape.nodes = []
        return ins, values, rebuild_out, program

    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
        """See the base class."""
        ins, values, rebuild_out, program = self._trace(f, primals)
        zeros_like = self.traced_namespace.zeros_like
        structure = flatten(primals)[1]

        def pull(cotangent: Tree) -> tuple[Tree, ...]:
            pulled = program.pull(leaves(cotangent))
            pulled = [zeros_like(x) if p is None else p for p, x in zip(pulled, ins, strict=True)]
            return (pulled[0],) if len(pulled) == len(primals) == 1 and ins[0] is primals[0] else structure(pulled)

        return rebuild_out(values), pull

    def linearize(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
        """See the base class."""
        _, values, rebuild_out, program = self._trace(f, primals)
        zeros_like = self.traced_namespace.zeros_like

        def push(*tangents: Tree) -> Tree:
            pushed = program.push(leaves(tangents))
            return rebuild_out([zeros_like(v) if t is None else t for t, v in zip(pushed, values, strict=True)])

        return rebuild_out(values), push

    def jvp(self, f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """See the base class: one run of the linear program."""
        value, push = self.linearize(f, *primals)
        return value, push(*tangents)

    def stop_gradient(self, tree: Tree) -> Tree:
        """See the base class."""
        return tree_map(raw, tree)

    def forbid_gradient(self, tree: Tree, why: str) -> Tree:
        """See the base class: raises at once for a traced array."""
        if any(isinstance(leaf, Traced) for leaf in leaves(tree)):
            raise NoDerivativeError(why)
        return tree

    def custom_derivative(self, function: Any, pushforward: Any, pullback: Any) -> Callable[..., Tree]:
        """See the base class."""

        def wrapped(*trees: Tree) -> Tree:
            structures = [flatten(t) for t in trees]
            flat = [leaf for ins, _ in structures for leaf in ins]
            rebuild_out: list[Callable[[Any], Any]] = []

            def unflatten(values: list[Any]) -> tuple[Tree, ...]:
                """One tree for each argument; None where all its leaves are None."""
                found, start = [], 0
                for ins, rebuild in structures:
                    part = values[start : start + len(ins)]
                    start += len(ins)
                    if all(v is None for v in part):
                        found.append(None)
                    else:
                        filled = [self._zeros(x) if v is None else v for v, x in zip(part, ins, strict=True)]
                        found.append(rebuild(filled))
                return tuple(found)

            def run(args: list[Any]) -> list[Any]:
                outs, rebuild = flatten(function(*unflatten(args)))
                rebuild_out.append(rebuild)
                return outs

            def push(args: list[Any], outs: list[Any], tangents: list[Any]) -> list[Any]:
                return leaves(pushforward(unflatten(args), rebuild_out[0](outs), unflatten(tangents)))

            def pull(args: list[Any], outs: list[Any], cotangents: list[Any], needs: list[bool]) -> list[Any]:
                filled = [self._zeros(o) if c is None else c for c, o in zip(cotangents, outs, strict=True)]
                wanted, start = [], 0
                for ins, _ in structures:
                    wanted.append(any(needs[start : start + len(ins)]))
                    start += len(ins)
                pulled = pullback(unflatten(args), rebuild_out[0](outs), rebuild_out[0](filled), tuple(wanted))
                flat_pulled: list[Any] = []
                for p, (ins, _) in zip(pulled, structures, strict=True):
                    flat_pulled += [None] * len(ins) if p is None else leaves(p)
                return flat_pulled

            outs = call_with_rule(run, push, pull, flat)
            return rebuild_out[0](outs)

        return wrapped

    def _zeros(self, like: Any) -> Any:
        return self.traced_namespace.zeros_like(like)

    def hoist(self, f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
        """See the base class. The tapes that `f` captured from show in its output on plain arguments."""
        plain = self.stop_gradient(args)
        captured: dict[int, Traced] = {}
        tapes: set[Tape] = set()

        def record(traced: Traced) -> Any:
            captured.setdefault(id(traced), traced)
            return raw(traced)

        tape = top_tape(leaves(f(*plain)))
        while tape is not None and tape not in tapes:
            tapes.add(tape)
            with substituting(dict.fromkeys(tapes, record)):
                tape = top_tape(leaves(f(*plain)))
        if not captured:
            return (lambda _, *args: f(*args)), ()
        order = {key: place for place, key in enumerate(captured)}

        def hoisted(given: tuple[Array, ...], *args: Tree) -> Tree:
            def stand_in(traced: Traced) -> Any:
                place = order.get(id(traced))
                return traced if place is None else given[place]

            with substituting(dict.fromkeys(tapes, stand_in)):
                return f(*args)

        return hoisted, tuple(captured.values())

    # -- control ----------------------------------------------------------------------------------------------------
    def while_loop(self, cond: Any, body: Any, state: Tree, *, max_steps: int) -> Tree:
        """See the base class."""
        for _ in range(max_steps):
            if not bool(cond(state)):
                break
            state = body(state)
        return state

    def repeat(self, body: Callable[[Tree], Tree], state: Tree, *, steps: int) -> Tree:
        """See the base class."""
        for _ in range(steps):
            state = body(state)
        return state

    def call_external(self, function: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
        """Run a black box on plain arrays."""
        return function(*self.stop_gradient(args))
