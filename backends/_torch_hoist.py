"""Tensors that a function closes over, made its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ._errors import NoDerivativeError
from ._torch_graph import differentiable, functorch_active, leaf_variables
from ._trees import leaves, tree_map

Tree = Any


class _Swap(TorchFunctionMode):
    """Puts other tensors in the place of some, known by identity, in every call of torch."""

    def __init__(self, replacement: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.replacement = replacement

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*self.swap(args), **self.swap(kwargs or {}))

    def swap(self, value: Any) -> Any:
        """`value` with its tensors replaced, in tuples, lists and dicts."""
        if isinstance(value, torch.Tensor):
            return self.one(value)
        if type(value) in (tuple, list):
            return type(value)([self.swap(v) for v in value])
        if type(value) is dict:
            return {key: self.swap(v) for key, v in value.items()}
        return value

    def one(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for one tensor."""
        return self.replacement.get(id(tensor), tensor)


class _Find(_Swap):
    """Finds the tensors that come from outside and are being differentiated; puts stand-ins in their place.

    From outside is what is no argument, was not made in here, and whose node in the graph is older than
    the first one made in here.
    """

    def __init__(self, own: list[torch.Tensor]) -> None:
        super().__init__({})
        self.captured: list[torch.Tensor] = []
        self.inside = {id(tensor): tensor for tensor in own}
        self.functorch = functorch_active()
        self.level = torch._C._functorch.maybe_current_level() if self.functorch else None
        if not self.functorch:
            self.first = torch.zeros((), requires_grad=True).view(()).grad_fn._sequence_nr()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        self.note(result)
        return result

    def note(self, result: Any) -> None:
        """Remember the tensors made in here, and keep them so that no other takes their identity."""
        if isinstance(result, torch.Tensor):
            if self.functorch or (result.requires_grad and result.is_leaf):
                self.inside[id(result)] = result
        elif isinstance(result, (tuple, list)):
            for part in result:
                self.note(part)

    def one(self, tensor: torch.Tensor) -> torch.Tensor:
        known = self.replacement.get(id(tensor))
        if known is not None:
            return known
        if not self.from_outside(tensor):
            return tensor
        self.captured.append(tensor)
        stand_in = tensor if self.functorch else tensor.detach().requires_grad_()
        self.inside[id(stand_in)] = stand_in
        self.replacement[id(tensor)] = stand_in
        return stand_in

    def from_outside(self, tensor: torch.Tensor) -> bool:
        if id(tensor) in self.inside or not torch.is_grad_enabled() or not differentiable(tensor):
            return False
        if self.functorch:
            wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
            if wrapped:
                return torch._C._functorch.maybe_get_level(tensor) <= self.level
            return tensor.requires_grad
        if not tensor.requires_grad:
            return False
        return tensor.grad_fn is None or tensor.grad_fn._sequence_nr() < self.first


def hoist(f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[torch.Tensor, ...]]:
    """`Backend.hoist`: one run of f under a mode of torch that sees the tensors of every call.

    What the mode cannot see (the arguments of a foreign `autograd.Function`, of compiled or scripted
    code) is found in the graph of the result and refused by `NoDerivativeError`.
    """
    if not torch.is_grad_enabled():
        return (lambda captured, *arguments: f(*arguments)), ()
    cut_off = tree_map(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, args)
    finder = _Find([x for x in leaves(cut_off) if isinstance(x, torch.Tensor)])
    with finder:
        y = f(*cut_off)
    captured = tuple(finder.captured)
    if not finder.functorch:
        _check(finder, [v for v in leaves(y) if isinstance(v, torch.Tensor)])
    if not captured:
        return (lambda captured, *arguments: f(*arguments)), ()
    keys = [id(tensor) for tensor in captured]

    def g(given: tuple[torch.Tensor, ...], *arguments: Tree) -> Tree:
        _ = captured  # kept alive: they are known by identity
        with _Swap(dict(zip(keys, given, strict=True))):
            return f(*arguments)

    return g, captured


def _check(finder: _Find, outputs: list[torch.Tensor]) -> None:
    for variable in leaf_variables(outputs):
        if id(variable) not in finder.inside:
            raise NoDerivativeError(
                f"a cost or field depends on a tensor of shape {tuple(variable.shape)} that requires a gradient and "
                "that it does not take as an argument, in a way that cannot be followed (a custom autograd.Function, "
                "compiled or scripted code): pass the tensor as an outer variable of the level, or detach it"
            )
