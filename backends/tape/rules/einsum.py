"""`einsum` by products of matrices: sums of products over indices, one pair of operands after the other.

A sum is planned once for its indices and shapes. Each operand is first made plain: diagonals taken where an index
is repeated, what is broadcast or summed alone removed. Pairs are then contracted, each by one `matmul` between
transpositions and reshapes (only those that it needs: "ij,jk->ik" is `matmul` alone), the pair with the smallest
result first (the greedy order of opt_einsum, Smith & Gray 2018). All steps have derivative rules, on every library.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from ..refusals import refuse

Labels = tuple[Any, ...]
Step = Callable[..., Any]


def einsum(ns: Any, *given: Any, out: Any = None, dtype: Any = None, **_: Any) -> Any:
    """Σ of products over the indices that are not in the result: `einsum("ij,j", a, b)`, also with an ellipsis
    or with lists of integers. How to compute it (`optimize`, `order`, `casting`) is ours to choose.

    Raises `ValueError` for indices that do not fit the operands, as NumPy does.
    """
    if out is not None:
        refuse("np.einsum into a plain array (out=)", "write `a = np.einsum(...)`")
    indices, operands = (given[0], given[1:]) if isinstance(given[0], str) else _in_pairs(given)
    operands = [x if hasattr(x, "dtype") else ns.asarray(ns.xp.asarray(x)) for x in operands]
    if dtype is not None:
        operands = [ns.astype(x, ns.xp.zeros(0, dtype=dtype).dtype) for x in operands]
    prepare, pairs, last = _plan(indices, tuple([x.shape for x in operands]))
    if prepare is not None:
        operands = [x if step is None else step(ns, x) for step, x in zip(prepare, operands, strict=True)]
    for i, j, contract in pairs:
        b, a = operands.pop(j), operands.pop(i)
        operands.append(contract(ns, a, b))
    return operands[0] if last is None else last(ns, operands[0])


# -- reading the indices ---------------------------------------------------------------------------
def _in_pairs(given: tuple) -> tuple[tuple, list[Any]]:
    """Labels and operands of `einsum(a, [0, 1], b, [1, 2], [0, 2])`."""
    result = tuple(given[-1]) if len(given) % 2 else None
    return (tuple(tuple(part) for part in given[1::2]), result), list(given[: len(given) - len(given) % 2 : 2])


def _parsed(indices: str | tuple) -> tuple[tuple[Labels, ...], Labels | None]:
    """The labels of each operand, and those of the result if they are given."""
    if not isinstance(indices, str):
        return indices
    left, arrow, right = indices.replace(" ", "").partition("->")
    return tuple(_labels(part) for part in left.split(",")), _labels(right) if arrow else None


def _labels(text: str) -> Labels:
    """The letters of one operand; an ellipsis is one label."""
    head, dots, tail = text.partition("...")
    if not all(c.isalpha() for c in head + tail):
        raise ValueError(f"einsum cannot read the indices {text!r}")
    return (*head, *((Ellipsis,) if dots else ()), *tail)


def _spelled(inputs: Iterable[Labels], shapes: Iterable[tuple[int, ...]]) -> list[Labels]:
    """Each ellipsis replaced by one label for each axis that it stands for, counted from the last."""
    spelled = []
    for labels, shape in zip(inputs, shapes, strict=True):
        rest = len(shape) - len([c for c in labels if c is not Ellipsis])
        if rest < 0 or (rest and Ellipsis not in labels):
            raise ValueError(f"einsum was given {labels} for an operand of shape {shape}")
        dots = [("...", k) for k in range(-rest, 0)]
        spelled.append(tuple(d for c in labels for d in (dots if c is Ellipsis else [c])))
    return spelled


def _result(inputs: list[Labels], given: Labels | None) -> Labels:
    """The labels of the result; where they are not given: the ellipsis, then the single indices in order."""
    dots = sorted({c for labels in inputs for c in labels if isinstance(c, tuple)})
    if given is None:
        every = [c for labels in inputs for c in labels if not isinstance(c, tuple)]
        return (*dots, *sorted(c for c in set(every) if every.count(c) == 1))
    result = tuple(d for c in given for d in (dots if c is Ellipsis else [c]))
    known = {c for labels in inputs for c in labels}
    if len(set(result)) != len(result) or not known.issuperset(result):
        raise ValueError(f"einsum cannot give the indices {given}: each must be in an operand, and given once")
    return result


# -- the plan --------------------------------------------------------------------------------------
@functools.lru_cache(maxsize=512)
def _plan(indices: str | tuple, shapes: tuple[tuple[int, ...], ...]) -> tuple:
    """What to do with each operand, with each pair in turn, and with the last array; None for nothing."""
    inputs, given = _parsed(indices)
    if len(inputs) != len(shapes):
        raise ValueError(f"einsum was given {len(shapes)} operands for {len(inputs)} lists of indices")
    spelled = _spelled(inputs, shapes)
    result = _result(spelled, given)
    sizes: dict[Any, int] = {}
    for labels, shape in zip(spelled, shapes, strict=True):
        for c, n in zip(labels, shape, strict=True):
            if n != 1 and sizes.get(c, 1) not in (1, n):
                raise ValueError(f"einsum was given sizes {sizes[c]} and {n} for the index {c!r}")
            sizes[c] = n if sizes.get(c, 1) == 1 else sizes[c]
    moving = [
        {c for c, n in zip(labels, shape, strict=True) if n == sizes[c]}
        for labels, shape in zip(spelled, shapes, strict=True)
    ]  # the others are broadcast: they have size one here
    prepare, lists = [], []
    for k, (labels, shape) in enumerate(zip(spelled, shapes, strict=True)):
        others = set(result).union(*(v for i, v in enumerate(moving) if i != k))
        step, left = _prepared(labels, shape, sizes, others)
        prepare.append(step)
        lists.append(left)
    pairs = []
    while len(lists) > 1:
        i, j = _cheapest(lists, sizes, result)
        b, a = lists.pop(j), lists.pop(i)
        keep = set(result).union(*lists)
        step, labels = _contraction(a, b, keep, result, sizes)
        pairs.append((i, j, step))
        lists.append(labels)
    last = _arranged(lists[0], [(c,) for c in result if c in lists[0]], sizes)
    return (prepare if any(prepare) else None), pairs, last


def _prepared(labels: Labels, shape: tuple[int, ...], sizes: dict[Any, int], others: set) -> tuple[Step | None, Labels]:
    """Diagonals taken of repeated indices, and the axes removed that are broadcast or that nothing else has."""
    diagonals, labels_left, shape_left = [], list(labels), list(shape)
    for c in dict.fromkeys(labels):
        while labels_left.count(c) > 1:
            i = labels_left.index(c)
            j = labels_left.index(c, i + 1)
            if shape_left[i] != shape_left[j]:
                raise ValueError(f"einsum cannot take the diagonal of axes of sizes {shape_left[i]}, {shape_left[j]}")
            diagonals.append((i, j))
            size = shape_left[i]
            for place in (j, i):
                del labels_left[place], shape_left[place]
            labels_left.append(c)
            shape_left.append(size)
    full = [i for i, c in enumerate(labels_left) if shape_left[i] == sizes[c]]
    summed = tuple(i for i in full if labels_left[i] not in others)
    kept = [i for i in full if i not in summed]
    short = len(full) < len(labels_left)
    final = tuple(shape_left[i] for i in kept)

    def step(ns: Any, x: Any) -> Any:
        for i, j in diagonals:
            x = ns.linalg.diagonal(ns.moveaxis(x, (i, j), (-2, -1)))
        if summed:
            x = ns.sum(x, axis=summed, dtype=x.dtype)
        return ns.reshape(x, final) if short else x

    left = tuple(labels_left[i] for i in kept)
    return (step if diagonals or summed or short else None), left


def _cheapest(lists: list[Labels], sizes: dict[Any, int], result: Labels) -> tuple[int, int]:
    """The pair i < j whose product is smallest, compared with its factors."""

    def size(labels: Iterable[Any]) -> int:
        return math.prod(sizes[c] for c in labels)

    def cost(pair: tuple[int, int]) -> int:
        a, b = (set(lists[k]) for k in pair)
        keep = set(result).union(*(v for k, v in enumerate(lists) if k not in pair))
        return size((a | b) & keep) - size(a) - size(b)

    n = len(lists)
    return min(((i, j) for i in range(n) for j in range(i + 1, n)), key=cost)


def _contraction(a: Labels, b: Labels, keep: set, result: Labels, sizes: dict[Any, int]) -> tuple[Step, Labels]:
    """The product of two operands, summed over the indices that nothing else has."""
    both = [c for c in a if c in b]
    batch = tuple(c for c in both if c in keep)
    summed = tuple(c for c in both if c not in keep)
    left, right = tuple(c for c in a if c not in b), tuple(c for c in b if c not in a)
    if not summed or not (left or right):
        return _entrywise(a, b, summed, [c for c in result if c in {*a, *b}], sizes)
    swap = (*batch, *right, *left) == result
    if swap:
        a, b, left, right = b, a, right, left
    shape_a, shape_b = [(left, summed), (summed, right)]
    of_a = _arranged(a, [*((c,) for c in batch), *((g for g in shape_a if g) if not batch else shape_a)], sizes)
    of_b = _arranged(b, [*((c,) for c in batch), *((g for g in shape_b if g) if not batch else shape_b)], sizes)
    labels = (*batch, *left, *right)
    flat = bool(batch and not (left and right)) or max(len(left), len(right)) > 1
    shape = tuple(sizes[c] for c in labels)

    def step(ns: Any, x: Any, y: Any) -> Any:
        if swap:
            x, y = y, x
        z = ns.matmul(x if of_a is None else of_a(ns, x), y if of_b is None else of_b(ns, y))
        return ns.reshape(z, shape) if flat else z

    return step, labels


def _entrywise(a: Labels, b: Labels, summed: Labels, first: list, sizes: dict[Any, int]) -> tuple[Step, Labels]:
    """A product entry by entry, and a sum of it."""
    labels = (*first, *(c for c in dict.fromkeys((*a, *b)) if c not in first))
    of_a, of_b = (_arranged(v, [(c,) if c in v else () for c in labels], sizes) for v in (a, b))
    axes = tuple(i for i, c in enumerate(labels) if c in summed)
    vectors = len(labels) == len(axes) == 1

    def step(ns: Any, x: Any, y: Any) -> Any:
        x, y = (x if of_a is None else of_a(ns, x)), (y if of_b is None else of_b(ns, y))
        if vectors:
            return ns.matmul(x, y)
        z = ns.multiply(x, y)
        return ns.sum(z, axis=axes, dtype=z.dtype) if axes else z

    return step, tuple(c for c in labels if c not in summed)


def _arranged(labels: Labels, groups: Iterable[Labels], sizes: dict[Any, int]) -> Step | None:
    """The step that makes one axis of each group of labels, in this order; None where that is so already."""
    groups = list(groups)
    order = tuple(labels.index(c) for group in groups for c in group)
    shape = tuple(math.prod(sizes[c] for c in group) for group in groups)
    moves = order != tuple(range(len(order)))
    joins = any(len(group) != 1 for group in groups)
    if not moves and not joins:
        return None

    def step(ns: Any, x: Any) -> Any:
        if moves:
            x = ns.permute_dims(x, order)
        return ns.reshape(x, shape) if joins else x

    return step
