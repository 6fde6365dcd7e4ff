"""Tensors that a function closes over, made its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from ._errors import NoDerivativeError
from ._torch_graph import differentiable, functorch, functorch_active, has_tangent, leaf_variables
from ._trees import leaves, tree_map

Tree = Any
#: what stands in for some tensors, by the identity of each: `{id(tensor): (tensor, stand_in)}`
Replacement = dict[int, tuple[torch.Tensor, torch.Tensor]]


def hoist(f: Callable[..., Tree], *args: Tree) -> tuple[Callable[..., Tree], tuple[torch.Tensor, ...]]:
    """`Backend.hoist`: one run of f under a mode of torch that sees the tensors of every call.

    What the mode cannot see (the arguments of a foreign `autograd.Function`, of compiled or scripted
    code) is found in the graph of the result and refused by `NoDerivativeError`; so is a tensor that turns
    up in a later run only.
    """
    stand_ins = StandIns()
    if not (torch.is_grad_enabled() or functorch_active() or forward_ad._current_level >= 0):
        return _alone(f, stand_ins), ()
    cut_off = tree_map(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, args)
    finder = _Find(_tensors(cut_off))
    with finder:
        y = f(*cut_off)
    if not finder.functorch:
        for variable in leaf_variables(v for v in _tensors(y) if v.requires_grad):
            if id(variable) not in finder.inside:
                _refuse(variable)
    captured = tuple(finder.met)
    if not captured:
        return _alone(f, stand_ins), ()

    def g(given: tuple[torch.Tensor, ...], *arguments: Tree) -> Tree:
        replacement = {id(tensor): (tensor, stand_in) for tensor, stand_in in zip(captured, given, strict=True)}
        with stand_ins, _Swap(replacement, [*given, *_tensors(arguments)]) as swap:
            y = f(*arguments)
        for tensor in swap.met:
            _refuse(tensor)
        return y

    return g, captured


def _alone(f: Callable[..., Tree], stand_ins: StandIns) -> Callable[..., Tree]:
    """What `hoist` gives for a function that captured nothing, or nothing but what others stand in for already."""

    def g(_: tuple[torch.Tensor, ...], *arguments: Tree) -> Tree:
        with stand_ins:
            return f(*arguments)

    return g if stand_ins.replacements else lambda _, *arguments: f(*arguments)


class _Replace(TorchFunctionMode):
    """Puts other tensors in the place of some, known by identity, in every call of torch.

    `replacement` has both by the identity of the first, which must not become that of another.
    """

    def __init__(self, replacement: Replacement) -> None:
        super().__init__()
        self.replacement = replacement

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*self.swap(args, meet=False), **self.swap(kwargs or {}, meet=False))

    def swap(self, value: Any, meet: bool) -> Any:
        """`value` with its tensors replaced, in tuples, lists and dicts."""
        if isinstance(value, torch.Tensor):
            known = self.replacement.get(id(value))
            if known is not None:
                return known[1]
            return self.other(value) if meet else value
        if type(value) in (tuple, list):
            return type(value)([self.swap(v, meet) for v in value])
        if type(value) is dict:
            return {key: self.swap(v, meet) for key, v in value.items()}
        return value

    def other(self, tensor: torch.Tensor) -> torch.Tensor:
        """What to use for a tensor without replacement."""
        return tensor


class _Swap(_Replace):
    """One run of a function with other tensors in the place of what it captured.

    `own` are the tensors that are expected: any other that comes from outside and is being differentiated
    is an error. From outside is what was not made in here: no leaf that a call returned, and no node younger
    than the first one made in here.
    """

    def __init__(self, replacement: Replacement, own: list[torch.Tensor]) -> None:
        super().__init__(replacement)
        self.met: list[torch.Tensor] = []
        self.inside = {id(tensor): tensor for tensor in own}
        self.functorch = functorch_active()
        self.keeps = self.functorch or forward_ad._current_level >= 0
        if self.functorch:
            self.level = functorch.maybe_current_level()
        else:
            with torch.enable_grad():
                node: Any = torch.zeros((), requires_grad=True).view(()).grad_fn
            self.first = node._sequence_nr()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Outputs and inputs of a derivative must stay what its graph is made of: nothing new is met there.
        fixed = 2 if func is torch.autograd.grad else 0
        args = [self.swap(value, meet=i >= fixed) for i, value in enumerate(args)]
        result = func(*args, **self.swap(kwargs or {}, meet=True))
        self.note(result)
        return result

    def other(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself; see `meet` for one from outside."""
        return self.meet(tensor) if self.from_outside(tensor) else tensor

    def note(self, result: Any) -> None:
        """Remember the tensors made in here, and keep them so that no other takes their identity."""
        if isinstance(result, torch.Tensor):
            if self.keeps or (result.requires_grad and result.is_leaf):
                self.inside[id(result)] = result
        elif isinstance(result, (tuple, list)):
            for part in result:
                self.note(part)

    def from_outside(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` was not made in here and may be being differentiated."""
        if id(tensor) in self.inside:
            return False
        if functorch.is_batchedtensor(tensor):  # a loop must not meet it, whether it is being differentiated or not
            return functorch.maybe_get_level(tensor) <= self.level
        if has_tangent(tensor):
            return True
        if not torch.is_grad_enabled() or not differentiable(tensor):
            return False
        if self.functorch:
            if functorch.is_functorch_wrapped_tensor(tensor):
                return functorch.maybe_get_level(tensor) <= self.level
            return tensor.requires_grad
        if not tensor.requires_grad:
            return False
        return tensor.grad_fn is None or tensor.grad_fn._sequence_nr() < self.first

    def meet(self, tensor: torch.Tensor) -> torch.Tensor:
        """What to use for a tensor from outside that nobody announced.

        The error comes after the run: PyTorch takes a `TypeError` in here for an operator it does not know.
        """
        self.met.append(tensor)
        return tensor


class _Find(_Swap):
    """Collects the tensors from outside; stand-ins in their place show what else the result depends on."""

    def __init__(self, own: list[torch.Tensor]) -> None:
        super().__init__({}, own)

    def meet(self, tensor: torch.Tensor) -> torch.Tensor:
        """A stand-in of the same value; under `torch.func`, whose graphs cannot be walked, the tensor."""
        self.met.append(tensor)
        stand_in = tensor if self.functorch else tensor.detach().requires_grad_()
        self.inside[id(stand_in)] = stand_in
        self.replacement[id(tensor)] = tensor, stand_in
        return stand_in


class StandIns:
    """A context, to be entered any number of times, in which the stand-ins are in force that were when it was made."""

    def __init__(self) -> None:
        modes = _get_current_function_mode_stack()
        self.replacements = [mode.replacement for mode in modes if isinstance(mode, _Replace)]
        self.entered: list[_Replace] = []

    def __enter__(self) -> None:
        for replacement in self.replacements:
            mode = _Replace(replacement)
            mode.__enter__()
            self.entered.append(mode)

    def __exit__(self, *error: Any) -> None:
        for _ in self.replacements:
            self.entered.pop().__exit__(*error)


def _tensors(tree: Tree) -> list[torch.Tensor]:
    return [x for x in leaves(tree) if isinstance(x, torch.Tensor)]


def _refuse(tensor: torch.Tensor) -> NoReturn:
    raise NoDerivativeError(
        f"a cost or field depends on a tensor of shape {tuple(tensor.shape)} that is being differentiated "
        "and that it does not take as an argument, in a way that cannot be followed (a custom "
        "autograd.Function, compiled or scripted code, a branch not taken before): pass the tensor as an "
        "outer variable of the level, or detach it"
    )
