"""The named errors and warnings of nestfold: each message says what was wrong and what to do."""


class BackendMismatchError(TypeError):
    """Arrays of two frameworks, or of two devices, met in one call."""


class BackendUnavailableError(ImportError):
    """A framework was asked for by name and is not installed, or cannot compute here."""


class DTypeError(TypeError):
    """An array has a dtype in which nothing can be differentiated (integers, booleans)."""


class ShapeError(ValueError):
    """An array's shape does not fit the manifold, the cost or its partner."""


class NotOnManifoldError(ValueError):
    """A point is not on its manifold, or not finite."""


class NotTangentError(ValueError):
    """A vector is not tangent to its manifold, or a covector is not that of an invariant cost."""


class CutLocusError(ValueError):
    """Two points have no shortest geodesic between them that is known to be the only one."""


class NoDerivativeError(TypeError):
    """A derivative would flow through a function that has no derivative rule."""


class MappedArrayError(TypeError):
    """An array that stands for many, or for none yet, has no value by which a loop could end."""


class ConvergenceWarning(UserWarning):
    """A solver stopped before its tolerance; `Solution.converged` tells the same as data."""


class IndependentSolutionWarning(UserWarning):
    """An answer does not depend on what it is differentiated by, so that its implicit derivative is 0."""
