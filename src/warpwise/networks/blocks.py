"""Pieces that networks share, in two and three dimensions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of LeakyReLU, VoxelMorph's


def conv(dim: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A convolution that keeps the size, or halves it with voxel 0 in place."""
    kind = nn.Conv3d if dim == 3 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def block(dim: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Convolution and LeakyReLU."""
    return nn.Sequential(conv(dim, inputs, outputs, kernel=kernel, stride=stride), nn.LeakyReLU(SLOPE))


def double(x: Tensor) -> Tensor:
    """Twice as many voxels an axis, linear, voxel 0 in place: value 2i of the result is value i of x."""
    dim = x.dim() - 2
    shape = [2 * n - 1 for n in x.shape[2:]]
    finer = F.interpolate(x, size=shape, mode="trilinear" if dim == 3 else "bilinear", align_corners=True)
    return F.pad(finer, [0, 1] * dim, mode="replicate")


def double_field(field: Tensor) -> Tensor:
    """A field in voxels on twice as many voxels an axis."""
    return 2 * double(field)


def padded(image: Tensor, multiple: int) -> Tensor:
    """The image with its border repeated at the high end of each axis, up to a multiple."""
    pad: list[int] = []
    for n in reversed(image.shape[2:]):
        pad += [0, -n % multiple]
    return F.pad(image, pad, mode="replicate") if any(pad) else image


def cropped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The first voxels along each axis."""
    for d, n in enumerate(shape):
        x = x.narrow(d + 2, 0, n)
    return x


def unit(features: Tensor) -> Tensor:
    """Features with mean 0 and variance 1 over the channels of each voxel: local, so a crop does not change them."""
    centred = features - features.mean(1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-3)
