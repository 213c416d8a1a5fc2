"""VoxelMorph: a U-Net on both images at once, and a stationary velocity at half resolution."""

import torch
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings, Prediction
from warpwise.networks.blocks import block, double
from warpwise.networks.heads import VelocityDecoder


class VoxelMorphSettings(NetworkSettings):
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

    def build(self, *, dim: int, channels: int) -> nn.Module:
        return VoxelMorph(self, dim=dim, channels=channels)


class VMDiffSettings(VoxelMorphSettings):
    """The probabilistic form: a posterior of the velocity."""

    uncertainty: bool = True


class VoxelMorph(nn.Module):
    """The network of Balakrishnan et al. (IEEE TMI 2019) and, with `uncertainty`, Dalca et al. (MedIA 2019).

    Stages at full resolution hold most of its cost and hardly help: the decoder ends at half, where the velocity lies.
    """

    def __init__(self, settings: VoxelMorphSettings, *, dim: int, channels: int) -> None:
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
        self.head = VelocityDecoder(
            dim, before, squarings=settings.squarings, uncertain=settings.uncertainty, labels=settings.labels
        )

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images (B, C, *space) of any size; a generator draws the velocity from its posterior."""
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
        return self.head(x, tuple(fixed.shape[2:]), generator)
