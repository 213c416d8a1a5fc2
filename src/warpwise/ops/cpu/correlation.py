"""Local correlation of two feature maps: the product of each voxel's features with those of its neighbours.

Rows along z are multiplied whole, so loops vectorise; a neighbour beyond the border counts as zero.
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def add_product(out, a, b, shift):
    """out[z] += a[z]·b[z + shift] wherever both exist."""
    n = out.shape[0]
    if shift >= 0:
        far = b[shift:]
        for z in range(n - shift):
            out[z] += a[z] * far[z]
    else:
        late, near = out[-shift:], a[-shift:]
        for z in range(n + shift):
            late[z] += near[z] * b[z]


@helper
def add_shifted_product(out, a, b, shift):
    """out[z] += a[z + shift]·b[z + shift] wherever they exist."""
    n = out.shape[0]
    if shift >= 0:
        p, q = a[shift:], b[shift:]
        for z in range(n - shift):
            out[z] += p[z] * q[z]
    else:
        late = out[-shift:]
        for z in range(n + shift):
            late[z] += a[z] * b[z]


@kernel
def correlate(fixed, moving, offsets, scale, out, first, last):
    """out[k, x] = scale · Σ_c fixed[c, x]·moving[c, x + offsets[k]]."""
    channels, nx, ny, nz = fixed.shape
    for x in range(first, last):
        for y in range(ny):
            for k in range(offsets.shape[0]):
                row = out[k, x, y]
                for z in range(nz):
                    row[z] = np.float32(0)
                u, v, w = x + offsets[k, 0], y + offsets[k, 1], offsets[k, 2]
                if u < 0 or u >= nx or v < 0 or v >= ny or w >= nz or -w >= nz:
                    continue
                for c in range(channels):
                    add_product(row, fixed[c, x, y], moving[c, u, v], w)
                for z in range(nz):
                    row[z] *= scale


@kernel
def correlate_fixed_gradient(derivative, moving, offsets, scale, out, first, last):
    """out[c, x] = scale · Σ_k derivative[k, x]·moving[c, x + offsets[k]]."""
    channels, nx, ny, nz = moving.shape
    for x in range(first, last):
        for y in range(ny):
            for c in range(channels):
                row = out[c, x, y]
                for z in range(nz):
                    row[z] = np.float32(0)
                for k in range(offsets.shape[0]):
                    u, v, w = x + offsets[k, 0], y + offsets[k, 1], offsets[k, 2]
                    if u < 0 or u >= nx or v < 0 or v >= ny or w >= nz or -w >= nz:
                        continue
                    add_product(row, derivative[k, x, y], moving[c, u, v], w)
                for z in range(nz):
                    row[z] *= scale


@kernel
def correlate_moving_gradient(derivative, fixed, offsets, scale, out, first, last):
    """out[c, x] = scale · Σ_k derivative[k, x − offsets[k]]·fixed[c, x − offsets[k]]."""
    channels, nx, ny, nz = fixed.shape
    for x in range(first, last):
        for y in range(ny):
            for c in range(channels):
                row = out[c, x, y]
                for z in range(nz):
                    row[z] = np.float32(0)
                for k in range(offsets.shape[0]):
                    u, v, w = x - offsets[k, 0], y - offsets[k, 1], -offsets[k, 2]
                    if u < 0 or u >= nx or v < 0 or v >= ny or w >= nz or -w >= nz:
                        continue
                    add_shifted_product(row, derivative[k, u, v], fixed[c, u, v], w)
                for z in range(nz):
                    row[z] *= scale
