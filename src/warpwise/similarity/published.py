"""Similarities in the forms in which networks were trained in print, beside which ours can be measured."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from warpwise import ops
from warpwise.ops.reference.similarity import mind_ssc as reference_mind
from warpwise.ops.reference.similarity import weighted_mean
from warpwise.ops.shapes import Image, PerChannel, Weight

EPSILON = 1e-5


def lncc(fixed: Image, warped: Image, weight: Weight | None = None, *, radius: int) -> PerChannel:
    """Mean of cross²/(var·var + 1e-5) with sums, not means, over windows of 2·radius + 1 voxels; zeros beyond the border.

    The sums are made of means, which float32 tells more of than differences of sums.
    """
    axes = [radius] * (fixed.dim() - 2)
    inside = coverage(fixed.shape[2:], radius).to(fixed)
    voxels = float((2 * radius + 1) ** len(axes))

    def mean(x: Tensor) -> Tensor:
        return ops.box(x, radius=axes) * inside

    f, w = mean(fixed), mean(warped)
    cross = voxels * (mean(fixed * warped) - f * w)
    of_fixed = voxels * (mean(fixed * fixed) - f * f).clamp(min=0)
    of_warped = voxels * (mean(warped * warped) - w * w).clamp(min=0)
    return weighted_mean(cross * cross / (of_fixed * of_warped + EPSILON), weight)


def coverage(shape: Sequence[int], radius: int) -> Tensor:
    """The share of each voxel's window that lies on the grid, (*shape)."""
    out = torch.ones(())
    for n in shape:
        at = torch.arange(n)
        share = ((at + radius).clamp(max=n - 1) - (at - radius).clamp(min=0) + 1) / (2 * radius + 1)
        out = out[..., None] * share
    return out


def mind_ssc(image: Image, *, radius: int, dilation: int) -> Tensor:
    """Descriptors (B, C·12 or C·4, *space) as `ops.mind_ssc`, with patches continued by the border's voxels."""

    def mean(x: Tensor, *, radius: Sequence[int]) -> Tensor:
        pool = F.avg_pool3d if x.dim() == 5 else F.avg_pool2d
        pad = [r for r in reversed(radius) for _ in range(2)]
        return pool(F.pad(x, pad, mode="replicate"), [2 * r + 1 for r in radius], stride=1)

    return reference_mind(image, radius=radius, dilation=dilation, mean_filter=mean)
