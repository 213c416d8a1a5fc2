"""MIND-SSC: self-similarity descriptors, for images of different contrast."""

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from warpwise.ops import kernels
from warpwise.shapes import Array, Channels
from warpwise.similarity.base import LinearMeasure
from warpwise.similarity.intensity import SquaredDifference

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

# The twelve pairs of six-neighbours that are √2 voxels apart.
_AXES = [(a, s) for a in range(3) for s in (1, -1)]
PAIRS = [(p, q) for i, p in enumerate(_AXES) for q in _AXES[i + 1 :] if p[0] != q[0]]


class MIND(SquaredDifference):
    """Mean squared difference of MIND-SSC descriptors (12 channels in 3-D, 4 in 2-D).

    Solvers compute the moving descriptors once a scale and warp them; the term on tensors describes the warped image.
    `faithful` is the form with which networks were trained in print, for comparison and for training alone: patches of 5
    voxels an axis, continued beyond the border instead of cut there.

    Source: Heinrich et al., MICCAI 2013.
    """

    term: Literal["mind"] = "mind"
    radius: int | None = Field(default=None, ge=0)
    dilation: int = Field(default=2, ge=1)
    faithful: bool = False
    directed: ClassVar[bool] = True
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("lncc", "mi")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch
        from warpwise.similarity.published import mind_ssc  # noqa: PLC0415 - likewise

        describe = partial(mind_ssc if self.faithful else ops.mind_ssc, radius=self.patch, dilation=self.dilation)
        return ops.mse(describe(alignment.fixed), describe(alignment.warped), weight=alignment.mask).mean()

    @property
    def patch(self) -> int:
        """Radius of the patches that are compared, voxels."""
        return (2 if self.faithful else 1) if self.radius is None else self.radius

    @property
    def fusable(self) -> bool:
        return not self.faithful

    def channels(self, image: Channels) -> Array:
        return np.concatenate([describe(channel, self.patch, self.dilation) for channel in image])


def describe(image: Array, radius: int, dilation: int) -> Array:
    """MIND-SSC of one image (X, Y, Z): exp(−(D − min D) / V) for each pair of neighbours, V the mean of D − min D."""
    steps = [d for d in range(3) if image.shape[d] > 1]
    pairs = [(p, q) for p, q in PAIRS if p[0] in steps and q[0] in steps]
    padded = np.pad(image, [(dilation, dilation) if d in steps else (0, 0) for d in range(3)], mode="edge")

    def shifted(axis: int, sign: int) -> Array:
        start = [dilation if d in steps else 0 for d in range(3)]
        start[axis] += sign * dilation
        return padded[tuple(slice(s, s + n) for s, n in zip(start, image.shape, strict=True))]

    squares = np.stack([(shifted(*p) - shifted(*q)) ** 2 for p, q in pairs])
    kinds = [("box", float(radius if d in steps else 0)) for d in range(3)]
    distances = kernels.separable(squares, kinds)
    distances -= distances.min(0)
    variance = distances.mean(0)
    mean = float(variance.mean(dtype=np.float64))
    np.clip(variance, 1e-3 * mean + 1e-12, 1e3 * mean + 1e-12, out=variance)
    np.divide(distances, variance, out=distances)
    np.negative(distances, out=distances)
    np.exp(distances, out=distances)
    return distances
