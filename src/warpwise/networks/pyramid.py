"""A dual-stream pyramid: features of each image apart, warped and compared with their neighbours, coarse to fine."""

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import NetworkSettings, Prediction
from warpwise.networks.blocks import block, double_field, unit
from warpwise.networks.heads import GaussianHead, LabelHead


class PyramidSettings(NetworkSettings):
    """Sizes, coarse details last.

    Attributes:
        features: channels of each image's features at half, quarter … resolution.
        hidden: channels of the layers that turn a comparison into an update.
        iterations: updates at each of those levels.
        radius: of the cost volume, voxels.
        kernel: of every convolution.
        squarings: of each update's exponential.
    """

    features: tuple[int, ...] = (16, 24, 32, 32)
    hidden: int = 32
    iterations: tuple[int, ...] = (2, 2, 2, 2)
    radius: int = 1
    kernel: int = 3
    squarings: int = 5

    def build(self, *, dim: int, channels: int) -> nn.Module:
        return Pyramid(self, dim=dim, channels=channels)


class Encoder(nn.Module):
    """Features at half, quarter … resolution; the same weights see both images."""

    def __init__(self, dim: int, channels: int, widths: tuple[int, ...], *, kernel: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before = channels
        for width in widths:
            self.stages.append(
                nn.Sequential(block(dim, before, width, kernel=kernel, stride=2), block(dim, width, width, kernel=kernel))
            )
            before = width

    def forward(self, fixed: Tensor, moving: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features of both, fine to coarse."""
        both = torch.cat([fixed, moving])  # one batch: PyTorch's convolutions are slow on a batch of one
        out: list[tuple[Tensor, Tensor]] = []
        for stage in self.stages:
            both = stage(both)
            one, other = both.chunk(2)
            out.append((one, other))
        return out


class Comparison(nn.Module):
    """Two feature maps on one grid → hidden features that know how they differ."""

    def __init__(self, dim: int, features: int, hidden: int, *, radius: int, kernel: int) -> None:
        super().__init__()
        self.radius = radius
        inputs = (2 * radius + 1) ** dim + 2 * features
        self.layers = nn.Sequential(
            block(dim, inputs, hidden, kernel=kernel),
            block(dim, hidden, hidden, kernel=kernel),
        )

    def forward(self, fixed: Tensor, warped: Tensor) -> Tensor:
        """Hidden features (B, hidden, *space)."""
        near = ops.cost_volume(unit(fixed).float(), unit(warped).float(), radius=self.radius)
        return self.layers(torch.cat([near.to(fixed), fixed, warped], 1))


class Pyramid(nn.Module):
    """Warping, cost volumes and iterative refinement, after PWC-Net and the studies that found these to matter.

    At every level the moving features are warped by what is known so far, compared with the fixed ones, and the
    exponential of the predicted velocity is composed on: φ ← φ∘exp(v). Weights are shared by the updates of a level.

    Sources: Sun et al., CVPR 2018; Jena et al., "Deep learning in medical image registration: magic or mirage?", 2024.
    """

    def __init__(self, settings: PyramidSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, hidden = settings.features, settings.hidden
        self.squarings = settings.squarings
        self.iterations = settings.iterations
        self.encoder = Encoder(dim, channels, widths, kernel=settings.kernel)
        options = {"radius": settings.radius, "kernel": settings.kernel}
        self.compare = nn.ModuleList([Comparison(dim, width, hidden, **options) for width in widths])
        self.update = nn.ModuleList([
            GaussianHead(dim, hidden, uncertain=settings.uncertainty and n == 0) for n in range(len(widths))
        ])
        self.labels = LabelHead(dim, widths[0], settings.labels) if settings.labels else None

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images (B, C, *space) of any size; a generator draws the finest updates from their posterior."""
        levels = self.encoder(fixed, moving)
        posterior: Prediction = {}
        field: Tensor | None = None
        for level in reversed(range(len(self.compare))):
            still, move = levels[level]
            if field is None:
                field = torch.zeros_like(still[:, : still.dim() - 2], dtype=torch.float32)
            else:
                field = double_field(field, still.shape[2:])
            for _ in range(self.iterations[level]):
                warped = ops.warp(move.float(), field).to(move)
                velocity, posterior = self.update[level](self.compare[level](still, warped), generator)
                field = ops.compose(field, ops.exponential(velocity.float(), squarings=self.squarings))
        assert field is not None
        shape = tuple(fixed.shape[2:])
        out = {"displacement": double_field(field, shape), **posterior}
        if self.labels is not None:
            out |= self.labels(levels[0][0], shape)
        return out
