import numpy as np

import nestfold as nf

A, C = np.diag(np.arange(1.0, 7.0)), np.cos(np.arange(12.0)).reshape(6, 2)


def lower(W, M):
    return np.trace(M @ A) + np.trace(np.linalg.inv(M) @ (W @ W.T + 0.1 * np.eye(6)))


def objective(W):
    options = {"solver": nf.TrustRegion(tol=1e-12), "estimator": nf.Implicit(nf.CG(tol=1e-12))}
    M = nf.solve(nf.Argmin(lower, nf.SPD(6)), W, init=np.eye(6), **options).value
    return -np.trace(C.T @ M @ W)


W = np.eye(6, 2)
value, w = nf.value_and_grad(objective)(W)
u = nf.Stiefel(6, 2).sharp(W, w)  # the Riemannian gradient of W ↦ objective(W)
print(f"value {value:.10f}, norm of the hypergradient {np.linalg.norm(u):.10f}")
