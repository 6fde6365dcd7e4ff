"""Logistic regression with one penalty per feature by hand: what generic libraries are measured against.

With s the probability of the other label, t the labels, X (n, p) the features and e = exp x, the Hessian of the lower
cost is Xᵀ diag(s (1 - s)/n) X + diag e, two matrix-vector products a product; the cross derivative is diag(e w), so
that the hypergradient is -e w v, H v = X'ᵀ(-t' s')/m.

`numpy_code`, `torch_code` and `jax_code` import their framework and return the same function,
`gradient(data, x, w, method, products, step)`: at a given w, by `products` steps of conjugate gradients ("cg"), or by
as many terms of the fixed-point series v ← v + step (b - H v) from 0 ("series"). The data are `(X, t, X', t')`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def numpy_code() -> Callable[..., Any]:
    """NumPy, with in-place updates."""

    def doubt(features, labels, w):
        return 1 / (1 + np.exp(labels * (features @ w)))

    def gradient(data, x, w, method, products, step):
        features, labels, held_out, goals = data
        s, penalty, transposed = doubt(features, labels, w), np.exp(x), features.T
        weights = s * (1 - s) / len(s)
        b = held_out.T @ (goals * doubt(held_out, goals, w)) / -len(goals)
        margins, q, scratch = np.empty_like(weights), np.empty_like(b), np.empty_like(b)

        def product(p):
            np.matmul(features, p, out=margins)
            np.multiply(margins, weights, out=margins)
            np.matmul(transposed, margins, out=q)
            np.multiply(penalty, p, out=scratch)
            np.add(q, scratch, out=q)

        v = step * b if method == "series" else np.zeros_like(b)
        if method == "series":
            for _ in range(products - 1):
                product(v)
                np.subtract(b, q, out=q)
                np.multiply(q, step, out=q)
                np.add(v, q, out=v)
        else:
            r, p = b.copy(), b.copy()
            square = r @ r
            for _ in range(products):
                product(p)
                alpha = square / (p @ q)
                np.multiply(p, alpha, out=scratch)
                np.add(v, scratch, out=v)
                np.multiply(q, alpha, out=q)
                np.subtract(r, q, out=r)
                before, square = square, r @ r
                np.multiply(p, square / before, out=p)
                np.add(p, r, out=p)
        return -penalty * w * v

    return gradient


def torch_code() -> Callable[..., Any]:
    """PyTorch, eager, without autograd, with in-place updates."""
    import torch

    def gradient(data, x, w, method, products, step):
        features, labels, held_out, goals = data
        s, penalty, transposed = torch.sigmoid(-labels * (features @ w)), torch.exp(x), features.T
        weights = s * (1 - s) / len(s)
        b = held_out.T @ (goals * torch.sigmoid(-goals * (held_out @ w))) / -len(goals)
        margins, q = torch.empty_like(weights), torch.empty_like(b)

        def product(p):
            torch.mv(features, p, out=margins)
            torch.mv(transposed, margins.mul_(weights), out=q)
            return q.addcmul_(penalty, p)

        if method == "series":
            v = step * b
            for _ in range(products - 1):
                v.add_(product(v).sub_(b), alpha=-step)
            return -penalty * w * v
        v, r, p = torch.zeros_like(b), b.clone(), b.clone()
        square = torch.dot(r, r).item()
        for _ in range(products):
            product(p)
            alpha = square / torch.dot(p, q).item()
            v.add_(p, alpha=alpha)
            r.sub_(q, alpha=alpha)
            before, square = square, torch.dot(r, r).item()
            p.mul_(square / before).add_(r)
        return -penalty * w * v

    return gradient


def jax_code() -> Callable[..., Any]:
    """JAX: one compiled program; the data are arguments."""
    import jax
    import jax.numpy as jnp

    def gradient(data, x, w, method, products, step):
        features, labels, held_out, goals = data
        s, penalty = jax.nn.sigmoid(-labels * (features @ w)), jnp.exp(x)
        weights = s * (1 - s) / len(s)
        b = (goals * jax.nn.sigmoid(-goals * (held_out @ w))) @ held_out / -len(goals)

        def product(p):
            return (weights * (features @ p)) @ features + penalty * p  # not features.T @: XLA would copy it

        def descend(_, v):
            return v + step * (b - product(v))

        def conjugate(_, state):
            v, r, p, square = state
            q = product(p)
            alpha = square / jnp.vdot(p, q)
            r = r - alpha * q
            after = jnp.vdot(r, r)
            return v + alpha * p, r, r + (after / square) * p, after

        if method == "series":
            v = jax.lax.fori_loop(0, products - 1, descend, step * b)
        else:
            state = (jnp.zeros_like(b), b, b, jnp.vdot(b, b))
            v = jax.lax.fori_loop(0, products, conjugate, state)[0]
        return -penalty * w * v

    return jax.jit(gradient, static_argnums=(3, 4))
