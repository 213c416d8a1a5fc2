"""Whatever a caller has, as an `Image` or a `Transform`."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from warpwise.errors import InputError
from warpwise.image import Image, Kind
from warpwise.io.checks import finite, grid_of, whole
from warpwise.io.images import read_image
from warpwise.io.itk_images import from_sitk
from warpwise.io.points import Points, read_points
from warpwise.io.transforms import read_transform
from warpwise.io.transforms.itk import from_itk
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform

ImageLike = Any
"""Path, `Image`, nibabel or SimpleITK image, array (X, Y[, Z]) of 1 mm voxels, or (array, affine)."""

TransformLike = Any
"""`Transform`, path, SimpleITK transform, or a matrix (dim+1, dim+1), fixed mm → moving mm, RAS+."""


PointsLike = Any
"""`Points`, path, or array (n, dim) in mm RAS+."""


def as_image(value: ImageLike, *, name: str = "image", kind: Kind = "intensity") -> Image:
    """An `Image` of what is given.

    Raises:
        InputError: it is none of the known kinds, or its content cannot be used.
    """
    if isinstance(value, (str, Path)):
        return read_image(value, kind=kind)
    if isinstance(value, Image):
        image = Image(value.data, value.grid, kind, value.name, value.notes) if kind != value.kind else value
    elif isinstance(value, sitk.Image):
        image = from_sitk(value, name, kind)
    elif isinstance(value, tuple) and len(value) == 2:  # type: ignore[reportUnknownArgumentType]
        image = _flat(Image.from_array(np.asarray(value[0]), np.asarray(value[1]), name=name, kind=kind))
    elif hasattr(value, "affine") and hasattr(value, "dataobj"):
        image = _from_nibabel(value, name, kind)
    elif hasattr(value, "__array__"):
        image = _flat(Image.from_array(np.asarray(value), name=name, kind=kind))
    else:
        raise InputError(
            f"{name}: a {type(value).__name__} is not an image.",
            hint="Give a path, an Image, a nibabel or SimpleITK image, an array, or (array, affine).",
        )
    data = finite(image.data, name=image.name, nan_to_zero=False)
    data = whole(data, name=image.name) if kind == "labels" else data
    return Image(data, image.grid, kind, image.name, image.notes)


def _flat(image: Image) -> Image:
    """A volume of one slice as the plane that it is."""
    if 1 not in image.grid.shape:
        return image
    grid = grid_of(image.name, image.grid.shape, image.grid.affine)
    return Image(image.data.reshape(1, *grid.shape), grid, image.kind, image.name)


def _from_nibabel(value: Any, name: str, kind: Kind) -> Image:
    path = value.get_filename()
    name = str(path) if path else name
    if not isinstance(value, nib.spatialimages.SpatialImage):  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{name}: a {type(value).__name__} is not a spatial image.")
    data = np.asanyarray(value.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3):
        raise InputError(f"{name}: {data.ndim} axes {data.shape}.", hint="Give one volume.")
    grid = grid_of(name, data.shape, np.asarray(value.affine, np.float64))
    return Image(np.ascontiguousarray(data).reshape(1, *grid.shape), grid, kind, name)


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


def as_points(value: PointsLike, name: str = "points") -> Points:
    """`Points` of what is given.

    Raises:
        InputError: it is no array (n, 2 or 3) of finite numbers and no file of points.
    """
    if isinstance(value, Points):
        return value
    if isinstance(value, (str, Path)):
        return read_points(value)
    array = np.asarray(value, np.float64)
    if array.ndim != 2 or array.shape[1] not in (2, 3) or not len(array) or not np.isfinite(array).all():
        raise InputError(f"{name}: landmarks are finite numbers (n, 2 or 3), mm RAS+; got shape {array.shape}.")
    return Points(array, name=f"{name} landmarks")
