"""NumPy's polynomials, given by their coefficients from the highest power down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._errors import ShapeError
from ..core import Primitive
from ..maps import Linear
from ..refusals import no_rule
from .calculus import convolve
from .joining import arrays_of
from .ufuncs import as_array, plain


def _array(ns: Any, p: Any, least: int = 1) -> Any:
    """`p` as an array of so many axes at least; raises `ShapeError` for a number where one axis is wanted."""
    p = p if hasattr(p, "dtype") else ns.asarray(p)
    if not p.shape and not least:
        raise ShapeError("the coefficients of a polynomial are along an axis, and an array without axes has none")
    return p if p.shape else ns.reshape(p, (1,))


def _vector(ns: Any, p: Any, what: str = "a polynomial", least: int = 1) -> Any:
    """`p` as an array of one axis; raises `ShapeError` where it has more."""
    p = _array(ns, p, least)
    if p.ndim != 1:
        raise ShapeError(f"{what} is an array of one axis, not of {p.ndim}")
    return p


def _times(m: int) -> int:
    if m < 0:
        raise ValueError(f"the order of a derivative or an integral is not negative, but m is {m}")
    return m


def _trimmed(ns: Any, p: Any) -> Any:
    """Without leading zeros, of which one is left."""
    places = ns.xp.nonzero(plain(p))[0]
    return p[int(places[0]) if len(places) else p.shape[0] - 1 :]


def polyval(ns: Any, p: Any, x: Any) -> Any:
    """`np.polyval`, by Horner's scheme; the coefficients are along the first axis of p."""
    p, x = _array(ns, p, 0), as_array(ns, x)
    y = 0 * x
    for k in range(p.shape[0]):
        y = y * x + p[k, ...]
    return y


def _summed(sign: int) -> Callable[..., Any]:
    def add(ns: Any, a: Any, b: Any) -> Any:
        a, b = (_array(ns, v) for v in arrays_of(ns, (a, b)))
        n = max(a.shape[0], b.shape[0])
        dtype = ns.result_type(plain(a), plain(b))

        def wide(v: Any) -> Any:
            zeros = ns.xp.zeros((n - v.shape[0],), dtype=dtype)
            return ns.concat([zeros, v]) if v.shape[0] < n else v

        return wide(a) + sign * wide(b)

    return add


def polymul(ns: Any, a: Any, b: Any) -> Any:
    """`np.polymul`."""
    return convolve(ns, *(_trimmed(ns, _vector(ns, v)) for v in arrays_of(ns, (a, b))))


def polyder(ns: Any, p: Any, m: int = 1) -> Any:
    """`np.polyder`."""
    p = _array(ns, p, 0)
    for _ in range(_times(m)):
        n = p.shape[0] - 1
        p = p[:-1] * ns.backend.asarray([n - k for k in range(n)], like=plain(p))
    return p


def polyint(ns: Any, p: Any, m: int = 1, k: Any = None) -> Any:
    """`np.polyint`, with the constants of integration k."""
    p = _vector(ns, p, least=0)
    constants = [0.0] * _times(m) if k is None else list(_array(ns, k))
    constants = constants * m if len(constants) == 1 else constants
    if len(constants) < m:
        raise ShapeError(f"{m} integrals have {m} constants (or one for all), but k holds {len(constants)}")
    for i in range(m):
        n = p.shape[0]
        body, end = arrays_of(ns, (p / ns.backend.asarray([n - j for j in range(n)], like=plain(p)), constants[i]))
        p = ns.concat([body, ns.reshape(end, (1,))])
    return p


def polydiv(ns: Any, u: Any, v: Any) -> tuple:
    """`np.polydiv`: quotient and remainder, by long division."""
    u, v = (_vector(ns, w) for w in arrays_of(ns, (u, v)))
    u, v = u + 0 * v[0], v + 0 * u[0]
    n, quotient = v.shape[0] - 1, []
    while u.shape[0] > n:
        quotient.append(u[0] / v[0])
        rest = u[1 : n + 1] - quotient[-1] * v[1:]
        u = ns.concat([rest, u[n + 1 :]])
    while u.shape[0] > 1 and bool(ns.xp.abs(plain(u)[0]) <= 1e-14 * (1 + ns.xp.max(ns.xp.abs(plain(u))))):
        u = u[1:]
    zero = 0 * v[:1]
    return (ns.stack(quotient) if quotient else zero), (u if u.shape[0] else zero)


def poly(ns: Any, zeros: Any) -> Any:
    """`np.poly`: the polynomial with these zeros."""
    zeros = _array(ns, zeros)
    if zeros.ndim == 2 and zeros.shape[0] == zeros.shape[1] > 0:
        raise no_rule("np.poly of a matrix")
    zeros = _vector(ns, zeros, "the zeros of a polynomial, without a square matrix,")
    y = ns.ones((1,), dtype=zeros.dtype, device=ns.device(zeros))
    for k in range(zeros.shape[0]):
        higher, lower = ns.concat([y, 0 * y[:1]]), ns.concat([0 * y[:1], y])
        y = higher - zeros[k] * lower
    return y if not ns.is_complex(y) or ns.xp.iscomplexobj(ns.xp.poly(plain(zeros))) else ns.real(y)


def _roots(ns: Any, r: Any, p: Any) -> Linear:
    """dr = -Σ dp_k rⁿ⁻ᵏ / p'(r), for roots that are simple."""
    powers = vander(ns, r, p.shape[0])
    slope = polyval(ns, polyder(ns, p), r)
    linear = -powers / ns.expand_dims(slope, axis=-1)
    adjoint = ns.adjoint(linear)
    return Linear(lambda t: ns.fit_dtype(linear @ t, r.dtype), lambda c: ns.fit_dtype(adjoint @ c, p.dtype))


def roots(ns: Any, p: Any) -> Any:
    """`np.roots`."""
    return Primitive("np.roots", ns.xp.roots, (_roots,))(_trimmed(ns, _vector(ns, p)))


def vander(ns: Any, x: Any, N: int | None = None, increasing: bool = False) -> Any:  # noqa: N803, RUF100
    """`np.vander`: the powers of x, the highest first."""
    x = _vector(ns, x, "the argument of np.vander", 0)
    n = x.shape[0] if N is None else N
    if n < 0:
        raise ValueError(f"np.vander has N columns, but N is {N}")
    columns = [ns.broadcast_to(1 + 0 * x, x.shape)] if n else []
    while len(columns) < n:
        columns.append(columns[-1] * x)
    if not columns:
        return ns.zeros((x.shape[0], 0), dtype=x.dtype, device=ns.device(x))
    return ns.stack(columns if increasing else columns[::-1], axis=-1)


def polyfit(ns: Any, x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None,
            cov: Any = False) -> Any:  # fmt: skip
    """`np.polyfit`: the coefficients of least squares, by the pseudoinverse of the scaled Vandermonde matrix."""
    if full or cov:
        raise no_rule("np.polyfit with full or cov")
    x, y = arrays_of(ns, (x, y))
    if deg < 0:
        raise ValueError(f"the degree of a polynomial is not negative, but deg is {deg}")
    w = w if w is None or hasattr(w, "dtype") else ns.xp.asarray(w)
    if x.ndim != 1 or not x.shape[0] or y.ndim not in (1, 2) or y.shape[0] != x.shape[0]:
        raise ShapeError(f"np.polyfit of x of shape {x.shape} and y of shape {y.shape}: both need the same first axis")
    if w is not None and w.shape != x.shape:
        raise ShapeError(f"np.polyfit needs a weight for each point, but w has the shape {w.shape}, x {x.shape}")
    powers = vander(ns, x, deg + 1)
    if w is not None:
        powers = ns.expand_dims(w, axis=-1) * powers
        y = y * (w if len(y.shape) == 1 else ns.expand_dims(w, axis=-1))
    scale = ns.sqrt(ns.sum(ns.real(powers * ns.conj(powers)) if ns.is_complex(powers) else powers * powers, axis=0))
    rcond = x.shape[0] * ns.xp.finfo(powers.dtype).eps if rcond is None else rcond
    solution = ns.linalg.pinv(powers / scale, rtol=rcond) @ y
    return solution / (scale if len(y.shape) == 1 else ns.expand_dims(scale, axis=-1))


OWN: dict[str, Callable[..., Any]] = {
    "poly": poly,
    "polyadd": _summed(1),
    "polyder": polyder,
    "polydiv": polydiv,
    "polyfit": polyfit,
    "polyint": polyint,
    "polymul": polymul,
    "polysub": _summed(-1),
    "polyval": polyval,
    "roots": roots,
    "vander": vander,
}
