"""What known labels and known deformations say: terms for training."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from warpwise.alignment import Alignment
from warpwise.errors import InputError


@dataclass(frozen=True)
class SoftDice:
    """One minus the mean Dice of the labels a pair holds, counted by shares of voxels; 0 where no labels are known.

    Source: Milletari et al., 3DV 2016 (with squares in the denominator).
    """

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor."""
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


@dataclass(frozen=True)
class Segmentation:
    """Cross-entropy of a network's labels with the fixed image's; 0 where no labels are known.

    Raises:
        InputError: the network predicts none, or not so many.
    """

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor, nats."""
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
        background = (1 - alignment.fixed_labels.sum(1, keepdim=True)).clamp(min=0)
        shares = F.pad(alignment.fixed_labels, [0, 0] * (logits.dim() - 2) + [1, 0])
        shares = shares + F.pad(background, [0, 0] * (logits.dim() - 2) + [0, count])
        return -(shares * logits.log_softmax(1)).sum(1).mean()


@dataclass(frozen=True)
class EndpointError:
    """Mean distance between the displacement and the true one, voxels, of each pair by weight; 0 where none is known."""

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor."""
        if alignment.truth is None:
            return alignment.displacement.new_zeros(())
        squared = ((alignment.displacement - alignment.truth) ** 2).sum(1, keepdim=True)
        distance = (squared + 1e-6).sqrt()
        if alignment.mask is None:
            return distance.mean()
        weight = alignment.mask.expand_as(distance).flatten(1)
        return ((distance.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
