"""Pieces that networks share, in two and three dimensions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


def double(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x on a grid of twice as many voxels an axis, or one less, linear, voxel 0 in place: value 2i is value i of x.

    So halving and doubling fit images of any size, without padding.
    """
    dim = x.dim() - 2
    finer = F.interpolate(
        x, size=[2 * n - 1 for n in x.shape[2:]], mode="trilinear" if dim == 3 else "bilinear", align_corners=True
    )
    pad = [k for n, m in zip(reversed(shape), reversed(finer.shape[2:]), strict=True) for k in (0, n - m)]
    return F.pad(finer, pad, mode="replicate") if any(pad) else finer


def double_field(field: Tensor, shape: Sequence[int]) -> Tensor:
    """A field in voxels on a grid of twice as many voxels an axis, or one less."""
    return 2 * double(field, shape)


def doubled(x: Tensor, shape: Sequence[int], *, times: int) -> Tensor:
    """x, which holds every 2^times-th voxel, on all voxels of a grid of this shape."""
    for n in reversed(range(times)):
        x = double(x, [-(-size // 2**n) for size in shape])
    return x


def on_voxels(field: Tensor, shape: Sequence[int], *, octave: int) -> Tensor:
    """A field at every 2^octave-th voxel, in those, as one on all voxels of a grid of this shape, in voxels."""
    return 2**octave * doubled(field, shape, times=octave)


def smoothed(update: Tensor, sigma: float) -> Tensor:
    """An update (B, D, *nodes) in float32, under a Gaussian of σ nodes."""
    update = update.float()
    return ops.gaussian(update, sigma_voxels=sigma) if sigma > 0 else update


def unit(features: Tensor) -> Tensor:
    """Features with mean 0 and variance 1 over the channels of each voxel: local, so a crop does not change them."""
    centred = features - features.mean(1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-3)
