"""One scan, stored in every way: the answer in world mm is the same. Thick slices cut from real heads."""

from pathlib import Path

import numpy as np
import pytest
from asking import register

import warpwise as ww
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.images import write_image
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine

# In slices of 3 and 6 mm. Every orientation and type gives the same; other amounts of air round a stripped brain beside a
# head change what coarse scales keep of it, which moves points by 0.14 on average.
LIMIT_MM = {"rigid": 0.05, "greedy": 0.2}
AIR = 20  # voxels on each side: more than the solvers keep round an object


def thick(image: Image, spacing: tuple[float, float, float], degrees: float) -> Image:
    """The image as thick oblique slices, averaged through each; in a wide field of air."""
    a = np.deg2rad(degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(a / 2), -np.sin(a / 2), 0], [np.sin(a / 2), np.cos(a / 2), 0], [0, 0, 1]])
    shape = tuple(int(n * s * 0.9 / t) for n, s, t in zip(image.grid.shape, image.grid.spacing_mm, spacing, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ turn * np.array(spacing)
    centre = (image.grid.affine @ np.append((np.array(image.grid.shape) - 1) / 2, 1))[:3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    parts = max(1, round(spacing[2]))
    total = np.zeros(shape, np.float32)
    for k in range(parts):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 2] * ((k + 0.5) / parts - 0.5)
        total += resample(Image(image.data.astype(np.float32), image.grid), Grid(shape, moved), Affine(np.eye(4))).data[0]
    return padded(Image(np.rint(total / parts)[None].astype(np.int16), Grid(shape, affine)), (AIR,) * 3, (AIR,) * 3)


def padded(image: Image, low: tuple[int, ...], high: tuple[int, ...]) -> Image:
    shift = np.eye(4)
    shift[:3, 3] = [-n for n in low]
    data = np.pad(image.data, [(0, 0), *zip(low, high, strict=True)])
    return Image(data, Grid(data.shape[1:], image.grid.affine @ shift))


def cropped(image: Image, low: tuple[int, ...], high: tuple[int, ...]) -> Image:
    at = tuple(slice(a, n - b) for a, b, n in zip(low, high, image.grid.shape, strict=True))
    data = np.ascontiguousarray(image.data[(slice(None), *at)])
    return Image(data, image.grid.cropped(low, data.shape[1:]))


def flipped(image: Image, *axes: int) -> Image:
    turn = np.eye(4)
    for axis in axes:
        turn[axis, axis], turn[axis, 3] = -1, image.grid.shape[axis] - 1
    return Image(
        np.ascontiguousarray(np.flip(image.data, [a + 1 for a in axes])), Grid(image.grid.shape, image.grid.affine @ turn)
    )


def permuted(image: Image, *order: int) -> Image:
    data = np.ascontiguousarray(image.data.transpose(0, *[o + 1 for o in order]))
    return Image(data, Grid(data.shape[1:], image.grid.affine[:, [*order, 3]]))


@pytest.fixture(scope="module")
def heads(data: Path) -> tuple[Image, Image, np.ndarray]:
    """Fixed, moving, and points (mm) in the bright part of the fixed image."""
    fixed = thick(ww.load_image(data / "multicontrast" / "chris_t1.nii.gz"), (0.9, 0.9, 6.0), 10)
    moving = thick(ww.load_image(data / "multicontrast" / "spm152.nii.gz"), (1.5, 1.2, 3.0), -7)
    bright = np.argwhere(fixed.data[0] > 0.3 * fixed.data.max())[::397]
    return fixed, moving, bright @ fixed.grid.affine[:3, :3].T + fixed.grid.affine[:3, 3]


STORED = {
    "flipped fixed": lambda f, m: (flipped(f, 0, 2), m),
    "flipped moving": lambda f, m: (f, flipped(m, 1)),
    "permuted fixed": lambda f, m: (permuted(f, 2, 0, 1), m),
    "permuted and flipped": lambda f, m: (flipped(permuted(f, 1, 0, 2), 0), flipped(permuted(m, 2, 1, 0), 2)),
    "cropped fixed": lambda f, m: (cropped(f, (1, 2, 0), (2, 1, 1)), m),
    "cropped moving": lambda f, m: (f, cropped(m, (1, 2, 1), (2, 0, 1))),
    "wider moving": lambda f, m: (f, padded(m, (3, 2, 5), (0, 9, 4))),
    "another type": lambda f, m: (
        Image(f.data.astype(np.float64), f.grid), Image(m.data.astype(np.uint16), m.grid)
    ),
}  # fmt: skip


def in_the_brain(points: np.ndarray, there: np.ndarray, moving: Image) -> tuple[np.ndarray, np.ndarray]:
    """Points, and where they go to, that reach the moving brain: it is a stripped one, and nothing holds the rest."""
    inverse = moving.grid.inverse_affine
    at = np.rint(there @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((at >= 0) & (at < np.array(moving.grid.shape))).all(1)
    inside[inside] = moving.data[0][tuple(at[inside].T)] > 0
    return points[inside], there[inside]


@pytest.mark.parametrize("kind", ["rigid", "greedy"])
def test_the_answer_does_not_depend_on_how_an_image_is_stored(heads, kind: str, tmp_path: Path):
    fixed, moving, points = heads
    points, expected = in_the_brain(points, register(fixed, moving, transform=kind).transform.points(points), moving)
    for name, store in STORED.items():
        found = register(*store(fixed, moving), transform=kind).transform.points(points)
        off = float(np.linalg.norm(found - expected, axis=1).mean())
        assert off < LIMIT_MM[kind], (name, off)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        paths = [tmp_path / f"{name}{suffix}" for name in ("fixed", "moving")]
        write_image(paths[0], fixed)
        write_image(paths[1], flipped(moving, 0))
        found = register(*paths, transform=kind).transform.points(points)
        assert np.linalg.norm(found - expected, axis=1).mean() < LIMIT_MM[kind], suffix


def test_thick_oblique_slices_of_half_a_head_find_the_rest(heads):
    """Different coverage: the lower third of the moving slab is not there."""
    fixed, moving, points = heads
    whole = register(fixed, moving, transform="rigid").transform.points(points)
    part = register(fixed, cropped(moving, (0, 0, 18), (0, 0, 0)), transform="rigid").transform.points(points)
    assert np.linalg.norm(part - whole, axis=1).mean() < 5.0
