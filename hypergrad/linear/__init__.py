"""Linear solvers."""

from ._base import LinearSolver as LinearSolver
from ._base import System as System
from .bicgstab import BiCGStab as BiCGStab
from .cg import CG as CG
from .chebyshev import Chebyshev as Chebyshev
from .default import default_linear as default_linear
from .dense import Dense as Dense
from .gmres import GMRES as GMRES
from .identity import Identity as Identity
from .minres import MINRES as MINRES
from .neumann import Neumann as Neumann
from .neumann_gmres import NeumannGMRES as NeumannGMRES
from .normal_cg import NormalCG as NormalCG
from .nystrom import Nystrom as Nystrom
from .preconditioned import Preconditioned as Preconditioned
from .preconditioned import Preconditioner as Preconditioner
