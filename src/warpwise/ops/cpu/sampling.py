"""Final resampling of an image under a full-size field: linear, nearest, label vote, cubic B-spline.

Positions are `matrix · (x + u(x))` in voxels of the image. More than half a voxel beyond the outermost centres is
background; in between the border is replicated, as ITK does.
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def position(field, matrix, x, y, z):
    a = np.float32(x) + field[0, x, y, z]
    b = np.float32(y) + field[1, x, y, z]
    c = np.float32(z) + field[2, x, y, z]
    p = matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 2] * c + matrix[0, 3]
    q = matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 2] * c + matrix[1, 3]
    r = matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 2] * c + matrix[2, 3]
    return p, q, r


@helper
def inside(p, q, r, shape):
    half = np.float32(0.5)
    return (
        (p >= -half) & (p <= np.float32(shape[1]) - half)
        & (q >= -half) & (q <= np.float32(shape[2]) - half)
        & (r >= -half) & (r <= np.float32(shape[3]) - half)
    )  # fmt: skip


@helper
def clamp(index, size):
    return min(max(index, 0), size - 1)


@kernel
def sample_nearest(image, field, matrix, background, out, start, stop):
    """out = the nearest voxel."""
    half = np.float32(0.5)
    for x in range(start, stop):
        for y in range(out.shape[2]):
            for z in range(out.shape[3]):
                p, q, r = position(field, matrix, x, y, z)
                ok = inside(p, q, r, image.shape)
                i = clamp(int(np.floor(p + half)), image.shape[1])
                j = clamp(int(np.floor(q + half)), image.shape[2])
                k = clamp(int(np.floor(r + half)), image.shape[3])
                for n in range(image.shape[0]):
                    out[n, x, y, z] = image[n, i, j, k] if ok else background


@kernel
def sample_linear(image, field, matrix, background, out, start, stop):
    """out = trilinear interpolation."""
    one = np.float32(1)
    for x in range(start, stop):
        for y in range(out.shape[2]):
            for z in range(out.shape[3]):
                p, q, r = position(field, matrix, x, y, z)
                ok = inside(p, q, r, image.shape)
                fp, fq, fr = np.floor(p), np.floor(q), np.floor(r)
                u, v, w = p - fp, q - fq, r - fr
                i0, j0, k0 = int(fp), int(fq), int(fr)
                i1, j1, k1 = clamp(i0 + 1, image.shape[1]), clamp(j0 + 1, image.shape[2]), clamp(k0 + 1, image.shape[3])
                i0, j0, k0 = clamp(i0, image.shape[1]), clamp(j0, image.shape[2]), clamp(k0, image.shape[3])
                for n in range(image.shape[0]):
                    c = image[n]
                    a = (one - v) * ((one - w) * c[i0, j0, k0] + w * c[i0, j0, k1])
                    a += v * ((one - w) * c[i0, j1, k0] + w * c[i0, j1, k1])
                    b = (one - v) * ((one - w) * c[i1, j0, k0] + w * c[i1, j0, k1])
                    b += v * ((one - w) * c[i1, j1, k0] + w * c[i1, j1, k1])
                    out[n, x, y, z] = (one - u) * a + u * b if ok else background


@kernel
def sample_label(image, field, matrix, background, out, start, stop):
    """out = the value with the largest trilinear weight among the eight corners."""
    weights = np.empty(8, np.float32)
    values = np.empty(8, image.dtype)
    one = np.float32(1)
    for x in range(start, stop):
        for y in range(out.shape[2]):
            for z in range(out.shape[3]):
                p, q, r = position(field, matrix, x, y, z)
                ok = inside(p, q, r, image.shape)
                fp, fq, fr = np.floor(p), np.floor(q), np.floor(r)
                u, v, w = p - fp, q - fq, r - fr
                for n in range(image.shape[0]):
                    if not ok:
                        out[n, x, y, z] = background
                        continue
                    for corner in range(8):
                        i, j, k = corner >> 2, (corner >> 1) & 1, corner & 1
                        wx = u if i else one - u
                        wy = v if j else one - v
                        wz = w if k else one - w
                        weights[corner] = wx * wy * wz
                        values[corner] = image[
                            n,
                            clamp(int(fp) + i, image.shape[1]),
                            clamp(int(fq) + j, image.shape[2]),
                            clamp(int(fr) + k, image.shape[3]),
                        ]
                    best = np.float32(-1)
                    for a in range(8):
                        total = np.float32(0)
                        for b in range(8):
                            if values[b] == values[a]:
                                total += weights[b]
                        if total > best:
                            best = total
                            out[n, x, y, z] = values[a]


@helper
def mirror(index, size):
    """Index reflected about the first and last voxel."""
    if size == 1:
        return 0
    period = 2 * size - 2
    index = abs(index) % period
    return period - index if index >= size else index


@helper
def basis(t, out):
    s = np.float32(1) - t
    sixth = np.float32(1 / 6)
    out[0] = s * s * s * sixth
    out[1] = np.float32(2 / 3) - t * t + np.float32(0.5) * t * t * t
    out[3] = t * t * t * sixth
    out[2] = np.float32(1) - out[0] - out[1] - out[3]


@kernel
def sample_cubic(image, field, matrix, background, out, start, stop):
    """out = cubic B-spline with coefficients `image` (prefiltered, mirror border)."""
    a, b, c = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
    ii, jj, kk = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    for x in range(start, stop):
        for y in range(out.shape[2]):
            for z in range(out.shape[3]):
                p, q, r = position(field, matrix, x, y, z)
                ok = inside(p, q, r, image.shape)
                fp, fq, fr = np.floor(p), np.floor(q), np.floor(r)
                basis(p - fp, a)
                basis(q - fq, b)
                basis(r - fr, c)
                for t in range(4):
                    ii[t] = mirror(int(fp) + t - 1, image.shape[1])
                    jj[t] = mirror(int(fq) + t - 1, image.shape[2])
                    kk[t] = mirror(int(fr) + t - 1, image.shape[3])
                for n in range(image.shape[0]):
                    total = np.float32(0)
                    if ok:
                        for i in range(4):
                            for j in range(4):
                                w = a[i] * b[j]
                                row = image[n, ii[i], jj[j]]
                                for k in range(4):
                                    total += w * c[k] * row[kk[k]]
                    out[n, x, y, z] = total if ok else background


@helper
def basis_slopes(t, out):
    s = np.float32(1) - t
    half = np.float32(0.5)
    out[0] = -half * s * s
    out[1] = np.float32(1.5) * t * t - np.float32(2) * t
    out[3] = half * t * t
    out[2] = -out[0] - out[1] - out[3]


@kernel
def warp_cubic(image, field, out, slopes, start, stop):
    """out (N, X, Y, Z) = cubic B-spline with coefficients `image` at x + u(x), slopes (N, 3, X, Y, Z) its gradient there;
    beyond the border the nearest value, and no slope. Slopes of no channels: values alone."""
    a, b, c = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
    da, db, dc = np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)
    ii, jj, kk = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    zero = np.float32(0)
    wanted = slopes.shape[0] > 0
    for x in range(start, stop):
        for y in range(out.shape[2]):
            for z in range(out.shape[3]):
                p = np.float32(x) + field[0, x, y, z]
                q = np.float32(y) + field[1, x, y, z]
                r = np.float32(z) + field[2, x, y, z]
                cp = min(max(p, zero), np.float32(image.shape[1] - 1))
                cq = min(max(q, zero), np.float32(image.shape[2] - 1))
                cr = min(max(r, zero), np.float32(image.shape[3] - 1))
                fp, fq, fr = np.floor(cp), np.floor(cq), np.floor(cr)
                basis(cp - fp, a)
                basis(cq - fq, b)
                basis(cr - fr, c)
                if wanted:
                    basis_slopes(cp - fp, da)
                    basis_slopes(cq - fq, db)
                    basis_slopes(cr - fr, dc)
                for t in range(4):
                    ii[t] = mirror(int(fp) + t - 1, image.shape[1])
                    jj[t] = mirror(int(fq) + t - 1, image.shape[2])
                    kk[t] = mirror(int(fr) + t - 1, image.shape[3])
                for n in range(image.shape[0]):
                    value, s0, s1, s2 = zero, zero, zero, zero
                    for i in range(4):
                        for j in range(4):
                            row = image[n, ii[i], jj[j]]
                            along, across = zero, zero
                            for k in range(4):
                                along += c[k] * row[kk[k]]
                            value += a[i] * b[j] * along
                            if wanted:
                                for k in range(4):
                                    across += dc[k] * row[kk[k]]
                                s0 += da[i] * b[j] * along
                                s1 += a[i] * db[j] * along
                                s2 += a[i] * b[j] * across
                    out[n, x, y, z] = value
                    if wanted:
                        slopes[n, 0, x, y, z] = s0 if cp == p else zero
                        slopes[n, 1, x, y, z] = s1 if cq == q else zero
                        slopes[n, 2, x, y, z] = s2 if cr == r else zero
