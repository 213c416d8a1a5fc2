"""Bring an image onto another grid, through a transform, in one interpolation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops import kernels
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform

INTERPOLATIONS = ("linear", "nearest", "cubic", "label")


def resample(
    image: Image,
    grid: Grid,
    transform: Transform,
    *,
    interpolation: str = "linear",
    displacement: NDArray[Any] | None = None,
) -> Image:
    """`image` where `transform` sends each voxel of `grid`; a voxel that leaves the image gets its background.

    Background is 0, or the darkest value where that is negative (air in CT). Linear and cubic give float32; nearest
    and label (the label with most of the eight neighbours' weight) keep the type.

    Args:
        image: on a grid of as many dimensions as `grid`.
        grid: where the result lies.
        transform: grid mm → image mm.
        interpolation: linear, nearest, cubic (B-spline) or label.
        displacement: `transform.displacement(grid)`, where it is already known.

    Raises:
        InputError: dimensions do not agree, or the interpolation is unknown.
    """
    if not image.grid.dim == grid.dim == transform.dim:
        raise InputError(f"{image.name} is {image.grid.dim}-D, the grid {grid.dim}-D and the transform {transform.dim}-D.")
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"Unknown interpolation {interpolation!r}.", hint=f"Known: {', '.join(INTERPOLATIONS)}.")
    source, target = image.grid.embedded(), grid.embedded()
    mm = transform.displacement(grid) if displacement is None else displacement
    if grid.dim == 2:
        flat = np.zeros((3, *target.shape), np.float32)
        flat[:2, :, 0] = mm
        mm = flat
    field = kernels.map_vectors(mm, target.inverse_affine[:3, :3])
    data = image.data.reshape(len(image.data), *source.shape)
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    background = 0.0 if image.kind != "intensity" else min(0.0, float(data.min()))
    matrix = source.inverse_affine @ target.affine
    out = kernels.resample(data, field, matrix, method=interpolation, background=background)
    return Image(out.reshape(len(out), *grid.shape), grid, image.kind, image.name)


def brought(map_: Image, image: Image) -> Image:
    """A mask or a label map on an image's grid, through the world where it lies on another.

    Raises:
        InputError: they differ in dimension.
    """
    if map_.grid.dim != image.grid.dim:
        raise InputError(f"{map_.name} is {map_.grid.dim}-D and {image.name} is {image.grid.dim}-D.")
    if map_.grid.same_as(image.grid):
        return map_
    return resample(map_, image.grid, Affine(np.eye(image.grid.dim + 1)), interpolation="nearest")
