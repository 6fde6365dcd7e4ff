"""Geodesics of orthonormal columns in p × p matrices, for all metrics tr uᴴ(I - (1 - β) x xᴴ)v at once.

With a = xᴴu, b = u - x a and g = bᴴb the geodesic ends at (Hüper, Markina & Silva Leite 2021, §4; Zimmermann &
Hüper 2022, §4)

    exp(x, u) = x e + b f,   [e; f] = exp([[2βa, -g], [I, 0]]) [I; 0] exp((1 - 2β) a),

without a basis of b's columns, so that nothing is special about b = 0 or b of low rank, or n < 2p. The logarithm is
found from xᴴy alone: x xᴴy + … = y is met if e(a, g) = xᴴy, p² equations for the p² numbers in a + g.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backends import backend_of, namespace
from ._expm import expm
from ._linalg import batch_full, dot, eye_like, is_complex, mT, sym
from ._parameters import expand

Array = Any

#: Newton's method: most steps; shortest step; how far a step may stray from its aim; the residual that ends it and
#: the one that is accepted, in eps
_MAX_STEPS, _SHORTEST, _STRAY, _DONE, _ACCEPTED = 100, 1e-4, 0.75, 64.0, 1e5
#: the largest step after that
_LAST = 0.1
#: the squared length, over min(1, β), up to which the first geodesic found is taken
_NEAR = 2.0
#: Gauss's nodes and weights on [0, 1]
_NODES = (
    0.013046735741414128, 0.06746831665550773, 0.16029521585048778, 0.2833023029353764, 0.4255628305091844,
    0.5744371694908156, 0.7166976970646236, 0.8397047841495122, 0.9325316833444923, 0.9869532642585859,
)  # fmt: skip
_WEIGHTS = (
    0.03333567215434403, 0.07472567457529028, 0.10954318125799102, 0.13463335965499817, 0.14776211235737643,
    0.14776211235737643, 0.13463335965499817, 0.10954318125799102, 0.07472567457529028, 0.03333567215434403,
)  # fmt: skip


def ends(beta: Any, a: Array, g: Array) -> tuple[Array, Array]:
    """`e, f` of the formula above."""
    p = a.shape[-1]
    xp, plain = namespace(a), backend_of(g).stop_gradient(g)
    # [e; f σ] = exp([[2βa, -g/σ], [σ I, 0]]) [I; 0]: the same for every σ, this one makes the blocks equally large
    size = xp.max(xp.sum(xp.abs(plain), axis=-1), axis=-1)[..., None, None]
    size = xp.where(size > 1, xp.sqrt(size), xp.ones_like(size))
    both = expm(_generator(beta, a, g / size, size))[..., :p]
    turn = turned(beta, a)
    if turn is not None:
        both = both @ turn
    return both[..., :p, :], both[..., p:, :] / size


def turned(beta: Any, a: Array) -> Array | None:
    """exp((1 - 2β) a); None for the identity."""
    return None if isinstance(beta, float) and beta == 0.5 else expm((1 - 2 * expand(beta, 2)) * a)


def _generator(beta: Any, a: Array, g: Array, size: Array) -> Array:
    top = 2 * expand(beta, 2) * a
    xp = namespace(top, g)
    zero = xp.zeros_like(top)
    eye = size * eye_like(a, a.shape[-1]) + zero
    return xp.concat([xp.concat([top, zero - g], axis=-1), xp.concat([eye, zero], axis=-1)], axis=-2)


def logarithm(beta: Any, m: Array, away: Array, metric: Array | None = None) -> tuple[Array, Array]:
    """`a, b` of log(x, y) = x a + b, from `m` = xᴴy and `away` = y - x m; with a `metric` B, ᴴ is ᴴB.

    Newton's method with shortened steps, from a = skew(m), g = 2 (I - sym(m)); differentiated as an implicit function.
    NaN where the method does not end, or ends at a g that is not bᴴb: where y is a cut point, or in another component.
    """
    backend = backend_of(m, beta) if hasattr(beta, "shape") else backend_of(m)
    if hasattr(beta, "shape"):
        z = _implicit(backend, None)(m + 0 * expand(beta, 2), beta)
    else:
        z = _implicit(backend, float(beta))(m)
    a, g = _parts(z)
    _, f = ends(beta, a, g)
    b = away @ namespace(f).linalg.inv(f)
    b_plain, g = backend.stop_gradient((b, g))
    xp = namespace(g)
    off = (mT(b_plain) @ b_plain if metric is None else mT(b_plain) @ metric @ b_plain) - g
    limit = float(xp.finfo(g.dtype).eps) ** 0.25 * (1 + dot(g, g, 2, keepdims=True))
    return a, namespace(b).where(dot(off, off, 2, keepdims=True) <= limit, b, float("nan") * namespace(b).ones_like(b))


@cache
def _implicit(backend: Any, number: float | None) -> Callable[..., Array]:
    """The z = a + g with e(a, g) = m, for `m` and `beta`, or `m` alone where beta is a number."""

    def function(m: Array, beta: Any = number) -> Array:
        return _newton(backend, beta, m)

    def inverse(z: Array, beta: Any = number) -> Array:
        _, jacobian = _jacobian(backend, beta, *_parts(z))
        return namespace(jacobian).linalg.inv(jacobian)

    def pushforward(primals: tuple, out: Array, tangents: tuple) -> Array:
        right = 0.0 * out if tangents[0] is None else tangents[0]
        if tangents[1:] and tangents[1] is not None:
            _, moved = backend.jvp(lambda beta: ends(beta, *_parts(out))[0], primals[1:], tangents[1:])
            right = right - moved
        return _apply(inverse(out, *primals[1:]), right)

    def pullback(primals: tuple, out: Array, cotangent: Array, needs: tuple[bool, ...]) -> tuple:
        w = _apply(inverse(out, *primals[1:]).mT, cotangent)
        if not any(needs[1:]):
            return (w, *(None for _ in needs[1:]))
        _, pull = backend.vjp(lambda beta: ends(beta, *_parts(out))[0], primals[1])
        return w, pull(-w)[0]

    return backend.custom_derivative(function, pushforward, pullback)


def _newton(backend: Any, beta: Any, m: Array) -> Array:
    """The z = a + g with e(a, g) = m; NaN where none is found.

    Where the geodesic found for another metric than β = 1 is long, a shorter one is looked for on the way from β = 1,
    for which the method finds the shortest.
    """
    xp, p = namespace(m), m.shape[-1]
    if 0 in m.shape:
        return m
    start = 0.5 * (m - mT(m)) - 2 * (sym(m) - eye_like(m, p))
    everywhere = batch_full(m, 2, 0.0) == 0
    z, found = _search(backend, beta, m, start, everywhere)
    if not (isinstance(beta, float) and beta == 1.0):
        squared = _squared_length(beta, z)
        far = ~(found & (squared <= 0.5 * _NEAR * (beta + 1 - abs(beta - 1))))
        if not backend.is_eager(far) or bool(xp.any(far)):
            other = start
            for on_the_way in (1.0, 0.5 + 0.5 * beta, beta):
                other, reached = _search(backend, on_the_way, m, other, far)
                other = xp.where(reached[..., None, None], other, start)
            better = far & reached & (~found | (_squared_length(beta, other) < squared))
            found, z = found | better, xp.where(better[..., None, None], other, z)
    return xp.where(found[..., None, None], z, float("nan") * xp.ones_like(z))


def _squared_length(beta: Any, z: Array) -> Array:
    """β |a|² + tr g of z = a + g."""
    a, g = _parts(z)
    return beta * dot(a, a, 2) + dot(g, eye_like(g, g.shape[-1]), 2)


def _search(backend: Any, beta: Any, m: Array, start: Array, some: Array) -> tuple[Array, Array]:
    """Newton's method from `start`, for some entries: `z, found`."""
    xp = namespace(m)
    eps = m.shape[-1] * float(xp.finfo(m.dtype).eps)

    def size_of(off: Array) -> Array:
        return xp.sqrt(xp.sum(xp.abs(off) ** 2, axis=(-2, -1)))

    def step(state: tuple) -> tuple:
        z, newton, off, size, t, todo = state
        far = t[..., None, None]
        moved = z + far * newton
        e, jacobian = _jacobian(backend, beta, *_parts(moved))
        new_off = m - e
        # short steps keep to the path on which the residual shrinks without turning
        good = todo & (size_of(new_off - (1 - far) * off) < _STRAY * t * size)
        better = good[..., None, None]
        new = _apply(_inverse(backend, jacobian, good), new_off)
        z, newton, off = (xp.where(better, p, q) for p, q in ((moved, z), (new, newton), (new_off, off)))
        size = xp.where(good, size_of(off), size)
        t = xp.where(good, xp.minimum(4 * t, xp.ones_like(t)), 0.25 * t)
        return z, newton, off, size, t, todo & (size > _DONE * eps) & (t > _SHORTEST)

    # the first step evaluates at the start
    zero, one = xp.zeros_like(start), xp.ones_like(size_of(m))
    state = (start, zero, zero, float("inf") * one, one, some & (size_of(m) >= 0))
    z, newton, _, size, _, _ = backend.while_loop(lambda state: xp.any(state[5]), step, state, max_steps=_MAX_STEPS)
    # one more step, to rounding: it is tiny, except where the Jacobian is singular, near a conjugate point
    return z + newton, (size <= _ACCEPTED * eps) & (size_of(newton) <= _LAST)


def _parts(z: Array) -> tuple[Array, Array]:
    """The skew and the symmetric part."""
    return 0.5 * (z - mT(z)), sym(z)


def _inverse(backend: Any, jacobian: Array, some: Array) -> Array:
    """The inverse where it is asked for, lest one singular matrix spoil its batch."""
    xp, eye = namespace(jacobian), eye_like(jacobian, jacobian.shape[-1])
    safe = xp.where(some[..., None, None], jacobian, eye)
    return backend.solve_or_nan(safe, xp.broadcast_to(eye, safe.shape))


def _apply(inverse: Array, z: Array) -> Array:
    """The real matrix times the p² (complex: 2p²) numbers in `z`."""
    xp, batch, p = namespace(inverse, z), z.shape[:-2], z.shape[-1]
    if not is_complex(z.dtype):
        return xp.reshape(inverse @ xp.reshape(z, (*batch, p * p, 1)), (*batch, p, p))
    flat = xp.reshape(z, (*batch, p * p, 1))
    moved = inverse @ xp.concat([xp.real(flat), xp.imag(flat)], axis=-2)
    return xp.reshape(moved[..., : p * p, :] + 1j * moved[..., p * p :, :], (*batch, p, p))


def _jacobian(backend: Any, beta: Any, a: Array, g: Array) -> tuple[Array, Array]:
    """E(a, g), and its derivative in a + g as a real matrix.

    The derivative of exp(h) in the direction d is ∫ exp((1 - s) h) d exp(s h) ds over [0, 1]: Gauss's rule.
    """
    xp, p, batch = namespace(a, *([beta] if hasattr(beta, "shape") else [])), a.shape[-1], a.shape[:-2]
    device = backend.device(a)
    times = xp.asarray([*_NODES, 1.0], dtype=a.dtype, device=device)[:, None, None]
    weights = xp.asarray(_WEIGHTS, dtype=a.dtype, device=device)[:, None, None]
    wide = expand(beta, 3)
    both = expm(times * _generator(beta, a, g, xp.ones_like(g[..., :1, :1]))[..., None, :, :])
    left = both[..., :-1, :p, :p]
    if isinstance(beta, float) and beta == 0.5:
        e, right = both[..., -1, :p, :p], both[..., :-1, :, :p]
        l, r = weights * xp.flip(left, axis=-3), right[..., :p, :]
    else:
        turns = expm(times * ((1 - 2 * wide) * a[..., None, :, :]))
        turn, end = turns[..., -1:, :, :], both[..., -1:, :p, :p]
        e, right = (end @ turn)[..., 0, :, :], both[..., :-1, :, :p] @ turn
        l = xp.concat(
            [weights * xp.flip(left, axis=-3), weights * (end @ xp.flip(turns[..., :-1, :, :], axis=-3))], axis=-3
        )
        r = xp.concat([2 * wide * right[..., :p, :], (1 - 2 * wide) * turns[..., :-1, :, :]], axis=-3)
    in_a = _kron(l, r)
    in_g = -_kron(weights * xp.flip(left, axis=-3), right[..., p:, :])
    # a + g = z: a, g are (z ∓ zᴴ)/2
    flipped = xp.permute_dims(xp.reshape(in_g - in_a, (*batch, p * p, p, p)), _swap_last(len(batch) + 1))
    direct, flipped = 0.5 * (in_a + in_g), 0.5 * xp.reshape(flipped, (*batch, p * p, p * p))
    if not is_complex(a.dtype):
        return e, direct + flipped
    plus, minus = direct + flipped, direct - flipped
    rows = [xp.concat([xp.real(plus), -xp.imag(minus)], axis=-1), xp.concat([xp.imag(plus), xp.real(minus)], axis=-1)]
    return e, xp.concat(rows, axis=-2)


def _kron(l: Array, r: Array) -> Array:
    """The p² × p² matrix of z ↦ Σ lₖ z rₖ."""
    xp, batch, (q, p, _) = namespace(l, r), l.shape[:-3], l.shape[-3:]
    table = xp.reshape(l, (*batch, q, p * p)).mT @ xp.reshape(r, (*batch, q, p * p))
    n = len(batch)
    table = xp.permute_dims(xp.reshape(table, (*batch, p, p, p, p)), (*range(n), n, n + 3, n + 1, n + 2))
    return xp.reshape(table, (*batch, p * p, p * p))


def _swap_last(n: int) -> tuple[int, ...]:
    return (*range(n), n + 1, n)


#: J_k(ω), k = 0, 1, …, for the Chebyshev series of exp on [-iω, iω]
_REACH = 12.0
_BESSEL = (
    0.047689310796833535, -0.2234471044906276, -0.08493049487860481, 0.19513693953109268,
    0.18249896464415113, -0.07347096310165858, -0.24372476722886663, -0.17025380412720806,
    0.04509532908045724, 0.2303809095678177, 0.3004760352712693, 0.2704124825509645,
    0.19528018273883224, 0.1201478829267, 0.06504023026901776, 0.031612654367674776,
    0.013991405650169177, 0.005697760699443032, 0.002152249664919412, 0.0007589882953152035,
    0.00025121327024539954, 7.838927216946155e-05, 2.3149182347715898e-05, 6.491063105496737e-06,
    1.7332262233549285e-06, 4.418417879229772e-07, 1.0778122632414301e-07, 2.5210192814975858e-08,
    5.6646413432483546e-09, 1.2248001201831302e-09, 2.552259043034417e-10, 5.132940133407828e-11,
    9.976002589296073e-12, 1.8759458088341055e-12, 3.416993592915068e-13, 6.035056048443326e-14,
    1.0345576867687185e-14, 1.7229007216898554e-15, 2.7897758273358994e-16, 4.395730228954753e-17,
    6.744882148469006e-18,
)  # fmt: skip


def transported(beta: Any, a: Array, b: Array, x: Array, u: Array, metric: Array | None = None) -> Array:
    """`u`, carried in parallel along the geodesic from x with the velocity x a + b, from time 0 to time 1.

    In the frame that turns with the geodesic, with u = x c + d, transport has constant coefficients (Nguyen & Sommer
    2022, §4; Edelman, Arias & Smith 1998, §2.2.3):

        ċ = (1/2 - 2β)(a c - c a) + skew(bᴴd),   ḋ = β (d a - b c),

    a skew operator. Its exponential acts by a Chebyshev series; NaN where the operator is too large for that. With a
    `metric` B, ᴴ of x and b is ᴴB.
    """
    wide = expand(beta, 2)
    base, adjoint = (mT(x), mT(b)) if metric is None else (mT(x) @ metric, mT(b) @ metric)
    c = base @ u
    d = u - x @ c
    zero = 0 * wide * (a + c)
    xp = namespace(zero, d)
    c, d = _parts(c)[0] + zero, d + xp.zeros_like(wide * b)

    def turn(c: Array, d: Array) -> tuple[Array, Array]:
        return (0.5 - 2 * wide) * (a @ c - c @ a) + _parts(adjoint @ d)[0], wide * (d @ a - b @ c)

    c = xp.where(_size(beta, a, adjoint @ b) <= _REACH, c, float("nan") * xp.ones_like(c))
    before, now = (c, d), turn(c, d)
    now = (now[0] / _REACH, now[1] / _REACH)
    end = [_BESSEL[0] * p + 2 * _BESSEL[1] * q for p, q in zip(before, now, strict=True)]
    for weight in _BESSEL[2:]:
        after = turn(*now)
        before, now = now, tuple((2 / _REACH) * p + q for p, q in zip(after, before, strict=True))
        end = [p + 2 * weight * q for p, q in zip(end, now, strict=True)]
    c, d = end
    # the frame's own turn: ẏ = 2βa y - bᴴ(d + b z), ż = y from y = c, z = 0
    p = a.shape[-1]
    eye = eye_like(a, p) + zero
    top = xp.concat([zero + 2 * wide * a, zero - adjoint @ b, zero - adjoint @ d], axis=-1)
    rows = [top, xp.concat([eye, zero, zero], axis=-1), xp.concat([zero, zero, zero], axis=-1)]
    moved = expm(xp.concat(rows, axis=-2)) @ xp.concat([c, zero, eye], axis=-2)
    result = x @ moved[..., :p, :] + b @ moved[..., p : 2 * p, :] + d
    last = turned(beta, a)
    return result if last is None else result @ last


def _size(beta: Any, a: Array, g: Array) -> Array:
    """A bound of the norm of the operator in `transported`, a constant: `(..., 1, 1)`."""
    a, g, wide = backend_of(a, g).stop_gradient((a, g, expand(beta, 2)))
    xp = namespace(a, g)
    aa, gg = dot(a, a, 2, keepdims=True), dot(g, eye_like(g, g.shape[-1]), 2, keepdims=True)
    # the singular values of a real skew matrix come in pairs
    rotation = xp.sqrt(aa if is_complex(a.dtype) else 0.5 * aa)
    return xp.maximum(abs(1 - 4 * wide) * rotation, wide * rotation) + xp.sqrt(wide * gg)
