"""What every reader asks of voxels, whatever the format."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, Kind
from warpwise.io.memory import free_memory

Affine4 = NDArray[np.float64]

MOST_PACKED = 1040  # bytes that one stored byte can stand for: deflate's best is 1032


def lps_signs(dim: int) -> NDArray[np.float64]:
    """By which each axis is multiplied to go from RAS to LPS, or back."""
    return np.array([-1.0, -1.0, 1.0][:dim])


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def existing_file(path: Path) -> int:
    """Size of a file in bytes.

    Raises:
        InputError: it is missing, a folder, something that is not a file, or empty.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not an image file.")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file.")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty.")
    return size


def room_for(name: str, shape: tuple[int, ...], bytes_per_voxel: float) -> None:
    """Refuse a size that a header claims, before anything of it is allocated.

    Raises:
        InputError: a size below one, or more than the free memory.
    """
    if any(n < 1 for n in shape):
        raise InputError(f"{name}: the header gives a size of {shape}.", hint="Fix the image header.")
    needed = float(np.prod(shape, dtype=np.float64)) * max(bytes_per_voxel, 4) * 2
    if needed > free_memory():
        raise InputError(f"{name}: {shape} voxels need about {needed / 1e9:.1f} GB; {free_memory() / 1e9:.1f} GB are free.")


def enough_stored(path: Path, shape: tuple[int, ...], bytes_per_voxel: float) -> None:
    """Refuse a file too short to hold what its header claims, however well it is packed.

    Raises:
        InputError: it is truncated, or the header lies.
    """
    size, claimed = path.stat().st_size, float(np.prod(shape, dtype=np.float64)) * bytes_per_voxel
    if size * MOST_PACKED < claimed:
        raise InputError(f"{path}: truncated: {size} bytes cannot hold {shape} voxels.")


def finite(data: NDArray[Any], *, name: str, nan_to_zero: bool) -> NDArray[Any]:
    """The same data, or with 0 for NaN and infinity where that is wanted."""
    if data.dtype.kind != "f":
        return data
    bad = data.size - int(np.isfinite(data).sum())
    if bad and not nan_to_zero:
        raise InputError(f"{name}: {bad} of {data.size} voxels are NaN or infinite.", hint="Pass --nan-to-zero.")
    return np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0) if bad else data


def whole(data: NDArray[Any], *, name: str) -> NDArray[Any]:
    """A label map's values as integers, none of them negative."""
    if data.dtype.kind == "f":
        rounded = np.rint(data)
        if not np.array_equal(rounded, data):
            raise InputError(f"{name}: a label map must hold whole numbers.")
        data = rounded.astype(np.int32)
    if data.dtype.kind == "i" and data.size and int(data.min()) < 0:
        raise InputError(f"{name}: labels must not be negative; the lowest is {int(data.min())}.")
    return data


def plane_affine(affine: Affine4) -> NDArray[np.float64]:
    """Affine of a 2-D image: its first two world axes where the slice lies in them, else its own axes in mm."""
    plane = np.eye(3)
    lengths = np.linalg.norm(affine[:3, :2], axis=0)
    inner = affine[:2, :2]
    if abs(float(np.linalg.det(inner))) > 0.5 * float(np.prod(lengths)):
        plane[:2, :2], plane[:2, 2] = inner, affine[:2, 3]
    else:
        plane[:2, :2] = np.diag(lengths)
    return plane


def flattened(shape: tuple[int, ...], affine: Affine4) -> tuple[tuple[int, ...], Affine4]:
    """Shape and affine (4×4) of a volume with its thin axis last: a volume of one slice is a plane."""
    thin = [axis for axis, n in enumerate(shape) if n == 1]
    if len(shape) != 3 or len(thin) != 1:
        return shape, affine
    order = [*[axis for axis in range(3) if axis != thin[0]], thin[0]]
    return tuple(shape[axis] for axis in order[:2]), affine[:, [*order, 3]]


def grid_of(name: str, shape: tuple[int, ...], affine: Affine4) -> Grid:
    """The grid of a stored volume; of one slice it is two-dimensional.

    Raises:
        InputError: fewer than two axes, or an affine that cannot be used; the file is named.
    """
    shape, affine = flattened(shape, affine)
    if len(shape) not in (2, 3):
        axes = "axis" if len(shape) == 1 else "axes"
        raise InputError(f"{name}: {len(shape)} {axes} of {shape} voxels; an image has two or three.")
    try:
        return Grid(shape, plane_affine(affine) if len(shape) == 2 else affine)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", hint=error.hint) from None


def image_of(
    name: str,
    data: NDArray[Any],
    affine: Affine4,
    *,
    kind: Kind,
    nan_to_zero: bool,
    notes: tuple[str, ...] = (),
) -> Image:
    """A checked image of one stored volume (X, Y[, Z]) with its 4×4 affine."""
    grid = grid_of(name, data.shape, affine)
    data = finite(data, name=name, nan_to_zero=nan_to_zero)
    data = whole(data, name=name) if kind == "labels" else data
    return Image(np.ascontiguousarray(data).reshape(1, *grid.shape), grid, kind, name, notes)


def one_volume(name: str, count: int, volume: int | None) -> int:
    """Which volume of a series of `count` is meant.

    Raises:
        InputError: none was chosen, or there is none of that number.
    """
    if volume is None:
        raise InputError(f"{name}: a 4-D image of {count} volumes.", hint="Choose one with --volume K (from 0).")
    if not 0 <= volume < count:
        raise InputError(f"{name}: there is no volume {volume}; it has {count}, counted from 0.")
    return volume
