"""What every network is: settings that build a module, which maps two images to a `Prediction`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from warpwise.networks.body import Body
from warpwise.networks.heads import Head, LabelHead, WithHeads
from warpwise.prediction import Prediction
from warpwise.settings import Settings


class NetworkSettings(Settings, ABC):
    """Settings of a network.

    Attributes:
        kind: the network's name; each narrows it to its own.
        finest: octave on whose nodes the last update lies: 0 every voxel, 1 every second one.
        fluid: σ, nodes, of a Gaussian that smooths every update before it is applied (in a cascade: the velocity, at each
            octave); 0: none. Smoothed updates keep a
            similarity from being raised by fields that only it prefers (`benchmarks/alignment.py`).
        uncertainty: also predict a variance of the velocity, and sample from it in training.
        labels: how many labels of the fixed image to predict beside the deformation (background not counted); 0: none.
    """

    kind: Any
    finest: int = Field(default=1, ge=0, le=1)
    fluid: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    uncertainty: bool = False
    labels: int = 0

    @abstractmethod
    def body(self, *, dim: int, channels: int) -> Body:
        """The network without heads, for images of this many axes and channels."""

    def build(self, *, dim: int, channels: int) -> nn.Module:
        """The network with its heads, images (B, C, *space) × 2 → `Prediction`; weights are not set, see `initialise`."""
        body = self.body(dim=dim, channels=channels)
        heads: dict[str, nn.Module] = {}
        if self.labels:
            heads["labels"] = LabelHead(dim, body.width, self.labels)
        return WithHeads(body, heads) if heads else body


def side_by_side(network: nn.Module) -> nn.Module:
    """The same network, in place, whose weights lie so that the channels of a voxel stay side by side on their way through.

    On CPUs oneDNN's convolutions are up to 1.6 times as fast for it, and gradients of few channels in 3-D up to four times.
    """
    for rank, order in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        for weight in (w for w in network.parameters() if w.dim() == rank):
            weight.data = weight.data.contiguous(memory_format=order)
    return network


SMALL = 1e-5  # standard deviation of a head's first weights: training begins at the identity


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw all weights from a generator: He's normal for convolutions, small ones for heads.

    Source: He et al., ICCV 2015.
    """
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


def predict(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    fixed: Tensor,
    moving: Tensor,
    *,
    generator: torch.Generator | None = None,
) -> Prediction:
    """What a network says of images (B, C, *space) with these weights: a function of them, to be differentiated.

    Args:
        network: only its structure counts, and its own values for names that `weights` leaves out.
        weights: by the names of `network.named_parameters()`; none is changed.
        fixed, moving: on one grid.
        generator: draws what is uncertain.
    """
    return functional_call(network, dict(weights), (fixed, moving, generator))
