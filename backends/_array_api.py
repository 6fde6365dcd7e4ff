"""The backend of every array-API library without autodiff: arrays by its namespace, derivatives by the
tape.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import array_api_compat
import numpy as np

from ._base import Array, Tree
from ._eager import EagerBackend
from ._errors import NoDerivativeError, ShapeError
from ._trees import flatten, leaves, matching, still, tree_map
from .tape import (
    Program,
    Tape,
    Traced,
    TracedArray,
    TracedNamespace,
    WrappedNamespace,
    checkpoint,
    custom_derivative,
    every_open_tape,
    hoist,
    in_hoisted,
    open_tapes,
    raw,
    substituted,
    sylvester,
    top_tape,
)


class ArrayAPIBackend(EagerBackend):
    """A namespace and the tape; NumPy, CuPy and array_api_strict differ by a few lines each."""

    #: what a traced array of this library is made as
    traced_kind: type[Traced] = TracedArray
    #: functions that do what those of `xp` do, in less time
    direct: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(self) -> None:
        self.traced_namespace = TracedNamespace(self)
        self.wrapped_namespace = WrappedNamespace(self)
        self._inexact: dict[Any, bool] = {}

    @abstractmethod
    def add_at(self, flat: Array, places: Array, values: Array) -> None:
        """`flat[places] += values`, repeated places adding up; in place, on plain arrays of one axis."""

    def is_array(self, leaf: Any) -> bool:
        """See the base class."""
        return isinstance(leaf, Traced) or self.owns(leaf)

    def is_inexact(self, leaf: Any) -> bool:
        """See the base class."""
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            return False
        found = self._inexact.get(dtype)
        if found is None:
            kinds = ("real floating", "complex floating")
            found = self._inexact[dtype] = bool(self.xp.isdtype(dtype, kinds))
        return found

    # -- arrays ------------------------------------------------------------------------------------
    def one(self, like: Array) -> Array:
        """See the base class."""
        return self.xp.ones_like(raw(like))

    def is_eager(self, *trees: Tree) -> bool:
        """Always: these libraries compute at once."""
        return True

    def is_constant(self, *arrays: Array) -> bool:
        """See the base class."""
        return not any(isinstance(a, Traced) for a in arrays)

    def asarray(self, value: Any, *, like: Array | None = None, dtype: Any = None, device: Any = None) -> Array:
        """See the base class."""
        if like is not None:
            dtype = like.dtype if dtype is None else dtype
            device = self.device(like) if device is None else device
        return self.xp.asarray(value, dtype=dtype, device=device)

    def copied(self, array: Array) -> Array:
        """A copy of a plain array."""
        return self.xp.asarray(array, copy=True)

    def device(self, array: Array) -> Any:
        """See the base class."""
        return array_api_compat.device(raw(array))

    def solve_or_nan(self, matrix: Array, b: Array) -> Array:
        """See the base class; one singular matrix makes the whole batch NaN."""
        try:
            return self.xp.linalg.solve(matrix, b)
        except np.linalg.LinAlgError:
            return self.xp.full_like(b, float("nan"))

    def to_device(self, array: Array, device: Any) -> Array:
        """See the base class."""
        return array_api_compat.to_device(array, device)

    def synchronize(self, tree: Tree) -> Tree:
        """See the base class; there is nothing to wait for."""
        return tree

    # -- differentiation ---------------------------------------------------------------------------
    def _trace(self, f: Callable[..., Tree], primals: tuple[Tree, ...]) -> Any:
        """Run `f` on a fresh tape: inputs, values, the output's structure, linear program, inputs'
        structure.
        """
        tape, ins, inputs, values, outputs, rebuild_out, rebuild = self._record(f, primals)
        program = Program(tape, inputs, outputs)
        tape.nodes = []
        return ins, values, rebuild_out, program, rebuild

    def _record(self, f: Callable[..., Tree], primals: tuple[Tree, ...]) -> Any:
        """Run `f` on a fresh tape: the tape, inputs and their nodes, values and their nodes, both structures."""
        tape = Tape(self)
        single = len(primals) == 1 and hasattr(primals[0], "dtype")
        ins, rebuild = (list(primals), tuple) if single else flatten(primals)
        ins = [substituted(x) for x in ins]
        traced, inputs = [], []
        for x in ins:
            moving = self.is_inexact(x)
            inputs.append(len(tape.nodes) if moving else -1)
            traced.append(tape.input(x) if moving else x)
        token = open_tapes.set((*open_tapes.get(), tape))
        every_open_tape.add(tape)
        try:
            outs, rebuild_out = flatten(f(*rebuild(traced)))
        finally:
            every_open_tape.discard(tape)
            open_tapes.reset(token)
            tape.is_open = False
        values, outputs = [], []
        for o in outs:
            mine = isinstance(o, Traced) and o._tape is tape
            outputs.append(o._index if mine else None)
            values.append(o.value if mine else o)
        return tape, ins, inputs, values, outputs, rebuild_out, rebuild

    def vjp_each(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, tuple[Callable[[Tree], Tree], ...]]:
        """See the base class: one tape, one linear program for each primal."""
        tape, ins, inputs, values, outputs, rebuild_out, _ = self._record(f, primals)
        kinds, pulls, start = self._kinds(values), [], 0
        for primal in primals:
            found, rebuild = flatten(primal)
            part = slice(start, start + len(found))
            program = Program(tape, inputs[part], outputs, all_inputs=False)
            pulls.append(self._puller(program, ins[part], values, rebuild_out, kinds, rebuild))
            start = part.stop
        tape.nodes = []
        return rebuild_out(values), tuple(pulls)

    def _puller(
        self, program: Program, ins: list[Any], values: list[Any], rebuild_out: Any, kinds: list[Any], rebuild: Any
    ) -> Callable[[Tree], Tree]:
        """Cotangents of the values ↦ those of the inputs."""

        def pull(cotangent: Tree) -> Tree:
            pulled = program.pull(self._matched(cotangent, values, rebuild_out, kinds, "cotangent"))
            return rebuild(
                [self._zero(x) if p is None else self.writeable(p) for p, x in zip(pulled, ins, strict=True)]
            )

        return pull

    def vjp(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]:
        """See the base class."""
        ins, values, rebuild_out, program, rebuild = self._trace(f, primals)
        return rebuild_out(values), self._puller(program, ins, values, rebuild_out, self._kinds(values), rebuild)

    def linearize(self, f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
        """See the base class."""
        ins, values, rebuild_out, program, rebuild = self._trace(f, primals)
        kinds = self._kinds(ins)

        def push(*tangents: Tree) -> Tree:
            pushed = program.push(self._matched(tangents, ins, rebuild, kinds, "tangent"))
            return rebuild_out([self._zero(v) if t is None else t for t, v in zip(pushed, values, strict=True)])

        return rebuild_out(values), push

    def writeable(self, array: Array) -> Array:
        """`array`, or a copy of it where it cannot be written to: a gradient is the caller's own."""
        return array

    def _kinds(self, likes: list[Any]) -> list[Any]:
        """The shapes and dtypes of the leaves of a tree; None for those that cannot move."""
        return [(x.shape, x.dtype) if self.is_inexact(x) else None for x in likes]

    def _matched(
        self, tree: Tree, likes: list[Any], rebuild: Callable[[list[Any]], Tree], kinds: list[Any], what: str
    ) -> list[Any]:
        """The leaves of a cotangent or tangent, of the shapes and dtypes (`kinds`) of `likes`."""
        found = leaves(tree)
        if len(found) != len(kinds) and None in kinds:  # a vector has None, which is no leaf, at what cannot move
            found = matching(tree, rebuild(likes), f"a {what}")
        if len(found) != len(kinds):
            raise ShapeError(f"a {what} of {len(found)} arrays was given where {len(kinds)} are expected")
        for i, (given, kind) in enumerate(zip(found, kinds, strict=True)):
            if kind is None:
                continue
            if getattr(given, "shape", None) is None:
                given = found[i] = self.asarray(given, like=likes[i])
            if given.shape != kind[0]:
                raise ShapeError(f"a {what} of shape {given.shape} was given where {kind[0]} is expected")
            if given.dtype != kind[1]:
                found[i] = self.traced_namespace.fit_dtype(given, kind[1])
        return found

    def _zero(self, like: Any) -> Any:
        return self.traced_namespace.zeros_like(like) if hasattr(like, "dtype") else still(like)

    def jvp(self, f: Callable[..., Tree], primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Tree, Tree]:
        """See the base class: one run of the linear program."""
        value, push = self.linearize(f, *primals)
        return value, push(*tangents)

    def symmetric_products(self, linear: Callable[[Array], Array], factor: Array) -> Callable[[Array], Array] | None:
        """See the base class. What was folded is checked against `linear` on one matrix before it is trusted."""
        if isinstance(factor, Traced) or factor.ndim != 2 or self.traced_namespace.is_complex(factor):
            return None
        xp, eps = self.xp, float(self.xp.finfo(factor.dtype).eps)
        ramp = xp.arange(factor.shape[-1], dtype=factor.dtype, device=self.device(factor))
        probe = xp.cos(ramp[:, None] + ramp[None, :])
        _, values, _, program, _ = self._trace(linear, (probe,))
        terms = sylvester.fold(program, probe.shape) if len(values) == 1 else None
        pairs = None if terms is None else sylvester.merge_symmetric(xp, terms, factor, eps)
        if pairs is None:
            return None
        expected = 0.5 * (values[0] + values[0].mT)
        error, size = xp.max(xp.abs(sylvester.products(pairs)(probe) - expected)), xp.max(xp.abs(expected))
        if not bool(error <= eps**0.5 * size):
            return None
        return sylvester.products(sylvester.congruent(xp, pairs, factor, eps))

    def stop_gradient(self, tree: Tree) -> Tree:
        """See the base class."""
        return tree_map(lambda leaf: raw(substituted(leaf)), tree)

    def forbid_gradient(self, tree: Tree, why: str) -> Tree:
        """See the base class: raises at once for a traced array."""
        if top_tape([substituted(leaf) for leaf in leaves(tree)]) is not None:
            raise NoDerivativeError(why)
        return tree

    def forbid_captured(self, f: Callable[[], Tree], why: str) -> None:
        """See the base class; where nothing is being differentiated nothing can be captured."""
        if every_open_tape:
            super().forbid_captured(f, why)

    def custom_derivative(
        self, function: Any, pushforward: Any, pullback: Any, *, transposable: bool = False, mapped: Any = None
    ) -> Callable[..., Tree]:
        """See the base class; both rules are used."""
        return custom_derivative(self.traced_namespace, function, pushforward, pullback)

    def checkpoint(self, f: Callable[..., Tree], *args: Tree) -> Tree:
        """See the base class: one node of the tape."""
        return checkpoint(self, f, args)

    def hoist(self, f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[Array, ...]]:
        """See the base class: traced arrays are recognised, and replaced, where an operation meets them."""
        return hoist(f, args)

    def in_hoisted(self) -> bool:
        """See the base class."""
        return in_hoisted()

    def matrix(self, apply: Callable[[Array], Array], like: Array) -> Array:
        """See the base class; of traced arrays too."""
        ns, n = self.traced_namespace, like.shape[-1]
        eye = ns.eye(n, dtype=like.dtype, device=self.device(like))
        return ns.stack([apply(ns.broadcast_to(eye[i, ...], like.shape)) for i in range(n)], axis=-1)

    # -- control -----------------------------------------------------------------------------------
    def call_external(self, function: Callable[..., Tree], like: Tree, *args: Tree) -> Tree:
        """A black box on plain arrays; its answer, arrays of any kind, is given the kind and dtype of `like`."""
        return tree_map(lambda leaf, value: self.asarray(value, like=leaf), like, function(*self.stop_gradient(args)))
