"""An image: channels on a grid, and what its numbers mean."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid

Kind = Literal["intensity", "labels", "mask"]

PERCENTILES = (0.5, 99.5)  # of intensities that become 0 and 1, where nobody wants others


@dataclass(frozen=True, eq=False)
class Image:
    """Data (channel, X, Y[, Z]) on a grid.

    Attributes:
        data: any real type; labels and masks keep whole numbers.
        grid: shape and affine, RAS+ mm.
        kind: intensity (interpolated), labels (never interpolated linearly) or mask (> 0 counts).
        name: what messages call it, usually the path.
        notes: what its reader noticed and a user should know.

    Raises:
        InputError: data and grid do not agree, or data is complex or not numeric.
    """

    data: NDArray[Any]
    grid: Grid
    kind: Kind = "intensity"
    name: str = "image"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.data.shape[1:] != self.grid.shape:
            raise InputError(f"{self.name}: data of shape {self.data.shape[1:]} on a grid of {self.grid.shape}.")
        if self.data.dtype.kind not in "buif":
            raise InputError(f"{self.name}: voxels of type {self.data.dtype}; real numbers are needed.")

    def __repr__(self) -> str:
        channels = f"{len(self.data)} channels of " if len(self.data) != 1 else ""
        notes = f", {len(self.notes)} notes" if self.notes else ""
        return (
            f"Image({shortened(self.name)!r}, {self.kind}, {channels}{self.data.dtype}{notes},\n"
            f"      {self.grid.described()}, axes {self.grid.axes})"
        )

    @classmethod
    def from_array(cls, array: NDArray[Any], affine: NDArray[Any] | None = None, **kinds: Any) -> "Image":
        """One channel from an array (X, Y[, Z]); without an affine, 1 mm voxels.

        Example:
            >>> Image.from_array(np.zeros((4, 5))).grid.shape
            (4, 5)
        """
        array = np.asarray(array)
        if array.ndim not in (2, 3):
            raise InputError(f"An image has 2 or 3 axes; this array has shape {array.shape}.")
        matrix = np.eye(array.ndim + 1) if affine is None else np.asarray(affine, np.float64)
        if array.ndim == 2 and matrix.shape == (4, 4):
            matrix = matrix[np.ix_([0, 1, 3], [0, 1, 3])]
        return cls(array[None], Grid(array.shape, matrix), **kinds)


def shortened(name: str, *, most: int = 100) -> str:
    """A name of at most so many characters: of a path, its end.

    Example:
        >>> shortened("/archive/study/subject/fixed.nii.gz", most=20)
        '…ubject/fixed.nii.gz'
    """
    return name if len(name) <= most else f"…{name[1 - most :]}"


def intensity_range(data: NDArray[Any], percentiles: tuple[float, float] = PERCENTILES) -> tuple[float, float]:
    """Robust darkest and brightest value: the lower percentile, and the upper one of what lies above it.

    Of all voxels, so that it does not depend on how much air is stored, as a sample at regular distances would.
    """
    flat = data.reshape(-1)
    least, most = flat.min(), flat.max()
    if data.dtype.kind in "ui" and int(most) - int(least) < 1 << 16:
        counts = np.bincount((flat - least).astype(np.uint16) if data.dtype.itemsize <= 2 else flat - least)
        low_at = _rank(counts, percentiles[0])
        counts[: low_at + 1] = 0
        low = float(least) + low_at
        high = float(least) + _rank(counts, percentiles[1]) if counts.any() else low
    else:
        low = _percentile(flat, percentiles[0])
        above = flat[flat > low]
        high = _percentile(above, percentiles[1]) if above.size else low
    if high <= low:
        low, high = float(least), float(most)
    return low, high


def normalised(
    data: NDArray[Any], inside: NDArray[np.bool_] | None = None, percentiles: tuple[float, float] = PERCENTILES
) -> NDArray[np.float32]:
    """Float32 with the robust range (of the voxels inside) brought to 0 … 1 and outliers cut at 0 and 1.2."""
    low, high = intensity_range(data if inside is None else data[inside], percentiles)
    scale = 1.0 / max(high - low, 1e-30)
    out = data.astype(np.float32, order="C")
    out -= np.float32(low)
    out *= np.float32(scale)
    np.clip(out, 0, 1.2, out=out)
    return out


def windowed(data: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """Float32 with these intensities brought to 0 and 1, and all beyond cut.

    >>> windowed(np.array([-1000, -150, 50, 900]), (-150, 250)).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    low, high = window
    return np.clip((np.asarray(data, np.float32) - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


LEVELS = 32  # distinct intensities that an image has at least
PADDED = 0.1  # of the range of all other voxels: so far below them lies what scanners write where nothing was measured


def without_padding(data: NDArray[Any]) -> tuple[NDArray[Any], float | None]:
    """The same with padding raised to the darkest value that was measured, and the value that padding had.

    Padding is one negative number, far below all others: −2000 or −3024 round a CT whose air is −1000.

    >>> data, value = without_padding(np.array([-3024, *range(-1000, 700)]))
    >>> int(data[0]), value
    (-1000, -3024.0)
    """
    least = data.min()
    if least >= 0:
        return data, None
    measured = data[data > least]
    # Maps of a few values, and signed distances, have no padding.
    if len(np.unique(measured[:: max(1, measured.size // 20_000)])) < LEVELS:
        return data, None
    if measured.min() - float(least) < PADDED * (float(measured.max()) - float(measured.min())):
        return data, None
    return np.maximum(data, measured.min()), float(least)


BLANK = 0.98  # of all dark voxels: where so many are exactly the darkest value, somebody wrote that
BACKGROUND = 0.1  # of all voxels: less is no background
DARK = 0.02  # of the intensity range: darker is background


def blank(data: NDArray[Any]) -> bool:
    """Whether an object was cut out of an image: all round it there is one number, its darkest.

    >>> bool(blank(np.array([0, 0, 0, 0, 7, 9, 4])))
    True
    >>> bool(blank(np.array([0, 1, 0, 1, 70, 90, 40])))
    False
    """
    low, high = float(data.min()), intensity_range(data)[1]
    dark = int((data <= low + DARK * (high - low)).sum())
    return dark > BACKGROUND * data.size and int((data == data.min()).sum()) > BLANK * dark


def upright(image: Image) -> Image:
    """The same image with its axes in the order and direction that come nearest to the world's."""
    order, turned = image.grid.towards_ras()
    if order == tuple(range(image.grid.dim)) and not any(turned):
        return image
    turn = np.zeros((image.grid.dim + 1, image.grid.dim + 1))
    turn[-1, -1] = 1
    for new, (old, back) in enumerate(zip(order, turned, strict=True)):
        turn[old, new], turn[old, -1] = (-1, image.grid.shape[old] - 1) if back else (1, 0)
    data = image.data.transpose(0, *[axis + 1 for axis in order])
    data = data[(slice(None), *[slice(None, None, -1 if back else 1) for back in turned])]
    return Image(data, Grid(data.shape[1:], image.grid.affine @ turn), image.kind, image.name, image.notes)


def _percentile(values: NDArray[Any], percent: float) -> float:
    """The smallest value that is not below this share of all."""
    at = min(int(percent / 100 * values.size), values.size - 1)
    return float(np.partition(values, at)[at])


def _rank(counts: NDArray[Any], percent: float) -> int:
    """The same of a histogram: the number of its bin."""
    total = int(counts.sum())
    at = min(int(percent / 100 * total), total - 1)
    return int(np.searchsorted(np.cumsum(counts), at, side="right"))
