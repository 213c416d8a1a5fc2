"""Brain-like images drawn from formulas, so that a deformed one needs no interpolation and its truth is exact."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.shapes import Array
from warpwise.synthetic.deformations import random_affine, random_deformation, small_rotation
from warpwise.transforms.base import Composite, Transform

HEAD_MM = (66.0, 82.0, 62.0)  # half axes of the brain
EDGE_MM = 0.7  # width of every border between tissues
CSF, GREY, WHITE = 0.18, 0.62, 1.0
LABELS = {1: "cortex", 2: "white matter", 3: "ventricles", 4: "left nuclei", 5: "right nuclei"}

Point = tuple[float, float, float]
Ellipsoid = tuple[Point, Point]

# Centre and half axes (mm) of the ellipsoids inside: two ventricles, four nuclei a side.
_VENTRICLES: list[Ellipsoid] = [((-9, -4, 8), (5, 26, 7)), ((9, -4, 8), (5, 26, 7)), ((0, -8, -6), (2.5, 9, 8))]
_NUCLEI: list[Ellipsoid] = [
    ((14, 14, 6), (5, 9, 7)),
    ((26, 4, 0), (6, 14, 8)),
    ((11, -12, 2), (7, 11, 7)),
    ((24, -14, -18), (6, 15, 5)),
]


@dataclass(frozen=True, eq=False)
class KnownPair:
    """Two images, the labels of both, and the transform (fixed mm → moving mm) that relates them."""

    fixed: Image
    moving: Image
    fixed_labels: Image
    moving_labels: Image
    truth: Transform
    body: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Brain:
    """One person's anatomy: cortical folds and texture as a few plane waves."""

    folds: NDArray[np.float64]
    texture: NDArray[np.float64]

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Brain":
        """A new person. Rows are waves: direction / wavelength (3) and phase."""
        return cls(_waves(rng, 10, (14.0, 26.0)), _waves(rng, 14, (7.0, 20.0)))

    def __call__(self, points: Array) -> tuple[Array, NDArray[np.uint8]]:
        """Intensity (n,) 0 … 1 and label (n,) at points (3, n), mm from the brain's centre."""
        fold = _sum(self.folds, points) * np.float32(0.035)
        surface = _inside(points, (0, 0, 0), HEAD_MM, fold * 0.3)
        # Grey matter is about 4 mm thick, thicker where the folds dip.
        core = tuple(a - 4.5 for a in HEAD_MM)
        inner = _inside(points, (0, 0, 0), (core[0], core[1], core[2]), fold * 1.5 - np.float32(0.02))
        gap = _soft((np.abs(points[0]) - 0.8) / np.float32(EDGE_MM))
        cleft = _soft((points[2] - 22) / np.float32(EDGE_MM)) * (1 - gap)
        left = _union(points, [((-x, y, z), axes) for (x, y, z), axes in _NUCLEI])
        right = _union(points, _NUCLEI)
        ventricles = _union(points, _VENTRICLES)
        image = surface * np.float32(GREY)
        image += inner * np.float32(WHITE - GREY)
        nuclei = np.maximum(left, right)
        image += nuclei * (np.float32(GREY + 0.06) - image)
        image += np.maximum(ventricles, cleft * surface) * (np.float32(CSF) - image)
        image += surface * _sum(self.texture, points) * np.float32(0.04)
        label = np.zeros(image.shape, np.uint8)
        for value, where in ((1, surface), (2, inner), (4, left), (5, right), (3, ventricles)):
            label[where > 0.5] = value
        return np.maximum(image, 0), label


def _waves(rng: np.random.Generator, count: int, lengths_mm: tuple[float, float]) -> NDArray[np.float64]:
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = rng.uniform(*lengths_mm, (count, 1))
    return np.hstack([2 * np.pi * direction / length, rng.uniform(0, 2 * np.pi, (count, 1))])


def _sum(waves: NDArray[np.float64], points: Array) -> Array:
    total = np.zeros(points.shape[1], np.float32)
    for wave in waves.astype(np.float32):
        total += np.cos(wave[:3] @ points + wave[3])
    return total


def _soft(x: Array) -> Array:
    """A step of unit width."""
    return np.clip(x + np.float32(0.5), 0, 1)


def _inside(points: Array, centre: tuple[float, ...], axes: tuple[float, ...], fold: Array | float = 0.0) -> Array:
    scaled = (points - np.array(centre, np.float32)[:, None]) / np.array(axes, np.float32)[:, None]
    radius = np.sqrt((scaled**2).sum(0))
    return _soft((1 + fold - radius) * np.float32(min(axes) / EDGE_MM))


def _union(points: Array, ellipsoids: Sequence[Ellipsoid]) -> Array:
    out = np.zeros(points.shape[1], np.float32)
    for centre, axes in ellipsoids:
        np.maximum(out, _inside(points, centre, axes), out=out)
    return out


def brain_pair(shape: tuple[int, int, int] = (128, 152, 120), *, seed: int = 0, noise: float = 0.01) -> KnownPair:
    """A pair of brain-like images: one anatomy, the fixed image seen through a known affine and deformation.

    The field of view is always that of a head, so a smaller shape means larger voxels.

    Example:
        >>> pair = brain_pair((32, 38, 30), seed=1)
        >>> pair.truth.points(np.zeros((1, 3))).shape
        (1, 3)
    """
    rng = np.random.default_rng(seed)
    spacing = [2 * (a + 14) / n for a, n in zip(HEAD_MM, shape, strict=True)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-s * (n - 1) / 2 for s, n in zip(spacing, shape, strict=True)]
    grid = Grid(shape, affine)
    brain = Brain.random(rng)
    bend = random_deformation(grid, rng, sigma_mm=16.0, amplitude_mm=3.0)
    turn = small_rotation(rng, degrees=8)
    linear = random_affine(rng, centre_mm=np.zeros(3), rotation=turn, shift_mm=6.0, scaling=0.06)
    truth = Composite((bend, linear))
    at = np.indices(shape, np.float32).reshape(3, -1)
    points = (affine[:3, :3].astype(np.float32) @ at) + affine[:3, 3:].astype(np.float32)
    moved = points + truth.displacement(grid).reshape(3, -1)
    images: list[Image] = []
    labels: list[Image] = []
    for name, where in (("fixed", moved), ("moving", points)):
        image, label = brain(where)
        noisy = image + np.float32(noise) * rng.standard_normal(image.shape, np.float32)
        counts = np.rint(np.clip(noisy, 0, 1.3) * 1000).astype(np.int16)
        images.append(Image(counts.reshape(1, *shape), grid, name=f"synthetic {name}"))
        labels.append(Image(label.reshape(1, *shape), grid, "labels", name=f"synthetic {name} labels"))
    return KnownPair(images[0], images[1], labels[0], labels[1], truth, labels[0].data[0] > 0)
