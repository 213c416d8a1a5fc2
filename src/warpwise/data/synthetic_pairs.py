"""Training pairs that are made on the fly, with their true deformation: no data, no licence, any contrast."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.data.batches import Batch, Sample, random_linear, shift, some, stacked
from warpwise.data.settings import SyntheticSettings
from warpwise.ops import kernels
from warpwise.shapes import Array, Triple
from warpwise.synthetic.contrasts import blurred, curved, noisy, painted, remapped, rescaled, shaded
from warpwise.synthetic.deformations import random_velocity
from warpwise.synthetic.phantoms import HEAD_MM, Brain
from warpwise.synthetic.shapes import blob, random_shapes
from warpwise.transforms.velocity import exponential

Map = NDArray[np.int16]

APART = {"degrees": 4.0, "scaling": 0.05}  # what an affine start leaves, and two voxels of shift
SHIFT = 1.5
OUTSIDE = 0.05  # weight of air, where a deformation cannot be seen


@dataclass(frozen=True, eq=False)
class SyntheticSampler:
    """Pairs of random shapes or brain-like phantoms under random contrasts."""

    settings: SyntheticSettings
    labels_at_once: int
    seed: int
    channels: int = 1

    @property
    def dim(self) -> int:
        """Axes of the images."""
        return len(self.settings.shape)

    @property
    def shape(self) -> Triple:
        """In three dimensions."""
        shape = self.settings.shape
        return (shape[0], shape[1], shape[2]) if self.dim == 3 else (shape[0], 1, shape[1])

    def batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Pairs number `slots` of a step."""
        codes = some(range(1, self.settings.labels[1]), self.labels_at_once, np.random.default_rng([self.seed, step]))
        samples = [self.sample(np.random.default_rng([self.seed, step, slot + 1])) for slot in slots]
        return stacked(samples, codes, self.dim)

    def sample(self, rng: np.random.Generator) -> Sample:
        """One pair: a moving map, the fixed one through a known deformation, and what two scanners make of them."""
        settings = self.settings
        native: Array | None = None
        if self.dim == 3 and rng.random() < settings.brains:
            moving, native = phantom(self.shape, rng)
        else:
            moving = shapes(self.shape, rng, settings)
        truth = self.deformation(rng)
        fixed: Map = kernels.resample(moving[None], truth, np.eye(4), method="nearest")[0]
        maps = [moving, fixed]
        contrast = int(rng.integers(1 << 31))
        other = contrast if rng.random() < 0.3 else contrast + 1  # at times both are of one contrast
        images: list[Array] = []
        for map_, seed, bent in zip(maps, (contrast, other), (None, truth), strict=True):
            colours = np.random.default_rng(seed)
            if native is not None and colours.random() < 0.4:
                bare = (
                    native
                    if bent is None
                    else kernels.warp(native[None], bent, np.eye(4), out=np.empty_like(native[None]))[0]
                )
                image = bare if colours.random() < 0.5 else remapped(bare, colours)
            else:
                image = painted(map_, colours)
                if colours.random() < 0.8:
                    image = np.where(map_ == 0, np.float32(0), image)
            image = blurred(image, rng, most=settings.blur_voxels)
            image = shaded(image, rng, most=settings.bias)
            image = noisy(image, rng, most=settings.noise)
            images.append(curved(rescaled(image), rng, most=0.3))
        weight = np.where(fixed == 0, np.float32(OUTSIDE), np.float32(1))
        return Sample(images[1][None], images[0][None], weight, fixed, moving, truth)

    def deformation(self, rng: np.random.Generator) -> Array:
        """Displacement (3, X, Y, Z), voxels: a diffeomorphism, then what an affine start leaves."""
        settings, shape = self.settings, self.shape
        sigma = float(rng.uniform(*settings.warp_smoothness_voxels))
        amplitude = min(float(rng.uniform(0, settings.warp_voxels)), 0.5 * sigma)
        bend = exponential(random_velocity(shape, rng, sigma=sigma, amplitude=amplitude), squarings=6)
        middle = (np.array(shape) - 1) / 2
        free = np.array([float(n > 1) for n in shape])
        linear = random_linear(rng, **APART, spacing=np.ones(3), planar=self.dim == 2)
        matrix = shift(middle + SHIFT * rng.uniform(-1, 1, 3) * free) @ linear @ shift(-middle)
        at = np.indices(shape, np.float32)
        moved = np.tensordot(matrix[:3, :3].astype(np.float32), at + bend, 1)
        return moved + matrix[:3, 3].astype(np.float32)[:, None, None, None] - at


def shapes(shape: Triple, rng: np.random.Generator, settings: SyntheticSettings) -> Map:
    """Random shapes, mostly inside a head with air round it."""
    count = int(rng.integers(settings.labels[0], settings.labels[1] + 1))
    out = random_shapes(shape, rng, labels=count - 1, sigma=float(rng.uniform(*settings.shape_voxels))) + 1
    if rng.random() < 0.75:
        out = out * (blob(shape, rng) > 0)
    return out.astype(np.int16)


def phantom(shape: Triple, rng: np.random.Generator) -> tuple[Map, Array]:
    """Labels and intensities of a brain-like phantom, somewhat turned, that fills most of the image."""
    voxel = max(2 * (a + 10) / n for a, n in zip(HEAD_MM, shape, strict=True)) * float(rng.uniform(0.85, 1.05))
    linear = random_linear(rng, degrees=15, scaling=0.12, spacing=np.ones(3), planar=False)[:3, :3]
    at = np.indices(shape, np.float32).reshape(3, -1) - ((np.array(shape, np.float32) - 1) / 2)[:, None]
    points = np.asarray((voxel * linear).astype(np.float32) @ at, np.float32)
    image, labels = Brain.random(rng)(points)
    return labels.reshape(shape).astype(np.int16), image.reshape(shape)
