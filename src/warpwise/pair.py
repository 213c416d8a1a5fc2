"""Two images prepared for registration, at one resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.guides import LabelMaps, Landmarks
from warpwise.ops import kernels

Array = NDArray[np.float32]
Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pair:
    """Fixed (C, X, Y, Z) and moving (C, x, y, z), float32, on 3-D grids (a 2-D image is one slice).

    Arrays rather than tensors: a classical registration on a CPU then never imports torch, which would cost it a
    quarter of its time and memory; `torch.from_numpy` shares them where a network needs them.

    Attributes:
        to_moving: 4×4, fixed index → moving index; the initial transform and every affine found is in it.
        fixed_mask, moving_mask: weights 0 … 1 on the two grids, or None.
        channel_weights: (C,), adding up to 1.
        landmarks, labels: what guides the registration besides the images.
    """

    fixed: Array
    moving: Array
    grid: Grid
    moving_grid: Grid
    to_moving: NDArray[np.float64]
    fixed_mask: Array | None = None
    moving_mask: Array | None = None
    channel_weights: Array | None = None
    landmarks: Landmarks | None = None
    labels: LabelMaps | None = None

    @property
    def weights(self) -> Array:
        """Channel weights (C,), equal where none are given."""
        if self.channel_weights is not None:
            return self.channel_weights
        return np.full(len(self.fixed), 1 / len(self.fixed), np.float32)

    @property
    def planar(self) -> bool:
        """Whether this is a 2-D pair."""
        return self.grid.shape[1] == 1

    def moved(self, to_moving: NDArray[np.float64]) -> "Pair":
        """The same images under another starting map."""
        return replace(self, to_moving=to_moving)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Pair":
        """Only this part of the fixed grid."""
        at = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        shift = np.eye(4)
        shift[:3, 3] = start
        return Pair(
            np.ascontiguousarray(self.fixed[(slice(None), *at)]),
            self.moving,
            self.grid.cropped(start, shape),
            self.moving_grid,
            self.to_moving @ shift,
            None if self.fixed_mask is None else np.ascontiguousarray(self.fixed_mask[at]),
            self.moving_mask,
            self.channel_weights,
            None if self.landmarks is None else self.landmarks.shifted(start),
            None
            if self.labels is None
            else replace(self.labels, fixed=np.ascontiguousarray(self.labels.fixed[(slice(None), *at)])),
        )

    def moving_cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Pair":
        """Only this part of the moving grid."""
        at = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        shift = np.eye(4)
        shift[:3, 3] = -np.array(start)
        marks = self.landmarks
        return replace(
            self,
            moving=np.ascontiguousarray(self.moving[(slice(None), *at)]),
            moving_grid=self.moving_grid.cropped(start, shape),
            to_moving=shift @ self.to_moving,
            moving_mask=None if self.moving_mask is None else np.ascontiguousarray(self.moving_mask[at]),
            landmarks=None if marks is None else replace(marks, moving=marks.moving - np.array(start, np.float64)),
            labels=None
            if self.labels is None
            else replace(self.labels, moving=np.ascontiguousarray(self.labels.moving[(slice(None), *at)])),
        )

    def coarser(self, fixed_factors: Triple, moving_factors: Triple) -> "Pair":
        """Every factors-th voxel of each image after smoothing; voxel 0 stays where it is."""
        if fixed_factors == (1, 1, 1) and moving_factors == (1, 1, 1):
            return self
        up, down = np.diag([*fixed_factors, 1.0]), np.diag([1.0 / f for f in moving_factors] + [1.0])
        return Pair(
            shrink(self.fixed, fixed_factors),
            shrink(self.moving, moving_factors),
            _subsampled(self.grid, fixed_factors),
            _subsampled(self.moving_grid, moving_factors),
            down @ self.to_moving @ up,
            None if self.fixed_mask is None else shrink(self.fixed_mask[None], fixed_factors)[0],
            None if self.moving_mask is None else shrink(self.moving_mask[None], moving_factors)[0],
            self.channel_weights,
            None if self.landmarks is None else self.landmarks.rescaled(fixed_factors, moving_factors),
            None
            if self.labels is None
            else replace(
                self.labels,
                fixed=shrink(self.labels.fixed, fixed_factors),
                moving=shrink(self.labels.moving, moving_factors),
            ),
        )


def _subsampled(grid: Grid, factors: Triple) -> Grid:
    shape = tuple(-(-n // f) for n, f in zip(grid.shape, factors, strict=True))
    return Grid(shape, grid.affine @ np.diag([*[float(f) for f in factors], 1.0]))


def shrink(image: Array, factors: Triple) -> Array:
    """Every factors-th voxel (factors 1, 2 or 4, …), halving step by step after a Gaussian of σ 0.7 voxel."""
    while max(factors) > 1:
        stride = tuple(2 if f > 1 else 1 for f in factors)
        sigma = [0.7 if s > 1 else 0.0 for s in stride]
        image = kernels.gaussian(image, sigma, stride=(stride[0], stride[1], stride[2]))
        factors = (max(factors[0] // 2, 1), max(factors[1] // 2, 1), max(factors[2] // 2, 1))
    return image


def level_factors(grid: Grid, level: int, *, smallest: int = 8) -> Triple:
    """Factors of 2 a level halves this grid by: finest axes first, so that thick slices wait, and no axis below
    `smallest` voxels."""
    spacing = np.array(grid.spacing_mm)
    spacing = np.where(np.array(grid.shape) > 1, spacing, np.inf)
    factors = np.ones(3, np.int64)
    for _ in range(level):
        sizes = np.ceil(np.array(grid.shape) / factors)
        current = spacing * factors
        halve = (current < 1.5 * current.min()) & (sizes / 2 >= smallest)
        if not halve.any():
            break
        factors = np.where(halve, factors * 2, factors)
    return int(factors[0]), int(factors[1]), int(factors[2])


def matching_factors(grid: Grid, spacing_mm: float) -> Triple:
    """Powers of two that bring a grid closest to a spacing without passing it by more than √2."""
    sizes = zip(grid.shape, grid.spacing_mm, strict=True)
    x, y, z = (1 if n < 16 else int(2 ** max(0, round(np.log2(spacing_mm / s)))) for n, s in sizes)
    return x, y, z


def pyramid_level(pair: Pair, level: int) -> Pair:
    """The pair with its fixed image halved `level` times, its moving image brought to a like spacing."""
    factors = level_factors(pair.grid, level)
    finest = min(s * f for s, f, n in zip(pair.grid.spacing_mm, factors, pair.grid.shape, strict=True) if n > 1)
    return pair.coarser(factors, matching_factors(pair.moving_grid, finest))
