"""The certificate of a nested problem: that of a problem of two levels, the lower one all levels flattened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends import Backend
from ...backends._trees import tree_map
from .._adjoint import linearized
from ..certificate import Certificate, Effort, Parts, certificate_of
from ..level import Level
from .flattened import Flattened, arranged, flattened_root, variables, with_adjoints
from .problem import Bilevel, Nested
from .settings import Chain

Array = Any
Tree = Any


@dataclass(frozen=True)
class OfUnknowns:
    """f₁(x, unknowns): the upper cost, as a function of the unknowns of the flattened root."""

    function: Callable[..., Array]
    levels: tuple[Level, ...]

    def __call__(self, x: Tree, unknowns: Tree) -> Array:
        """The upper cost; the levels' adjoints among the unknowns do not matter to it."""
        return self.function(x, *variables(self.levels, unknowns))


def nested_certificate(
    backend: Backend, problem: Nested, chain: Chain, x: Tree, answers: tuple[Tree, ...], parts: Parts
) -> Certificate:
    """What the flattened root at the answers, each level's own equation in it, tells of a hypergradient's error.

    The cotangent in `parts` is the tuple of those of the answers, its adjoint that of the flattened root, or None. One
    Newton step moves all levels at once, so that the errors of all answers are in the estimate. `point` holds the
    levels' own variables; there is no spectrum.
    """
    setting = chain.flattened or Flattened()
    levels = tuple(layer.plain for layer in chain.layers)
    space = chain.layers[0].space((x,), answers[0], answers[1:])
    root = flattened_root(levels, space.ndim)
    unknowns = with_adjoints(backend, levels, (x,), answers, setting, space)
    whole = Parts(
        parts.value,
        parts.direct,
        arranged(levels, parts.cotangent, lambda inner: tree_map(lambda a: 0 * a, inner)),
        parts.covector,
        parts.adjoint,
    )
    flattened = Bilevel(OfUnknowns(problem.upper, levels), problem.manifold, root)
    at = linearized(backend, root, (x,), unknowns, space)
    found = certificate_of(backend, flattened, x, unknowns, space, at, whole, Effort(spectrum=False))
    return found._replace(point=variables(levels, found.point))
