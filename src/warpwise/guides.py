"""What may guide a registration besides intensities: corresponding points and label maps, in voxels of a pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Channels = NDArray[np.float32]

SCALE = 0.05  # of an image's half diagonal: landmarks that far off cost as much as images that share nothing


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Corresponding points.

    Attributes:
        fixed: (n, 3), voxels of the fixed grid; moving: (n, 3), of the moving grid.
        weight: against the similarity, whose values span about one unit.
        scale_mm: a mean distance of this length costs `weight`.
    """

    fixed: Points
    moving: Points
    weight: float
    scale_mm: float

    def rescaled(self, fixed_factors: Sequence[int], moving_factors: Sequence[int]) -> "Landmarks":
        """The same on every factors-th voxel."""
        return replace(self, fixed=self.fixed / np.array(fixed_factors), moving=self.moving / np.array(moving_factors))

    def shifted(self, start: Sequence[int]) -> "Landmarks":
        """The same on a part of the fixed grid that begins at `start`."""
        return replace(self, fixed=self.fixed - np.array(start, np.float64))

    def residuals(self, displaced: Points, to_moving: NDArray[np.float64]) -> Points:
        """Where displaced fixed points (n, 3) arrive, less where they belong, voxels of the moving grid."""
        return displaced @ to_moving[:3, :3].T + to_moving[:3, 3] - self.moving

    def energy(self, residuals: Points, moving_linear: NDArray[np.float64]) -> float:
        """weight · mean |r|² / scale²."""
        mm = residuals @ moving_linear.T
        return self.weight * float((mm * mm).sum(1).mean()) / self.scale_mm**2


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Label maps as channels whose squared difference counts.

    Attributes:
        fixed, moving: (K, X, Y, Z) codes on the two grids.
        weight: against the similarity; one minus the overlap of all labels costs so much.
    """

    fixed: Channels
    moving: Channels
    weight: float

    def share(self) -> float:
        """Factor of Σ (fixed − moving)² that makes it about 2 − 2 · Dice, times the weight."""
        return self.weight / max(float((self.fixed**2).sum(dtype=np.float64)), 1.0)


def encoded(fixed: NDArray[np.integer], moving: NDArray[np.integer], *, channels: int = 8) -> tuple[Channels, Channels]:
    """Codes (K, …) of the labels that both maps (X, Y, Z) hold, 0 left out.

    Few labels get a channel each. Many get directions in `channels` dimensions, so that the squared distance of two
    labels is about as large as with a channel each, at a fraction of the cost (Johnson and Lindenstrauss, 1984).
    """
    shared = np.intersect1d(np.unique(fixed), np.unique(moving))
    shared = shared[shared != 0]
    if len(shared) <= channels:
        codes = np.eye(max(len(shared), 1), dtype=np.float32)[: len(shared)]
    else:
        codes = np.random.default_rng(0).normal(size=(len(shared), channels)).astype(np.float32)
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    table = np.concatenate([np.zeros((1, codes.shape[1]), np.float32), codes])

    def channels_of(labels: NDArray[np.integer]) -> Channels:
        at = np.searchsorted(shared, labels)
        at = np.where(np.isin(labels, shared), at + 1, 0)
        return np.ascontiguousarray(np.moveaxis(table[at], -1, 0))

    return channels_of(fixed), channels_of(moving)
