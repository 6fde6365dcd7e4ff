"""Products with constant matrices, t ↦ s L op(t) R: one after the other they are one of their kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .array import Traced
from .maps import Map, Sandwich, Transpose

Array = Any


class Product:
    """t ↦ scale · left op(t) right, op the transpose where `flipped`; a factor that is None is the identity.

    The factors are plain arrays. `shape` is that of t, None where it is not known. With one factor, t may be a
    vector.
    """

    __slots__ = ("adjoints", "flipped", "left", "ns", "right", "scale", "shape")

    def __init__(
        self, ns: Any, scale: float, left: Array | None, flipped: bool, right: Array | None, shape: Any = None
    ):
        self.ns, self.scale, self.left, self.flipped, self.right = ns, scale, left, flipped, right
        if shape is None and left is not None and right is not None:
            shape = (left.shape[-1], right.shape[-2])
            shape = shape[::-1] if flipped else shape
        self.shape = shape
        self.adjoints: tuple[Array | None, Array | None] | None = None

    def push(self, t: Array) -> Array:
        """Scale · left op(t) right."""
        if self.flipped:
            t = t.mT
        if self.left is not None:
            t = self.left @ t
        if self.right is not None:
            t = t @ self.right
        return t if self.scale == 1 else t * self.scale

    def pull(self, c: Array) -> Array:
        """Scale · op(leftᴴ c rightᴴ)."""
        if self.adjoints is None:
            self.adjoints = _apply(self.ns.adjoint, self.left), _apply(self.ns.adjoint, self.right)
        left, right = self.adjoints
        if left is not None:
            c = left @ c
        if right is not None:
            c = c @ right
        if self.flipped:
            c = c.mT
        return c if self.scale == 1 else c * self.scale

    @property
    def is_bare(self) -> bool:
        """Whether there are no factors."""
        return self.left is None and self.right is None

    def factors_after(self, first: Product) -> tuple[tuple[Array | None, Array | None], ...]:
        """Of t ↦ self(first(t)): the pairs of which its left and its right factor are the products."""
        left, right = first.left, first.right
        if self.flipped:
            left, right = _apply(_transpose, right), _apply(_transpose, left)
        return (self.left, left), (right, self.right)

    def after(self, first: Product) -> Product | None:
        """t ↦ self(first(t)); None where dtypes differ, or where t may be a vector with factors on both sides."""
        (a, b), (c, d) = self.factors_after(first)
        shape = first.shape
        if shape is None and self.shape is not None and first.is_bare:
            shape = (*self.shape[:-2], *self.shape[:-3:-1]) if first.flipped else self.shape
        both_sides = not (a is None and b is None) and not (c is None and d is None)
        if (both_sides and (shape is None or len(shape) < 2)) or not (_of_one_dtype(a, b) and _of_one_dtype(c, d)):
            return None
        left, right = _times(a, b), _times(c, d)
        return Product(self.ns, self.scale * first.scale, left, first.flipped != self.flipped, right, shape)

    def settled(self) -> Product:
        """The same map with its number multiplied into a factor, if there is one that is small enough."""
        left, right, size = self.left, self.right, math.prod(self.shape or (0,))
        if self.scale == 1:
            return self
        if left is not None and math.prod(left.shape) <= size:
            left = left * self.scale
        elif right is not None and math.prod(right.shape) <= size:
            right = right * self.scale
        else:
            return self
        return Product(self.ns, 1.0, left, self.flipped, right, self.shape)


def as_product(ns: Any, m: Map) -> Product | None:
    """`m` as a product with plain floating-point matrices; None where it is none."""
    if isinstance(m, Product):
        return m
    if isinstance(m, Sandwich):
        a, b = m.a, m.b
        plain = (a is None or _is_plain(ns, a)) and (b is None or _is_plain(ns, b))
        return Product(ns, -1.0 if m.negative else 1.0, a, False, b, m.shape) if plain else None
    if isinstance(m, Transpose):
        return Product(ns, 1.0, None, True, None)
    number = getattr(m, "d", None)  # what Identity, Negate and Scale multiply every entry by
    return Product(ns, number, None, False, None) if isinstance(number, (int, float)) else None


def _is_plain(ns: Any, a: Array) -> bool:
    return not isinstance(a, Traced) and len(a.shape) > 1 and ns.backend.is_inexact(a)


def _apply(function: Callable[[Array], Array], a: Array | None) -> Array | None:
    return None if a is None else function(a)


def _transpose(a: Array) -> Array:
    return a.mT


def _of_one_dtype(a: Array | None, b: Array | None) -> bool:
    return a is None or b is None or a.dtype == b.dtype


def _times(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a @ b
