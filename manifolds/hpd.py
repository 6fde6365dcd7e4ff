"""Hermitian positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

from typing import final

from .spd import AllPositiveDefinite


@final
class HPD(AllPositiveDefinite):
    """Hermitian positive definite n × n matrices with ⟨u, v⟩ₓ = tr(x⁻¹u x⁻¹v). Bhatia 2007, ch. 6.

    x, u, w : (..., n, n), complex. ᵀ in the formulas stands for the conjugate transpose.
    """

    @property
    def dim(self) -> int:
        return self.n**2
