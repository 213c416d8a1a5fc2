"""What every network is: settings that build a module, which maps two images to a dictionary of tensors."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from warpwise.settings import Settings

Prediction = dict[str, Tensor]
"""What a network returns; images are (B, C, *space), padded inside to whatever it needs.

- displacement (B, D, *space): voxels; always there.
- inverse (B, D, *space): displacement of the inverse map, where the network makes one.
- velocity (B, D, *nodes): whose exponential the displacement is, voxels of its own nodes.
- mean, log_variance (B, D, *nodes): posterior of the velocity, or of the last update.
- labels (B, K, *space): logits of the fixed image's labels.
- fixed_features_N, moving_features_N (B, C, *nodes): features at octave N, every 2^N-th voxel.
- features_have_variance: there where the first half of those channels are means, the second log-variances.
- stiffness: 0-dim, of the finest octave's registration, for what is to be known of its certainty.
"""


class NetworkSettings(Settings, ABC):
    """Settings of a network.

    Attributes:
        uncertainty: also predict a variance of the velocity, and sample from it in training.
        labels: how many labels of the fixed image to predict beside the deformation (background not counted); 0: none.
    """

    uncertainty: bool = False
    labels: int = 0

    @abstractmethod
    def build(self, *, dim: int, channels: int) -> nn.Module:
        """A network for images of this many axes and channels; weights are not set, see `initialise`."""


SMALL = 1e-5  # standard deviation of a head's first weights: training begins at the identity


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw all weights from a generator: He's normal for convolutions, small ones for heads.

    Source: He et al., ICCV 2015.
    """
    from warpwise.networks.heads import Head  # noqa: PLC0415 - heads are built of this module

    heads = {id(part) for module in network.modules() if isinstance(module, Head) for part in module.modules()}
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                if id(module) in heads:
                    module.weight.normal_(0, SMALL, generator=generator)
                elif isinstance(module, nn.Linear):
                    module.weight.normal_(0, 0.02, generator=generator)
                else:
                    nn.init.kaiming_normal_(module.weight, a=0.2, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    return network
