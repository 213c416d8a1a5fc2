"""The pyramid in a form that is symmetric, inverse-consistent and free of folds by construction."""

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import Prediction
from warpwise.networks.blocks import double_field
from warpwise.networks.heads import GaussianHead, LabelHead, sample
from warpwise.networks.pyramid import Comparison, Encoder, PyramidSettings


class SymmetricSettings(PyramidSettings):
    """Of the same sizes; updates are short, so there are more of them."""

    iterations: tuple[int, ...] = (3, 3, 3, 3)

    def build(self, *, dim: int, channels: int) -> nn.Module:
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


class SymmetricPyramid(nn.Module):
    """Both images are moved towards a middle, by a and by b; φ = b∘a⁻¹ and its inverse a∘b⁻¹.

    At every level both features are warped into the middle, and the update w = g(A, B) − g(B, A) moves one by −w/2 and
    the other by +w/2: exchanging the images exchanges a and b, bit for bit, and so φ with its inverse. Every update is
    bounded so that it is invertible (`bounded`).

    Source: after SITReg (Honkamaa and Marttinen, MELBA 2024), which bounds B-spline coefficients instead.
    """

    def __init__(self, settings: SymmetricSettings, *, dim: int, channels: int) -> None:
        super().__init__()
        widths, hidden = settings.features, settings.hidden
        self.iterations = settings.iterations
        self.encoder = Encoder(dim, channels, widths, kernel=settings.kernel)
        options = {"radius": settings.radius, "kernel": settings.kernel}
        self.compare = nn.ModuleList([Comparison(dim, width, hidden, **options) for width in widths])
        heads = [GaussianHead(dim, hidden, uncertain=settings.uncertainty and n == 0) for n in range(len(widths))]
        for head in heads:
            head.mean.conv.register_parameter("bias", None)  # it would cancel in the difference
        self.update = nn.ModuleList(heads)
        self.labels = LabelHead(dim, widths[0], settings.labels) if settings.labels else None

    def halves(
        self, levels: list[tuple[Tensor, Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Prediction]:
        """Displacements from the middle to the fixed and to the moving image, at half resolution; and the posterior."""
        posterior: Prediction = {}
        one: Tensor | None = None
        other: Tensor | None = None
        for level in reversed(range(len(self.compare))):
            still, move = levels[level]
            if one is None or other is None:
                one = other = torch.zeros_like(still[:, : still.dim() - 2], dtype=torch.float32)
            else:
                one, other = (double_field(half, still.shape[2:]) for half in (one, other))
            for _ in range(self.iterations[level]):
                a, b = ops.warp(still.float(), one).to(still), ops.warp(move.float(), other).to(move)
                both = self.compare[level](torch.cat([a, b]), torch.cat([b, a]))
                velocity, found = self.update[level](both)
                step = antisymmetric(velocity).float()
                if found:
                    there, back = found["log_variance"].chunk(2)
                    log_variance = 0.5 * (there + back)
                    posterior = {"mean": step, "log_variance": log_variance}
                    step = sample(step, log_variance, generator)
                one = ops.compose(one, bounded(-step))
                other = ops.compose(other, bounded(step))
        assert one is not None
        assert other is not None
        return one, other, posterior

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images (B, C, *space) of any size."""
        levels = self.encoder(fixed, moving)
        one, other, out = self.halves(levels, generator)
        shape = tuple(fixed.shape[2:])
        for name, first, second in (("displacement", one, other), ("inverse", other, one)):
            out[name] = double_field(ops.compose(second, ops.inverse(first)), shape)
        if self.labels is not None:
            out |= self.labels(levels[0][0], shape)
        return out
