import torch

from nestfold import CG, SPD, Argmin, Implicit, Stiefel, TrustRegion, solve

A = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
C = torch.cos(torch.arange(12.0, dtype=torch.float64)).reshape(6, 2)
outer, eye = Stiefel(6, 2), torch.eye(6, dtype=torch.float64)


def lower(W, M):
    return torch.trace(M @ A) + torch.trace(torch.linalg.inv(M) @ (W @ W.T + 0.1 * eye))


def upper(W, M):
    return -torch.trace(C.T @ M @ W)


level, exact = Argmin(lower, SPD(6)), Implicit(CG(tol=1e-12))
W = torch.eye(6, 2, dtype=torch.float64, requires_grad=True)
M = solve(level, W, init=eye, solver=TrustRegion(tol=1e-12), estimator=exact).value
value = upper(W, M)
value.backward()
u = outer.sharp(W.detach(), W.grad)  # the Riemannian gradient of W ↦ upper(W, M*(W))
print(f"value {value:.10f}, norm of the hypergradient {torch.linalg.norm(u):.10f}")
