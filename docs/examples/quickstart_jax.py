import jax
import jax.numpy as jnp

from nestfold import CG, SPD, Argmin, Implicit, Stiefel, TrustRegion, solve

jax.config.update("jax_enable_x64", True)
A, C = jnp.diag(jnp.arange(1.0, 7.0)), jnp.cos(jnp.arange(12.0)).reshape(6, 2)


def lower(W, M):
    return jnp.trace(M @ A) + jnp.trace(jnp.linalg.inv(M) @ (W @ W.T + 0.1 * jnp.eye(6)))


def objective(W):
    options = {"solver": TrustRegion(tol=1e-12), "estimator": Implicit(CG(tol=1e-12))}
    M = solve(Argmin(lower, SPD(6)), W, init=jnp.eye(6), **options).value
    return -jnp.trace(C.T @ M @ W)


W = jnp.eye(6, 2)
value, w = jax.jit(jax.value_and_grad(objective))(W)
u = Stiefel(6, 2).sharp(W, w)  # the Riemannian gradient of W ↦ objective(W)
print(f"value {value:.10f}, norm of the hypergradient {jnp.linalg.norm(u):.10f}")
