"""A function with its derivative given by hand, as a `torch.autograd.Function` on trees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

from ._errors import NoDerivativeError
from ._torch_graph import cut, differentiable, functorch, functorch_active, has_tangent
from ._torch_stacks import at_once, is_stacked
from ._trees import flatten, leaves, matching, tree_map

Tree = Any
#: see `Backend.custom_derivative`
Mapped = Callable[..., Tree]
_LEAF = object()


class _Trees:
    """The structure of a tuple of trees; the tensors in it come and go as one flat list.

    It keeps no tensor: an output that its own graph node keeps would never be freed.
    """

    def __init__(self, flat: list[tuple[list[Any], Callable[[Any], Tree]]]) -> None:
        self.rebuilds = [rebuild for _, rebuild in flat]
        self.constants = [[None if isinstance(x, torch.Tensor) else x for x in own] for own, _ in flat]
        self.count = sum(c is None for own in self.constants for c in own)

    def fill(self, tensors: Any) -> tuple[Tree, ...]:
        """The trees with these tensors in them."""
        rest = iter(tensors)
        return tuple(
            rebuild([next(rest) if c is None else c for c in own])
            for rebuild, own in zip(self.rebuilds, self.constants, strict=True)
        )

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each tree of what belongs to its tensors."""
        rest = iter(values)
        return [[next(rest) for c in own if c is None] for own in self.constants]

    def pick(self, trees: tuple[Tree | None, ...]) -> list[Any]:
        """What stands in `trees` where the tensors are; None for every tensor of a tree that is None."""
        picked: list[Any] = []
        for tree, own, rebuild in zip(trees, self.constants, self.rebuilds, strict=True):
            found = [None] * len(own) if tree is None else leaves(tree)
            if len(found) != len(own):  # where no number stands, a vector has None, which is no leaf
                found = matching(tree, rebuild([_LEAF] * len(own)), "a tangent or cotangent")
            picked += [v for v, c in zip(found, own, strict=True) if c is None]
        return picked


def _tensors(flat: list[tuple[list[Any], Callable[[Any], Tree]]]) -> list[torch.Tensor]:
    return [x for own, _ in flat for x in own if isinstance(x, torch.Tensor)]


class _Watch(TorchFunctionMode):
    """Notices tensors of `torch.func` where none of its levels is active any more: captured ones.

    Whether one moves, PyTorch does not tell in forward mode. `stop_gradient` takes the wrappers off.
    """

    met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not functorch_active():
            found = leaves((args, kwargs))
            self.met = self.met or any(
                functorch.is_functorch_wrapped_tensor(x) for x in found if isinstance(x, torch.Tensor)
            )
        return func(*args, **(kwargs or {}))


class Call:
    """One call of a rule: the functions and the structure of its arguments and its value."""

    def __init__(
        self, function: Callable, pushforward: Callable, pullback: Callable, mapped: Mapped | None, inputs: _Trees
    ) -> None:
        self.function, self.pushforward, self.pullback = function, pushforward, pullback
        self.mapped, self.inputs = mapped, inputs
        self.outputs: _Trees
        self.watched = functorch_active()

    def run(self, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The tensors in `function(*trees)`, which sees tensors that require no gradient.

        Raises `NoDerivativeError` where it meets others: their derivative would be lost without a word.
        """
        watch = _Watch()
        modes = torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)
        with modes[0], modes[1], watch if self.watched else nullcontext():
            flat = [flatten(self.function(*self.inputs.fill(x.detach() for x in tensors)))]
            moving = any(v.requires_grad or has_tangent(v) for v in _tensors(flat))
        found = _tensors(flat)
        if moving or watch.met:
            raise NoDerivativeError(
                "a function with a custom derivative closes over a tensor that is being differentiated, of which "
                "its rule knows nothing, or returns one that requires a gradient: pass it as an argument, or take "
                "stop_gradient of it"
            )
        self.outputs = _Trees(flat)
        return tuple(found)

    def saved(self, tensors: tuple[torch.Tensor, ...]) -> tuple[tuple[Tree, ...], Tree]:
        """`primals, out` from what the context saved.

        After a transformation of `torch.func` has returned, its saved tensors are wrappers of no living level.
        """
        tensors = tuple(functorch.unwrap_if_dead(t) if isinstance(t, torch.Tensor) else t for t in tensors)
        n = self.inputs.count
        return self.inputs.fill(tensors[:n]), self.outputs.fill(tensors[n:])[0]


class _Function(torch.autograd.Function):
    """The rule of `call`. All it saves are its inputs and outputs, so that it can be differentiated again."""

    @staticmethod
    def forward(call: Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return call.run(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, ...]) -> None:
        ctx.call, *tensors = inputs
        ctx.save_for_backward(*tensors, *output)
        if forward_ad._current_level >= 0:  # what is saved for forward mode is a cycle that is never freed
            ctx.save_for_forward(*tensors, *output)
        ctx.mark_non_differentiable(*(v for v in output if not differentiable(v)))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[Any, ...]:
        call, saved = ctx.call, ctx.saved_tensors
        primals, out = call.saved(saved)
        outputs = saved[call.inputs.count :]
        given = [torch.zeros_like(v) if c is None else c for c, v in zip(cotangents, outputs, strict=True)]
        if any(map(is_stacked, given)):
            return None, *at_once(lambda *c: _Function.backward(ctx, *c)[1:], given)
        edges = zip(ctx.needs_input_grad[1:], ctx.next_functions, strict=True)
        asked = [needed and _asked(node) for needed, (node, _) in edges]
        needs = tuple(any(own) for own in call.inputs.split(asked))
        pulled = call.pullback(primals, out, call.outputs.fill(given)[0], needs)
        pulled = tuple(tree if needed else None for tree, needed in zip(pulled, needs, strict=True))
        picked = zip(call.inputs.pick(pulled), saved, strict=False)
        return (None, *(v if differentiable(x) else None for v, x in picked))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        if any(map(is_stacked, tangents)):
            return at_once(lambda *t: _Function.jvp(ctx, None, *t), tangents)
        call, saved = ctx.call, ctx.saved_tensors
        primals, out = call.saved(saved)
        moving = [any(t is not None for t in own) for own in call.inputs.split(tangents)]
        filled = [torch.zeros_like(x) if t is None else t for x, t in zip(saved, tangents, strict=False)]
        trees = zip(call.inputs.fill(filled), moving, strict=True)
        moved = call.pushforward(primals, out, tuple(tree if moves else None for tree, moves in trees))
        picked = zip(call.outputs.pick((moved,)), saved[call.inputs.count :], strict=True)
        return tuple(v if differentiable(y) else None for v, y in picked)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, call: Call, *tensors: torch.Tensor) -> tuple[tuple, tuple]:
        """All entries at once, where the rule knows how; else one after the other: solvers loop as their values say."""
        dims = list(zip(tensors, in_dims[1:], strict=True))
        if call.mapped is not None:
            size = info.batch_size
            spread = [x.expand(size, *x.shape) if d is None else x.movedim(d, 0) for x, d in dims]
            flat = [flatten(call.mapped(size, over_entries, *call.inputs.fill(spread)))]
            call.outputs, found = _Trees(flat), tuple(_tensors(flat))
            return found, (0,) * len(found)
        entries = []
        for i in range(info.batch_size):
            chosen = [x if d is None else x.select(d, i) for x, d in dims]
            entry = Call(call.function, call.pushforward, call.pullback, None, call.inputs)
            entry.watched = call.watched
            entries.append(apply(entry, *chosen))
            call.outputs = entry.outputs
        stacked = tuple(torch.stack(column) for column in zip(*entries, strict=True))
        return stacked, (0,) * len(stacked)


def _asked(node: Any) -> bool:
    """Whether the pass of autograd under way wants what goes to this node.

    `needs_input_grad` only says that something was differentiable when the graph was made. A leaf's node cannot be
    asked: then yes.
    """
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:
        return True


def apply(call: Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Call the rule. Modes of torch (see `_torch_hoist`) see it as one function."""
    if has_torch_function(tensors):
        return handle_torch_function(apply, tensors, call, *tensors)
    if functorch_active() and _forward_levels() > 1:
        raise NoDerivativeError(
            "torch.func.jvp (or jacfwd) inside torch.func.jvp through a nestfold solve: PyTorch loses the "
            "outer tangent of a custom function without a word; use nestfold.jvp, or reverse mode for one"
        )
    return _Function.apply(call, *tensors)


def over_entries(f: Callable[..., Tree]) -> Callable[..., Tree]:
    """`f` of every entry along the first axis of all tensors in its arguments and its value: `torch.vmap` on trees."""

    def mapped(*trees: Tree) -> Tree:
        flat = [flatten(tree) for tree in trees]
        inputs, outputs = _Trees(flat), []

        def on_tensors(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = [flatten(f(*inputs.fill(tensors)))]
            outputs.append(_Trees(found))
            return tuple(_tensors(found))

        found = torch.vmap(on_tensors)(*_tensors(flat))
        return outputs[0].fill(found)[0]

    return mapped


def custom_derivative(
    function: Callable, pushforward: Callable, pullback: Callable, mapped: Mapped | None = None
) -> Callable[..., Tree]:
    """`Backend.custom_derivative`."""

    def wrapped(*trees: Tree) -> Tree:
        if not (torch.is_grad_enabled() or functorch_active() or forward_ad._current_level >= 0):
            return function(*tree_map(cut, trees))
        flat = [flatten(tree) for tree in trees]
        if constant(_tensors(flat)):
            out = function(*trees)
            if constant(_tensors([flatten(out)])):
                return out  # otherwise it closes over something that moves: `Call.run` says so
        call = Call(function, pushforward, pullback, mapped, _Trees(flat))
        tensors = apply(call, *_tensors(flat))
        return call.outputs.fill(tensors)[0]

    return wrapped


def constant(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no derivative can flow through these tensors."""
    if functorch_active() or forward_ad._current_level >= 0:
        return False
    return not any(x.requires_grad for x in tensors)


def traced() -> bool:
    """Whether operations are being written down without values: `make_fx`, `torch.func.linearize`."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _forward_levels() -> int:
    """How many `torch.func.jvp` are under way."""
    stack = functorch.get_interpreter_stack() or ()
    return sum(level.key() == functorch.TransformType.Jvp for level in stack)
