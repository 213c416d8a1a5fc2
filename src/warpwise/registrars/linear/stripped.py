"""Images of an object cut out of its surroundings, beside images that show these as well."""

from dataclasses import replace

import numpy as np

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import DARK
from warpwise.registrars.linear.starts import BRIGHT, coarsest
from warpwise.shapes import Map
from warpwise.volume import Volume

BLANK = 0.98  # of all dark voxels: where so many are exactly 0, somebody wrote that
BACKGROUND = 0.1  # of all voxels: less is no background
LARGER = 1.3  # times the volume: a head is 1.5 to 3 times its brain
GOES_ON = 0.2  # of the larger object: so much at least lies beyond the smaller one, where it is the same and more
RIM = 1  # voxels round the object that count with it: its edge is what is seen best


def cut_out(pair: Pair) -> Pair | None:
    """The pair with a mask on the image whose background is blank, where the other one shows a much larger object; None
    where neither is so, or where masks were given.

    Whether the larger object is the same with its surroundings, or another, is not known here.
    """
    if pair.fixed.mask is not None or pair.moving.mask is not None:
        return None
    sizes = [_volume_mm3(volume) for volume in (pair.fixed, pair.moving)]
    if min(sizes) <= 0:
        return None
    if sizes[1] > LARGER * sizes[0] and blank(pair.fixed):
        return replace(pair, fixed=replace(pair.fixed, mask=object_mask(pair.fixed)))
    if sizes[0] > LARGER * sizes[1] and blank(pair.moving):
        return replace(pair, moving=replace(pair.moving, mask=object_mask(pair.moving)))
    return None


def beyond(pair: Pair) -> float:
    """Share of the larger object that lies beyond the mask of the smaller one, where a pair of `cut_out` lies."""
    small = coarsest(pair)
    if small.fixed.mask is not None:
        mask, larger, back = small.fixed.mask, small.moving, np.linalg.inv(small.to_moving)
    else:
        assert small.moving.mask is not None
        mask, larger, back = small.moving.mask, small.fixed, small.to_moving
    x, y, z = larger.shape
    seen = np.empty((1, x, y, z), np.float32)
    kernels.warp_affine(mask[None], back, out=seen)
    bright = larger.data[:1] > BRIGHT
    hidden = bright & (seen < 0.5)
    return float(hidden.sum()) / max(float(bright.sum()), 1.0)


def blank(volume: Volume) -> bool:
    """Whether an image was cut out: its background is one number."""
    dark = volume.data <= DARK
    count = int(dark.sum())
    return count > BACKGROUND * dark.size and int((volume.data == 0).sum()) > BLANK * count


def object_mask(volume: Volume) -> Map:
    """1 (X, Y, Z) where an image with a blank background shows something, and right beside it."""
    inside = np.asarray((volume.data > 0).any(0)).astype(np.float32)
    windows = [("box", float(RIM) if n > 1 else 0.0) for n in inside.shape]
    near = kernels.separable(inside[None], windows) > 1e-3
    return np.asarray(near[0], np.float32)


def _volume_mm3(volume: Volume) -> float:
    return float((volume.data[0] > BRIGHT).sum()) * float(np.prod(volume.grid.spacing_mm))
