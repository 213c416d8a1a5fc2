"""Separable filters with any odd taps: Gaussian, box, and the smoothing that precedes a coarser grid."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def filter_row(padded, taps, out):
    """out[z] = Σ_k taps[k]·padded[z + k]; padded carries half a window of zeros at either end. Taps are symmetric."""
    n = out.shape[0]
    r = taps.shape[0] // 2
    middle = padded[r:]
    t0 = taps[r]
    for z in range(n):
        out[z] = t0 * middle[z]
    s = 1
    while s + 1 <= r:
        a, b = taps[r + s], taps[r + s + 1]
        low, high = padded[r - s - 1 :], padded[r + s :]
        for z in range(n):
            out[z] += a * (low[z + 1] + high[z]) + b * (low[z] + high[z + 1])
        s += 2
    if s == r:
        a = taps[r + s]
        high = padded[r + s :]
        for z in range(n):
            out[z] += a * (padded[z] + high[z])


@helper
def add_scaled(target, source, weight):
    for z in range(target.shape[0]):
        target[z] += weight * source[z]


@helper
def add_pair(target, first, second, weight):
    for z in range(target.shape[0]):
        target[z] += weight * (first[z] + second[z])


@kernel
def separable(image, tx, ty, tz, sx, sy, sz, stride, out, start, stop):
    """out (N, X', Y', Z') = image (N, X, Y, Z) filtered with symmetric taps, zeros outside, every stride-th voxel,
    times the per-axis scales (length X', Y', Z'): with these a clipped window is renormalised."""
    number, nx, ny, nz = image.shape
    ox, oy, oz = out.shape[1], out.shape[2], out.shape[3]
    rx, ry, rz = tx.shape[0] // 2, ty.shape[0] // 2, tz.shape[0] // 2
    plane = np.empty((ny, nz), np.float32)
    padded = np.zeros(nz + 2 * rz, np.float32)
    inner = padded[rz : rz + nz]
    row = np.empty(nz, np.float32)
    for n in range(number):
        for x in range(start, stop):
            centre = x * stride[0]
            for y in range(ny):
                target = plane[y]
                source = image[n, centre, y]
                for z in range(nz):
                    target[z] = tx[rx] * source[z]
                for k in range(1, rx + 1):
                    if centre - k >= 0 and centre + k < nx:
                        add_pair(target, image[n, centre - k, y], image[n, centre + k, y], tx[rx + k])
                    elif centre - k >= 0:
                        add_scaled(target, image[n, centre - k, y], tx[rx + k])
                    elif centre + k < nx:
                        add_scaled(target, image[n, centre + k, y], tx[rx + k])
            for y in range(oy):
                middle = y * stride[1]
                for z in range(nz):
                    inner[z] = ty[ry] * plane[middle, z]
                for k in range(1, ry + 1):
                    if middle - k >= 0 and middle + k < ny:
                        add_pair(inner, plane[middle - k], plane[middle + k], ty[ry + k])
                    elif middle - k >= 0:
                        add_scaled(inner, plane[middle - k], ty[ry + k])
                    elif middle + k < ny:
                        add_scaled(inner, plane[middle + k], ty[ry + k])
                filter_row(padded, tz, row)
                scale = sx[x] * sy[y]
                target = out[n, x, y]
                for z in range(oz):
                    target[z] = scale * sz[z] * row[z * stride[2]]
