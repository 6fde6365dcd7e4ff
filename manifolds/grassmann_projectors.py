"""Subspaces, represented by their orthogonal projectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._distances import excess, squared_dist
from ._linalg import dot, eye_like, fit, mT, qr_unique, sym
from ._rotations import rotation_log, rotation_root
from ._trig import cos_sinc
from .grassmann import check_sizes, subspace_curvature, subspace_radius

Array = Any


@dataclass(frozen=True)
class GrassmannProjectors(Geodesic, InverseRetraction, Curvature):
    """The p-dimensional subspaces of ℝⁿ (ℂⁿ), as projectors {x : xᴴ = x = x², tr x = p}, with ⟨u, v⟩ₓ = ½ tr uv.

    x, u, w : (..., n, n), 1 ≤ p ≤ n. Tangent vectors are symmetric (Hermitian) with xu + ux = u. An isometric copy of
    `Grassmann(n, p)` in which every subspace is one matrix; `of_basis` is the isometry. The work is n³, not np².
    Batzies, Hüper, Machado & Silva Leite 2015; Bendokat, Zimmermann & Absil 2024, §2-§5.

    With the reflection s = 2x - I and a = [u, x], which is skew with as = u and a² = -u², geodesics are
    e^(ta) x e^(-ta), and e^(2a) is the rotation s_y s_x from x to y. `log` errs near the angle π/2 as that of
    `Grassmann` does.
    """

    n: int
    p: int

    def __post_init__(self) -> None:
        check_sizes("GrassmannProjectors", self.n, self.p)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @property
    def dim(self) -> int:
        return self.p * (self.n - self.p)

    def of_basis(self, b: Array) -> Array:
        """The projector bbᴴ of a basis, a point of `Grassmann(n, p)`."""
        return sym(b @ mT(b))

    def of_lift(self, b: Array, u: Array) -> Array:
        """The tangent vector bvᴴ + vbᴴ of a horizontal one v at b: the derivative of `of_basis`, an isometry."""
        return 2.0 * sym(b @ mT(u))

    def lift(self, b: Array, u: Array) -> Array:
        """The horizontal vector ub at the basis b of a tangent vector: undoes `of_lift`."""
        return u @ b

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """½ tr uv."""
        return 0.5 * dot(fit(u, x), v, 2)

    def project(self, x: Array, a: Array) -> Array:
        """[x, [x, sym a]] = xa + ax - 2xax, of the symmetric part of a."""
        xa = x @ sym(a)
        return 2.0 * sym(xa - xa @ x)

    def sharp(self, x: Array, w: Array) -> Array:
        """Twice `project`: the metric is half the ambient one."""
        return 2.0 * self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """The derivative of `project` along u, at w: 2 sym(uw) - 4 sym(uwx)."""
        uw = u @ sym(w)
        return 2.0 * sym(uw - 2.0 * (uw @ x))

    def retract(self, x: Array, u: Array) -> Array:
        """(I + a)(I + u²)⁻¹x(I - a), a = [u, x]: tan S in place of S. Second order; `polar` of `Grassmann(n, p)`.

        Its reflection is ((I - u²) s + 2u)(I + u²)⁻¹.
        """
        eye, squared = eye_like(x, self.n), u @ u
        top = squared @ (eye - 2.0 * x) + 2.0 * (x + u) - eye
        return 0.5 * eye + 0.5 * sym(namespace(x, u).linalg.solve(eye + squared, top))

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """(r + I)⁻¹(r - I) s with r = s_y s_x, which is [u, x] s = u."""
        eye = eye_like(x, self.n)
        s = 2.0 * x - eye
        r = (2.0 * y - eye) @ s
        return self.project(x, namespace(r).linalg.solve(r + eye, r - eye) @ s)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    def from_noise(self, z: Array) -> Array:
        """The projector of the first p columns' span: uniform."""
        return self.of_basis(qr_unique(z[..., : self.p]))

    def defect(self, x: Array) -> Array:
        """|x - xᴴ| + |x² - x| + |tr x - p|."""
        xp = namespace(x)
        off, gap = x - mT(x), x @ x - x
        trace = dot(x, eye_like(x, self.n), 2)
        return xp.sqrt(dot(off, off, 2)) + xp.sqrt(dot(gap, gap, 2)) + xp.abs(trace - self.p)

    def exp(self, x: Array, u: Array) -> Array:
        """½ (I + cos(2S) s) + sin(2S)/2S u, S² = u²."""
        cosine, sinc = cos_sinc(4.0 * (u @ u))
        eye = eye_like(x, self.n)
        return 0.5 * eye + sym(cosine @ (x - 0.5 * eye) + sinc @ u)

    def log(self, x: Array, y: Array) -> Array:
        """½ log(s_y s_x) s_x."""
        s = 2.0 * x - eye_like(x, self.n)
        return self.project(x, 0.5 * (rotation_log(self._turn(x, y)) @ s))

    def squared_dist(self, x: Array, y: Array) -> Array:
        """The squared principal angles, summed: ½ |x - y|² + ½ Σ (θ² - sin²θ), ±cos θ eigenvalues of x + y - I."""
        return squared_dist(self, _squared_angles, 0.5, x, y)

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """q u qᴴ with the rotation q = (s_y s_x)^(1/2) that takes x to y."""
        q = rotation_root(self._turn(x, y))
        return sym(q @ u @ mT(q))

    def injectivity_radius(self, x: Array) -> Array:
        """π/2, exactly (∞ where the manifold is one point)."""
        return subspace_radius(x, self.n, self.p)

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Exact, as of `Grassmann`."""
        return subspace_curvature(x, self.n, self.p)

    def _turn(self, x: Array, y: Array) -> Array:
        """s_y s_x, a rotation by twice the principal angles: I + 2 (y - x)(2x - I)."""
        eye = eye_like(x, self.n)
        return eye + 2.0 * ((y - x) @ (2.0 * x - eye))


def _squared_angles(x: Array, y: Array) -> Array:
    xp = namespace(x, y)
    cosines = xp.abs(xp.linalg.eigvalsh(x + y - eye_like(x, x.shape[-1])))
    return 0.5 * (dot(x - y, x - y, 2) + excess(cosines))
