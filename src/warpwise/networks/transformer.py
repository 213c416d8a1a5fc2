"""TransMorph: attention within shifted windows as encoder, convolutions as decoder."""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block, conv, double
from warpwise.networks.body import Body
from warpwise.networks.heads import VelocityDecoder
from warpwise.prediction import Prediction


class TransMorphSettings(NetworkSettings):
    """Sizes of the stages.

    Attributes:
        width: features at a quarter of the resolution; doubled at every stage.
        stages: so many, each with two attention blocks (windows, shifted windows).
        heads: of attention in the first stage; doubled at every stage.
        window: tokens along each axis of a window.
        decoder: channels from the second-coarsest stage back up to half resolution.
        squarings: of the exponential.
    """

    kind: Literal["transmorph"] = "transmorph"
    width: int = 32
    stages: int = 3
    heads: int = 4
    window: int = 4
    decoder: tuple[int, ...] = (64, 32, 32)
    squarings: int = 7

    def body(self, *, dim: int, channels: int) -> Body:
        return TransMorph(self, dim=dim, channels=channels)


def windows(x: Tensor, size: int, shift: int) -> Tensor:
    """(B, C, *space) as (B·windows, tokens, C); windows begin `shift` tokens before the grid, zeros fill them up."""
    batch, channels, dim = x.shape[0], x.shape[1], x.dim() - 2
    pad: list[int] = []
    for n in reversed(x.shape[2:]):
        pad += [shift, -(n + shift) % size]
    x = F.pad(x, pad)
    counts = [n // size for n in x.shape[2:]]
    x = x.reshape(batch, channels, *[k for n in counts for k in (n, size)])
    order = [0, *range(2, 2 + 2 * dim, 2), *range(3, 3 + 2 * dim, 2), 1]
    return x.permute(order).reshape(-1, size**dim, channels)


def merged(tokens: Tensor, shape: Sequence[int], size: int, shift: int) -> Tensor:
    """The inverse of `windows`, for a grid of `shape`."""
    dim = len(shape)
    counts = [-(-(n + shift) // size) for n in shape]
    x = tokens.reshape(-1, *counts, *[size] * dim, tokens.shape[-1])
    order = [0, 2 * dim + 1, *[k for d in range(dim) for k in (1 + d, 1 + dim + d)]]
    x = x.permute(order).reshape(x.shape[0], tokens.shape[-1], *[n * size for n in counts])
    for d, n in enumerate(shape):
        x = x.narrow(d + 2, shift, n)
    return x


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every offset (Liu et al., ICCV 2021)."""

    def __init__(self, dim: int, width: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** dim))
        at = torch.tensor([*product(range(window), repeat=dim)])
        offset = at[:, None] - at[None] + window - 1
        index = torch.zeros(offset.shape[:2], dtype=torch.long)
        for d in range(dim):
            index = index * (2 * window - 1) + offset[..., d]
        self.register_buffer("index", index, persistent=False)
        self.index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → the same; tokens that fill up a window are not attended to."""
        tokens = windows(x, self.window, self.shift)
        there = windows(torch.ones_like(x[:, :1]), self.window, self.shift)[..., 0] > 0
        q, k, v = self.qkv(self.norm(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias[:, self.index][None]
        bias = bias.masked_fill(~there[:, None, None], -1e4)
        values = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        attended = self.out(values.transpose(1, 2).flatten(2))
        return merged(attended, x.shape[2:], self.window, self.shift)


class AttentionBlock(nn.Module):
    """Attention and a two-layer perceptron, each with a residual connection."""

    def __init__(self, dim: int, width: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.attention = WindowAttention(dim, width, heads=heads, window=window, shift=shift)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → the same."""
        x = x + self.attention(x)
        return x + self.mlp(x.movedim(1, -1)).movedim(-1, 1)


class TransMorph(Body):
    """After Chen et al., Medical Image Analysis 2022: both images together, a velocity at half resolution."""

    def __init__(self, settings: TransMorphSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        width, half = settings.width, settings.width // 2
        self.stem = block(dim, 2 * channels, half, stride=2)
        self.embed = nn.ModuleList()
        self.stages = nn.ModuleList()
        before, skips = half, [half]
        for stage in range(settings.stages):
            wide, heads = width * 2**stage, settings.heads * 2**stage
            self.embed.append(conv(dim, before, wide, stride=2))
            self.stages.append(
                nn.Sequential(*[
                    AttentionBlock(dim, wide, heads=heads, window=settings.window, shift=shift)
                    for shift in (0, settings.window // 2)
                ])
            )
            before = wide
            skips.append(wide)
        skips.pop()
        self.up = nn.ModuleList()
        for wide in settings.decoder[: settings.stages]:
            skip = skips.pop()
            self.up.append(block(dim, before + skip, wide))
            before = wide
        self.head = VelocityDecoder(dim, before, squarings=settings.squarings, uncertain=settings.uncertainty)
        self.width, self.octave = before, 1

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        x = self.stem(torch.cat([fixed, moving], 1))
        skips = [x]
        for embed, stage in zip(self.embed, self.stages, strict=True):
            x = stage(embed(x))
            skips.append(x)
        skips.pop()
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([double(x, skip.shape[2:]), skip], 1))
        return self.head(x, tuple(fixed.shape[2:]), generator), x
