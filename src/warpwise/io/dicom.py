"""DICOM: a folder of slices, or one file of many frames. Only geometry and voxels are taken; names and dates stay behind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.io.checks import Affine4, room_for
from warpwise.io.itk_images import arrays, execute, itk_reason

SUFFIXES = (".dcm", ".dicom", ".ima")

_POSITION, _ORIENTATION, _MODALITY = "0020|0032", "0020|0037", "0008|0060"
_UNEVEN = 0.02  # of the slice distance: more is a missing slice, not rounding
_TURNED = 1e-3  # of a direction cosine


@dataclass(frozen=True)
class Slice:
    """Where one file of a series lies, LPS mm."""

    path: str
    size: tuple[int, ...]
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]


def is_dicom(path: Path) -> bool:
    """Whether a folder holds a DICOM series, or a file is a DICOM file by its name or its magic."""
    if path.is_dir():
        return bool(_series(path))
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path, *, series: tuple[str, ...], grey: bool) -> tuple[NDArray[np.generic], Affine4, tuple[str, ...]]:
    """Voxels (X, Y, Z), 4×4 RAS+ affine and notes of a series or a file.

    Raises:
        InputError: no series or several of them, slices that are missing, repeated or turned, or no readable voxels.
    """
    if not path.is_dir():
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.LoadPrivateTagsOff()
        found = execute(_informed(reader, path), str(path))
        return *arrays(path, found, grey=grey), ()
    uid, files = chosen(path, series)
    slices = [_slice(Path(file)) for file in files]
    ordered = in_order(path, slices)
    room_for(str(path), (*ordered[0].size[:2], len(ordered)), 4)
    many = sitk.ImageSeriesReader()
    many.SetFileNames([s.path for s in ordered])
    data, affine = arrays(path, execute(many, f"{path} (series {uid})"), grey=grey)
    # GDCM takes the slice distance from the first two files; the mean over all rounds better.
    if len(ordered) > 1:
        step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
        affine[:3, 2] = np.array([-1.0, -1.0, 1.0]) * step
    return data, affine, ()


def chosen(path: Path, series: tuple[str, ...]) -> tuple[str, list[str]]:
    """UID and files of the series that is meant.

    Raises:
        InputError: the folder has none, several and not one of them named.
    """
    found = _series(path)
    if not found:
        raise InputError(f"{path}: a folder without a DICOM series.", hint="Give an image file or a DICOM folder.")
    wanted = [uid for uid in found if uid in series] or ([*found] if not series else [])
    if len(wanted) != 1:
        lines = "; ".join(f"{uid} ({len(files)} files, {_modality(files[0])})" for uid, files in found.items())
        problem = f"no series {', '.join(series)}" if series and not wanted else f"{len(found)} DICOM series"
        raise InputError(f"{path}: {problem}. It holds: {lines}.", hint="Choose one with --series UID.")
    return wanted[0], found[wanted[0]]


def in_order(path: Path, slices: list[Slice]) -> list[Slice]:
    """Slices along their normal.

    Raises:
        InputError: sizes or orientations differ, or the distances between slices do.
    """
    first = slices[0]
    for other in slices[1:]:
        if other.size[:2] != first.size[:2]:
            raise InputError(f"{path}: slices of {first.size[:2]} and of {other.size[:2]} pixels in one series.")
        if np.abs(other.orientation - first.orientation).max() > _TURNED:
            raise InputError(
                f"{path}: slices of different orientation in one series ({Path(first.path).name}, {Path(other.path).name}).",
                hint="Sort them into series of one orientation.",
            )
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    along = np.array([float(s.position @ normal) for s in slices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    if gaps.size and gaps.min() < 1e-3:
        twice = order[int(np.argmin(gaps))]
        raise InputError(f"{path}: two slices lie at the same place ({Path(slices[twice].path).name}).")
    if gaps.size:
        usual = float(np.median(gaps))
        wide = np.flatnonzero(np.abs(gaps - usual) > _UNEVEN * usual)
        if wide.size:
            at = int(wide[0])
            raise InputError(
                f"{path}: slices are missing: {gaps[at]:.2f} mm lie between {Path(slices[order[at]].path).name} and "
                f"{Path(slices[order[at + 1]].path).name}, {usual:.2f} mm elsewhere ({wide.size} such gaps)."
            )
    return [slices[k] for k in order]


def _series(path: Path) -> dict[str, list[str]]:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    return {uid: [*sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), uid)] for uid in ids}


def _informed(reader: sitk.ImageFileReader, path: Path) -> sitk.ImageFileReader:
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable DICOM file ({itk_reason(error)}).") from None
    room_for(str(path), tuple(int(n) for n in reader.GetSize()), 4.0 * reader.GetNumberOfComponents())
    return reader


def _header(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return _informed(reader, path)


def _modality(path: str) -> str:
    reader = _header(Path(path))
    return reader.GetMetaData(_MODALITY).strip() if reader.HasMetaDataKey(_MODALITY) else "unknown modality"


def _slice(path: Path) -> Slice:
    reader = _header(path)
    values: list[NDArray[np.float64]] = []
    for key, count, word in ((_POSITION, 3, "position"), (_ORIENTATION, 6, "orientation")):
        text = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
        try:
            numbers = np.array([float(n) for n in text.split("\\")])
        except ValueError:
            numbers = np.zeros(0)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            raise InputError(f"{path}: the slice has no {word} in its header.")
        values.append(numbers)
    return Slice(str(path), tuple(int(n) for n in reader.GetSize()), values[0], values[1])
