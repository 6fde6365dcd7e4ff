"""Arrays between two bounds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from ..backends import backend_of, namespace
from ._base import Curvature, Geodesic, InverseRetraction
from ._checks import is_size
from ._linalg import dot, fit
from ._parameters import known

Array = Any


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Box(Geodesic, InverseRetraction, Curvature):
    """Arrays with low < x < high, entry by entry, with the metric that makes x ↦ log((x - low)/(high - x)) an isometry.

    ⟨u, v⟩ₓ = Σ uv (1/p + 1/q)², p = x - low, q = high - x. It is flat, and its bounds are infinitely far away.
    `Box(0.0, 1.0, (3,))`, `Box(low, high)`: the bounds are numbers, or arrays that broadcast against points (leading
    axes are batch axes); `shape` is that of one point, by default that of the bounds. For x > 0 alone: `Positive`.
    """

    parameters: ClassVar[tuple[str, ...]] = ("low", "high")

    low: Any
    high: Any
    sizes: tuple[int, ...]

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None):
        shapes = [tuple(getattr(bound, "shape", ())) for bound in (low, high)]
        if shape is None:
            shape = max(shapes, key=lambda s: (len(s), prod(s)))
        if not all(is_size(size, 0) for size in shape):
            raise ValueError(f"Box: shape takes sizes that are integers ≥ 0, not {shape}")
        for bound in shapes:
            pairs = zip(bound[::-1], tuple(shape)[::-1], strict=False)
            if any(size not in (1, wanted) for size, wanted in pairs):
                raise ValueError(f"Box: bounds of shape {bound} do not broadcast against points of shape {shape}")
        if known(low, high) and not _all(low < high, low, high):
            raise ValueError("Box(low, high) needs low < high in every entry")
        if known(low, high) and not _all(high - low < float("inf"), low, high):
            raise ValueError("Box(low, high) needs finite bounds; where one side is open use Positive, or Pulled")
        for name, value in (("low", low), ("high", high), ("sizes", tuple(shape))):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Box({self.low}, {self.high}, {self.sizes})"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dim(self) -> int:
        return prod(self.sizes)

    def inner(self, x: Array, u: Array, v: Array) -> Array:
        """Σ (r u)(r v), r = 1/p + 1/q."""
        rate = self._rate(x)
        left = rate * u
        return dot(left, left if v is u else rate * v, len(self.sizes))

    def project(self, x: Array, a: Array) -> Array:
        """`a` itself."""
        return fit(a, x)

    def sharp(self, x: Array, w: Array) -> Array:
        """w/(1/p + 1/q)²."""
        slope = 1 / self._rate(x)
        return slope * slope * w

    def connection(self, x: Array, w: Array, u: Array) -> Array:
        """(1/p - 1/q) w u."""
        return (1 / (x - self.low) - 1 / (self.high - x)) * (w * u)

    def retract(self, x: Array, u: Array) -> Array:
        """The odds p/q times exp(2 asinh(s/2)), s = (1/p + 1/q) u: inside for every u. Of second order."""
        s = 0.5 * self._rate(x) * u
        return self._between(x - self.low, self.high - x, 2 * namespace(s).asinh(s))

    def inverse_retract(self, x: Array, y: Array) -> Array:
        """(y - x) √(p q/(p' q')), with p', q' those of y."""
        return 2 * self._half_sinh(x, y) / self._rate(x)

    def transport(self, x: Array, y: Array, u: Array) -> Array:
        """`parallel_transport`."""
        return self.parallel_transport(x, y, u)

    def from_noise(self, z: Array) -> Array:
        """Odds eᶻ."""
        return self._between(1.0, 1.0, z)

    def defect(self, x: Array) -> Array:
        """Σ 1 + |x - the bound| over the entries that are not inside; not finite where `x` is not."""
        p, q = x - self.low, self.high - x
        xp = namespace(p)
        off = xp.where((p > 0) & (q > 0), xp.zeros_like(p), 1 + xp.maximum(-p, -q))
        return dot(off, xp.ones_like(off), len(self.sizes))

    def exp(self, x: Array, u: Array) -> Array:
        """The odds p/q times exp((1/p + 1/q) u). Rounded, the end may be on a bound: then `defect` tells."""
        return self._between(x - self.low, self.high - x, self._rate(x) * u)

    def log(self, x: Array, y: Array) -> Array:
        """log(p'q/(q'p))/(1/p + 1/q), with p', q' those of y."""
        return self._log_odds(x, y) / self._rate(x)

    def squared_dist(self, x: Array, y: Array) -> Array:
        """Σ log(p'q/(q'p))²."""
        log = self._log_odds(x, y)
        return dot(log, log, len(self.sizes))

    def parallel_transport(self, x: Array, y: Array, u: Array) -> Array:
        """u (1/p + 1/q)/(1/p' + 1/q'), with p', q' those of y."""
        return u * (self._rate(x) / self._rate(y))

    def injectivity_radius(self, x: Array) -> Array:
        """∞."""
        return self._zero(x) + float("inf")

    def curvature_bounds(self, x: Array) -> tuple[Array, Array]:
        """Zero, exactly."""
        return self._zero(x), self._zero(x)

    def _zero(self, x: Array) -> Array:
        still = namespace(x).zeros_like(x - self.low)
        return dot(still, still, len(self.sizes))

    def _rate(self, x: Array) -> Array:
        """The derivative of log(p/q)."""
        return 1 / (x - self.low) + 1 / (self.high - x)

    def _log_odds(self, x: Array, y: Array) -> Array:
        """L = log(p'q/(q'p)), to all digits where x and y are close."""
        t = self._half_sinh(x, y)
        return 2 * namespace(t).asinh(t)

    def _half_sinh(self, x: Array, y: Array) -> Array:
        """sinh(L/2) = (y - x)(high - low)/(2 √(p q) √(p'q'))."""
        pq, pq1 = (x - self.low) * (self.high - x), (y - self.low) * (self.high - y)
        xp = namespace(pq, pq1)
        return 0.5 * (self.high - self.low) * (y - x) / (xp.sqrt(pq) * xp.sqrt(pq1))

    def _between(self, p: Any, q: Any, s: Array) -> Array:
        """The point with the odds eˢ p/q, as a mean of the bounds with positive weights: accurate near both.

        The weights have a common factor exp(-|s|/2) so that they never overflow; nothing depends on it.
        """
        xp = namespace(s)
        size = xp.abs(s)
        a, b = p * xp.exp(0.5 * (s - size)), q * xp.exp(-0.5 * (s + size))
        return (self.low * b + self.high * a) / (a + b)


def _all(condition: Any, *arrays: Any) -> bool:
    found = [a for a in arrays if hasattr(a, "shape")]
    return bool(backend_of(*found).to_numpy(condition).all()) if found else bool(condition)
