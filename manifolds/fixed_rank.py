"""Matrices of fixed rank, by their factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import backend_of, namespace
from ._base import InverseRetraction, Quotient
from ._linalg import dot, eye_like, fit, mT, qr_unique, sym
from ._procrustes import check_sizes, conditioned, polar_factor, rank_defect
from ._smooth import root

Array = Any
#: {"u": (..., m, k), "s": (..., k, k), "v": (..., n, k)}
Factors = dict[str, Array]


@dataclass(frozen=True)
class FixedRank(Quotient, InverseRetraction):
    """m × n matrices usvᵀ of rank k, with the metric of ℝᵐˣⁿ, which are never formed. Vandereycken 2013.

    Points are trees {"u": (..., m, k), "s": (..., k, k), "v": (..., n, k)} with uᵀu = I = vᵀv and s invertible, modulo
    (up, pᵀsq, vq), p and q orthogonal. Tangent vectors are such trees with uᵀu' = 0 = vᵀv' and any s'; they stand for
    u'svᵀ + us'vᵀ + usv'ᵀ, whose squared length is |u's|² + |s'|² + |v'sᵀ|². Complex factors are points too (p and q are
    unitary, the dimension doubles). Costs must be functions of usvᵀ (see `Quotient`).
    """

    m: int
    n: int
    k: int

    def __post_init__(self) -> None:
        check_sizes("FixedRank", m=self.m, n=self.n, k=self.k)
        if self.k > min(self.m, self.n):
            raise ValueError(f"FixedRank(m, n, k): the rank k = {self.k} is at most m = {self.m} and n = {self.n}")

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        return {"u": (self.m, self.k), "s": (self.k, self.k), "v": (self.n, self.k)}

    @property
    def dim(self) -> int:
        return (self.m + self.n - self.k) * self.k

    def inner(self, x: Factors, u: Factors, v: Factors) -> Array:
        """(u's)·(u''s) + s'·s'' + (v'sᵀ)·(v''sᵀ)."""
        s, adjoint = x["s"], mT(x["s"])
        left, right = u["u"] @ s, u["v"] @ adjoint
        same = v is u
        return (
            dot(left, left if same else v["u"] @ s, 2)
            + dot(u["s"], v["s"], 2)
            + dot(right, right if same else v["v"] @ adjoint, 2)
        )

    def project(self, x: Factors, a: Factors) -> Factors:
        """(I - uuᵀ) a_u, a_s, (I - vvᵀ) a_v."""
        return {"u": _normal(x["u"], a["u"]), "s": fit(a["s"], x["s"]), "v": _normal(x["v"], a["v"])}

    def sharp(self, x: Factors, w: Factors) -> Factors:
        """(I - uuᵀ) w_u (ssᵀ)⁻¹, w_s, (I - vvᵀ) w_v (sᵀs)⁻¹."""
        inverse = namespace(x["s"]).linalg.inv(x["s"])
        adjoint = mT(inverse)
        return {
            "u": _normal(x["u"], w["u"]) @ adjoint @ inverse,
            "s": fit(w["s"], x["s"]),
            "v": _normal(x["v"], w["v"]) @ inverse @ adjoint,
        }

    def connection(self, x: Factors, w: Factors, u: Factors) -> Factors:
        """u' sym(w_s sᵀ - uᵀw_u) - w_u s⁻ᵀ s'ᵀ, -u'ᵀw_u s⁻ᵀ - s⁻ᵀ w_vᵀv', v' sym(sᵀw_s - vᵀw_v) - w_v s⁻¹ s'.

        It is ½ ∂(w·q) in the direction of (u', s', v'), with q the acceleration in factors of a curve of matrices whose
        own acceleration is normal: q = (-u u'ᵀu' - 2u's's⁻¹, u'ᵀu's + s v'ᵀv', -v v'ᵀv' - 2v's'ᵀs⁻ᵀ).
        Absil, Mahony & Trumpf 2013; Vandereycken 2013.
        """
        s, adjoint = x["s"], mT(x["s"])
        inverse = namespace(s).linalg.inv(s)
        left, right = w["u"] @ mT(inverse), w["v"] @ inverse
        return {
            "u": u["u"] @ sym(w["s"] @ adjoint - mT(x["u"]) @ w["u"]) - left @ mT(u["s"]),
            "s": -(mT(u["u"]) @ left) - mT(right) @ u["v"],
            "v": u["v"] @ sym(adjoint @ w["s"] - mT(x["v"]) @ w["v"]) - right @ u["s"],
        }

    def retract(self, x: Factors, u: Factors) -> Factors:
        """The matrix of rank k that differs from usvᵀ by the tangent vector and something normal. Second order.

        (u + e) a (v + f)ᵀ with a = s + s', e = u's a⁻¹, f = v'sᵀa⁻ᵀ, its factors made orthonormal; for invertible a.
        The orthographic retraction: Absil & Oseledets 2015.
        """
        s = x["s"]
        a = s + u["s"]
        inverse = namespace(a).linalg.inv(a)
        left, r = _orthonormal(x["u"] + u["u"] @ (s @ inverse))
        right, t = _orthonormal(x["v"] + u["v"] @ mT(inverse @ s))
        return {"u": left, "s": r @ a @ mT(t), "v": right}

    def inverse_retract(self, x: Factors, y: Factors) -> Factors:
        """The tangent part of y - x: closed form, for any representatives. Absil & Oseledets 2015."""
        left, right = mT(x["u"]) @ y["u"], mT(x["v"]) @ y["v"]
        moved, other = y["s"] @ mT(right), mT(y["s"]) @ mT(left)
        inverse = namespace(x["s"]).linalg.inv(x["s"])
        return {
            "u": (y["u"] - x["u"] @ left) @ (moved @ inverse),
            "s": left @ moved - x["s"],
            "v": (y["v"] - x["v"] @ right) @ (other @ mT(inverse)),
        }

    def transport(self, x: Factors, y: Factors, u: Factors) -> Factors:
        """The tangent part at y of the matrix that `u` stands for, for any representatives. Vandereycken 2013."""
        left, right = mT(x["u"]) @ y["u"], mT(x["v"]) @ y["v"]
        s, inverse = x["s"], namespace(y["s"]).linalg.inv(y["s"])
        # u'svᵀ + us'vᵀ + usv'ᵀ times y's v, and its transpose times y's u
        moved = u["u"] @ (s @ right) + x["u"] @ (u["s"] @ right + s @ (mT(u["v"]) @ y["v"]))
        other = u["v"] @ (mT(s) @ left) + x["v"] @ (mT(u["s"]) @ left + mT(s) @ (mT(u["u"]) @ y["u"]))
        middle = mT(y["u"]) @ moved
        return {
            "u": (moved - y["u"] @ middle) @ inverse,
            "s": middle,
            "v": (other - y["v"] @ mT(middle)) @ mT(inverse),
        }

    def from_noise(self, z: Factors) -> Factors:
        """The Q's of the QR factorizations of z_u and z_v; z_s kept away from singular matrices."""
        return {"u": qr_unique(z["u"]), "s": conditioned(z["s"]), "v": qr_unique(z["v"])}

    def defect(self, x: Factors) -> Array:
        """|uᵀu - I| + |vᵀv - I|, plus 1 where s is singular to working precision."""
        result = rank_defect(x["s"])
        for q in (x["u"], x["v"]):
            gap = mT(q) @ q - eye_like(q, self.k)
            squared = dot(gap, gap, 2)
            result = result + namespace(squared).sqrt(squared)
        return result

    def align(self, x: Factors, y: Factors) -> Factors:
        """The representative of y whose u and v are nearest to those of x."""
        p, q = polar_factor(mT(y["u"]) @ x["u"]), polar_factor(mT(y["v"]) @ x["v"])
        return {"u": y["u"] @ p, "s": mT(p) @ y["s"] @ q, "v": y["v"] @ q}

    def vertical(self, x: Factors, w: Factors) -> Array:
        """|skew(uᵀw_u - w_s sᵀ)| and |skew(vᵀw_v + sᵀw_s)|, as one norm."""
        adjoint = mT(x["s"])
        p, q = mT(x["u"]) @ w["u"] - w["s"] @ adjoint, mT(x["v"]) @ w["v"] + adjoint @ w["s"]
        p, q = 0.5 * (p - mT(p)), 0.5 * (q - mT(q))
        squared = dot(p, p, 2) + dot(q, q, 2)
        return root(namespace(squared), squared)

    # -- matrices -----------------------------------------------------------------------------------
    def to_matrix(self, x: Factors) -> Array:
        """usvᵀ : (..., m, n)."""
        return x["u"] @ (x["s"] @ mT(x["v"]))

    def entries(self, x: Factors, rows: Array, columns: Array) -> Array:
        """The entries (rows[i], columns[i]) of usvᵀ, shape `(..., len(rows))`; two integer arrays of one axis."""
        xp = namespace(x["u"])
        left = xp.take(x["u"] @ x["s"], rows, axis=-2)
        return xp.vecdot(xp.take(x["v"], columns, axis=-2), left)

    def apply(self, x: Factors, b: Array) -> Array:
        """usvᵀ b for vectors b : (..., n), shape `(..., m)`."""
        return (x["u"] @ (x["s"] @ (mT(x["v"]) @ b[..., None])))[..., 0]

    def from_matrix(self, a: Array) -> Factors:
        """The nearest point to a : (..., m, n), by its singular values σ; unique where σₖ > σₖ₊₁. Eckart & Young 1936.

        It is for starting points and data: a derivative through it raises `NoDerivativeError`.
        """
        k, a = self.k, backend_of(a).forbid_gradient(a, "FixedRank.from_matrix has no derivative")
        left, values, right = namespace(a).linalg.svd(a, full_matrices=False)
        return {"u": left[..., :, :k], "s": values[..., :k, None] * eye_like(a, k), "v": mT(right[..., :k, :])}


def _normal(u: Array, a: Array) -> Array:
    """(I - uuᵀ) a."""
    return a - u @ (mT(u) @ a)


def _orthonormal(a: Array) -> tuple[Array, Array]:
    """`q, r` with a = qr, by the Cholesky factor of aᵀa ≥ I, whose condition is small."""
    linalg = namespace(a).linalg
    l = linalg.cholesky(sym(mT(a) @ a))
    return a @ mT(linalg.inv(l)), mT(l)
