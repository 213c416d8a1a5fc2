"""Images at another spacing, and values there brought back: the same steps in training and in use."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image, normalised, upright
from warpwise.ops import kernels
from warpwise.shapes import Array, Channels, ChannelsElsewhere, VectorField, VectorFieldElsewhere

EQUAL = 0.02  # spacings that differ by no more are taken for equal
BLUR = 0.35  # σ of the Gaussian before sampling, in voxels of the coarser grid


def ratios(grid: Grid, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Voxels of a 3-D grid a working voxel, along each axis; 1 along an axis of one voxel and where it is nearly 1."""
    step = np.array(spacing_mm) / np.array(grid.spacing_mm)
    kept = (np.abs(step - 1) <= EQUAL) | (np.array(grid.shape) == 1)
    return np.where(kept, 1.0, step)


def at_spacing(image: Channels, grid: Grid, spacing_mm: Sequence[float]) -> tuple[ChannelsElsewhere, Grid]:
    """An image (C, X, Y, Z) on a 3-D grid, smoothed and sampled at another spacing; itself where that is its own."""
    step = ratios(grid, spacing_mm)
    if (step == 1).all():
        return image, grid
    target = grid.respaced(step)
    smooth = kernels.gaussian(image, [BLUR * s if s > 1 else 0.0 for s in step])
    out = np.empty((len(image), *target.shape), np.float32)
    return kernels.warp_affine(smooth, np.diag([*step, 1.0])[:3], out=out), target


def labels_at_spacing(labels: NDArray[np.integer], grid: Grid, spacing_mm: Sequence[float]) -> NDArray[np.int16]:
    """A label map (X, Y, Z), nearest neighbour, on the grid of `at_spacing`."""
    step = ratios(grid, spacing_mm)
    shape = grid.respaced(step).shape
    index = [np.minimum(np.rint(np.arange(n) * s).astype(int), m - 1)
             for n, s, m in zip(shape, step, labels.shape, strict=True)]  # fmt: skip
    return labels[np.ix_(*index)].astype(np.int16)


def stretched(image: Image, percentiles: tuple[float, float]) -> tuple[Array, Grid]:
    """An image turned upright, its intensities brought to 0 … 1.2: (C, X, Y, Z) on a 3-D grid, a plane as one slice."""
    image = upright(image)
    grid = image.grid.embedded()
    data = np.stack([normalised(channel, None, percentiles) for channel in image.data])
    return data.reshape(len(data), *grid.shape), grid


def embedded_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """A spacing of two or three axes along those of a 3-D grid."""
    s = spacing_mm
    return (s[0], s[1], s[2]) if len(s) == 3 else (s[0], 1.0, s[1])


def finer(values: Array, step: NDArray[np.float64], shape: tuple[int, int, int]) -> Array:
    """Values (N, x, y, z) on working voxels at every voxel of the full grid."""
    if (step == 1).all():
        return values
    return kernels.warp_affine(values, np.diag([*(1 / step), 1.0])[:3], out=np.empty((len(values), *shape), np.float32))


def on_all_voxels(field: VectorField, step: NDArray[np.float64], shape: tuple[int, int, int]) -> VectorFieldElsewhere:
    """A displacement in working voxels (3, x, y, z) in voxels of the full grid, at every one of them."""
    out = finer(field, step, shape)
    if out is field:
        return field
    out *= step.astype(np.float32)[:, None, None, None]
    return out
