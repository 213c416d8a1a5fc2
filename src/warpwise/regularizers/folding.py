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
    """Mean of |φ⁻¹(φ(x)) − x|², voxels², for a network that predicts both maps, or the velocity of both; 0 for others.

    With a velocity, over its own nodes, where φ⁻¹ = exp(−v): between them both maps are interpolated alike.
    """

    term: Literal["inverse-consistency"] = "inverse-consistency"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise.prediction import at_octave, octave_of  # noqa: PLC0415 - settings are read without torch

        prediction, displacement = alignment.prediction, alignment.displacement
        if prediction is not None and prediction.inverse is not None:
            return (ops.compose(prediction.inverse, displacement) ** 2).sum(1).mean()
        if prediction is None or prediction.velocity is None:
            return displacement.new_zeros(())
        velocity = prediction.velocity
        octave = octave_of(max(velocity.shape[2:]), max(displacement.shape[2:]))
        there, back = at_octave(displacement, octave), ops.exponential(-velocity)
        return 4**octave * (ops.compose(back, there) ** 2).sum(1).mean()
