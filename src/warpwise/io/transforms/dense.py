"""Displacement images of ITK and ANTs: 5-D NIfTI (or MHA, NRRD) of LPS mm vectors."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.checks import enough_stored, grid_of, lps_signs, plane_affine, room_for
from warpwise.io.nifti import UNREADABLE, affine_of, opened, write_displacement
from warpwise.io.transforms import Spaces
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField

_FNIRT = range(2006, 2016)  # NIfTI intent codes that FSL took for its fields and coefficients


class Dense:
    """`1Warp.nii.gz` of ANTs and `displacement.nii.gz` of ours."""

    suffixes: ClassVar = (".nii", ".nii.gz")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        data, affine, _ = vectors(path)
        if data.ndim != 5 or data.shape[3] != 1 or data.shape[4] not in (2, 3):
            raise InputError(f"{path}: a field of LPS mm has shape (X, Y, Z, 1, 3); this one has {data.shape}.")
        dim = data.shape[4]
        if dim == 2 and data.shape[2] != 1:
            raise InputError(f"{path}: vectors of 2 components on a volume of {data.shape[:3]}.")
        field = np.ascontiguousarray(np.moveaxis(data[..., 0, :] if dim == 3 else data[:, :, 0, 0, :], -1, 0), np.float32)
        field *= lps_signs(dim).astype(np.float32).reshape(-1, *[1] * dim)
        grid = Grid(data.shape[:dim], affine if dim == 3 else plane_affine(affine))
        return DisplacementField(field, grid)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        if spaces.fixed is None and not isinstance(transform, DisplacementField):
            raise InputError(f"{path.name}: a displacement image needs a grid.", hint="Pass --fixed IMAGE.")
        grid = transform.grid if isinstance(transform, DisplacementField) else plane_or_volume(spaces)
        write_displacement(path, transform.displacement(grid), grid)


def plane_or_volume(spaces: Spaces) -> Grid:
    """The fixed grid; of one slice it is two-dimensional."""
    assert spaces.fixed is not None
    return grid_of(spaces.fixed.name, spaces.fixed.shape, spaces.fixed.affine)


def vectors(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """Stored array, 4×4 affine and intent code of a NIfTI file of vectors.

    Raises:
        InputError: it cannot be read, or holds no finite real numbers.
    """
    image = opened(path)
    shape = tuple(int(n) for n in image.shape)
    dtype = image.header.get_data_dtype()
    room_for(str(path), shape, 8)
    enough_stored(path, shape, dtype.itemsize)
    if dtype.fields is not None or dtype.kind == "c":
        raise InputError(f"{path}: a field holds real numbers; this one {dtype}.")
    affine, _ = affine_of(path, image)
    try:
        data = np.asarray(image.dataobj, np.float32)
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated or corrupt ({str(error)[:80]}).") from None
    if not np.isfinite(data).all():
        raise InputError(f"{path}: the displacement field holds values that are not finite.")
    return data, affine, int(image.header["intent_code"])


def kind_of_field(path: Path) -> str:
    """Displacement, fnirt or learn2reg, by shape and intent.

    Raises:
        InputError: the image is none of them.
    """
    image = opened(path)
    shape, intent = tuple(image.shape), int(image.header["intent_code"])
    if len(shape) == 5 and shape[3] == 1:
        return "displacement"
    if len(shape) == 4 and shape[3] == 3:
        if intent in _FNIRT:
            return "fnirt"
        raise InputError(
            f"{path}: a field of shape {shape} may be FNIRT's or Learn2Reg's.",
            hint="Pass --from fnirt or --from learn2reg.",
        )
    raise InputError(f"{path}: an image of shape {shape} is not a displacement field.")
