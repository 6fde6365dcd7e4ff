"""Problems of two and more levels, and how these are solved and differentiated."""

from .flattened import Flattened as Flattened
from .problem import Bilevel as Bilevel
from .problem import Nested as Nested
from .settings import PathSum as PathSum
