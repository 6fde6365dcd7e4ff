"""Forward mode through the steps of a solver: tangents are carried along, and no step is stored.

With s ← Φ(θ, s): ṡ ← ∂_θΦ θ̇ + ∂_sΦ ṡ, one ṡ for each θ̇ (Franceschi et al. 2017, algorithm 2). A pullback
takes one θ̇ for each entry of θ, the columns of the Jacobian, and contracts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...backends import Backend, namespace
from .._space import Space
from ..level import Level
from ..solution import Solution
from ..solvers import Unrollable
from ._base import Pull

Array = Any
Tree = Any
#: (parameters, state) -> the next state, a function of all that it is differentiated by
Step = Callable[[Tree, Tree], Tree]


def forward_solution(
    backend: Backend,
    level: Level,
    solver: Unrollable,
    outer: tuple[Tree, ...],
    init: Tree,
    space: Space,
    constant: int,
    steps: int,
) -> Solution:
    """The answer after `constant` steps that are not differentiated and `steps` that are, in forward mode both ways."""
    begin = solver.begin(backend, level, outer, init, space)
    hoisted, captured = backend.hoist(lambda o, s: solver.advance(backend, level, o, space, s), outer, begin)

    def step(parameters: Tree, state: Tree) -> Tree:
        return hoisted(parameters[0], parameters[1], state)

    parameters = (tuple(captured), outer)
    with backend.constants():
        plain, state = backend.stop_gradient((parameters, begin))
        arrived = backend.repeat(lambda s: step(plain, s), state, steps=constant)
        end = backend.stop_gradient(backend.repeat(lambda s: step(plain, s), arrived, steps=steps))
    theta, fill_theta = moving_part(backend, parameters)
    start, fill_start = moving_part(backend, backend.stop_gradient(arrived) if constant else begin)
    ending, fill_end = moving_part(backend, end)
    n = len(theta)

    def carried(primals: tuple, tangents: list[list[Array]]) -> list[list[Array]]:
        state = fill_start(primals[n:-1])
        along = [(t[:n], t[n:]) for t in tangents]
        return carry(backend, step, fill_theta, list(primals[:n]), state, along, steps)[1]

    def pushforward(primals: tuple, out: list[Array], tangents: tuple) -> list[Array]:
        known = [
            namespace(p).zeros_like(p) if t is None else t for p, t in zip(primals[:-1], tangents[:-1], strict=True)
        ]
        return carried(primals, [known])[0]

    def pullback(primals: tuple, out: list[Array], cotangent: list[Array], needs: tuple[bool, ...]) -> tuple:
        columns = carried(primals, units(backend, primals[:-1], needs[:-1]))
        return (*contract(backend, primals[:-1], needs[:-1], columns, cotangent), None)

    rule = backend.custom_derivative(lambda *primals: primals[-1], pushforward, pullback)
    state = fill_end(rule(*theta, *start, ending))
    found = solver.finish(backend, level, outer, space, state, constant + steps)
    return Solution(found.value, *backend.stop_gradient(tuple(found[1:])))


def forward_pullback(
    backend: Backend,
    level: Level,
    solver: Unrollable,
    outer: tuple[Tree, ...],
    init: Tree,
    space: Space,
    constant: int,
    steps: int,
) -> tuple[Solution, Pull]:
    """The answer, and the transpose of its derivative in `outer` from a Jacobian that was computed on the way."""

    def step(outer: Tree, state: Tree) -> Tree:
        return solver.advance(backend, level, outer, space, state)

    def value(state: Tree) -> Tree:
        return solver.finish(backend, level, outer, space, state, constant + steps).value

    state = solver.begin(backend, level, outer, init, space)
    state = backend.repeat(lambda s: step(outer, s), state, steps=constant)
    theta, fill_theta = moving_part(backend, outer)
    needs = (True,) * len(theta)
    start, _ = moving_part(backend, state)
    still = [namespace(a).zeros_like(a) for a in start]
    along = [(unit, still) for unit in units(backend, theta, needs)]
    state, columns = carry(backend, step, fill_theta, theta, state, along, steps)
    found = solver.finish(backend, level, outer, space, state, constant + steps)
    end, fill_end = moving_part(backend, state)
    _, push = backend.linearize(lambda s: value(fill_end(s)), end)
    columns = [push(column) for column in columns]

    def pull(cotangent: Tree, guess: Tree | None) -> tuple[tuple[Tree, ...], None]:
        return moving_part(backend, outer, zero=True)[1](contract(backend, theta, needs, columns, cotangent)), None

    return found, pull


def moving_part(backend: Backend, tree: Tree, zero: bool = False) -> tuple[list[Array], Callable[..., Tree]]:
    """The floating point arrays of a tree, and the tree as a function of them; with `zero`, a cotangent of the tree."""
    arrays, skeleton = backend.split(tree)
    live = [i for i, a in enumerate(arrays) if backend.is_inexact(a)]

    def fill(found: Sequence[Array]) -> Tree:
        merged: list[Any] = [namespace(a).zeros_like(a) for a in arrays] if zero else list(arrays)
        for i, a in zip(live, found, strict=True):
            merged[i] = a
        return skeleton.fill_vector(merged) if zero else skeleton.fill(merged)

    return [arrays[i] for i in live], fill


def carry(
    backend: Backend,
    step: Step,
    fill: Callable[[Sequence[Array]], Tree],
    theta: list[Array],
    state: Tree,
    along: list[tuple[list[Array], list[Array]]],
    steps: int,
) -> tuple[Tree, list[list[Array]]]:
    """The state after `steps` steps, and its tangents: one for each pair (θ̇, ṡ at the start) in `along`."""

    def body(carried: tuple[Tree, list[list[Array]]]) -> tuple[Tree, list[list[Array]]]:
        state, tangents = carried
        moving, fill_state = moving_part(backend, state)

        def advance(theta: list[Array], moving: list[Array]) -> tuple[list[Array], Tree]:
            after = step(fill(theta), fill_state(moving))
            return moving_part(backend, after)[0], after

        (_, after), push = backend.linearize(advance, theta, moving)
        return after, [push(dot, s)[0] for (dot, _), s in zip(along, tangents, strict=True)]

    return backend.repeat(body, (state, [s for _, s in along]), steps=steps)


def units(backend: Backend, arrays: Sequence[Array], needs: Sequence[bool]) -> list[list[Array]]:
    """A tangent of all arrays for each entry of those that are needed; for complex ones 1 and i."""
    found = []
    for i, (array, needed) in enumerate(zip(arrays, needs, strict=True)):
        if not needed:
            continue
        xp, n = namespace(array), math.prod(array.shape)
        eye = xp.eye(n, dtype=array.dtype, device=backend.device(array))
        for factor in (1, 1j) if backend.is_complex(array) else (1,):
            for j in range(n):
                tangent = [namespace(a).zeros_like(a) for a in arrays]
                tangent[i] = factor * xp.reshape(eye[j, ...], array.shape)
                found.append(tangent)
    return found


def contract(
    backend: Backend, arrays: Sequence[Array], needs: Sequence[bool], columns: list[Tree], cotangent: Tree
) -> list[Array | None]:
    """The cotangent of each array that is needed, from the columns of the Jacobian in the order of `units`."""
    space, rest = Space(backend), iter(columns)
    found: list[Array | None] = []
    for array, needed in zip(arrays, needs, strict=True):
        if not needed:
            found.append(None)
            continue
        n = math.prod(array.shape)
        parts = [[space.dot(cotangent, next(rest)) for _ in range(n)] for _ in range(1 + backend.is_complex(array))]
        xp = namespace(array)
        rows = [xp.reshape(xp.stack(p), array.shape) if p else xp.zeros_like(array) for p in parts]
        found.append(xp.astype(rows[0] if len(rows) == 1 else rows[0] + 1j * rows[1], array.dtype))
    return found
