"""`nestfold info`: what is installed, what can compute here, and why not where it cannot."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from importlib import metadata
from typing import Any

from ._cli_output import STANDARD_OUTPUT, facts, table, write_json
from ._version import __version__
from .backends import Backend, BackendUnavailableError, available_backends
from .testing import BACKENDS, usable_backend

#: The distributions whose versions are told besides the frameworks'.
REQUIRED = ("numpy", "array-api-compat", "optree", "tqdm")


def info(options: argparse.Namespace) -> int:
    """Carry out `nestfold info`."""
    told = {
        "nestfold": __version__,
        "python": platform.python_version(),
        "required": {name: _version(name) for name in REQUIRED},
        "backends": [describe(name) for name in BACKENDS],
    }
    if options.json:
        write_json(STANDARD_OUTPUT, told)
    else:
        print(_text(told))
    return 0


def describe(name: str) -> dict[str, Any]:
    """One backend: `name, installed, version, usable, devices, reason` (why it is not usable, else None)."""
    told = {"name": name, "installed": name in available_backends(), "version": None}
    try:
        backend = usable_backend(name)
        told |= {"usable": True, "devices": sorted(devices(backend)), "reason": None}
    except Exception as error:  # a broken framework may raise anything when it is imported
        reason = str(error) if isinstance(error, BackendUnavailableError) else f"{type(error).__name__}: {error}"
        told |= {"usable": False, "devices": [], "reason": " ".join(reason.split())}
    if name in sys.modules:
        told["version"] = getattr(sys.modules[name], "__version__", None)
    return told


def devices(backend: Backend) -> dict[str, Any]:
    """The devices of a backend that can compute here, by the names that `--device` takes."""
    framework = importlib.import_module(backend.name)
    if backend.name == "torch":
        cuda = [f"cuda:{i}" for i in range(framework.cuda.device_count())] if framework.cuda.is_available() else []
        names = ["cpu", *cuda, *(["mps"] if framework.backends.mps.is_available() else [])]
        return {name: framework.device(name) for name in names}
    if backend.name == "jax":
        found = [*framework.devices("cpu"), *framework.devices()]
        return {f"{device.platform}:{device.id}": device for device in found}
    if backend.name == "cupy":
        return {f"cuda:{i}": framework.cuda.Device(i) for i in range(framework.cuda.runtime.getDeviceCount())}
    return {"cpu": backend.device(framework.zeros(1))}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _text(told: dict[str, Any]) -> str:
    first = facts([("nestfold", told["nestfold"]), ("Python", told["python"])], indent="")
    required = facts([(name, version or "not installed") for name, version in told["required"].items()])
    rows = [("backend", "version", "usable", "devices")]
    for backend in told["backends"]:
        usable = "yes" if backend["usable"] else "no"
        rows.append((backend["name"], backend["version"] or "-", usable, ", ".join(backend["devices"]) or "-"))
    reasons = [f"  {b['name']}: {b['reason']}" for b in told["backends"] if not b["usable"]]
    parts = [first, "", "required", required, "", "backends", table(rows)]
    return "\n".join(parts + (["", "not usable here", *reasons] if reasons else []))
