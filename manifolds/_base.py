"""What a manifold is. Notation, once for the whole room:

x, y points · u, v tangent vectors, in ambient coordinates · w ambient covector, i.e. what autodiff returned ·
a any ambient array · z standard normal noise · … batch axes, always leading.

A class here is an interface or a leaf: abstract methods are implemented once, the others are final. What a
manifold lacks is absent from its type (`isinstance(M, Geodesic)`) instead of raising at run time:

    Manifold ⊃ Exponential ⊃ Logarithmic ⊃ Geodesic;  besides: InverseRetraction, Curvature, Quotient, Congruence
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, final

from ..backends import ShapeError, backend_of, namespace
from ..backends._trees import leaves, tree_map
from ._checks import check_point, leading_axes, leaf_shapes, shape_map, tolerance
from ._linalg import dot
from ._parameters import Parametrized
from ._smooth import root

Array = Any
#: a point, tangent vector or covector: an array, or a tree of arrays
Point = Any


class Manifold(Parametrized, ABC):
    """A Riemannian manifold, seen through ambient coordinates of shape `(..., *shape)`.

    Immutable and framework-free: no device, dtype, random state or batch size of its own. Points and vectors
    broadcast against each other over their leading axes. Every pairing is the real one, Re⟨conj(a), b⟩.

    A manifold is a tree (see `Parametrized`): its array parameters, named in `parameters`, are leaves.
    """

    #: whether every finite array of the shape is a point
    fills_space: ClassVar[bool] = False

    # -- primitives ---------------------------------------------------------------------------------
    @property
    @abstractmethod
    def shape(self) -> Any:
        """The shape of one point; for points that are trees, the tree of shapes."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The dimension of a tangent space (of real points)."""

    @abstractmethod
    def inner(self, x: Point, u: Point, v: Point) -> Array:
        """⟨u, v⟩ₓ, the metric: real, shape `(...)`."""

    @abstractmethod
    def project(self, x: Point, a: Point) -> Point:
        """The projector onto T_xM that is orthogonal in the ambient dot: idempotent, its own transpose.

        So the same function restricts covectors.
        """

    @abstractmethod
    def sharp(self, x: Point, w: Point) -> Point:
        """The tangent u with ⟨u, v⟩ₓ = w·v for all v in T_xM: turns autodiff's covector into a gradient."""

    @abstractmethod
    def connection(self, x: Point, w: Point, u: Point) -> Point:
        """The covector, linear in `w` and `u`, that carries all curvature of metric and embedding:

        Hess f(x)[u] = sharp(x, ∂²f(x)[u] + connection(x, ∂f(x), u)) for every cost f and every x.
        """

    @abstractmethod
    def retract(self, x: Point, u: Point) -> Point:
        """R_x(u), a point, with R_x(0) = x and DR_x(0) = id."""

    @abstractmethod
    def transport(self, x: Point, y: Point, u: Point) -> Point:
        """`u` of T_xM carried to T_yM: linear in `u`, the identity where y = x."""

    @abstractmethod
    def from_noise(self, z: Point) -> Point:
        """A point, smooth in the standard normal noise `z` of a point's shape."""

    @abstractmethod
    def defect(self, x: Point) -> Array:
        """How far `x` is from the manifold, shape `(...)`: zero iff on it, NaN or inf where not finite."""

    # -- vectors ------------------------------------------------------------------------------------
    @final
    def norm(self, x: Point, u: Point) -> Array:
        """‖u‖ₓ; its derivative at u = 0 is taken as 0."""
        squared = self.inner(x, u, u)
        return root(namespace(squared), squared)

    @final
    def pair(self, w: Point, u: Point) -> Array:
        """w·u, the real ambient dot of a covector and a tangent vector, shape `(...)`."""
        pairs = zip(leaves(w), leaves(u), self.ndims, strict=True)
        products = [dot(a, b, ndim) for a, b, ndim in pairs]
        return total(products, self, "w·u")

    @final
    def scale(self, t: Any, u: Point) -> Point:
        """T times `u`, for a number or an array `t` of batch shape."""
        if not getattr(t, "shape", ()):
            return tree_map(lambda a: t * a, u)
        ndims = iter(self.ndims)
        return tree_map(lambda a: t[(..., *(None,) * next(ndims))] * a, u)

    @final
    def coinner(self, x: Point, w1: Point, w2: Point) -> Array:
        """w₁·sharp(x, w₂), the inner product of covectors, shape `(...)`."""
        return self.pair(w1, self.sharp(x, w2))

    @final
    def flat(self, x: Point, u: Point) -> Point:
        """w with w·v = ⟨u, v⟩ₓ for all tangent v: the derivative of the metric, projected. Undoes `sharp`."""
        full = self.project(x, u)
        value, pull = backend_of(x, u).vjp(lambda v: self.inner(x, u, v), full)
        return self.project(x, pull(namespace(value).ones_like(value))[0])

    @final
    def zero_tangent(self, x: Point) -> Point:
        """The zero of T_xM."""
        return tree_map(lambda a: namespace(a).zeros_like(a), x)

    # -- derivatives of a cost ----------------------------------------------------------------------
    @final
    def gradient(self, f: Callable[[Point], Array], x: Point) -> Point:
        """sharp(x, ∂f(x)). `f` is scalar, or of batch shape (one problem for each entry)."""
        return self.sharp(x, differential(f, x))

    @final
    def hessian(self, f: Callable[[Point], Array], x: Point, u: Point) -> Point:
        """Hess f(x)[u] = sharp(x, ∂²f(x)[u] + connection(x, ∂f(x), u)), exact at every x; u shaped like x."""
        for a, b in zip(leaves(x), leaves(u), strict=True):
            if a.shape != b.shape:
                raise ShapeError(f"hessian: u has shape {tuple(b.shape)}, x has {tuple(a.shape)}; broadcast them first")
        w, moved = backend_of(x, u).jvp(lambda p: differential(f, p), (x,), (u,))
        return self._sharp_second(x, tree_map(lambda a, b: a + b, moved, self.connection(x, w, u)))

    def _sharp_second(self, x: Point, w: Point) -> Point:
        """`sharp` of a second derivative, which may have a vertical part where that of the cost has none: `Checked`
        is to tell the two apart.
        """
        return self.sharp(x, w)

    # -- chance -------------------------------------------------------------------------------------
    @final
    def random_point(self, rng: Any, batch: tuple[int, ...] = (), *, like: Array) -> Point:
        """`from_noise` of noise from a `numpy.random.Generator`: the same on every backend, to rounding.

        `like` is an array that gives framework, dtype and device; `batch` the leading axes.
        """
        like = leaves(like)[0]
        backend = backend_of(like)
        batch = tuple(batch)
        return self.from_noise(shape_map(lambda s: backend.noise(rng, (*batch, *s), like=like), self.shape))

    @final
    def random_tangent(self, rng: Any, x: Point) -> Point:
        """The projection of standard normal noise onto T_xM."""
        backend = backend_of(x)
        return self.project(x, tree_map(lambda a: backend.noise(rng, tuple(a.shape), like=a), x))

    # -- checks -------------------------------------------------------------------------------------
    @final
    def contains(self, x: Point, atol: float | None = None) -> Array:
        """Whether `x` is on the manifold: defect ≤ `atol` (default √eps of its dtype), shape `(...)`."""
        return self.defect(x) <= (tolerance(x) if atol is None else atol)

    @final
    def is_tangent(self, x: Point, u: Point, atol: float | None = None) -> Array:
        """Whether `u` is in T_xM: |u - project(x, u)| ≤ `atol` · (1 + |u|), shape `(...)`."""
        atol = tolerance(x) if atol is None else atol
        off = tree_map(lambda a, b: a - b, self.project(x, u), u)
        return self.pair(off, off) <= atol**2 * (1 + self.pair(u, u))

    @final
    def check_point(self, x: Point, name: str = "x") -> None:
        """Raise unless `x` is a point; values are looked at only where they are known (not under `jax.jit`).

        Raises `ShapeError` (wrong structure or trailing shape), `DTypeError` (integers or booleans),
        `NotOnManifoldError` (off the manifold, or not finite).
        """
        check_point(self, x, name)

    @cached_property
    def ndims(self) -> tuple[int, ...]:
        """The number of a point's own axes, for each leaf."""
        return tuple(len(shape) for shape in leaf_shapes(self.shape))


class Congruence(Manifold):
    """A manifold of matrices with T_xM = {l v lᵀ : v symmetric} and ⟨l u lᵀ, l v lᵀ⟩ₓ = u·v for some l = l(x)."""

    @abstractmethod
    def factor(self, x: Array) -> Array:
        """The matrix l."""


class Exponential(Manifold):
    """A manifold whose geodesics are known, in closed form or by a convergent method."""

    @abstractmethod
    def exp(self, x: Point, u: Point) -> Point:
        """The end of the geodesic that leaves `x` with velocity `u`, at time 1."""


class Logarithmic(Exponential):
    """A manifold on which the shortest geodesic between two points is known."""

    @abstractmethod
    def log(self, x: Point, y: Point) -> Point:
        """The velocity at `x` of the shortest geodesic to `y`: exp(x, log(x, y)) = y."""

    @abstractmethod
    def squared_dist(self, x: Point, y: Point) -> Array:
        """dist(x, y)², smooth also at x = y (gradient 0, Hessian 2 I): the one to use in costs."""

    @final
    def dist(self, x: Point, y: Point) -> Array:
        """The geodesic distance. It has a kink at x = y, where its derivative is taken as 0."""
        squared = self.squared_dist(x, y)
        return root(namespace(squared), squared)

    @final
    def geodesic(self, x: Point, y: Point, t: Any) -> Point:
        """The point at time `t` (a number, or an array of batch shape) between x (t = 0) and y (t = 1)."""
        return self.exp(x, self.scale(t, self.log(x, y)))


class Geodesic(Logarithmic):
    """A manifold on which parallel transport along the shortest geodesic is known as well."""

    @abstractmethod
    def parallel_transport(self, x: Point, y: Point, u: Point) -> Point:
        """`u` carried from T_xM to T_yM along the shortest geodesic: a linear isometry."""


class InverseRetraction(Manifold):
    """A manifold whose `retract` can be undone."""

    @abstractmethod
    def inverse_retract(self, x: Point, y: Point) -> Point:
        """The tangent u at `x` with retract(x, u) = y, for y near x."""


class Curvature(Manifold):
    """A manifold of which these are known, exactly or as bounds; each docstring says which."""

    @abstractmethod
    def injectivity_radius(self, x: Point) -> Array:
        """How far exp at `x` is one to one, shape `(...)`; inf where it always is, NaN where nothing is proven."""

    @abstractmethod
    def curvature_bounds(self, x: Point) -> tuple[Array, Array]:
        """`low, high` with low ≤ K ≤ high for all sectional curvatures K at `x`, shape `(...)`."""


class Quotient(Manifold):
    """A manifold whose points are classes of arrays x ~ x·g, g in a group; vectors are horizontal lifts at x.

    `project` is the projector onto the horizontal space. Costs must be invariant, f(x·g) = f(x): the vertical part
    of their covector vanishes then, and `vertical` tells when it does not.
    """

    @abstractmethod
    def align(self, x: Point, y: Point) -> Point:
        """The representative of y's class that is nearest to `x`."""

    @abstractmethod
    def vertical(self, x: Point, w: Point) -> Array:
        """|the part of w that acts along the class of x|, shape `(...)`: 0 for the covector of an invariant cost."""


def differential(f: Callable[[Point], Array], x: Point) -> Point:
    """∂f(x), the ambient covector; for each entry of a batch-shaped value its own."""
    value, pull = backend_of(x).vjp(f, x)
    return pull(namespace(value).ones_like(value))[0]


def total(parts: list[Array], manifold: Manifold, what: str) -> Array:
    """The sum over factors of numbers of batch shape; raises `ShapeError` where their batches differ."""
    result = parts[0]
    for part in parts[1:]:
        if part.shape != result.shape:
            raise leading_axes(manifold, what, [tuple(p.shape) for p in parts])
        result = result + part
    return result
