"""A dual-stream pyramid: features of each image apart, warped and compared with their neighbours, coarse to fine."""

from abc import ABC
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block, full, smoothed, unit
from warpwise.networks.body import Body
from warpwise.networks.heads import GaussianHead
from warpwise.ops.nodes import double_field, on_voxels
from warpwise.prediction import Posterior, Prediction


class DualStreamSettings(NetworkSettings, ABC):
    """Sizes of a pyramid of features of each image, coarse scales last.

    Attributes:
        features: channels of each image's features at half, quarter … resolution; with `finest: 0` at full, half ….
        hidden: channels of the layers that turn a comparison into an update; one number, or one a scale.
        iterations: updates at each of those scales.
        radius: of the cost volume, voxels.
        kernel: of every convolution.
    """

    features: tuple[int, ...] = (16, 24, 32, 32)
    hidden: int | tuple[int, ...] = 32
    iterations: tuple[int, ...] = (2, 2, 2, 2)
    radius: int = 1
    kernel: int = 3

    @model_validator(mode="after")
    def _scales(self) -> Self:
        for name in ("iterations", "hidden"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != len(self.features):
                raise ValueError(f"{len(given)} {name} for features at {len(self.features)} scales")
        return self

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """Channels of features and of hidden layers, fine to coarse."""
        hidden = self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) * len(self.features)
        return tuple(zip(self.features, hidden, strict=True))


class PyramidSettings(DualStreamSettings):
    """The pyramid whose updates are exponentials.

    Attributes:
        squarings: of each update's exponential.
    """

    kind: Literal["pyramid"] = "pyramid"
    squarings: int = 5

    def body(self, *, dim: int, channels: int) -> Body:
        return Pyramid(self, dim=dim, channels=channels)


class Encoder(nn.Module):
    """Features at half, quarter … resolution, or from full on; the same weights see both images."""

    def __init__(self, dim: int, channels: int, settings: DualStreamSettings) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before, kernel = channels, settings.kernel
        for n, width in enumerate(settings.features):
            stride = 1 if n == 0 and settings.finest == 0 else 2
            self.stages.append(
                nn.Sequential(
                    block(dim, before, width, kernel=kernel, stride=stride), block(dim, width, width, kernel=kernel)
                )
            )
            before = width

    def forward(self, fixed: Tensor, moving: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Features of both, fine to coarse."""
        both = torch.cat([fixed, moving])  # one batch: PyTorch's convolutions are slow on a batch of one
        out: list[tuple[Tensor, Tensor]] = []
        for stage in self.stages:
            both = stage(both)
            of_fixed, of_moving = both.chunk(2)
            out.append((of_fixed, of_moving))
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
        cost_volume = ops.cost_volume(full(unit(fixed)), full(unit(warped)), radius=self.radius)
        return self.layers(torch.cat([cost_volume.to(fixed), fixed, warped], 1))


class Pyramid(Body):
    """Warping, a cost volume and iterative refinement, after PWC-Net and the studies that found these to matter.

    At every scale the moving features are warped by what is known so far, compared with the fixed ones, and the
    exponential of the predicted velocity is composed on: φ ← φ∘exp(v). Weights are shared by the updates of a scale.

    Sources: Sun et al., CVPR 2018; Jena et al., "Deep learning in medical image registration: magic or mirage?", 2024.
    """

    def __init__(self, settings: PyramidSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        self.squarings, self.fluid = settings.squarings, settings.fluid
        self.iterations = settings.iterations
        self.encoder = Encoder(dim, channels, settings)
        options = {"radius": settings.radius, "kernel": settings.kernel}
        self.compare = nn.ModuleList([Comparison(dim, *both, **options) for both in settings.widths])
        self.update = nn.ModuleList([
            GaussianHead(dim, hidden, uncertain=settings.uncertainty and n == 0)
            for n, (_, hidden) in enumerate(settings.widths)
        ])
        self.width, self.octave = settings.features[0], settings.finest

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        scales = self.encoder(fixed, moving)
        posterior: Posterior | None = None
        field: Tensor | None = None
        for scale in reversed(range(len(self.compare))):
            of_fixed, of_moving = scales[scale]
            if field is None:
                field = torch.zeros_like(full(of_fixed[:, : of_fixed.dim() - 2]))
            else:
                field = double_field(field, of_fixed.shape[2:])
            for _ in range(self.iterations[scale]):
                warped = ops.warp(full(of_moving), field).to(of_moving)
                velocity, posterior = self.update[scale](self.compare[scale](of_fixed, warped), generator)
                update = smoothed(velocity, self.fluid)
                field = ops.compose(field, ops.exponential(update, squarings=self.squarings))
        assert field is not None
        whole = on_voxels(field, fixed.shape[2:], octave=self.octave)
        return Prediction(whole, posterior=posterior), scales[0][0]
