"""The errors of the tape: what cannot be differentiated, and what to do instead."""

from __future__ import annotations

import sys
from typing import NoReturn

from .._errors import NoDerivativeError


def leaked(name: str) -> NoDerivativeError:
    """The error for a traced array that outlived its derivative."""
    return NoDerivativeError(
        f"{name} met an array that was being differentiated by a call of grad, vjp or linearize which has "
        "returned: do not keep such arrays in globals, attributes or lists; return them from the function"
    )


def no_rule(name: str) -> NoDerivativeError:
    """The error for a function that has no derivative rule."""
    return NoDerivativeError(
        f"{name} has no derivative rule, and one of its arguments is being differentiated; write it with "
        "other functions, give it a rule with custom_derivative, or cut it off with stop_gradient"
    )


def refuse(what: str, advice: str) -> NoReturn:
    """Raise `NoDerivativeError` for something that a traced array cannot do."""
    raise NoDerivativeError(f"{what} of an array that is being differentiated: {advice}")


def outside_caller() -> str:
    """` in module.function`, the public function of another library that asked for the conversion."""
    frame, names = sys._getframe(2), []
    while frame is not None and len(names) < 20:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("numpy", "nestfold", "array_api_compat"):
            names.append((module, frame.f_code.co_name))
        frame = frame.f_back
    if not names:
        return ""
    library = names[0][0].partition(".")[0]
    inside = [n for n in _leading(names, library) if not n[1].startswith(("_", "<"))] or names[:1]
    module, name = inside[-1]
    return f" in {module}.{name}"


#: What to write instead of functions that SciPy writes in Python and that insist on plain arrays.
_INSTEAD = {
    "logsumexp": "np.logaddexp.reduce(y, axis=...)",
    "log_softmax": "y - np.logaddexp.reduce(y, axis=..., keepdims=True)",
    "softmax": "np.exp(y - np.logaddexp.reduce(y, axis=..., keepdims=True))",
    "polygamma": "scipy.special.psi(y), and (-1)**(n + 1) * math.factorial(n) * scipy.special.zeta(n + 1, y) for n > 0",
    "multigammaln": "a sum of scipy.special.gammaln",
    "comb": "scipy.special.binom",
}


def instead_of(caller: str) -> str:
    """What to write instead of this function; empty where nobody knows."""
    library, _, name = caller.strip().removeprefix("in ").rpartition(".")
    return f"write {_INSTEAD[name]}" if "scipy.special" in library and name in _INSTEAD else ""


def _leading(names: list[tuple[str, str]], library: str) -> list[tuple[str, str]]:
    kept = []
    for module, name in names:
        if module.partition(".")[0] != library:
            break
        kept.append((module, name))
    return kept
