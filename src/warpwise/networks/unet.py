"""VoxelMorph: a U-Net on both images at once, and a stationary velocity at half resolution."""

from abc import ABC
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block
from warpwise.networks.body import Body
from warpwise.networks.heads import VelocityDecoder
from warpwise.ops.nodes import double
from warpwise.prediction import Prediction


class UNetSettings(NetworkSettings, ABC):
    """Channels of each stage.

    Attributes:
        encoder: of stages at full, half, quarter … resolution.
        decoder: of stages back up to octave `finest`, then further ones there.
        kernel: of every convolution.
        squarings: of the exponential.
        pooled: stages keep their size and are halved by the largest of 2 voxels an axis, one more time than there are
            stages; else each but the first halves by its stride.
    """

    encoder: tuple[int, ...] = (16, 32, 32, 32, 32)
    decoder: tuple[int, ...] = (32, 32, 32, 32, 16)
    kernel: int = 3
    squarings: int = 7
    pooled: bool = False

    @model_validator(mode="after")
    def _decoder(self) -> Self:
        least = self.halvings - self.finest
        if len(self.decoder) < least:
            raise ValueError(f"{len(self.decoder)} decoder stages, where {least} lead back to octave {self.finest}")
        return self

    @property
    def halvings(self) -> int:
        """How often the images are halved at the bottom."""
        return len(self.encoder) - (not self.pooled)

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

    Stages at full resolution hold most of its cost: unless `finest` is 0 the decoder ends at half, where the velocity
    lies. With encoder (16, 32, 32, 32), decoder (32, 32, 32, 32, 32, 16, 16), `pooled` and `finest: 0` its layers are those
    of the code that was published with these papers: 327,331 weights in 3-D.
    """

    def __init__(self, settings: UNetSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, kernel, finest = settings.encoder, settings.kernel, settings.finest
        self.pooled = settings.pooled
        self.encoder = nn.ModuleList()
        before = 2 * channels
        for n, width in enumerate(widths):
            stride = 1 if n == 0 or settings.pooled else 2
            self.encoder.append(block(dim, before, width, kernel=kernel, stride=stride))
            before = width
        self.up = nn.ModuleList()
        self.ups = settings.halvings - finest
        skips = list(widths[finest : settings.halvings])
        for width in settings.decoder[: self.ups]:
            self.up.append(block(dim, before, width, kernel=kernel))
            before = width + skips.pop()
        self.rest = nn.ModuleList()
        for width in settings.decoder[self.ups :]:
            self.rest.append(block(dim, before, width, kernel=kernel))
            before = width
        self.head = VelocityDecoder(dim, before, settings)
        self.width, self.octave = before, finest

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        x = torch.cat([fixed, moving], 1)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
            if self.pooled:
                x = halved(x)
        skips = skips[self.octave : self.octave + self.ups]
        for stage in self.up:
            skip = skips.pop()
            x = torch.cat([double(stage(x), skip.shape[2:]), skip], 1)
        for stage in self.rest:
            x = stage(x)
        return self.head(x, tuple(fixed.shape[2:]), generator), x


def halved(x: Tensor) -> Tensor:
    """The largest value of each 2 voxels an axis; where their number is odd the last one stands alone."""
    pool = F.max_pool3d if x.dim() == 5 else F.max_pool2d
    return pool(x, 2, ceil_mode=True)
