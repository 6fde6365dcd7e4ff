"""For tests that must hold on every backend: fixtures (`nestfold.testing.plugin`) and checks.

Importing this needs neither pytest nor any framework; the plugin needs pytest.
"""

from ._agree import assert_agree as assert_agree
from ._usable import BACKENDS as BACKENDS
from ._usable import CPU_BACKENDS as CPU_BACKENDS
from ._usable import double_precision as double_precision
from ._usable import usable_backend as usable_backend
from ._usable import usable_backends as usable_backends
