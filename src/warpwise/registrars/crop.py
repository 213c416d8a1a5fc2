"""Work only where there is something: the box round both foregrounds, and back to the full grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import occupied
from warpwise.ops.cpu import launch
from warpwise.pair import Pair, Triple

Array = NDArray[np.float32]

MARGIN = 8  # voxels of empty space kept on each side, over which the field fades to 0
DARK = 0.02  # of the intensity range: darker is background


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

    def embed(self, field: Array, reach: Triple, full: Triple) -> Array:
        """A field on this box's nodes as one on the nodes of the full grid, 0 outside."""
        nodes = launch.coarse_shape(full, reach)
        if field.shape[1:] == nodes:
            return field
        out = np.zeros((3, *nodes), np.float32)
        first = [s // r for s, r in zip(self.start, reach, strict=True)]
        sizes = [min(n, total - f) for n, total, f in zip(field.shape[1:], nodes, first, strict=True)]
        into = tuple(slice(f, f + n) for f, n in zip(first, sizes, strict=True))
        out[(slice(None), *into)] = field[(slice(None), *[slice(n) for n in sizes])]
        return out


def foreground(pair: Pair, *, multiple: Triple) -> Box:
    """The box of both foregrounds and all landmarks with a margin; it begins at a multiple of the field's reach."""
    shape = pair.grid.shape
    warped = np.empty((len(pair.moving), *shape), np.float32)
    launch.warp_affine(pair.moving, pair.to_moving, out=warped)
    bright = np.asarray(((pair.fixed > DARK) | (warped > DARK)).any(0))
    if pair.landmarks is not None:
        at = np.clip(np.rint(pair.landmarks.fixed), 0, np.array(shape) - 1).astype(np.int64)
        bright[tuple(at.T)] = True
    start, size, low, high = [0, 0, 0], list(shape), [False] * 3, [False] * 3
    for axis, (lowest, highest) in enumerate(occupied(bright)):
        if not bright.any() or shape[axis] < 4 * MARGIN:
            continue
        first = max(lowest - MARGIN, 0) // multiple[axis] * multiple[axis]
        last = min(highest + 1 + MARGIN, shape[axis])
        start[axis], size[axis] = first, last - first
        low[axis], high[axis] = first > 0, last < shape[axis]
    return Box(
        (start[0], start[1], start[2]),
        (size[0], size[1], size[2]),
        (low[0], low[1], low[2]),
        (high[0], high[1], high[2]),
    )
