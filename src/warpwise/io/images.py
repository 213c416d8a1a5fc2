"""Images, whatever the format: by suffix, and DICOM by what lies there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, Kind
from warpwise.io import itk_images, nifti
from warpwise.io.checks import Affine4, flattened, grid_of, image_of, one_volume

SUFFIXES = (*nifti.SUFFIXES, *itk_images.SUFFIXES)


@dataclass(frozen=True)
class Reading:
    """How files are to be read.

    Attributes:
        volume: which of a 4-D series, from 0.
        series: UIDs of DICOM series; of a folder with several, the one among these is read.
        spacing_mm: of pixels, for pictures, which carry none that can be trusted.
        grey: take the luminance of colour images.
        nan_to_zero: take voxels that are not finite as 0.
    """

    volume: int | None = None
    series: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    grey: bool = False
    nan_to_zero: bool = False


def read_image(path: str | Path, *, kind: Kind = "intensity", reading: Reading | None = None, **options: Any) -> Image:
    """An image from a file or a DICOM folder, on its RAS+ grid.

    Whole numbers stay what they are unless the header scales them. A volume of one slice is two-dimensional.

    Args:
        path: .nii, .nii.gz, .mha, .mhd, .nrrd, .nhdr, a DICOM file or folder, or a picture (.png, .tif, .jpg, .bmp).
        kind: intensity, labels or mask.
        reading: how to read it; or its fields by name: volume, series, spacing_mm, grey, nan_to_zero.

    Raises:
        InputError: missing, empty, truncated or of no known format; 4-D without `volume`; several series without
            `series`; in colour without `grey`; NaN without `nan_to_zero`; a singular affine; more voxels than memory.
    """
    path = Path(path)
    how = reading or Reading(**options)
    found = format_of(path)
    if found == "nifti":
        file = nifti.Nifti(path)
        volume = one_volume(str(path), file.volumes, how.volume) if file.volumes > 1 else None
        data, affine, notes = file.voxels(volume), file.affine, file.notes
    elif found == "dicom":
        data, affine, notes = _dicom().read(path, series=how.series, grey=how.grey)
    else:
        data, affine = itk_images.arrays(path, itk_images.execute(itk_images.reader_for(path), str(path)), grey=how.grey)
        notes = ()
        if found == "picture":
            affine, notes = picture_affine(path, how.spacing_mm)
    if data.ndim == 4:
        data = data[..., one_volume(str(path), data.shape[3], how.volume) if data.shape[3] > 1 else 0]
    return image_of(str(path), data, affine, kind=kind, nan_to_zero=how.nan_to_zero, notes=notes)


def _dicom() -> Any:
    from warpwise.io import dicom  # noqa: PLC0415 - pydicom takes a tenth of a second, which most runs need not pay

    return dicom


def format_of(path: Path) -> str:
    """Nifti, dicom, volume or picture.

    Raises:
        InputError: nothing is there, or it is of no known format.
    """
    name = path.name.lower()
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir() and not name.endswith(SUFFIXES):
        return "dicom"
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an image file.")
    if name.endswith(nifti.SUFFIXES):
        return "nifti"
    if name.endswith(itk_images.VOLUMES):
        return "volume"
    if name.endswith(itk_images.PICTURES):
        return "picture"
    if path.is_file() and _dicom().is_dicom(path):
        return "dicom"
    raise InputError(f"{path}: not an image that can be read.", hint=f"Known: {', '.join(SUFFIXES)}, DICOM.")


def picture_affine(path: Path, spacing_mm: tuple[float, ...] | None) -> tuple[Affine4, tuple[str, ...]]:
    """Affine of a picture of this pixel size, and a word where none was given."""
    notes: tuple[str, ...] = ()
    if spacing_mm is None:
        spacing_mm = (1.0,)
        notes = (f"{path.name}: a picture has no reliable pixel size; 1 mm is assumed (--spacing sets it).",)
    if len(spacing_mm) > 2 or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise InputError(f"{path}: spacing {spacing_mm}; one or two positive numbers are needed.")
    sizes = np.array([*spacing_mm * 2][:2])
    # ITK's pictures lie in LPS: x to the left, y to the back.
    return np.diag([-sizes[0], -sizes[1], 1.0, 1.0]), notes


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a stored image lies, to the last bit: its shape as stored (X, Y[, Z]) and its 4×4 RAS+ affine."""

    name: str
    shape: tuple[int, ...]
    affine: Affine4

    @property
    def grid(self) -> Grid:
        """The grid of the same image; of one slice it is two-dimensional."""
        return grid_of(self.name, self.shape, self.affine)


def read_geometry(path: str | Path, reading: Reading | None = None) -> Geometry:
    """Where an image lies, from its header alone.

    Raises:
        InputError: see `read_image`.
    """
    path = Path(path)
    how = reading or Reading()
    found = format_of(path)
    if found == "nifti":
        file = nifti.Nifti(path)
        return Geometry(str(path), file.shape, file.affine)
    if found == "dicom":
        data, affine, _ = _dicom().read(path, series=how.series, grey=True)
        return Geometry(str(path), data.shape[:3], affine)
    reader = itk_images.reader_for(path)
    affine = itk_images.affine_of(reader)
    if found == "picture":
        affine, _ = picture_affine(path, how.spacing_mm)
    return Geometry(str(path), tuple(int(n) for n in reader.GetSize())[:3], affine)


def volumes_of(path: Path) -> tuple[Iterator[NDArray[Any]], int]:
    """The volumes (X, Y, Z) of a 4-D image one by one, and how many there are; one for any other image."""
    if format_of(path) == "nifti":
        file = nifti.Nifti(path)
        return file.series(), file.volumes
    if format_of(path) == "volume":
        reader = itk_images.reader_for(path)
        if reader.GetDimension() == 4:
            data, _ = itk_images.arrays(path, itk_images.execute(reader, str(path)), grey=False)
            return (data[..., k] for k in range(data.shape[3])), data.shape[3]
    return iter(()), 1


def write_image(path: str | Path, image: Image, *, like: Geometry | None = None) -> None:
    """Write one channel in the format of the suffix, its geometry that of the grid.

    Args:
        path: .nii, .nii.gz, .mha, .mhd, .nrrd, .nhdr, or a picture for a plane.
        image: its first channel is written.
        like: where a plane came from: its pose in space, which a 2-D grid does not hold.
    """
    write_array(Path(path), image.data[0], image.grid, like=like)


def write_array(path: Path, data: NDArray[Any], grid: Grid, *, like: Geometry | None = None) -> None:
    """Write an array (X, Y[, Z[, T]]) that lies on a grid; see `write_image`."""
    affine = nifti.full_affine(grid)
    if like is not None and grid.dim == 2:
        affine = like.affine
        if flattened(like.shape, like.affine)[0] != like.shape:
            data = data.reshape(*like.shape, *data.shape[2:])
    if path.name.lower().endswith(nifti.SUFFIXES):
        nifti.write_volumes(path, data, affine)
    elif path.name.lower().endswith(itk_images.SUFFIXES):
        itk_images.write(path, data, affine)
    else:
        raise InputError(f"{path}: not a name for an image file.", hint=f"Known: {', '.join(SUFFIXES)}.")


def image_name(path: Path) -> None:
    """Refuse a name whose suffix no format has.

    Raises:
        InputError: it has none that is known.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: not a name for an image file.", hint=f"Known: {', '.join(SUFFIXES)}.")
