"""Manifolds given by equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np

from ..backends import backend_of, namespace
from ..backends._trees import leaves
from ._base import InverseRetraction
from ._leading import alike
from ._linalg import dot, eye_like

Array = Any

_STEPS = 30  # of Newton's method along the normal space
_DESCENT = 60  # of Gauss-Newton's, from noise


@dataclass(frozen=True, eq=False, repr=False)
class Embedded(InverseRetraction):
    """{x ∈ ℝ^shape : h(x) = 0} with the metric of ℝ^shape, by derivatives of h. Made by `Embedded.from_constraint`.

    x, u, w : (..., *shape), real. Normal spaces are spanned by the k columns of Dh(x)ᵀ, orthonormalized by QR. Where
    the rank of Dh(x) is less than k, x is no regular point: vectors there are NaN (among k ≥ 2 equations, with a
    rank lower by rounding's standards). Absil & Malick 2012, §3.2, §4.3; Boumal 2023, ch. 7.
    """

    parameters: ClassVar[tuple[str, ...]] = ("arguments",)

    constraint: Callable[..., Array]
    sizes: tuple[int, ...]
    count: int
    scalar: bool
    arguments: tuple[Any, ...] = ()
    start: Callable[[Array], Array] | None = None

    @classmethod
    def from_constraint(
        cls,
        h: Callable[..., Array],
        shape: tuple[int, ...],
        *arguments: Any,
        start: Callable[[Array], Array] | None = None,
        like: Array | None = None,
    ) -> Embedded:
        """{x : h(x, *arguments) = 0}; `h` takes arrays `(..., *shape)` to `(..., k)`, or to `(...)` for one equation.

        `h` is differentiable code that broadcasts over leading axes, with independent equations (k of rank k), of which
        there are k: it is called once, on NumPy's arrays or on arrays like `like`, to count them. `arguments` are
        arrays that may be batched and learned, and leaves of the manifold. `start` takes noise to where
        Gauss-Newton's method starts for a random point (default: the noise itself).
        Raises `ValueError` where h's values have another shape, or are not fewer than the numbers in a point.
        """
        shape = tuple(shape)
        arrays = [a for a in leaves(arguments) if hasattr(a, "dtype")]
        like = arrays[0] if like is None and arrays else like
        # more leading axes than any argument has: what h adds to them is its own
        leading = (1,) * (1 + max((len(a.shape) for a in arrays), default=0))
        probe = np.linspace(0.5, 1.0, prod(shape)).reshape(leading + shape)
        with np.errstate(all="ignore"):
            value = h(probe if like is None else backend_of(like).asarray(probe, like=like), *arguments)
        own = tuple(value.shape)[len(leading) :]
        if len(own) > 1 or len(value.shape) < len(leading):
            raise ValueError(f"Embedded: h takes points {probe.shape} to values {tuple(value.shape)}, an axis too many")
        scalar, count = not own, own[0] if own else 1
        if not 1 <= count < prod(shape):
            raise ValueError(f"Embedded: {count} equations in {prod(shape)} unknowns: they are to be fewer, and some")
        return cls(h, shape, count, scalar, arguments, start)

    def __repr__(self) -> str:
        name = getattr(self.constraint, "__name__", "h")
        return f"Embedded.from_constraint({name}, {self.sizes})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dim(self) -> int:
        return prod(self.sizes) - self.count

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """u·v."""
        u, v, _ = self._alike(u, v, x)
        return dot(u, v, len(self.sizes))

    def project(self, x: Array, a: Array) -> Array:
        """a - Q Qᵀa, Dh(x)ᵀ = QR."""
        q, _ = self._frame(x)
        flat = self._flatten(a)[..., None]
        return self._unflatten((flat - q @ (q.mT @ flat))[..., 0])

    def sharp(self, x: Array, w: Array) -> Array:
        """`project`: the metric is the ambient one."""
        return self.project(x, w)

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """-D²(λ·h)(x)[u] with the multipliers λ = R⁻¹Qᵀw, for which w - Dh(x)ᵀλ is tangent."""
        x, w, u = self._alike(x, w, u)
        q, r = self._frame(x)
        multipliers = _solve(r, q.mT @ self._flatten(w)[..., None])[..., 0]
        x, u, _ = self._alike(x, u, self._unflatten(q[..., 0]))
        backend = backend_of(x, w, u)
        _, bend = backend.jvp(lambda p: backend.vjp(self._h, p)[1](multipliers)[0], (x,), (u,))
        return -bend

    def retract(self, x: Array, u: Array) -> Array:
        """The point of x + u + (the normal space at x) on the manifold, by Newton's method from x + u. Second order.

        The orthographic retraction, Absil & Malick 2012, §4.3. NaN where the method does not converge, which is where
        `u` is longer than some radius of curvature.
        """
        backend = backend_of(x, u)
        q, _ = self._frame(x)
        base = self._flatten(x + u)
        return self._unflatten(self._land(backend, base, q))

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """project(x, y - x)."""
        return self.project(x, y - x)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`project` at y."""
        return self.project(y, u)

    def from_noise(self, z: Array) -> Array:
        """The limit of Gauss-Newton's method, x ↦ x - Dh(x)⁺h(x), from `start(z)`; NaN where it does not converge."""
        x = z if self.start is None else self.start(z)
        backend = backend_of(x)
        zero = 0.0 * namespace(x).sum(self._h(x), axis=-1)
        x = x + zero[(..., *(None,) * len(self.sizes))]

        def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
            x, _ = state
            q, r = self._frame(x)
            move = self._unflatten((q @ _solve(r.mT, self._h(x)[..., None]))[..., 0])
            return x - move, dot(move, move, len(self.sizes))

        state = (x, zero + 1)
        if not backend.is_eager(x):
            state = backend.repeat(step, state, steps=_DESCENT)
        else:
            settled = 0
            for _ in range(_DESCENT):
                state = step(state)
                plain, move = backend.stop_gradient(state)
                settled += bool(backend.to_numpy(_settled(plain, move, len(self.sizes))).all())
                if settled == 2:  # one step more: the derivative converges as the point does
                    break
        found, move = state
        keep = _settled(found, move, len(self.sizes))[(..., *(None,) * len(self.sizes))]
        return _nan_unless(keep, found)

    def defect(self, x: Array) -> Array:
        """|h(x)|, so that a good h has a derivative of about 1; NaN where `x` is not finite."""
        value, still = self._h(x), x - x
        return namespace(value).sqrt(dot(value, value, 1)) + dot(still, still, len(self.sizes))

    # -- equations ----------------------------------------------------------------------------------
    def _h(self, x: Array) -> Array:
        value = self.constraint(x, *self.arguments)
        return value[..., None] if self.scalar else value

    def _frame(self, x: Array) -> tuple[Array, Array]:
        """`q, r` with Dh(x)ᵀ = qr: an orthonormal basis of the normal space, `(..., N, k)`."""
        a = self._normals(x)[1]
        xp = namespace(a)
        if self.count == 1:
            size = xp.sqrt(xp.sum(a * a, axis=-2, keepdims=True))
            size = _nan_unless(size > 0, size)
            return a / size, size
        q, r = xp.linalg.qr(a)
        diagonal = xp.abs(xp.linalg.diagonal(r))
        limit = a.shape[-2] * float(xp.finfo(a.dtype).eps) * xp.max(diagonal, axis=-1)
        regular = (xp.min(diagonal, axis=-1) > limit)[..., None, None]
        return _nan_unless(regular, q), xp.where(regular, r, xp.ones_like(r) + eye_like(r, self.count))

    def _normals(self, x: Array) -> tuple[Array, Array]:
        """h(x), Dh(x)ᵀ: `(..., k)`, `(..., N, k)`; all rows of Dh by one pullback."""
        backend, k, value = backend_of(x), self.count, self._h(x)
        xp = namespace(x, value)
        batch = tuple(value.shape)[:-1]
        copies = xp.broadcast_to(x, (k, *batch, *self.sizes))
        values, pull = backend.vjp(self._h, copies)
        eye = xp.eye(k, dtype=value.dtype, device=backend.device(value))
        rows = pull(xp.broadcast_to(xp.reshape(eye, (k, *(1,) * len(batch), k)), tuple(values.shape)))[0]
        return value, xp.moveaxis(xp.reshape(rows, (k, *batch, prod(self.sizes))), 0, -1)

    def _land(self, backend: Any, base: Array, q: Array) -> Array:
        """The point base + q c with h = 0, c found by Newton's method from 0: `(..., N)`."""

        def newton(p: Array, q: Array, m: Embedded, solve: Any = None) -> tuple[Array, Array]:
            value, a = m._normals(m._unflatten(p))
            move = q @ _solve(a.mT @ q, value[..., None], solve)
            return p - move[..., 0], dot(move[..., 0], move[..., 0], 1)

        base = base + 0.0 * q[..., 0]
        plain, normal = backend.stop_gradient((base, q))
        still = replace(self, arguments=backend.stop_gradient(self.arguments)) if self.arguments else self

        def body(state: tuple[Array, Array]) -> tuple[Array, Array]:
            return newton(state[0], normal, still, backend.solve_or_nan)

        def cond(state: tuple[Array, Array]) -> Array:
            return namespace(state[0]).any(~_settled(state[0], state[1], 1))

        start = (plain, dot(plain, plain, 1) + 1)
        found, move = backend.stop_gradient(backend.while_loop(cond, body, start, max_steps=_STEPS))
        landed = _nan_unless(_settled(found, move, 1)[..., None], found)
        # from here on derivatives count: the point is base + q c with a constant c, improved twice
        point = base + (q @ (normal.mT @ (landed - plain)[..., None]))[..., 0]
        for _ in range(2):
            point, _ = newton(point, q, self)
        return point

    def _alike(self, *arrays: Array) -> list[Array]:
        return alike(*((self, a) for a in arrays))

    def _flatten(self, a: Array) -> Array:
        batch = tuple(a.shape)[: len(a.shape) - len(self.sizes)]
        return namespace(a).reshape(a, (*batch, prod(self.sizes)))

    def _unflatten(self, a: Array) -> Array:
        return namespace(a).reshape(a, (*tuple(a.shape)[:-1], *self.sizes))


def _settled(x: Array, squared_move: Array, ndim: int) -> Array:
    """Whether the last move was of √eps, relative to |x|: by a quadratic method, the next is one of rounding."""
    return squared_move <= float(namespace(x).finfo(x.dtype).eps) * dot(x, x, ndim)


def _solve(a: Array, b: Array, solve: Callable[[Array, Array], Array] | None = None) -> Array:
    """A⁻¹b, by division where `a` is 1 × 1; NaN, without a warning, where that is 0."""
    if a.shape[-1] > 1:
        return (solve or namespace(a, b).linalg.solve)(a, b)
    return b / _nan_unless(a != 0, a)


def _nan_unless(condition: Array, a: Array) -> Array:
    xp = namespace(a)
    return xp.where(condition, a, xp.nan * xp.ones_like(a))
