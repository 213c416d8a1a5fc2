"""Between the nodes of an octave, every 2^octave-th voxel, and the voxels: node 0 lies on voxel 0, at any size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


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
