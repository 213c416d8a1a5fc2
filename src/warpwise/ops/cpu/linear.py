"""Loops of linear (affine) registration: weights of the overlap, and the sums behind a Gauss-Newton step."""

import numpy as np

from warpwise.ops.cpu.force import gradient_row
from warpwise.ops.cpu.parallel import helper, kernel


@kernel
def overlap_weight(fixed_weight, moving_shape, matrix, out, start, stop):
    """out = fixed_weight where matrix·x lies inside the moving grid (half a voxel beyond its centres), else 0."""
    nx, ny, nz = out.shape
    half = np.float32(0.5)
    h0, h1, h2 = moving_shape[0] - half, moving_shape[1] - half, moving_shape[2] - half
    given = fixed_weight.shape[0] > 0
    for x in range(start, stop):
        for y in range(ny):
            a0 = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 3]
            a1 = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 3]
            a2 = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 3]
            row = out[x, y]
            for z in range(nz):
                p0 = a0 + matrix[0, 2] * np.float32(z)
                p1 = a1 + matrix[1, 2] * np.float32(z)
                p2 = a2 + matrix[2, 2] * np.float32(z)
                inside = (p0 > -half) & (p0 < h0) & (p1 > -half) & (p1 < h1) & (p2 > -half) & (p2 < h2)
                row[z] = np.float32(1) if inside else np.float32(0)
            if given:
                weight = fixed_weight[x, y]
                for z in range(nz):
                    row[z] *= weight[z]


@helper
def accumulate_row(derivative, curvature, rows, zhat, out):
    """out[0:6] += Σ g·∂_a·ẑ^k, k = 0, 1; out[6:24] += Σ h·∂_a·∂_c·ẑ^k, k = 0, 1, 2, for a ≤ c."""
    nz = zhat.shape[0]
    for a in range(3):
        ga = rows[a]
        s0 = s1 = np.float32(0)
        for z in range(nz):
            t = derivative[z] * ga[z]
            s0 += t
            s1 += t * zhat[z]
        out[2 * a] = s0
        out[2 * a + 1] = s1
    m = 6
    for a in range(3):
        ga = rows[a]
        for c in range(a, 3):
            gc = rows[c]
            s0 = s1 = s2 = np.float32(0)
            for z in range(nz):
                t = curvature[z] * ga[z] * gc[z]
                s0 += t
                s1 += t * zhat[z]
                s2 += t * zhat[z] * zhat[z]
            out[m] = s0
            out[m + 1] = s1
            out[m + 2] = s2
            m += 3


@kernel
def normal_equations(derivative, curvature, warped, partial, start, stop):
    """Sums along each row (x, y) that make up the gradient and the Gauss-Newton matrix of a linear transform.

    partial (X, Y, 24), float64: Σ derivative·∂_a w·ẑ^k and Σ curvature·∂_a w·∂_c w·ẑ^k with ẑ = z / nz; x and y are
    constant along a row, so the caller multiplies their powers in.
    """
    nx, ny, nz = warped.shape
    rows = np.empty((3, nz), np.float32)
    zhat = np.empty(nz, np.float32)
    for z in range(nz):
        zhat[z] = np.float32(z) / np.float32(nz)
    for x in range(start, stop):
        for y in range(ny):
            gradient_row(warped, x, y, rows[0], rows[1], rows[2])
            accumulate_row(derivative[x, y], curvature[x, y], rows, zhat, partial[x, y])
