"""Whatever a caller has, as an `Image` or a `Transform`."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, Kind
from warpwise.io.nifti import finite, plane_affine, read_image, whole
from warpwise.io.transforms import from_itk, read_transform
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform

ImageLike = Any
"""Path, `Image`, nibabel or SimpleITK image, array (X, Y[, Z]) of 1 mm voxels, or (array, affine)."""

TransformLike = Any
"""`Transform`, path, SimpleITK transform, or a matrix (dim+1, dim+1), fixed mm → moving mm, RAS+."""


def as_image(value: ImageLike, *, name: str = "image", kind: Kind = "intensity") -> Image:
    """An `Image` of what is given.

    Raises:
        InputError: it is none of the known kinds, or its content cannot be used.
    """
    if isinstance(value, (str, Path)):
        return read_image(value, kind=kind)
    if isinstance(value, Image):
        image = Image(value.data, value.grid, kind, value.name) if kind != value.kind else value
    elif isinstance(value, sitk.Image):
        image = _from_sitk(value, name, kind)
    elif isinstance(value, tuple) and len(value) == 2:  # type: ignore[reportUnknownArgumentType]
        image = Image.from_array(np.asarray(value[0]), np.asarray(value[1]), name=name, kind=kind)
    elif hasattr(value, "affine") and hasattr(value, "dataobj"):
        image = _from_nibabel(value, name, kind)
    elif hasattr(value, "__array__"):
        image = Image.from_array(np.asarray(value), name=name, kind=kind)
    else:
        raise InputError(
            f"{name}: a {type(value).__name__} is not an image.",
            hint="Give a path, an Image, a nibabel or SimpleITK image, an array, or (array, affine).",
        )
    data = finite(image.data, name=image.name, nan_to_zero=False)
    data = whole(data, name=image.name) if kind == "labels" else data
    return Image(data, image.grid, kind, image.name)


def _from_nibabel(value: Any, name: str, kind: Kind) -> Image:
    path = value.get_filename()
    name = str(path) if path else name
    if not isinstance(value, nib.spatialimages.SpatialImage):  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{name}: a {type(value).__name__} is not a spatial image.")
    data = np.asanyarray(value.dataobj)
    while data.ndim > 2 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3):
        raise InputError(f"{name}: {data.ndim} axes {data.shape}.", hint="Give one volume.")
    affine = np.asarray(value.affine, np.float64)
    grid = Grid(data.shape, plane_affine(affine) if data.ndim == 2 else affine)
    return Image(np.ascontiguousarray(data)[None], grid, kind, name)


def _from_sitk(value: sitk.Image, name: str, kind: Kind) -> Image:
    dim = value.GetDimension()
    if dim not in (2, 3):
        raise InputError(f"{name}: {dim} axes; an image has two or three.")
    flip = np.diag([*[-1.0, -1.0, 1.0][:dim], 1.0])
    affine = np.eye(dim + 1)
    affine[:-1, :-1] = np.array(value.GetDirection()).reshape(dim, dim) * np.array(value.GetSpacing())
    affine[:-1, -1] = value.GetOrigin()
    array = sitk.GetArrayViewFromImage(value)
    channels = value.GetNumberOfComponentsPerPixel()
    data = np.stack([array[..., c] for c in range(channels)]) if channels > 1 else array[None]
    order = (0, *reversed(range(1, dim + 1)))
    shape = tuple(int(n) for n in value.GetSize())
    return Image(np.ascontiguousarray(data.transpose(order)), Grid(shape, flip @ affine), kind, name)


def as_transform(value: TransformLike) -> Transform:
    """A `Transform` of what is given.

    Raises:
        InputError: it is none of the known kinds.
    """
    if isinstance(value, Transform):
        return value
    if isinstance(value, (str, Path)):
        return read_transform(value)
    if isinstance(value, sitk.Transform):
        return from_itk(value)
    if hasattr(value, "__array__"):
        return Affine(np.asarray(value, np.float64))
    raise InputError(
        f"A {type(value).__name__} is not a transform.", hint="Give a path, a Transform, or a 4×4 matrix in RAS+ mm."
    )
