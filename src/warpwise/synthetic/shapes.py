"""Label maps of random shapes."""

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels

Array = NDArray[np.float32]
Triple = tuple[int, int, int]


def smooth_noise(shape: Triple, rng: np.random.Generator, *, count: int, sigma: float) -> Array:
    """Gaussian noise (count, X, Y, Z) of unit variance, smooth over `sigma` voxels; planes stay planes."""
    step = max(1, int(sigma // 2))
    steps = tuple(step if n > 1 else 1 for n in shape)
    coarse = kernels.coarse_shape(shape, steps)
    noise = rng.standard_normal((count, *coarse), np.float32)
    noise = kernels.gaussian(noise, [sigma / step if n > 1 else 0.0 for n in coarse])
    noise /= np.maximum(noise.std((1, 2, 3), keepdims=True), np.float32(1e-6))
    return kernels.upsample(noise, shape, (steps[0], steps[1], steps[2]))


def random_shapes(shape: Triple, rng: np.random.Generator, *, labels: int, sigma: float) -> NDArray[np.int16]:
    """A map of labels 0 … labels − 1: at every voxel the one whose own smooth noise is highest there.

    Source: Hoffmann et al. (SynthMorph), IEEE TMI 2022, which also bends every map; here the noise is smooth at two
    scales, so that large shapes have small details.
    """
    coarse = smooth_noise(shape, rng, count=labels, sigma=2.5 * sigma)
    coarse += np.float32(0.6) * smooth_noise(shape, rng, count=labels, sigma=sigma)
    return coarse.argmax(0).astype(np.int16)


def blob(shape: Triple, rng: np.random.Generator) -> Array:
    """A head: 1 inside a wavy ellipsoid in the middle, 0 outside."""
    total = np.zeros(shape, np.float32)
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        half = n * rng.uniform(0.34, 0.48)
        at = (np.arange(n, dtype=np.float32) - (n - 1) / 2 - rng.uniform(-0.04, 0.04) * n) / half
        total += (at**2).reshape([-1 if a == axis else 1 for a in range(3)])
    wave = smooth_noise(shape, rng, count=1, sigma=max(shape) / 8)[0]
    return (np.sqrt(total) + np.float32(0.07) * wave < 1).astype(np.float32)
