"""No folds in what we deliver: the ten determinants of every cell, and a local repair where one is too small."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels
from warpwise.shapes import Nodes, Triple, VectorField

# Cells whose smallest determinant is below this are repaired: above 0, so that rounding to a file's float32 and the
# linear inverse (steeper by one over the determinant) stay sound.
FLOOR = 0.05
ROUNDS = 60
GROWTH = 0.05  # nodes that the Gaussian of a repair grows by from round to round, up to WIDEST
WIDEST = 4.0
BLOCK = 32  # nodes: folds that lie further apart are worked on apart


def repair(field: VectorField, factors: Triple, shape: Triple, *, floor: float = FLOOR) -> tuple[VectorField, int]:
    """A field all of whose cells on the full grid are above `floor`, and how many cells had to be changed.

    field (3, …) has a node every `factors` voxels of `shape`, values in voxels of the full grid. Round each bad cell
    the field is blended with a narrow Gaussian of itself, again and again: heat flows from where it is steep, and a
    wide Gaussian would fold the border of what it replaces. Should that not suffice, the whole field is smoothed and
    scaled down, which ends at the identity.
    """
    marked, changed = folded_nodes(field, factors, shape, floor)
    if changed:
        field = field.copy()
    for attempt in range(ROUNDS):
        if not len(marked):
            return field, changed
        regions = calm(field, marked, attempt)
        # What lies outside these boxes has not changed, and was sound.
        left = [folded_nodes_in(field, region, factors, shape, floor) for region in regions]
        marked = np.unique(np.concatenate(left), axis=0)
    while len(marked):
        axes = [1.0 if n > 1 else 0.0 for n in field.shape[1:]]
        field = kernels.gaussian(field, axes) * np.float32(0.9)
        field = np.where(np.abs(field) < 1e-3, np.float32(0), field)
        marked, _ = folded_nodes(field, factors, shape, floor)
    return field, changed


def folded_nodes(field: VectorField, factors: Triple, shape: Triple, floor: float) -> tuple[Nodes, int]:
    """Nodes (n, 3) round the cells below the floor, and how many cells these are."""
    full = field if factors == (1, 1, 1) else kernels.upsample(field, shape, factors)
    lowest, _, _ = kernels.digital(full)
    if lowest.size == 0 or lowest.min() >= floor:
        return np.empty((0, 3), np.int64), 0
    bad = lowest < floor
    return nodes_round(bad, factors, field.shape[1:]), int(bad.sum())


def folded_nodes_in(field: VectorField, region: tuple[slice, ...], factors: Triple, shape: Triple, floor: float) -> Nodes:
    """The same, looking only at a box of nodes."""
    part = np.ascontiguousarray(field[(slice(None), *region)])
    first = [r.start for r in region]
    x, y, z = (min((r.stop - r.start - 1) * f + 1, n - r.start * f) for r, f, n in zip(region, factors, shape, strict=True))
    nodes, _ = folded_nodes(part, factors, (x, y, z), floor)
    return nodes + np.array(first, np.int64)


def nodes_round(bad: NDArray[Any], factors: Triple, nodes: tuple[int, ...]) -> Nodes:
    """Nodes (n, 3) of the cells that hold the marked cells or voxels of the full grid."""
    low = np.argwhere(bad) // np.array(factors)
    corners = [np.minimum(low + np.array(corner), np.array(nodes) - 1) for corner in np.ndindex(2, 2, 2)]
    return np.unique(np.concatenate(corners), axis=0)


def arrivals(nodes: Nodes, moved: VectorField) -> Nodes:
    """The nodes nearest to where these nodes (n, 3) are moved, in voxels of the nodes."""
    at = nodes + moved[(slice(None), *nodes.T)].T
    return np.clip(np.rint(at), 0, np.array(moved.shape[1:]) - 1).astype(np.int64)


def calm(field: VectorField, marked: Nodes, attempt: int) -> list[tuple[slice, ...]]:
    """Soften the field, in place, round nodes (n, 3), more widely from attempt to attempt; returns the boxes changed."""
    width = min(1.0 + GROWTH * attempt, WIDEST)
    return [soften(field, part, width=width) for part in clusters(marked)]


def clusters(marked: Nodes) -> Iterator[NDArray[np.int64]]:
    """The nodes, block by block."""
    block = marked // BLOCK
    for one in np.unique(block, axis=0):
        yield marked[(block == one).all(1)]


def soften(field: VectorField, marked: Nodes, *, width: float) -> tuple[slice, ...]:
    """Blend the field, in place, with its Gaussian (σ = width nodes) round some nodes (n, 3); returns the box changed."""
    nodes = np.array(field.shape[1:])
    margin = int(np.ceil(6 * width)) + 2
    low, high = np.maximum(marked.min(0) - margin, 0), np.minimum(marked.max(0) + margin + 1, nodes)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    sigma = [width if n > 1 else 0.0 for n in nodes]
    part = np.ascontiguousarray(field[(slice(None), *box)])
    where = np.zeros((1, *part.shape[1:]), np.float32)
    where[0][tuple((marked - low).T)] = 1
    spread = kernels.gaussian(where, sigma)[0]
    blend = np.minimum(spread * np.float32((2.6 * width) ** sum(s > 0 for s in sigma)), np.float32(1))
    field[(slice(None), *box)] += blend * (kernels.gaussian(part, sigma) - part)
    # One node more on each side: cells there have a corner that moved.
    return tuple(slice(max(b.start - 1, 0), min(b.stop + 1, int(n))) for b, n in zip(box, nodes, strict=True))
