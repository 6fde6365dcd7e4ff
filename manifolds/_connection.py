"""The covector `connection` derived from `sharp` and `inner`: for manifolds without a formula, and as a check."""

from __future__ import annotations

from typing import Any

from ..backends import backend_of, namespace
from ..backends._trees import tree_map
from ._leading import alike

Point = Any


def derived_connection(manifold: Any, x: Point, w: Point, u: Point) -> Point:
    """connection(x, w, u) of a manifold that is no `Quotient`, by four derivatives of `sharp` and one of `inner`.

    A geodesic solves Hamilton's equations for H(x, p) = ½ p·sharp(x, p), so that with p = flat(x, u)

        ẍ = Q(u) = D_x sharp(x, p)[u] - sharp(x, ∂_x H(x, p)),

    quadratic in u; and connection(x, w, u)·v = w·Q(u, v) with the polar form of Q, so that it is ½ ∂_u (w·Q(u)),
    projected. For `sharp` it does not matter how it is extended off the manifold.
    """
    x, w, u = alike((manifold, x), (manifold, w), (manifold, u))
    backend = backend_of(x, w, u)

    def acceleration(velocity: Point) -> Point:
        p = manifold.flat(x, velocity)

        def energy(y: Point) -> Any:
            return 0.5 * manifold.pair(p, manifold.sharp(y, p))

        _, drift = backend.jvp(lambda y: manifold.sharp(y, p), (x,), (velocity,))
        value, pull = backend.vjp(energy, x)
        force = pull(namespace(value).ones_like(value))[0]
        return tree_map(lambda a, b: a - b, drift, manifold.sharp(x, force))

    def work(velocity: Point) -> Any:
        return 0.5 * manifold.pair(w, acceleration(velocity))

    value, pull = backend.vjp(work, u)
    return manifold.project(x, pull(namespace(value).ones_like(value))[0])
