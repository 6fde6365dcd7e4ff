"""The table of manifolds that tests go through: one line for each.

`manifold_case` of the plugin is a test's argument that runs over it; a `Case` makes its manifold like an array (array
parameters follow that array's framework, dtype and device) and knows what the laws need to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import backend_of, namespace
from ..manifolds import (
    HPD,
    SPD,
    Box,
    Checked,
    Correlation,
    DoublyStochastic,
    Elliptope,
    Embedded,
    Euclidean,
    FixedRank,
    Flag,
    GeneralizedStiefel,
    Grassmann,
    GrassmannProjectors,
    Hermitian,
    Lorentz,
    Manifold,
    Multinomial,
    Oblique,
    Orthogonal,
    PoincareBall,
    Positive,
    Product,
    PSDFixedRank,
    Pulled,
    Scaled,
    SiegelUpperHalfSpace,
    Simplex,
    SkewSymmetric,
    SPDBuresWasserstein,
    SPDFixedDeterminant,
    SPDLogCholesky,
    SPDLogEuclidean,
    SpecialEuclidean,
    SpecialOrthogonal,
    Spectrahedron,
    Sphere,
    Stereographic,
    Stiefel,
    Symmetric,
    SymmetricDoublyStochastic,
    Torus,
    Unitary,
    WithMetric,
    cayley,
    polar,
)
from ..manifolds._linalg import dot, mT, sym
from .laws import ROUNDING, Cost, check_manifold

Array = Any


@dataclass(frozen=True)
class Case:
    """A manifold, and what its laws need to be told; see `check_manifold`."""

    make: Callable[[Array], Manifold]
    retraction_order: int = 1
    cost: Cost | None = None
    reach: float = 0.75
    rounding: float = ROUNDING
    complex: bool = False
    #: random numbers, shaped like the array parameters, as a direction in which these may move
    parameter_direction: Callable[[list[Any]], list[Any]] = lambda noise: noise

    def like(self, like: Array) -> Array:
        """`like`, complex of the same precision where the case is one of complex points."""
        if not self.complex:
            return like
        backend = backend_of(like)
        double = "64" in str(like.dtype)
        return backend.asarray(np.zeros((), np.complex128 if double else np.complex64))

    def check(self, like: Array, rng: Any, batch: tuple[int, ...] = (3,)) -> dict[str, float]:
        """Assert all laws, in the framework, precision and device of `like`; return the residuals."""
        like = self.like(like)
        return check_manifold(
            self.make(like),
            like,
            rng,
            batch=batch,
            cost=self.cost,
            retraction_order=self.retraction_order,
            reach=self.reach,
            rounding=self.rounding,
        )


def fixed(manifold: Manifold, retraction_order: int = 1, **options: Any) -> Case:
    """A case of a manifold without array parameters."""
    return Case(lambda like: manifold, retraction_order, **options)


def given(like: Array, value: Any) -> Array:
    """Numbers as an array parameter."""
    return backend_of(like).asarray(np.asarray(value), like=like)


def sheared(x: Array) -> Array:
    """A diffeomorphism of the unit sphere in ℝ³ that is no isometry."""
    xp = namespace(x)
    return _unit(x + 0.4 * xp.roll(x, 1, axis=-1))


def unsheared(y: Array) -> Array:
    """The inverse of `sheared`."""
    xp = namespace(y)
    return _unit(y - 0.4 * xp.roll(y, 1, axis=-1) + 0.16 * xp.roll(y, 2, axis=-1))


def ellipsoid(x: Array, weights: Array) -> Array:
    """Zero where Σ weights x² = 2."""
    return 0.5 * namespace(x, weights).sum(weights * x * x, axis=-1) - 1


def orthonormal(x: Array) -> Array:
    """Zero where the two columns of `x` are orthonormal."""
    xp, gram = namespace(x), mT(x) @ x
    return xp.stack([gram[..., 0, 0] - 1, gram[..., 0, 1], gram[..., 1, 1] - 1], axis=-1)


def uneven(x: Array, u: Array) -> Array:
    """A metric: (I + diag x² + (s xᵀ + x sᵀ)/4) u, s = x shifted by one."""
    xp, shifted = namespace(x, u), namespace(x).roll(x, 1, axis=-1)
    along, across = xp.sum(x * u, axis=-1, keepdims=True), xp.sum(shifted * u, axis=-1, keepdims=True)
    return (1 + x * x) * u + 0.25 * (shifted * along + x * across)


def _unit(a: Array) -> Array:
    return a / namespace(a).sqrt(dot(a, a, 1, keepdims=True))


def gram_cost(p: Array, a: Array, b: Array) -> Array:
    """A function of p pᵀ: (aᵀp)·(bᵀp) + |aᵀp pᵀb|²/9 + (…)²/20."""
    left, right = mT(a) @ p, mT(b) @ p
    first, both = dot(left, right, 2), left @ mT(right)
    return first + dot(both, both, 2) / 9 + first * first / 20


def flag_cost(p: Array, a: Array, b: Array) -> Array:
    """A function of the subspaces in a flag of dimensions 1 and 3."""
    return gram_cost(p[..., :1], a[..., :1], b[..., :1]) + 2 * gram_cost(p[..., 1:], a[..., 1:], b[..., :2])


def product_cost(p: Any, a: Any, b: Any) -> Array:
    """A function of u s vᵀ, in the same manner."""
    left = (mT(a["u"]) @ p["u"]) @ p["s"] @ (mT(p["v"]) @ a["v"])
    right = (mT(b["u"]) @ p["u"]) @ p["s"] @ (mT(p["v"]) @ b["v"])
    first = dot(a["s"], left, 2)
    return first + dot(left, right, 2) / 9 + first * dot(b["s"], right, 2) / 20


#: name -> case. One line for each manifold.
CASES: dict[str, Case] = {
    # vector spaces and constructions
    "numbers": fixed(Euclidean(), 2),
    "matrices": fixed(Euclidean(3, 2), 2),
    "product": fixed(Product({"w": DoublyStochastic.uniform(2, 3), "b": Euclidean(3)}), 1),
    "geodesic product": fixed(Product([Sphere(3), {"c": (Euclidean(2), Euclidean())}]), 2),
    "nested product": fixed(Product((SPD(2), Product({"s": Sphere(3)}))), 2),
    "symmetric": fixed(Symmetric(3), 2),
    "skew-symmetric": fixed(SkewSymmetric(3), 2),
    "Hermitian": fixed(Hermitian(3), 2, complex=True),
    "positive": fixed(Positive(3), 2),
    "box": Case(lambda like: Box(given(like, [-1.0, 0.5]), given(like, 2.0), (3, 2)), 2),
    "scaled": Case(lambda like: Scaled(Product([SPD(2), Sphere(3)]), given(like, 2.5)), 2),
    "pulled": fixed(Pulled(Sphere(3), Sphere(3), sheared, unsheared), 2),
    "own metric": fixed(WithMetric(Sphere(3), uneven), 1),
    "ellipsoid": Case(
        lambda like: Embedded.from_constraint(ellipsoid, (3,), given(like, [1.0, 2.0, 0.5])), 2, reach=0.3
    ),
    "embedded Stiefel": fixed(Embedded.from_constraint(orthonormal, (4, 2)), 2, reach=0.3),
    "checked": fixed(Checked(SPD(2)), 2),
    # spheres and simplices
    "sphere": fixed(Sphere(4), 2),
    "complex sphere": fixed(Sphere(3), 2, complex=True),
    "oblique": fixed(Oblique(4, 3), 2),
    "torus": fixed(Torus(3), 2),
    "simplex": fixed(Simplex(4), 1, reach=0.1),
    "multinomial": fixed(Multinomial(2, 3), 1, reach=0.1),
    "doubly stochastic": Case(
        lambda like: DoublyStochastic(given(like, [0.3, 0.7]), given(like, [0.2, 0.3, 0.5])),
        parameter_direction=lambda noise: [p - p.mean() for p in noise],  # the totals stay equal
    ),
    "square doubly stochastic": fixed(DoublyStochastic.uniform(3)),
    "symmetric doubly stochastic": Case(lambda like: SymmetricDoublyStochastic(given(like, [0.5, 1.0, 2.0]))),
    # orthonormal columns
    "Stiefel": fixed(Stiefel(5, 2), 1),
    "Stiefel, polar": fixed(Stiefel(5, 2, polar), 2),
    "Stiefel, Cayley": fixed(Stiefel(5, 2, cayley), 1),
    "square Stiefel": fixed(Stiefel(3, 3), 1),
    "complex Stiefel": fixed(Stiefel(4, 2, polar), 2, complex=True),
    "canonical Stiefel": Case(lambda like: Stiefel(5, 2, cayley, given(like, 0.5))),
    "generalized Stiefel": Case(
        lambda like: GeneralizedStiefel(4, 2, given(like, np.diag([1.0, 2.0, 0.5, 1.5]) + 0.2)),
        2,
        parameter_direction=lambda noise: [sym(a) for a in noise],
    ),
    # groups and subspaces
    "Grassmann": fixed(Grassmann(5, 2), 2, cost=gram_cost),
    "complex Grassmann": fixed(Grassmann(4, 2), 2, cost=gram_cost, complex=True),
    "Grassmann, projectors": fixed(GrassmannProjectors(4, 2), 2),
    "flags": fixed(Flag(5, (1, 3)), 2, cost=flag_cost),
    "rotations": fixed(SpecialOrthogonal(3), 2),
    "rotations of 4-space": fixed(SpecialOrthogonal(4, polar), 2),
    "orthogonal": fixed(Orthogonal(4), 2),
    "unitary": fixed(Unitary(3), 2, complex=True),
    "rigid motions": fixed(SpecialEuclidean(3), 2),
    # positive definite
    "SPD": fixed(SPD(3), 2),
    "HPD": fixed(HPD(3), 2, complex=True),
    "log-Euclidean SPD": fixed(SPDLogEuclidean(3), 2),
    "log-Cholesky SPD": fixed(SPDLogCholesky(3), 2),
    "Bures-Wasserstein SPD": fixed(SPDBuresWasserstein(3), 2, reach=0.2),
    "SPD of fixed determinant": Case(lambda like: SPDFixedDeterminant(3, given(like, 2.0)), 2),
    "correlation": fixed(Correlation(4), 2),
    # low rank
    "PSD of fixed rank": fixed(PSDFixedRank(5, 3), 2, cost=gram_cost),
    "complex PSD of fixed rank": fixed(PSDFixedRank(4, 2), 2, cost=gram_cost, complex=True),
    "spectrahedron": fixed(Spectrahedron(5, 2), 2, cost=gram_cost, reach=0.2),
    "elliptope": fixed(Elliptope(6, 3), 2, cost=gram_cost),
    "fixed rank": fixed(FixedRank(5, 4, 2), 2, cost=product_cost, reach=0.3),
    # hyperbolic
    "Poincare ball": Case(lambda like: PoincareBall(3, c=like + 0.7), 2),
    "stereographic, sphere": Case(lambda like: Stereographic(3, like + 0.8), 2),
    "stereographic, flat": Case(lambda like: Stereographic(3, like), 2),
    "stereographic, hyperbolic": Case(lambda like: Stereographic(3, like - 0.6), 2),
    "Siegel": fixed(SiegelUpperHalfSpace(2), 2, complex=True),
    "Lorentz": Case(lambda like: Lorentz(3, c=like + 1.3), 2),
}
