"""SciPy's special functions, and CuPy's of the same names: one line for each.

Their universal functions reach the tape by name (`scipy.special.erf(y)`); what a rule needs besides is looked up,
when it runs, in the module that the user has imported: `ns.special.erfcx`. Nothing is imported here. Functions that
SciPy writes in Python (`logsumexp`, `softmax`, `polygamma`, ...) turn their argument into a plain array first and are
refused there; those below are at `ns.special`, for code that asks the namespace, as SciPy does itself for its
universal functions under SCIPY_ARRAY_API=1.

Formulas: NIST Digital Library of Mathematical Functions, chapters 5 (Γ), 6 (E₁), 7 (erf), 8 (incomplete Γ, B), 10
(Bessel), 13 and 15 (hypergeometric), 25 (ζ).
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

from ..calls import make_primitive
from ..maps import scale
from ..refusals import no_rule
from .special_sums import FUNCTIONS

Rule = Callable[..., Any]


class Special:
    """The special functions of the user's SciPy or CuPy that can be differentiated; others are no attributes."""

    def __init__(self, ns: Any):
        self._ns = ns
        self._library = f"{'cupyx.' if ns.backend.name == 'cupy' else ''}scipy.special"
        if self._library not in sys.modules:
            raise AttributeError(f"{self._library} has not been imported")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in FUNCTIONS:
            made = functools.partial(FUNCTIONS[name], self._ns)
        else:
            own = getattr(sys.modules[self._library], name, None)
            if own is None or name not in RULES:
                raise AttributeError(f"{self._library}.{name} cannot be differentiated")
            made = make_primitive(f"{self._library}.{name}", own, RULES[name], elementwise=True)
        self.__dict__[name] = made
        return made


def find(ns: Any, ufunc_name: str) -> Callable[..., Any] | None:
    """The differentiable function for the name that a universal function of SciPy or CuPy bears, or None."""
    name = ufunc_name.removeprefix("cupyx_scipy_special_").removeprefix("_")
    return getattr(ns.special, _ALIASES.get(name, name), None) if hasattr(ns, "special") else None


_ALIASES = {"riemann_zeta": "zeta"}


def _by(derivative: Callable[..., Any]) -> Rule:
    """The rule of an elementwise function from its derivative (ns, special functions, out, *args) -> d."""

    def rule(ns: Any, y: Any, *args: Any) -> Any:
        try:
            d = derivative(ns, ns.special, y, *args)
        except AttributeError as missing:
            raise no_rule(f"a derivative of a special function ({missing})") from missing
        return scale(ns, ns.fit_dtype(d, y.dtype) if hasattr(d, "dtype") else d)

    return rule


def _no(what: str) -> Rule:
    """The rule for an argument by which the derivative is not known."""

    def rule(ns: Any, y: Any, *args: Any) -> Any:
        raise no_rule(f"scipy.special.{what}")

    return rule


def _one(derivative: Callable[..., Any]) -> tuple[Rule, ...]:
    return (_by(derivative),)


def _last(name: str, arguments: str, derivative: Callable[..., Any]) -> tuple[Rule, ...]:
    """The rules of a function that has a derivative by its last argument alone."""
    return (*(_no(f"{name} by its parameter {a}") for a in arguments.split()), _by(derivative))


def _order(name: str, derivative: Callable[..., Any]) -> tuple[Rule, ...]:
    """The rules of a Bessel function: derivative(function, v, x, out)."""
    return _last(name, "v", lambda ns, sp, y, v, x: derivative(getattr(sp, name), v, x, y))


# -- derivatives that need more than a line --------------------------------------------------------
def _kept(ns: Any, condition: Any, x: Any) -> Any:
    """`x` where the condition holds and 1 elsewhere, for divisions and logarithms."""
    return ns.where(condition, x, ns.ones_like(x))


def _over(ns: Any, x: Any, y: Any) -> Any:
    """X/y, and 0 where x = 0."""
    zero = x == 0
    if isinstance(zero, bool):
        return 0.0 if zero else x / y
    return ns.where(zero, 0.0, x) / ns.where(zero, 1.0, y)


def _psi(ns: Any, sp: Any, y: Any, x: Any) -> Any:
    """ψ' = ζ(2, x)."""
    if ns.is_complex(x):
        raise no_rule("scipy.special.psi of complex numbers")
    return sp.zeta(2, x)


def _rgamma(ns: Any, sp: Any, y: Any, x: Any) -> Any:
    """-ψ(x)/Γ(x); left of 1/2 by 1/Γ(x) = sin(πx) Γ(1-x)/π, which has no poles there."""
    left = (ns.real(x) if ns.is_complex(x) else x) < 0.5
    low, high = ns.where(left, x, ns.zeros_like(x)), _kept(ns, ~left, x)
    turn = sp.gamma(1 - low) * (ns.cos(math.pi * low) - ns.sin(math.pi * low) * sp.psi(1 - low) / math.pi)
    return ns.where(left, turn, -sp.psi(high) * sp.rgamma(high))


def _expn(ns: Any, sp: Any, y: Any, n: Any, x: Any) -> Any:
    """-Eₙ₋₁(x), and for n = 0, E₀ = exp(-x)/x: -E₀ (1 + 1/x)."""
    zero = n == 0
    return ns.where(zero, -y * (1 + 1 / x), -sp.expn(ns.xp.where(zero, 0, n - 1), x))


def _i1(ns: Any, sp: Any, y: Any, x: Any) -> Any:
    """(I₀ + I₂)/2; CuPy, which has no I₂: I₀ - I₁/x."""
    if hasattr(sp, "iv"):
        return 0.5 * (sp.i0(x) + sp.iv(2, x))
    return sp.i0(x) - ns.where(x == 0, 0.5, y / _kept(ns, x != 0, x))


def _i1e(ns: Any, sp: Any, y: Any, x: Any) -> Any:
    """(I₀ + I₂) exp(-|x|)/2 - sign(x) I₁ exp(-|x|)."""
    if hasattr(sp, "ive"):
        return 0.5 * (sp.i0e(x) + sp.ive(2, x)) - ns.sign(x) * y
    return sp.i0e(x) - ns.where(x == 0, 0.5, y / _kept(ns, x != 0, x)) - ns.sign(x) * y


def _ive(ns: Any, sp: Any, y: Any, v: Any, x: Any) -> Any:
    if ns.is_complex(x):
        raise no_rule("scipy.special.ive of complex numbers")
    return 0.5 * (sp.ive(v - 1, x) + sp.ive(v + 1, x)) - ns.sign(x) * y


def _first(zeroth: str, name: str) -> Rule:
    """J₁' = (J₀ - J₂)/2, and Y₁' alike; CuPy, which has no J₂: J₀ - J₁/x."""

    def derivative(ns: Any, sp: Any, y: Any, x: Any) -> Any:
        if hasattr(sp, name):
            return 0.5 * (getattr(sp, zeroth)(x) - getattr(sp, name)(2, x))
        return getattr(sp, zeroth)(x) - ns.where(x == 0, 0.5, y / _kept(ns, x != 0, x))

    return _by(derivative)


def _beta_density(ns: Any, sp: Any, a: Any, b: Any, x: Any) -> Any:
    return ns.exp(sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b))


def _gamma_density(ns: Any, sp: Any, a: Any, x: Any) -> Any:
    return ns.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a))


def _pseudo_huber_delta(ns: Any, sp: Any, y: Any, delta: Any, r: Any) -> Any:
    s = ns.sqrt(1 + (r / delta) ** 2)
    return 2 * delta * (s - 1) - r * r / (delta * s)


def _entr(ns: Any, sp: Any, y: Any, x: Any) -> Any:
    """-log x - 1; 0 where the value is -∞."""
    return ns.where(x < 0, 0.0, -ns.log(ns.where(x < 0, 1.0, x)) - 1)


_ROOT_PI, _ROOT_2PI, _DEGREE = math.sqrt(math.pi), math.sqrt(2 * math.pi), math.pi / 180

#: One rule for each argument. Where one is refused, the others can still be differentiated.
RULES: dict[str, tuple[Rule, ...]] = {
    # the error function and the normal distribution
    "erf": _one(lambda ns, sp, y, x: 2 / _ROOT_PI * ns.exp(-x * x)),
    "erfc": _one(lambda ns, sp, y, x: -2 / _ROOT_PI * ns.exp(-x * x)),
    "erfcx": _one(lambda ns, sp, y, x: 2 * x * y - 2 / _ROOT_PI),
    "erfi": _one(lambda ns, sp, y, x: 2 / _ROOT_PI * ns.exp(x * x)),
    "erfinv": _one(lambda ns, sp, y, x: 0.5 * _ROOT_PI * ns.exp(y * y)),
    "erfcinv": _one(lambda ns, sp, y, x: -0.5 * _ROOT_PI * ns.exp(y * y)),
    "dawsn": _one(lambda ns, sp, y, x: 1 - 2 * x * y),
    "wofz": _one(lambda ns, sp, y, x: 2j / _ROOT_PI - 2 * x * y),
    "ndtr": _one(lambda ns, sp, y, x: ns.exp(-0.5 * x * x) / _ROOT_2PI),
    "log_ndtr": _one(lambda ns, sp, y, x: math.sqrt(2 / math.pi) / sp.erfcx(-math.sqrt(0.5) * x)),
    "ndtri": _one(lambda ns, sp, y, x: _ROOT_2PI * ns.exp(0.5 * y * y)),
    "ndtri_exp": _one(lambda ns, sp, y, x: _ROOT_2PI * ns.exp(x + 0.5 * y * y)),
    "owens_t": (
        _by(lambda ns, sp, y, h, a: ns.exp(-0.5 * h * h) * sp.erf(math.sqrt(0.5) * a * h) * (-0.5 / _ROOT_2PI)),
        _by(lambda ns, sp, y, h, a: ns.exp(-0.5 * h * h * (1 + a * a)) / (2 * math.pi * (1 + a * a))),
    ),
    # the logistic function and entropies
    "expit": _one(lambda ns, sp, y, x: y * sp.expit(-x)),
    "logit": _one(lambda ns, sp, y, x: 1 / (x * (1 - x))),
    "log_expit": _one(lambda ns, sp, y, x: sp.expit(-x)),
    "entr": _one(_entr),
    "xlogy": (_by(lambda ns, sp, y, a, b: ns.log(b)), _by(lambda ns, sp, y, a, b: _over(ns, a, b))),
    "xlog1py": (_by(lambda ns, sp, y, a, b: ns.log1p(b)), _by(lambda ns, sp, y, a, b: _over(ns, a, 1 + b))),
    "rel_entr": (_by(lambda ns, sp, y, a, b: ns.log(a / b) + 1), _by(lambda ns, sp, y, a, b: -_over(ns, a, b))),
    "kl_div": (_by(lambda ns, sp, y, a, b: ns.log(a / b)), _by(lambda ns, sp, y, a, b: 1 - _over(ns, a, b))),
    "huber": (
        _by(lambda ns, sp, y, d, r: ns.where(ns.abs(r) <= d, 0.0, ns.abs(r) - d)),
        _by(lambda ns, sp, y, d, r: ns.where(ns.abs(r) <= d, r, d * ns.sign(r))),
    ),
    "pseudo_huber": (
        _by(_pseudo_huber_delta),
        _by(lambda ns, sp, y, d, r: r / ns.sqrt(1 + (r / d) ** 2)),
    ),
    "boxcox": (
        _by(lambda ns, sp, y, x, lmbda: ns.pow(x, lmbda - 1)),
        _no("boxcox by its parameter lmbda"),
    ),
    "boxcox1p": (
        _by(lambda ns, sp, y, x, lmbda: ns.pow(1 + x, lmbda - 1)),
        _no("boxcox1p by its parameter lmbda"),
    ),
    "inv_boxcox": (
        _by(lambda ns, sp, y, x, lmbda: ns.pow(y, 1 - lmbda)),
        _no("inv_boxcox by its parameter lmbda"),
    ),
    "inv_boxcox1p": (
        _by(lambda ns, sp, y, x, lmbda: ns.pow(1 + y, 1 - lmbda)),
        _no("inv_boxcox1p by its parameter lmbda"),
    ),
    # Γ and its kin
    "gamma": _one(lambda ns, sp, y, x: y * sp.psi(x)),
    "rgamma": _one(_rgamma),
    "gammaln": _one(lambda ns, sp, y, x: sp.psi(x)),
    "loggamma": _one(lambda ns, sp, y, x: sp.psi(x)),
    "psi": _one(_psi),
    "digamma": _one(_psi),
    "zeta": _last("zeta", "x", lambda ns, sp, y, s, q: -s * sp.zeta(s + 1, q)),
    "beta": (
        _by(lambda ns, sp, y, a, b: y * (sp.psi(a) - sp.psi(a + b))),
        _by(lambda ns, sp, y, a, b: y * (sp.psi(b) - sp.psi(a + b))),
    ),
    "betaln": (
        _by(lambda ns, sp, y, a, b: sp.psi(a) - sp.psi(a + b)),
        _by(lambda ns, sp, y, a, b: sp.psi(b) - sp.psi(a + b)),
    ),
    "binom": (
        _by(lambda ns, sp, y, n, k: y * (sp.psi(n + 1) - sp.psi(n - k + 1))),
        _by(lambda ns, sp, y, n, k: y * (sp.psi(n - k + 1) - sp.psi(k + 1))),
    ),
    "poch": (
        _by(lambda ns, sp, y, z, m: y * (sp.psi(z + m) - sp.psi(z))),
        _by(lambda ns, sp, y, z, m: y * sp.psi(z + m)),
    ),
    "gammainc": _last("gammainc", "a", lambda ns, sp, y, a, x: _gamma_density(ns, sp, a, x)),
    "gammaincc": _last("gammaincc", "a", lambda ns, sp, y, a, x: -_gamma_density(ns, sp, a, x)),
    "gammaincinv": _last("gammaincinv", "a", lambda ns, sp, y, a, p: 1 / _gamma_density(ns, sp, a, y)),
    "gammainccinv": _last("gammainccinv", "a", lambda ns, sp, y, a, p: -1 / _gamma_density(ns, sp, a, y)),
    "betainc": _last("betainc", "a b", lambda ns, sp, y, a, b, x: _beta_density(ns, sp, a, b, x)),
    "betaincc": _last("betaincc", "a b", lambda ns, sp, y, a, b, x: -_beta_density(ns, sp, a, b, x)),
    "betaincinv": _last("betaincinv", "a b", lambda ns, sp, y, a, b, p: 1 / _beta_density(ns, sp, a, b, y)),
    "betainccinv": _last("betainccinv", "a b", lambda ns, sp, y, a, b, p: -1 / _beta_density(ns, sp, a, b, y)),
    # Bessel functions
    "i0": _one(lambda ns, sp, y, x: sp.i1(x)),
    "i1": _one(_i1),
    "i0e": _one(lambda ns, sp, y, x: sp.i1e(x) - ns.sign(x) * y),
    "i1e": _one(_i1e),
    "j0": _one(lambda ns, sp, y, x: -sp.j1(x)),
    "j1": (_first("j0", "jv"),),
    "y0": _one(lambda ns, sp, y, x: -sp.y1(x)),
    "y1": (_first("y0", "yv"),),
    "k0": _one(lambda ns, sp, y, x: -sp.k1(x)),
    "k1": _one(lambda ns, sp, y, x: -sp.k0(x) - y / x),
    "k0e": _one(lambda ns, sp, y, x: y - sp.k1e(x)),
    "k1e": _one(lambda ns, sp, y, x: y - sp.k0e(x) - y / x),
    "iv": _order("iv", lambda f, v, x, y: 0.5 * (f(v - 1, x) + f(v + 1, x))),
    "ive": _last("ive", "v", _ive),
    "jv": _order("jv", lambda f, v, x, y: 0.5 * (f(v - 1, x) - f(v + 1, x))),
    "kv": _order("kv", lambda f, v, x, y: -0.5 * (f(v - 1, x) + f(v + 1, x))),
    "kve": _order("kve", lambda f, v, x, y: y - 0.5 * (f(v - 1, x) + f(v + 1, x))),
    "yv": _order("yv", lambda f, v, x, y: 0.5 * (f(v - 1, x) - f(v + 1, x))),
    "hankel1": _order("hankel1", lambda f, v, x, y: 0.5 * (f(v - 1, x) - f(v + 1, x))),
    "hankel2": _order("hankel2", lambda f, v, x, y: 0.5 * (f(v - 1, x) - f(v + 1, x))),
    "kn": _last("kn", "n", lambda ns, sp, y, n, x: -0.5 * (sp.kn(abs(n - 1), x) + sp.kn(n + 1, x))),
    "yn": _last("yn", "n", lambda ns, sp, y, n, x: 0.5 * (sp.yn(n - 1, x) - sp.yn(n + 1, x))),
    # exponential integrals, hypergeometric functions and others
    "expi": _one(lambda ns, sp, y, x: ns.exp(x) / x),
    "exp1": _one(lambda ns, sp, y, x: -ns.exp(-x) / x),
    "expn": _last("expn", "n", _expn),
    "exprel": _one(lambda ns, sp, y, x: 0.5 * sp.hyp1f1(2, 3, x)),
    "hyp0f1": _last("hyp0f1", "v", lambda ns, sp, y, v, z: sp.hyp0f1(v + 1, z) / v),
    "hyp1f1": _last("hyp1f1", "a b", lambda ns, sp, y, a, b, z: a / b * sp.hyp1f1(a + 1, b + 1, z)),
    "hyp2f1": _last("hyp2f1", "a b c", lambda ns, sp, y, a, b, c, z: a * b / c * sp.hyp2f1(a + 1, b + 1, c + 1, z)),
    "hyperu": _last("hyperu", "a b", lambda ns, sp, y, a, b, z: -a * sp.hyperu(a + 1, b + 1, z)),
    "lambertw": (
        _by(lambda ns, sp, y, z, *_: ns.exp(-y) / (1 + y)),
        _no("lambertw by its branch k"),
        _no("lambertw by its tolerance"),
    ),
    "gammasgn": (lambda ns, y, x: None,),
    "round": (lambda ns, y, x: None,),
    "cbrt": _one(lambda ns, sp, y, x: 1 / (3 * y * y)),
    "exp10": _one(lambda ns, sp, y, x: math.log(10) * y),
    "cosm1": _one(lambda ns, sp, y, x: -ns.sin(x)),
    "sindg": _one(lambda ns, sp, y, x: _DEGREE * sp.cosdg(x)),
    "cosdg": _one(lambda ns, sp, y, x: -_DEGREE * sp.sindg(x)),
    "tandg": _one(lambda ns, sp, y, x: _DEGREE * (1 + y * y)),
    "cotdg": _one(lambda ns, sp, y, x: -_DEGREE * (1 + y * y)),
}
