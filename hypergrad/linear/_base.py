"""Linear systems on a tangent space, and what a solver of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._space import Space
from ..solution import Solution

Tree = Any


def unchanged(v: Tree) -> Tree:
    """V."""
    return v


@dataclass(frozen=True)
class System:
    """B v = b with B from tangent vectors to covectors (self-adjoint), or A λ = b on one space (otherwise).

    `apply` is B or A, projected after every product, `transpose` its transpose (B itself) · `raise_` turns a covector
    into a tangent vector by the metric (`sharp`); it is the identity otherwise. So raise_∘B, or A, is an
    operator on one space, whose inner product is ⟨u, raise_(w)⟩ = u·w. `precondition`, where there is one, is close to
    B⁻¹ (self-adjoint and positive) or to A⁻¹: it takes what `apply` gives to what `apply` takes. `contraction`: A is
    I - J with J the derivative of a map. `inverse`, where there is one, is B⁻¹ itself, or nearly: `solve_system` needs
    no solver then. The system may be written in coordinates: `enter` takes a covector there,
    `enter_guess` a tangent vector, `leave` brings an answer back.
    """

    space: Space
    apply: Callable[[Tree], Tree]
    transpose: Callable[[Tree], Tree]
    raise_: Callable[[Tree], Tree]
    project: Callable[[Tree], Tree]
    self_adjoint: bool
    contraction: bool = False
    precondition: Callable[[Tree], Tree] | None = None
    inverse: Callable[[Tree], Tree] | None = None
    enter: Callable[[Tree], Tree] = unchanged
    enter_guess: Callable[[Tree], Tree] = unchanged
    leave: Callable[[Tree], Tree] = unchanged


class LinearSolver(ABC):
    """Inverts an operator on a tangent or cotangent space with that space's inner product."""

    @abstractmethod
    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """The last iterate with its residual norm, whatever the tolerance; `b` and `guess` in the tangent space."""

    @property
    @abstractmethod
    def needs_self_adjoint(self) -> bool:
        """Whether the method is wrong for A ≠ Aᵀ."""

    @property
    @abstractmethod
    def has_tolerance(self) -> bool:
        """Whether it was asked to reach a tolerance, so that missing it deserves a warning."""
