"""Warping loops: sample an image, or a displacement field, where a transform points.

Positions are `matrix · (x + u(x))`, in voxels of the sampled array. The field `u` may live on a grid that is
coarser by whole factors and shares voxel 0 (node c of the field lies on voxel factor·c): it is interpolated
row by row on the fly, so that a fine displacement never travels through memory.
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def displaced_row(field, factors, matrix, x, y, coarse, p0, p1, p2):
    """Positions of row (x, y) in voxels of the sampled array, into p0, p1, p2 (length of the row)."""
    nz = p0.shape[0]
    cx, cy, cz = field.shape[1], field.shape[2], field.shape[3]
    fx, fy, fz = factors[0], factors[1], factors[2]
    x0 = x // fx
    y0 = y // fy
    x1 = min(x0 + 1, cx - 1)
    y1 = min(y0 + 1, cy - 1)
    tx = np.float32(x - x0 * fx) / np.float32(fx)
    ty = np.float32(y - y0 * fy) / np.float32(fy)
    one = np.float32(1)
    w00 = (one - tx) * (one - ty)
    w01 = (one - tx) * ty
    w10 = tx * (one - ty)
    w11 = tx * ty
    for d in range(3):
        a = field[d, x0, y0]
        b = field[d, x0, y1]
        c = field[d, x1, y0]
        e = field[d, x1, y1]
        row = coarse[d]
        if w00 == one:
            for k in range(cz):
                row[k] = a[k]
        else:
            for k in range(cz):
                row[k] = w00 * a[k] + w01 * b[k] + w10 * c[k] + w11 * e[k]
    if fz == 1:
        for k in range(nz):
            p0[k] = coarse[0, k]
            p1[k] = coarse[1, k]
            p2[k] = coarse[2, k]
    else:
        inverse = one / np.float32(fz)
        for j in range(fz):
            t = np.float32(j) * inverse
            count = (nz - j + fz - 1) // fz
            for k in range(count):
                after = min(k + 1, cz - 1)
                p0[k * fz + j] = coarse[0, k] + t * (coarse[0, after] - coarse[0, k])
                p1[k * fz + j] = coarse[1, k] + t * (coarse[1, after] - coarse[1, k])
                p2[k * fz + j] = coarse[2, k] + t * (coarse[2, after] - coarse[2, k])
    m00, m01, m02, m03 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    m10, m11, m12, m13 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    m20, m21, m22, m23 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    fx32, fy32 = np.float32(x), np.float32(y)
    for k in range(nz):
        a0 = fx32 + p0[k]
        a1 = fy32 + p1[k]
        a2 = np.float32(k) + p2[k]
        p0[k] = m00 * a0 + m01 * a1 + m02 * a2 + m03
        p1[k] = m10 * a0 + m11 * a1 + m12 * a2 + m13
        p2[k] = m20 * a0 + m21 * a1 + m22 * a2 + m23


@helper
def locate_row(p0, p1, p2, shape, cells):
    """Clamp positions to the grid: flat index of the lower corner into cells, fractions back into p0, p1, p2."""
    lx, ly, lz = np.float32(shape[0] - 1), np.float32(shape[1] - 1), np.float32(shape[2] - 1)
    hx, hy, hz = np.int32(max(shape[0] - 2, 0)), np.int32(max(shape[1] - 2, 0)), np.int32(max(shape[2] - 2, 0))
    plane, line = np.int32(shape[1] * shape[2]), np.int32(shape[2])
    zero = np.float32(0)
    for z in range(p0.shape[0]):
        q0 = min(max(p0[z], zero), lx)
        q1 = min(max(p1[z], zero), ly)
        q2 = min(max(p2[z], zero), lz)
        i = min(np.int32(q0), hx)
        j = min(np.int32(q1), hy)
        k = min(np.int32(q2), hz)
        cells[z] = i * plane + j * line + k
        p0[z] = q0 - np.float32(i)
        p1[z] = q1 - np.float32(j)
        p2[z] = q2 - np.float32(k)


@helper
def steps(shape):
    """Flat distance to the next voxel along each axis; 0 along an axis of one voxel."""
    sx = np.uint64(shape[1] * shape[2]) if shape[0] > 1 else np.uint64(0)
    sy = np.uint64(shape[2]) if shape[1] > 1 else np.uint64(0)
    sz = np.uint64(1) if shape[2] > 1 else np.uint64(0)
    return sx, sy, sz


@helper
def sample_row(flat, shape, cells, u, v, w, out):
    """Trilinear samples of one channel."""
    sx, sy, sz = steps(shape)
    for z in range(out.shape[0]):
        o = np.uint64(cells[z])
        a00 = flat[o] + w[z] * (flat[o + sz] - flat[o])
        a01 = flat[o + sy] + w[z] * (flat[o + sy + sz] - flat[o + sy])
        o = o + sx
        a10 = flat[o] + w[z] * (flat[o + sz] - flat[o])
        a11 = flat[o + sy] + w[z] * (flat[o + sy + sz] - flat[o + sy])
        a0 = a00 + v[z] * (a01 - a00)
        a1 = a10 + v[z] * (a11 - a10)
        out[z] = a0 + u[z] * (a1 - a0)


@kernel
def warp_linear(image, field, factors, matrix, out, start, stop):
    """out[b, c] = image[b, c] at matrix·(x + u), border replicated."""
    batch, channels, _, ny, nz = out.shape
    shape = image.shape[2:]
    coarse = np.empty((3, field.shape[4]), np.float32)
    p0 = np.empty(nz, np.float32)
    p1 = np.empty(nz, np.float32)
    p2 = np.empty(nz, np.float32)
    cells = np.empty(nz, np.int32)
    for b in range(batch):
        for x in range(start, stop):
            for y in range(ny):
                displaced_row(field[b], factors, matrix[b], x, y, coarse, p0, p1, p2)
                locate_row(p0, p1, p2, shape, cells)
                for c in range(channels):
                    sample_row(image[b, c].reshape(-1), shape, cells, p0, p1, p2, out[b, c, x, y])


@kernel
def compose(outer, inner, out, start, stop):
    """out = inner + outer∘(id + inner): displacement of (id + outer)∘(id + inner), border replicated."""
    batch, _, nx, ny, nz = inner.shape
    shape = outer.shape[2:]
    p0 = np.empty(nz, np.float32)
    p1 = np.empty(nz, np.float32)
    p2 = np.empty(nz, np.float32)
    cells = np.empty(nz, np.int32)
    for b in range(batch):
        for x in range(start, stop):
            for y in range(ny):
                g0, g1, g2 = inner[b, 0, x, y], inner[b, 1, x, y], inner[b, 2, x, y]
                fx, fy = np.float32(x), np.float32(y)
                for z in range(nz):
                    p0[z] = fx + g0[z]
                    p1[z] = fy + g1[z]
                    p2[z] = np.float32(z) + g2[z]
                locate_row(p0, p1, p2, shape, cells)
                for d in range(3):
                    target, g = out[b, d, x, y], inner[b, d, x, y]
                    sample_row(outer[b, d].reshape(-1), shape, cells, p0, p1, p2, target)
                    for z in range(nz):
                        target[z] += g[z]
