"""A manifold that looks at what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from ..backends import Backend, CutLocusError, NotTangentError, ShapeError, backend_of, namespace
from ..backends._trees import leaves, tree_map
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
from ._checks import _check_arrays, _check_structure, tolerance
from ._kinds import Composite, Kind, kinds_of, part

Array = Any


@dataclass(frozen=True, eq=False)
class Checked(Composite):
    """`manifold`, with its arguments and results checked in every call: for finding mistakes; of the same kinds.

    Raises, with the method and the argument in the message: `ShapeError` (structure, trailing or leading axes),
    `DTypeError`, `BackendMismatchError`, `NotOnManifoldError` (off the manifold, not finite), `ValueError` (vectors and
    covectors that are not finite), `NotTangentError` (vectors that are not tangent; covectors of costs that are not
    invariant, on a `Quotient`), `CutLocusError` (a logarithm beyond the injectivity radius, where that is known or
    bounded). Values are looked at only where they are known, not under `jax.jit`.
    """

    parameters: ClassVar[tuple[str, ...]] = ("manifold",)

    manifold: Any

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold):
            raise TypeError(f"Checked takes a manifold, not a {type(self.manifold).__name__}")

    @staticmethod
    def kinds(manifold: Any) -> frozenset[Kind]:
        """Those of `manifold`."""
        return kinds_of(manifold)

    @property
    def shape(self) -> Any:
        return self.manifold.shape

    @property
    def dim(self) -> int:
        return self.manifold.dim

    @final
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        self._given("inner", x, u=u, v=v)
        return self._finite("inner", self.manifold.inner(x, u, v))

    @final
    def project(self, x: Point, a: Point) -> Point:
        self._given("project", x)
        self._array("project", "a", x, a)
        return self._tangent("project", x, self.manifold.project(x, a))

    @final
    def sharp(self, x: Point, w: Point) -> Point:
        self._given("sharp", x)
        self._array("sharp", "w", x, w)
        self._check_horizontal("sharp", x, w)
        return self._tangent("sharp", x, self.manifold.sharp(x, w))

    @final
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        self._given("connection", x, u=u)
        self._array("connection", "w", x, w)
        self._check_horizontal("connection", x, w)
        return self.manifold.connection(x, w, u)

    @final
    def retract(self, x: Point, u: Point) -> Point:
        self._given("retract", x, u=u)
        return self._point("retract", self.manifold.retract(x, u))

    @final
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        self._given("transport", x, y, u=u)
        return self._tangent("transport", y, self.manifold.transport(x, y, u))

    @final
    def from_noise(self, z: Point) -> Point:
        self._array("from_noise", "z", None, z)
        return self._point("from_noise", self.manifold.from_noise(z))

    @final
    def defect(self, x: Point) -> Array:
        self._array("defect", "x", None, x)
        return self.manifold.defect(x)

    # -- what is looked at --------------------------------------------------------------------------
    def _given(self, method: str, x: Point, y: Point = None, **vectors: Point) -> None:
        self.manifold.check_point(x, f"{method}: x")
        if y is not None:
            self.manifold.check_point(y, f"{method}: y")
            self._array(method, "y", x, y)
        for name, u in vectors.items():
            self._array(method, name, x, u)
            self._check_tangent(f"{method}: {name}", x, u)

    def _array(self, method: str, name: str, x: Point, a: Point) -> None:
        """The structure, shape and dtype of `a`, whose leading axes are to fit those of `x`."""
        name = f"{method}: {name}"
        _check_structure(self.manifold, a, name)
        _check_arrays(self.manifold, a, name)
        backend = backend_of(a) if x is None else backend_of(x, a)  # raises for two frameworks
        if method != "defect":
            self._check_finite(backend, name, a)
        for p, q, ndim in zip(leaves(x), leaves(a), self.ndims, strict=True) if x is not None else ():
            one, two = (tuple(r.shape)[: len(r.shape) - ndim][::-1] for r in (p, q))
            if any(m != n and 1 not in (m, n) for m, n in zip(one, two, strict=False)):
                raise ShapeError(
                    f"{name} has the leading axes {two[::-1]}, which do not broadcast with x's {one[::-1]}"
                )

    def _check_finite(self, backend: Backend, name: str, a: Point) -> None:
        for leaf in leaves(backend.stop_gradient(a)):
            if backend.is_eager(leaf) and not np.isfinite(backend.to_numpy(leaf)).all():
                raise ValueError(f"{name} holds values that are not finite")

    def _check_tangent(self, name: str, x: Point, u: Point) -> None:
        backend = backend_of(x, u)
        x, u = backend.stop_gradient((x, u))
        off = tree_map(lambda a, b: a - b, self.manifold.project(x, u), u)
        squared, size = self.manifold.pair(off, off), self.manifold.pair(u, u)
        if not backend.is_eager(squared, size):
            return
        squared, size = backend.to_numpy(squared), backend.to_numpy(size)
        bad = ~(squared <= tolerance(u) ** 2 * (1 + size))
        if bad.any():
            raise NotTangentError(
                f"{name} is not tangent to {self.manifold} at the point given: {int(bad.sum())} of {bad.size} "
                f"off by {float(squared.max()) ** 0.5:.3g}, and of length {float(size.max()) ** 0.5:.3g}; "
                "use `project` for vectors, `sharp` for what autodiff returned"
            )

    def _sharp_second(self, x: Point, w: Point) -> Point:
        return self._tangent("hessian", x, self.manifold.sharp(x, w))

    def _check_horizontal(self, method: str, x: Point, w: Point) -> None:
        if not isinstance(self.manifold, Quotient):
            return
        backend = backend_of(x, w)
        x, w = backend.stop_gradient((x, w))
        vertical, squared = self.manifold.vertical(x, w), self.manifold.pair(w, w)
        if not backend.is_eager(vertical, squared):
            return
        vertical, squared = backend.to_numpy(vertical), backend.to_numpy(squared)
        if not (vertical**2 <= tolerance(w) * (tolerance(w) + squared)).all():
            raise NotTangentError(
                f"{method}: w has a vertical part of length {float(vertical.max()):.3g}: the cost changes along the "
                f"class of x, and points of {self.manifold} are classes; use a cost f with f(x·g) = f(x)"
            )

    def _tangent(self, method: str, x: Point, u: Point) -> Point:
        self._check_tangent(f"the result of {method}", x, u)
        return u

    def _point(self, method: str, x: Point) -> Point:
        self.manifold.check_point(x, f"the result of {method}")
        return x

    def _finite(self, method: str, number: Array) -> Array:
        backend = backend_of(number)
        plain = backend.stop_gradient(number)
        if backend.is_eager(plain) and not bool(namespace(plain).all(namespace(plain).isfinite(plain))):
            raise ValueError(f"the result of {method} on {self.manifold} is not finite: are the arguments too large?")
        return number


@part(Checked, Exponential)
class _Exponential(Checked, Exponential):
    @final
    def exp(self, x: Point, u: Point) -> Point:
        self._given("exp", x, u=u)
        return self._point("exp", self.manifold.exp(x, u))


@part(Checked, Logarithmic)
class _Logarithmic(_Exponential, Logarithmic):
    @final
    def log(self, x: Point, y: Point) -> Point:
        self._given("log", x, y)
        self._within("log", x, y)
        return self._tangent("log", x, self.manifold.log(x, y))

    @final
    def squared_dist(self, x: Point, y: Point) -> Array:
        self._given("squared_dist", x, y)
        return self._finite("squared_dist", self.manifold.squared_dist(x, y))

    def _within(self, method: str, x: Point, y: Point) -> None:
        manifold = self.manifold
        if not (isinstance(manifold, Curvature) and isinstance(manifold, Logarithmic)):
            return
        backend = backend_of(x, y)
        x, y = backend.stop_gradient((x, y))
        dist, radius = manifold.dist(x, y), manifold.injectivity_radius(x)
        if not backend.is_eager(dist, radius):
            return
        dist, radius = backend.to_numpy(dist), backend.to_numpy(radius)
        bad = dist >= radius * (1 - tolerance(y))
        if bad.any():
            raise CutLocusError(
                f"{method}: y is not within the injectivity radius {float(radius.min()):.6g} on {self.manifold}, in "
                f"{int(bad.sum())} of {bad.size} cases (largest distance {float(dist.max()):.6g}): there may be no "
                "shortest geodesic, or several"
            )


@part(Checked, Geodesic)
class _Geodesic(_Logarithmic, Geodesic):
    @final
    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        self._given("parallel_transport", x, y, u=u)
        self._within("parallel_transport", x, y)
        return self._tangent("parallel_transport", y, self.manifold.parallel_transport(x, y, u))


@part(Checked, InverseRetraction)
class _InverseRetraction(Checked, InverseRetraction):
    @final
    def inverse_retract(self, x: Point, y: Point) -> Point:
        self._given("inverse_retract", x, y)
        return self._tangent("inverse_retract", x, self.manifold.inverse_retract(x, y))


@part(Checked, Curvature)
class _Curvature(Checked, Curvature):
    @final
    def injectivity_radius(self, x: Point) -> Array:
        self._given("injectivity_radius", x)
        return self.manifold.injectivity_radius(x)

    @final
    def curvature_bounds(self, x: Point) -> tuple[Array, Array]:
        self._given("curvature_bounds", x)
        return self.manifold.curvature_bounds(x)


@part(Checked, Quotient)
class _Quotient(Checked, Quotient):
    @final
    def align(self, x: Point, y: Point) -> Point:
        self._given("align", x, y)
        return self._point("align", self.manifold.align(x, y))

    @final
    def vertical(self, x: Point, w: Point) -> Array:
        self._given("vertical", x)
        self._array("vertical", "w", x, w)
        return self.manifold.vertical(x, w)


@part(Checked, Congruence)
class _Congruence(Checked, Congruence):
    @final
    def factor(self, x: Array) -> Array:
        self._given("factor", x)
        return self.manifold.factor(x)
