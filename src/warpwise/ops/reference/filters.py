"""Separable filters, renormalised where a window is clipped by the border."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from warpwise.ops.shapes import Image


def separable(image: Tensor, taps: Sequence[Tensor], *, stride: Sequence[int]) -> Tensor:
    """image (B, C, *space) filtered with odd symmetric taps an axis, every stride-th voxel kept."""
    out = image
    for d, (row, step) in enumerate(zip(taps, stride, strict=True)):
        if row.numel() == 1 and step == 1:
            continue
        row = row.to(image)
        lines = out.movedim(d + 2, -1)
        flat = lines.reshape(-1, 1, lines.shape[-1])
        radius = row.numel() // 2
        kernel = row[None, None]
        ones = torch.ones_like(flat[:1])
        filtered = F.conv1d(flat, kernel, stride=step, padding=radius)
        filtered = filtered / F.conv1d(ones, kernel, stride=step, padding=radius)
        out = filtered.reshape(*lines.shape[:-1], -1).movedim(-1, d + 2)
    return out


def gaussian_taps(sigma: float, truncate: float = 3.0) -> Tensor:
    """Normalised samples of a Gaussian (float64), to `truncate` standard deviations."""
    if sigma <= 0:
        return torch.ones(1, dtype=torch.float64)
    radius = max(1, math.ceil(truncate * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return taps / taps.sum()


def gaussian(image: Tensor, *, sigma: Sequence[float], stride: Sequence[int]) -> Tensor:
    """Gaussian of σ voxels an axis."""
    return separable(image, [gaussian_taps(s) for s in sigma], stride=stride)


def box(image: Image, *, radius: Sequence[int]) -> Image:
    """Mean over windows of 2·radius + 1 voxels."""
    taps = [torch.full((2 * r + 1,), 1 / (2 * r + 1), dtype=torch.float64) for r in radius]
    return separable(image, taps, stride=[1] * len(radius))
