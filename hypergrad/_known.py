"""What a level's user knows of its derivative: kept apart from what is being differentiated, and checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend, NoDerivativeError
from ..backends._trees import leaves, tree_map
from ._checks import check_field
from ._space import epsilon
from .level import Argmin, FixedPoint, Level, Root
from .linear_predictor import LinearPredictor

Tree = Any
Operator = Callable[..., Tree]
Product = Callable[[Tree], Tree]


class Known(NamedTuple):
    """Functions of (*outer, y, u), linear in the tangent vector u; None where nothing is known."""

    hessian: Operator | None = None
    inverse_hessian: Operator | None = None
    preconditioner: Operator | None = None


def known_of(level: Level) -> Known:
    """What came with a level."""
    if isinstance(level, Argmin):
        return Known(level.hessian, level.inverse_hessian, level.preconditioner)
    return Known(preconditioner=level.preconditioner) if isinstance(level, (Root, FixedPoint)) else Known()


def hoisted_known(
    backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree
) -> tuple[Callable[[Level, Tree], Level], Tree]:
    """`attach, captured`: `attach(level, captured)` is the level with what was known of this one.

    `captured` are the arrays being differentiated that these functions close over: they are handed through, so that
    no derivative is taken where none is meant. A function that cannot be cut off from them is dropped.
    """
    functions, captured, inside = [], [], backend.in_hoisted()
    residuals = level.residuals if isinstance(level, Argmin) else None
    for function in (*known_of(level), residuals):
        hoisted, found, vectors = None, (), () if function is residuals else (level.manifold.zero_tangent(y),)
        if function is not None:
            try:
                hoisted, found = backend.hoist(function, *outer, y, *vectors)
            except NoDerivativeError:
                function = None
        functions.append((function, hoisted))
        captured.append(tuple(found))

    def attach(bare: Level, captured: Tree) -> Level:
        found = [_closed(f, g, c) if c or inside else f for (f, g), c in zip(functions, captured, strict=True)]
        made: Any = _with(bare, Known(*found[:-1]))
        if residuals is not None and made is not level:
            made = replace(made, residuals=found[-1])
        if made is not level and made is not bare:
            vars(made)["checked"] = vars(level).setdefault("checked", set())  # what is right is right for both
        return made

    return attach, tuple(captured)


def _closed(function: Operator | None, hoisted: Any, captured: Tree) -> Operator | None:
    return None if function is None else lambda *arguments: hoisted(captured, *arguments)


def _with(level: Level, known: Known) -> Level:
    if known == known_of(level):
        return level
    if isinstance(level, Argmin):
        return replace(level, **known._asdict())
    if isinstance(level, (Root, FixedPoint)):
        return replace(level, preconditioner=known.preconditioner)
    return level


def check_known(backend: Backend, level: Level, outer: tuple[Tree, ...], y: Tree, *, answer: bool = True) -> None:
    """Compare what is known with autodiff on a random tangent vector, once for each level at its `answer` y.

    And once where it is used first, which may be a special point, such as the identity matrix. Nothing is done where
    values are not at hand. Raises `ValueError`, or `ShapeError`, for what is wrong.
    """
    known = known_of(level)
    wanted = {name for name, function in known._asdict().items() if function is not None}
    made: Any = level
    if isinstance(level, Argmin) and isinstance(level.cost, LinearPredictor):
        wanted.add("loss")
    wanted = {(name, answer) for name in wanted}
    if not wanted or wanted <= made.checked or not backend.is_eager(outer, y):
        return
    outer, y = backend.stop_gradient((outer, y))
    with backend.constants():
        residual = level.residual(backend, outer, y)
        if not backend.is_eager(residual):  # constants, within a program that is being traced
            return
        check = _Check(backend, level, outer, y, residual)
        for name, _ in sorted(wanted - made.checked):
            if math.isfinite(check.size) and getattr(check, name)():
                made.checked.add((name, answer))


class _Check:
    """The comparisons, each named after what it is about: whether it could be made; raises where it fails."""

    def __init__(self, backend: Backend, level: Any, outer: tuple[Tree, ...], y: Tree, residual: Tree):
        self.backend, self.level, self.outer, self.y, self.known = backend, level, outer, y, known_of(level)
        rng = np.random.default_rng(0)
        self.u, self.v = (level.manifold.random_tangent(rng, y) for _ in range(2))
        self.size = self.norm(level.manifold.sharp(y, residual))
        self.close = 10 * epsilon(leaves(y)[0]) ** 0.5

    def hessian(self) -> bool:
        found, expected = self.at(self.known.hessian, "hessian")(self.u), self.generic()(self.u)
        self.demand(
            self.off(found, expected),
            self.close,
            "hessian must be the Riemannian Hessian: hessian(*outer, y, u) = Hess_y cost [u], the covariant derivative "
            "of the Riemannian gradient along u",
        )
        return True

    def loss(self) -> bool:
        found = self.generic(self.level)(self.u)
        self.demand(
            self.off(found, self.generic()(self.u)),
            self.close,
            "loss, and a regularizer shaped like y, of a LinearPredictor must act entry by entry",
        )
        return True

    def inverse_hessian(self) -> bool:
        inverse = self.at(self.known.inverse_hessian, "inverse_hessian")
        hessian = self.generic() if self.known.hessian is None else self.at(self.known.hessian, "hessian")
        off = self.off(hessian(inverse(self.u)), self.u)
        if not off <= 0.1 and self.size > 1e-3 * self.norm(hessian(self.u)):
            return False  # far from the answer, where alone it need be right
        self.demand(
            off,
            0.1,
            "inverse_hessian must be the inverse of the Riemannian Hessian at the answer: the Hessian of "
            "inverse_hessian(*outer, y, u) must be u",
        )
        return True

    def preconditioner(self) -> bool:
        apply, u, v = self.at(self.known.preconditioner, "preconditioner"), self.u, self.v
        pu, pv = apply(u), apply(v)
        if not isinstance(self.level, Argmin):
            together = apply(tree_map(lambda a, b: a + 2 * b, u, v))
            self.demand(
                self.off(together, tree_map(lambda a, b: a + 2 * b, pu, pv)),
                self.close,
                "preconditioner(*outer, y, u) must be linear in u",
            )
            return True
        size = self.norm(u) * self.norm(pv) + self.norm(v) * self.norm(pu)
        self.demand(
            abs(self.inner(u, pv) - self.inner(v, pu)) / size if size else 0.0,
            self.close,
            "preconditioner must be self-adjoint in the metric: ⟨u, P v⟩ = ⟨P u, v⟩ with P u = "
            "preconditioner(*outer, y, u)",
        )
        for a, b in ((u, pu), (v, pv)):
            if self.norm(a) and not self.inner(a, b) > 0:
                raise ValueError(
                    "preconditioner must be positive: ⟨u, preconditioner(*outer, y, u)⟩ > 0 in the metric for every "
                    f"tangent vector u; it is {self.inner(a, b):.3g} for a random one"
                )
        return True

    def at(self, function: Any, name: str) -> Product:
        """A known operator at y, the structure of its values checked."""

        def apply(u: Tree) -> Tree:
            value = function(*self.outer, self.y, u)
            check_field(value, self.y, 0, name)
            return value

        return apply

    def generic(self, level: Any = None) -> Product:
        """The Riemannian Hessian by autodiff, nothing but the cost being used; or by a level's own operator."""
        manifold, y, cost = self.level.manifold, self.y, self.level.cost
        plain = Argmin(lambda *variables: cost(*variables), manifold) if level is None else level
        apply = plain.operator(self.backend, self.outer, y)[0]
        return lambda u: manifold.sharp(y, manifold.project(y, apply(u)))

    def demand(self, off: float, limit: float, what: str) -> None:
        if not off <= limit:
            raise ValueError(f"{what}. It is off by {off:.3g}, relative, on a random tangent vector")

    def inner(self, u: Tree, v: Tree) -> float:
        return float(self.backend.to_numpy(self.level.manifold.inner(self.y, u, v)).sum())

    def norm(self, u: Tree) -> float:
        return abs(self.inner(u, u)) ** 0.5

    def off(self, found: Tree, expected: Tree) -> float:
        size = self.norm(expected)
        difference = self.norm(tree_map(lambda a, b: a - b, found, expected))
        return difference / size if size else difference
