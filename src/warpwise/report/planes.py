"""Slices as people look at them: patient's left on the left, front and top upwards."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import intensity_range

Plane = NDArray[np.float32]

NAMES = ("axial", "coronal", "sagittal")
_ACROSS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}  # right, up, through; world axes
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True)
class View:
    """How one plane is cut from volumes of a grid.

    Attributes:
        name: axial, coronal, sagittal, or plane for a 2-D image.
        axes: voxel axes that run right, up and through; turned: whether they run the other way.
        at: index along the third.
        pixel_mm: size of a pixel, right and up.
        letters: what stands at the left, right, bottom and top edge.
    """

    name: str
    axes: tuple[int, ...]
    turned: tuple[bool, ...]
    at: int
    pixel_mm: tuple[float, float]
    letters: tuple[str, str, str, str]

    def cut(self, volume: NDArray[np.floating]) -> Plane:
        """The plane (up, right) of a volume (X, Y[, Z]), row 0 at the bottom."""
        plane = volume if len(self.axes) == 2 else np.take(volume, self.at, axis=self.axes[2])
        across, up = self.axes[:2]
        plane = plane if across > up else plane.T
        plane = plane[::-1] if self.turned[1] else plane
        return np.asarray(plane[:, ::-1] if self.turned[0] else plane, np.float32)

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.pixel_mm[1] / self.pixel_mm[0]


def views(grid: Grid, volume: NDArray[np.floating]) -> list[View]:
    """The three planes through the middle of the bright part of a volume; one for a 2-D image."""
    order, turned = grid.towards_ras()
    if grid.dim == 2:
        pixel = tuple(grid.spacing_mm[axis] for axis in order)
        letters = (*_LETTERS[0], *_LETTERS[1])
        return [View("plane", order, turned, 0, (pixel[0], pixel[1]), (letters[0], letters[1], letters[2], letters[3]))]
    low, high = intensity_range(volume)
    bright = volume > low + 0.1 * (high - low)
    out: list[View] = []
    for name in NAMES:
        world = _ACROSS[name]
        axes = tuple(order[w] for w in world)
        counts = bright.sum(axis=tuple(a for a in range(3) if a != axes[2]))
        at = round(float(counts @ np.arange(len(counts))) / max(float(counts.sum()), 1.0))
        pixel = (grid.spacing_mm[axes[0]], grid.spacing_mm[axes[1]])
        letters = (*_LETTERS[world[0]], *_LETTERS[world[1]])
        out.append(
            View(name, axes, tuple(turned[w] for w in world), at, pixel, (letters[0], letters[1], letters[2], letters[3]))
        )
    return out


def grey(plane: Plane, limits: tuple[float, float]) -> NDArray[np.uint8]:
    """A plane as grey levels, row 0 at the top."""
    low, high = limits
    scaled = (plane - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0, 1)[::-1] * 255, np.uint8)
