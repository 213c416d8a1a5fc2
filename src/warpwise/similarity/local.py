"""Local normalised cross-correlation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from warpwise.ops import kernels
from warpwise.similarity.base import Array, Fused

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


@dataclass(frozen=True)
class LNCC:
    """Local normalised cross-correlation in boxes of 2·radius + 1 voxels, negated, averaged over the mask.

    The squared form ignores the sign of the correlation, so tissue may be bright in one image and dark in the other.
    `epsilon` is the variance (intensities 0 … 1) of noise that both windows are taken to share: where there is less than
    that, noise would otherwise pull as hard as anatomy. See `ops.lncc`.

    Source: Avants et al., Medical Image Analysis 2008.
    """

    radius: int = 2
    signed: bool = False
    epsilon: float = 5e-3
    directed: ClassVar[bool] = False

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        value = ops.lncc(
            alignment.fixed,
            alignment.warped,
            radius=self.radius,
            weight=alignment.mask,
            signed=self.signed,
            epsilon=self.epsilon,
        )
        return -value.mean()

    def channels(self, image: Array) -> Array:
        return image

    def fused(self, fixed: Array, weight: Array | None, channel_weights: Array) -> Fused:
        maps = np.empty((fixed.shape[0], 3, *fixed.shape[1:]), np.float32)
        voxels = float(np.prod(fixed.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        share = channel_weights / max(voxels, 1.0)
        radius = tuple(self.radius if n > 1 else 0 for n in fixed.shape[1:])

        def evaluate(warped: Array, gradient: Array) -> float:
            total = kernels.lncc(
                fixed,
                warped,
                radius=(radius[0], radius[1], radius[2]),
                weight=weight,
                signed=self.signed,
                epsilon=self.epsilon,
                scale=-share,
                maps=maps,
                gradient=gradient,
            )
            return -float(total @ share)

        return evaluate
