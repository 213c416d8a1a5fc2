"""A network that tells structures apart in one image, so that a solver can be led by them."""

from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block, double
from warpwise.networks.body import Body
from warpwise.prediction import Prediction


class SegmentationSettings(NetworkSettings):
    """Sizes of a U-Net.

    Attributes:
        widths: channels at full, half, quarter … resolution.
        kernel: of every convolution.
        labels: how many structures, or groups of them (`data.groups`), it tells apart.
    """

    kind: Literal["segmentation"] = "segmentation"
    widths: tuple[int, ...] = (16, 32, 64, 96)
    kernel: int = 3
    finest: int = Field(default=0, ge=0, le=0)
    labels: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.uncertainty or self.fluid:
            raise ValueError("a segmentation deforms nothing: it has neither uncertainty nor fluid")
        return self

    def body(self, *, dim: int, channels: int) -> Body:
        return Segmentation(self, dim=dim, channels=channels)


class Segmentation(Body):
    """A U-Net on the fixed image; nothing moves. Its structures are those of the head of labels.

    Source: Ronneberger et al., MICCAI 2015.
    """

    def __init__(self, settings: SegmentationSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, kernel = settings.widths, settings.kernel
        self.down = nn.ModuleList()
        before = channels
        for n, width in enumerate(widths):
            first = block(dim, before, width, kernel=kernel, stride=2 if n else 1)
            self.down.append(nn.Sequential(first, block(dim, width, width, kernel=kernel)))
            before = width
        self.up = nn.ModuleList([block(dim, one + two, one, kernel=kernel) for one, two in pairwise(widths)])
        self.width, self.octave = widths[0], 0

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:  # noqa: ARG002 - as every network
        skips: list[Tensor] = []
        x = fixed
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        for n in reversed(range(len(self.up))):
            x = self.up[n](torch.cat([double(x, skips[n].shape[2:]), skips[n]], 1))
        still = torch.zeros_like(moving[:, :1], dtype=torch.float32).repeat(1, moving.dim() - 2, *[1] * (moving.dim() - 2))
        return Prediction(still), x
