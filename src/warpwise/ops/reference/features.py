"""Comparison of feature maps (B, C, *space)."""

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from warpwise.ops.shapes import Image


def cost_volume(fixed: Image, moving: Image, *, radius: Sequence[int]) -> Tensor:
    """Mean over channels of fixed(x)·moving(x + d) for every d in a box; 0 beyond the border."""
    pad = [r for r in reversed(radius) for _ in range(2)]
    padded = F.pad(moving, pad)
    out: list[Tensor] = []
    for shift in product(*[range(2 * r + 1) for r in radius]):
        part = padded
        for d, s in enumerate(shift):
            part = part.narrow(d + 2, s, fixed.shape[d + 2])
        out.append((fixed * part).mean(1))
    return torch.stack(out, 1)
