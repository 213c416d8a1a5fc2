"""Images of different contrast made comparable: each also in the other's contrast, by the conditional mean of intensity.

Source: the correlation ratio of Roche et al., MICCAI 1998; here its conditional means change the images instead of being
the measure, and do so in both directions, since neither intensity need be a function of the other.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels
from warpwise.shapes import Channels, ChannelsElsewhere, Map, Map1, MapElsewhere

if TYPE_CHECKING:
    from torch import Tensor

BINS = 64
RANGE = 1.2  # of intensities, see `image.normalised`
DARK = 0.05  # of the intensity range: air and what surrounds the object says nothing about its contrast
DEPTH = 1  # voxels from the object's rim that are left out: part air in either image
RARE = 1e-4  # of all voxels: intensities of which there are fewer get the mean of their neighbours
FEW = 2_000  # voxels inside that suffice


@dataclass(frozen=True, eq=False)
class Mapping:
    """How intensities of two images belong together, under the alignment by which it was seen.

    Attributes:
        intensities: (BINS,), at which the curves are known.
        to_moving, to_fixed: (BINS,), E[moving | fixed] and E[fixed | moving].
        explained: share of the variance of moving that fixed explains, and of fixed that moving does (correlation ratios).
        linear: signed squared correlation of the intensities themselves.
    """

    intensities: NDArray[np.float64]
    to_moving: NDArray[np.float64]
    to_fixed: NDArray[np.float64]
    explained: tuple[float, float]
    linear: float

    @property
    def likeness(self) -> float:
        """1 where intensities agree up to a factor, −1 where they are inverted; near 0 where no line, but a curve, fits."""
        return self.linear / max(*self.explained, 1e-12)

    def of_pair(self, fixed: Map, moving: MapElsewhere) -> tuple[Channels, ChannelsElsewhere]:
        """Two channels of each image (2, X, Y, Z): compared in the contrast of the moving one, then of the fixed one."""
        return (
            np.stack([self._applied(self.to_moving, fixed), fixed]),
            np.stack([moving, self._applied(self.to_fixed, moving)]),
        )

    def _applied(self, curve: NDArray[np.float64], image: Map) -> Map:
        mapped = np.interp(image, self.intensities, curve).astype(np.float32)
        mapped *= np.clip(image / np.float32(DARK), 0, 1)  # air stays air
        return mapped


def mapping(fixed: Map, warped: Map, weight: Map | None = None, *, depth: int = DEPTH) -> Mapping:
    """How the intensities of two images on one grid belong together.

    Args:
        fixed, warped: intensities 0 … 1.2.
        weight: of the voxels; None: all count.
        depth: voxels from either object's rim that count for nothing.
    """
    inside = interior(fixed[None], warped[None], None if weight is None else weight[None], depth=depth)[0]
    scale = (BINS - 3) / RANGE
    ranges = np.array([0.0, scale, 0.0, scale], np.float32)
    counts = kernels.joint_histogram(fixed, warped, inside, ranges=ranges, bins=BINS)
    centres = (np.arange(BINS) - 1) / scale
    total = max(float(counts.sum()), 1e-12)
    rows, columns = counts.sum(1), counts.sum(0)
    means = rows @ centres / total, columns @ centres / total
    spread = [float(n @ (centres - m) ** 2) / total for n, m in zip((rows, columns), means, strict=True)]
    shared = float((centres - means[0]) @ counts @ (centres - means[1])) / total
    to_moving, of_moving = _conditional(counts, centres, total)
    to_fixed, of_fixed = _conditional(counts.T, centres, total)
    variances = spread[1], spread[0]
    explained = (of_moving / max(variances[0], 1e-12), of_fixed / max(variances[1], 1e-12))
    linear = np.sign(shared) * shared**2 / max(spread[0] * spread[1], 1e-24)
    return Mapping(centres, to_moving, to_fixed, explained, float(linear))


def mapped_tensors(fixed: "Tensor", warped: "Tensor", weight: "Tensor | None") -> "tuple[Tensor, Tensor]":
    """Two channels for each of images (B, C, *space): in the contrast of the other, and as they are.

    The curves are learned from the values and count as given: gradients pass through the intensities alone.
    """
    import torch  # noqa: PLC0415 - solvers must not pay for importing it

    sides: list[list[Tensor]] = [[], []]
    for n in range(fixed.shape[0]):
        mask = None if weight is None else _embedded(weight[n % len(weight), 0])
        channels: list[list[Tensor]] = [[], []]
        for f, w in zip(fixed[n], warped[n], strict=True):
            curves = mapping(_embedded(f), _embedded(w), mask)
            channels[0] += [_looked_up(curves.to_moving, f), f]
            channels[1] += [w, _looked_up(curves.to_fixed, w)]
        for side, those in zip(sides, channels, strict=True):
            side.append(torch.stack(those))
    return torch.stack(sides[0]), torch.stack(sides[1])


def _embedded(image: "Tensor") -> Map:
    values = np.ascontiguousarray(image.detach().cpu().numpy(), np.float32)
    return values if values.ndim == 3 else values[:, None]


def _looked_up(curve: NDArray[np.float64], image: "Tensor") -> "Tensor":
    """The curve at every intensity, linear between its points, which gradients see."""
    table = image.new_tensor(curve)
    place = (image * ((BINS - 3) / RANGE) + 1).clamp(0, BINS - 1.001)
    index = place.detach().floor()
    share, low = place - index, index.long()
    value = (1 - share) * table[low] + share * table[low + 1]
    return value * (image / DARK).clamp(0, 1)


def _conditional(
    counts: NDArray[np.float64], centres: NDArray[np.float64], total: float
) -> tuple[NDArray[np.float64], float]:
    """Mean of what the columns count given the row, and the variance of those means."""
    rows = counts.sum(1)
    seen = rows > max(RARE * total, 1e-9)
    if not seen.any():
        return centres.copy(), 0.0
    means = (counts[seen] @ centres) / rows[seen]
    mean = float(rows[seen] @ means) / float(rows[seen].sum())
    return np.interp(centres, centres[seen], means), float(rows[seen] @ (means - mean) ** 2) / total


def interior(fixed: Channels, warped: Channels, weight: Map1 | None, *, depth: int) -> Map1:
    """Weight (1, X, Y, Z) of voxels well within both objects; where that leaves too few, of those within, or of all."""
    every = np.ones_like(fixed[:1]) if weight is None else weight
    inside = ((fixed[:1] > DARK) & (warped[:1] > DARK)).astype(np.float32)
    windows = [("box", float(depth) if n > 1 else 0.0) for n in fixed.shape[1:]]
    deep = (kernels.separable(inside, windows) > 0.99).astype(np.float32)
    for candidate in (deep * every, inside * every):
        if candidate.sum() > FEW:
            return np.asarray(candidate, np.float32)
    return np.asarray(inside * every if inside.any() else every, np.float32)
