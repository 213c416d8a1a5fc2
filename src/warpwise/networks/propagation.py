"""Learned propagation: the steps of an energy's minimisation as a cascade of small networks, coarse to fine."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.blocks import SLOPE, block, conv, smoothed
from warpwise.networks.body import Body
from warpwise.networks.heads import Head
from warpwise.networks.probabilistic import FeatureBody, FeatureEncoder, FeatureSettings, bounded, drawn, means, nearby
from warpwise.ops.nodes import double, double_field
from warpwise.prediction import Prediction, Stage

FAINT = 0.01  # nats: costs that differ by less are noise
CONTEXT_SLOPE = 0.1  # of LeakyReLU in the published regularisation step

PUBLISHED: Mapping[str, Any] = {
    "encoder": "strided", "encoders": "shared", "cost": "absolute", "motion": "sum", "stages": 1, "tied": False,
    "matching": (48, 32, 16), "context": (48, 48, 32), "handed": True, "exponential": True, "squarings": 7, "kernel": 3,
    "finest": 1, "fluid": 0.0,
}  # fmt: skip
"""What `faithful` stands for; `widths` are its own, (16, 32) of one contrast and (8, 16) of several."""


class CascadeSettings(FeatureSettings):
    """An encoder, and the cascade that registers its features: at every octave data matching, regularisation and an
    exponential, as often as there are stages.

    Attributes:
        encoder: unet, whose octaves know the whole image; or strided, the published chain of convolutions, whose `widths`
            begin at half resolution and are the features themselves.
        encoders: shared by both images; or separate, where they show tissue differently.
        stages: at each octave; tied: the stages of an octave have the same weights.
        cost: neighbours, how unlike a voxel's features and those round its place are, scaled to unit variance; absolute,
            the published sum of absolute differences; or none: the features themselves.
        radius: voxels round its own place in which a voxel's features are compared.
        matching: channels of the layers that turn a cost into a velocity, the last is handed on where `handed`.
        context: channels of the dilated layers that regularise it; empty: it is taken as it is.
        exponential: of the velocity, so that no stage folds; else it is the displacement.
        motion: what a stage's velocity does. compose: its exponential is composed on what is known; velocity: it is added
            to the velocity known so far, so that the whole is one exponential; sum: as published, the *displacement* known
            so far is added to it before the exponential, which is no composition.
        squarings: of each exponential.
        diffusion: weight of that energy in the solver that stands for the cascade where certainty is asked for.
        faithful: the published network (Liu et al., TPAMI 2022): 526,444 weights of widths (16, 32). Deterministic unless
            `uncertainty` is on. Grids are halved with voxel 0 in place, where the source's lie half a voxel apart.
    """

    kind: Literal["cascade"] = "cascade"
    encoder: Literal["unet", "strided"] = "unet"
    encoders: Literal["shared", "separate"] = "shared"
    stages: int = Field(default=1, ge=1)
    tied: bool = False
    cost: Literal["neighbours", "absolute", "none"] = "neighbours"
    radius: int = Field(default=1, ge=0)
    matching: tuple[int, ...] = Field(default=(32, 24, 16), min_length=1)
    context: tuple[int, ...] = (24, 24, 16)
    handed: bool = True
    exponential: bool = True
    motion: Literal["compose", "velocity", "sum"] = "compose"
    squarings: int = 7
    diffusion: float = 10.0
    faithful: bool = False

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not values.get("faithful"):
            return values
        given: Mapping[str, Any] = values
        for name, value in PUBLISHED.items():
            told = given.get(name, value)
            if (tuple(told) if isinstance(told, list) else told) != value:  # pyright: ignore[reportUnknownArgumentType]
                raise ValueError(f"faithful: {name} is {value} as published, not {told}")
        return {"widths": (16, 32), "uncertainty": False, **PUBLISHED, **given}

    @model_validator(mode="after")
    def _grids(self) -> Self:
        if self.encoder == "strided" and self.finest != 1:
            raise ValueError("encoder: strided: its features begin at half resolution (finest: 1)")
        if self.motion == "velocity" and not self.exponential:
            raise ValueError("motion: velocity: what is added up is a velocity, whose exponential moves")
        return self

    @property
    def octaves(self) -> int:
        return len(self.widths) if self.encoder == "strided" else super().octaves

    def channels_at(self, octave: int) -> int:
        return self.widths[octave] if self.encoder == "strided" else super().channels_at(octave)

    def body(self, *, dim: int, channels: int) -> Body:
        return Cascade(self, dim=dim, channels=channels)


class Halving(nn.Module):
    """A convolution of 4 voxels an axis that keeps every second voxel, with voxel 0 in place."""

    def __init__(self, dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        kind = nn.Conv3d if dim == 3 else nn.Conv2d
        self.conv = kind(inputs, outputs, 4, stride=2)
        self.around = [1, 2] * dim

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ⌈n/2⌉ …)."""
        return self.conv(F.pad(x, self.around))


class Strided(nn.Module):
    """Half the resolution and two convolutions, octave after octave; the last of each tells the features.

    Random features have two such last ones, of means and log-variances, without an activation.

    Source: Liu et al., TPAMI 2022.
    """

    def __init__(self, settings: CascadeSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        self.uncertain, self.fixed = settings.uncertainty, settings.variances == "fixed"
        self.down = nn.ModuleList()
        self.mean = nn.ModuleList()
        self.log_variance = nn.ModuleList()
        before = channels
        for width in settings.widths:
            self.down.append(
                nn.Sequential(
                    Halving(dim, before, width), nn.LeakyReLU(SLOPE), block(dim, width, width, kernel=settings.kernel)
                )
            )
            self.mean.append(conv(dim, width, width, kernel=settings.kernel))
            if settings.uncertainty:
                self.log_variance.append(Head(dim, width, width, kernel=settings.kernel))
            before = width

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of images (B, C, *space), fine to coarse, see `GaussianFeatures`."""
        out: list[Tensor] = []
        x = image
        for n, stage in enumerate(self.down):
            x = stage(x)
            mean = self.mean[n](x)
            if self.uncertain:
                told = self.log_variance[n](x).float()
                out.append(torch.cat([mean.float(), bounded(0 * told if self.fixed else told)], 1))
            x = F.leaky_relu(mean, SLOPE)
            if not self.uncertain:
                out.append(x.float())
        return out


class DataMatching(nn.Module):
    """Matching cost, fixed features and what the coarser octave said → velocity and hidden features."""

    def __init__(self, dim: int, inputs: int, widths: tuple[int, ...], *, kernel: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(block(dim, inputs, width, kernel=kernel))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.velocity = Head(dim, inputs, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, D, *space), hidden features."""
        hidden = self.layers(x)
        return self.velocity(hidden).float(), hidden


class Context(nn.Module):
    """A correction of a velocity, from ever wider surroundings: the regularisation step."""

    def __init__(self, dim: int, widths: tuple[int, ...], *, slope: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = dim
        for n, width in enumerate(widths):
            layers += [dilated(dim, inputs, width, 2**n), nn.LeakyReLU(slope)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.correction = Head(dim, inputs, dim)

    def forward(self, velocity: Tensor) -> Tensor:
        """The corrected velocity."""
        return velocity + self.correction(self.layers(velocity)).float()


def dilated(dim: int, inputs: int, outputs: int, dilation: int) -> nn.Module:
    """A convolution of 3 voxels an axis that are `dilation` apart."""
    out = conv(dim, inputs, outputs)
    out.dilation, out.padding = (dilation,) * dim, (dilation,) * dim  # type: ignore[assignment]
    return out


class Propagation(nn.Module):
    """One stage: features of both images, and what is known so far, to a velocity that is regularised."""

    def __init__(self, settings: CascadeSettings, *, dim: int, octave: int, first: bool) -> None:
        super().__init__()
        self.settings = settings
        channels = settings.channels_at(octave)
        costs = {"neighbours": (2 * settings.radius + 1) ** dim, "absolute": 1, "none": channels}
        known = 0 if first else dim + (settings.matching[-1] if settings.handed else 0)
        self.matching = DataMatching(
            dim, costs[settings.cost] + channels + known, settings.matching, kernel=settings.kernel
        )
        slope = CONTEXT_SLOPE if settings.faithful else SLOPE
        self.context = Context(dim, settings.context, slope=slope) if settings.context else nn.Identity()

    def forward(self, fixed: Tensor, warped: Tensor, known: Tensor | None, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity (B, D, *nodes) before it moves anything, and hidden features.

        Args:
            fixed, warped: features, see `GaussianFeatures`.
            known: velocity or displacement so far; hidden: of the stage before; None in the first stage.
        """
        settings = self.settings
        parts = [self.cost(fixed, warped), means(fixed, uncertain=settings.uncertainty)]
        if known is not None:
            parts.append(known)
            parts += [hidden.float()] if settings.handed and hidden is not None else []
        update, passed = self.matching(torch.cat(parts, 1))
        if known is not None and settings.motion != "compose":
            update = known + update
        return smoothed(self.context(update), settings.fluid), passed

    def cost(self, fixed: Tensor, warped: Tensor) -> Tensor:
        """What the matching layers look at; neighbours: (B, (2·radius + 1)^D, *space), mean 0 and unit variance at a voxel.

        Untrained features differ by little, and their costs by less: taken as they are, hundreds of steps learnt nothing.
        """
        settings = self.settings
        if settings.cost != "neighbours":
            f, w = (means(x, uncertain=settings.uncertainty) for x in (fixed, warped))
            return (f - w).abs().sum(1, keepdim=True) if settings.cost == "absolute" else w
        near = nearby(fixed, warped, radius=settings.radius, uncertain=settings.uncertainty)
        centred = near - near.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + FAINT**2).sqrt()


class Cascade(FeatureBody):
    """Stages of data matching, regularisation and an exponential; each begins with what the ones before know.

    By default the matching cost is the divergence of a voxel's two posteriors (of plain features: the squared distance),
    also with its neighbours': from the source's one channel, of its own place alone, no direction can be read, and training
    on few scans did not leave the identity.

    Sources: Liu et al., TPAMI 2022 (arXiv 2004.14557); Liu et al., IJCAI 2020, whose displacements these are.
    """

    def __init__(self, settings: CascadeSettings, *, dim: int, channels: int) -> None:
        def encoder() -> nn.Module:
            kind = Strided if settings.encoder == "strided" else FeatureEncoder
            return kind(settings, dim=dim, channels=channels)

        other = encoder() if settings.encoders == "separate" else None
        super().__init__(settings, encoder(), dim=dim, channels=channels, encoder_of_moving=other)
        self.settings = settings
        count = settings.octaves
        self.stages = nn.ModuleDict()
        for n in reversed(range(count)):
            for k in range(settings.stages):
                if self.key(n, k) not in self.stages:
                    first = k == 0 and n == count - 1
                    self.stages[self.key(n, k)] = Propagation(settings, dim=dim, octave=n, first=first)

    def key(self, octave: int, stage: int) -> str:
        """By what name the weights of a stage of an octave go; the first of all looks at less, so it shares none."""
        return f"{octave}-{min(stage, int(octave == self.settings.octaves - 1)) if self.settings.tied else stage}"

    def registered(
        self, octaves: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Prediction]:
        settings = self.settings
        random = settings.uncertainty and settings.sampled
        hidden: Tensor | None = None
        passed: list[Stage] = []
        for n in reversed(range(len(octaves))):
            of_fixed, of_moving = (drawn(features, generator, uncertain=random) for features in octaves[n])
            for k in range(settings.stages):
                before = at_nodes(passed[-1], n + settings.finest, of_fixed.shape[2:]) if passed else None
                if hidden is not None and hidden.shape[2:] != of_fixed.shape[2:]:
                    hidden = double(hidden, of_fixed.shape[2:])
                warped = of_moving if before is None else ops.warp(of_moving, before.displacement)
                known = None if before is None else before.displacement
                if before is not None and settings.motion == "velocity":
                    known = before.velocity
                velocity, hidden = self.stages[self.key(n, k)](of_fixed, warped, known, hidden)
                moved = ops.exponential(velocity, squarings=settings.squarings) if settings.exponential else velocity
                if before is not None and settings.motion == "compose":
                    moved = ops.compose(before.displacement, moved)
                passed.append(Stage(n + settings.finest, moved, velocity))
        field = passed[-1].displacement
        one = settings.exponential and (settings.motion == "velocity" or len(passed) == 1)
        whole = passed[-1].velocity if one else None
        energy = field.new_tensor(settings.diffusion)
        return field, Prediction(field, velocity=whole, diffusion=energy, stages=tuple(passed))


def at_nodes(stage: Stage, octave: int, shape: Sequence[int]) -> Stage:
    """A stage on the nodes of the same octave, or the next finer one."""
    if stage.octave == octave:
        return stage
    return Stage(octave, double_field(stage.displacement, shape), double_field(stage.velocity, shape))
