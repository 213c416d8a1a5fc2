"""Work only where there is something: which voxels count, the box round both foregrounds, and back to the full grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import occupied
from warpwise.image import DARK
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.shapes import Array, Channels, ChannelsElsewhere, Map1, Triple

MARGIN = 8  # voxels of empty space kept on each side, over which the field fades to 0
COARSEST = 8  # voxels that become one at the coarsest scale of any preset, at most


@dataclass(frozen=True)
class Box:
    """Part of a grid: first voxel and size on each axis, and which sides were cut."""

    start: Triple
    shape: Triple
    cut_low: tuple[bool, bool, bool]
    cut_high: tuple[bool, bool, bool]

    def taper(self, nodes: Triple, reach: Triple) -> tuple[Array, Array, Array]:
        """Per-axis weights of a field's nodes: 1 inside, falling to 0 towards a side that was cut."""
        rows: list[Array] = []
        for axis in range(3):
            at = np.arange(nodes[axis], dtype=np.float32) * reach[axis]
            row = np.ones(nodes[axis], np.float32)
            if self.cut_low[axis]:
                row = np.minimum(row, at / MARGIN)
            if self.cut_high[axis]:
                row = np.minimum(row, np.maximum(self.shape[axis] - 1 - at, 0) / MARGIN)
            rows.append(row.astype(np.float32))
        return rows[0], rows[1], rows[2]

    def embed(self, field: Channels, full: Triple, *, outside: float = 0.0) -> ChannelsElsewhere:
        """A field or map (N, …) on this box's voxels as one on those of the full grid, with one value outside."""
        if self.shape == full:
            return field
        out = np.full((len(field), *full), outside, np.float32)
        into = tuple(slice(f, f + n) for f, n in zip(self.start, self.shape, strict=True))
        out[(slice(None), *into)] = field
        return out


def foreground(pair: Pair) -> Box:
    """The box of both foregrounds and all landmarks with a margin: it does not depend on how much empty space is stored."""
    shape = pair.fixed.grid.shape
    shown = pair.moving.shown
    warped = np.empty((len(shown), *shape), np.float32)
    kernels.warp_affine(shown, pair.to_moving, out=warped)
    still = pair.fixed.object
    bright = still | np.asarray((warped > DARK).any(0))
    if pair.fixed.points is not None:
        at = np.clip(np.rint(pair.fixed.points), 0, np.array(shape) - 1).astype(np.int64)
        bright[tuple(at.T)] = True
    start, size = around(bright)
    # Levels keep every eighth voxel or so: which ones must depend on the fixed object alone.
    anchor, _ = around(still)
    first = [s - (s - a) % COARSEST for s, a in zip(start, anchor, strict=True)]
    first = [f if f >= 0 else f + COARSEST for f in first]
    size = tuple(s + n - f for f, s, n in zip(first, start, size, strict=True))
    start, size = (first[0], first[1], first[2]), (size[0], size[1], size[2])
    low = [first > 0 for first in start]
    high = [first + n < total for first, n, total in zip(start, size, shape, strict=True)]
    return Box(start, size, (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def around(bright: NDArray[np.bool_]) -> tuple[Triple, Triple]:
    """First voxel and size of the box of what is bright, with a margin; all of a short axis."""
    start, size = [0, 0, 0], list(bright.shape)
    for axis, (lowest, highest) in enumerate(occupied(bright)):
        if not bright.any() or bright.shape[axis] < 4 * MARGIN:
            continue
        start[axis] = max(lowest - MARGIN, 0)
        size[axis] = min(highest + 1 + MARGIN, bright.shape[axis]) - start[axis]
    return (start[0], start[1], start[2]), (size[0], size[1], size[2])


def overlap(pair: Pair) -> Map1 | None:
    """Weight (1, X, Y, Z) of the voxels that count: fixed mask, moving field of view and mask; None where all do."""
    fixed, moving = pair.fixed, pair.moving
    out = np.empty(fixed.shape, np.float32)
    kernels.overlap_weight(fixed.mask, moving.shape, pair.to_moving, out=out)
    if moving.mask is not None:
        warped = np.empty((1, *out.shape), np.float32)
        out *= kernels.warp_affine(moving.mask[None], pair.to_moving, out=warped)[0]
    elif fixed.mask is None and float(out.min()) == 1.0:
        return None
    return out[None]


def focused(pair: Pair) -> Pair:
    """The pair with each image cut down to the box of its own foreground."""
    pair = pair.cropped(*around(pair.fixed.object))
    return pair.moving_cropped(*around(pair.moving.object))


def anchored(pair: Pair) -> Pair:
    """The pair with its moving image begun so that coarse scales keep the same voxels however much air is stored."""
    first, _ = around(pair.moving.object)
    start = [n % COARSEST for n in first]
    return pair.moving_cropped(start, [n - s for n, s in zip(pair.moving.shape, start, strict=True)])
