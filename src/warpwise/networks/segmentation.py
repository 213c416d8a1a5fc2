"""A network that tells structures apart in one image, so that a solver can be led by them."""

from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block
from warpwise.networks.body import Body
from warpwise.ops.nodes import double
from warpwise.prediction import Prediction


class SegmentationSettings(NetworkSettings):
    """Sizes of a U-Net.

    Attributes:
        widths: channels at full, half, quarter … resolution.
        kernel: of every convolution.
        labels: how many structures, or groups of them (`data.groups`), it tells apart.
        places: also show the network where in the object each voxel lies (`places`), which tells most parcels of a brain
            apart; for images of whole objects, not for windows of them (`data.crop`).
    """

    kind: Literal["segmentation"] = "segmentation"
    widths: tuple[int, ...] = (16, 32, 64, 96)
    kernel: int = 3
    finest: int = Field(default=0, ge=0, le=0)
    labels: int = Field(default=1, ge=1)
    places: bool = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.uncertainty or self.fluid:
            raise ValueError("a segmentation deforms nothing: it has neither uncertainty nor fluid")
        return self

    def body(self, *, dim: int, channels: int) -> Body:
        return Segmentation(self, dim=dim, channels=channels)


def places(image: Tensor) -> Tensor:
    """Where each voxel of images (B, C, *space) lies along each axis (B, D, *space): its distance from the middle of the
    intensities there are, in units of twice their standard deviation. So it does not depend on the margins of the grid."""
    weight = image.float().clamp(min=0).mean(1)
    out: list[Tensor] = []
    for axis in range(1, weight.dim()):
        others = [n for n in range(1, weight.dim()) if n != axis]
        share = weight.sum(others) / weight.sum([axis, *others]).clamp(min=1e-6)[:, None]
        at = torch.arange(weight.shape[axis], dtype=torch.float32, device=weight.device)
        middle = (share * at).sum(1, keepdim=True)
        far = (at - middle) / (2 * (share * (at - middle) ** 2).sum(1, keepdim=True).clamp(min=0.25).sqrt())
        out.append(far.reshape(len(far), *[-1 if n == axis else 1 for n in range(1, weight.dim())]).expand_as(weight))
    return torch.stack(out, 1).to(image)


class Segmentation(Body):
    """A U-Net on the fixed image; nothing moves. Its structures are those of the head of labels.

    Source: Ronneberger et al., MICCAI 2015.
    """

    def __init__(self, settings: SegmentationSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, kernel = settings.widths, settings.kernel
        self.down = nn.ModuleList()
        self.places = settings.places
        before = channels + dim * settings.places
        for n, width in enumerate(widths):
            first = block(dim, before, width, kernel=kernel, stride=2 if n else 1)
            self.down.append(nn.Sequential(first, block(dim, width, width, kernel=kernel)))
            before = width
        self.up = nn.ModuleList([block(dim, one + two, one, kernel=kernel) for one, two in pairwise(widths)])
        self.width, self.octave = widths[0], 0

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:  # noqa: ARG002 - as every network
        skips: list[Tensor] = []
        x = torch.cat([fixed, places(fixed)], 1) if self.places else fixed
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        for n in reversed(range(len(self.up))):
            x = self.up[n](torch.cat([double(x, skips[n].shape[2:]), skips[n]], 1))
        still = torch.zeros_like(moving[:, :1], dtype=torch.float32).repeat(1, moving.dim() - 2, *[1] * (moving.dim() - 2))
        return Prediction(still), x
