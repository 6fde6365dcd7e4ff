"""Hypergradients by other libraries of JAX, compiled, with the data as arguments; see `_peer_torch.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import _hand_logistic
from _peer_case import Case, costs, moved, relative_error

Call = Callable[[], Any]


def compiled(case: Case, function: Callable[..., Any]) -> Call:
    """The first part of `function(data, x, y)`, the whole of it under `jax.jit`, timed to its end."""
    import jax

    data, x, y = moved("jax", case)
    whole = jax.jit(function)
    return lambda: jax.tree.leaves(jax.block_until_ready(whole(data, x, y)))[0]


def jaxopt(case: Case, method: str, products: int) -> Call | None:
    """`jaxopt.implicit_diff.custom_root` with its conjugate gradients."""
    import jax
    from jaxopt import implicit_diff, linear_solve

    if case.kind != "logistic" or method != "cg":
        return None
    solve = partial(linear_solve.solve_cg, maxiter=products, tol=0.0)

    def hypergradient(data: Any, x: Any, y: Any) -> Any:
        upper, lower = costs("jax", case.kind, data)
        slope = jax.grad(lower, argnums=1)

        @implicit_diff.custom_root(lambda w, x: slope(x, w), solve=solve)
        def answer(init: Any, x: Any) -> Any:
            return y

        return jax.grad(lambda x: upper(x, answer(None, x)))(x)

    return compiled(case, hypergradient)


def lineax(case: Case, method: str, products: int) -> Call | None:
    """`lineax.CG` on the Hessian as an operator, then the cross term."""
    import jax
    import lineax as lx

    if case.kind != "logistic" or method != "cg":
        return None

    def hypergradient(data: Any, x: Any, y: Any) -> Any:
        upper, lower = costs("jax", case.kind, data)
        slope = jax.grad(lower, argnums=1)
        direct, b = jax.grad(upper, argnums=(0, 1))(x, y)
        _, product = jax.linearize(lambda w: slope(x, w), y)
        operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: y), lx.positive_semidefinite_tag)
        v = lx.linear_solve(operator, b, lx.CG(rtol=0.0, atol=0.0, max_steps=products), throw=False).value
        return direct - jax.vjp(lambda x: slope(x, y), x)[1](v)[0]

    return compiled(case, hypergradient)


def optimistix(case: Case, method: str, products: int) -> Call | None:
    """`optimistix.root_find` with `ImplicitAdjoint`, the solver of the lower level being one that has the answer.

    Its linear solve fails where it meets the limit on its steps, so its tolerance is the loosest, in powers of 2, for
    which the error is no larger than that of so many products; left out where it fails to reach that.
    """
    import equinox as eqx
    import jax
    import lineax as lx
    import optimistix as optx

    if case.kind != "logistic" or method != "cg":
        return None

    class Given(optx.AbstractRootFinder):
        rtol: float = 0.0
        atol: float = 0.0
        norm: Callable = eqx.field(default=optx.max_norm, static=True)

        def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> Any:
            return None

        def step(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
            return y, None, None

        def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
            return jax.numpy.array(True), optx.RESULTS.successful

        def postprocess(self, fn: Any, y: Any, aux: Any, *rest: Any) -> Any:
            return y, aux, {}

    def hypergradient(tol: Any, data: Any, x: Any, y: Any) -> Any:
        upper, lower = costs("jax", case.kind, data)
        slope = jax.grad(lower, argnums=1)
        adjoint = optx.ImplicitAdjoint(linear_solver=lx.CG(rtol=tol, atol=0.0, max_steps=None))
        tags = frozenset({lx.positive_semidefinite_tag})

        def value(x: Any) -> Any:
            found = optx.root_find(lambda w, x: slope(x, w), Given(), y, x, adjoint=adjoint, tags=tags)
            return upper(x, found.value)

        return jax.grad(value)(x)

    whole, parts = jax.jit(hypergradient), moved("jax", case)
    reference = _hand_logistic.numpy_code()(case.data, case.x, case.y, "cg", products, case.step)
    goal = 1.05 * relative_error(case, reference)
    for power in range(1, 50):
        call = partial(_finished, whole, 2.0**-power, *parts)
        if relative_error(case, call()) <= goal:
            return call
    return None


def _finished(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments).block_until_ready()
