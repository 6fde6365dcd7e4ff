"""Hypergradients on NumPy without nestfold; see `_peer_torch.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _peer_case import Case, costs

Call = Callable[[], Any]


def autograd(case: Case, method: str, products: int) -> Call | None:
    """HIPS autograd's derivatives, SciPy's conjugate gradients or the series in a loop: what is there without peers."""
    from autograd import grad, make_vjp
    from scipy.sparse.linalg import LinearOperator, cg

    if case.kind != "logistic":
        return None
    upper, lower = costs("autograd", case.kind, case.data)
    slope = grad(lower, 1)

    def call() -> Any:
        b = grad(upper, 1)(case.x, case.y)
        product, _ = make_vjp(lambda w: slope(case.x, w))(case.y)
        if method == "cg":
            operator = LinearOperator((len(b), len(b)), matvec=product, dtype=b.dtype)
            v, _ = cg(operator, b, rtol=0.0, atol=0.0, maxiter=products)
        else:
            v = case.step * b
            for _ in range(products - 1):
                v = v + case.step * (b - product(v))
        cross, _ = make_vjp(lambda x: slope(x, case.y))(case.x)
        return -cross(v)

    return call
