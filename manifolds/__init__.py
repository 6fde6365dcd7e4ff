"""Geometry: pure functions of arrays. One manifold per file."""

from ._base import Congruence as Congruence
from ._base import Curvature as Curvature
from ._base import Exponential as Exponential
from ._base import Geodesic as Geodesic
from ._base import InverseRetraction as InverseRetraction
from ._base import Logarithmic as Logarithmic
from ._base import Manifold as Manifold
from ._base import Quotient as Quotient
from ._connection import derived_connection as derived_connection
from .euclidean import Euclidean as Euclidean
from .product import Product as Product
from .spd import SPD as SPD
from .sphere import Sphere as Sphere
from .stiefel import Stiefel as Stiefel
from .stiefel import cayley as cayley
from .stiefel import polar as polar
from .stiefel import qr as qr
