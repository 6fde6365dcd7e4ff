"""A namespace whose arrays are all wrapped: traced arrays that nobody differentiates.

Every function runs the code that runs while a derivative is taken, on the constants of a tape that records
nothing. So a test suite for array API namespaces, which knows nothing of derivatives, can be pointed at the tape.
"""

from __future__ import annotations

import functools
from typing import Any

from .array import Traced
from .core import Constants
from .namespace import TracedNamespace


class WrappedNamespace(TracedNamespace):
    """The traced namespace of one backend, giving wrapped arrays only; it takes wrapped and plain ones."""

    def __init__(self, backend: Any):
        self.constants = Constants(backend, self)
        super().__init__(backend)

    def wrap(self, value: Any) -> Any:
        """`value`, if it is an array or a tuple or list of arrays, wrapped."""
        if isinstance(value, Traced):
            return value
        if self.backend.owns(value):
            return self.constants.record(value, (), ())
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self.wrap, value))
        return type(value)(map(self.wrap, value)) if type(value) in (list, tuple) else value

    def present(self, function: Any, own: Any) -> Any:
        """`function`, with what it returns wrapped, under the name and signature of the plain one."""
        if not callable(function) or isinstance(function, type):
            return function

        def call(*args: Any, **keywords: Any) -> Any:
            return self.wrap(function(*args, **keywords))

        return call if own is None else functools.update_wrapper(call, own)
