"""What a network sees of images: upright, stretched and at its own spacing, as its card says."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.networks.model import ModelCard
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.shapes import Array, Channels, ChannelsElsewhere, VectorField
from warpwise.spacing import at_spacing, embedded_spacing, ratios, stretched


def working_image(image: Image, card: ModelCard) -> tuple[Channels, Grid]:
    """An image as a network sees it, (C, X, Y, Z) on a 3-D grid, stretched by the card's percentiles.

    Raises:
        InputError: the network is for images of other axes or channels.
    """
    card.fits(len(image.data), dim=image.grid.dim)
    return at_spacing(*stretched(image, card.percentiles), embedded_spacing(card.spacing_mm))


@dataclass(frozen=True, eq=False)
class WorkingPair:
    """What a network sees of a pair.

    Attributes:
        fixed, moving: (C, X, Y, Z) on one grid, the moving image under the pair's affine.
        step: voxels of the pair's fixed grid a working voxel.
    """

    fixed: Channels
    moving: ChannelsElsewhere
    step: NDArray[np.float64]


def working_pair(pair: Pair, card: ModelCard) -> WorkingPair:
    """Both images, which were turned upright and stretched by the card's percentiles, on the grid of the fixed one.

    Raises:
        InputError: the network is for images of other axes or channels.
    """
    card.fits(len(pair.fixed.data), dim=2 if pair.planar else 3)
    spacing = embedded_spacing(card.spacing_mm)
    fixed, grid = at_spacing(pair.fixed.shown, pair.fixed.grid, spacing)
    source, moving_grid = at_spacing(pair.moving.shown, pair.moving.grid, spacing)
    step = ratios(pair.fixed.grid, spacing)
    matrix = moving_grid.inverse_affine @ pair.moving.grid.affine @ pair.to_moving @ np.diag([*step, 1.0])
    out = np.empty((len(source), *grid.shape), np.float32)
    return WorkingPair(fixed, kernels.warp_affine(source, matrix[:3], out=out), step)


def tensor(image: Channels, dim: int) -> torch.Tensor:
    """(C, X, Y, Z) as a batch of one, planes in two dimensions."""
    return torch.from_numpy(np.ascontiguousarray(image if dim == 3 else image[:, :, 0]))[None]


def array(displacement: torch.Tensor) -> VectorField:
    """(D, *space) as (3, X, Y, Z)."""
    field = displacement.detach().float().cpu().numpy()
    if len(field) == 3:
        return np.ascontiguousarray(field)
    return np.ascontiguousarray(np.stack([field[0], np.zeros_like(field[0]), field[1]])[:, :, None])


def scalars(features: torch.Tensor) -> Array:
    """(1, K, *space) as (K, X, Y, Z)."""
    values = features.detach().float().cpu().numpy()[0]
    return np.ascontiguousarray(values if values.ndim == 4 else values[:, :, None])


def scalar(map_: torch.Tensor) -> Array:
    """(1, 1, *space) as (1, X, Y, Z)."""
    values = map_.detach().float().cpu().numpy()[0]
    return np.ascontiguousarray(values if values.ndim == 4 else values[:, :, None])
