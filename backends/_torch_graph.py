"""Reverse mode on a retained graph of PyTorch, and forward mode as its transpose.

`torch.autograd.grad` on aliases nests to any order, inside `autograd.Function.backward` too, where
`torch.func.vjp` fails at the third nesting. `torch.func.linearize` (2.13) is silently wrong (it drops
in-place writes to constants, `eye` among them): a linear map is the transpose of a transpose here. Only
inside transformations of `torch.func` the tools of `torch.func` are used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.autograd import forward_ad

from ._errors import NoDerivativeError
from ._trees import flatten, leaves, matching, still

Tree = Any
Vjp = tuple[Tree, Callable[[Tree], tuple[Tree, ...]]]
functorch_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
#: what `torch.func` is made of: the one place where it is taken from PyTorch
functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]  PyTorch's stubs leave it out
#: the arguments of the functions that are being recorded, outermost first
under_way: ContextVar[tuple[list[Any], ...]] = ContextVar("under_way", default=())


def differentiable(leaf: Any) -> bool:
    """Whether `leaf` is a tensor of floating or complex numbers."""
    return isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def cut(leaf: Any) -> Any:
    """`leaf` without its reverse-mode history. A tangent of `torch.autograd.forward_ad` stays."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if forward_ad._current_level < 0:
        return leaf.detach()
    primal, tangent = forward_ad.unpack_dual(leaf)
    if tangent is None:
        return leaf.detach()
    return forward_ad.make_dual(primal.detach(), tangent.detach())


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether forward mode is under way, and `tensor` moves in it."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def nodes(outputs: Iterable[torch.Tensor]) -> Iterator[Any]:
    """The nodes of the graphs of `outputs`."""
    seen, stack = set(), [output.grad_fn for output in outputs if output.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack += [below for below, _ in node.next_functions if below is not None]


def leaf_variables(outputs: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The leaf tensors that the graphs of `outputs` end in."""
    outputs = list(outputs)
    yield from (v for v in outputs if v.grad_fn is None and v.requires_grad)
    yield from (node.variable for node in nodes(outputs) if getattr(node, "variable", None) is not None)


def _refuse_compiled(outputs: list[torch.Tensor]) -> None:
    """Raise where second derivatives of compiled code would be zero without a word."""
    if any(type(node).__name__ == "CompiledFunctionBackwardBackward" for node in nodes(outputs)):
        raise NoDerivativeError(
            "a function compiled by torch.compile has no second derivative, and a solve needs that of its cost: "
            "do not compile the cost, or only with backend='eager' (compiling a loss with a solve in it is fine)"
        )


@contextmanager
def _in_progress(aliases: list[Any]) -> Iterator[None]:
    """While these leaves are what something is being differentiated by.

    The graph of a recorded derivative may end in leaves of runs that are over: nobody asks for a derivative with
    respect to those any more, and another run that meets them there is not seen from outside by them.
    """
    for alias in aliases:
        alias._nestfold_runs += 1
    try:
        yield
    finally:
        for alias in aliases:
            alias._nestfold_runs -= 1


class Recorded:
    """One run of f at `primals` with its graph: what `vjp` and `linearize` share.

    `attached` tells whether anything outside f is being differentiated through this run: a primal that
    requires a gradient, or a tensor that f closes over. Where nothing is, results are cut off and no graph of
    a derivative is made unless the vector it is applied to asks for it.
    """

    def __init__(self, f: Callable[..., Tree], primals: tuple[Tree, ...]) -> None:
        wanted = torch.is_grad_enabled()
        self.primals = [flatten(primal) for primal in primals]
        self.inputs: list[torch.Tensor] = []
        token = under_way.set((*under_way.get(), self.inputs))
        try:
            with _recording():
                y = f(*(rebuild([self._alias(x, wanted) for x in found]) for found, rebuild in self.primals))
        finally:
            under_way.reset(token)
        for alias in self.inputs:
            alias._nestfold_runs -= 1  # pyright: ignore  # see `_in_progress`
        self.y_leaves, self.rebuild = flatten(y)
        self.moving = [i for i, v in enumerate(self.y_leaves) if isinstance(v, torch.Tensor) and v.requires_grad]
        self.outputs = [self.y_leaves[i] for i in self.moving]
        if "torch._dynamo" in sys.modules:  # something was compiled
            _refuse_compiled(self.outputs)
        self.attached = wanted and self._seen_from_outside()
        self.y = y if self.attached or not self.outputs else self.rebuild([cut(v) for v in self.y_leaves])

    def _alias(self, leaf: Any, wanted: bool) -> Any:
        """A new node of the graph for `leaf`, so that derivatives with respect to it mean this run only."""
        if not differentiable(leaf):
            return leaf
        if leaf.is_inference():
            leaf = leaf.clone()
        if wanted and leaf.requires_grad:
            alias = leaf.view_as(leaf)
        elif forward_ad._current_level < 0 or (dual := forward_ad.unpack_dual(leaf)).tangent is None:
            alias = leaf.detach().requires_grad_()
        else:
            alias = forward_ad.make_dual(dual.primal.detach().requires_grad_(), dual.tangent)
        alias._nestfold_runs = 1  # pyright: ignore
        self.inputs.append(alias)
        return alias

    def _seen_from_outside(self) -> bool:
        if any(isinstance(x, torch.Tensor) and x.requires_grad for found, _ in self.primals for x in found):
            return True
        return any(getattr(variable, "_nestfold_runs", 1) for variable in leaf_variables(self.outputs))

    def transpose(
        self, cotangents: list[torch.Tensor], create_graph: bool, part: slice = slice(None)
    ) -> tuple[torch.Tensor | None, ...]:
        """The cotangents of `inputs`, or a part of them; None for those that were not used."""
        inputs = self.inputs[part]
        if not self.outputs or not inputs:
            return (None,) * len(inputs)
        with _in_progress(self.inputs if create_graph else []):
            return torch.autograd.grad(
                self.outputs,
                inputs,
                cotangents,
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
            )

    def create_graph(self, vectors: list[torch.Tensor]) -> bool:
        """Whether the derivative applied to `vectors` has to be differentiable itself."""
        return torch.is_grad_enabled() and (self.attached or any(v.requires_grad for v in vectors))

    def pull(self, cotangent: Tree) -> tuple[Tree, ...]:
        """The cotangents of all primals."""
        given = _entries(cotangent, self.y_leaves, self.rebuild, "cotangent")
        chosen = [_like(given[i], self.y_leaves[i]) for i in self.moving]
        found = iter(self.transpose(chosen, self.create_graph(chosen)))
        return tuple(
            rebuild([_or_zero(next(found) if differentiable(x) else None, x) for x in primal])
            for primal, rebuild in self.primals
        )

    def pulls(self) -> tuple[Callable[[Tree], Tree], ...]:
        """For each primal, what gives its cotangent alone."""
        found, start = [], 0
        for values, rebuild in self.primals:
            part = slice(start, start + sum(map(differentiable, values)))
            found.append(self._pull_of(part, values, rebuild))
            start = part.stop
        return tuple(found)

    def _pull_of(self, part: slice, values: list[Any], rebuild: Any) -> Callable[[Tree], Tree]:
        def pull(cotangent: Tree) -> Tree:
            given = _entries(cotangent, self.y_leaves, self.rebuild, "cotangent")
            chosen = [_like(given[i], self.y_leaves[i]) for i in self.moving]
            found = iter(self.transpose(chosen, self.create_graph(chosen), part))
            return rebuild([_or_zero(next(found) if differentiable(x) else None, x) for x in values])

        return pull


def vjp_each(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, tuple[Callable[[Tree], Tree], ...]]:
    """`Backend.vjp_each` on a retained graph."""
    recorded = Recorded(f, primals)
    return recorded.y, recorded.pulls()


def vjp(f: Callable[..., Tree], *primals: Tree) -> Vjp:
    """`Backend.vjp` on a retained graph."""
    if functorch_active():
        return _functorch_vjp(f, primals)
    recorded = Recorded(f, primals)
    return recorded.y, recorded.pull


def linearize(f: Callable[..., Tree], *primals: Tree) -> tuple[Tree, Callable[..., Tree]]:
    """`Backend.linearize`: ẋ ↦ ẏ is the transpose of ȳ ↦ x̄, which is linear in ȳ."""
    if functorch_active():
        return _functorch_linearize(f, primals)
    recorded = Recorded(f, primals)
    with _recording():
        probes = [torch.zeros_like(output, requires_grad=True) for output in recorded.outputs]
        pulled = recorded.transpose(probes, create_graph=True)
    live = {i: w for i, w in enumerate(pulled) if w is not None and w.requires_grad}

    def push(*tangents: Tree) -> Tree:
        pairs = zip(recorded.primals, tangents, strict=True)
        given = [
            _like(v, x)
            for (found, rebuild), tangent in pairs
            for x, v in zip(found, _entries(tangent, found, rebuild, "tangent"), strict=True)
            if differentiable(x)
        ]
        moved: list[Any] = [None] * len(recorded.y_leaves)
        if live:
            chosen = [given[i] for i in live]
            answers = torch.autograd.grad(
                list(live.values()),
                probes,
                chosen,
                retain_graph=True,
                create_graph=recorded.create_graph(chosen),
                allow_unused=True,
            )
            for i, answer in zip(recorded.moving, answers, strict=True):
                moved[i] = answer
        return recorded.rebuild([_or_zero(v, y) for v, y in zip(moved, recorded.y_leaves, strict=True)])

    return recorded.y, push


def _functorch_vjp(f: Callable[..., Tree], primals: tuple[Tree, ...]) -> Vjp:
    """`torch.func.vjp` on trees, integers left out."""
    flat = [flatten(primal) for primal in primals]
    found = [x for values, _ in flat for x in values]
    moving = [i for i, x in enumerate(found) if differentiable(x)]
    structure: dict[str, Any] = {}

    def on_tensors(*values: torch.Tensor) -> tuple[tuple, tuple]:
        filled = list(found)
        for i, value in zip(moving, values, strict=True):
            filled[i] = value
        rest = iter(filled)
        y_leaves, structure["rebuild"] = flatten(f(*(rebuild([next(rest) for _ in own]) for own, rebuild in flat)))
        structure["constants"] = [None if isinstance(v, torch.Tensor) else v for v in y_leaves]
        structure["kinds"] = [differentiable(v) for v in y_leaves]
        moved = [v for v in y_leaves if differentiable(v)]
        moved.append(values[0].new_zeros(()))  # torch.func.vjp wants at least one output
        return tuple(moved), tuple(v for v in y_leaves if isinstance(v, torch.Tensor) and not differentiable(v))

    if not moving:
        return f(*primals), lambda cotangent: tuple(rebuild([_or_zero(None, x) for x in own]) for own, rebuild in flat)
    run: Any = torch.func.vjp(on_tensors, *(found[i] for i in moving), has_aux=True)
    outputs, pull_tensors, others = run
    first, second = iter(outputs), iter(others)
    y_leaves = [
        next(first) if kind else (next(second) if constant is None else constant)
        for kind, constant in zip(structure["kinds"], structure["constants"], strict=True)
    ]

    def pull(cotangent: Tree) -> tuple[Tree, ...]:
        given = _entries(cotangent, y_leaves, structure["rebuild"], "cotangent")
        chosen = [_like(c, y) for c, y in zip(given, y_leaves, strict=True) if differentiable(y)]
        pulled = iter(pull_tensors((*chosen, torch.zeros_like(outputs[-1]))))
        return tuple(
            rebuild([_or_zero(next(pulled) if differentiable(x) else None, x) for x in own]) for own, rebuild in flat
        )

    return structure["rebuild"](y_leaves), pull


def _functorch_linearize(f: Callable[..., Tree], primals: tuple[Tree, ...]) -> tuple[Tree, Callable[..., Tree]]:
    """The transpose of the transpose, made anew for each vector: a graph must not outlive its level."""
    y = f(*primals)

    def push(*tangents: Tree) -> Tree:
        def moving(vectors: tuple[Tree, ...], what: str) -> list[Any]:
            pairs = ((flatten(primal), vector) for primal, vector in zip(primals, vectors, strict=True))
            entries = ((found, _entries(vector, found, rebuild, what)) for (found, rebuild), vector in pairs)
            return [v for found, own in entries for x, v in zip(found, own, strict=True) if differentiable(x)]

        def transposed(cotangent: Tree) -> list[Any]:
            return moving(_functorch_vjp(f, primals)[1](cotangent), "cotangent")

        y_leaves, rebuild = flatten(y)
        probe = rebuild([_or_zero(None, leaf) for leaf in y_leaves])
        return _functorch_vjp(transposed, (probe,))[1](moving(tangents, "tangent"))[0]

    return y, push


@contextmanager
def _recording() -> Iterator[None]:
    """Grad mode, also within `torch.inference_mode`, where `torch.enable_grad` alone records nothing."""
    leave = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with leave, torch.enable_grad():
        yield


def _or_zero(value: Any, leaf: Any) -> Any:
    if value is not None:
        return value
    return torch.zeros_like(leaf) if isinstance(leaf, torch.Tensor) else still(leaf)


def _like(vector: Any, leaf: torch.Tensor) -> torch.Tensor:
    """`vector` as autograd wants it: a tensor of the dtype of `leaf`."""
    if isinstance(vector, torch.Tensor):
        return vector if vector.dtype == leaf.dtype else vector.to(leaf.dtype)
    return torch.as_tensor(vector, dtype=leaf.dtype, device=leaf.device).expand(leaf.shape)


def _entries(vector: Tree, found: list[Any], rebuild: Callable[[list[Any]], Tree], what: str) -> list[Any]:
    """What a vector has where the leaves of a tree stand; None for what cannot move, which is no leaf."""
    given = leaves(vector)
    if len(given) != len(found) and not all(map(differentiable, found)):
        given = matching(vector, rebuild(found), f"the {what}")
    if len(given) != len(found):
        raise ValueError(f"the {what} has {len(given)} arrays where {len(found)} are expected")
    return given
