"""NIfTI images, in and out."""

import gzip
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, Kind

_SUFFIXES = (".nii", ".nii.gz")
_CHUNK = 1 << 21  # bytes compressed at a time, each as a gzip member of its own


def read_image(
    path: str | Path, *, kind: Kind = "intensity", volume: int | None = None, nan_to_zero: bool = False
) -> Image:
    """An image from a NIfTI file.

    Whole numbers stay what they are unless the header scales them. A volume of a 4-D file is chosen by `volume`.

    Raises:
        InputError: missing, empty, truncated or not NIfTI; 4-D without `volume`; not real numbers; NaN without
            `nan_to_zero`; a singular affine; more voxels than memory.
    """
    path = Path(path)
    image = _open(path)
    header = image.header
    shape = tuple(int(n) for n in image.shape)
    if any(n < 1 for n in shape):
        raise InputError(f"{path}: the header gives a size of {shape}.", hint="Fix the image header.")
    dtype = header.get_data_dtype()
    if dtype.fields is not None or dtype.kind == "c":
        kind_name = "RGB" if dtype.fields is not None else "complex"
        raise InputError(f"{path}: {kind_name} voxels; real numbers are needed.", hint="Convert it to a scalar image.")
    needed = int(np.prod(shape, dtype=np.float64)) * max(dtype.itemsize, 4) * 2
    if needed > free_memory():
        raise InputError(f"{path}: {shape} voxels need about {needed / 1e9:.1f} GB; {free_memory() / 1e9:.1f} GB are free.")
    data = _voxels(path, image)
    affine = _affine(path, image)
    data = _one_volume(path, data, volume)
    grid = _grid(path, data.shape, affine)
    data = finite(data, name=str(path), nan_to_zero=nan_to_zero)
    data = whole(data, name=str(path)) if kind == "labels" else data
    return Image(data[None], grid, kind, str(path))


def finite(data: NDArray[Any], *, name: str, nan_to_zero: bool) -> NDArray[Any]:
    """The same data, or with 0 for NaN and infinity where that is wanted."""
    if data.dtype.kind != "f":
        return data
    bad = data.size - int(np.isfinite(data).sum())
    if bad and not nan_to_zero:
        raise InputError(f"{name}: {bad} of {data.size} voxels are NaN or infinite.", hint="Pass --nan-to-zero.")
    return np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0) if bad else data


def whole(data: NDArray[Any], *, name: str) -> NDArray[Any]:
    """A label map's values as integers."""
    if data.dtype.kind != "f":
        return data
    rounded = np.rint(data)
    if not np.array_equal(rounded, data):
        raise InputError(f"{name}: a label map must hold whole numbers.")
    return rounded.astype(np.int32)


def read_grid(path: str | Path) -> Grid:
    """The grid of an image file, from its header.

    Raises:
        InputError: see `read_image`.
    """
    path = Path(path)
    image = _open(path)
    shape = tuple(int(n) for n in image.shape[:3])
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return _grid(path, shape, _affine(path, image))


def _grid(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    try:
        return Grid(shape, plane_affine(affine) if len(shape) == 2 else affine)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None


def _open(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an image file.")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty.")
    if not path.name.lower().endswith(_SUFFIXES):
        raise InputError(f"{path}: not a NIfTI file name.", hint="Expected .nii or .nii.gz.")
    with path.open("rb") as file:
        start = file.read(16)
    if path.name.lower().endswith(".gz") and start[:2] != b"\x1f\x8b":
        raise InputError(f"{path}: named .gz but not compressed; it begins with {start!r}.")
    try:
        image = nib.load(path)  # type: ignore[reportPrivateImportUsage]
    except (nib.filebasedimages.ImageFileError, EOFError, OSError, ValueError, zlib.error) as error:  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{path}: not a readable NIfTI image ({first_line(error)}).") from None
    if not isinstance(image, nib.Nifti1Pair):  # type: ignore[reportPrivateImportUsage]
        raise InputError(f"{path}: a {type(image).__name__}, not NIfTI.")
    return image


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _voxels(path: Path, image: Any) -> NDArray[Any]:
    proxy = image.dataobj
    offset = int(proxy.offset)
    expected = offset + int(np.prod(image.shape, dtype=np.int64)) * image.header.get_data_dtype().itemsize
    if not path.name.endswith(".gz") and path.stat().st_size < expected:
        raise InputError(f"{path}: truncated after {path.stat().st_size} of {expected} bytes.")
    try:
        scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
        data = np.asarray(proxy, np.float32) if scaled else np.asarray(proxy.get_unscaled())
    except (EOFError, OSError, ValueError, zlib.error) as error:
        have = _uncompressed_size(path)
        if have < expected:
            raise InputError(f"{path}: truncated after {have} of {expected} bytes.") from None
        raise InputError(f"{path}: cannot be read ({first_line(error)}).") from None
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return data


def _uncompressed_size(path: Path) -> int:
    total = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while block := file.read(1 << 20):
                total += len(block)
    except (EOFError, OSError, zlib.error):
        pass
    return total


def _affine(path: Path, image: Any) -> NDArray[np.float64]:
    header = image.header
    zooms = np.array(header["pixdim"][1:4], np.float64)
    used = zooms[: min(len(image.shape), 3)]
    if int(header["sform_code"]) == 0 and not (np.isfinite(used).all() and (used != 0).all()):
        raise InputError(f"{path}: voxel spacing {tuple(used)} in the header.", hint="Fix the image header.")
    affine = np.array(image.affine, np.float64)
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: the affine holds values that are not finite.", hint="Fix the image header.")
    return affine


def _one_volume(path: Path, data: NDArray[Any], volume: int | None) -> NDArray[Any]:
    while data.ndim > 2 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 4:
        raise InputError(f"{path}: {data.ndim} axes {data.shape}; at most a series of volumes can be read.")
    if data.ndim == 4:
        if volume is None:
            raise InputError(
                f"{path}: a 4-D image of {data.shape[3]} volumes.", hint="Choose one with --volume K (from 0)."
            )
        if not 0 <= volume < data.shape[3]:
            raise InputError(f"{path}: there is no volume {volume}; it has {data.shape[3]}, counted from 0.")
        data = data[..., volume]
    if data.ndim < 2:
        raise InputError(f"{path}: {data.ndim} axis of {data.shape} voxels; an image has two or three.")
    return np.ascontiguousarray(data)


def plane_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine of a 2-D image: its first two world axes where the slice lies in them, else its own axes in mm."""
    plane = np.eye(3)
    lengths = np.linalg.norm(affine[:3, :2], axis=0)
    inner = affine[:2, :2]
    if abs(float(np.linalg.det(inner))) > 0.5 * float(np.prod(lengths)):
        plane[:2, :2], plane[:2, 2] = inner, affine[:2, 3]
    else:
        plane[:2, :2] = np.diag(lengths)
    return plane


def free_memory() -> float:
    """Bytes that can be used now; infinite where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        line = next(row for row in text.splitlines() if row.startswith("MemAvailable"))
        return float(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return float("inf")


def write_image(path: Path, image: Image, *, like: Path | None = None) -> None:
    """Write one channel as NIfTI, its geometry that of the grid (of `like` for a 2-D image, to the last bit)."""
    affine = np.eye(4)
    if image.grid.dim == 3:
        affine = image.grid.affine
    else:
        affine[:2, :2], affine[:2, 3] = image.grid.affine[:2, :2], image.grid.affine[:2, 2]
    data = image.data[0]
    if like is not None and image.grid.dim == 2:
        model = _open(like)
        affine, data = np.asarray(model.affine), data.reshape(model.shape[:2] + (1,) * (len(model.shape) - 2))
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    if data.dtype in (np.int64, np.uint64):
        data = data.astype(np.int32)
    _write(path, data, affine)


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
    affine = np.eye(4)
    affine[:dim, :dim], affine[:dim, 3] = grid.affine[:dim, :dim], grid.affine[:dim, dim]
    _write(path, out, affine, intent="vector")


def _write(path: Path, data: NDArray[Any], affine: NDArray[np.float64], *, intent: str | None = None) -> None:
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
    if not path.name.endswith(".gz"):
        with path.open("wb") as file:
            file.write(head)
            file.write(raw)
        return
    pieces = [head, *[raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK)]]
    # zlib works without the GIL; a file of several gzip members is a gzip file to every reader.
    with path.open("wb") as file, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for block in pool.map(_gzip_member, pieces):
            file.write(block)


def _gzip_member(piece: bytes | memoryview) -> bytes:
    # No time stamp: the same result is the same file. Run lengths only: floats hold few repeats, and looking for them
    # doubles the time for a fifth of the size.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    return packer.compress(piece) + packer.flush()
