"""The laws that every manifold obeys, as residuals: relative numbers of batch shape, of the size of rounding.

`check_manifold` draws a sample, evaluates all laws as one function (compiled once, where the framework
compiles) and names those that are broken. Each law is also a function by itself, of a manifold and a
`Sample`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..backends import backend_of, namespace
from ..backends._trees import tree_map
from ..manifolds import Curvature, Exponential, Geodesic, InverseRetraction, Logarithmic, Manifold, Quotient

Array = Any
#: a cost of a point, given two ambient arrays that keep it from being symmetric
Cost = Callable[[Any, Any, Any], Array]
#: the largest residual that passes, in units of the dtype's eps
ROUNDING = 1e3


class Sample(NamedTuple):
    """What laws are tried on: points x, y, z, tangent vectors u, v at x, ambient arrays a, b."""

    x: Any
    y: Any
    z: Any
    u: Any
    v: Any
    a: Any
    b: Any


def draw(manifold: Manifold, rng: Any, like: Array, batch: tuple[int, ...] = (), reach: float = 0.75) -> Sample:
    """A random sample; u, v have the length `reach` and y, z lie about as near to x, within reach of a logarithm.

    On a manifold of dimension 0 all vectors are 0.
    """
    x = manifold.random_point(rng, batch, like=like)

    def tangent() -> Any:
        if manifold.dim == 0:
            return manifold.zero_tangent(x)
        u = manifold.random_tangent(rng, x)
        return manifold.scale(reach / manifold.norm(x, u), u)

    backend = backend_of(like)
    a, b = (tree_map(lambda p: backend.noise(rng, tuple(p.shape), like=p), x) for _ in range(2))
    return Sample(x, manifold.retract(x, tangent()), manifold.retract(x, tangent()), tangent(), tangent(), a, b)


def gap(manifold: Manifold, p: Any, q: Any) -> Array:
    """|p - q|/(1 + |q|) in the ambient norm."""
    off = tree_map(lambda s, t: s - t, p, q)
    squared, size = manifold.pair(off, off), manifold.pair(q, q)
    xp = namespace(squared)
    return xp.sqrt(squared) / (1 + xp.sqrt(size))


def apart(m: Manifold, p: Any, q: Any) -> Array:
    """`gap` of two points: on a quotient, of p and the representative of q's class that is nearest to p."""
    return gap(m, p, m.align(p, q) if isinstance(m, Quotient) else q)


def difference(p: Array, q: Array) -> Array:
    """|p - q|/(1 + |q|) of numbers of batch shape."""
    xp = namespace(p, q)
    return xp.abs(p - q) / (1 + xp.abs(q))


def add(u: Any, v: Any, factor: float = 1.0) -> Any:
    """U + factor v."""
    return tree_map(lambda p, q: p + factor * q, u, v)


# -- laws of every manifold ---------------------------------------------------------------------------
def on_manifold(m: Manifold, s: Sample) -> dict[str, Array]:
    """Random points and retractions are points."""
    return {"random point": m.defect(s.x), "retraction is a point": m.defect(m.retract(s.x, s.u))}


def projection(m: Manifold, s: Sample) -> dict[str, Array]:
    """P is idempotent and symmetric in the ambient dot; what should be tangent is."""
    pa, pb = m.project(s.x, s.a), m.project(s.x, s.b)
    raised, moved = m.sharp(s.x, s.a), m.transport(s.x, s.y, s.u)
    return {
        "P P = P": gap(m, m.project(s.x, pa), pa),
        "P symmetric": difference(m.pair(pa, s.b), m.pair(s.a, pb)),
        "sharp is tangent": gap(m, m.project(s.x, raised), raised),
        "transport is tangent": gap(m, m.project(s.y, moved), moved),
        "transport to x itself": gap(m, m.transport(s.x, s.x, s.u), s.u),
    }


def metric(m: Manifold, s: Sample) -> dict[str, Array]:
    """The metric is symmetric, bilinear and positive; `flat` applies it, `sharp` undoes it."""
    uv, vv = m.inner(s.x, s.u, s.v), m.inner(s.x, s.v, s.v)
    raised = m.sharp(s.x, s.a)
    return {
        "inner symmetric": difference(m.inner(s.x, s.v, s.u), uv),
        "inner linear": difference(m.inner(s.x, add(s.u, s.v, 2.0), s.v), uv + 2 * vv),
        "inner positive": namespace(vv).astype((vv <= 0) & (m.pair(s.v, s.v) > 0), vv.dtype),
        "norm": difference(m.norm(s.x, s.v) ** 2, vv),
        "⟨sharp w, u⟩ = w·u": difference(m.inner(s.x, raised, s.u), m.pair(s.a, s.u)),
        "coinner": difference(m.coinner(s.x, s.a, s.b), m.coinner(s.x, s.b, s.a)),
        "sharp flat u = u": gap(m, m.sharp(s.x, m.flat(s.x, s.u)), s.u),
        "flat sharp w = P w": gap(m, m.flat(s.x, raised), m.project(s.x, s.a)),
    }


def retraction(m: Manifold, s: Sample) -> dict[str, Array]:
    """R_x(0) = x and DR_x(0) = id."""
    value, moved = backend_of(s.x).jvp(lambda u: m.retract(s.x, u), (m.zero_tangent(s.x),), (s.u,))
    return {"R(0) = x": gap(m, value, s.x), "DR(0) = id": gap(m, moved, s.u)}


def derivatives(m: Manifold, s: Sample, cost: Cost) -> dict[str, Array]:
    """⟨grad f, u⟩ is the slope along u; the Hessian is tangent and self-adjoint away from critical points."""
    f = _fixed(cost, s)
    slope = backend_of(s.x).jvp(lambda u: f(m.retract(s.x, u)), (m.zero_tangent(s.x),), (s.u,))[1]
    hu, hv = m.hessian(f, s.x, s.u), m.hessian(f, s.x, s.v)
    return {
        "gradient": difference(m.inner(s.x, m.gradient(f, s.x), s.u), slope),
        "Hessian is tangent": gap(m, m.project(s.x, hu), hu),
        "Hessian self-adjoint": difference(m.inner(s.x, hu, s.v), m.inner(s.x, s.u, hv)),
    }


def second_order(m: Manifold, s: Sample, curve: Callable[[Any, Any], Any], cost: Cost) -> Array:
    """d²/dt² f(curve(x, tu)) - ⟨Hess f(x)[u], u⟩: zero for `exp`, and for a retraction of second order."""
    f, backend = _fixed(cost, s), backend_of(s.x)

    def slope(u: Any) -> Array:
        return backend.jvp(lambda v: f(curve(s.x, v)), (u,), (s.u,))[1]

    bend = backend.jvp(slope, (m.zero_tangent(s.x),), (s.u,))[1]
    return difference(m.inner(s.x, m.hessian(f, s.x, s.u), s.u), bend)


def broadcasting(m: Manifold, s: Sample) -> dict[str, Array]:
    """A batch is its entries one by one; one point or vector stands for a batch of equal ones."""
    batch = m.inner(s.x, s.u, s.v).shape
    if not batch or 0 in batch:
        return {}
    last = (*(size - 1 for size in batch), ...)
    one = Sample(*(tree_map(lambda p: p[last], part) for part in s))
    many = Sample(*(tree_map(lambda p, q: p + 0.0 * q, p, q) for p, q in zip(one, s, strict=True)))

    def compare(got: Sample, want: Sample, pick: Any = ...) -> Array:
        pairs = zip(_operations(m, got), _operations(m, want), strict=True)
        return sum(namespace(p).max(p) for p in (gap(m, tree_map(lambda a: a[pick], g), w) for g, w in pairs))

    return {
        "batch = loop": compare(s, one, last),
        "one point, many vectors": compare(many._replace(x=one.x), many),
        "many points, one vector": compare(many._replace(u=one.u, a=one.a), many),
    }


def _operations(m: Manifold, s: Sample) -> list[Any]:
    methods = [m.project(s.x, s.a), m.sharp(s.x, s.a), m.connection(s.x, s.a, s.u), m.retract(s.x, s.u)]
    methods += [m.transport(s.x, s.y, s.u), m.scale(m.inner(s.x, s.u, s.v), s.v)]
    methods += [m.exp(s.x, s.u)] if isinstance(m, Exponential) else []
    methods += [m.log(s.x, s.y)] if isinstance(m, Logarithmic) else []
    methods += [m.parallel_transport(s.x, s.y, s.u)] if isinstance(m, Geodesic) else []
    return [*methods, m.inverse_retract(s.x, s.y)] if isinstance(m, InverseRetraction) else methods


# -- laws of what some manifolds have -------------------------------------------------------------------
def inverse_retraction(m: InverseRetraction, s: Sample) -> dict[str, Array]:
    """`inverse_retract` undoes `retract`."""
    u = m.inverse_retract(s.x, s.y)
    return {
        "inverse of R": gap(m, m.inverse_retract(s.x, m.retract(s.x, s.u)), s.u),
        "R of the inverse": apart(m, m.retract(s.x, u), s.y),
        "inverse of R is tangent": gap(m, m.project(s.x, u), u),
    }


def curvature(m: Curvature, s: Sample) -> dict[str, Array]:
    """Bounds are in order, and the injectivity radius is positive where it is known."""
    low, high = m.curvature_bounds(s.x)
    radius, xp = m.injectivity_radius(s.x), namespace(low, high)
    return {
        "bounds of the curvature": xp.astype(~(low <= high), low.dtype),
        "injectivity radius": xp.astype(radius <= 0, radius.dtype),
    }


def quotient(m: Quotient, s: Sample) -> dict[str, Array]:
    """`align` moves along the class, and covectors of invariant costs have no vertical part."""
    return {
        "align to oneself": gap(m, m.align(s.x, s.x), s.x),
        "aligned twice": gap(m, m.align(s.x, m.align(s.x, s.y)), m.align(s.x, s.y)),
    }


def exponential(m: Exponential, s: Sample) -> dict[str, Array]:
    """`exp` gives points, exp 0 = x and D exp 0 = id, with a derivative in reverse at 0 too."""
    zero, backend = m.zero_tangent(s.x), backend_of(s.x)
    value, moved = backend.jvp(lambda u: m.exp(s.x, u), (zero,), (s.u,))

    def away(u: Any) -> Array:
        return m.pair(s.a, m.exp(s.x, u))

    pulled = m.project(s.x, backend.vjp(away, zero)[1](namespace(s.u).ones_like(away(zero)))[0])
    return {
        "exp is a point": m.defect(m.exp(s.x, s.u)),
        "exp 0 = x": gap(m, value, s.x),
        "D exp 0 = id": gap(m, moved, s.u),
        "gradient of exp at 0": gap(m, pulled, m.project(s.x, s.a)),
    }


def geodesics(m: Logarithmic, s: Sample) -> dict[str, Array]:
    """`exp` and `log` undo each other; geodesics run at constant speed."""
    end, log = m.exp(s.x, s.u), m.log(s.x, s.y)
    third = m.geodesic(s.x, s.y, 1 / 3)
    return {
        "log exp u = u": gap(m, m.log(s.x, end), s.u),
        "exp log y = y": apart(m, m.exp(s.x, log), s.y),
        "log is tangent": gap(m, m.project(s.x, log), log),
        "speed of a geodesic": difference(3 * m.dist(s.x, third), m.dist(s.x, s.y)),
        "end of a geodesic": difference(1.5 * m.dist(third, s.y), m.dist(s.x, s.y)),
    }


def distance(m: Logarithmic, s: Sample) -> dict[str, Array]:
    """A distance, equal to |log|, whose square has the gradient -2 log."""
    xy = m.dist(s.x, s.y)
    excess = m.dist(s.x, s.z) - xy - m.dist(s.y, s.z)
    grad = m.gradient(lambda p: m.squared_dist(p, s.y), s.x)
    return {
        "dist = |log|": difference(xy, m.norm(s.x, m.log(s.x, s.y))),
        "dist symmetric": difference(m.dist(s.y, s.x), xy),
        "triangle inequality": namespace(excess).where(excess > 0, excess, 0.0 * excess),
        "gradient of dist²": gap(m, grad, m.scale(-2.0, m.log(s.x, s.y))),
        "Hessian of dist²": second_order(m, s, m.exp, lambda p, a, b: m.squared_dist(p, s.y)),
    }


def parallel(m: Geodesic, s: Sample) -> dict[str, Array]:
    """Parallel transport is an isometry onto T_yM, undone on the way back; it takes log_x y to -log_y x."""
    u, v = m.parallel_transport(s.x, s.y, s.u), m.parallel_transport(s.x, s.y, s.v)
    speed = m.parallel_transport(s.x, s.y, m.log(s.x, s.y))
    return {
        "parallel is tangent": gap(m, m.project(s.y, u), u),
        "parallel is an isometry": difference(m.inner(s.y, u, v), m.inner(s.x, s.u, s.v)),
        "parallel and back": gap(m, m.parallel_transport(s.y, s.x, u), s.u),
        "parallel velocity": gap(m, speed, m.scale(-1.0, m.log(s.y, s.x))),
    }


def coincidence(m: Logarithmic, s: Sample) -> dict[str, Array]:
    """At x = y, and at the vector 0, values and derivatives are finite and right."""
    zero, backend = m.zero_tangent(s.x), backend_of(s.x)

    def half(p: Any) -> Array:
        return 0.5 * m.squared_dist(p, s.x)

    def half_gradient(x: Any) -> Any:
        return m.gradient(lambda p: 0.5 * m.squared_dist(x, p), s.x)

    kinks = tree_map(add, m.gradient(lambda p: m.dist(p, s.x), s.x), zero)
    return {
        "dist(x, x) = 0": m.dist(s.x, s.x),
        "log of x itself": gap(m, m.log(s.x, s.x), zero),
        "gradient of dist² at x = y": gap(m, m.gradient(half, s.x), zero),
        "Hessian of dist² at x = y": gap(m, m.hessian(half, s.x, s.u), s.u),
        "mixed derivative of dist² at x = y": gap(m, backend.jvp(half_gradient, (s.x,), (s.u,))[1], m.scale(-1.0, s.u)),
        "gradient of dist at x = y": 0.0 * m.pair(kinks, kinks),
    }


# -- all of them --------------------------------------------------------------------------------------
def residuals(
    manifold: Manifold, sample: Sample, *, cost: Cost | None = None, retraction_order: int = 1
) -> dict[str, Array]:
    """Every law on one sample, by name: a pure function of arrays, to be compiled as a whole."""
    cost = cost or _unsymmetric(manifold)
    found: dict[str, Array] = {}
    for law in (on_manifold, projection, metric, retraction, broadcasting):
        found |= law(manifold, sample)
    found |= derivatives(manifold, sample, cost)
    if retraction_order == 2:
        found["retraction of second order"] = second_order(manifold, sample, manifold.retract, cost)
    if isinstance(manifold, Exponential):
        found["Hessian along geodesics"] = second_order(manifold, sample, manifold.exp, cost)
    for kind, more in _LAWS:
        if isinstance(manifold, kind):
            found |= more(manifold, sample)
    return found


_LAWS: tuple[tuple[type, Callable[[Any, Sample], dict[str, Array]]], ...] = (
    (InverseRetraction, inverse_retraction),
    (Curvature, curvature),
    (Quotient, quotient),
    (Exponential, exponential),
    (Logarithmic, geodesics),
    (Logarithmic, distance),
    (Logarithmic, coincidence),
    (Geodesic, parallel),
)


def check_manifold(
    manifold: Manifold,
    like: Array,
    rng: Any,
    *,
    batch: tuple[int, ...] = (3,),
    cost: Cost | None = None,
    retraction_order: int = 1,
    reach: float = 0.75,
    rounding: float = ROUNDING,
) -> dict[str, float]:
    """Assert all laws on a random sample in the framework, dtype and device of `like`; return the residuals.

    `cost(p, a, b)` of a point and two noise arrays takes the place of the default where costs must be
    invariant (quotients); `retraction_order=2` asks for that much; `reach` is the length of the tangent vectors
    that are tried; `rounding` is the largest residual that passes, in eps of the dtype.
    Raises `AssertionError` that names every broken law and its residual.
    """
    _check_types(manifold)
    backend = backend_of(like)
    sample = draw(manifold, rng, like, batch, reach)
    manifold.check_point(sample.x)
    law = backend.jit(lambda s: residuals(manifold, s, cost=cost, retraction_order=retraction_order))
    found = {name: backend.to_numpy(value) for name, value in law(sample).items()}
    where = f"{manifold}, {backend.name}, {like.dtype}, batch {batch}"
    misshapen = [f"{name}: {r.shape}" for name, r in found.items() if r.shape not in (tuple(batch), ())]
    assert not misshapen, f"{where}: residuals have the shapes " + "; ".join(misshapen)
    worst = {name: float(r.max()) if r.size else 0.0 for name, r in found.items()}
    limit = rounding * float(backend.xp.finfo(like.dtype).eps)
    broken = [f"{name}: {value:.2g}" for name, value in worst.items() if not value <= limit]
    assert not broken, f"{where}: more than {limit:.2g}: " + "; ".join(broken)
    return worst


def _check_types(manifold: Manifold) -> None:
    """Immutable, hashable, and nothing final overridden."""
    assert hash(manifold) == hash(manifold) and manifold == manifold
    for base in type(manifold).__mro__[1:]:
        for name, member in vars(base).items():
            if getattr(member, "__final__", False) and not name.startswith("_"):
                assert getattr(type(manifold), name) is member, f"{type(manifold).__name__} overrides final {name}"


def _unsymmetric(manifold: Manifold) -> Cost:
    """a·p + b·p²/2 + (a·p)(b·p)/3, p² entry by entry."""

    def cost(p: Any, a: Any, b: Any) -> Array:
        first, second = manifold.pair(a, p), manifold.pair(b, p)
        return first + 0.5 * manifold.pair(b, tree_map(lambda q: q * q, p)) + first * second / 3

    return cost


def _fixed(cost: Cost, s: Sample) -> Callable[[Any], Array]:
    return lambda p: cost(p, s.a, s.b)
