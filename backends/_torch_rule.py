"""A function with its derivative given by hand, as a `torch.autograd.Function` on trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function

from ._errors import NoDerivativeError
from ._torch_graph import differentiable, functorch_active
from ._trees import flatten, leaves

Tree = Any


class _Trees:
    """The structure of a tuple of trees; the tensors in it come and go as one flat list."""

    def __init__(self, trees: tuple[Tree, ...]) -> None:
        flat = [flatten(tree) for tree in trees]
        self.rebuilds = [(rebuild, [None if isinstance(x, torch.Tensor) else x for x in own]) for own, rebuild in flat]
        self.tensors = [x for own, _ in flat for x in own if isinstance(x, torch.Tensor)]

    def fill(self, tensors: Any) -> tuple[Tree, ...]:
        """The trees with these tensors in them."""
        rest = iter(tensors)
        return tuple(rebuild([next(rest) if c is None else c for c in own]) for rebuild, own in self.rebuilds)

    def split(self, values: Any) -> list[list[Any]]:
        """One list for each tree of what belongs to its tensors."""
        rest = iter(values)
        return [[next(rest) for c in own if c is None] for _, own in self.rebuilds]


class Call:
    """One call of a rule: the functions and the structure of its arguments and its value."""

    def __init__(self, function: Callable, pushforward: Callable, pullback: Callable, trees: tuple[Tree, ...]) -> None:
        self.function, self.pushforward, self.pullback = function, pushforward, pullback
        self.inputs = _Trees(trees)
        self.outputs: _Trees

    def run(self, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The tensors in `function(*trees)`."""
        self.outputs = _Trees((self.function(*self.inputs.fill(tensors)),))
        return tuple(self.outputs.tensors)

    def saved(self, tensors: tuple[torch.Tensor, ...]) -> tuple[tuple[Tree, ...], Tree]:
        """`primals, out` from what the context saved."""
        n = len(self.inputs.tensors)
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
        ctx.save_for_forward(*tensors, *output)
        ctx.mark_non_differentiable(*(v for v in output if not differentiable(v)))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[Any, ...]:
        call, saved = ctx.call, ctx.saved_tensors
        primals, out = call.saved(saved)
        outputs = saved[len(call.inputs.tensors) :]
        given = [torch.zeros_like(v) if c is None else c for c, v in zip(cotangents, outputs, strict=True)]
        wanted = call.inputs.split(ctx.needs_input_grad[1:])
        needs = tuple(any(own) for own in wanted)
        pulled = call.pullback(primals, out, call.outputs.fill(given)[0], needs)
        gradients: list[Any] = []
        for tree, own, needed in zip(pulled, call.inputs.split(saved), needs, strict=False):
            if tree is None or not needed:
                gradients += [None] * len(own)
            else:
                values = [v for v in leaves(tree) if isinstance(v, torch.Tensor)]
                gradients += [v if differentiable(x) else None for v, x in zip(values, own, strict=True)]
        return (None, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, call: Call, *tensors: torch.Tensor) -> tuple[tuple, tuple]:
        """One entry of the batch after the other: solvers loop as long as their own values say."""
        entries = []
        for i in range(info.batch_size):
            chosen = [x if d is None else x.select(d, i) for x, d in zip(tensors, in_dims[1:], strict=True)]
            entry = Call(call.function, call.pushforward, call.pullback, call.inputs.fill(chosen))
            entries.append(apply(entry, *chosen))
        call.outputs = entry.outputs
        stacked = tuple(torch.stack(column) for column in zip(*entries, strict=True))
        return stacked, (0,) * len(stacked)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: torch.Tensor | None) -> tuple[Any, ...]:
        call, saved = ctx.call, ctx.saved_tensors
        primals, out = call.saved(saved)
        moved = []
        for own, given in zip(call.inputs.split(saved), call.inputs.split(tangents), strict=True):
            moved += [None] if all(t is None for t in given) else [(own, given)]
        filled = [torch.zeros_like(x) if t is None else t for x, t in zip(saved, tangents, strict=False)]
        trees = [None if m is None else tree for m, tree in zip(moved, call.inputs.fill(filled), strict=True)]
        answer = [v for v in leaves(call.pushforward(primals, out, tuple(trees))) if isinstance(v, torch.Tensor)]
        outputs = saved[len(call.inputs.tensors) :]
        return tuple(v if differentiable(y) else None for v, y in zip(answer, outputs, strict=True))


def apply(call: Call, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Call the rule. Modes of torch (see `_torch_hoist`) see it as one function."""
    if has_torch_function(tensors):
        return handle_torch_function(apply, tensors, call, *tensors)
    if functorch_active() and _forward_levels() > 1:
        raise NoDerivativeError(
            "torch.func.jvp (or jacfwd) inside torch.func.jvp through a nestfold solve: PyTorch loses the outer "
            "tangent of a custom function without a word; use nestfold.jvp, or reverse mode for one of the two"
        )
    return _Function.apply(call, *tensors)


def custom_derivative(function: Callable, pushforward: Callable, pullback: Callable) -> Callable[..., Tree]:
    """`Backend.custom_derivative`."""

    def wrapped(*trees: Tree) -> Tree:
        if not (torch.is_grad_enabled() or functorch_active() or forward_ad._current_level >= 0):
            return function(*trees)
        call = Call(function, pushforward, pullback, trees)
        tensors = apply(call, *call.inputs.tensors)
        return call.outputs.fill(tensors)[0]

    return wrapped


def _forward_levels() -> int:
    """How many `torch.func.jvp` are under way."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(level.key() == torch._C._functorch.TransformType.Jvp for level in stack)
