"""DICOM: a folder of slices, or one file. Only geometry and voxels are taken; names and dates stay behind.

Stored pixels are read by pydicom; GDCM (in SimpleITK) unpacks what is compressed or of many frames.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.io.checks import Affine4, enough_stored, existing_file, first_line, lps_signs, room_for
from warpwise.io.itk_images import LUMINANCE, arrays, execute, itk_reason

SUFFIXES = (".dcm", ".dicom", ".ima")

_UNEVEN = 0.02  # of the slice distance: more is a missing slice, not rounding
_TURNED = 1e-3  # of a direction cosine
_DEFERRED = 4096  # bytes: longer elements, the pixels, stay on disk until they are asked for
_LPS = np.diag(lps_signs(3))

Found = tuple[NDArray[Any], Affine4, tuple[str, ...]]
Member = tuple[Path, pydicom.Dataset]


@dataclass(frozen=True, eq=False)
class Slice:
    """One file of a series: where it lies, LPS mm, and its header, which gets at its pixels."""

    path: Path
    found: pydicom.Dataset
    size: tuple[int, int]
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file by its name or its magic."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path, *, series: tuple[str, ...], grey: bool) -> Found:
    """Voxels (X, Y, Z), 4×4 RAS+ affine and notes of a series or a file.

    Raises:
        InputError: no series or several of them, slices that are missing, repeated or turned, or no readable voxels.
    """
    return _folder(path, series, grey=grey) if path.is_dir() else _file(path, grey=grey)


def _folder(path: Path, series: tuple[str, ...], *, grey: bool) -> Found:
    ordered = in_order(path, [_slice(file, found) for file, found in chosen(path, series)])
    first = ordered[0]
    room_for(str(path), (*first.size, len(ordered)), 4)
    data = np.stack([_pixels(s.path, s.found, grey=grey) for s in ordered], -1)
    step = np.cross(first.orientation[:3], first.orientation[3:])
    if len(ordered) > 1:
        step = (ordered[-1].position - first.position) / (len(ordered) - 1)
    return data, _affine(first, step), ()


def _file(path: Path, *, grey: bool) -> Found:
    found = header(path)
    if not _native(found):
        return *arrays(path, _by_gdcm(path), grey=grey), ()
    data = _pixels(path, found, grey=grey)
    try:
        place, notes = _slice(path, found), ()
    except InputError:
        spacing = _spacing(found)
        notes = (f"{path.name}: the file does not say where it lies; its pixels are of {spacing[0]:g}×{spacing[1]:g} mm.",)
        place = Slice(path, found, data.shape[:2], np.zeros(3), np.array([1.0, 0, 0, 0, 1, 0]), spacing)
    thickness = float(found.get("SpacingBetweenSlices") or found.get("SliceThickness") or 1.0)
    normal = np.cross(place.orientation[:3], place.orientation[3:])
    return data[..., None], _affine(place, normal * thickness), notes


def _affine(place: Slice, step: NDArray[np.floating]) -> Affine4:
    affine = np.eye(4)
    affine[:3, 0] = _LPS @ place.orientation[:3] * place.spacing[0]
    affine[:3, 1] = _LPS @ place.orientation[3:] * place.spacing[1]
    affine[:3, 2] = _LPS @ step
    affine[:3, 3] = _LPS @ place.position
    return affine


def chosen(path: Path, series: tuple[str, ...]) -> list[Member]:
    """Files of the series that is meant, with their headers.

    Raises:
        InputError: the folder has none, several and not one of them named, or not the one named.
    """
    found = _series(path)
    if not found:
        raise InputError(f"{path}: a folder without a DICOM series.", hint="Give an image file or a DICOM folder.")
    wanted = [uid for uid in found if uid in series] or ([*found] if not series else [])
    if len(wanted) != 1:
        lines = "; ".join(f"{uid} ({len(files)} files, {_modality(files[0][1])})" for uid, files in found.items())
        problem = f"no series {', '.join(series)}" if series and not wanted else f"{len(found)} DICOM series"
        raise InputError(f"{path}: {problem}. It holds: {lines}.", hint="Choose one with --series UID.")
    return found[wanted[0]]


def in_order(path: Path, slices: list[Slice]) -> list[Slice]:
    """Slices along their normal.

    Raises:
        InputError: sizes or orientations differ, or the distances between slices do.
    """
    first = slices[0]
    for other in slices[1:]:
        if other.size != first.size:
            raise InputError(f"{path}: slices of {first.size} and of {other.size} pixels in one series.")
        if np.abs(other.orientation - first.orientation).max() > _TURNED:
            raise InputError(
                f"{path}: slices of different orientation in one series ({first.path.name}, {other.path.name}).",
                hint="Sort them into series of one orientation.",
            )
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    along = np.array([float(s.position @ normal) for s in slices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    if gaps.size and gaps.min() < 1e-3:
        twice = order[int(np.argmin(gaps))]
        raise InputError(f"{path}: two slices lie at the same place ({slices[twice].path.name}).")
    if gaps.size:
        usual = float(np.median(gaps))
        wide = np.flatnonzero(np.abs(gaps - usual) > _UNEVEN * usual)
        if wide.size:
            at = int(wide[0])
            raise InputError(
                f"{path}: slices are missing: {gaps[at]:.2f} mm lie between {slices[order[at]].path.name} and "
                f"{slices[order[at + 1]].path.name}, {usual:.2f} mm elsewhere ({wide.size} such gaps)."
            )
    return [slices[k] for k in order]


def header(path: Path) -> pydicom.Dataset:
    """What a file says of itself, its lengths checked against the file.

    Raises:
        InputError: it is not a DICOM file, or one that ends early.
    """
    size = existing_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path, defer_size=_DEFERRED)
            lengths = [getattr(element, "length", 0) or 0 for element in found.values()]
    except Exception as error:  # noqa: BLE001 - pydicom raises whatever breaks first
        raise InputError(f"{path}: not a readable DICOM file ({first_line(error)[:120]}).") from None
    longest = max([n for n in lengths if n != 0xFFFFFFFF], default=0)
    if longest > size:
        raise InputError(f"{path}: truncated: an element of {longest} bytes in a file of {size}.")
    return found


def _native(found: pydicom.Dataset) -> bool:
    """Whether the pixels are stored as they are, in one frame."""
    try:
        packed = bool(found.file_meta.TransferSyntaxUID.is_compressed)
        frames = int(found.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError):
        return True
    return not packed and frames == 1


def _pixels(path: Path, found: pydicom.Dataset, *, grey: bool) -> NDArray[Any]:
    """Pixels (X, Y) of a file of one frame, rescaled as it says."""
    if not _native(found):
        return arrays(path, _by_gdcm(path), grey=grey)[0].reshape(_size(path, found))
    size = _size(path, found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = np.asarray(found.pixel_array)
            slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
    except Exception as error:  # noqa: BLE001 - as above
        raise InputError(f"{path}: its pixels cannot be read ({first_line(error)[:120]}).") from None
    if data.ndim == 3 and data.shape[2] in (3, 4):
        if not grey:
            raise InputError(f"{path}: RGB voxels; real numbers are needed.", hint="Pass --grey to use their luminance.")
        data = data[..., :3].astype(np.float32) @ LUMINANCE
    if data.ndim != 2 or data.shape != (size[1], size[0]):
        raise InputError(f"{path}: pixels of shape {data.shape}.")
    if (slope, intercept) != (1.0, 0.0):
        data = data * slope + intercept
        data = data.astype(np.int32 if slope.is_integer() and intercept.is_integer() else np.float32)
    return data.T


def _size(path: Path, found: pydicom.Dataset) -> tuple[int, int]:
    try:
        size = (int(found["Columns"].value), int(found["Rows"].value))
    except Exception:  # noqa: BLE001 - as above
        raise InputError(f"{path}: no size in its header.") from None
    room_for(str(path), size, 4.0)
    enough_stored(path, size, 1.0)
    return size


def _spacing(found: pydicom.Dataset) -> tuple[float, float]:
    """Distance of columns and of rows, mm; 1 where the file is silent."""
    for key in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            rows, columns = (float(n) for n in found.get(key) or ())
        except (TypeError, ValueError):
            continue
        if rows > 0 and columns > 0 and np.isfinite([rows, columns]).all():
            return columns, rows
    return 1.0, 1.0


def _by_gdcm(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        reader.ReadImageInformation()
    except (RuntimeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a readable DICOM file ({itk_reason(error)}).") from None
    shape = tuple(int(n) for n in reader.GetSize())
    room_for(str(path), shape, 4.0 * reader.GetNumberOfComponents())
    enough_stored(path, shape, 1.0)
    return execute(reader, str(path))


def _series(path: Path) -> dict[str, list[Member]]:
    """Files of a folder by series; what is not DICOM is passed over."""
    out: dict[str, list[Member]] = {}
    for file in sorted(p for p in path.iterdir() if p.is_file() and p.stat().st_size > 132):
        if not is_dicom(file):
            continue
        found = header(file)
        if "PixelData" in found:  # a DICOMDIR or a report has none
            out.setdefault(str(found.get("SeriesInstanceUID", "")), []).append((file, found))
    return out


def _modality(found: pydicom.Dataset) -> str:
    return str(found.get("Modality", "unknown modality"))


def _slice(path: Path, found: pydicom.Dataset) -> Slice:
    values: list[NDArray[np.float64]] = []
    for key, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6)):
        try:
            numbers = np.array([float(n) for n in found.get(key) or ()])
        except (TypeError, ValueError):
            numbers = np.zeros(0)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            raise InputError(f"{path}: the slice has no {key} in its header.")
        values.append(numbers)
    return Slice(path, found, _size(path, found), values[0], values[1], _spacing(found))
