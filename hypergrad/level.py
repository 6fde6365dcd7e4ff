"""Levels: equations on a manifold whose answer is a point.

Arguments run from the outermost variable to the innermost: `cost(*outer, y)`. Each level says what vanishes at the
answer (`residual`) and what its derivative with respect to y is on tangent vectors (`operator`); everything
else (solvers, estimators) is written with these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..backends import Backend, namespace
from ..backends._trees import tree_map
from ..manifolds import Manifold, Quotient
from ..manifolds._flat import is_linear_space
from ._checks import check_cost, check_field
from ._settings import require_callable, require_level_parts
from .linear_predictor import LinearPredictor

Array = Any
Tree = Any
Apply = Callable[[Tree], Tree]
Record = tuple[Tree, Apply]


class Level(ABC):
    """An equation F(outer, y) = 0 for a point y of `manifold`."""

    manifold: Manifold

    @property
    @abstractmethod
    def function(self) -> Callable[..., Tree]:
        """The user's function of (*outer, y)."""

    @property
    @abstractmethod
    def self_adjoint(self) -> bool:
        """Whether the derivative of the equation is a symmetric form on tangent vectors."""

    @abstractmethod
    def with_function(self, function: Callable[..., Tree]) -> Level:
        """The same level with another function in the place of the user's; what was known of the old one is dropped."""

    @abstractmethod
    def with_manifold(self, manifold: Manifold) -> Level:
        """The same level on another manifold: the same one with other array parameters."""

    @abstractmethod
    def batch(self, outer: tuple[Tree, ...], y: Tree) -> tuple[int, ...]:
        """The shape of the batch of independent problems; runs the user's function once and checks its output."""

    @abstractmethod
    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        """F(outer, y), an ambient covector; its projection vanishes at the answer."""

    @abstractmethod
    def operator(
        self, backend: Backend, outer: tuple[Tree, ...], y: Tree, record: Record | None = None
    ) -> tuple[Apply, Apply]:
        """The derivative D of F with respect to y, for tangent vectors, and its transpose: not yet projected.

        Built once, applied often. `record`: F and v ↦ (∂_yF)ᵀ v at y, where somebody has them already.
        """

    @property
    def records_residual(self) -> bool:
        """Whether `operator` needs a record of the residual."""
        return True


def completed(level: Level, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> tuple[Apply, Apply]:
    """P D P + (I - P) and its transpose: invertible on the whole ambient space where D is on the tangent space.

    D is recorded when first needed: a solver that works on the tangent space never asks.

    Its derivative sees the tangent space move with y; that of P D P alone does not, and second derivatives of
    a solution on a curved manifold are then wrong.
    """
    project, made = level.manifold.project, []

    def operator() -> tuple[Apply, Apply]:
        if not made:
            made.append(level.operator(backend, outer, y))
        return made[0]

    def complete(which: int) -> Apply:
        def applied(v: Tree) -> Tree:
            tangent = project(y, v)
            inside = project(y, operator()[which](tangent))
            return tree_map(lambda a, b, c: a + (b - c), inside, v, tangent)

        return applied

    if backend.compiles:
        operator()  # see `derivative`
    return complete(0), complete(1)


@dataclass(frozen=True)
class Argmin(Level):
    """y*(outer) = argmin over y of `cost(*outer, y)` on `manifold`.

    The cost's output has the shape of the batch of independent problems: `()` for one, however many leading axes
    the arrays have. At the answer the Riemannian gradient vanishes and the Hessian should be positive.

    What its user knows may come with it, as functions of a tangent vector u at y, self-adjoint in the metric:
    `hessian(*outer, y, u)` = Hess_y cost [u] at every y; `inverse_hessian(*outer, y, u)`, its inverse, exact or nearly
    so at the answer; `preconditioner(*outer, y, u)`, positive and close to the inverse. Linear solves use them (with an
    inverse they are one application, and the linear solver only where that leaves a residual); derivatives of higher
    order do not. Each is compared with autodiff once, where values are known; a wrong one raises `ValueError`.

    `residuals(*outer, y)`: what the cost is half the sum of squares of, as `LeastSquares` sets it for `GaussNewton`.
    """

    cost: Callable[..., Array]
    manifold: Manifold
    hessian: Callable[..., Tree] | None = None
    inverse_hessian: Callable[..., Tree] | None = None
    preconditioner: Callable[..., Tree] | None = None
    residuals: Callable[..., Tree] | None = None

    def __post_init__(self) -> None:
        require_level_parts(self, "cost")
        for name in ("hessian", "inverse_hessian", "preconditioner", "residuals"):
            require_callable(self, name)

    @cached_property
    def checked(self) -> set[tuple[str, bool]]:
        """What of the user's knowledge was found right already, and whether at an answer."""
        return set()

    @property
    def function(self) -> Callable[..., Array]:
        """The cost."""
        return self.cost

    @property
    def self_adjoint(self) -> bool:
        """True: it is a Hessian."""
        return True

    def with_function(self, function: Callable[..., Array]) -> Argmin:
        """See `Level`."""
        return Argmin(function, self.manifold)

    def with_manifold(self, manifold: Manifold) -> Argmin:
        """See `Level`."""
        return replace(self, manifold=manifold)

    def batch(self, outer: tuple[Tree, ...], y: Tree) -> tuple[int, ...]:
        """See `Level`. Raises `ShapeError` or `DTypeError` for an output that is no cost."""
        return check_cost(self.cost(*outer, y), y, self.manifold, "the lower cost")

    def value_and_residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> tuple[Array, Tree]:
        """`cost, ∂_y cost`."""
        value, pull = backend.vjp(lambda p: self.cost(*outer, p), y)
        return value, pull(namespace(value).ones_like(value))[0]

    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        """∂_y cost(outer, y)."""
        return self.value_and_residual(backend, outer, y)[1]

    @property
    def records_residual(self) -> bool:
        """See `Level`."""
        return self.hessian is None and not self._is_predictor

    @property
    def _is_predictor(self) -> bool:
        return isinstance(self.cost, LinearPredictor) and is_linear_space(self.manifold)

    def operator(
        self, backend: Backend, outer: tuple[Tree, ...], y: Tree, record: Record | None = None
    ) -> tuple[Apply, Apply]:
        """v ↦ ∂²_yy cost v + connection(y, ∂_y cost, v).

        Both terms are symmetric between projections, so the transposes, one replay each, serve for them.
        """
        manifold = self.manifold
        if isinstance(self.cost, LinearPredictor) and self._is_predictor:
            second = self.cost.second_derivative(backend, outer, y)
            return second, second
        if record is None:
            w, (curve,) = backend.vjp_each(lambda p: self.residual(backend, outer, p), y)
        else:
            w, curve = record
        if is_linear_space(manifold):
            return curve, curve
        _, bend = backend.vjp(lambda v: manifold.connection(y, w, v), manifold.zero_tangent(y))

        def apply(v: Tree) -> Tree:
            return tree_map(lambda a, b: a + b, curve(v), bend(v)[0])

        return apply, apply


@dataclass(frozen=True)
class Root(Level):
    """The y on `manifold` with `field(*outer, y)` = 0, the field being tangent to the manifold there.

    Only the field's tangent part counts. With `batch_ndim = k` the first k axes of y are independent problems;
    by default all of y is one problem. Set `self_adjoint_field` if the field's derivative is symmetric.
    `preconditioner(*outer, y, u)`, linear in u and made of differentiable operations (its transpose is had by
    autodiff), is close to the inverse of the field's derivative on tangent vectors.
    """

    field: Callable[..., Tree]
    manifold: Manifold
    batch_ndim: int = 0
    self_adjoint_field: bool = False
    preconditioner: Callable[..., Tree] | None = None

    def __post_init__(self) -> None:
        require_level_parts(self, "field")
        require_callable(self, "preconditioner")

    @cached_property
    def checked(self) -> set[tuple[str, bool]]:
        """What of the user's knowledge was found right already, and whether at an answer."""
        return set()

    @property
    def function(self) -> Callable[..., Tree]:
        """The field."""
        return self.field

    @property
    def self_adjoint(self) -> bool:
        """As the user said."""
        return self.self_adjoint_field

    def with_function(self, function: Callable[..., Tree]) -> Root:
        """See `Level`."""
        return replace(self, field=function, preconditioner=None)

    def with_manifold(self, manifold: Manifold) -> Root:
        """See `Level`."""
        return replace(self, manifold=manifold)

    def batch(self, outer: tuple[Tree, ...], y: Tree) -> tuple[int, ...]:
        """See `Level`. Raises `ShapeError` for a field that is not shaped like y."""
        return check_field(self.field(*outer, y), y, self.batch_ndim, "the field")

    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        """The tangent part of field(outer, y). Its derivative sees the tangent space move with y."""
        return self.manifold.project(y, self.field(*outer, y))

    def operator(
        self, backend: Backend, outer: tuple[Tree, ...], y: Tree, record: Record | None = None
    ) -> tuple[Apply, Apply]:
        """D_y of the tangent part: at a zero it is the covariant derivative, whatever the connection."""
        return derivative(backend, lambda p: self.residual(backend, outer, p), y, record)


@dataclass(frozen=True)
class FixedPoint(Level):
    """The y on `manifold` with `map(*outer, y)` = y. The map need not be a gradient step: A ≠ Aᵀ is expected.

    With `batch_ndim = k` the first k axes of y are independent problems; by default all of y is one problem.
    `preconditioner(*outer, y, u)`, as that of a `Root`, is close to the inverse of I - D_y map.
    """

    map: Callable[..., Tree]
    manifold: Manifold
    batch_ndim: int = 0
    preconditioner: Callable[..., Tree] | None = None

    def __post_init__(self) -> None:
        require_level_parts(self, "map")
        require_callable(self, "preconditioner")

    @cached_property
    def checked(self) -> set[tuple[str, bool]]:
        """What of the user's knowledge was found right already, and whether at an answer."""
        return set()

    @property
    def function(self) -> Callable[..., Tree]:
        """The map."""
        return self.map

    @property
    def self_adjoint(self) -> bool:
        """False: nothing is known of a map."""
        return False

    def with_function(self, function: Callable[..., Tree]) -> FixedPoint:
        """See `Level`."""
        return replace(self, map=function, preconditioner=None)

    def with_manifold(self, manifold: Manifold) -> FixedPoint:
        """See `Level`."""
        return replace(self, manifold=manifold)

    def batch(self, outer: tuple[Tree, ...], y: Tree) -> tuple[int, ...]:
        """See `Level`. Raises `ShapeError` for a map whose value is not shaped like y."""
        return check_field(self.map(*outer, y), y, self.batch_ndim, "the map")

    def residual(self, backend: Backend, outer: tuple[Tree, ...], y: Tree) -> Tree:
        """`y - map(outer, y)`, the map's value aligned with y on a quotient manifold."""
        image = self.map(*outer, y)
        if isinstance(self.manifold, Quotient):
            image = self.manifold.align(y, image)
        return tree_map(lambda a, b: a - b, y, image)

    def operator(
        self, backend: Backend, outer: tuple[Tree, ...], y: Tree, record: Record | None = None
    ) -> tuple[Apply, Apply]:
        """I - D_y map."""
        return derivative(backend, lambda p: self.residual(backend, outer, p), y, record)


def derivative(
    backend: Backend, function: Callable[[Tree], Tree], y: Tree, record: Record | None = None
) -> tuple[Apply, Apply]:
    """The derivative of a function at y and its transpose, each recorded when first needed if there is no `record`.

    Where functions are compiled both are recorded at once: what is not needed is dropped there, and what is recorded
    inside of one loop must not be used in another.
    """
    if backend.compiles:
        return backend.linearize(function, y)[1], (record or _pullback(backend, function, y))[1]
    made: dict[str, Apply] = {} if record is None else {"backward": record[1]}

    def forward(v: Tree) -> Tree:
        if "forward" not in made:
            made["forward"] = backend.linearize(function, y)[1]
        return made["forward"](v)

    def backward(w: Tree) -> Tree:
        if "backward" not in made:
            made["backward"] = _pullback(backend, function, y)[1]
        return made["backward"](w)

    return forward, backward


def _pullback(backend: Backend, function: Callable[[Tree], Tree], y: Tree) -> Record:
    value, (pull,) = backend.vjp_each(function, y)
    return value, pull
