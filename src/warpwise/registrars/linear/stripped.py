"""Images of an object cut out of its surroundings, beside images that show these as well."""

from dataclasses import replace
from typing import Literal

import numpy as np

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.linear.starts import BRIGHT, coarsest
from warpwise.shapes import Map
from warpwise.volume import Volume, filled

LARGER = 1.3  # times the volume: a head is 1.5 to 3 times its brain
GOES_ON = 0.2  # of the larger object: so much at least lies beyond the smaller one, where it is the same and more
CONTINUED = 8.0  # voxels: so wide are the windows of coarse scales, about

Side = Literal["fixed", "moving"]


def suspect(pair: Pair, *, sized: bool) -> Side | None:
    """The image that may show a part of what the other one shows: it was cut out, and its object is much smaller.

    Whether the larger object is the same with its surroundings, or just larger, is not known here; where sizes may not
    change, which would tell, two objects that were both cut out are believed to be of different size. None where masks
    were given.
    """
    sides: dict[Side, Volume] = {"fixed": pair.fixed, "moving": pair.moving}
    if any(volume.mask is not None for volume in sides.values()) or (not sized and all(v.cut_out for v in sides.values())):
        return None
    sizes = _volume_mm3(pair.fixed), _volume_mm3(pair.moving)
    small: Side = "fixed" if sizes[0] < sizes[1] else "moving"
    return small if sides[small].cut_out and 0 < LARGER * min(sizes) < max(sizes) else None


def masked(pair: Pair, side: Side) -> Pair:
    """The pair with a mask on the object of that image, which is continued smoothly beyond: the edge at which it was cut
    would pull the other image's outline to itself, also where nothing beyond counts."""
    if side == "fixed":
        return replace(pair, fixed=_masked(pair.fixed))
    return replace(pair, moving=_masked(pair.moving))


def _masked(volume: Volume) -> Volume:
    mask = object_mask(volume)
    return replace(
        volume, data=filled(volume.data, np.asarray(1 - mask, np.float32), widest=CONTINUED), mask=mask, continued=True
    )


def beyond(pair: Pair, side: Side) -> float:
    """Share of the larger object that lies beyond the mask of the other image, where a pair lies."""
    small = coarsest(pair)
    smaller, larger = (small.fixed, small.moving) if side == "fixed" else (small.moving, small.fixed)
    assert smaller.mask is not None
    back = np.asarray(np.linalg.inv(small.to_moving) if side == "fixed" else small.to_moving, np.float64)
    x, y, z = larger.shape
    seen = np.empty((1, x, y, z), np.float32)
    kernels.warp_affine(smaller.mask[None], back, out=seen)
    bright = larger.data[:1] > BRIGHT
    hidden = bright & (seen < 0.5)
    return float(hidden.sum()) / max(float(bright.sum()), 1.0)


def object_mask(volume: Volume) -> Map:
    """1 (X, Y, Z) where an image that was cut out shows something, and in holes of that."""
    from scipy.ndimage import binary_fill_holes  # noqa: PLC0415 - slow to import, and rarely needed

    inside = np.asarray((volume.data > 0).any(0))
    thick = tuple(n > 1 for n in inside.shape)  # a plane has no holes across
    whole = binary_fill_holes(inside if all(thick) else inside.squeeze())
    assert whole is not None
    return np.asarray(whole.reshape(inside.shape), np.float32)


def _volume_mm3(volume: Volume) -> float:
    return float((volume.data[0] > BRIGHT).sum()) * float(np.prod(volume.grid.spacing_mm))
