"""Learned propagation: the steps of an energy's minimisation as a short cascade of small networks, coarse to fine."""

from typing import Literal

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.blocks import SLOPE, block, conv, double, double_field, smoothed
from warpwise.networks.body import Body
from warpwise.networks.heads import Head
from warpwise.networks.probabilistic import FeatureBody, FeatureEncoder, FeatureSettings, drawn, means, nearby
from warpwise.prediction import Prediction

FAINT = 0.01  # nats: costs that differ by less are noise


class CascadeSettings(FeatureSettings):
    """An encoder, and the cascade that registers its features.

    Attributes:
        matching: channels of the layers that turn a matching cost into a velocity, the last is handed on.
        context: channels of the dilated layers that regularise it.
        radius: voxels round its own place in which a voxel's features are compared.
        squarings: of each exponential.
        diffusion: weight of that energy in the solver that stands for the cascade where certainty is asked for.
    """

    kind: Literal["cascade"] = "cascade"
    matching: tuple[int, ...] = (32, 24, 16)
    context: tuple[int, ...] = (24, 24, 16)
    radius: int = 1
    squarings: int = 7
    diffusion: float = 10.0

    def body(self, *, dim: int, channels: int) -> Body:
        return Cascade(self, dim=dim, channels=channels)


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
        return self.velocity(hidden), hidden


class Context(nn.Module):
    """A correction of a velocity, from ever wider surroundings: the regularisation step."""

    def __init__(self, dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = dim
        for n, width in enumerate(widths):
            layers += [dilated(dim, inputs, width, 2**n), nn.LeakyReLU(SLOPE)]
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


class Cascade(FeatureBody):
    """Data matching, regularisation and an exponential at every octave; each begins with the coarser one's velocity.

    The matching cost is the divergence of a voxel's two posteriors (of plain features: the squared distance), also with
    its neighbours': from the source's one channel, of its own place alone, no direction can be read, and training on few
    scans did not leave the identity.

    Sources: Liu et al., TPAMI 2022 (arXiv 2004.14557); Liu et al., IJCAI 2020, whose displacements these are.
    """

    def __init__(self, settings: CascadeSettings, *, dim: int, channels: int) -> None:
        super().__init__(settings, FeatureEncoder(settings, dim=dim, channels=channels), dim=dim, channels=channels)
        self.settings = settings
        count = len(settings.widths) - settings.finest
        handed = settings.matching[-1]
        compared = (2 * settings.radius + 1) ** dim + settings.features
        inputs = [compared + (dim + handed if n < count - 1 else 0) for n in range(count)]
        self.matching = nn.ModuleList([
            DataMatching(dim, number, settings.matching, kernel=settings.kernel) for number in inputs
        ])
        self.context = nn.ModuleList([Context(dim, settings.context) for _ in range(count)])

    def registered(
        self, octaves: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Prediction]:
        settings = self.settings
        random = settings.uncertainty and settings.sampled
        velocity: Tensor | None = None
        hidden: Tensor | None = None
        field: Tensor | None = None
        for n in reversed(range(len(octaves))):
            of_fixed, of_moving = (drawn(features, generator, uncertain=random) for features in octaves[n])
            space = of_fixed.shape[2:]
            mean = means(of_fixed, uncertain=settings.uncertainty)
            if velocity is None or hidden is None or field is None:
                update, hidden = self.matching[n](torch.cat([self.cost(of_fixed, of_moving), mean], 1))
                velocity = update.float()
            else:
                velocity, field = (double_field(x, space) for x in (velocity, field))
                warped = ops.warp(of_moving, field)
                update, hidden = self.matching[n](
                    torch.cat([self.cost(of_fixed, warped), mean, velocity, double(hidden, space).float()], 1)
                )
                velocity = velocity + update.float()
            velocity = smoothed(self.context[n](velocity), settings.fluid)
            field = ops.exponential(velocity, squarings=settings.squarings)
        assert field is not None
        assert velocity is not None
        return field, Prediction(field, velocity=velocity, diffusion=field.new_tensor(settings.diffusion))

    def cost(self, fixed: Tensor, warped: Tensor) -> Tensor:
        """What the matching layers look at: (B, (2·radius + 1)^D, *space), mean 0 and about unit variance at each voxel.

        Untrained features differ by little, and their costs by less: taken as they are, hundreds of steps learnt nothing.
        """
        near = nearby(fixed, warped, radius=self.settings.radius, uncertain=self.settings.uncertainty)
        centred = near - near.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + FAINT**2).sqrt()
