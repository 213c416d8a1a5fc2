"""Random contrasts and artefacts: what a scanner might make of labels, or of another image."""

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels
from warpwise.shapes import Array
from warpwise.synthetic.shapes import smooth_noise


def painted(labels: NDArray[np.integer], rng: np.random.Generator, *, texture: float = 0.06) -> Array:
    """An image (X, Y, Z): every label gets a mean, and texture of its own strength, of intensities 0 … 1."""
    count = int(labels.max()) + 1
    means = rng.uniform(0, 1, count).astype(np.float32)
    spread = rng.uniform(0, texture, count).astype(np.float32)
    return np.asarray(means[labels] + spread[labels] * rng.standard_normal(labels.shape, np.float32), np.float32)


def blurred(image: Array, rng: np.random.Generator, *, most: float) -> Array:
    """Smoothed by up to so many voxels, each axis by its own: thick slices."""
    if most <= 0:
        return image
    return kernels.gaussian(image[None], [float(rng.uniform(0, most)) if n > 1 else 0.0 for n in image.shape])[0]


def shaded(image: Array, rng: np.random.Generator, *, most: float) -> Array:
    """Multiplied by a smooth field that departs from 1 by about `most`."""
    if most <= 0:
        return image
    x, y, z = image.shape
    field = smooth_noise((x, y, z), rng, count=1, sigma=max(image.shape) / 4)[0]
    return image * np.exp(np.float32(rng.uniform(0, most)) * field)


def remapped(image: Array, rng: np.random.Generator, *, knots: int = 6) -> Array:
    """Intensities 0 … 1.2 through a random piecewise linear curve: tissue keeps its borders and loses its brightness.

    Air (0) stays dark in half of the cases.
    """
    values = rng.uniform(0, 1, knots)
    if rng.random() < 0.5:
        values[0] = 0
    return np.asarray(np.interp(image, np.linspace(0, 1.2, knots), values), np.float32)


def rescaled(image: Array) -> Array:
    """Intensities stretched to 0 … 1 between robust ends, as images are before a network sees them."""
    low, high = np.percentile(image[tuple(slice(None, None, 2 if n > 16 else 1) for n in image.shape)], (0.5, 99.5))
    return np.clip((image - np.float32(low)) / np.float32(max(high - low, 1e-6)), 0, 1.2).astype(np.float32)


def noisy(image: Array, rng: np.random.Generator, *, most: float) -> Array:
    """Gaussian noise of a standard deviation up to `most`."""
    return np.asarray(image + np.float32(rng.uniform(0, most)) * rng.standard_normal(image.shape, np.float32), np.float32)


def curved(image: Array, rng: np.random.Generator, *, most: float) -> Array:
    """Intensities 0 … 1.2 to the power of 1 + most at most, or of its inverse."""
    exponent = float((1 + most) ** rng.uniform(-1, 1))
    return np.asarray(np.maximum(image, 0) ** np.float32(exponent), np.float32)
