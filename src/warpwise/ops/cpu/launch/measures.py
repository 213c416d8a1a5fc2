"""Similarities: values, gradients, histograms, and the sums that Gauss-Newton needs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import histogram as _histogram
from warpwise.ops.cpu import intensity as _intensity
from warpwise.ops.cpu import linear as _linear
from warpwise.ops.cpu import lncc as _lncc
from warpwise.ops.cpu.launch.arrays import NONE3, NONE4, Array, Triple, check
from warpwise.ops.cpu.parallel import run


def lncc(
    fixed: Array,
    warped: Array,
    *,
    radius: Triple,
    weight: Array | None = None,
    signed: bool = False,
    epsilon: float = 5e-3,
    scale: NDArray[Any],
    maps: Array,
    gradient: Array | None,
) -> NDArray[np.float64]:
    """Sum of the weighted local correlation of each image (N,); gradient (by warped) = scale[n] · its derivative."""
    if fixed.shape != warped.shape or maps.shape != (fixed.shape[0], 3, *fixed.shape[1:]):
        raise InputError(f"lncc: fixed {fixed.shape}, warped {warped.shape}, maps {maps.shape} do not agree.")
    fixed, warped = check("fixed", fixed), check("warped", warped)
    weight = NONE4 if weight is None else check("weight", weight)
    blocks = -(-fixed.shape[1] // _lncc.BLOCK)
    partial = np.zeros(fixed.shape[:2])
    r = np.array(radius)
    run(_lncc.lncc_coefficients, blocks, fixed, warped, weight, r, np.float32(epsilon), signed, maps, partial)
    if gradient is not None:
        lncc_gradient(fixed, warped, maps, radius=radius, scale=scale, gradient=gradient)
    return partial.sum(1)


def lncc_gradient(
    fixed: Array, warped: Array, maps: Array, *, radius: Triple, scale: NDArray[Any], gradient: Array
) -> Array:
    """gradient (by warped) = scale[n] · derivative of the sum that left `maps` behind."""
    check("gradient", gradient, fixed.shape)
    blocks = -(-fixed.shape[1] // _lncc.BLOCK)
    r, s = np.array(radius), np.asarray(scale, np.float32)
    run(_lncc.lncc_gradient, blocks, fixed, warped, maps, r, s, gradient)
    return gradient


def _agree(fixed: Array, warped: Array, weight: Array | None, *, axes: int = 4) -> tuple[Array, Array, Array]:
    """Both images and the weight (empty where there is none), sound for a kernel."""
    fixed = check("fixed", fixed, axes=axes)
    warped = check("warped", warped, fixed.shape, axes=axes)
    if weight is None:
        return fixed, warped, NONE4 if axes == 4 else NONE3
    weight = check("weight", weight, axes=axes)
    if weight.shape[-3:] != fixed.shape[-3:]:
        raise InputError(f"weight: shape {weight.shape} does not fit images {fixed.shape}.")
    return fixed, warped, weight


def moments(fixed: Array, warped: Array, weight: Array | None) -> NDArray[np.float64]:
    """Weighted sums (N, 6) of 1, f, w, f², w², fw."""
    fixed, warped, weight = _agree(fixed, warped, weight)
    partial = np.zeros((*fixed.shape[:2], 6))
    run(_intensity.moments, fixed.shape[1], fixed, warped, weight, partial)
    return partial.sum(1)


def squared_difference(
    fixed: Array, warped: Array, weight: Array | None, *, scale: NDArray[Any], gradient: Array
) -> NDArray[np.float64]:
    """Σ weight·(w − f)² of each image (N,); gradient = scale[n]·weight·(w − f)."""
    fixed, warped, weight = _agree(fixed, warped, weight)
    check("gradient", gradient, fixed.shape)
    partial = np.zeros(fixed.shape[:2])
    s = np.asarray(scale, np.float32)
    run(_intensity.squared_difference, fixed.shape[1], fixed, warped, weight, s, gradient, partial)
    return partial.sum(1)


def blend(fixed: Array, warped: Array, weight: Array | None, coefficients: NDArray[Any], *, out: Array) -> Array:
    """out = weight·(a·f + b·w + c), coefficients (N, 3)."""
    fixed, warped, weight = _agree(fixed, warped, weight)
    check("out", out, fixed.shape)
    c = np.ascontiguousarray(coefficients, np.float32)
    run(_intensity.blend, fixed.shape[1], fixed, warped, weight, c, out)
    return out


def joint_histogram(fixed: Array, warped: Array, weight: Array | None, *, ranges: Array, bins: int) -> NDArray[np.float64]:
    """Parzen-window histogram (bins, bins) of two images (X, Y, Z), not normalised."""
    fixed, warped, weight = _agree(fixed, warped, weight, axes=3)
    tables = np.zeros((fixed.shape[0], bins, bins), np.float32)
    run(_histogram.joint_histogram, fixed.shape[0], fixed, warped, weight, ranges, bins, tables)
    return tables.sum(0, dtype=np.float64)


def histogram_gradient(
    fixed: Array, warped: Array, weight: Array | None, *, ranges: Array, potential: NDArray[Any], scale: float, out: Array
) -> Array:
    """out = scale · derivative, by warped, of Σ potential · joint histogram."""
    fixed, warped, weight = _agree(fixed, warped, weight, axes=3)
    check("out", out, fixed.shape, axes=3)
    table = np.ascontiguousarray(potential, np.float32)
    bins = table.shape[0]
    run(_histogram.histogram_gradient, fixed.shape[0], fixed, warped, weight, ranges, bins, table, np.float32(scale), out)
    return out


def pose_histograms(
    binned: NDArray[np.int32], points: Array, moving: NDArray[np.int32], matrices: NDArray[Any], *, bins: int
) -> NDArray[np.int64]:
    """Joint histograms (K, bins, bins) of fixed points and the moving image under K matrices; see the kernel."""
    counts = np.zeros((len(matrices), bins, bins), np.int64)
    m = np.ascontiguousarray(matrices[:, :3, :4], np.float32)
    run(_histogram.pose_histograms, len(matrices), binned, points, np.ascontiguousarray(moving), m, counts)
    return counts


def overlap_weight(fixed_weight: Array | None, moving_shape: Sequence[int], matrix: NDArray[Any], *, out: Array) -> Array:
    """out (X, Y, Z) = fixed_weight (1 where None) where matrix·x lies inside the moving grid, else 0."""
    given = NONE3 if fixed_weight is None else check("fixed_weight", fixed_weight, out.shape, axes=3)
    m = np.asarray(matrix, np.float32)
    run(_linear.overlap_weight, out.shape[0], given, np.array(moving_shape, np.float32), m, out)
    return out


def normal_equations(derivative: Array, curvature: Array, warped: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient (3, 4) and Gauss-Newton matrix (12, 12) of a similarity by the matrix of x ↦ E·x, at E = 0.

    derivative, curvature, warped (X, Y, Z): first and (positive) second derivative by the warped intensity.
    """
    shape = warped.shape
    partial = np.zeros((*shape[:2], 24))
    run(_linear.normal_equations, shape[0], derivative, curvature, warped, partial)
    x, y = np.arange(shape[0], dtype=np.float64), np.arange(shape[1], dtype=np.float64)
    powers_x, powers_y = np.stack([x**0, x, x**2]), np.stack([y**0, y, y**2])
    sums = np.einsum("ix,jy,xyk->ijk", powers_x, powers_y, partial, optimize=True)
    n = float(shape[2])
    gradient = np.array([
        [sums[1, 0, 2 * a], sums[0, 1, 2 * a], sums[0, 0, 2 * a + 1] * n, sums[0, 0, 2 * a]] for a in range(3)
    ])
    hessian = np.zeros((3, 4, 3, 4))
    exponents = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    total = exponents[:, None] + exponents[None, :]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    for m, (a, c) in enumerate(pairs):
        moments = sums[:, :, 6 + 3 * m : 9 + 3 * m] * np.array([1.0, n, n * n])
        block = moments[total[..., 0], total[..., 1], total[..., 2]]
        hessian[a, :, c, :] = hessian[c, :, a, :] = block
    return gradient, hessian.reshape(12, 12)
