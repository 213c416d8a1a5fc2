"""MetaImage, NRRD and 2-D pictures, through SimpleITK."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.image import Image
from warpwise.io import structure
from warpwise.io.checks import Affine4, enough_stored, existing_file, first_line, grid_of, lps_signs, room_for

VOLUMES = (".mha", ".mhd", ".nrrd", ".nhdr")
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
SUFFIXES = (*VOLUMES, *PICTURES)

_BYTES = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709


def reader_for(path: Path) -> sitk.ImageFileReader:
    """A reader that has seen the header and nothing else.

    Raises:
        InputError: missing, empty, not of this format, of a size that cannot be, or complex.
    """
    existing_file(path)
    structure.check(path)
    sitk.ProcessObject.GlobalWarningDisplayOff()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        shape = tuple(int(n) for n in reader.GetSize())
        channels = int(reader.GetNumberOfComponents())
    except (RuntimeError, OverflowError, ValueError) as error:
        raise InputError(f"{path}: not a readable image ({itk_reason(error)}).") from None
    if "complex" in kind:
        raise InputError(f"{path}: complex voxels; real numbers are needed.", hint="Convert it to a scalar image.")
    width = next((n for word, n in _BYTES.items() if word in kind), 8)
    room_for(str(path), shape, width * channels)
    if path.suffix.lower() not in (".mhd", ".nhdr"):  # whose voxels lie in a file beside
        enough_stored(path, shape, width * channels)
    return reader


def itk_reason(error: BaseException) -> str:
    """The telling line of ITK's exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception thrown", "/", "itk::"))]
    return (telling or lines or [first_line(error)])[0].removeprefix("sitk::ERROR: ")[:160]


def execute(reader: Any, name: str) -> sitk.Image:
    """Read the voxels.

    Raises:
        InputError: they cannot be read; ITK says truncated where it knows.
    """
    try:
        return reader.Execute()
    except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({itk_reason(error)}).") from None


def arrays(path: Path, image: sitk.Image, *, grey: bool) -> tuple[NDArray[Any], Affine4]:
    """Voxels (X, Y[, Z[, T]]) and the 4×4 RAS+ affine of a SimpleITK image.

    Raises:
        InputError: it is in colour and `grey` is off, or has more than four axes.
    """
    channels = image.GetNumberOfComponentsPerPixel()
    data = sitk.GetArrayFromImage(image)
    if channels > 1:
        if not grey:
            raise InputError(
                f"{path}: {'RGB' if channels in (3, 4) else f'{channels}-component'} voxels; real numbers are needed.",
                hint="Pass --grey to use their luminance." if channels in (3, 4) else "Convert it to a scalar image.",
            )
        data = data[..., :3].astype(np.float32) @ LUMINANCE if channels > 2 else data[..., 0]
    if data.ndim > 4:
        raise InputError(f"{path}: {data.ndim} axes; at most a series of volumes can be read.")
    return data.transpose(), affine_of(image)


def affine_of(image: Any) -> Affine4:
    """Index → RAS+ mm, 4×4, of a SimpleITK image or a reader that has seen the header."""
    dim = int(image.GetDimension())
    matrix = np.array(image.GetDirection(), np.float64).reshape(dim, dim) * np.array(image.GetSpacing())
    affine = np.eye(4)
    n = min(dim, 3)
    affine[:n, :n], affine[:n, 3] = matrix[:n, :n], np.array(image.GetOrigin())[:n]
    return np.diag([*lps_signs(3), 1.0]) @ affine


def to_itk(data: NDArray[Any], affine: Affine4) -> sitk.Image:
    """A SimpleITK image of an array (X, Y[, Z[, T]]) and a 4×4 RAS+ affine; for ITK, axes must be orthogonal.

    Raises:
        InputError: the axes are sheared.
    """
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    dim = data.ndim
    out = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose()), isVector=False)
    n = min(dim, 3)
    lps = (np.diag([*lps_signs(3), 1.0]) @ affine)[:n]
    spacing = np.linalg.norm(lps[:, :n], axis=0)
    direction = lps[:, :n] / spacing
    if np.abs(direction.T @ direction - np.eye(n)).max() > 1e-3:
        raise InputError("This format cannot hold sheared axes.", hint="Write NIfTI.")
    # ITK insists on orthonormal directions to about 1e-6; headers in single precision are off by a little more.
    u, _, v = np.linalg.svd(direction)
    full = np.eye(dim)
    full[:n, :n] = u @ v
    out.SetSpacing([*spacing.tolist(), *[1.0] * (dim - n)])
    out.SetOrigin([*lps[:, 3].tolist(), *[0.0] * (dim - n)])
    out.SetDirection(full.ravel().tolist())
    return out


def write(path: Path, data: NDArray[Any], affine: Affine4) -> None:
    """Write an array as the format of its suffix; a picture gets whole numbers, and 8 bits where they suffice.

    Raises:
        InputError: the format cannot hold it.
    """
    if path.suffix.lower() in PICTURES:
        if data.ndim == 3 and data.shape[2] == 1:
            data = data[..., 0]
        if data.ndim != 2:
            raise InputError(f"{path.name}: a picture has two axes, this image {data.ndim}.", hint="Write NIfTI or NRRD.")
        if path.suffix.lower() not in (".tif", ".tiff") and data.dtype.name not in ("uint8", "uint16"):
            data = np.clip(np.rint(data), 0, 65535)
            data = data.astype(np.uint8 if data.max(initial=0) < 256 else np.uint16)
    try:
        sitk.WriteImage(to_itk(data, affine), str(path), useCompression=path.suffix.lower() not in (".mhd", ".nhdr"))
    except RuntimeError as error:
        raise InputError(f"{path.name}: cannot be written ({itk_reason(error)}).") from None


def from_sitk(value: sitk.Image, name: str, kind: Any) -> Image:
    """An `Image` of a SimpleITK image, with all its channels.

    Raises:
        InputError: it has neither two nor three axes.
    """
    dim = value.GetDimension()
    if dim not in (2, 3):
        raise InputError(f"{name}: {dim} axes; an image has two or three.")
    channels = value.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayViewFromImage(value)
    data = np.stack([array[..., c] for c in range(channels)]) if channels > 1 else array[None]
    data = np.ascontiguousarray(data.transpose(0, *reversed(range(1, dim + 1))))
    grid = grid_of(name, data.shape[1:], affine_of(value))
    return Image(data.reshape(len(data), *grid.shape), grid, kind, name)
