"""A linear program, folded: the same map in fewer steps, for programs that are applied again and again.

Three things are done. Maps that follow one another become one: the derivatives of an elementwise function of an
elementwise function multiply each other once, and so do constant matrices where that saves more than it costs.
Maps from one node to another become one: their factors are added. Nodes that nobody needs any more are dropped.
The derivative of an elementwise expression, however long, is one multiplication afterwards.

Only constants that are plain floating-point arrays, or Python's numbers, are folded. Products of arrays that are
traced on older tapes would have to be recorded; those of integers could overflow; those of a precision below that
of the tangents would be less accurate. Where a product of constants is not finite, the program stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .array import Traced
from .maps import IDENTITY, Linear, Map, Sandwich, Scale, ScaleComplex, scale
from .products import Product, as_product

Array = Any
Step = tuple[int, tuple[int, ...], Any]
#: Matrices are multiplied if that pays after so many applications.
APPLICATIONS = 4


def fold(ns: Any, steps: list[Step], outputs: Sequence[int | None], given: Sequence[Array | None]) -> list[Step]:
    """`steps` of a program, last node first, in fewer of them; `given` are tangents or cotangents that it is run on."""
    with np.errstate(all="ignore"):
        folding = _Folding(ns, given)
        folding.run(steps, outputs)
        if not all(_is_finite(ns, m) for m in folding.made()):
            return steps
        return [(i, parents, _settled(ns, maps)) for i, (parents, maps) in reversed(folding.nodes.items())]


class _Folding:
    """Every node in terms of the earliest nodes that it can be had from without more work."""

    def __init__(self, ns: Any, given: Sequence[Array | None]):
        self.ns = ns
        self.eps = min((self._eps(t) for t in given if ns.backend.is_inexact(t)), default=0.0)
        self.precise: dict[Any, bool] = {}
        self.uses: dict[int, int] = {}
        self.nodes: dict[int, tuple[tuple[int, ...], Any]] = {}
        self.originals: set[int] = set()

    def run(self, steps: list[Step], outputs: Sequence[int | None]) -> None:
        """Fold these steps into `nodes`, first node first."""
        uses = self.uses
        for i in outputs:
            if i is not None:
                uses[i] = uses.get(i, 0) + 1
        for _, parents, maps in steps:
            if type(maps) is tuple:
                self.originals.update(map(id, maps))
            for p in parents:
                uses[p] = uses.get(p, 0) + 1
        for i, parents, maps in reversed(steps):
            if type(maps) is tuple:
                edges = [self._from_earlier(p, m) for p, m in zip(parents, maps, strict=True)]
                edges = self._summed(edges) if len(edges) > 1 else edges
                parents, maps = tuple(p for p, _ in edges), tuple(m for _, m in edges)
            self.nodes[i] = parents, maps

    def made(self) -> list[Map]:
        """The maps in `nodes` that were not there before."""
        every = [m for _, maps in self.nodes.values() if type(maps) is tuple for m in maps]
        return [m for m in every if id(m) not in self.originals]

    def _from_earlier(self, p: int, m: Map) -> tuple[int, Map]:
        """The map m of node p as a map of the node that p itself is a map of, if that is no more work."""
        parents, maps = self.nodes.get(p, ((), ()))
        if type(maps) is not tuple or len(maps) != 1:
            return p, m
        both = self._composed(maps[0], m, alone=self.uses[p] == 1)
        if both is None:
            return p, m
        self.uses[p] -= 1
        if self.uses[p]:
            self.uses[parents[0]] += 1
        else:
            del self.nodes[p]
        return parents[0], both

    def _composed(self, first: Map, second: Map, alone: bool) -> Map | None:
        """t ↦ second(first(t)), unless that is more work; `alone` if nothing else needs first(t)."""
        if first is IDENTITY:
            return second
        d, e = _factor(first), _factor(second)
        if second is IDENTITY and (alone or d is not None):
            return first
        if d is not None and e is not None:
            return _diagonal(self.ns, d * e) if self._may_meet(d, e) else None
        one, two = as_product(self.ns, first), as_product(self.ns, second)
        if one is None or two is None or not (alone or one.is_bare):
            return None
        pairs = [pair for pair in two.factors_after(one) if pair[0] is not None and pair[1] is not None]
        if pairs and not (all(self._may_meet(a, b) for a, b in pairs) and _pays(one, two)):
            return None
        both = two.after(one)
        return both if both is None or both.flipped or not both.is_bare else _diagonal(self.ns, both.scale)

    def _summed(self, edges: list[tuple[int, Map]]) -> list[tuple[int, Map]]:
        """`edges` with those from one node that multiply every entry added up."""
        found: list[tuple[int, Map]] = []
        factors: dict[int, tuple[int, Any]] = {}
        for p, m in edges:
            e = _factor(m)
            place, d = factors.get(p, (len(found), None))
            if d is not None and e is not None and self._may_meet(d, e):
                self.uses[p] -= 1
                e = d + e
                found[place] = p, _diagonal(self.ns, e)
            else:
                place = len(found)
                found.append((p, m))
            if e is not None:
                factors[p] = place, e
        return found

    def _may_meet(self, d: Any, e: Any) -> bool:
        """Whether arithmetic of two constants is that of plain floating-point numbers of one, sufficient, precision."""
        of_d, of_e = getattr(d, "dtype", None), getattr(e, "dtype", None)
        if of_d is None:
            return of_e is None or self._is_precise(e)
        return (of_e is None or of_e == of_d) and self._is_precise(d)

    def _is_precise(self, d: Array) -> bool:
        found = self.precise.get(d.dtype)
        if found is None:
            found = self.precise[d.dtype] = self.ns.backend.is_inexact(d) and self._eps(d) <= self.eps
        return found

    def _eps(self, d: Array) -> float:
        return float(self.ns.xp.finfo(d.dtype).eps)


def _factor(m: Map) -> Any:
    """What m multiplies every entry by; None where it does something else, or by a traced array."""
    d = getattr(m, "d", None)
    return None if isinstance(d, Traced) else d


def _diagonal(ns: Any, d: Any) -> Map:
    return IDENTITY if isinstance(d, (int, float)) and d == 1 else scale(ns, d)


def _pays(first: Product, second: Product) -> bool:
    """Whether multiplying the factors of two products saves more, in a few applications, than it costs."""
    saved = cost = 0.0
    for k, (a, b) in enumerate(second.factors_after(first)):
        if a is None or b is None:
            continue
        if first.shape is None:
            return False
        rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
        vectors = math.prod(first.shape) / max(1, rows if k else columns)
        saved += vectors * (rows * inner + inner * columns - rows * columns)
        cost += math.prod(a.shape) * columns
    return cost <= APPLICATIONS * saved


def _settled(ns: Any, maps: Any) -> Any:
    """The maps of a node in the form that is applied fastest."""
    return tuple(_settled_map(ns, m) for m in maps) if type(maps) is tuple else maps


def _settled_map(ns: Any, m: Map) -> Map:
    if isinstance(m, (Sandwich, Product)):
        product = as_product(ns, m)
        return m if product is None else product.settled()
    if isinstance(m, ScaleComplex) and not isinstance(m.d, Traced):
        d = m.d
        conjugate = ns.conj(d) if hasattr(d, "dtype") else d.conjugate()
        return Linear(lambda t: t * d, lambda c: c * conjugate)
    return m


def _is_finite(ns: Any, m: Map) -> bool:
    """Whether the constants of a map that folding made are finite."""
    constants = [m.d] if isinstance(m, (Scale, ScaleComplex)) else [m.left, m.right] if isinstance(m, Product) else []
    for c in constants:
        if hasattr(c, "dtype"):
            if bool(ns.xp.count_nonzero(~ns.xp.isfinite(c))):
                return False
        elif c is not None and not abs(c) < math.inf:
            return False
    return True
