"""The `fft` extension and NumPy's own spelling of it. All are linear: a tangent is pushed by the function itself.

Adjoints for the real inner product Re⟨conj(a), b⟩, with the two scalings "backward" and "forward" exchanged:
that of `fft` is `ifft`, that of cropping is padding with zeros. `rfft` keeps half of a symmetric spectrum, and
`irfft` counts each kept entry twice, except the one of frequency zero and, for even n, the one of Nyquist's
frequency, of which it ignores the imaginary parts. Hence rfft* c = irfft(w c), w = 1, ½, ..., ½ (1), and
irfft* c = rfft(c)/w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..array import Traced
from ..core import Primitive
from ..maps import Linear
from ..refusals import no_rule, refuse

_SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}
_OPPOSITE = {"fft": "ifft", "ifft": "fft", "rfft": "irfft", "irfft": "rfft"}


def rule(ns: Any, xp: Any, name: str) -> Callable[..., Any] | None:
    """The differentiable `fft.name`; None for what is not a function of `fft`."""
    if name in ("fftfreq", "rfftfreq"):
        return _frequencies(getattr(xp, name))
    if name in ("fftshift", "ifftshift"):
        return _shift(ns, -1 if name.startswith("i") else 1)
    if name in ("hfft", "ihfft"):
        return _hermitian(ns, name == "ihfft")
    kind = name.removesuffix("n")
    if kind not in _OPPOSITE:
        return None
    primitive = Primitive(f"fft.{name}", _plain(xp, kind), (_RULES[kind],))
    if name == kind:
        return lambda x, /, *, n=None, axis=-1, norm="backward": primitive(x, **_static(kind, x, (n,), (axis,), norm))

    def transform(x: Any, /, *, s: Any = None, axes: Any = None, norm: str = "backward") -> Any:
        static = _static(kind, x, s, axes, norm)
        if len(set(static["axes"])) == len(static["axes"]):
            return primitive(x, **static)
        return _in_turn(ns, kind, x, **static)  # NumPy allows an axis to be given twice

    return transform


def _in_turn(ns: Any, kind: str, x: Any, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
    """The transform of one axis after the other, in NumPy's order."""
    complex_kind, pairs = kind.replace("r", ""), list(zip(s, axes, strict=True))
    turns = [(kind, *pairs[-1])]
    if kind == "irfft":
        turns = [(complex_kind, *pair) for pair in pairs[:-1]] + turns
    else:
        turns += [(complex_kind, *pair) for pair in reversed(pairs[:-1])]
    for name, n, axis in turns:
        x = getattr(ns.fft, name)(x, n=n, axis=axis, norm=norm)
    return x


def _static(kind: str, x: Any, s: Any, axes: Any, norm: str) -> dict[str, Any]:
    """The sizes and axes of a transform spelled out; a size of -1 stands for that of x."""
    ndim = len(x.shape)
    if axes is None:
        axes = range(ndim) if s is None else range(ndim - len(s), ndim)
    axes = tuple(a % ndim if -ndim <= a < ndim else a for a in axes)
    given = [None] * len(axes) if s is None else list(s)
    if len(given) != len(axes):
        raise ValueError(f"fft was given {len(given)} sizes for {len(axes)} axes")
    sizes = [x.shape[a] if n in (None, -1) else n for n, a in zip(given, axes, strict=True) if a < ndim]
    if kind == "irfft" and axes and given[-1] is None and len(sizes) == len(axes):
        sizes[-1] = 2 * (sizes[-1] - 1)
    return {"s": tuple(sizes), "axes": axes, "norm": "backward" if norm is None else norm}


def _plain(xp: Any, kind: str) -> Callable[..., Any]:
    """The library's own transform of plain arrays."""

    def transform(x: Any, *, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
        if len(axes) == 1:
            return getattr(xp, kind)(x, n=s[0] if s else None, axis=axes[0], norm=norm)
        return getattr(xp, f"{kind}n")(x, s=s, axes=axes, norm=norm)

    return transform


def resized(ns: Any, x: Any, shape: tuple[int, ...], axes: Sequence[int]) -> Any:
    """`x`, cropped or padded with zeros at the end of these axes to the sizes of `shape`."""
    for a in axes:
        missing = shape[a] - x.shape[a]
        if missing < 0:
            x = ns.take_slice(x, a, slice(0, shape[a]))
        elif missing > 0:
            zeros = ns.zeros((*x.shape[:a], missing, *x.shape[a + 1 :]), dtype=x.dtype, device=ns.device(x))
            x = ns.concat([x, zeros], axis=a)
    return x


def _weights(ns: Any, like: Any, n: int, axis: int, ndim: int, interior: float) -> Any:
    """1 for frequency zero and, for even n, Nyquist's; `interior` between: n//2 + 1 numbers along `axis`."""
    count = n // 2 + 1
    kinds = {"dtype": ns.xp.real(like).dtype if ns.is_complex(like) else like.dtype, "device": ns.device(like)}
    ends = 1 if n % 2 else 2
    parts = [ns.xp.ones((1,), **kinds), ns.xp.full((max(count - ends, 0),), interior, **kinds)]
    parts += [ns.xp.ones((1,), **kinds)] if count > 1 and ends == 2 else []
    return ns.xp.reshape(ns.xp.concat(parts), (*[1] * axis, count, *[1] * (ndim - axis - 1)))


def _transform(ns: Any, kind: str, x: Any, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Any:
    if len(axes) == 1:
        return getattr(ns.fft, kind)(x, n=s[0], axis=axes[0], norm=norm)
    return getattr(ns.fft, f"{kind}n")(x, s=s, axes=axes, norm=norm)


def _rule_of(kind: str) -> Callable[..., Linear]:
    def of(ns: Any, y: Any, x: Any, *, s: tuple[int, ...], axes: tuple[int, ...], norm: str) -> Linear:
        back, like = _SWAPPED[norm], ns.backend.xp.zeros((), dtype=x.dtype, device=ns.device(x))
        weights = None
        if kind in ("rfft", "irfft"):
            interior = 0.5 if kind == "rfft" else 2.0
            weights = _weights(ns, like, s[-1], axes[-1], len(x.shape), interior)

        def pull(c: Any) -> Any:
            if kind == "rfft":
                c = c * weights
            c = _transform(ns, _OPPOSITE[kind], c, s, axes, back)
            if kind == "irfft":
                c = c * weights
            return ns.fit_dtype(resized(ns, c, x.shape, axes), x.dtype)

        return Linear(lambda t: _transform(ns, kind, t, s, axes, norm), pull)

    return of


_RULES = {kind: _rule_of(kind) for kind in _OPPOSITE}


def _hermitian(ns: Any, inverse: bool) -> Callable[..., Any]:
    """Hfft(x) = irfft(conj x) and ihfft(x) = conj rfft(x), with the scalings exchanged."""

    def hfft(x: Any, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Any:
        back = _SWAPPED.get(norm or "backward", norm)
        if inverse:
            return ns.conj(ns.fft.rfft(x, n=n, axis=axis, norm=back))
        return ns.fft.irfft(ns.conj(x) if ns.is_complex(x) else x, n=n, axis=axis, norm=back)

    return hfft


def _frequencies(own: Callable[..., Any]) -> Callable[..., Any]:
    """The frequencies k/(n d), of which the step d may be differentiated."""

    def frequencies(n: int, /, *, d: Any = 1.0, **keywords: Any) -> Any:
        return own(n, d=1.0, **keywords) / d if isinstance(d, Traced) else own(n, d=d, **keywords)

    return frequencies


def _shift(ns: Any, sign: int) -> Callable[..., Any]:
    def shift(x: Any, /, *, axes: Any = None) -> Any:
        axes = range(len(x.shape)) if axes is None else (axes,) if isinstance(axes, int) else axes
        axes = tuple(axes)
        half = tuple(x.shape[a] // 2 if sign > 0 else -(x.shape[a] // 2) for a in axes)
        return ns.roll(x, half, axis=axes) if axes else x

    return shift


# -- NumPy's spelling ------------------------------------------------------------------------------
def numpy_fft(ns: Any, name: str, x: Any, *args: Any, **keywords: Any) -> Any:
    """`np.fft.name` of a traced array; `fft2` and its kin are transforms of the last two axes."""
    if name not in _NAMES:
        raise no_rule(f"np.fft.{name}")
    found, names = _NAMES[name]
    keywords |= dict(zip(names, args, strict=False))
    if keywords.pop("out", None) is not None:
        refuse(f"np.fft.{name} into a plain array (out=)", f"write `a = np.fft.{name}(...)`")
    if name.endswith("2"):
        keywords.setdefault("axes", (-2, -1))
    return getattr(ns.fft, found)(x, **keywords)


_ONE = ("n", "axis", "norm", "out")
_SEVERAL = ("s", "axes", "norm", "out")
_NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fftshift": ("fftshift", ("axes",)),
    "ifftshift": ("ifftshift", ("axes",)),
    "hfft": ("hfft", _ONE),
    "ihfft": ("ihfft", _ONE),
}
for _kind in _OPPOSITE:
    _NAMES |= {_kind: (_kind, _ONE), f"{_kind}n": (f"{_kind}n", _SEVERAL), f"{_kind}2": (f"{_kind}n", _SEVERAL)}
