"""Stacks of vectors in the way of `torch.autograd`, which knows `vmap` of an older kind than `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# private to type checkers; `torch._vmap_internals` is made of them
_BATCHED: Any = torch._C._parse_dispatch_key("Batched")
_add: Any = torch._add_batch_dim  # pyright: ignore[reportPrivateImportUsage]
_remove: Any = torch._remove_batch_dim  # pyright: ignore[reportPrivateImportUsage]


def is_stacked(tensor: torch.Tensor | None) -> bool:
    """Whether this is a stack of vectors in the way of `torch.autograd`, which knows `vmap` of an older kind.

    `is_grads_batched` and `vectorize` are made of it. Many operations have no rule for it.
    """
    return tensor is not None and torch._C._dispatch_keys(tensor).has(_BATCHED)


def at_once(function: Callable[..., Any], vectors: Any) -> tuple[Any, ...]:
    """`function` of vectors, some of them stacks in the older way, by `torch.vmap`."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    axes = tuple(0 if is_stacked(v) else None for v in vectors)
    opened = [v if d is None else _remove(v, level, 0, 0) for v, d in zip(vectors, axes, strict=True)]
    given: list[int] = []
    count: list[int] = []

    def on_tensors(*tensors: Any) -> tuple[torch.Tensor, ...]:
        found = function(*tensors)
        given[:] = [i for i, v in enumerate(found) if v is not None]
        count.append(len(found))
        return tuple(found[i] for i in given)

    found = torch.vmap(on_tensors, axes)(*opened)
    stacked = dict(zip(given, found, strict=True))
    return tuple(_add(stacked[i], 0, level) if i in stacked else None for i in range(count[0]))
