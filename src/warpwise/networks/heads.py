"""What networks end in: velocities, their variance, labels. A further head is one more class here."""

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import Prediction
from warpwise.networks.blocks import conv, double_field, doubled

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

    def forward(self, features: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Prediction]:
        """The velocity, and the posterior it comes from where there is one."""
        mean = self.mean(features)
        if self.log_variance is None:
            return mean, {}
        log_variance = self.log_variance(features) + FIRST_LOG_VARIANCE
        posterior = {"mean": mean, "log_variance": log_variance}
        return sample(mean, log_variance, generator), posterior


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None) -> Tensor:
    """A draw from a diagonal Gaussian; its mean where there is no generator."""
    if generator is None:
        return mean
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
    return mean + noise * (0.5 * log_variance).exp()


class LabelHead(nn.Module):
    """Logits of the fixed image's labels at full resolution, from features at half or another octave."""

    def __init__(self, dim: int, features: int, labels: int) -> None:
        super().__init__()
        self.logits = Head(dim, features, labels + 1, kernel=1)

    def forward(self, features: Tensor, shape: tuple[int, ...], octave: int = 1) -> Prediction:
        """Background first."""
        return {"labels": doubled(self.logits(features), shape, times=octave)}


class VelocityDecoder(nn.Module):
    """From features at half resolution to a deformation at full: velocity, scaling and squaring, upsampling."""

    def __init__(self, dim: int, features: int, *, squarings: int, uncertain: bool, labels: int) -> None:
        super().__init__()
        self.squarings = squarings
        self.velocity = GaussianHead(dim, features, uncertain=uncertain)
        self.labels = LabelHead(dim, features, labels) if labels else None

    def forward(self, features: Tensor, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Prediction:
        """Displacement, inverse and what else there are heads for, for images of this shape."""
        velocity, out = self.velocity(features, generator)
        velocity = velocity.float()
        out["velocity"] = velocity
        for name, sign in (("displacement", 1), ("inverse", -1)):
            half = ops.exponential(sign * velocity, squarings=self.squarings)
            out[name] = double_field(half, shape)
        if self.labels is not None:
            out |= self.labels(features, shape)
        return out
