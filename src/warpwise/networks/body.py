"""What every network is before heads are added: a module that moves one image onto another."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from warpwise.prediction import Prediction


class Body(nn.Module, ABC):
    """A network without heads.

    Attributes:
        width: channels of the features that it hands to heads.
        octave: where these lie, at every 2^octave-th voxel.
    """

    width: int
    octave: int

    @abstractmethod
    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        """How images (B, C, *space) of any size move, and features of the fixed one for heads: (B, width, *nodes).

        A generator draws what is uncertain from its posterior; without one the mean is taken.
        """

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """How images move."""
        return self.motion(fixed, moving, generator)[0]
