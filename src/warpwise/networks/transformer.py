"""TransMorph: attention within shifted windows as encoder, convolutions as decoder."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block
from warpwise.networks.body import Body
from warpwise.networks.heads import VelocityDecoder
from warpwise.ops.nodes import double
from warpwise.prediction import Prediction


class TransMorphSettings(NetworkSettings):
    """Sizes of the stages.

    Attributes:
        width: features at a quarter of the resolution; doubled at every stage.
        depths: attention blocks of each stage, whose windows are shifted in every second one.
        heads: of attention in each stage.
        window: tokens along each axis of a window.
        mlp: hidden channels of a block's perceptron over its own.
        decoder: channels from the second-coarsest stage back up to octave `finest`.
        convolutions: of each decoder stage.
        squarings: of the exponential.
    """

    kind: Literal["transmorph"] = "transmorph"
    width: int = 32
    depths: tuple[int, ...] = (2, 2, 2)
    heads: tuple[int, ...] = (4, 8, 16)
    window: int = 4
    mlp: int = 2
    decoder: tuple[int, ...] = (64, 32, 32)
    convolutions: int = Field(default=1, ge=1)
    squarings: int = 7

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"{len(self.heads)} heads for {len(self.depths)} stages")
        if len(self.decoder) != len(self.depths) + 1 - self.finest:
            wanted = len(self.depths) + 1 - self.finest
            raise ValueError(f"{len(self.decoder)} decoder stages, where {wanted} lead back to octave {self.finest}")
        return self

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

    def __init__(self, dim: int, width: int, *, heads: int, window: int, shift: int, mlp: int) -> None:
        super().__init__()
        self.attention = WindowAttention(dim, width, heads=heads, window=window, shift=shift)
        wide = mlp * width
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → the same."""
        x = x + self.attention(x)
        return x + self.mlp(x.movedim(1, -1)).movedim(-1, 1)


class Patches(nn.Module):
    """One token of each patch of so many voxels an axis; zeros fill up the last ones."""

    def __init__(self, dim: int, inputs: int, outputs: int, *, size: int) -> None:
        super().__init__()
        kind = nn.Conv3d if dim == 3 else nn.Conv2d
        self.size = size
        self.conv = kind(inputs, outputs, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → (B, C', *patches)."""
        pad = [k for n in reversed(x.shape[2:]) for k in (0, -n % self.size)]
        return self.conv(F.pad(x, pad))


class TransMorph(Body):
    """After Chen et al., Medical Image Analysis 2022: both images together, patches of four voxels an axis, attention.

    Here too a velocity is integrated. With width 96, depths (2, 2, 4, 2), heads (4, 4, 8, 8), window 5, mlp 4, decoder
    (384, 192, 96, 48, 16), convolutions 2 and `finest: 0` its sizes are the published ones, 46.8 million weights.
    """

    def __init__(self, settings: TransMorphSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        width, finest = settings.width, settings.finest
        last = settings.decoder[-1]
        convolved = [width // 2] if finest else [width // 2, last]
        self.skips = nn.ModuleList([block(dim, 2 * channels, wide) for wide in convolved])
        self.embed = nn.ModuleList()
        self.stages = nn.ModuleList()
        before, skips = 2 * channels, list(reversed(convolved))
        for stage, (depth, heads) in enumerate(zip(settings.depths, settings.heads, strict=True)):
            wide = width * 2**stage
            self.embed.append(Patches(dim, before, wide, size=2 if stage else 4))
            shifts = [settings.window // 2 if n % 2 else 0 for n in range(depth)]
            options = {"heads": heads, "window": settings.window, "mlp": settings.mlp}
            self.stages.append(nn.Sequential(*[AttentionBlock(dim, wide, shift=s, **options) for s in shifts]))
            before = wide
            skips.append(wide)
        skips.pop()
        self.up = nn.ModuleList()
        for wide in settings.decoder:
            inputs = before + skips.pop()
            layers = [block(dim, inputs, wide), *[block(dim, wide, wide) for _ in range(settings.convolutions - 1)]]
            self.up.append(nn.Sequential(*layers))
            before = wide
        self.head = VelocityDecoder(dim, before, settings)
        self.width, self.octave = before, finest

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        both = torch.cat([fixed, moving], 1)
        half = ops.gaussian(both.float(), sigma_voxels=0.7, stride=2).to(both)
        skips = [skip(x) for skip, x in zip(self.skips, (half, both), strict=False)][::-1]
        x = both
        for embed, stage in zip(self.embed, self.stages, strict=True):
            x = stage(embed(x))
            skips.append(x)
        skips.pop()
        for up in self.up:
            skip = skips.pop()
            x = up(torch.cat([double(x, skip.shape[2:]), skip], 1))
        return self.head(x, tuple(fixed.shape[2:]), generator), x
