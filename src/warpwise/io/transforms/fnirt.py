"""FSL's warp fields, as FNIRT and convertwarp write them and applywarp reads them: relative, on the fixed grid.

A voxel of the fixed image at FSL's mm x (see `flirt`) comes from the moving image's FSL mm x + d(x).
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.nifti import write_volumes
from warpwise.io.transforms import Space, Spaces
from warpwise.io.transforms.dense import vectors
from warpwise.io.transforms.flirt import to_fsl
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField

_FIELD = 2006  # NIfTI intent FSL_FNIRT_DISPLACEMENT_FIELD


class Fnirt:
    """A 4-D image of three components, in FSL's mm: displacements; when reading, positions too."""

    suffixes: ClassVar = (".nii", ".nii.gz")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        data, affine, intent = vectors(path)
        if data.ndim != 4 or data.shape[3] != 3:
            raise InputError(f"{path}: an FNIRT field has shape (X, Y, Z, 3); this one has {data.shape}.")
        if intent not in (0, _FIELD):
            raise InputError(
                f"{path}: FNIRT coefficients (intent {intent}), not a field.",
                hint="Make a field of them with FSL: fnirtfileutils --in=COEF --ref=FIXED --out=FIELD --withaff",
            )
        moving = spaces.both(path, "an FNIRT field")[1]
        here = Space(data.shape[:3], affine, str(path))
        start = fsl_positions(here)
        arrive = np.moveaxis(data, -1, 0).astype(np.float64)
        # FSL does not mark which kind a field is. Read as what it is, it leads into the moving image.
        if share_inside(arrive, moving) <= share_inside(arrive + start, moving):
            arrive = arrive + start
        world = apply(np.linalg.inv(to_fsl(moving)), arrive) - apply(affine, indices(here.grid))
        return DisplacementField(world.astype(np.float32), here.grid)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        fixed, moving = spaces.both(path, "an FNIRT field")
        world = apply(fixed.affine, indices(fixed.grid)) + transform.displacement(fixed.grid)
        relative = apply(to_fsl(moving), world) - fsl_positions(fixed)
        write_volumes(path, np.moveaxis(relative, 0, -1).astype(np.float32), fixed.affine, intent="fnirt disp field")


def share_inside(positions: np.ndarray, space: Space) -> float:
    """Share of FSL's positions (3, X, Y, Z) that lie in an image."""
    grid = space.grid
    ends = (np.array(grid.shape) - 0.5) * grid.spacing_mm
    low = -0.5 * np.array(grid.spacing_mm)
    inside = (positions >= low[:, None, None, None]) & (positions <= ends[:, None, None, None])
    return float(inside.all(0).mean())


def indices(grid: Grid) -> np.ndarray:
    """Voxel indices (3, X, Y, Z), float64."""
    return np.stack(np.meshgrid(*[np.arange(n, dtype=np.float64) for n in grid.shape], indexing="ij"))


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A 4×4 matrix on points (3, X, Y, Z)."""
    return np.einsum("ij,jxyz->ixyz", matrix[:3, :3], points) + matrix[:3, 3, None, None, None]


def fsl_positions(space: Space) -> np.ndarray:
    """FSL's mm of every voxel, (3, X, Y, Z)."""
    return apply(to_fsl(space) @ space.affine, indices(space.grid))
