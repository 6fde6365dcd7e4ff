"""A known manifold with a metric of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

from ..backends import backend_of, namespace
from ..backends._trees import tree_map
from ._base import InverseRetraction, Manifold, Point, Quotient
from ._connection import derived_connection
from ._kinds import Composite, Kind, kinds_of, part
from ._leading import alike, from_vector, to_vector

Array = Any


@dataclass(frozen=True, eq=False)
class WithMetric(Composite):
    """The points of `manifold` with the metric ⟨u, v⟩ₓ = g(x, u)·v.

    `metric` is the function g: covectors, linear in u, of code that is differentiable and broadcasts over leading
    axes; self-adjoint and positive on each tangent space. `WithMetric(Euclidean(3), lambda x, u: (1 + x**2) * u)`; for
    a matrix G(x), `lambda x, u: (G(x) @ u[..., None])[..., 0]`. Gradients are found by a linear system of the size N of
    a point, in time O(N³), and the connection by derivatives of g. Geodesics are not known; for metrics that some
    diffeomorphism brings, see `Pulled`. Everything but metric, `sharp` and `connection` is that of `manifold`.
    """

    parameters: ClassVar[tuple[str, ...]] = ("manifold",)

    manifold: Any
    metric: Callable[[Point, Point], Point]

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold) or isinstance(self.manifold, Quotient):
            raise TypeError(f"WithMetric takes a manifold that is no Quotient, not {self.manifold}")

    @staticmethod
    def kinds(manifold: Any, metric: Any) -> frozenset[Kind]:
        """InverseRetraction alone: the rest depends on the metric."""
        return kinds_of(manifold) & {InverseRetraction}

    @property
    def shape(self) -> Any:
        return self.manifold.shape

    @property
    def dim(self) -> int:
        return self.manifold.dim

    @final
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        """g(x, u)·v."""
        return self.pair(self.metric(x, u), v)

    @final
    def project(self, x: Point, a: Point) -> Point:
        return self.manifold.project(x, a)

    @final
    def sharp(self, x: Point, w: Point) -> Point:
        """The tangent u with P g(x, u) = P w, by the matrix of P g P + (I - P)."""
        backend = backend_of(x, w)
        numbers = to_vector(self, x)
        matrix = self._matrix(backend, x, numbers)
        right = to_vector(self, self.project(x, w))
        solved = namespace(matrix, right).linalg.solve(matrix, right[..., None])[..., 0]
        return self.project(x, from_vector(self, solved, x))

    def _matrix(self, backend: Any, x: Point, numbers: Array) -> Array:
        xp, size = namespace(numbers), numbers.shape[-1]
        eye = xp.eye(size, dtype=numbers.dtype, device=backend.device(numbers))
        shape = (size, *(1,) * (len(numbers.shape) - 1), size)
        basis = from_vector(self, xp.broadcast_to(xp.reshape(eye, shape), (size, *numbers.shape)), x)
        tangent = self.project(x, basis)
        moved = self.project(x, self.metric(x, tangent))
        columns = tree_map(lambda a, b, c: a + (b - c), moved, basis, tangent)
        return xp.moveaxis(to_vector(self, columns), 0, -1)

    @final
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        """Derived from `sharp` and `inner`."""
        return derived_connection(self, *alike((self, x), (self, w), (self, u)))

    @final
    def retract(self, x: Point, u: Point) -> Point:
        """That of `manifold`; of first order."""
        return self.manifold.retract(x, u)

    @final
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        return self.manifold.transport(x, y, u)

    @final
    def from_noise(self, z: Point) -> Point:
        return self.manifold.from_noise(z)

    @final
    def defect(self, x: Point) -> Array:
        return self.manifold.defect(x)


@part(WithMetric, InverseRetraction)
class _InverseRetraction(WithMetric, InverseRetraction):
    @final
    def inverse_retract(self, x: Point, y: Point) -> Point:
        return self.manifold.inverse_retract(x, y)
