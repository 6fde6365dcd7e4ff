"""Orthogonal and unitary groups: exponential, logarithm and square root of a rotation, and what the groups share."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from typing import Any, final

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._distances import excess
from ._expm import expm
from ._linalg import dot, eye_like, fit, is_complex, mT, sym
from ._polar import Polar
from ._smooth import angle_over_sine, sinc_sqrt, squared_angle
from ._spectral import InverseSqrt, spectral
from ._stiefel_retractions import Retraction, cayley, polar

Array = Any


def skew(a: Array) -> Array:
    """(a - aᴴ)/2."""
    return 0.5 * (a - mT(a))


# -- one-parameter groups -----------------------------------------------------------------------------
def rotation_exp(a: Array) -> Array:
    """e^a for skew (skew-Hermitian) a; for real 2 × 2 and 3 × 3 in closed form (Rodrigues)."""
    n = a.shape[-1]
    if n not in (2, 3) or is_complex(a.dtype):
        return expm(a)
    if n == 2:
        xp, angle = namespace(a), a[..., 1, 0]
        return _plane(xp.cos(angle), xp.sin(angle))
    t = 0.5 * dot(a, a, 2)[..., None, None]
    xp = namespace(t)
    half = sinc_sqrt(xp, 0.25 * t)
    return eye_like(a, 3) + sinc_sqrt(xp, t) * a + (0.5 * half * half) * (a @ a)


def rotation_log(r: Array) -> Array:
    """The principal logarithm of a rotation (unitary matrix), skew, with eigenvalues in i(-π, π).

    With the polar decomposition I + r = r^(1/2) 2 cos(Θ/2) it is 2 skew(r^(1/2)) (Θ/2)/sin(Θ/2): one singular value
    decomposition and no powers. Real 2 × 2 and 3 × 3 in closed form. Where an angle is π, to rounding, there are
    several: NaN (for 2 × 2, one of the two).
    """
    n = r.shape[-1]
    if n not in (2, 3) or is_complex(r.dtype):
        factors = Polar(r + eye_like(r, n))
        return factors.unique * skew((2.0 * skew(factors.unitary)) @ factors.angle_over_sine(0.5))
    if n == 2:
        angle = namespace(r).atan2(r[..., 1, 0] - r[..., 0, 1], r[..., 0, 0] + r[..., 1, 1])
        return _plane(0.0 * angle, angle)
    return _hat(_rotation_vector(r))


def squared_angles(x: Array, y: Array) -> Array:
    """|log(xᴴy)|², summing θ² over all eigenvalues e^(iθ), with |x - y|² = Σ 4 sin²(θ/2) and 2 cos(θ/2) the singular
    values of x + y.
    """
    if x.shape[-1] == 2 and not is_complex(x.dtype):
        log = rotation_log(mT(x) @ y)
        return dot(log, log, 2)
    if x.shape[-1] == 3 and not is_complex(x.dtype):
        _, _, s, c = _quaternion(mT(x) @ y)
        return 2.0 * squared_angle(namespace(s), s, c)
    cosines = 0.5 * namespace(x, y).linalg.svdvals(x + y)
    return dot(x - y, x - y, 2) + 4.0 * excess(cosines)


def rotation_root(r: Array) -> Array:
    """r^(1/2), the principal square root."""
    n = r.shape[-1]
    if n not in (2, 3) or is_complex(r.dtype):
        factors = Polar(r + eye_like(r, n))
        # its symmetric part is cos Θ/2, which the other factor has more accurately where cos Θ/2 is small
        return factors.unique * (skew(factors.unitary) + 0.5 * factors.hermitian)
    return rotation_exp(0.5 * rotation_log(r))


def _plane(cosine: Array, sine: Array) -> Array:
    """[[c, -s], [s, c]]."""
    stack = namespace(cosine).stack
    return stack([stack([cosine, -sine], axis=-1), stack([sine, cosine], axis=-1)], axis=-2)


def _hat(v: Array) -> Array:
    """The matrix of v × ·."""
    xp = namespace(v)
    a, b, c = v[..., 0], v[..., 1], v[..., 2]
    zero = xp.zeros_like(a)
    rows = ([zero, -c, b], [c, zero, -a], [-b, a, zero])
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def _rotation_vector(r: Array) -> Array:
    """Angle times axis of 3 × 3 rotations; NaN at the angle π."""
    w, axis, s, c = _quaternion(r)
    xp = namespace(s)
    factor = angle_over_sine(xp, s, c) * (2 * w / (s + c))
    return factor[..., None] * xp.stack(axis, axis=-1)


def _quaternion(r: Array) -> tuple[Array, tuple[Array, Array, Array], Array, Array]:
    """`w, (x, y, z), x² + y² + z², w²`, a multiple of the unit quaternion q of 3 × 3 rotations: of 4 q qᵀ, which is
    linear in r, the column with the largest diagonal entry. So no digits are lost at any angle (Markley 2008).
    """
    xp = namespace(r)
    (r00, r01, r02), (r10, r11, r12), (r20, r21, r22) = ([r[..., i, j] for j in range(3)] for i in range(3))
    wx, wy, wz = r21 - r12, r02 - r20, r10 - r01
    xy, xz, yz = r10 + r01, r02 + r20, r21 + r12
    ww, xx = 1 + r00 + r11 + r22, 1 + r00 - r11 - r22
    yy, zz = 1 - r00 + r11 - r22, 1 - r00 - r11 + r22
    by_y, by_x = yy >= zz, (xx >= yy) & (xx >= zz)
    by_w = (ww >= xx) & (ww >= yy) & (ww >= zz)

    def pick(w: Array, x: Array, y: Array, z: Array) -> Array:
        return xp.where(by_w, w, xp.where(by_x, x, xp.where(by_y, y, z)))

    w, x, y, z = pick(ww, wx, wy, wz), pick(wx, xx, xy, xz), pick(wy, xy, yy, yz), pick(wz, xz, yz, zz)
    return w, (x, y, z), x * x + y * y + z * z, w * w


# -- retractions, at the identity ---------------------------------------------------------------------
def _cayley(a: Array) -> Array:
    """(I - a/2)⁻¹(I + a/2)."""
    n = a.shape[-1]
    eye = eye_like(a, n)
    if n in (2, 3) and not is_complex(a.dtype):
        return eye + (a + 0.5 * (a @ a)) / (1 + 0.125 * dot(a, a, 2)[..., None, None])
    return namespace(a).linalg.solve(eye - 0.5 * a, eye + 0.5 * a)


def _inverse_cayley(r: Array) -> Array:
    """2 (r + I)⁻¹(r - I)."""
    n = r.shape[-1]
    eye = eye_like(r, n)
    if n in (2, 3) and not is_complex(r.dtype):
        return 4.0 * skew(r) / ((4 - n) + dot(r, eye, 2))[..., None, None]
    return skew(2.0 * namespace(r).linalg.solve(r + eye, r - eye))


def _polar(a: Array) -> Array:
    """(I + a)(I - a²)^(-1/2)."""
    eye = eye_like(a, a.shape[-1])
    return (eye + a) @ spectral(InverseSqrt())(eye + mT(a) @ a)


def _inverse_polar(r: Array) -> Array:
    """(r + rᴴ)⁻¹(r - rᴴ)."""
    return skew(namespace(r).linalg.solve(r + mT(r), r - mT(r)))


#: what is shorter for square matrices than in general: retractions of xᴴu, and of xᴴy their inverses
_AT_IDENTITY = {
    cayley: Retraction(lambda x, u: x @ _cayley(mT(x) @ u), lambda x, y: x @ _inverse_cayley(mT(x) @ y)),
    polar: Retraction(lambda x, u: x @ _polar(mT(x) @ u), lambda x, y: x @ _inverse_polar(mT(x) @ y)),
}


# -- the groups ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MatrixGroup(Geodesic, InverseRetraction, Curvature, ABC):
    """What the groups {x : xᴴx = I} with the metric of the ambient space share; a geodesic through x is x e^(ta)."""

    n: int
    retraction: Retraction = field(default=cayley, repr=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not is_size(self.n):
            raise ValueError(f"{name}(n) needs an integer n ≥ 1, not n = {self.n}")
        if not isinstance(self.retraction, Retraction):
            raise ValueError(
                f"{name}: the retraction is cayley, polar, qr or another Retraction, not {self.retraction!r}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @final
    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """tr uᴴv."""
        return dot(fit(u, x), v, 2)

    @final
    def project(self, x: Array, a: Array) -> Array:
        """x skew(xᴴa)."""
        return x @ skew(mT(x) @ a)

    @final
    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return x @ skew(mT(x) @ w)

    @final
    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-u sym(xᴴw)."""
        return -(u @ sym(mT(x) @ w))

    @final
    def retract(self, x: Array, u: Array) -> Array:
        """The manifold's `retraction`; if it is `cayley`, x (I - a/2)⁻¹(I + a/2) with a = xᴴu."""
        return _AT_IDENTITY.get(self.retraction, self.retraction)(x, u)

    @final
    def inverse_retract(self, x: Array, y: Array) -> Array:
        """Of `cayley`, 2x (xᴴy + I)⁻¹(xᴴy - I) up to the angle π; of `polar`, below π/2; of `qr`, near x."""
        return _AT_IDENTITY.get(self.retraction, self.retraction).inverse(x, y)

    @final
    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """y xᴴu: left translation, an isometry."""
        return y @ (mT(x) @ u)

    @final
    def exp(self, x: Array, u: Array) -> Array:
        """x exp(xᴴu)."""
        return x @ rotation_exp(mT(x) @ u)

    @final
    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """x q xᴴu q with q = (xᴴy)^(1/2): half of the rotation from either side."""
        adjoint = mT(x)
        half = rotation_root(adjoint @ y)
        return x @ half @ (adjoint @ u) @ half


def unitary_defect(x: Array) -> Array:
    """|xᴴx - I|."""
    gap = mT(x) @ x - eye_like(x, x.shape[-1])
    squared = dot(gap, gap, 2)
    return namespace(squared).sqrt(squared)
