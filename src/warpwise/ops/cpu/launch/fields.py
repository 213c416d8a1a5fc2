"""Displacement fields: forces, steps, Jacobian determinants."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.ops.cpu import force as _force
from warpwise.ops.cpu import jacobian as _jacobian
from warpwise.ops.cpu import update as _update
from warpwise.ops.cpu.launch.arrays import Array, Triple, check, coarse_shape
from warpwise.ops.cpu.parallel import run


def force(derivative: Array, warped: Array, *, factors: Triple, out: Array) -> Array:
    """out (3, …) = adjoint of linear upsampling, applied to Σ_n derivative·∇warped (central differences)."""
    check("out", out, (3, *coarse_shape(warped.shape[1:], factors)))
    run(_force.force, out.shape[1], derivative[None], warped[None], np.array(factors), out[None])
    return out


def typical_length(field: Array, quantile: float) -> float:
    """The length up to which a field's vectors make up this share of its total length (to 1/16 octave).

    Weighted by length, so that empty space round the object does not count. 0 for a zero field.
    """
    counts = np.zeros((field.shape[1], _update.BINS), np.int64)
    run(_update.length_histogram, field.shape[1], check("field", field), counts)
    # Finite float32 numbers end with bin 4079; infinity and NaN lie beyond.
    edges = (np.arange(1, 4080, dtype=np.uint32) << 19).view(np.float32).astype(np.float64)
    edges[0] = 0.0  # the bin of 0 itself
    running = np.cumsum(counts.sum(0)[: edges.size] * edges)
    if running[-1] <= 0:
        return 0.0
    return float(edges[int(np.searchsorted(running, quantile * running[-1]))])


def momentum_step(
    force: Array, momentum: Array, *, keep: float, gain: float, cap: float, taper: Sequence[Array], out: Array
) -> Array:
    """momentum ← keep·momentum + gain·force; out = momentum, at most `cap` long, times the product of tapers."""
    check("momentum", momentum, force.shape)
    check("out", out, force.shape)
    numbers = np.float32(keep), np.float32(gain), np.float32(cap)
    run(_update.momentum_step, force.shape[1], force, momentum, *numbers, *taper, out)
    return out


def map_vectors(field: Array, matrix: NDArray[Any]) -> Array:
    """matrix (3, 3) times every vector of a field (3, X, Y, Z)."""
    m = np.asarray(matrix, np.float32)
    if not (m - np.diag(np.diag(m))).any():
        return np.diag(m).reshape(3, 1, 1, 1) * field
    return (m @ field.reshape(3, -1)).reshape(field.shape)


def determinant(field: Array) -> Array:
    """det of the Jacobian of x + u (X, Y, Z), central differences; an axis of one voxel counts as not deformed."""
    out = np.empty(field.shape[1:], np.float32)
    run(_jacobian.determinant, field.shape[1], check("field", field), out)
    return out


def digital(field: Array) -> tuple[Array, int, float]:
    """Smallest of the ten determinants of every cell (X−1, Y−1, Z−1), the number of cells ≤ 0, the folded volume.

    On one slice: the four determinants of each cell of the plane.
    """
    field = check("field", field)
    if field.shape[2] == 1:
        return _digital_plane(field[[0, 2], :, 0])
    lowest = np.empty([max(n - 1, 0) for n in field.shape[1:]], np.float32)
    partial = np.zeros((max(field.shape[1] - 1, 0), 2))
    if lowest.size:
        run(_jacobian.digital, lowest.shape[0], field, lowest, partial)
    return lowest, int(partial[:, 0].sum()), float(partial[:, 1].sum())


def _digital_plane(field: Array) -> tuple[Array, int, float]:
    along_x = np.diff(field, axis=1) + np.array([1, 0], np.float32)[:, None, None]
    along_y = np.diff(field, axis=2) + np.array([0, 1], np.float32)[:, None, None]
    each: list[Array] = []
    for j in (slice(None, -1), slice(1, None)):
        for i in (slice(None, -1), slice(1, None)):
            a, b = along_x[:, :, j], along_y[:, i, :]
            each.append(a[0] * b[1] - a[1] * b[0])
    every = np.stack(each)
    lowest = every.min(0)
    return lowest[:, None], int((lowest <= 0).sum()), float(-np.minimum(every, 0).sum() / 4)
