"""No folds in what we deliver: the ten determinants of every cell, and a local repair where one is too small."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.ops.cpu import launch
from warpwise.pair import Triple

Array = NDArray[np.float32]

# Cells whose smallest determinant is below this are repaired: above 0, so that rounding to a file's float32 and the
# linear inverse (steeper by one over the determinant) stay sound.
FLOOR = 0.05


def repair(field: Array, factors: Triple, shape: Triple, *, floor: float = FLOOR, attempts: int = 80) -> tuple[Array, int]:
    """A field all of whose cells on the full grid are above `floor`, and how many cells had to be changed.

    field (3, …) has a node every `factors` voxels of `shape`, values in voxels of the full grid. Round each bad cell
    the field is blended with a narrow Gaussian of itself, again and again: heat flows from where it is steep, and a wide
    Gaussian would fold the border of what it replaces. Should 60 rounds not suffice, the whole field is smoothed and
    scaled down, which ends at the identity.
    """
    changed = 0
    for attempt in range(attempts):
        full = field if factors == (1, 1, 1) else launch.upsample(field, shape, factors)
        lowest, _, _ = launch.digital(full)
        bad = lowest < floor
        count = int(bad.sum())
        if count == 0:
            return field, changed
        if attempt == 0:
            changed = count
        field = soften(field, nodes_of(bad, factors, field.shape[1:]), width=min(1.0 + 0.05 * attempt, 2.0))
        if attempt >= 60:
            axes = [1.0 if n > 1 else 0.0 for n in field.shape[1:]]
            field = launch.gaussian(field, axes) * np.float32(0.9)
    return np.zeros_like(field), changed


def nodes_of(bad: NDArray[Any], factors: Triple, nodes: tuple[int, ...]) -> Array:
    """Indicator (x, y, z) of the nodes round the marked cells or voxels of the full grid."""
    out = np.zeros(nodes, np.float32)
    at = np.nonzero(bad)
    low = [a // f for a, f in zip(at, factors, strict=True)]
    for corner in np.ndindex(2, 2, 2):
        out[tuple(np.minimum(a + c, n - 1) for a, c, n in zip(low, corner, nodes, strict=True))] = 1
    return out


def soften(field: Array, marked: Array, *, width: float) -> Array:
    """The field blended with its Gaussian (σ = width nodes) round the marked nodes; untouched elsewhere."""
    at = np.nonzero(marked)
    margin = int(np.ceil(6 * width)) + 2
    lows = [max(int(a.min()) - margin, 0) for a in at]
    highs = [min(int(a.max()) + margin + 1, n) for a, n in zip(at, marked.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(lows, highs, strict=True))
    sigma = [width if n > 1 else 0.0 for n in field.shape[1:]]
    part = np.ascontiguousarray(field[(slice(None), *box)])
    spread = launch.gaussian(np.ascontiguousarray(marked[box])[None], sigma)[0]
    blend = np.minimum(spread * np.float32((2.6 * width) ** sum(s > 0 for s in sigma)), np.float32(1))
    smooth = launch.gaussian(part, sigma)
    out = field.copy()
    out[(slice(None), *box)] = part + blend * (smooth - part)
    return out
