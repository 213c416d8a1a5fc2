"""The pyramid in a form that is symmetric, inverse-consistent and free of folds by construction."""

import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.networks.base import Prediction
from warpwise.networks.blocks import cropped, double_field, padded
from warpwise.networks.heads import GaussianHead, LabelHead
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
        self.multiple = 2 ** len(widths)
        self.iterations = settings.iterations
        self.encoder = Encoder(dim, channels, widths, kernel=settings.kernel)
        options = {"radius": settings.radius, "kernel": settings.kernel}
        self.compare = nn.ModuleList([Comparison(dim, width, hidden, **options) for width in widths])
        self.update = nn.ModuleList([
            GaussianHead(dim, hidden, uncertain=settings.uncertainty and n == 0) for n in range(len(widths))
        ])
        self.labels = LabelHead(dim, widths[0], settings.labels) if settings.labels else None

    def halves(
        self, streams: tuple[list[Tensor], list[Tensor]], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Prediction]:
        """Displacements from the middle to the fixed and to the moving image, at half resolution; and the posterior."""
        posterior: Prediction = {}
        one: Tensor | None = None
        other: Tensor | None = None
        for level in reversed(range(len(self.compare))):
            still, move = (stream[level] for stream in streams)
            if one is None or other is None:
                one = other = torch.zeros_like(still[:, : still.dim() - 2], dtype=torch.float32)
            else:
                one, other = double_field(one), double_field(other)
            for _ in range(self.iterations[level]):
                a, b = ops.warp(still.float(), one).to(still), ops.warp(move.float(), other).to(move)
                there, posterior = self.update[level](self.compare[level](a, b), generator)
                # The mirrored pass takes no sample of its own: noise would break the symmetry of the mean otherwise.
                back, mirrored = self.update[level](self.compare[level](b, a), None)
                step = 0.5 * (there - back).float()
                if posterior:
                    posterior = {
                        "mean": 0.5 * (posterior["mean"] - mirrored["mean"]),
                        "log_variance": 0.5 * (posterior["log_variance"] + mirrored["log_variance"]),
                    }
                one = ops.compose(one, bounded(-step))
                other = ops.compose(other, bounded(step))
        assert one is not None
        assert other is not None
        return one, other, posterior

    def forward(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """Images (B, C, *space) of any size."""
        streams = self.encoder(padded(fixed, self.multiple)), self.encoder(padded(moving, self.multiple))
        one, other, out = self.halves(streams, generator)
        shape = tuple(fixed.shape[2:])
        for name, first, second in (("displacement", one, other), ("inverse", other, one)):
            out[name] = cropped(double_field(ops.compose(second, ops.inverse(first))), shape)
        if self.labels is not None:
            out |= self.labels(streams[0][0], shape)
        return out
