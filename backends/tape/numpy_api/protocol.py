"""NumPy's own functions and methods on traced arrays: `np.exp(y)`, `np.linalg.inv(y)`, `y.T.dot(a)`.

NumPy hands such a call over through `__array_ufunc__` and `__array_function__`. Here it is translated to the
traced namespace: most names are the standard's, some have another name (`ufuncs.py`), some another signature
(`functions.py` and the files that it names). A function that is in none of these is refused by name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..array import is_moving
from ..refusals import no_rule, refuse
from ..rules import elementwise, fourier
from . import ufuncs
from .functions import LINALG, OWN, in_scimath
from .ufuncs import RENAMED, as_array, cast, plain

#: The methods of NumPy's arrays that a traced array has.
METHODS = frozenset(
    "all any argmax argmin argpartition argsort astype choose clip compress conj conjugate copy cumprod cumsum "
    "diagonal dot flatten max mean min nonzero prod ravel repeat reshape round searchsorted squeeze std sum "
    "swapaxes take trace transpose var".split()
)
#: What would write into an array, and what to do instead.
IN_PLACE = {
    "copyto": "use np.where(mask, values, y)",
    "fill": "use np.full_like",
    "fill_diagonal": "use np.where(np.eye(n, dtype=bool), value, y)",
    "itemset": "use np.where",
    "partition": "use np.partition(y, kth)",
    "place": "use np.where(mask, values, y)",
    "put": "use np.where, or concatenate what stays and what is new",
    "put_along_axis": "use np.where",
    "putmask": "use np.where(mask, values, y)",
    "resize": "use np.resize(y, shape)",
    "sort": "use np.sort(y)",
}
_LEAVING = {name: "take stop_gradient of it first" for name in ("item", "tobytes", "tofile", "tolist")}
_FILES = frozenset("save savetxt savez savez_compressed".split())
#: Functions with derivative zero besides those of the standard.
ZERO = ufuncs.ZERO | frozenset(
    "array2string array_repr array_str common_type diag_indices_from einsum_path in1d min_scalar_type nanargmax "
    "nanargmin ravel_multi_index tril_indices_from triu_indices_from unravel_index".split()
)


# -- universal functions ---------------------------------------------------------------------------
def array_ufunc(ns: Any, ufunc: Any, method: str, inputs: tuple, out: Any = None, **keywords: Any) -> Any:
    """A universal function of NumPy, or of SciPy or CuPy, met a traced array."""
    for v in inputs:
        if type(v) is list or type(v) is tuple:
            inputs = tuple([as_array(ns, v) for v in inputs])
            break
    if method == "__call__" and out is None and not keywords:
        return _found_ufunc(ns, ufunc)(*inputs)
    name = ufunc.__name__
    if method == "at":
        refuse(f"np.{name}.at", "it writes into its first argument; add what np.bincount(places, weights) makes")
    if out is not None and any(v is not None for v in (out if isinstance(out, tuple) else (out,))):
        refuse(f"np.{name} into a plain array (out= or `a += b`)", "write `a = a + b`")
    constant = name in elementwise.CONSTANT or RENAMED.get(name, name) in elementwise.CONSTANT or name in ZERO
    if constant and name not in ufuncs.OWN:
        return getattr(ufunc, method)(*plain(inputs), **plain(keywords))
    if method == "__call__":
        return _with_keywords(ns, ufunc, inputs, keywords)
    return _METHODS[method](ns, ufunc, *inputs, **keywords)


@functools.lru_cache(maxsize=1024)
def _found_ufunc(ns: Any, ufunc: Any) -> Callable[..., Any]:
    if ufunc.__name__ in ZERO:
        return lambda *args: ufunc(*plain(args))
    return ufuncs.found(ns, ufunc)


def _with_keywords(ns: Any, ufunc: Any, inputs: tuple, keywords: dict[str, Any]) -> Any:
    """A call with `dtype` or, for products of vectors, `axis`; how to cast and to store is ours to choose."""
    dtype, axis = keywords.pop("dtype", None), keywords.pop("axis", None)
    given = {key for key in keywords if key not in ("casting", "order", "subok")}
    if keywords.get("where") is True:
        given.discard("where")
    if given or (axis not in (None, -1) and ufunc.__name__ != "vecdot"):
        raise no_rule(f"np.{ufunc.__name__} with {', '.join(sorted(given)) or 'axis'} (np.where chooses entries)")
    options = {} if axis is None or ufunc.__name__ != "vecdot" else {"axis": axis}
    return _found_ufunc(ns, ufunc)(*(cast(ns, v, dtype) for v in inputs), **options)


def _reduce(ns: Any, ufunc: Any, x: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False,
            initial: Any = None, where: Any = True) -> Any:  # fmt: skip
    name = ufunc.__name__
    reductions = {
        "add": "sum",
        "multiply": "prod",
        "maximum": "max",
        "minimum": "min",
        "fmax": "nanmax",
        "fmin": "nanmin",
    }
    if name in reductions:
        keywords = {"keepdims": keepdims, "where": where} | ({} if initial is None else {"initial": initial})
        return OWN[reductions[name]](ns, cast(ns, x, dtype), axis, **keywords)
    if name == "logaddexp":
        return ufuncs.log_sum(ns, cast(ns, x, dtype), axis, keepdims, initial, where)
    if where is not True or not isinstance(axis, int):
        raise no_rule(f"np.{name}.reduce with where, or over several axes")
    y = ufuncs.fold(ns, _found_ufunc(ns, ufunc), cast(ns, x, dtype), axis, initial)[-1]
    return ns.expand_dims(y, axis=axis) if keepdims else y


def _accumulate(ns: Any, ufunc: Any, x: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    return ufuncs.accumulate(ns, ufunc.__name__, _found_ufunc(ns, ufunc), cast(ns, x, dtype), axis)


def _reduceat(ns: Any, ufunc: Any, x: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    return ufuncs.reduceat(ns, _found_ufunc(ns, ufunc), cast(ns, x, dtype), indices, axis)


def _outer(ns: Any, ufunc: Any, a: Any, b: Any, dtype: Any = None, **_: Any) -> Any:
    return ufuncs.outer(ns, _found_ufunc(ns, ufunc), cast(ns, a, dtype), cast(ns, b, dtype))


_METHODS = {"accumulate": _accumulate, "outer": _outer, "reduce": _reduce, "reduceat": _reduceat}


# -- functions -------------------------------------------------------------------------------------
def array_function(ns: Any, function: Any, args: tuple, keywords: dict) -> Any:
    """Another function of NumPy met a traced array."""
    if not args:  # NumPy's name of the first argument is not always ours
        with contextlib.suppress(ValueError):  # older versions of NumPy do not tell the signatures of all
            first = next(iter(inspect.signature(function).parameters))
            args = (keywords.pop(first),) if first in keywords else ()
    return _translated(ns, function)(*args, **keywords)


def call(name: str, ns: Any, *args: Any, **keywords: Any) -> Any:
    """NumPy's function `name` on traced arrays."""
    return _named(ns, name)(*args, **keywords)


# What a function of NumPy is on traced arrays is looked up once.
@functools.lru_cache(maxsize=1024)
def _translated(ns: Any, function: Any) -> Callable[..., Any]:
    module, name = getattr(function, "__module__", None) or "numpy", function.__name__
    if name in elementwise.CONSTANT or name in ZERO:
        return lambda *args, **keywords: function(*plain(args), **plain(keywords))
    if module.startswith("numpy.linalg"):
        own = LINALG.get(name)
        found = functools.partial(own, ns) if own is not None else _found(ns.linalg, name, "np.linalg")
        return _of_two(ns, found) if name in _OF_TWO else found
    if module.startswith("numpy.fft"):
        return functools.partial(fourier.numpy_fft, ns, name)
    if module.startswith("numpy.lib") and "scimath" in module:
        return lambda *args: in_scimath(ns, function, args)
    if name == "sliding_window_view":
        return lambda x, *args, **keywords: ns.gather(x, pick=lambda a: function(a, *args, **keywords))
    if module == "numpy":
        return _named(ns, name)
    raise no_rule(f"{module}.{name}")


@functools.lru_cache(maxsize=1024)
def _named(ns: Any, name: str) -> Callable[..., Any]:
    own = OWN.get(name)
    if own is not None:
        return functools.partial(own, ns)
    if name in IN_PLACE or name in _FILES:
        return lambda *args, **keywords: refuse(f"np.{name}", IN_PLACE.get(name, "take stop_gradient of it first"))
    return _found(ns, RENAMED.get(name, name), "np")


#: Functions of `np.linalg` of two arrays, of which one may be a list.
_OF_TWO = frozenset("cross lstsq matmul outer solve tensordot tensorsolve vecdot".split())


def _of_two(ns: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b, *args, **keywords: function(as_array(ns, a), as_array(ns, b), *args, **keywords)


def _found(space: Any, name: str, prefix: str) -> Any:
    try:
        return getattr(space, name)
    except AttributeError:
        raise no_rule(f"{prefix}.{name}") from None


# -- methods ---------------------------------------------------------------------------------------
def method(ns: Any, array: Any, name: str) -> Callable[..., Any]:
    """The method `name` of NumPy's arrays, of this traced array; raises `AttributeError` where it has none."""
    if name == "compress":
        return lambda condition, axis=None, out=None: call(name, ns, condition, array, axis)
    if name in METHODS:
        return functools.partial(call, name, ns, array)
    if name in _LEAVING:
        return lambda *_: _leave(array, name)
    advice = f"; {IN_PLACE[name]}, which writes nowhere" if name in IN_PLACE else ""
    raise AttributeError(f"an array that is being differentiated has no attribute {name!r}{advice}")


def _leave(array: Any, name: str) -> Any:
    if is_moving(array):
        refuse(f"{name}()", _LEAVING[name])
    return getattr(plain(array), name)()
