"""Terms against folds, and against maps that do not undo each other."""

from typing import TYPE_CHECKING, Literal

from warpwise import ops
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class Folding(Loss):
    """Mean over cells of how far the ten digital determinants (four in 2-D) fall below `floor`.

    Source: the penalty Σ max(0, −det J) on the determinants of Liu et al., IJCV 2024.
    """

    term: Literal["folding"] = "folding"
    floor: float = 0.0

    def __call__(self, alignment: "Alignment") -> "Tensor":
        return (self.floor - ops.digital_determinants(alignment.displacement)).clamp(min=0).sum(1).mean()


class InverseConsistency(Loss):
    """Mean of |φ⁻¹(φ(x)) − x|², voxels², for a network that predicts both maps; 0 for others."""

    term: Literal["inverse-consistency"] = "inverse-consistency"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        back = alignment.prediction.get("inverse")
        if back is None:
            return alignment.displacement.new_zeros(())
        return (ops.compose(back, alignment.displacement) ** 2).sum(1).mean()
