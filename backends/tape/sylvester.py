"""Linear programs on matrices, folded: t ↦ Σ L op(t) R with as few products as it takes.

The derivative of a function of matrices (inverses, products, traces) replays one matrix product after the other, most
of them with constants. Written as terms L t R or L tᵀ R the constants multiply each other once. Where t is known to be
symmetric and only the symmetric part of the value counts, L t R and Rᵀ t Lᵀ are the same, and terms merge: the
Hessian of ⟨M, A⟩ + ⟨M⁻¹, B⟩ at M = llᵀ, in the coordinates t = l⁻¹U l⁻ᵀ, replays nine products and folds to one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .maps import Chain, Map
from .products import Product, as_product
from .program import Program

Array = Any
#: More terms than this are not worth folding: the program would replay as few products.
MOST_TERMS = 4


def fold(program: Program, shape: tuple[int, ...]) -> list[Product] | None:
    """The program of one matrix of this shape to one matrix as products; None where it holds anything else."""
    ns = program.ns
    at: dict[int, list[Product]] = {program.inputs[0]: [Product(ns, 1.0, None, False, None, shape)]}
    for i, parents, maps in reversed(program.steps):
        if type(maps) is not tuple:
            return None
        total: list[Product] = []
        for p, m in zip(parents, maps, strict=True):
            images = _images(ns, m, at.get(p, []))
            if images is None or len(total) + len(images) > 4 * MOST_TERMS:
                return None
            total += images
        at[i] = total
    return None if program.outputs[0] is None else at.get(program.outputs[0])


def _images(ns: Any, m: Map, terms: list[Product]) -> list[Product] | None:
    if isinstance(m, Chain):
        first = _images(ns, m.first, terms)
        return None if first is None else _images(ns, m.second, first)
    product = as_product(ns, m)
    images = [] if product is None else [image for term in terms if (image := product.after(term)) is not None]
    return images if len(images) == len(terms) else None


def merge_symmetric(xp: Any, terms: list[Product], like: Array, eps: float) -> list[tuple[Array | None, Array]] | None:
    """Pairs (left, right) with sym(Σ left t right) the symmetric part of the terms, for every symmetric t.

    `left` may be None, the identity. None where more than a few pairs are left. `like` is a matrix of the size.
    """
    n = like.shape[-1]
    tol, eye = 32 * n * eps, xp.eye(n, dtype=like.dtype)

    def same(a: Array | None, b: Array | None) -> bool:
        if a is None or b is None:
            return a is b
        if a is b:
            return True
        largest = float(xp.max(xp.abs(a)))
        if not abs(float(a[0, -1] - b[0, -1])) <= tol * largest:
            return False
        return bool(xp.max(xp.abs(a - b)) <= tol * largest)

    merged: list[list[Any]] = []
    for term in terms:
        left, right = term.left, term.right
        if right is None:  # L t and t Lᵀ have the same symmetric part
            left, right = None, eye if left is None else left.mT
        for pair in merged:
            if same(pair[0], left):
                pair[1] = pair[1] + term.scale * right
                break
            if left is not None and same(pair[0], right.mT):  # so have L t R and Rᵀ t Lᵀ
                pair[1] = pair[1] + term.scale * left.mT
                break
        else:
            merged.append([left, term.scale * right])
    return [(left, right) for left, right in merged] if 0 < len(merged) <= MOST_TERMS else None


def congruent(
    xp: Any, pairs: list[tuple[Array | None, Array]], factor: Array, eps: float
) -> list[tuple[Array | None, Array]]:
    """The pairs of t ↦ lᵀ f(l t lᵀ) l from those of f, l = `factor`; a left factor that comes out as I is dropped."""
    n = factor.shape[-1]
    eye, transposed, found = xp.eye(n, dtype=factor.dtype), factor.mT, []
    for left, right in pairs:
        left = transposed @ factor if left is None else transposed @ left @ factor
        is_identity = abs(float(left[0, 0]) - 1) <= 1e-3 and bool(xp.max(xp.abs(left - eye)) <= 32 * n * eps)
        found.append((None if is_identity else left, transposed @ right @ factor))
    return found


def products(pairs: list[tuple[Array | None, Array]]) -> Callable[[Array], Array]:
    """t ↦ sym(Σ left t right)."""
    half = [(left, 0.5 * right) for left, right in pairs]

    def apply(t: Array) -> Array:
        terms = [(t if left is None else left @ t) @ right for left, right in half]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total + total.mT

    return apply
