"""Two volumes and the map between them, at one resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from warpwise.shapes import Matrix4, Shares, Triple
from warpwise.volume import Volume, matching_factors, scale_factors


@dataclass(frozen=True, eq=False)
class Pair:
    """What solvers see.

    Attributes:
        to_moving: 4×4, fixed index → moving index; the initial transform and every affine found is in it.
        channel_weights: (C,), adding up to 1; None where all weigh the same.
        radius_mm: half the diagonal of the fixed image before any crop, by which distances are judged.
    """

    fixed: Volume
    moving: Volume
    to_moving: Matrix4
    channel_weights: Shares | None = None
    radius_mm: float = 0.0

    @property
    def weights(self) -> Shares:
        """Channel weights (C,), equal where none are given."""
        if self.channel_weights is not None:
            return self.channel_weights
        return np.full(len(self.fixed.data), 1 / len(self.fixed.data), np.float32)

    @property
    def planar(self) -> bool:
        """Whether this is a 2-D pair."""
        return self.fixed.grid.shape[1] == 1

    @property
    def world(self) -> Matrix4:
        """Fixed mm → moving mm, 4×4."""
        return self.moving.grid.affine @ self.to_moving @ self.fixed.grid.inverse_affine

    def moved(self, to_moving: Matrix4) -> "Pair":
        """The same images under another starting map."""
        return replace(self, to_moving=to_moving)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Pair":
        """Only this part of the fixed grid."""
        shift = np.eye(4)
        shift[:3, 3] = start
        return replace(self, fixed=self.fixed.cropped(start, shape), to_moving=self.to_moving @ shift)

    def moving_cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Pair":
        """Only this part of the moving grid."""
        shift = np.eye(4)
        shift[:3, 3] = -np.array(start)
        return replace(self, moving=self.moving.cropped(start, shape), to_moving=shift @ self.to_moving)

    def coarser(self, fixed_factors: Triple, moving_factors: Triple) -> "Pair":
        """Every factors-th voxel of each image after smoothing; voxel 0 stays where it is."""
        if fixed_factors == (1, 1, 1) and moving_factors == (1, 1, 1):
            return self
        up, down = np.diag([*fixed_factors, 1.0]), np.diag([1.0 / f for f in moving_factors] + [1.0])
        return replace(
            self,
            fixed=self.fixed.coarser(fixed_factors),
            moving=self.moving.coarser(moving_factors),
            to_moving=down @ self.to_moving @ up,
        )

    def at_scale(self, scale: int) -> "Pair":
        """The pair with its fixed image halved `scale` times, its moving image brought to a like spacing."""
        grid = self.fixed.grid
        factors = scale_factors(grid, scale)
        finest = min(s * f for s, f, n in zip(grid.spacing_mm, factors, grid.shape, strict=True) if n > 1)
        return self.coarser(factors, matching_factors(self.moving.grid, finest))
