"""ANTs' pair of files: PREFIX0GenericAffine.mat, PREFIX1Warp.nii.gz, and PREFIX1InverseWarp.nii.gz."""

from pathlib import Path
from typing import ClassVar

from warpwise.errors import InputError
from warpwise.io.transforms import Spaces
from warpwise.io.transforms.dense import Dense, plane_or_volume
from warpwise.io.transforms.itk import Itk
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.gridded import dense, split

AFFINE, WARP, INVERSE = "0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz"


class Ants:
    """The path is a prefix; a moving image is warped with `-t PREFIX1Warp.nii.gz -t PREFIX0GenericAffine.mat`."""

    suffixes: ClassVar = (AFFINE, WARP, INVERSE)

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        raise InputError(
            f"{path}: ANTs keeps a chain as files of their own.", hint="Give both: 1Warp.nii.gz 0GenericAffine.mat."
        )

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        if spaces.fixed is None:
            raise InputError(f"{path.name}: ANTs' warps need a grid.", hint="Pass --fixed IMAGE.")
        grid = plane_or_volume(spaces)
        warp, affine = split(transform, grid)
        Itk.write(path.with_name(path.name + AFFINE), affine, spaces)
        if _still(warp):
            return
        Dense.write(path.with_name(path.name + WARP), warp, spaces)
        Dense.write(path.with_name(path.name + INVERSE), dense(warp.inverse(), grid), spaces)

    @staticmethod
    def names(prefix: str) -> list[str]:
        """The files that may be written under a prefix."""
        return [prefix + name for name in (AFFINE, WARP, INVERSE)]


def _still(warp: DisplacementField) -> bool:
    return not warp.vectors.any()
