"""`np.einsum`: linear in each operand, so that its derivative and its adjoint are other such sums."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

from .core import Primitive
from .maps import Linear
from .refusals import no_rule


def einsum(ns: Any, subscripts: Any, *operands: Any, **_: Any) -> Any:
    """Σ of products over the indices that are not in the result; letters only, no ellipsis."""
    if not isinstance(subscripts, str) or "." in subscripts:
        raise no_rule("np.einsum with an ellipsis or lists of numbers")
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    if not arrow:
        out = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    return _sum(ns, tuple(left.split(",")), out, operands)


def _sum(ns: Any, inputs: tuple[str, ...], out: str, operands: Any) -> Any:
    text = f"{','.join(inputs)}->{out}"
    rules = tuple(_rule(inputs, out, k) for k in range(len(inputs)))
    return Primitive("np.einsum", lambda *arrays: ns.xp.einsum(text, *arrays), rules)(*operands)


def _rule(inputs: tuple[str, ...], out: str, k: int) -> Callable[..., Any]:
    def rule(ns: Any, y: Any, *operands: Any) -> Linear:
        x = operands[k]
        others = [ns.conj(v) if ns.is_complex(v) else v for i, v in enumerate(operands) if i != k]

        def push(t: Any) -> Any:
            return _sum(ns, inputs, out, (*operands[:k], t, *operands[k + 1 :]))

        def pull(c: Any) -> Any:
            names, more = _spread(inputs, out, k)
            kinds = {"device": ns.device(c), "dtype": c.dtype}
            sizes = dict(zip(inputs[k], x.shape, strict=True))
            extra = [ns.ones((sizes[e],), **kinds) if len(e) == 1 else ns.eye(sizes[e[0]], **kinds) for e in more]
            rest = tuple(v for i, v in enumerate(inputs) if i != k)
            return ns.fit_dtype(_sum(ns, (out, *rest, *more), names, (c, *others, *extra)), x.dtype)

        return Linear(push, pull)

    return rule


def _spread(inputs: tuple[str, ...], out: str, k: int) -> tuple[str, list[str]]:
    """The indices of the cotangent of operand k, and the ones ("i") and unit matrices ("iz") that it needs:
    for an index that only this operand has, and for one that it has twice.
    """
    elsewhere = set(out).union(*(v for i, v in enumerate(inputs) if i != k))
    fresh = (c for c in string.ascii_letters if all(c not in v for v in (*inputs, out)))
    names, more = "", []
    for c in inputs[k]:
        if c in names:
            twin = next(fresh)
            more.append(c + twin)
            names += twin
            continue
        if c not in elsewhere:
            more.append(c)
        names += c
    return names, more
