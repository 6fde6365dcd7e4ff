"""Linear programs on matrices, folded: t ↦ Σ L op(t) R with as few products as it takes.

The derivative of a function of matrices (inverses, products, traces) replays one matrix product after the other, most
of them with constants. Written as terms L t R or L tᵀ R the constants multiply each other once. Where t is known to be
symmetric and only the symmetric part of the value counts, L t R and Rᵀ t Lᵀ are the same, and terms merge: the
Hessian of ⟨M, A⟩ + ⟨M⁻¹, B⟩ at M = llᵀ, in the coordinates t = l⁻¹U l⁻ᵀ, replays nine products and folds to one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .array import Traced
from .maps import Chain, Identity, Map, Negate, Sandwich, Scale, Transpose
from .program import Program

Array = Any
#: More terms than this are not worth folding: the program would replay as few products.
MOST_TERMS = 4


@dataclass(slots=True)
class Term:
    """scale · left op(t) right, op the transpose where `flipped`; a factor that is None is the identity."""

    scale: float
    left: Array | None
    flipped: bool
    right: Array | None


def fold(program: Program) -> list[Term] | None:
    """The program of one matrix to one matrix as terms; None where it holds anything but products of matrices."""
    at: dict[int, list[Term]] = {program.inputs[0]: [Term(1.0, None, False, None)]}
    for i, parents, maps in reversed(program.steps):
        if type(maps) is not tuple:
            return None
        total: list[Term] = []
        for p, m in zip(parents, maps, strict=True):
            images = _image(m, at.get(p, []))
            if images is None or len(total) + len(images) > 4 * MOST_TERMS:
                return None
            total += images
        at[i] = total
    return None if program.outputs[0] is None else at.get(program.outputs[0])


def _image(m: Map, terms: list[Term]) -> list[Term] | None:
    if isinstance(m, Identity):
        return terms
    if isinstance(m, Negate):
        return [Term(-t.scale, t.left, t.flipped, t.right) for t in terms]
    if isinstance(m, Scale) and isinstance(m.d, (int, float)):
        return [Term(m.d * t.scale, t.left, t.flipped, t.right) for t in terms]
    if isinstance(m, Transpose):
        return [Term(t.scale, _transposed(t.right), not t.flipped, _transposed(t.left)) for t in terms]
    if isinstance(m, Sandwich) and not isinstance(m.a, Traced) and not isinstance(m.b, Traced):
        sign = -1.0 if m.negative else 1.0
        return [Term(sign * t.scale, _times(m.a, t.left), t.flipped, _times(t.right, m.b)) for t in terms]
    if isinstance(m, Chain):
        first = _image(m.first, terms)
        return None if first is None else _image(m.second, first)
    return None


def _transposed(a: Array | None) -> Array | None:
    return None if a is None else a.mT


def _times(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a @ b


def symmetric_products(xp: Any, terms: list[Term], like: Array, eps: float) -> Callable[[Array], Array] | None:
    """t ↦ sym(Σ L t R) for symmetric t, terms merged; None if too many are left. `like` is a matrix of the size."""
    n = like.shape[-1]
    tol = 32 * n * eps
    eye = xp.eye(n, dtype=like.dtype)

    def same(a: Array | None, b: Array | None) -> bool:
        if a is None or b is None:
            return a is b
        if not abs(float(a[0, -1] - b[0, -1])) <= tol * (abs(float(a[0, -1])) + float(xp.max(xp.abs(a)))):
            return False
        return bool(xp.max(xp.abs(a - b)) <= tol * xp.max(xp.abs(a)))

    def trimmed(a: Array | None) -> Array | None:
        return None if a is not None and same(eye, a) else a

    merged: list[list[Any]] = []  # pairs [left, right]; left may be None, right may not
    for term in terms:
        left, right = trimmed(term.left), trimmed(term.right)
        if right is None:
            left, right = None, eye if left is None else left.mT
        right = term.scale * right
        for pair in merged:
            if same(pair[0], left):
                pair[1] = pair[1] + right
                break
            if left is not None and same(pair[0], right.mT / term.scale):  # L t R and Rᵀ t Lᵀ are the same here
                pair[1] = pair[1] + term.scale * left.mT
                break
        else:
            merged.append([left, right])
    if not merged or len(merged) > MOST_TERMS:
        return None
    half = [(left, 0.5 * right) for left, right in merged]

    def apply(t: Array) -> Array:
        products = [(t if left is None else left @ t) @ right for left, right in half]
        total = products[0]
        for product in products[1:]:
            total = total + product
        return total + total.mT

    return apply
