"""Pieces that networks share, in two and three dimensions."""

import torch
from torch import Tensor, nn

from warpwise import ops

SLOPE = 0.2  # of LeakyReLU, VoxelMorph's


def conv(dim: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the size, or halves it with voxel 0 in place."""
    kind = nn.Conv3d if dim == 3 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def block(dim: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Convolution and LeakyReLU."""
    return nn.Sequential(conv(dim, inputs, outputs, kernel=kernel, stride=stride), nn.LeakyReLU(SLOPE))


def full(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def smoothed(update: Tensor, sigma: float) -> Tensor:
    """An update (B, D, *nodes) in float32 at least, under a Gaussian of σ nodes."""
    update = full(update)
    return ops.gaussian(update, sigma_voxels=sigma) if sigma > 0 else update


def unit(features: Tensor) -> Tensor:
    """Features with mean 0 and variance 1 over the channels of each voxel: local, so a crop does not change them."""
    centred = features - features.mean(1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-3)
