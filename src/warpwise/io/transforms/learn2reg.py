"""Learn2Reg's submissions: 4-D NIfTI of displacements in voxels of the moving image, on the fixed grid.

The challenge warps with map_coordinates(moving, identity + displacement), so axes are those of the arrays.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from warpwise.errors import InputError
from warpwise.io.nifti import write_volumes
from warpwise.io.transforms import Spaces
from warpwise.io.transforms.dense import vectors
from warpwise.io.transforms.fnirt import apply, indices
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField


class Learn2Reg:
    """`disp_FFFF_MMMM.nii.gz`."""

    suffixes: ClassVar = (".nii", ".nii.gz")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        fixed, moving = spaces.both(path, "a Learn2Reg field")
        data, _, _ = vectors(path)
        if data.shape != (*fixed.shape, 3):
            raise InputError(f"{path}: a field of shape {data.shape} for a fixed image of {fixed.shape}.")
        at = indices(fixed.grid)
        world = apply(moving.affine, at + np.moveaxis(data, -1, 0)) - apply(fixed.affine, at)
        return DisplacementField(world.astype(np.float32), fixed.grid)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        fixed, moving = spaces.both(path, "a Learn2Reg field")
        at = indices(fixed.grid)
        world = apply(fixed.affine, at) + transform.displacement(fixed.grid)
        relative = apply(moving.grid.inverse_affine, world) - at
        write_volumes(path, np.moveaxis(relative, 0, -1).astype(np.float32), fixed.affine)
