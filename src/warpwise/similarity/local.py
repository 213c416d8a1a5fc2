"""Local normalised cross-correlation."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from warpwise.ops import kernels
from warpwise.shapes import Array, Channels, Map1
from warpwise.similarity.base import Fused, LinearMeasure, Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


RADIUS, PUBLISHED_RADIUS = 2, 4


class LNCC(Similarity):
    """Local normalised cross-correlation in boxes of 2·radius + 1 voxels, negated, averaged over the mask.

    The squared form ignores the sign of the correlation, so tissue may be bright in one image and dark in the other.
    `epsilon` is the variance (intensities 0 … 1) of noise that both windows are taken to share: where there is less than
    that, noise would otherwise pull as hard as anatomy. See `ops.lncc`. Without a radius it is
    2, or what a solver's scale has. `mapped` compares twice, in the contrast of either image (`similarity.mapping`): for
    images that show tissue differently. Solvers learn the two curves anew at every scale. `faithful` is the form that
    VoxelMorph published and most networks were trained by, for comparison and for training alone: windows of 9 voxels an
    axis, zeros beyond the border, and 1e-5 beside the product of the windows' *summed* squares, so that even the faintest
    noise counts in full.

    Sources: Avants et al., Medical Image Analysis 2008; `faithful`: Balakrishnan et al., IEEE TMI 2019.
    """

    term: Literal["lncc"] = "lncc"
    radius: int | None = Field(default=None, ge=0)
    signed: bool = False
    epsilon: float = Field(default=5e-3, gt=0)
    mapped: bool = False
    faithful: bool = False
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("lncc", "mi")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        fixed, warped = alignment.fixed, alignment.warped
        if self.mapped:
            from warpwise.similarity.mapping import mapped_tensors  # noqa: PLC0415 - likewise

            fixed, warped = mapped_tensors(fixed, warped, alignment.mask)
        if self.faithful:
            from warpwise.similarity.published import lncc  # noqa: PLC0415 - likewise

            radius = PUBLISHED_RADIUS if self.radius is None else self.radius
            return -lncc(fixed, warped, alignment.mask, radius=radius).mean()
        value = ops.lncc(
            fixed,
            warped,
            radius=RADIUS if self.radius is None else self.radius,
            weight=alignment.mask,
            signed=self.signed,
            epsilon=self.epsilon,
        )
        return -value.mean()

    @model_validator(mode="after")
    def _published(self) -> Self:
        if self.faithful and (self.signed or "epsilon" in self.model_fields_set):
            raise ValueError("the faithful form has a sign and an epsilon of its own")
        return self

    @property
    def fusable(self) -> bool:
        return not self.faithful

    @property
    def both_contrasts(self) -> bool:
        return self.mapped

    def channels(self, image: Channels) -> Array:
        return image

    def curvature(self, warped: Channels, weight: Map1 | None, shares: Array) -> Channels:
        # A window's squared correlation falls by |δ⊥|² over its own energy; a voxel lies in as many windows as one holds.
        voxels = float(np.prod(warped.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        near = RADIUS if self.radius is None else self.radius
        windows = [("box", float(near) if n > 1 else 0.0) for n in warped.shape[1:]]
        variance = kernels.separable(warped * warped, windows)
        variance -= np.square(kernels.separable(warped, windows))
        np.maximum(variance, 0, out=variance)
        variance += np.float32(self.epsilon)
        curved = (2 / max(voxels, 1.0) * shares).astype(np.float32)[:, None, None, None] / variance
        return curved if weight is None else curved * weight

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        maps = np.empty((1, 3, *fixed.shape[1:]), np.float32)  # of one channel after the other, to save memory
        voxels = float(np.prod(fixed.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        share = shares / max(voxels, 1.0)
        near = RADIUS if self.radius is None else self.radius
        x, y, z = (near if n > 1 else 0 for n in fixed.shape[1:])

        def evaluate(warped: Channels, gradient: Channels) -> float:
            totals = [
                kernels.lncc(
                    fixed[n : n + 1],
                    warped[n : n + 1],
                    radius=(x, y, z),
                    weight=weight,
                    signed=self.signed,
                    epsilon=self.epsilon,
                    scale=-share[n : n + 1],
                    maps=maps,
                    gradient=gradient[n : n + 1],
                )
                for n in range(len(fixed))
            ]
            return -float(np.concatenate(totals) @ share)

        return evaluate


def windowed(similarity: Similarity, radius: int) -> Similarity:
    """A similarity with windows of this radius, if it has windows and names none of its own."""
    return similarity.replace(radius=radius) if isinstance(similarity, LNCC) and similarity.radius is None else similarity
