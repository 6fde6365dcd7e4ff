"""The synthetic Stiefel × SPD problem by hand: what a generic library is measured against.

Whitened coordinates: with M = L Lᵀ and U = L V Lᵀ the metric is tr V₁V₂, the Riemannian Hessian of the
lower cost is V ↦ sym(K V) with K = Lᵀ A L + L⁻¹ B L⁻ᵀ, and M⁻¹ U M⁻¹ = L⁻ᵀ V L⁻¹: one matrix product for a
Hessian product. The upper cost -tr(M C Wᵀ) has the gradient -sym(Lᵀ C Wᵀ L) in these coordinates. With
sym(K V) = -sym(Lᵀ C Wᵀ L) the hypergradient in the ambient space is 2 L⁻ᵀ V L⁻¹ W YᵀY - M C; what the
functions return is its projection onto the tangent space of the Stiefel manifold at W.

`numpy_code`, `torch_code` and `jax_code` import their framework and return the same two functions:
`gradient(data, w, m, products)`, at a given M by so many products of conjugate gradients, and
`pipeline(data, w, step, steps, products)`, which first takes so many steps of Riemannian gradient descent
from M = I along the second-order retraction M + U + ½ U M⁻¹ U. The data are `(a, c, k, nu)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Code = tuple[Callable[..., Any], Callable[..., Any]]


def numpy_code() -> Code:
    """NumPy, with in-place updates and LAPACK's triangular inverse."""
    from scipy.linalg.lapack import dtrtri

    def cg(k, right, products):
        v, r, p = np.zeros_like(right), right.copy(), right.copy()
        product, scratch = np.empty_like(right), np.empty_like(right)
        square = np.vdot(r, r)
        for _ in range(products):
            np.matmul(k, p, out=scratch)
            np.add(scratch, scratch.T, out=product)  # 2 sym(K p): the factor goes into the step
            step = 2 * square / np.vdot(p, product)
            np.multiply(p, step, out=scratch)
            v += scratch
            np.multiply(product, step / 2, out=product)
            r -= product
            before, square = square, np.vdot(r, r)
            p *= square / before
            p += r
        return v

    def gradient(data, w, m, products):
        a, c, k, nu = data
        factor = np.linalg.cholesky(m)
        inverse = dtrtri(factor, lower=1)[0]
        white = inverse @ w
        weighted = white @ k
        operator = factor.T @ a @ factor
        operator += weighted @ white.T
        operator += nu * (inverse @ inverse.T)
        right = (factor.T @ c) @ (w.T @ factor)
        v = cg(operator, (right + right.T) / -2, products)
        ambient = 2 * (inverse.T @ (v @ weighted)) - m @ c
        lean = w.T @ ambient
        return ambient - w @ ((lean + lean.T) / 2)

    def pipeline(data, w, step, steps, products):
        a, _, k, nu = data
        b = w @ (k @ w.T)
        b.flat[:: b.shape[0] + 1] += nu
        m = np.eye(b.shape[0])
        for _ in range(steps):
            u = m @ a @ m
            u -= b
            u *= -step
            m = m + u + u @ np.linalg.solve(m, u) / 2
            m = (m + m.T) / 2
        return gradient(data, w, m, products)

    return gradient, pipeline


def torch_code() -> Code:
    """PyTorch, eager, without autograd, with in-place updates."""
    import torch

    def cg(k, right, products):
        v, r, p = torch.zeros_like(right), right.clone(), right.clone()
        flat_r, flat_p = r.view(-1), p.view(-1)
        scratch = torch.empty_like(right)
        square = torch.dot(flat_r, flat_r).item()
        for _ in range(products):
            torch.mm(k, p, out=scratch)
            product = scratch + scratch.mT  # 2 sym(K p): the factor goes into the step
            step = 2 * square / torch.dot(flat_p, product.view(-1)).item()
            v.add_(p, alpha=step)
            r.sub_(product, alpha=step / 2)
            before, square = square, torch.dot(flat_r, flat_r).item()
            p.mul_(square / before).add_(r)
        return v

    def gradient(data, w, m, products):
        a, c, k, nu = data
        factor = torch.linalg.cholesky(m)
        identity = torch.eye(m.shape[0], dtype=m.dtype, device=m.device)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        white = inverse @ w
        weighted = white @ k
        operator = factor.T @ a @ factor
        operator.addmm_(weighted, white.T).addmm_(inverse, inverse.T, alpha=nu)
        right = (factor.T @ c) @ (w.T @ factor)
        v = cg(operator, (right + right.T).div_(-2), products)
        ambient = torch.addmm(m @ c, inverse.T, v @ weighted, beta=-1, alpha=2)
        lean = w.T @ ambient
        return ambient.addmm(w, lean + lean.T, alpha=-0.5)

    def pipeline(data, w, step, steps, products):
        a, _, k, nu = data
        m = torch.eye(w.shape[0], dtype=w.dtype, device=w.device)
        b = torch.addmm(m, w, k @ w.T, beta=nu)
        for _ in range(steps):
            u = torch.addmm(b, m @ a, m, beta=step, alpha=-step)
            m = torch.addmm(m + u, u, torch.linalg.solve(m, u), alpha=0.5)
            m = (m + m.T).div_(2)
        return gradient(data, w, m, products)

    return gradient, pipeline


def jax_code() -> Code:
    """JAX: one compiled program each; the data are arguments."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import solve_triangular

    def cg(k, right, products):
        def body(_, state):
            v, r, p, square = state
            product = k @ p
            product = (product + product.T) / 2
            step = square / jnp.vdot(p, product)
            r = r - step * product
            after = jnp.vdot(r, r)
            return v + step * p, r, r + (after / square) * p, after

        state = (jnp.zeros_like(right), right, right, jnp.vdot(right, right))
        return jax.lax.fori_loop(0, products, body, state)[0]

    def gradient(data, w, m, products):
        a, c, k, nu = data
        factor = jnp.linalg.cholesky(m)
        inverse = solve_triangular(factor, jnp.eye(m.shape[0], dtype=m.dtype), lower=True)
        white = inverse @ w
        weighted = white @ k
        operator = factor.T @ a @ factor + weighted @ white.T + nu * (inverse @ inverse.T)
        right = (factor.T @ c) @ (w.T @ factor)
        v = cg(operator, (right + right.T) / -2, products)
        ambient = 2 * (inverse.T @ (v @ weighted)) - m @ c
        lean = w.T @ ambient
        return ambient - w @ ((lean + lean.T) / 2)

    def pipeline(data, w, step, steps, products):
        a, _, k, nu = data
        identity = jnp.eye(w.shape[0], dtype=w.dtype)
        b = w @ (k @ w.T) + nu * identity

        def body(_, m):
            u = -step * (m @ a @ m - b)
            m = m + u + u @ jnp.linalg.solve(m, u) / 2
            return (m + m.T) / 2

        m = jax.lax.fori_loop(0, steps, body, identity)
        return gradient(data, w, m, products)

    return jax.jit(gradient, static_argnums=3), jax.jit(pipeline, static_argnums=(3, 4))
