"""What known labels and known deformations say: terms for training."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from warpwise.errors import InputError
from warpwise.state import State


@dataclass(frozen=True)
class SoftDice:
    """One minus the mean Dice of the labels a pair holds, counted by shares of voxels; 0 where no labels are known.

    Source: Milletari et al., 3DV 2016 (with squares in the denominator).
    """

    def __call__(self, state: State) -> Tensor:
        """0-dim tensor."""
        if state.fixed_labels is None or state.warped_labels is None:
            return state.displacement.new_zeros(())
        fixed, warped = state.fixed_labels.flatten(2), state.warped_labels.flatten(2)
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

    def __call__(self, state: State) -> Tensor:
        """0-dim tensor, nats."""
        if state.fixed_labels is None:
            return state.displacement.new_zeros(())
        logits = state.prediction.get("labels")
        count = state.fixed_labels.shape[1]
        if logits is None or logits.shape[1] != count + 1:
            have = 0 if logits is None else logits.shape[1] - 1
            raise InputError(
                f"The term 'segmentation' meets {count} labels, the network predicts {have}.",
                hint=f"Set labels: {count} in the network's options.",
            )
        background = (1 - state.fixed_labels.sum(1, keepdim=True)).clamp(min=0)
        shares = F.pad(state.fixed_labels, [0, 0] * (logits.dim() - 2) + [1, 0])
        shares = shares + F.pad(background, [0, 0] * (logits.dim() - 2) + [0, count])
        return -(shares * logits.log_softmax(1)).sum(1).mean()


@dataclass(frozen=True)
class EndpointError:
    """Mean distance between the displacement and the true one, voxels, of each pair by weight; 0 where none is known."""

    def __call__(self, state: State) -> Tensor:
        """0-dim tensor."""
        if state.truth is None:
            return state.displacement.new_zeros(())
        squared = ((state.displacement - state.truth) ** 2).sum(1, keepdim=True)
        distance = (squared + 1e-6).sqrt()
        if state.weight is None:
            return distance.mean()
        weight = state.weight.expand_as(distance).flatten(1)
        return ((distance.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1)).mean()
