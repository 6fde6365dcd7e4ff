"""Steps that are run again on the way back instead of being stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends import Backend
from ._forward import Step, moving_part

Tree = Any


def recomputed(backend: Backend, step: Step, parameters: Tree, length: int) -> Callable[[Tree], Tree]:
    """s ↦ `length` steps from s, of which a derivative keeps s and `parameters` alone and runs the steps again.

    All that is differentiated must be in `parameters` and s. Where functions are compiled this is
    `Backend.checkpoint`. Elsewhere it is a rule: PyTorch's checkpoint runs a segment again for every derivative that is
    taken inside of it, and a step of descent takes one.
    """

    def run(parameters: Tree, state: Tree) -> Tree:
        return backend.repeat(lambda s: step(parameters, s), state, steps=length)

    if backend.compiles:
        return lambda state: backend.checkpoint(run, parameters, state)
    theta, fill_theta = moving_part(backend, parameters)

    def segment(state: Tree) -> Tree:
        start, fill = moving_part(backend, state)

        def moved(theta: list, start: list) -> list:
            return moving_part(backend, run(fill_theta(theta), fill(start)))[0]

        def function(theta: list, start: list) -> Tree:
            return run(fill_theta(theta), fill(start))

        def pushforward(primals: tuple, out: Tree, tangents: tuple) -> Tree:
            known = tuple([0 * a for a in p] if t is None else t for p, t in zip(primals, tangents, strict=True))
            return moving_part(backend, out, zero=True)[1](backend.jvp(moved, primals, known)[1])

        def pullback(primals: tuple, out: Tree, cotangent: Tree, needs: tuple[bool, ...]) -> tuple:
            return backend.vjp(moved, *primals)[1](moving_part(backend, cotangent)[0])

        return backend.custom_derivative(function, pushforward, pullback)(theta, start)

    return segment
