"""FSL's FLIRT matrices: moving → fixed, in mm from each image's corner.

FSL measures along the voxel axes, from voxel 0, and turns the first axis round where the image is stored
neurologically (determinant > 0), so a matrix says nothing without both images.
Source: FSL wiki, "What is the format of the matrix used by FLIRT".
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from warpwise.errors import InputError
from warpwise.io.transforms import Space, Spaces
from warpwise.shapes import Matrix
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.gridded import only_affine


class Flirt:
    """Four rows of four numbers."""

    suffixes: ClassVar = (".mat", ".txt", ".xfm")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        fixed, moving = spaces.both(path, "a FLIRT matrix")
        try:
            matrix = np.loadtxt(path, dtype=np.float64)
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path}: not a matrix of numbers.") from None
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(float(np.linalg.det(matrix))) < 1e-9:
            raise InputError(f"{path}: a FLIRT matrix is 4×4, finite and invertible; this one has shape {matrix.shape}.")
        to_moving = np.linalg.inv(matrix).astype(np.float64)
        return Affine(np.linalg.inv(to_fsl(moving)) @ to_moving @ to_fsl(fixed))

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        fixed, moving = spaces.both(path, "a FLIRT matrix")
        ours = only_affine(transform).matrix
        if ours.shape != (4, 4):
            raise InputError(f"{path.name}: FLIRT matrices are for volumes.")
        matrix = to_fsl(fixed) @ np.linalg.inv(ours) @ np.linalg.inv(to_fsl(moving))
        np.savetxt(path, matrix, fmt="%.12g")


def to_fsl(space: Space) -> Matrix:
    """RAS+ mm → FSL's mm of an image."""
    grid = space.grid
    scale = np.diag([*grid.spacing_mm, 1.0])
    if np.linalg.det(grid.affine) > 0:
        scale[0] = -scale[0]
        scale[0, 3] = (grid.shape[0] - 1) * grid.spacing_mm[0]
    return scale @ grid.inverse_affine
