"""Slow shading that two images do not share: how strong it is, and images without it for those who only compare."""

from dataclasses import replace

import numpy as np

from warpwise.grid import Grid
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import overlap
from warpwise.registrars.linear.starts import coarsest
from warpwise.shapes import Channels, Map
from warpwise.volume import Volume, scale_factors

WIDE = 0.1  # of an image's extent: what changes more slowly is shading
BRIGHT = 0.05  # of the intensity range: darker voxels say nothing about it
VOXELS = 120_000
# SD of `relative`: below 0.17 between people's brains, hearts and hippocampi and with inverted copies; 0.2 to 0.36 where
# the gain of one runs over ×4 to ×8, or that of both varies by a logarithm's SD of 0.3.
STRONG = 0.2


def relative(fixed: Map, warped: Map, weight: Map | None = None) -> tuple[Map, float]:
    """Logarithm of the slow gain (X, Y, Z) that one image has over another on the same grid, 0 on average over both
    objects, and its standard deviation there.

    Args:
        fixed, warped: intensities 0 … 1.2.
        weight: of the voxels; None: all count.
    """
    inside = ((fixed > BRIGHT) & (warped > BRIGHT)).astype(np.float32)
    if weight is not None:
        inside *= weight
    ratio = np.log(np.maximum(fixed, np.float32(BRIGHT))) - np.log(np.maximum(warped, np.float32(BRIGHT)))
    gain = averaged(ratio[None], inside[None])[0]
    voxels = float(inside.sum(dtype=np.float64))
    if voxels < 1:
        return np.zeros_like(fixed), 0.0
    gain -= np.float32((gain * inside).sum(dtype=np.float64) / voxels)
    return gain, float(np.sqrt((gain**2 * inside).sum(dtype=np.float64) / voxels))


def gains(pair: Pair) -> tuple[Grid, list[tuple[Map, float]]]:
    """`relative` of every channel where a pair lies, and the coarse grid of the fixed image on which it was seen."""
    small = coarsest(pair, VOXELS)
    warped = kernels.warp_affine(small.moving.data, small.to_moving, out=np.empty_like(small.fixed.data))
    weight = overlap(small)
    count = None if weight is None else weight[0]
    return small.fixed.grid, [relative(f, w, count) for f, w in zip(small.fixed.data, warped, strict=True)]


def strength(pair: Pair) -> float:
    """How strong the shading is that a pair does not share where it lies, in the channel where it is most."""
    return max(sd for _, sd in gains(pair)[1])


def flattened(pair: Pair) -> Pair:
    """The pair with every image divided by its own local mean over `WIDE` of its extent: shading goes, and with it what
    tells large structures apart by brightness."""
    return replace(pair, fixed=_flat(pair.fixed), moving=_flat(pair.moving))


def _flat(volume: Volume) -> Volume:
    # What is slow is seen on few voxels as well.
    scale = 0
    while np.prod(volume.grid.strided(scale_factors(volume.grid, scale)).shape) > VOXELS and scale < 6:
        scale += 1
    small = volume.coarser(scale_factors(volume.grid, scale))
    inside = (small.data > BRIGHT).astype(np.float32)
    if small.mask is not None:
        inside *= small.mask
    flat = np.empty_like(volume.data)
    to_small = small.grid.inverse_affine @ volume.grid.affine
    kernels.warp_affine(np.maximum(averaged(small.data, inside), np.float32(BRIGHT / 4)), to_small, out=flat)
    # Half of the range is where the mean comes to lie; outside of the coarse grid nothing is divided.
    np.divide(np.float32(0.5), flat, out=flat, where=flat > 0)
    flat *= volume.data
    return replace(volume, data=np.clip(flat, 0, 1.2, out=flat))


def averaged(values: Channels, inside: Channels) -> Channels:
    """Local mean of values (C, X, Y, Z) over what is inside (same shape), in Gaussian windows of `WIDE` of the extent."""
    widths = [WIDE * n if n > 1 else 0.0 for n in values.shape[1:]]
    weight = kernels.gaussian(inside, widths)
    return np.asarray(kernels.gaussian(values * inside, widths) / np.maximum(weight, np.float32(1e-3)), np.float32)
