"""Images at the spacing a network works at: the same steps in training and in use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.networks.model import ModelCard
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.volume import Triple

Array = NDArray[np.float32]

ALIKE = 0.02  # spacings that differ by no more are taken for equal
BLUR = 0.35  # σ of the Gaussian before sampling, in voxels of the coarser grid


def ratios(grid: Grid, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Voxels of a 3-D grid a working voxel, along each axis; 1 along an axis of one voxel and where it is nearly 1."""
    found = np.array(spacing_mm) / np.array(grid.spacing_mm)
    still = (np.abs(found - 1) <= ALIKE) | (np.array(grid.shape) == 1)
    return np.where(still, 1.0, found)


def at_spacing(image: Array, grid: Grid, spacing_mm: Sequence[float]) -> tuple[Array, Grid]:
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


@dataclass(frozen=True, eq=False)
class WorkingPair:
    """What a network sees of a pair.

    Attributes:
        fixed, moving: (C, X, Y, Z) on one grid, the moving image under the pair's affine.
        step: voxels of the pair's fixed grid a working voxel.
    """

    fixed: Array
    moving: Array
    step: NDArray[np.float64]


def working_pair(pair: Pair, spacing_mm: Sequence[float]) -> WorkingPair:
    """Both images at a spacing, on the grid of the fixed one."""
    fixed, grid = at_spacing(pair.fixed.data, pair.fixed.grid, spacing_mm)
    source, moving_grid = at_spacing(pair.moving.data, pair.moving.grid, spacing_mm)
    step = ratios(pair.fixed.grid, spacing_mm)
    matrix = moving_grid.inverse_affine @ pair.moving.grid.affine @ pair.to_moving @ np.diag([*step, 1.0])
    out = np.empty((len(source), *grid.shape), np.float32)
    return WorkingPair(fixed, kernels.warp_affine(source, matrix[:3], out=out), step)


def finer(values: Array, step: NDArray[np.float64], shape: Triple) -> Array:
    """Values (N, x, y, z) on working voxels at every voxel of the full grid."""
    if (step == 1).all():
        return values
    return kernels.warp_affine(values, np.diag([*(1 / step), 1.0])[:3], out=np.empty((len(values), *shape), np.float32))


def on_all_voxels(field: Array, step: NDArray[np.float64], shape: Triple) -> Array:
    """A displacement in working voxels (3, x, y, z) in voxels of the full grid, at every one of them."""
    out = finer(field, step, shape)
    if out is field:
        return field
    out *= step.astype(np.float32)[:, None, None, None]
    return out


def spacing_of(card: ModelCard) -> tuple[float, float, float]:
    """A model's spacing along the axes of a 3-D grid."""
    s = card.spacing_mm
    return (s[0], s[1], s[2]) if card.dim == 3 else (s[0], 1.0, s[1])


def tensor(image: Array, dim: int) -> torch.Tensor:
    """(C, X, Y, Z) as a batch of one, planes in two dimensions."""
    return torch.from_numpy(np.ascontiguousarray(image if dim == 3 else image[:, :, 0]))[None]


def array(displacement: torch.Tensor) -> Array:
    """(D, *space) as (3, X, Y, Z)."""
    field = displacement.detach().float().cpu().numpy()
    if len(field) == 3:
        return np.ascontiguousarray(field)
    return np.ascontiguousarray(np.stack([field[0], np.zeros_like(field[0]), field[1]])[:, :, None])


def scalar(map_: torch.Tensor) -> Array:
    """(1, 1, *space) as (1, X, Y, Z)."""
    values = map_.detach().float().cpu().numpy()[0]
    return np.ascontiguousarray(values if values.ndim == 4 else values[:, :, None])
