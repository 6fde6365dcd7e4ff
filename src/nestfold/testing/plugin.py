"""A pytest plugin: run a test on every backend.

Switch it on in the `conftest.py` at the top of your tests (there is no entry point, so that it is never
loaded into the test runs of those who did not ask for it)::

    pytest_plugins = ["nestfold.testing.plugin"]

Then a test that takes `backend` runs once on each backend, and `pytest --backends=numpy,torch` picks them::

    def test_projection(backend, xp, like64, rng):
        x = backend.noise(rng, (5,), like=like64)
        ...

The choice is among numpy, array_api_strict, torch, jax and cupy; without the option, all that are installed
and need no GPU. A backend that was asked for and cannot compute here gives a skip that says why. On JAX the
test runs with `jax_enable_x64` switched on, so that float64 means float64 everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ..backends import Backend, BackendUnavailableError, available_backends
from ._usable import BACKENDS, CPU_BACKENDS, double_precision, usable_backend
from .cases import CASES, Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backends`."""
    parser.getgroup("nestfold").addoption(
        "--backends",
        metavar="NAMES",
        help=f"comma-separated backends, of {', '.join(BACKENDS)} (default: all installed but cupy)",
    )


def _chosen(config: pytest.Config) -> tuple[str, ...]:
    option = config.getoption("--backends")
    if option is None:
        return tuple(name for name in CPU_BACKENDS if name in available_backends())
    names = tuple(name.strip() for name in option.split(",") if name.strip())
    unknown = [name for name in names if name not in BACKENDS]
    if unknown or not names:
        raise pytest.UsageError(f"--backends={option}: choose among {', '.join(BACKENDS)}")
    return names


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a misspelt `--backends` at once."""
    _chosen(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that take `backend` on each chosen one, unless the test chooses them itself."""
    if "backend" not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if "backend" in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return
    metafunc.parametrize("backend", _chosen(metafunc.config), indirect=True)


@pytest.fixture(params=CASES)
def manifold_case(request: pytest.FixtureRequest) -> Case:
    """A manifold with what its laws need to be told; runs over all of them."""
    return CASES[request.param]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The backend that the test runs on; a test may choose its own by `parametrize(..., indirect=True)`."""
    name = request.param
    try:
        found = usable_backend(name)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with double_precision(name):
        yield found


@pytest.fixture
def xp(backend: Backend) -> Any:
    """The array API namespace of `backend`."""
    return backend.xp


@pytest.fixture
def like64(backend: Backend) -> Any:
    """A float64 array of `backend` of no axes, to be passed as `like=`."""
    return backend.asarray(np.zeros((), dtype=np.float64))


@pytest.fixture
def like32(backend: Backend) -> Any:
    """A float32 array of `backend` of no axes, to be passed as `like=`."""
    return backend.asarray(np.zeros((), dtype=np.float32))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's file and name: the same numbers in every run and on every backend."""
    name = f"{request.path.name}::{getattr(request.node, 'originalname', None) or request.node.name}"
    return np.random.default_rng(zlib.crc32(name.encode()))
