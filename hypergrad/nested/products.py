"""What the derivative of a nested problem costs, counted, so that an estimator can be chosen by it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..estimators import Implicit
from ..linear import CG, LinearSolver, System
from ..solution import Solution
from ..solve import one_backend
from .flattened import Flattened
from .problem import Nested
from .settings import Solvers, per_level

Tree = Any


class ProductCounts(NamedTuple):
    """What one hypergradient took once the answers were known.

    estimator: the setting · products: of each level's operator, from the outermost lower level inward; of `Flattened`
    those with the operator of all levels, then those with the innermost Hessian · sweeps: all of them in units of a
    product with the innermost Hessian · gradient: the hypergradient that they gave.
    """

    estimator: Any
    products: tuple[int, ...]
    sweeps: int
    gradient: Tree


def count_products(
    problem: Nested,
    x: Tree,
    starts: tuple[Tree, ...],
    *,
    solver: Solvers = None,
    estimators: tuple[Any, ...] = (Implicit(), Flattened()),
) -> tuple[ProductCounts, ...]:
    """Try `estimators` on a problem, and count the operator products that each of them takes; the cheapest comes first.

    Level by level the Krylov counts multiply: a product with the operator of level i holds two solves for every level
    below. `Flattened` takes one solve, each product of which costs 2ⁿ⁻¹ with n levels. Which is less depends on the
    problem: measure it once at a typical point. Only where loops run step by step; raises `TypeError` on JAX (count on
    NumPy, the numbers are the same), and for an estimator that is neither `Implicit`, one or one for each level, nor
    `Flattened`.
    """
    backend = one_backend(x, starts)
    if backend.compiles:
        raise TypeError(f"products are counted where loops run step by step, not on {backend.name}: count on NumPy")
    answers = tuple(found.value for found in problem.solve(x, starts, solver=solver))
    found = [_count(problem, x, answers, solver, estimator) for estimator in estimators]
    return tuple(sorted(found, key=lambda products: products.sweeps))


def _count(problem: Nested, x: Tree, answers: tuple[Tree, ...], solver: Solvers, estimator: Any) -> ProductCounts:
    from ..hypergradient import hypergradient

    count = len(problem.levels)
    if isinstance(estimator, Flattened):
        whole, innermost = Counted(estimator.method), Counted(estimator.innermost or CG())
        counters, weights = (whole, innermost), (2**count, 1)
        setting: Any = replace(estimator, linear=whole, innermost=innermost, solver=None)
    else:
        chosen = per_level(estimator, Implicit, count, "estimators")
        pairs = zip(chosen, problem.levels, strict=True)
        counters = tuple(Counted((one or Implicit()).linear_for(level)) for one, level in pairs)
        weights, setting = (1,) * count, tuple(Implicit(counter) for counter in counters)
    gradient = hypergradient(problem, x, answers, solver=solver, estimator=setting).gradient
    products = tuple(counter.count[0] for counter in counters)
    return ProductCounts(estimator, products, sum(k * w for k, w in zip(products, weights, strict=True)), gradient)


@dataclass(frozen=True, eq=False)
class Counted(LinearSolver):
    """A linear solver that counts the products it takes."""

    linear: LinearSolver
    count: list[int] = field(default_factory=lambda: [0])

    @property
    def needs_self_adjoint(self) -> bool:
        """As the solver inside."""
        return self.linear.needs_self_adjoint

    @property
    def has_tolerance(self) -> bool:
        """As the solver inside."""
        return self.linear.has_tolerance

    def solve(self, system: System, b: Tree, guess: Tree | None = None) -> Solution:
        """See `LinearSolver`."""

        def counted(apply: Any) -> Any:
            def product(v: Tree) -> Tree:
                self.count[0] += 1
                return apply(v)

            return product

        watched = replace(system, apply=counted(system.apply), transpose=counted(system.transpose))
        return self.linear.solve(watched, b, guess)
