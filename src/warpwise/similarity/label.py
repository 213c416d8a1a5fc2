"""What known labels and known deformations say."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from warpwise.errors import InputError
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class LabelOverlap(Loss):
    """Squared difference of label maps, as channels, over the fixed ones' squares: about 2 − 2·Dice of all labels at once.

    Solvers have a kernel for it, and code many labels in few channels (`similarity.codes`); so does training
    where it is asked to (`data.label_codes`). 0 where no labels are known.
    """

    term: Literal["labels"] = "labels"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        fixed, warped = alignment.fixed_labels, alignment.warped_labels
        if fixed is None or warped is None:
            return alignment.displacement.new_zeros(())
        squares, own = ((fixed - warped) ** 2).flatten(1).sum(1), (fixed**2).flatten(1).sum(1)
        there = own > 0  # a pair whose fixed image shows none of the labels has nothing to say
        # In a window that shows next to nothing of them, the moving image's count, too.
        either = own.maximum(0.5 * (warped**2).flatten(1).sum(1).detach())
        return (squares * there / either.where(there, own.new_ones(()))).sum() / there.sum().clamp(min=1)

    def share(self, codes: NDArray[np.float32]) -> float:
        """Factor of Σ (fixed − moving)² for these fixed codes (K, X, Y, Z), the weight in it."""
        return self.weight / max(float((codes**2).sum(dtype=np.float64)), 1.0)


class SoftDice(Loss):
    """One minus the mean Dice of the labels a pair holds, counted by shares of voxels; 0 where no labels are known.

    Source: Milletari et al., 3DV 2016 (with squares in the denominator).
    """

    term: Literal["dice"] = "dice"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        if alignment.fixed_labels is None or alignment.warped_labels is None:
            return alignment.displacement.new_zeros(())
        fixed, warped = alignment.fixed_labels.flatten(2), alignment.warped_labels.flatten(2)
        both = (fixed * warped).sum(2)
        either = (fixed * fixed).sum(2) + (warped * warped).sum(2)
        there = either > 0
        dice = 2 * both / either.clamp(min=1)
        # A pair without any of the labels counts as matched: it has nothing to say.
        count = there.sum(1)
        of_pair = (dice * there).sum(1) / count.clamp(min=1) + (count == 0)
        return 1 - of_pair.mean()


class Segmentation(Loss):
    """Cross-entropy of a network's labels with the fixed image's; 0 where no labels are known.

    Attributes:
        dice: so much of one minus their mean soft Dice is added, so that small structures count, too.

    Raises:
        InputError: the network predicts none, or not so many.
    """

    term: Literal["segmentation"] = "segmentation"
    dice: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def __call__(self, alignment: "Alignment") -> "Tensor":
        if alignment.fixed_labels is None:
            return alignment.displacement.new_zeros(())
        logits = None if alignment.prediction is None else alignment.prediction.labels
        count = alignment.fixed_labels.shape[1]
        if logits is None or logits.shape[1] != count + 1:
            have = 0 if logits is None else logits.shape[1] - 1
            raise InputError(
                f"The term 'segmentation' meets {count} labels, the network predicts {have}.",
                hint=f"Set labels: {count} in the network's options.",
            )
        found, theirs = logits.float().flatten(2).log_softmax(1), alignment.fixed_labels.flatten(2)
        rest = (1 - theirs.sum(1)).clamp(min=0)
        voxels = len(theirs) * theirs.shape[2]
        entropy = -(shared(theirs, found[:, 1:]).sum() + (rest * found[:, 0]).sum()) / voxels
        if not self.dice:
            return entropy
        mine = found[:, 1:].exp()
        there = theirs.sum(2) > 0
        overlap = 2 * shared(mine, theirs) / (shared(mine, mine) + shared(theirs, theirs)).clamp(min=1)
        return entropy + self.dice * (1 - (overlap * there).sum() / there.sum().clamp(min=1))


def shared(one: "Tensor", other: "Tensor") -> "Tensor":
    """Sum over voxels of the products of two (B, K, N), without a tensor of products; (B, K)."""
    return (one.unsqueeze(2) @ other.unsqueeze(3))[..., 0, 0]


class EndpointError(Loss):
    """Mean distance between the displacement and the true one, voxels, of each pair by weight; 0 where none is known."""

    term: Literal["endpoint"] = "endpoint"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        if alignment.truth is None:
            return alignment.displacement.new_zeros(())
        squared = ((alignment.displacement - alignment.truth) ** 2).sum(1, keepdim=True)
        distance = (squared + 1e-6).sqrt()
        if alignment.mask is None:
            return distance.mean()
        weight = alignment.mask.expand_as(distance).flatten(1)
        return ((distance.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
