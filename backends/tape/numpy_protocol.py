"""NumPy's own functions and methods on traced arrays: `np.exp(y)`, `np.linalg.inv(y)`, `y.T.dot(a)`.

NumPy hands such a call over through `__array_ufunc__` and `__array_function__`. Here it is translated to the
traced namespace: most names are the standard's, some have another name, some another signature (those are in
`numpy_functions.py`).
"""

from __future__ import annotations

from typing import Any

from .numpy_functions import LINALG, OWN
from .refusals import no_rule, refuse

#: NumPy's name -> the standard's
_RENAMED = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh",
    "arctan": "atan", "arctan2": "atan2", "arctanh": "atanh", "around": "round", "conjugate": "conj",
    "float_power": "pow", "invert": "bitwise_invert", "left_shift": "bitwise_left_shift", "mod": "remainder",
    "power": "pow", "right_shift": "bitwise_right_shift", "true_divide": "divide",
}  # fmt: skip
_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}

#: The methods of NumPy's arrays that a traced array has.
METHODS = frozenset(
    "all any argmax argmin argsort astype clip conj conjugate copy cumprod cumsum diagonal dot flatten max "
    "mean min nonzero prod ravel repeat reshape round squeeze std sum swapaxes take trace transpose "
    "var".split()
)


def array_ufunc(ns: Any, ufunc: Any, method: str, inputs: tuple, out: Any = None, **keywords: Any) -> Any:
    """A universal function of NumPy met a traced array."""
    name = ufunc.__name__
    if out is not None:
        refuse(f"np.{name} into a plain array (out= or `a += b`)", "write `a = a + b`")
    if method == "reduce" and name in _REDUCTIONS:
        keywords.setdefault("axis", 0)
        return call(_REDUCTIONS[name], ns, *inputs, **keywords)
    if method != "__call__" or keywords:
        how = f".{method}" if method != "__call__" else f" with {', '.join(keywords)}"
        raise no_rule(f"np.{name}{how}")
    return call(name, ns, *inputs)


def array_function(ns: Any, function: Any, args: tuple, keywords: dict) -> Any:
    """Another function of NumPy met a traced array."""
    module, name = getattr(function, "__module__", None) or "numpy", function.__name__
    if module.startswith("numpy.linalg"):
        own = LINALG.get(name)
        return own(ns, *args, **keywords) if own is not None else _found(ns.linalg, name)(*args, **keywords)
    if module == "numpy":
        return call(name, ns, *args, **keywords)
    raise no_rule(f"{module}.{name}")


def call(name: str, ns: Any, *args: Any, **keywords: Any) -> Any:
    """NumPy's function `name` on traced arrays."""
    own = OWN.get(name)
    if own is not None:
        return own(ns, *args, **keywords)
    return _found(ns, _RENAMED.get(name, name))(*args, **keywords)


def _found(space: Any, name: str) -> Any:
    try:
        return getattr(space, name)
    except AttributeError:
        raise no_rule(f"{space.__name__}.{name}") from None
