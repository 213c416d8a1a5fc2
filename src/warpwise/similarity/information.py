"""Mutual information."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from warpwise.ops import kernels
from warpwise.ops.statistics import information
from warpwise.shapes import Array, Channels, Map1
from warpwise.similarity.base import Fused, LinearMeasure, Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class MutualInformation(Similarity):
    """Mutual information with cubic B-spline Parzen windows, negated, in nats.

    Intensities of 0 … 1.2 fill the inner bins (see `image.normalised`).

    Source: Mattes et al., IEEE TMI 2003.
    """

    term: Literal["mi"] = "mi"
    bins: int = Field(default=32, ge=8)
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("mi", "mi")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return -ops.mutual_information(alignment.fixed, alignment.warped, bins=self.bins, weight=alignment.mask).mean()

    def channels(self, image: Channels) -> Array:
        return image

    def ranges(self) -> Array:
        """Low end and bins per unit of intensity, for fixed and for moving."""
        scale = (self.bins - 3) / 1.2
        return np.array([0.0, scale, 0.0, scale], np.float32)

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        ranges = self.ranges()
        mask = None if weight is None else weight[0]

        def evaluate(warped: Channels, gradient: Channels) -> float:
            total = 0.0
            for n in range(len(fixed)):
                counts = kernels.joint_histogram(fixed[n], warped[n], mask, ranges=ranges, bins=self.bins)
                value, potential = information(counts)
                share = float(shares[n])
                total -= share * value
                scale = -share * float(ranges[3])
                kernels.histogram_gradient(
                    fixed[n], warped[n], mask, ranges=ranges, potential=potential, scale=scale, out=gradient[n]
                )
            return total

        return evaluate
