"""Whether a tensor is being differentiated right now, by a derivative that would lose it without a word.

PyTorch raises where a result without a graph is differentiated, but `torch.func` and `Backend.vjp` take such a
result for a constant. A tensor of the user's own that requires a gradient is none of their business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad

from ._errors import NoDerivativeError
from ._torch_graph import functorch, functorch_active, has_tangent, nodes, under_way
from ._torch_hoist import hoist
from ._trees import leaves

Tree = Any


def forbid(tree: Tree, why: str) -> None:
    """Raise `NoDerivativeError(why)` where a tensor in `tree` is being differentiated."""
    if _something_is() and any(_moves(x) for x in leaves(tree) if isinstance(x, torch.Tensor)):
        raise NoDerivativeError(why)


def forbid_captured(f: Callable[[], Tree], why: str) -> None:
    """Raise `NoDerivativeError(why)` where f closes over a tensor that is being differentiated."""
    if _something_is():
        values: list[Tree] = []

        def run() -> Tree:
            values.append(f())
            return values

        forbid((hoist(run)[1], values), why)


def _something_is() -> bool:
    return functorch_active() or forward_ad._current_level >= 0 or bool(under_way.get())


def _moves(tensor: torch.Tensor) -> bool:
    """Whether one of the transformations under way differentiates by `tensor`, or by what it was made of."""
    if has_tangent(tensor):
        return True
    if not functorch.is_functorch_wrapped_tensor(tensor):
        return tensor.requires_grad and torch.is_grad_enabled() and _seen_by_a_run(tensor)
    if functorch.is_gradtrackingtensor(tensor) and tensor.requires_grad and torch.is_grad_enabled():
        return True
    with _below(functorch.maybe_get_level(tensor)):
        return _moves(functorch.get_unwrapped(tensor))


@contextmanager
def _below(level: int) -> Iterator[None]:
    """Outside of the transformations of `torch.func` from this level on: each sees its own tangents only."""
    if functorch_active() and functorch.maybe_current_level() >= level:
        with temporarily_pop_interpreter_stack(), _below(level):
            yield
    else:
        yield


def _seen_by_a_run(tensor: torch.Tensor) -> bool:
    """Whether the graph of `tensor` has an argument of a function in it that `Recorded` is running."""
    aliases = [alias for own in under_way.get() for alias in own]
    if any(alias is tensor for alias in aliases):
        return True
    made = {alias.grad_fn for alias in aliases if alias.grad_fn is not None}
    given = {id(alias) for alias in aliases if alias.grad_fn is None}
    return any(node in made or id(getattr(node, "variable", None)) in given for node in nodes([tensor]))
