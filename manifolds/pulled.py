"""A manifold in other coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from ..backends import backend_of
from ..backends._trees import tree_map
from ._base import (
    Congruence,
    Curvature,
    Exponential,
    Geodesic,
    InverseRetraction,
    Logarithmic,
    Manifold,
    Point,
    Quotient,
)
from ._kinds import Composite, Kind, kinds_of, part
from ._leading import alike

Array = Any


@dataclass(frozen=True, eq=False)
class Pulled(Composite):
    """The points of `source` with the metric that `map` pulls back from `target`: ⟨u, v⟩ₓ = ⟨Dφ u, Dφ v⟩ at φ(x).

    φ = `map` is a diffeomorphism from `source` onto `target`, or onto an open part of it, and `inverse` undoes it: both
    differentiable code of arrays that broadcasts over leading axes. All operations go through φ, an isometry, so that
    the result is `Exponential`, `Geodesic`, … where `target` is. Of `source` the set counts alone: shape, `project`,
    `from_noise` and `defect`. `Pulled(Euclidean(2), Sphere(3), onto_sphere, onto_plane)` is the sphere in
    stereographic coordinates. Lee 2018, *Introduction to Riemannian Manifolds*, ch. 2.
    """

    parameters: ClassVar[tuple[str, ...]] = ("source", "target")

    source: Any
    target: Any
    map: Callable[[Point], Point]
    inverse: Callable[[Point], Point]

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            manifold = getattr(self, name)
            if not isinstance(manifold, Manifold) or isinstance(manifold, Quotient):
                raise TypeError(f"Pulled: {name} is a manifold, and no Quotient; found {manifold}")
        if self.source.dim != self.target.dim:
            raise ValueError(
                f"Pulled: source and target have the dimensions {self.source.dim} and {self.target.dim}, "
                "and a diffeomorphism needs equal ones"
            )

    @staticmethod
    def kinds(source: Any, target: Any, map: Any, inverse: Any) -> frozenset[Kind]:
        """Those of `target`; a Congruence is one in its own coordinates alone."""
        return kinds_of(target) - {Congruence}

    @property
    def shape(self) -> Any:
        return self.source.shape

    @property
    def dim(self) -> int:
        return self.source.dim

    @final
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        """⟨Dφ u, Dφ v⟩ at φ(x)."""
        y, pushed = self._push(x, u)
        return self.target.inner(y, pushed, pushed if v is u else self._push(x, v)[1])

    @final
    def project(self, x: Point, a: Point) -> Point:
        return self.source.project(x, a)

    @final
    def sharp(self, x: Point, w: Point) -> Point:
        """D sharp(φ(x), Dᵀw), D the derivative of the inverse at φ(x)."""
        y = self.map(x)
        return self._back(y, self.target.sharp(y, self._pull(y, w)))

    @final
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        """Dφᵀ (D²φ⁻¹ᵀ[w, u'] + connection(φ(x), w', u')), w' and u' being w and u carried to the target."""
        x, w, u = alike((self.source, x), (self.source, w), (self.source, u))
        y, pushed = self._push(x, u)
        backend = backend_of(x, w, u)
        covector, bend = backend.jvp(lambda p: backend.vjp(self.inverse, p)[1](w)[0], (y,), (pushed,))
        full = tree_map(lambda a, b: a + b, bend, self.target.connection(y, covector, pushed))
        return self.source.project(x, backend.vjp(self.map, x)[1](full)[0])

    @final
    def retract(self, x: Point, u: Point) -> Point:
        """φ⁻¹ of the target's, of the same order."""
        return self.inverse(self.target.retract(*self._push(x, u)))

    @final
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        start, pushed = self._push(x, u)
        end = self.map(y)
        return self._back(end, self.target.transport(start, end, pushed))

    @final
    def from_noise(self, z: Point) -> Point:
        return self.source.from_noise(z)

    @final
    def defect(self, x: Point) -> Array:
        """That of `source`, plus that of φ(x) in the target."""
        return self.source.defect(x) + self.target.defect(self.map(x))

    def _push(self, x: Point, u: Point) -> tuple[Point, Point]:
        """φ(x), Dφ(x) u."""
        x, u = alike((self.source, x), (self.source, u))
        return backend_of(x, u).jvp(self.map, (x,), (u,))

    def _back(self, y: Point, v: Point) -> Point:
        """Dφ⁻¹(y) v."""
        y, v = alike((self.target, y), (self.target, v))
        return backend_of(y, v).jvp(self.inverse, (y,), (v,))[1]

    def _pull(self, y: Point, w: Point) -> Point:
        """Dφ⁻¹(y)ᵀ w."""
        y, w = alike((self.target, y), (self.source, w))
        return backend_of(y, w).vjp(self.inverse, y)[1](w)[0]


@part(Pulled, Exponential)
class _Exponential(Pulled, Exponential):
    @final
    def exp(self, x: Point, u: Point) -> Point:
        """φ⁻¹(exp(φ(x), Dφ u))."""
        return self.inverse(self.target.exp(*self._push(x, u)))


@part(Pulled, Logarithmic)
class _Logarithmic(_Exponential, Logarithmic):
    @final
    def log(self, x: Point, y: Point) -> Point:
        """Dφ⁻¹ log(φ(x), φ(y))."""
        start = self.map(x)
        return self._back(start, self.target.log(start, self.map(y)))

    @final
    def squared_dist(self, x: Point, y: Point) -> Array:
        """That of φ(x) and φ(y)."""
        return self.target.squared_dist(self.map(x), self.map(y))


@part(Pulled, Geodesic)
class _Geodesic(_Logarithmic, Geodesic):
    @final
    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        start, pushed = self._push(x, u)
        end = self.map(y)
        return self._back(end, self.target.parallel_transport(start, end, pushed))


@part(Pulled, InverseRetraction)
class _InverseRetraction(Pulled, InverseRetraction):
    @final
    def inverse_retract(self, x: Point, y: Point) -> Point:
        start = self.map(x)
        return self._back(start, self.target.inverse_retract(start, self.map(y)))


@part(Pulled, Curvature)
class _Curvature(Pulled, Curvature):
    @final
    def injectivity_radius(self, x: Point) -> Array:
        """The target's at φ(x)."""
        return self.target.injectivity_radius(self.map(x))

    @final
    def curvature_bounds(self, x: Point) -> tuple[Array, Array]:
        """The target's at φ(x)."""
        return self.target.curvature_bounds(self.map(x))
