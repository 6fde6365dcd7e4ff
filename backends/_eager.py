"""What frameworks that compute at once have in common: their loops are loops of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from ._base import Array, Backend, Tree


class EagerBackend(Backend):
    """A backend whose arrays have values as soon as they exist."""

    @final
    def while_loop(
        self, cond: Callable[[Tree], Array], body: Callable[[Tree], Tree], state: Tree, *, max_steps: int
    ) -> Tree:
        """See the base class."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # loops look at what is not finite
            for _ in range(max_steps):
                if not bool(cond(state)):
                    break
                state = body(state)
        return state

    @final
    def repeat(self, body: Callable[[Tree], Tree], state: Tree, *, steps: int) -> Tree:
        """See the base class."""
        for _ in range(steps):
            state = body(state)
        return state
