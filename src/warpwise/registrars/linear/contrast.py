"""Whether two images show tissue alike, so that intensities may be compared, or only their structure."""

import numpy as np

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import overlap
from warpwise.registrars.linear.starts import coarsest
from warpwise.shapes import Array, Channels, Map1

# Measured under an affine: brains, hearts, hippocampi 0.43 to 0.87; T1 and T2 of a neck -0.13, two stains 0.11,
# PD and a T1 template 0.31 (benchmarks/README.md).
ALIKE = 0.35
VOXELS = 120_000
BRIGHT = 0.1  # of the intensity range: the rim of a head is alike in every contrast, so only its inside counts


def agreement(pair: Pair) -> float:
    """Mean signed local correlation over the root of the mean squared one, under `pair.to_moving`; 1 is alike.

    A global correlation does not tell: bright heads on dark air correlate whatever the contrast inside.
    """
    small = coarsest(pair, VOXELS)
    warped = kernels.warp_affine(small.moving.data, small.to_moving, out=np.empty_like(small.fixed.data))
    windows = [("box", 2.0 if n > 1 else 0.0) for n in small.fixed.shape]
    weight = interior(small.fixed.data, warped, overlap(small), windows)
    voxels = float(weight.sum(dtype=np.float64))
    if voxels < 1:
        return 0.0
    correlation = local_correlation(small.fixed.data, warped, windows) * weight
    signed, squared = (
        float(small.weights @ (correlation**power).sum((1, 2, 3), dtype=np.float64)) / voxels for power in (1, 2)
    )
    return signed / max(np.sqrt(squared), 1e-6)


def alike(pair: Pair) -> bool:
    """Whether the images show tissue alike."""
    return agreement(pair) > ALIKE


def local_correlation(fixed: Channels, warped: Channels, windows: list[tuple[str, float]]) -> Channels:
    """Correlation (C, X, Y, Z) of two images in windows; 0 where one of them is flat."""

    def mean(image: Array) -> Array:
        return kernels.separable(image, windows)

    f, w = mean(fixed), mean(warped)
    p, q = np.maximum(mean(fixed * fixed) - f * f, 0), np.maximum(mean(warped * warped) - w * w, 0)
    return np.asarray((mean(fixed * warped) - f * w) / np.sqrt(p * q + np.float32(1e-6)), np.float32)


def interior(fixed: Channels, warped: Channels, weight: Map1 | None, windows: list[tuple[str, float]]) -> Map1:
    """Weight (1, X, Y, Z) of the windows that lie in both objects; all of them where that leaves too few."""
    inside = ((fixed[:1] > BRIGHT) & (warped[:1] > BRIGHT)).astype(np.float32)
    inside = (kernels.separable(inside, windows) > 0.99).astype(np.float32)
    every = np.ones_like(inside) if weight is None else weight
    inside *= every
    return inside if inside.sum() > 500 else every
