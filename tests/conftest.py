"""Fixtures for all tests: those of nestfold's own pytest plugin."""

import os

from hypothesis import HealthCheck, settings

# The arrays here are small, and pytest runs on several processes: threads of the linear algebra libraries
# would only get in each other's way. Read when NumPy and the frameworks load: set before the plugin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run; no deadline, for a first call may compile; and the fixtures `backend`, `xp`
# and `like64` have no state that one example could leave behind for the next.
settings.register_profile(
    "nestfold", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("nestfold")

pytest_plugins = ["nestfold.testing.plugin"]
