"""Which backend an array belongs to: by its type, cached by type, importing nothing the caller has not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

from . import _generic as generic
from ._base import Backend
from ._errors import BackendMismatchError, BackendUnavailableError
from ._trees import leaves
from .tape import Traced

#: name -> (module that holds the adapter, framework's module, the extra that installs it)
_ADAPTERS = {
    "numpy": ("._numpy", "numpy", None),
    "torch": ("._torch", "torch", "torch"),
    "jax": ("._jax", "jax", "jax"),
    "cupy": ("._cupy", "cupy", "cupy"),
    "array_api_strict": ("._strict", "array_api_strict", "test"),
}
_instances: dict[str, Backend] = {}
_by_type: dict[type, Backend | None] = {}


def get_backend(name: str) -> Backend:
    """The backend called `name`; imports that one framework and no other.

    Raises `BackendUnavailableError`, naming the extra to install, when the framework is missing.
    """
    if name in _instances:
        return _instances[name]
    if name not in _ADAPTERS:
        raise BackendUnavailableError(f"no backend is called {name!r}; there are {', '.join(_ADAPTERS)}")
    adapter, framework, extra = _ADAPTERS[name]
    if importlib.util.find_spec(framework) is None:
        raise BackendUnavailableError(
            f"backend {name!r} needs {framework}, which is not installed: pip install 'nestfold[{extra}]'"
        )
    module = importlib.import_module(adapter, __package__)
    return _instances.setdefault(name, module.make())


def available_backends() -> tuple[str, ...]:
    """Names of the backends whose framework is installed; imports none of them."""
    return tuple(n for n, (_, framework, _) in _ADAPTERS.items() if importlib.util.find_spec(framework))


def _loaded() -> Iterator[Backend]:
    for name, (_, framework, _) in _ADAPTERS.items():
        if framework in sys.modules:
            yield get_backend(name)


def _lookup(leaf: Any) -> Backend | None:
    """The backend of one leaf; None for Python scalars and other things that are no arrays."""
    kind = type(leaf)
    try:
        return _by_type[kind]
    except KeyError:
        pass
    found = next((b for b in _loaded() if b.owns(leaf) or b.is_node(leaf)), None) or generic.make(leaf)
    if found is not None or isinstance(leaf, (int, float, complex, str, bytes, type(None))):
        _by_type[kind] = found
    return found


def backend_of(*trees: Any) -> Backend:
    """The one backend that all arrays in `trees` belong to (Python scalars fit any).

    Raises `BackendMismatchError`, naming the frameworks, when they are of two, and `TypeError` when
    there is no array at all.
    """
    if len(trees) == 1 and (known := _by_type.get(type(trees[0]))) is not None:
        return known
    found = owner(*trees)
    if found is None:
        kinds = sorted({type(leaf).__name__ for tree in trees for leaf in leaves(tree)})
        raise TypeError(
            f"no array of a known framework among {', '.join(kinds) or 'no arguments'}; "
            f"nestfold works on arrays of {', '.join(_ADAPTERS)}"
        )
    return found


def owner(*trees: Any) -> Backend | None:
    """`backend_of`, and None where there is no array at all."""
    found: Backend | None = None
    for tree in trees:
        for leaf in leaves(tree):
            backend = leaf._tape.backend if isinstance(leaf, Traced) else _lookup(leaf)
            if backend is None or backend is found:
                continue
            if found is not None:
                raise BackendMismatchError(
                    f"arrays of two frameworks in one call: {found.name} and {backend.name}; "
                    "convert one of them first (get_backend(name).asarray(get_backend(other).to_numpy(array)))"
                )
            found = backend
    return found


def namespace(*arrays: Any) -> Any:
    """The array API namespace of these arrays; the traced one where one of them is being differentiated on a tape."""
    found = None
    for array in arrays:
        if isinstance(array, Traced):
            return array._tape.ns
        found = found or _by_type.get(type(array))
    return (found or backend_of(*arrays)).xp


def traced(xp: Any) -> Any:
    """An array API namespace over `xp` (NumPy, CuPy, array_api_strict) whose arrays are all wrapped by the tape.

    Its arrays are constants: functions, operators, writes and casts to Python's scalars work as those of `xp`
    do, through the code that runs while a derivative is taken; `grad` and its kin take them like any other.
    Raises `TypeError` for a framework that has an autodiff of its own.
    """
    backend = backend_of(xp.zeros((), dtype=xp.float32, device=None))
    wrapped = getattr(backend, "wrapped_namespace", None)
    if wrapped is None:
        raise TypeError(f"{backend.name} has automatic differentiation of its own, and its arrays are never wrapped")
    return wrapped
