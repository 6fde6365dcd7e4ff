"""Symmetric positive definite matrices with the Bures-Wasserstein metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ..backends import backend_of, namespace
from ._base import Curvature, InverseRetraction, Logarithmic
from ._linalg import along, batch_full, dot, fit, mT, real_diagonal, sym, with_diagonal
from ._spectral import Decomposition, Exp, Sqrt, spectral
from .spd import check_size, gaussian, indefiniteness, whitening

Array = Any


@final
@dataclass(frozen=True)
class SPDBuresWasserstein(Logarithmic, InverseRetraction, Curvature):
    """Symmetric positive definite n × n matrices with ⟨u, v⟩ₓ = ½ tr(L[u] v), where xL[u] + L[u]x = u.

    x, u, w : (..., n, n). The distance is the 2-Wasserstein distance of normal distributions with mean 0 and these
    covariances: dist² = tr x + tr y - 2 tr (x^½ y x^½)^½. Bhatia, Jain & Lim 2019; Malagò, Montrucchio & Pistone 2018.
    Parallel transport has no closed form, and the space is not complete.
    """

    n: int

    def __post_init__(self) -> None:
        check_size(self)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.n * (self.n + 1) // 2

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """½ tr(L[u] v)."""
        return 0.5 * dot(Decomposition(x).lyapunov(u), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """sym(a)."""
        return fit(sym(a), x)

    def sharp(self, x: Array, w: Array) -> Array:
        """2 (xw + wx), w symmetrized."""
        half = x @ (w + mT(w))
        return half + mT(half)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """2 L[sym(x L[u] w)], w symmetrized: along a geodesic ẍ = 2 L[ẋ] x L[ẋ]."""
        operator = Decomposition(x)
        return 2 * sym(operator.lyapunov(x @ operator.lyapunov(u) @ sym(w)))

    def retract(self, x: Array, u: Array) -> Array:
        """`exp`."""
        return self.exp(x, u)

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """`log`."""
        return self.log(x, y)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`u` itself: all tangent spaces are the symmetric matrices."""
        return fit(sym(u), y)

    def from_noise(self, z: Array) -> Array:
        """The exponential of sym(z)/√n: eigenvalues mostly between 1/5 and 5."""
        return spectral(Exp())(gaussian(z))

    def defect(self, x: Array) -> Array:
        """|x - xᵀ|/|x|, plus 1 - λ where the smallest eigenvalue λ is not positive; inf if not finite."""
        return indefiniteness(x)[0]

    def exp(self, x: Array, u: Array) -> Array:
        """(I + L) x (I + L) = x + u + LxL with L = L[u].

        A geodesic as long as I + L is positive definite (whenever |u|ₓ < `injectivity_radius`); beyond, still a
        positive semidefinite matrix, and singular only where I + L is.
        """
        moved = Decomposition(x).lyapunov(u)
        return sym(x + u + moved @ x @ moved)

    def log(self, x: Array, y: Array) -> Array:
        """tx + xt - 2x with the optimal map t = x⁻¹ # y: sym(2 l(s - lᵀl)l⁻¹), s = (lᵀyl)^½. For all x and y."""
        l, inverse, gap = _gap(x, y)
        half = l @ gap @ inverse
        return half + mT(half)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """|tl - l|² = |l⁻ᵀ(s - lᵀl)|² with s = (lᵀyl)^½: no digits are lost where y is close to x."""
        _, inverse, gap = _gap(x, y)
        off = mT(inverse) @ gap
        return dot(off, off, 2)

    def injectivity_radius(self, x: Array) -> Array:
        """√λ, λ the smallest eigenvalue: exact. Massart & Absil 2020, §5."""
        xp = namespace(x)
        return xp.sqrt(xp.min(xp.linalg.eigvalsh(sym(x)), axis=-1))

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """0 and 3/(λ + μ), λ and μ the two smallest eigenvalues; both attained. Massart, Hendrickx & Absil 2019."""
        zero = batch_full(x, 2, 0.0)
        if self.n == 1:
            return zero, zero
        smallest = namespace(x).linalg.eigvalsh(sym(x))[..., :2]
        return zero, 3 / (smallest[..., 0] + smallest[..., 1])


def _gap(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """`l, l⁻¹, s - m` with x = llᵀ, m = lᵀl, s = (lᵀyl)^½.

    (s + m)(s - m) + (s - m)(s + m) = 2 lᵀ(y - x)l tells the last digits of a small difference: one step of
    refinement, in the eigenvectors of s, with (s + m) taken for diagonal there. It changes no derivative. Of constants
    all is turned by the eigenvectors q: lq, qᵀl⁻¹, qᵀ(s - m)q.
    """
    backend = backend_of(x, y)
    l, inverse = whitening(x)
    if backend.is_constant(x, y):
        xp = namespace(x)
        values, vectors = xp.linalg.eigh(mT(l) @ y @ l)
        l = l @ vectors
        roots, m = xp.sqrt(values), mT(l) @ l
        rough = with_diagonal(-m, roots - real_diagonal(m))
        residual = mT(l) @ (y - x) @ l - roots[..., None] * rough - m @ rough
        p = roots + real_diagonal(m)
        gap = rough + (residual + mT(residual)) / (p[..., :, None] + p[..., None, :])
        return l, mT(vectors) @ inverse, gap
    m = mT(l) @ l
    decomposition = Decomposition(mT(l) @ y @ l)
    s = decomposition(Sqrt())
    rough = s - m
    fixed, change, m, s, plain = backend.stop_gradient((l, y - x, m, s, rough))
    residual = mT(fixed) @ change @ fixed - (s + m) @ plain
    residual = residual + mT(residual)
    vectors = decomposition.vectors
    adjoint, xp = mT(vectors), namespace(vectors)
    p = xp.sqrt(decomposition.values) + along(vectors, m @ vectors, -2)[..., 0, :]
    fine = vectors @ ((adjoint @ residual @ vectors) / (p[..., :, None] + p[..., None, :])) @ adjoint
    return l, inverse, rough + fine
