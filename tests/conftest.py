"""Fixtures for all tests: those of nestfold's own pytest plugin."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
from hypothesis import HealthCheck, settings

# The arrays here are small, and pytest runs on several processes: threads of the linear algebra libraries
# would only get in each other's way. Read when NumPy and the frameworks load: set before the plugin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On JAX nearly all the time goes into compiling what then runs once: let XLA optimize less, three to four times faster.
# The flags are those of the tested release; XLA ends the process over one that it does not know.
try:
    if version("jaxlib").startswith("0.10."):
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
except PackageNotFoundError:
    pass

# The same examples in every run; no deadline, for a first call may compile; and the fixtures `backend`, `xp`
# and `like64` have no state that one example could leave behind for the next.
settings.register_profile(
    "nestfold", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("nestfold")

pytest_plugins = ["nestfold.testing.plugin"]


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_end_with_their_file():
    """JAX keeps all it compiled mapped into memory; a process may have 65530 such maps, and then XLA crashes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
