"""Any linear solver, with a preconditioner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._settings import require_kind
from ..solution import Solution
from ._base import LinearSolver, System

Tree = Any


class Preconditioner(ABC):
    """Something that approximates the inverse of an operator."""

    @abstractmethod
    def preconditioner(self, system: System, like: Tree) -> Callable[[Tree], Tree]:
        """A map close to the inverse of `system.apply`, for right-hand sides like `like`.

        Self-adjoint and positive where the system is self-adjoint; see `System.precondition`.
        """

    @property
    @abstractmethod
    def needs_self_adjoint(self) -> bool:
        """Whether it is wrong for A ≠ Aᵀ."""


@dataclass(frozen=True)
class Preconditioned(LinearSolver):
    """`solver` with the preconditioner that `by` makes of each system, in the place of any that the system brings.

    `Preconditioned(CG(), by=Nystrom(20))` is Nystrom-preconditioned CG (Frangella, Tropp & Udell 2023). The steps that
    it reports are those of `solver`; the products that `by` takes come on top.
    """

    solver: LinearSolver
    by: Preconditioner

    def __post_init__(self) -> None:
        for name, kind in (("solver", LinearSolver), ("by", Preconditioner)):
            if getattr(self, name) is None:
                raise TypeError(f"Preconditioned: {name} must be a {kind.__name__}, not None")
            require_kind(self, name, kind)

    @property
    def needs_self_adjoint(self) -> bool:
        """Where one of the two needs it."""
        return self.solver.needs_self_adjoint or self.by.needs_self_adjoint

    @property
    def has_tolerance(self) -> bool:
        """As the solver."""
        return self.solver.has_tolerance

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""
        return self.solver.solve(replace(system, precondition=self.by.preconditioner(system, b)), b, guess)
