"""Simulated atrophy: an image whose regions have grown and shrunk by known factors, and the map that says so."""

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.ops import kernels
from warpwise.shapes import Array
from warpwise.transforms.displacement import DisplacementField

STEPS = 10
PAD = 16  # voxels of empty space on each side, so that a growing region does not meet its periodic copies


def changed_in_size(growth: NDArray[np.floating], grid: Grid, *, steps: int = STEPS) -> DisplacementField:
    """The transform (changed mm → original mm) after which every region has about `growth` times its volume: regions of
    many voxels do, thin ones and those between opposite neighbours change less, since the rate is sampled between voxels.

    Regions push and pull each other irrotationally: in every one of a few steps the velocity is the gradient of a
    potential whose Laplacian is the wanted rate of growth, carried along with the tissue. Isotropic in mm.

    Args:
        growth: factor of volume (X, Y, Z) at the original's voxels, > 0; it should be 1 on average where nothing may leave,
            and is 1 outside.
        grid: 3-D, of the original.

    Raises:
        InputError: growth is not positive and finite, or does not fit the grid.

    Example:
        >>> growth = np.ones((32, 32, 32)); growth[12:20, 12:20, 12:20] = 2.0
        >>> there = changed_in_size(growth, Grid((32, 32, 32), np.eye(4)))
        >>> at = np.array([[11.0, 15.5, 15.5]])  # was outside, now belongs to what grew
        >>> bool(there.points(at)[0, 0] > 11.5)
        True

    Source: the idea of prescribing Jacobians, Karaçalı and Davatzikos, IEEE TMI 2006; the solution here is our own.
    """
    if growth.shape != grid.shape or grid.dim != 3:
        raise InputError(f"Growth of shape {growth.shape} on a grid of {grid.shape}; one 3-D shape is needed.")
    if not (np.isfinite(growth).all() and (growth > 0).all()):
        raise InputError("Growth must be positive and finite everywhere.")
    rate: Array = np.log(np.asarray(growth, np.float32))[None].astype(np.float32)
    shape, spacing = grid.shape, np.array(grid.spacing_mm)
    field: Array = np.zeros((3, *shape), np.float32)  # voxels
    carried, still = np.empty_like(rate), np.eye(4)
    for _ in range(steps):
        kernels.warp(rate, field, still, out=carried)
        step = _irrotational(carried[0] * np.float32(-1 / steps), spacing)
        # Changed so far, then back by this step: y → y − w(y) → φ(y − w(y)).
        before = kernels.warp(field, step, still, out=np.empty_like(field))
        field = (before + step).astype(np.float32)
    return DisplacementField(kernels.map_vectors(field, grid.affine[:3, :3]), grid)


def _irrotational(rate: Array, spacing: NDArray[np.float64]) -> Array:
    """The gradient field (3, X, Y, Z), voxels, whose divergence is `rate`."""
    padded = np.pad(rate, PAD)
    waves = [2 * np.pi * np.fft.fftfreq(n, s) for n, s in zip(padded.shape, spacing, strict=True)]
    waves[2] = 2 * np.pi * np.fft.rfftfreq(padded.shape[2], spacing[2])
    kx, ky, kz = np.meshgrid(*waves, indexing="ij", sparse=True)
    square = kx**2 + ky**2 + kz**2
    square[0, 0, 0] = 1.0
    spectrum = np.fft.rfftn(padded) / square
    spectrum[0, 0, 0] = 0.0
    inner = tuple(slice(PAD, PAD + n) for n in rate.shape)
    sides = [
        np.fft.irfftn(-1j * k * spectrum, padded.shape, axes=(0, 1, 2))[inner] / s
        for k, s in zip((kx, ky, kz), spacing, strict=True)
    ]
    return np.stack(sides).astype(np.float32)
