"""Hypergradients by other libraries of PyTorch, written as their documentation says.

Each function takes a case, a method ("cg" or "series") and a number of products, and gives a call without arguments
that gives the hypergradient; None where the library has no such method, `ImportError` where it is not installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace
from typing import Any

from _peer_case import Case, costs, moved

Call = Callable[[], Any]


def _parts(case: Case) -> tuple[Any, Any, Any, Any]:
    """`upper, lower, x, y`, both points leaves of their own and x with a gradient."""
    data, x, y = moved("torch", case)
    return *costs("torch", case.kind, data), x.detach().requires_grad_(), y.detach()


def hypertorch(case: Case, method: str, products: int) -> Call | None:
    """Grazzi et al. 2020, `hypergrad.CG` and `hypergrad.fixed_point` on one gradient step as the map."""
    import torch
    from hypergrad import hypergradients

    if case.kind != "logistic":
        return None
    upper, lower, x, y = _parts(case)

    def step(params: Any, hparams: Any) -> Any:
        (slope,) = torch.autograd.grad(lower(hparams[0], params[0]), params, create_graph=True)
        return [params[0] - case.step * slope]

    def outer(params: Any, hparams: Any) -> Any:
        return upper(hparams[0], params[0])

    function = hypergradients.CG if method == "cg" else hypergradients.fixed_point
    return lambda: function([y], [x], products, step, outer, tol=0.0, set_grad=False)[0]


def torchopt(case: Case, method: str, products: int) -> Call | None:
    """`torchopt.diff.implicit.custom_root` with its conjugate gradients, or its Neumann series."""
    import torch
    import torchopt

    if case.kind != "logistic":
        return None
    upper, lower, x, y = _parts(case)
    solve = (  # the series starts with one term
        torchopt.linear_solve.solve_cg(maxiter=products, rtol=0.0, atol=0.0)
        if method == "cg"
        else torchopt.linear_solve.solve_inv(ns=True, maxiter=products - 1, alpha=case.step)
    )
    slope = torch.func.grad(lower, argnums=1)

    @torchopt.diff.implicit.custom_root(lambda w, x: slope(x, w), argnums=1, solve=solve)
    def answer(w: Any, x: Any) -> Any:
        return w

    return lambda: torch.autograd.grad(upper(x, answer(y, x)), x)[0]


def betty(case: Case, method: str, products: int) -> Call | None:
    """Its `cg` and `neumann` on the least that they ask of a problem, without the engine: less than Betty costs."""
    import torch
    from betty.hypergradient.cg import cg
    from betty.hypergradient.neumann import neumann

    if case.kind != "logistic":
        return None
    upper, lower, x, y = _parts(case)
    y = y.requires_grad_()
    config = SimpleNamespace(cg_iterations=products, cg_alpha=1.0)
    config.neumann_iterations, config.neumann_alpha = products - 1, case.step  # it starts with one term
    inner = SimpleNamespace(
        paths=(),
        config=config,
        cur_batch=None,
        training_step_exec=lambda batch: lower(x, y),
        trainable_parameters=lambda: [y],
        parameters=lambda: [y],
    )
    outer = SimpleNamespace(trainable_parameters=lambda: [x])
    function = cg if method == "cg" else neumann

    def call() -> Any:
        vector = torch.autograd.grad(upper(x, y), [y])
        return function(vector, inner, outer, False)[0]

    return call


def rhgd(case: Case, method: str, products: int) -> Call | None:
    """Han et al. 2024: the code of the paper, from the folder in RHGD. Its CG needs two products a step."""
    if case.kind != "synthetic":
        return None
    folder = os.environ.get("RHGD")
    if folder is None:
        raise ImportError("set RHGD to a folder with the code of the paper")
    sys.path.insert(0, folder)  # its modules have common names
    try:
        utils, manifolds = (importlib.import_module(name) for name in ("utils", "manifolds"))
    finally:
        sys.path.remove(folder)
    import geoopt

    upper, lower, x, y = _parts(case)
    hyper = [geoopt.ManifoldParameter(x.detach(), manifold=geoopt.Stiefel(canonical=False))]
    params = [geoopt.ManifoldParameter(y, manifold=manifolds.SymmetricPositiveDefiniteMod())]
    option = (
        {"option": "cg", "cg_iter": products // 2}
        if method == "cg"
        else {"option": "ns", "ns_iter": products - 1, "ns_gamma": case.step}
    )

    def call() -> Any:
        with redirect_stdout(StringIO()):  # it prints how its conjugate gradients ended
            found = utils.compute_hypergrad2(
                lambda h, p, data=None: lower(h[0], p[0]),
                lambda h, p, data=None: upper(h[0], p[0]),
                hyper,
                params,
                **option,
            )
        return found[0].detach()

    return call
