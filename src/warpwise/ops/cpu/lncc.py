"""Local normalised cross-correlation, value and gradient, by running sums.

Two sweeps. The first sums the five products over every (clipped) box and turns them into the value and three
coefficient maps; the second sums those maps over the same boxes and yields the derivative with respect to the
warped image. Sums run along x inside blocks of fixed size, along y across the plane, and are taken directly along z,
where the loop vectorises: a voxel costs about fifty multiply-adds whatever the radius along x and y.
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel

BLOCK = 16  # slabs a running sum lives for: bounds its drift, and keeps results free of the thread count


@helper
def window_counts(size, radius):
    """Number of voxels of a clipped window, for every position."""
    counts = np.empty(size, np.float32)
    for i in range(size):
        counts[i] = np.float32(min(i + radius, size - 1) - max(i - radius, 0) + 1)
    return counts


@helper
def window_rows(rows, radius, out):
    """out[m, z] = sum of rows[m, z … z + 2·radius], where rows carry `radius` zeros at either end.

    Four or five taps a pass, because one tap a pass is bound by the stores; shifted views rather than shifted
    indices, because a computed signed index may be negative, and that check stops the loop from vectorising
    (together 13 times faster).
    """
    a, t = rows.reshape(-1), out.reshape(-1)
    n = a.shape[0] - 2 * radius
    if radius == 0:
        for z in range(n):
            t[z] = a[z]
        return
    if radius == 1:
        for z in range(n):
            t[z] = a[z] + a[z + 1] + a[z + 2]
        return
    middle = a[radius - 2 :]
    for z in range(n):
        t[z] = middle[z + 2] + ((middle[z + 1] + middle[z + 3]) + (middle[z] + middle[z + 4]))
    s = 3
    while s + 1 <= radius:
        low, high = a[radius - s - 1 :], a[radius + s :]
        for z in range(n):
            t[z] += (low[z] + low[z + 1]) + (high[z] + high[z + 1])
        s += 2
    if s == radius:
        high = a[radius + s :]
        for z in range(n):
            t[z] += a[z] + high[z]


@helper
def add_products(sums, f, w, sign):
    """Add (or take away) the slab of products f, w, f², w², fw."""
    ny, nz = f.shape
    for y in range(ny):
        s0, s1, s2, s3, s4 = sums[0, y], sums[1, y], sums[2, y], sums[3, y], sums[4, y]
        fy, wy = f[y], w[y]
        for z in range(nz):
            a = fy[z]
            b = wy[z]
            t = sign * a
            r = sign * b
            s0[z] += t
            s1[z] += r
            s2[z] += t * a
            s3[z] += r * b
            s4[z] += t * b


@helper
def add_rows(rows, sums, y, sign):
    pad = (rows.shape[1] - sums.shape[2]) // 2
    for m in range(rows.shape[0]):
        row = rows[m, pad:]
        plane = sums[m, y]
        for z in range(plane.shape[0]):
            row[z] += sign * plane[z]


@helper
def squared_row(box, inverse, epsilon, values, ma, mb, mc):
    """Value (s + ε)²/((p + ε)(q + ε)) and coefficients of one row, from its box sums."""
    b0, b1, b2, b3, b4 = box[0], box[1], box[2], box[3], box[4]
    for z in range(values.shape[0]):
        k = inverse[z]
        mf = b0[z] * k
        mw = b1[z] * k
        p = max(b2[z] * k - mf * mf, np.float32(0)) + epsilon
        q = max(b3[z] * k - mw * mw, np.float32(0)) + epsilon
        s = b4[z] * k - mf * mw + epsilon
        r = s / (p * q)
        v = s * r
        a = (r + r) * k
        b = p * r * a
        values[z] = v
        ma[z] = a
        mb[z] = b
        mc[z] = b * mw - a * mf


@helper
def signed_row(box, inverse, epsilon, values, ma, mb, mc):
    """Value (s + ε)/√((p + ε)(q + ε)) and coefficients of one row, from its box sums."""
    b0, b1, b2, b3, b4 = box[0], box[1], box[2], box[3], box[4]
    for z in range(values.shape[0]):
        k = inverse[z]
        mf = b0[z] * k
        mw = b1[z] * k
        p = max(b2[z] * k - mf * mf, np.float32(0)) + epsilon
        q = max(b3[z] * k - mw * mw, np.float32(0)) + epsilon
        d = np.float32(1) / (p * q)
        root = np.sqrt(d)
        v = (b4[z] * k - mf * mw + epsilon) * root
        a = root * k
        b = v * p * d * k
        values[z] = v
        ma[z] = a
        mb[z] = b
        mc[z] = b * mw - a * mf


@helper
def weigh_row(weight, values, ma, mb, mc):
    for z in range(values.shape[0]):
        g = weight[z]
        values[z] *= g
        ma[z] *= g
        mb[z] *= g
        mc[z] *= g


@kernel
def lncc_coefficients(fixed, warped, weight, radius, epsilon, signed, maps, partial, start, stop):
    """First sweep, over blocks: coefficient maps and per-slab sums of the weighted correlation.

    fixed, warped (N, X, Y, Z); weight (N or 1, X, Y, Z) or empty; maps (N, 3, X, Y, Z); partial (N, X).
    With box means F, W, variances p, q and covariance s of a window: value
    (s + ε)²/((p + ε)(q + ε)) (or its root, signed); its derivative with respect to w at voxel i of the window is
    (a·(f_i − F) − b·(w_i − W))/n.
    """
    number, nx, ny, nz = fixed.shape
    rx, ry, rz = radius[0], radius[1], radius[2]
    cx, cy, cz = window_counts(nx, rx), window_counts(ny, ry), window_counts(nz, rz)
    sums = np.empty((5, ny, nz), np.float32)
    rows = np.empty((5, nz + 2 * rz), np.float32)
    box = np.empty((5, nz + 2 * rz), np.float32)
    inverse = np.empty(nz, np.float32)
    values = np.empty(nz, np.float32)
    one = np.float32(1)
    weighted = weight.shape[1] > 0
    for n in range(number):
        for block in range(start, stop):
            first = block * BLOCK
            last = min(first + BLOCK, nx)
            sums[:] = np.float32(0)
            for x in range(max(first - rx, 0), min(first + rx, nx)):
                add_products(sums, fixed[n, x], warped[n, x], one)
            for x in range(first, last):
                if x + rx < nx:
                    add_products(sums, fixed[n, x + rx], warped[n, x + rx], one)
                if x > first and x - rx - 1 >= 0:
                    add_products(sums, fixed[n, x - rx - 1], warped[n, x - rx - 1], -one)
                rows[:] = np.float32(0)
                for y in range(min(ry, ny)):
                    add_rows(rows, sums, y, one)
                total = 0.0
                for y in range(ny):
                    if y + ry < ny:
                        add_rows(rows, sums, y + ry, one)
                    if y - ry - 1 >= 0:
                        add_rows(rows, sums, y - ry - 1, -one)
                    window_rows(rows, rz, box)
                    scale = one / (cx[x] * cy[y])
                    for z in range(nz):
                        inverse[z] = scale / cz[z]
                    out = maps[n, :, x, y]
                    if signed:
                        signed_row(box, inverse, epsilon, values, out[0], out[1], out[2])
                    else:
                        squared_row(box, inverse, epsilon, values, out[0], out[1], out[2])
                    if weighted:
                        weigh_row(weight[n % weight.shape[0], x, y], values, out[0], out[1], out[2])
                    row_sum = np.float32(0)
                    for z in range(nz):
                        row_sum += values[z]
                    total += row_sum
                partial[n, x] = total


@helper
def add_maps(sums, maps, x, sign):
    for m in range(3):
        plane = maps[m, x]
        target = sums[m]
        for y in range(plane.shape[0]):
            a, t = plane[y], target[y]
            for z in range(a.shape[0]):
                t[z] += sign * a[z]


@kernel
def lncc_gradient(fixed, warped, maps, radius, scale, gradient, start, stop):
    """Second sweep: gradient = scale[n]·(f·Σa − w·Σb + Σc), sums over the windows that hold the voxel."""
    number, nx, ny, nz = fixed.shape
    rx, ry, rz = radius[0], radius[1], radius[2]
    sums = np.empty((3, ny, nz), np.float32)
    rows = np.empty((3, nz + 2 * rz), np.float32)
    box = np.empty((3, nz + 2 * rz), np.float32)
    one = np.float32(1)
    for n in range(number):
        for block in range(start, stop):
            first = block * BLOCK
            last = min(first + BLOCK, nx)
            sums[:] = np.float32(0)
            for x in range(max(first - rx, 0), min(first + rx, nx)):
                add_maps(sums, maps[n], x, one)
            for x in range(first, last):
                if x + rx < nx:
                    add_maps(sums, maps[n], x + rx, one)
                if x > first and x - rx - 1 >= 0:
                    add_maps(sums, maps[n], x - rx - 1, -one)
                rows[:] = np.float32(0)
                for y in range(min(ry, ny)):
                    add_rows(rows, sums, y, one)
                for y in range(ny):
                    if y + ry < ny:
                        add_rows(rows, sums, y + ry, one)
                    if y - ry - 1 >= 0:
                        add_rows(rows, sums, y - ry - 1, -one)
                    window_rows(rows, rz, box)
                    a, b, c = box[0], box[1], box[2]
                    f, w, g = fixed[n, x, y], warped[n, x, y], gradient[n, x, y]
                    for z in range(nz):
                        g[z] = scale[n] * (f[z] * a[z] - w[z] * b[z] + c[z])
