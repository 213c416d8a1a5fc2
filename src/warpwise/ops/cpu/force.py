"""From the derivative of a similarity to a force on the field: one sweep, no gradient image in memory."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def gradient_row(image, x, y, r0, r1, r2):
    """Gradient of row (x, y) by central differences, one-sided at the border, 0 along an axis of one voxel."""
    nx, ny, nz = image.shape
    xa, xb = max(x - 1, 0), min(x + 1, nx - 1)
    ya, yb = max(y - 1, 0), min(y + 1, ny - 1)
    wx = np.float32(1) / np.float32(max(xb - xa, 1))
    wy = np.float32(1) / np.float32(max(yb - ya, 1))
    half = np.float32(0.5)
    row = image[x, y]
    x0, x1, y0, y1 = image[xa, y], image[xb, y], image[x, ya], image[x, yb]
    for z in range(nz):
        r0[z] = wx * (x1[z] - x0[z])
        r1[z] = wy * (y1[z] - y0[z])
    for z in range(1, nz - 1):
        r2[z] = half * (row[z + 1] - row[z - 1])
    r2[0] = row[min(1, nz - 1)] - row[0]
    r2[nz - 1] = row[nz - 1] - row[max(nz - 2, 0)]


@helper
def add_force(rows, gradient, derivative, weight):
    for d in range(3):
        target, slope = rows[d], gradient[d]
        for z in range(derivative.shape[0]):
            target[z] += weight * derivative[z] * slope[z]


@kernel
def force(derivative, warped, factors, out, start, stop):
    """out (B, 3, X', Y', Z') = adjoint of linear upsampling, applied to Σ_c derivative · ∇warped (B, C, X, Y, Z)."""
    batch, channels, nx, ny, nz = warped.shape
    cy, cz = out.shape[3], out.shape[4]
    fx, fy, fz = factors[0], factors[1], factors[2]
    one = np.float32(1)
    rows = np.empty((3, nz), np.float32)
    slope = np.empty((3, nz), np.float32)
    for b in range(batch):
        for i in range(start, stop):
            for j in range(cy):
                rows[:] = np.float32(0)
                for x in range(max(i * fx - fx + 1, 0), min(i * fx + fx, nx)):
                    wx = one - np.float32(abs(x - i * fx)) / np.float32(fx)
                    for y in range(max(j * fy - fy + 1, 0), min(j * fy + fy, ny)):
                        wy = one - np.float32(abs(y - j * fy)) / np.float32(fy)
                        for c in range(channels):
                            gradient_row(warped[b, c], x, y, slope[0], slope[1], slope[2])
                            add_force(rows, slope, derivative[b, c, x, y], wx * wy)
                for d in range(3):
                    target, row = out[b, d, i, j], rows[d]
                    if fz == 1:
                        for k in range(cz):
                            target[k] = row[k]
                    else:
                        for k in range(cz):
                            total = np.float32(0)
                            for z in range(max(k * fz - fz + 1, 0), min(k * fz + fz, nz)):
                                total += (one - np.float32(abs(z - k * fz)) / np.float32(fz)) * row[z]
                            target[k] = total
