"""What networks end in: velocities, their variance, labels. A further head is one more class here."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.blocks import conv, smoothed
from warpwise.networks.body import Body
from warpwise.ops.nodes import doubled, on_voxels
from warpwise.prediction import Posterior, Prediction

FIRST_LOG_VARIANCE = -10.0  # of a velocity in voxels: training begins with nearly no noise


class Head(nn.Module):
    """One convolution with small first weights."""

    def __init__(self, dim: int, features: int, outputs: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.conv = conv(dim, features, outputs, kernel=kernel)

    def forward(self, features: Tensor) -> Tensor:
        """Features as numbers of some meaning."""
        return self.conv(features)


class GaussianHead(nn.Module):
    """Mean and log-variance of a velocity; a sample where a generator is given, else the mean.

    Source: Dalca et al., Medical Image Analysis 2019.
    """

    def __init__(self, dim: int, features: int, *, uncertain: bool) -> None:
        super().__init__()
        self.mean = Head(dim, features, dim)
        self.log_variance = Head(dim, features, dim) if uncertain else None

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior | None]:
        """The velocity, and the posterior it comes from where there is one."""
        mean = self.mean(features)
        if self.log_variance is None:
            return mean, None
        posterior = Posterior(mean, self.log_variance(features) + FIRST_LOG_VARIANCE)
        return sample(posterior, generator), posterior


def sample(posterior: Posterior, generator: torch.Generator | None) -> Tensor:
    """A draw from a diagonal Gaussian; its mean where there is no generator."""
    mean, log_variance = posterior
    if generator is None:
        return mean
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
    return mean + noise * (0.5 * log_variance).exp()


class VelocitySettings(Protocol):
    """What a network that ends in one velocity says of it; see `networks.base.NetworkSettings`."""

    @property
    def squarings(self) -> int:
        """Of the exponential."""
        ...

    @property
    def finest(self) -> int:
        """Octave of the velocity."""
        ...

    @property
    def fluid(self) -> float:
        """σ, nodes, of the Gaussian that smooths it."""
        ...

    @property
    def uncertainty(self) -> bool:
        """Whether it has a variance."""
        ...


class VelocityDecoder(nn.Module):
    """From features at an octave to a deformation of every voxel: velocity, scaling and squaring, upsampling."""

    def __init__(self, dim: int, features: int, settings: VelocitySettings) -> None:
        super().__init__()
        self.squarings, self.octave, self.fluid = settings.squarings, settings.finest, settings.fluid
        self.velocity = GaussianHead(dim, features, uncertain=settings.uncertainty)

    def forward(self, features: Tensor, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Prediction:
        """Displacement, velocity and its posterior, for images of this shape."""
        predicted, posterior = self.velocity(features, generator)
        velocity = smoothed(predicted, self.fluid)
        return Prediction(self.displacement(velocity, shape), velocity=velocity, posterior=posterior)

    def displacement(self, velocity: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(B, D, *shape), voxels, of a smoothed velocity (B, D, *nodes)."""
        return on_voxels(ops.exponential(velocity, squarings=self.squarings), shape, octave=self.octave)


class LabelHead(nn.Module):
    """Logits of the fixed image's labels at full resolution."""

    def __init__(self, dim: int, features: int, labels: int) -> None:
        super().__init__()
        self.logits = Head(dim, features, labels + 1, kernel=1)

    def forward(self, features: Tensor, shape: tuple[int, ...], *, octave: int) -> Tensor:
        """(B, labels + 1, *shape), background first, of features (B, C, *nodes) at an octave."""
        return doubled(self.logits(features), shape, times=octave)


class WithHeads(nn.Module):
    """A body, and heads that read its features; each head is called what it predicts is called in `Prediction`."""

    def __init__(self, body: Body, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.body = body
        self.heads = nn.ModuleDict(heads)

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """How images (B, C, *space) move, and what the heads say."""
        prediction, features = self.body.motion(fixed, moving, generator)
        shape = tuple(fixed.shape[2:])
        known = {name: head(features, shape, octave=self.body.octave) for name, head in self.heads.items()}
        return prediction._replace(**known)
