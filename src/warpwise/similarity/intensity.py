"""Similarities of intensities themselves: squared difference and global correlation."""

from abc import ABC
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from warpwise.ops import kernels
from warpwise.ops.statistics import correlation
from warpwise.shapes import Array, Channels, Map1
from warpwise.similarity.base import Fused, LinearMeasure, Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class MSE(Similarity):
    """Mean squared difference over the mask."""

    term: Literal["mse"] = "mse"
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("mse", "mse")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return ops.mse(alignment.fixed, alignment.warped, weight=alignment.mask).mean()

    def channels(self, image: Channels) -> Array:
        return image

    def curvature(self, warped: Channels, weight: Map1 | None, shares: Array) -> Channels:
        voxels = float(np.prod(warped.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        curved = np.broadcast_to((2 / max(voxels, 1.0) * shares).astype(np.float32)[:, None, None, None], warped.shape)
        return np.ascontiguousarray(curved if weight is None else curved * weight)

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        voxels = float(np.prod(fixed.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        share = shares / max(voxels, 1.0)

        def evaluate(warped: Channels, gradient: Channels) -> float:
            return float(kernels.squared_difference(fixed, warped, weight, scale=2 * share, gradient=gradient) @ share)

        return evaluate


class SquaredDifference(Similarity, ABC):
    """Mean squared difference of what stands for the image: descriptors, features."""

    def curvature(self, warped: Channels, weight: Map1 | None, shares: Array) -> Channels:
        return MSE().curvature(warped, weight, self.shared(shares, len(warped)))

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        return MSE().fused(fixed, weight, self.shared(shares, len(fixed)))

    @staticmethod
    def shared(shares: Array, channels: int) -> Array:
        """The shares of an image's channels, each handed on to the descriptors made of it."""
        return (np.repeat(shares, channels // len(shares)) * len(shares) / channels).astype(np.float32)


class NCC(Similarity):
    """Global normalised cross-correlation over the mask, negated."""

    term: Literal["ncc"] = "ncc"
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("ncc", "ncc")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return -ops.ncc(alignment.fixed, alignment.warped, weight=alignment.mask).mean()

    def channels(self, image: Channels) -> Array:
        return image

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        def evaluate(warped: Channels, gradient: Channels) -> float:
            total = 0.0
            coefficients = np.zeros((fixed.shape[0], 3))
            for n, sums in enumerate(kernels.moments(fixed, warped, weight)):
                value, coefficients[n] = correlation(sums)
                total -= float(shares[n]) * value
                coefficients[n] *= -float(shares[n])
            kernels.blend(fixed, warped, weight, coefficients, out=gradient)
            return total

        return evaluate
