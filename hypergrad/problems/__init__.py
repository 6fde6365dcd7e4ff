"""Ready-made nested problems with exact answers: for tests, examples, benchmarks and the command line."""

from .fixed_point import TanhFixedPoint as TanhFixedPoint
from .fixed_point import tanh_fixed_point as tanh_fixed_point
from .logistic import Logistic as Logistic
from .logistic import logistic as logistic
from .principal_subspace import PrincipalSubspace as PrincipalSubspace
from .principal_subspace import principal_subspace as principal_subspace
from .ridge import Ridge as Ridge
from .ridge import ridge as ridge
from .sphere import SmallestEigenvector as SmallestEigenvector
from .sphere import smallest_eigenvector as smallest_eigenvector
from .stackelberg import Stackelberg as Stackelberg
from .stackelberg import stackelberg as stackelberg
from .synthetic import Synthetic as Synthetic
from .synthetic import synthetic as synthetic
from .transport import EntropicTransport as EntropicTransport
from .transport import entropic_transport as entropic_transport
from .trilevel import ManifoldTrilevel as ManifoldTrilevel
from .trilevel import QuarticTrilevel as QuarticTrilevel
from .trilevel import manifold_trilevel as manifold_trilevel
from .trilevel import quartic_trilevel as quartic_trilevel
