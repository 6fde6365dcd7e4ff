"""Which backends the tests of this machine can use, and how to compute in float64 on each of them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

from ..backends import Backend, BackendUnavailableError, available_backends, get_backend

#: Every backend by name, the ones that need a GPU last.
BACKENDS = ("numpy", "array_api_strict", "torch", "jax", "cupy")
#: Those that compute on any machine.
CPU_BACKENDS = BACKENDS[:-1]


def usable_backend(name: str) -> Backend:
    """The backend called `name`, if it can compute on this machine.

    Raises `BackendUnavailableError` with the reason: the framework is not installed, or it is CuPy and there
    is no usable GPU (`import cupy` itself works without one).
    """
    backend = get_backend(name)
    if name == "cupy" and not importlib.import_module("cupy").cuda.is_available():
        raise BackendUnavailableError("backend 'cupy' needs a GPU with a working driver, and there is none")
    return backend


def usable_backends() -> tuple[str, ...]:
    """Names of all backends that can compute on this machine, in the order of `BACKENDS`."""
    return tuple(name for name in BACKENDS if name in available_backends() and _usable(name))


def _usable(name: str) -> bool:
    try:
        usable_backend(name)
    except BackendUnavailableError:
        return False
    return True


@contextlib.contextmanager
def double_precision(name: str) -> Iterator[None]:
    """Within it, float64 arrays stay float64 on the backend called `name`.

    Only JAX needs it, which cuts to 32 bits unless told otherwise. Its flag is set for the block, in `jax.config`:
    the context manager `jax.enable_x64` holds for one thread, and XLA runs callbacks (`External` under `jax.jit`) on
    another, where float64 values would be cut now and then.
    """
    if name != "jax":
        yield
        return
    jax = importlib.import_module("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
