"""What frameworks that compute at once have in common: their loops are loops of Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, final

import numpy as np

from ._base import Array, Backend, Tree


def uncompiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, which `torch.compile` leaves alone: what loops until it has converged, and differentiates, runs as it is."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:  # nothing was ever compiled
        return f
    return dynamo.disable(f)


class EagerBackend(Backend):
    """A backend whose arrays have values as soon as they exist."""

    def holds(self, condition: Array) -> bool:
        """The truth value of an array of no axes."""
        return bool(condition)

    @final
    def while_loop(
        self, cond: Callable[[Tree], Array], body: Callable[[Tree], Tree], state: Tree, *, max_steps: int
    ) -> Tree:
        """See the base class."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # loops look at what is not finite
            for _ in range(max_steps):
                if not self.holds(cond(state)):
                    break
                state = body(state)
        return state

    @final
    def repeat(self, body: Callable[[Tree], Tree], state: Tree, *, steps: int) -> Tree:
        """See the base class."""
        for _ in range(steps):
            state = body(state)
        return state
