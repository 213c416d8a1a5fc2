"""The pyramid in a form that is symmetric, inverse-consistent and free of folds by construction."""

from typing import Literal

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.blocks import smoothed
from warpwise.networks.body import Body
from warpwise.networks.heads import GaussianHead, sample
from warpwise.networks.pyramid import Comparison, DualStreamSettings, Encoder
from warpwise.ops.nodes import double_field, on_voxels
from warpwise.prediction import Posterior, Prediction


class SymmetricSettings(DualStreamSettings):
    """Of the same sizes; updates are short, so there are more of them."""

    kind: Literal["symmetric"] = "symmetric"
    iterations: tuple[int, ...] = (3, 3, 3, 3)

    def body(self, *, dim: int, channels: int) -> Body:
        return SymmetricPyramid(self, dim=dim, channels=channels)


def bounded(update: Tensor) -> Tensor:
    """A displacement (B, D, *space) no component of which reaches 1/(2·D) voxel.

    Linear between nodes, its slopes then add up to less than 1 along every row of the Jacobian, so x + u(x) is a
    contraction away from the identity: it has an inverse, everywhere, and no fold.
    """
    limit = 0.99 / (2 * update.shape[1])
    return limit * torch.tanh(update / limit)


def antisymmetric(both: Tensor) -> Tensor:
    """Half the difference of what a batch of (A, B) and (B, A) gave."""
    there, back = both.chunk(2)
    return 0.5 * (there - back)


class SymmetricPyramid(Body):
    """Both images are moved towards a middle, by a and by b; φ = b∘a⁻¹ and its inverse a∘b⁻¹.

    At every scale both features are warped into the middle, and the update w = g(A, B) − g(B, A) moves one by −w/2 and
    the other by +w/2: exchanging the images exchanges a and b, bit for bit, and so φ with its inverse. Every update is
    bounded so that it is invertible (`bounded`).

    Source: after SITReg (Honkamaa and Marttinen, MELBA 2024), which bounds B-spline coefficients instead.
    """

    def __init__(self, settings: SymmetricSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        self.iterations, self.fluid = settings.iterations, settings.fluid
        self.encoder = Encoder(dim, channels, settings)
        options = {"radius": settings.radius, "kernel": settings.kernel}
        self.compare = nn.ModuleList([Comparison(dim, *both, **options) for both in settings.widths])
        heads = [
            GaussianHead(dim, hidden, uncertain=settings.uncertainty and n == 0)
            for n, (_, hidden) in enumerate(settings.widths)
        ]
        for head in heads:
            head.mean.conv.register_parameter("bias", None)  # it would cancel in the difference
        self.update = nn.ModuleList(heads)
        self.width, self.octave = settings.features[0], settings.finest

    def halves(
        self, scales: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Posterior | None]:
        """Displacements from the middle to the fixed and to the moving image, at the finest nodes; and the posterior."""
        posterior: Posterior | None = None
        to_fixed: Tensor | None = None
        to_moving: Tensor | None = None
        for scale in reversed(range(len(self.compare))):
            fixed, moving = scales[scale]
            if to_fixed is None or to_moving is None:
                to_fixed = to_moving = torch.zeros_like(fixed[:, : fixed.dim() - 2], dtype=torch.float32)
            else:
                to_fixed, to_moving = (double_field(half, fixed.shape[2:]) for half in (to_fixed, to_moving))
            for _ in range(self.iterations[scale]):
                a = ops.warp(fixed.float(), to_fixed).to(fixed)
                b = ops.warp(moving.float(), to_moving).to(moving)
                both = self.compare[scale](torch.cat([a, b]), torch.cat([b, a]))
                velocity, of_both = self.update[scale](both)
                step = antisymmetric(velocity).float()
                if of_both is not None:
                    there, back = of_both.log_variance.chunk(2)
                    posterior = Posterior(step, 0.5 * (there + back))
                    step = sample(posterior, generator)
                step = smoothed(step, self.fluid)
                to_fixed = ops.compose(to_fixed, bounded(-step))
                to_moving = ops.compose(to_moving, bounded(step))
        assert to_fixed is not None
        assert to_moving is not None
        return to_fixed, to_moving, posterior

    def motion(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> tuple[Prediction, Tensor]:
        scales = self.encoder(fixed, moving)
        to_fixed, to_moving, posterior = self.halves(scales, generator)
        shape = tuple(fixed.shape[2:])
        there, back = (
            on_voxels(ops.compose(outer, ops.inverse(inner)), shape, octave=self.octave)
            for outer, inner in ((to_moving, to_fixed), (to_fixed, to_moving))
        )
        return Prediction(there, inverse=back, posterior=posterior), scales[0][0]
