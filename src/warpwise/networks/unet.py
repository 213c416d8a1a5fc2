"""VoxelMorph: a U-Net on both images at once, and a stationary velocity at half resolution."""

from abc import ABC
from typing import Literal

import torch
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block, double
from warpwise.networks.body import Body
from warpwise.networks.heads import VelocityDecoder
from warpwise.prediction import Prediction


class UNetSettings(NetworkSettings, ABC):
    """Channels of each stage.

    Attributes:
        encoder: of stages at full, half, quarter … resolution; each but the first halves.
        decoder: of stages back up to half resolution, then further ones there.
        kernel: of every convolution.
        squarings: of the exponential.
    """

    encoder: tuple[int, ...] = (16, 32, 32, 32, 32)
    decoder: tuple[int, ...] = (32, 32, 32, 32, 16)
    kernel: int = 3
    squarings: int = 7

    def body(self, *, dim: int, channels: int) -> Body:
        return VoxelMorph(self, dim=dim, channels=channels)


class VoxelMorphSettings(UNetSettings):
    """The deterministic form."""

    kind: Literal["voxelmorph"] = "voxelmorph"


class VMDiffSettings(UNetSettings):
    """The probabilistic form: a posterior of the velocity."""

    kind: Literal["vm-diff"] = "vm-diff"
    uncertainty: bool = True


class VoxelMorph(Body):
    """The network of Balakrishnan et al. (IEEE TMI 2019) and, with `uncertainty`, Dalca et al. (MedIA 2019).

    Stages at full resolution hold most of its cost and hardly help: the decoder ends at half, where the velocity lies.
    """

    def __init__(self, settings: UNetSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, kernel = settings.encoder, settings.kernel
        self.encoder = nn.ModuleList()
        before = 2 * channels
        for n, width in enumerate(widths):
            self.encoder.append(block(dim, before, width, kernel=kernel, stride=1 if n == 0 else 2))
            before = width
        self.up = nn.ModuleList()
        skips = list(widths[1:-1])
        for width in settings.decoder[: len(skips)]:
            self.up.append(block(dim, before, width, kernel=kernel))
            before = width + skips.pop()
        self.rest = nn.ModuleList()
        for width in settings.decoder[len(widths) - 2 :]:
            self.rest.append(block(dim, before, width, kernel=kernel))
            before = width
        self.head = VelocityDecoder(dim, before, squarings=settings.squarings, uncertain=settings.uncertainty)
        self.width, self.octave = before, 1

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        x = torch.cat([fixed, moving], 1)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips = skips[1:-1]
        for stage in self.up:
            skip = skips.pop()
            x = torch.cat([double(stage(x), skip.shape[2:]), skip], 1)
        for stage in self.rest:
            x = stage(x)
        return self.head(x, tuple(fixed.shape[2:]), generator), x
