"""Features as random variables: a Siamese encoder that gives every voxel a diagonal Gaussian, at several octaves."""

import math
from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import NetworkSettings
from warpwise.networks.blocks import block, conv, smoothed
from warpwise.networks.body import Body
from warpwise.networks.heads import Head, sample
from warpwise.ops.nodes import double, double_field, on_voxels
from warpwise.prediction import FeatureOctave, Features, Posterior, Prediction, at_octave

LONGEST = 6.0  # of a log-variance, either way: exp of more would drown all other evidence
FIRST = -2.0  # log-variance before training: with more, noise drowns the first features
WINDOW = 2  # voxels round the one whose intensity is normalised
FLAT = 5e-3  # variance of noise, as in `ops.lncc`
PACE = 10.0  # the logarithm of a weight of diffusion learns so many times faster than weights do
REACH = 2.0  # voxels: no step is longer


class FeatureSettings(NetworkSettings, ABC):
    """An encoder's sizes.

    Attributes:
        uncertainty: whether features have a variance; without one they are plain numbers.
        variances: learned; or fixed: everywhere the one that learned ones begin with.
        widths: channels at full, half, quarter … resolution; one more octave each.
        features: dimensions of the Gaussian at each octave.
        finest: octave that features begin at: 0 full resolution, 1 half, 2 a quarter ….
        kernel: of every convolution.
        rounds: of registration; each registers what the ones before left.
        conditioned: whether later rounds encode the moving image anew where it was moved to, or move its features.
        decoded: also tell the images from the features, one convolution an octave, for the term `reconstruction`.
        sampled: in training, draw the means from their posterior; else the divergence alone, which is of the posteriors
            themselves, teaches the variances.
    """

    uncertainty: bool = True
    variances: Literal["learned", "fixed"] = "learned"
    widths: tuple[int, ...] = (16, 32, 48, 48)
    features: int = Field(default=8, ge=1)
    finest: int = Field(default=1, ge=0)
    kernel: int = 3
    rounds: int = Field(default=1, ge=1)
    conditioned: bool = True
    decoded: bool = False
    sampled: bool = False

    @property
    def octaves(self) -> int:
        """How many there are with features."""
        return len(self.widths) - self.finest

    def channels_at(self, octave: int) -> int:  # noqa: ARG002 - alike at all
        """Dimensions of the features at one of them, 0 the finest."""
        return self.features

    @model_validator(mode="after")
    def _octaves(self) -> Self:
        if self.octaves < 1:
            raise ValueError(f"widths {self.widths} end before octave {self.finest}, where features are to begin")
        if self.variances == "fixed" and not self.uncertainty:
            raise ValueError("variances: fixed ones are an uncertainty, too, and uncertainty is off")
        return self


class GaussianFeatures(nn.Module):
    """Two convolutions: mean and log-variance of the features at one octave; only the mean where nothing is random."""

    def __init__(self, dim: int, width: int, settings: FeatureSettings) -> None:
        super().__init__()
        self.mean = conv(dim, width, settings.features)
        # Fixed ones keep the head, so that both kinds begin with the same weights and a step takes as long.
        self.log_variance = Head(dim, width, settings.features) if settings.uncertainty else None
        self.fixed = settings.variances == "fixed"

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, *space): C means, then C log-variances; or C means."""
        mean = self.mean(x).float()
        if self.log_variance is None:
            return mean
        told = self.log_variance(x).float()
        told = 0 * told if self.fixed else told
        return torch.cat([mean, bounded(told)], 1)


def bounded(told: Tensor) -> Tensor:
    """A log-variance of what a head says, near `FIRST` at first and never beyond `LONGEST`."""
    return LONGEST * torch.tanh((told + FIRST) / LONGEST)


class FeatureEncoder(nn.Module):
    """A U-Net whose every decoder stage tells its features: wide context, at full detail.

    Source: the posterior features of Liu et al., IJCAI 2020, with a path back to fine octaves.
    """

    def __init__(self, settings: FeatureSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, kernel = settings.widths, settings.kernel
        self.finest, self.uncertain = settings.finest, settings.uncertainty
        self.down = nn.ModuleList()
        before = channels
        for n, width in enumerate(widths):
            stages = [block(dim, before, width, kernel=kernel, stride=1 if n == 0 else 2)]
            if n > 0:
                stages.append(block(dim, width, width, kernel=kernel))
            self.down.append(nn.Sequential(*stages))
            before = width
        self.up = nn.ModuleList([
            block(dim, widths[n] + widths[n + 1], widths[n], kernel=kernel) for n in range(settings.finest, len(widths) - 1)
        ])
        self.heads = nn.ModuleList([GaussianFeatures(dim, width, settings) for width in widths[settings.finest :]])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of images (B, C, *space) at every octave, fine to coarse, see `GaussianFeatures`."""
        skips: list[Tensor] = []
        x = image
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        skips = skips[self.finest :]
        out = [self.heads[-1](x)]
        for n in reversed(range(len(self.up))):
            x = self.up[n](torch.cat([double(x, skips[n].shape[2:]), skips[n]], 1))
            out.append(self.heads[n](x))
        return out[::-1]


class IntensityFeatures(nn.Module):
    """Nothing learned: intensities less the mean of their window, over its standard deviation, at every octave.

    Their squared distance is local correlation to second order: what learned features are to be compared with.
    """

    def __init__(self, octaves: int, *, finest: int) -> None:
        super().__init__()
        self.octaves, self.finest = octaves, finest

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, *space) at every octave, fine to coarse."""
        out: list[Tensor] = []
        for octave in ops.pyramid(image.float(), octaves=self.octaves)[self.finest :]:
            mean = ops.box(octave, radius=WINDOW)
            variance = (ops.box(octave * octave, radius=WINDOW) - mean * mean).clamp(min=0)
            out.append((octave - mean) * torch.rsqrt(variance + FLAT))
        return out


def of_both(
    encoder: nn.Module, fixed: Tensor, moving: Tensor, of_moving: nn.Module | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Features of two images at every octave, fine to coarse; the moving one's by an encoder of its own, if it has one."""
    if of_moving is not None:
        return [*zip(encoder(fixed), of_moving(moving), strict=True)]
    both = encoder(torch.cat([fixed, moving]))  # one batch: PyTorch's convolutions are slow on a batch of one
    return [(of_fixed, of_moving) for of_fixed, of_moving in (features.chunk(2) for features in both)]


def means(features: Tensor, *, uncertain: bool) -> Tensor:
    """Features without their log-variances."""
    return features.chunk(2, 1)[0].contiguous() if uncertain else features


def drawn(features: Tensor, generator: torch.Generator | None, *, uncertain: bool) -> Tensor:
    """The same features with their means drawn from the posterior; as they are where there is no generator."""
    if generator is None or not uncertain:
        return features
    mean, log_variance = features.chunk(2, 1)
    return torch.cat([sample(Posterior(mean, log_variance), generator), log_variance], 1)


def nearby(fixed: Tensor, warped: Tensor, *, radius: int, uncertain: bool) -> Tensor:
    """How far the fixed features of a voxel are from the warped ones of each neighbour: ((2·radius + 1)^D channels).

    The symmetrised KL of two Gaussians, nats, or the squared distance of plain features, a dimension. Both are inner
    products of vectors that each side makes on its own, so all neighbours are one cost volume.
    """
    if not uncertain:
        one = torch.ones_like(fixed)
        sides = [fixed**2, one, -2 * fixed], [one, warped**2, warped]
    else:
        (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
        vf, vw, pf, pw = lf.exp(), lw.exp(), (-lf).exp(), (-lw).exp()
        one = torch.ones_like(mf)
        sides = (
            [vf, pf, mf**2 * pf - 2, mf**2, -2 * mf * pf, -2 * mf, pf, one],
            [pw, vw, one, pw, mw, mw * pw, mw**2, mw**2 * pw],
        )
        sides = [0.25 * x for x in sides[0]], sides[1]
    # Beyond the border, and beside a single slice, there is nothing, which is no distance of 0: it counts as the border.
    around = [radius] * (2 * (fixed.dim() - 2))
    both = (F.pad(torch.cat(side, 1), around, mode="replicate") for side in sides)
    inner = (..., *[slice(radius, radius + n) for n in fixed.shape[2:]])
    # A cost volume is a mean over channels, of which every dimension of the features has as many as there are terms.
    return len(sides[0]) * ops.cost_volume(*both, radius=radius)[inner]


def numbered(octaves: list[tuple[Tensor, Tensor]], finest: int, *, uncertain: bool) -> Features:
    """Features of two images, fine to coarse, as part of a prediction: with the octaves they belong to."""
    return Features(
        tuple(FeatureOctave(n, fixed, moving) for n, (fixed, moving) in enumerate(octaves, start=finest)), uncertain
    )


def shortened(step: Tensor) -> Tensor:
    """A displacement none of whose vectors is longer than `REACH`, and short ones as they are."""
    length = (step.square().sum(1, keepdim=True) + 1e-12).sqrt() / REACH
    return step * (torch.tanh(length) / length)


class MatchingSettings(FeatureSettings):
    """An encoder, and the solver that registers its features.

    Attributes:
        encoder: learned; or intensity: local normalisation, where only the weight of diffusion is learned.
        data: kl, the symmetrised divergence of the two posteriors; or means, the squared distance of their means.
        stages: Gauss-Newton steps at each octave, fine to coarse; each is composed on what is known so far.
        solves: conjugate gradients of a step.
        diffusion: weight of the diffusion energy before training; it is learned, one an octave.
    """

    kind: Literal["features"] = "features"
    encoder: Literal["learned", "intensity"] = "learned"
    data: Literal["kl", "means"] = "kl"
    stages: tuple[int, ...] = (4, 4, 4)
    solves: int = Field(default=12, ge=1)
    diffusion: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _stages(self) -> Self:
        if len(self.stages) != self.octaves:
            raise ValueError(f"{len(self.stages)} stages for {self.octaves} octaves of features")
        if self.encoder == "intensity" and self.labels:
            raise ValueError("labels cannot be told from intensities: nothing is learned of them")
        return self

    def body(self, *, dim: int, channels: int) -> Body:
        return FeatureMatching(self, dim=dim, channels=channels)


class FeatureBody(Body, ABC):
    """Encodes both images and registers their features; then, as often as wanted, what is left of the registration.

    In a later round the moving image is moved by what is known, and its features are encoded anew: f = enc(I∘φ), as in
    Liu et al., IJCAI 2020. The φ that conditions them counts as given; the one that the answer is composed of does not.
    """

    def __init__(
        self,
        settings: FeatureSettings,
        encoder: nn.Module,
        *,
        dim: int,
        channels: int,
        encoder_of_moving: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.shared = settings
        self.encoder, self.encoder_of_moving = encoder, encoder_of_moving
        widths = [settings.channels_at(n) for n in range(settings.octaves)]
        self.decoder = nn.ModuleList([conv(dim, width, channels) for width in widths * settings.decoded])
        self.width, self.octave = widths[0], settings.finest

    @property
    def uncertain(self) -> bool:
        """Whether features have variances."""
        return self.shared.uncertainty

    @abstractmethod
    def registered(
        self, octaves: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Prediction]:
        """The displacement on the nodes of the finest octave, in voxels of theirs; and what else is known of it, with a
        displacement that is no answer yet."""

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        settings = self.shared
        octaves, shown = of_both(self.encoder, fixed, moving, self.encoder_of_moving), moving
        whole = left = None
        found: Prediction | None = None
        rounds: list[Features] = []
        for _ in range(settings.rounds):
            if whole is not None and left is not None:
                octaves, shown = self.moved(octaves, moving, whole.detach(), left.detach())
            nodes, found = self.registered(octaves, generator)
            left = on_voxels(nodes, fixed.shape[2:], octave=settings.finest)
            whole = left if whole is None else ops.compose(whole, left)
            features = numbered(octaves, settings.finest, uncertain=self.uncertain)
            if settings.rounds > 1:
                features, found = features._replace(left=left), found._replace(velocity=None, stages=())
            if settings.decoded:
                features = features._replace(unexplained=self.unexplained(octaves, fixed, shown, generator))
            rounds.append(features)
        assert found is not None
        assert whole is not None
        last = rounds[-1]._replace(before=tuple(rounds[:-1]))
        return found._replace(displacement=whole, features=last), means(octaves[0][0], uncertain=self.uncertain)

    def moved(
        self, octaves: list[tuple[Tensor, Tensor]], moving: Tensor, whole: Tensor, left: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Features of the fixed image as they are, those of the moving image where it was moved to, and that image.

        Displacements count as given: `whole` moves the image, `left` what was left of it in the round before its features.
        """
        shown = ops.warp(moving.float(), whole).to(moving)
        if self.shared.conditioned:
            again = (self.encoder_of_moving or self.encoder)(shown)
            return [(of_fixed, of_moving) for (of_fixed, _), of_moving in zip(octaves, again, strict=True)], shown
        return [
            (of_fixed, ops.warp(of_moving, at_octave(left, n)))
            for n, (of_fixed, of_moving) in enumerate(octaves, start=self.shared.finest)
        ], shown

    def unexplained(
        self, octaves: list[tuple[Tensor, Tensor]], fixed: Tensor, moving: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """What the decoder says of drawn features, less the images at each octave."""
        both = torch.cat([fixed, moving]).float()
        images = ops.pyramid(both, octaves=self.shared.finest + self.shared.octaves)[self.shared.finest :]
        out: list[Tensor] = []
        for decode, features, image in zip(self.decoder, octaves, images, strict=True):
            random = drawn(torch.cat(features), generator, uncertain=self.uncertain)
            out.append(decode(means(random, uncertain=self.uncertain)).float() - image)
        return tuple(out)


class FeatureMatching(FeatureBody):
    """Features are learned so that the solver inside the network, which registers *them*, registers the images.

    That solver minimises the divergence of the posteriors and the displacement's diffusion energy, octave by octave;
    the encoder is trained through its stationary points (`ops.match`), with nothing stored of its iterations.

    Sources: Liu et al., IJCAI 2020; Jena et al., Medical Image Analysis 2025.
    """

    def __init__(self, settings: MatchingSettings, *, dim: int, channels: int) -> None:
        encoder: nn.Module
        if settings.encoder == "learned":
            encoder = FeatureEncoder(settings, dim=dim, channels=channels)
        else:
            encoder = IntensityFeatures(len(settings.widths), finest=settings.finest)
        super().__init__(settings, encoder, dim=dim, channels=channels)
        self.settings = settings
        count = len(settings.widths) - settings.finest
        self.pace = nn.Parameter(torch.full((count,), math.log(settings.diffusion) / PACE))

    @property
    def uncertain(self) -> bool:
        return self.settings.uncertainty and self.settings.encoder == "learned"

    def diffusion(self, octave: int) -> Tensor:
        """Weight of the diffusion energy, of the octaves of features, 0 the finest; 0-dim."""
        return (PACE * self.pace[octave]).exp()

    def registered(
        self, octaves: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Prediction]:
        settings = self.settings
        data = settings.data if self.uncertain else "means"
        sampled = self.uncertain and settings.sampled
        coarsest = octaves[-1][0]
        field = coarsest.new_zeros(len(coarsest), coarsest.dim() - 2, *coarsest.shape[2:])
        with torch.autocast(coarsest.device.type, enabled=False):
            for n in reversed(range(len(octaves))):
                of_fixed, of_moving = (drawn(features, generator, uncertain=sampled) for features in octaves[n])
                if data == "means":
                    of_fixed, of_moving = (means(features, uncertain=self.uncertain) for features in (of_fixed, of_moving))
                if n + 1 < len(octaves):
                    field = double_field(field, of_fixed.shape[2:])
                for _ in range(settings.stages[n]):
                    warped = ops.warp(of_moving, field)
                    step = ops.match(of_fixed, warped, self.diffusion(n), data=data, solves=settings.solves)
                    field = ops.compose(field, smoothed(shortened(step), settings.fluid))
        return field, Prediction(field, diffusion=self.diffusion(0))
