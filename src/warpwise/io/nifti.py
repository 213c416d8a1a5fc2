"""NIfTI images, in and out."""

import gzip
import os
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.checks import MOST_PACKED, Affine4, existing_file, first_line, one_volume, room_for

SUFFIXES = (".nii", ".nii.gz")
_CHUNK = 1 << 21  # bytes compressed at a time, each as a gzip member of its own
UNREADABLE = (
    nib.filebasedimages.ImageFileError,  # type: ignore[reportPrivateImportUsage]
    nib.spatialimages.HeaderDataError,  # type: ignore[reportPrivateImportUsage]
    nib.spatialimages.HeaderTypeError,  # type: ignore[reportPrivateImportUsage]
    AttributeError, EOFError, KeyError, OSError, OverflowError, TypeError, ValueError, zlib.error,
)  # fmt: skip
_APART = 0.1  # voxels that sform and qform may differ by before it is worth a word


class Nifti:
    """An open NIfTI file: its header has been judged, its voxels are still on disk.

    Raises:
        InputError: missing, empty, not NIfTI, sizes that cannot be, no real numbers, an affine that is not finite.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image = opened(path)
        header = self._image.header
        shape = tuple(int(n) for n in self._image.shape)
        dtype = header.get_data_dtype()
        room_for(str(path), shape, dtype.itemsize)
        if dtype.fields is not None or dtype.kind == "c":
            kind = "RGB" if dtype.fields is not None else "complex"
            raise InputError(f"{path}: {kind} voxels; real numbers are needed.", hint="Convert it to a scalar image.")
        self.stored_shape = shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) > 4:
            raise InputError(f"{path}: {len(shape)} axes {shape}; at most a series of volumes can be read.")
        if len(shape) < 2:
            raise InputError(f"{path}: {len(shape)} axis of {shape} voxels; an image has two or three.")
        self.shape = shape[:3]
        self.volumes = shape[3] if len(shape) == 4 else 1
        self.affine, self.notes = affine_of(path, self._image)
        self._expected = int(self._image.dataobj.offset) + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._check_length()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored voxels."""
        return self._image.header.get_data_dtype()

    def voxels(self, volume: int | None = None) -> NDArray[Any]:
        """One volume (X, Y[, Z]); whole numbers stay what they are unless the header scales them."""
        proxy = self._image.dataobj
        scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
        try:
            if self.volumes == 1:
                data = np.asarray(proxy, np.float32) if scaled else np.asarray(proxy.get_unscaled())
            else:
                at = (*[slice(None)] * 3, one_volume(str(self.path), self.volumes, volume))
                data = np.asarray(proxy[at + (0,) * (len(self.stored_shape) - 4)])
                data = data.astype(np.float32) if scaled else data
        except UNREADABLE as error:
            have = uncompressed_size(self.path)
            if have < self._expected:
                raise InputError(f"{self.path}: truncated after {have} of {self._expected} bytes.") from None
            raise InputError(f"{self.path}: cannot be read ({first_line(error)}).") from None
        if not data.dtype.isnative:
            data = data.astype(data.dtype.newbyteorder("="))
        return data.reshape(self.shape)

    def series(self) -> Iterator[NDArray[Any]]:
        """Every volume (X, Y[, Z]), unpacked once."""
        if self.volumes == 1:
            yield self.voxels()
            return
        proxy = self._image.dataobj
        self.voxels(0)  # judges the file
        stored = np.asarray(proxy.get_unscaled()).reshape(*self.shape, self.volumes)
        scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
        for volume in range(self.volumes):
            data = stored[..., volume]
            yield (
                data * np.float32(proxy.slope) + np.float32(proxy.inter)
                if scaled
                else data.astype(data.dtype.newbyteorder("="), copy=False)
            )

    def _check_length(self) -> None:
        size = self.path.stat().st_size
        if not self.path.name.lower().endswith(".gz"):
            if size < self._expected:
                raise InputError(f"{self.path}: truncated after {size} of {self._expected} bytes.")
        elif size * MOST_PACKED < self._expected:
            have = uncompressed_size(self.path)
            raise InputError(f"{self.path}: truncated after {have} of {self._expected} bytes.")


def opened(path: Path) -> Any:
    """The file as nibabel sees it.

    Raises:
        InputError: it is not a NIfTI file.
    """
    existing_file(path)
    with path.open("rb") as file:
        start = file.read(16)
    if path.name.lower().endswith(".gz") and start[:2] != b"\x1f\x8b":
        raise InputError(f"{path}: named .gz but not compressed; it begins with {start!r}.")
    try:
        # nibabel talks of everything odd; what counts is refused or noted below.
        with nib.imageglobals.LoggingOutputSuppressor(), warnings.catch_warnings():  # type: ignore[reportPrivateImportUsage]
            warnings.simplefilter("ignore")
            image: Any = nib.load(path)  # type: ignore[reportPrivateImportUsage]
        # nibabel judges some fields only when they are asked for.
        for field in ("get_data_dtype", "get_slope_inter"):
            getattr(image.header, field)()
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable NIfTI image ({first_line(error)}).") from None
    if not isinstance(image, nib.Nifti1Pair):  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{path}: a {type(image).__name__}, not NIfTI.")
    return image


def uncompressed_size(path: Path) -> int:
    """How many bytes a file holds once unpacked, as far as it can be."""
    total = 0
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            while block := file.read(1 << 20):
                total += len(block)
    except (EOFError, OSError, zlib.error):
        pass
    return total


def affine_of(path: Path, image: Any) -> tuple[Affine4, tuple[str, ...]]:
    """Index → RAS+ mm by sform, else qform, else spacing alone; and what is odd about it.

    Raises:
        InputError: it is not finite, or rests on a spacing of zero.
    """
    header = image.header
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not sform:
        used = stored_zooms(path, header)[: min(len(image.shape), 3)]
        if not (np.isfinite(used).all() and (used != 0).all()):
            raise InputError(f"{path}: voxel spacing {tuple(used.tolist())} in the header.", hint="Fix the image header.")
    try:
        affine = np.array(image.affine, np.float64)
        other = header.get_qform() if sform and qform else affine
    except (ValueError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError) as error:  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{path}: {first_line(error)}.", hint="Fix the image header.") from None
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: the affine holds values that are not finite.", hint="Fix the image header.")
    notes: list[str] = []
    if not sform and not qform:
        notes.append(f"{path.name}: the header gives no orientation (sform and qform codes are 0); spacing alone is used.")
    elif np.isfinite(other).all():
        corners = np.array([*np.ndindex(2, 2, 2)]) * [*image.shape[:3], 1, 1][:3]
        apart = np.linalg.norm((other - affine)[:3, :3] @ corners.T + (other - affine)[:3, 3:], axis=0).max()
        if apart > _APART * float(np.linalg.norm(affine[:3, :3], axis=0).min()):
            notes.append(f"{path.name}: sform and qform disagree by up to {apart:.1f} mm; the sform is used.")
    return affine, tuple(notes)


def stored_zooms(path: Path, header: Any) -> NDArray[np.float64]:
    """Voxel sizes as the file has them: nibabel makes 1 of 0 when it loads a header."""
    with nib.openers.ImageOpener(path) as file:  # type: ignore[reportPrivateImportUsage]
        raw = type(header).from_fileobj(file, check=False)
    return np.array(raw["pixdim"][1:4], np.float64)


def write_volumes(path: Path, data: NDArray[Any], affine: Affine4, *, intent: str | None = None) -> None:
    """Write an array (X, Y[, Z[, T]] or a 5-D vector image) with a 4×4 affine; patient data has no place in it."""
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    if data.dtype.name in ("int64", "uint64"):
        data = data.astype(np.int32)
    head, raw = _parts(data, affine, intent)
    if not path.name.endswith(".gz"):
        with path.open("wb") as file:
            file.write(head)
            file.write(raw)
        return
    pieces = [head, *[raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK)]]
    # zlib works without the GIL; a file of several gzip members is a gzip file to every reader.
    with path.open("wb") as file, ThreadPoolExecutor(_processors()) as pool:
        for block in pool.map(_gzip_member, pieces):
            file.write(block)


def packed_nifti(data: NDArray[Any], affine: Affine4) -> bytes:
    """An array as a gzipped NIfTI file in memory, as small as gzip makes it quickly."""
    head, raw = _parts(data, affine, None)
    return gzip.compress(head + bytes(raw), 6, mtime=0)


def _parts(data: NDArray[Any], affine: Affine4, intent: str | None) -> tuple[bytes, memoryview]:
    image = nib.Nifti1Image(data, affine)  # type: ignore[reportPrivateImportUsage]
    header = image.header
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    if intent:
        header.set_intent(intent)
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    raw = np.asfortranarray(data).reshape(-1, order="F").view(np.uint8).data
    head = header.binaryblock + b"\0\0\0\0"
    return head, raw


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gzip_member(piece: bytes | memoryview) -> bytes:
    # No time stamp: the same result is the same file. Run lengths only: floats hold few repeats, and looking for them
    # doubles the time for a fifth of the size.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    return packer.compress(piece) + packer.flush()


def full_affine(grid: Grid) -> Affine4:
    """A grid's affine as 4×4; a plane lies in world x and y."""
    affine = np.eye(4)
    dim = grid.dim
    affine[:dim, :dim], affine[:dim, 3] = grid.affine[:dim, :dim], grid.affine[:dim, dim]
    return affine


def write_displacement(path: Path, vectors_mm: NDArray[np.floating], grid: Grid) -> None:
    """Write displacements (dim, *space), RAS mm, as an ITK/ANTs vector image: 5-D NIfTI of LPS mm.

    Rounded to 2⁻¹⁰ mm (error below half a micrometre), which makes the file smaller by a third and quicker to write.
    """
    dim = grid.dim
    out = np.empty((*vectors_mm.shape[1:], *[1] * (4 - dim), dim), np.float32, order="F")
    for d in range(dim):
        plane = np.rint(vectors_mm[d] * np.float32(1024 * (-1 if d < 2 else 1)))
        plane *= np.float32(1 / 1024)
        out[(slice(None),) * dim + (0,) * (4 - dim) + (d,)] = plane
    write_volumes(path, out, full_affine(grid), intent="vector")
