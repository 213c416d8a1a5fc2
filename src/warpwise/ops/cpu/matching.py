"""Matching of feature maps: their divergence, its linear form in a small displacement, and the solver of that."""

import numpy as np

from warpwise.ops.cpu.force import gradient_row
from warpwise.ops.cpu.parallel import helper, kernel


@helper
def divergence_row(mf, mw, lf, lw, g, by_mean, by_log, of_mean, of_log):
    quarter, half = np.float32(0.25), np.float32(0.5)
    total = np.float32(0)
    for z in range(mf.shape[0]):
        d = mw[z] - mf[z]
        pf, pw = np.exp(-lf[z]), np.exp(-lw[z])
        # var_f / var_w and its inverse
        there, back = pw / pf, pf / pw
        both, square = quarter * (pf + pw), d * d
        total += g[z] * (quarter * (there + back - np.float32(2)) + both * square)
        by_mean[z] = g[z] * np.float32(2) * both * d
        by_log[z] = g[z] * quarter * (back - there - square * pw)
        of_mean[z] = g[z] * half * (pf + pw)
        of_log[z] = g[z] * quarter * (back + there + square * pw)
    return total


@kernel
def symmetric_kl(fixed, warped, weight, derivative, curvature, partial, start, stop):
    """Symmetrised KL of diagonal Gaussians: images (2C, X, Y, Z) of C means and C log-variances.

    partial (C, X) = its weighted sum; derivative and curvature (2C, …): first and second derivative by `warped`.
    """
    channels, nz = fixed.shape[0] // 2, fixed.shape[3]
    given = weight.shape[1] > 0
    ones = np.ones(nz, np.float32)
    for c in range(channels):
        k = c + channels
        for x in range(start, stop):
            total = 0.0
            for y in range(fixed.shape[2]):
                g = weight[0, x, y] if given else ones
                total += divergence_row(
                    fixed[c, x, y], warped[c, x, y], fixed[k, x, y], warped[k, x, y], g,
                    derivative[c, x, y], derivative[k, x, y], curvature[c, x, y], curvature[k, x, y],
                )  # fmt: skip
            partial[c, x] = total


@helper
def accumulate_row(slope, derivative, curvature, rows):
    for z in range(derivative.shape[0]):
        a, b, c = slope[0, z], slope[1, z], slope[2, z]
        d, h = derivative[z], curvature[z]
        rows[0, z] += d * a
        rows[1, z] += d * b
        rows[2, z] += d * c
        rows[3, z] += h * a * a
        rows[4, z] += h * a * b
        rows[5, z] += h * a * c
        rows[6, z] += h * b * b
        rows[7, z] += h * b * c
        rows[8, z] += h * c * c


@kernel
def normal_field(derivative, curvature, moving, out, start, stop):
    """Gradient (3) and Gauss-Newton matrix (6 of a symmetric 3×3) by a displacement at every voxel: out (9, X, Y, Z).

    Σ over channels of derivative·∇f and curvature·∇f∇fᵀ, ∇f by central differences.
    """
    channels, _, ny, nz = moving.shape
    slope = np.empty((3, nz), np.float32)
    rows = np.empty((9, nz), np.float32)
    for x in range(start, stop):
        for y in range(ny):
            rows[:] = np.float32(0)
            for c in range(channels):
                gradient_row(moving[c], x, y, slope[0], slope[1], slope[2])
                accumulate_row(slope, derivative[c, x, y], curvature[c, x, y], rows)
            for k in range(9):
                target, row = out[k, x, y], rows[k]
                for z in range(nz):
                    target[z] = row[z]


@kernel
def normal_field_along(derivative, curvature, slopes, out, start, stop):
    """The same with given ∇f: slopes (N, 3, X, Y, Z)."""
    channels, _, ny, nz = derivative.shape
    slope = np.empty((3, nz), np.float32)
    rows = np.empty((9, nz), np.float32)
    for x in range(start, stop):
        for y in range(ny):
            rows[:] = np.float32(0)
            for c in range(channels):
                slope[:] = slopes[c, :, x, y]
                accumulate_row(slope, derivative[c, x, y], curvature[c, x, y], rows)
            out[:, x, y] = rows


@helper
def along_row(slope, vectors, x, y, out):
    """Slope times vector at every voxel of a row."""
    a, b, c = vectors[0, x, y], vectors[1, x, y], vectors[2, x, y]
    for z in range(out.shape[0]):
        out[z] = slope[0, z] * a[z] + slope[1, z] * b[z] + slope[2, z] * c[z]


@helper
def slope_gradient_row(d, h, p, r, v, u, x, y, out):
    """d·v + h·(r·v + p·u): derivative by the slope."""
    for k in range(3):
        target, vk, uk = out[k, x, y], v[k, x, y], u[k, x, y]
        for z in range(d.shape[0]):
            target[z] = (d[z] + h[z] * r[z]) * vk[z] + h[z] * p[z] * uk[z]


@helper
def square_row(g, p, by_fixed, by_moving):
    for z in range(p.shape[0]):
        t = np.float32(2) * g[z] * p[z]
        by_moving[z] += t
        by_fixed[z] -= t


@helper
def divergence_gradient_row(mf, mw, lf, lw, g, pm, rm, pl, rl, by_mf, by_mw, by_lf, by_lw):
    quarter, half = np.float32(0.25), np.float32(0.5)
    for z in range(mf.shape[0]):
        d = mw[z] - mf[z]
        vf, vw = np.exp(-lf[z]), np.exp(-lw[z])
        there, back, square = vw / vf, vf / vw, d * d * vw
        m = pm[z] * (d + rm[z])
        step = g[z] * (half * (vf + vw) * pm[z] + half * d * vw * pl[z] * (rl[z] - np.float32(1)))
        by_mw[z] += step
        by_mf[z] -= step
        one, two = quarter * pl[z], quarter * pl[z] * rl[z]
        by_lw[z] += g[z] * (one * (back + there + square) + two * (back - there - square) - half * vw * m)
        by_lf[z] += g[z] * (two * (there - back) - one * (back + there) - half * vf * m)


@kernel
def match_gradient(fixed, moving, weight, derivative, curvature, u, v, c, k, slopes, by_fixed, by_moving, start, stop):
    """Derivative of v·g + vᵀ·A·u by the features of channel c, and of its log-variances, channel k (−1: there are none).

    What goes through the slopes of c and k is left in slopes (2, 3, X, Y, Z).
    """
    nz = fixed.shape[3]
    given = weight.shape[1] > 0
    ones = np.ones(nz, np.float32)
    slope = np.empty((3, nz), np.float32)
    p, r = np.empty((2, nz), np.float32), np.empty((2, nz), np.float32)
    for x in range(start, stop):
        for y in range(fixed.shape[2]):
            g = weight[0, x, y] if given else ones
            for n in range(1 if k < 0 else 2):
                channel = c if n == 0 else k
                gradient_row(moving[channel], x, y, slope[0], slope[1], slope[2])
                along_row(slope, v, x, y, p[n])
                along_row(slope, u, x, y, r[n])
                slope_gradient_row(
                    derivative[channel, x, y], curvature[channel, x, y], p[n], r[n], v, u, x, y, slopes[n]
                )  # fmt: skip
            if k < 0:
                square_row(g, p[0], by_fixed[c, x, y], by_moving[c, x, y])
            else:
                divergence_gradient_row(
                    fixed[c, x, y], moving[c, x, y], fixed[k, x, y], moving[k, x, y], g, p[0], r[0], p[1], r[1],
                    by_fixed[c, x, y], by_moving[c, x, y], by_fixed[k, x, y], by_moving[k, x, y],
                )  # fmt: skip


@helper
def share(n, at):
    """Weight of the central difference at one place along an axis of n > 1 voxels."""
    return np.float32(1) if at in (0, n - 1) else np.float32(0.5)


@helper
def add_scaled(row, scale, out):
    for z in range(out.shape[0]):
        out[z] += scale * row[z]


@kernel
def gradient_adjoint(slopes, out, start, stop):
    """out (X, Y, Z) += adjoint of the central differences of `gradient_row`, of slopes (3, X, Y, Z)."""
    nx, ny, nz = out.shape
    for x in range(start, stop):
        for y in range(ny):
            target = out[x, y]
            if nx > 1:
                if x > 0:
                    add_scaled(slopes[0, x - 1, y], share(nx, x - 1), target)
                if x < nx - 1:
                    add_scaled(slopes[0, x + 1, y], -share(nx, x + 1), target)
                if x == 0:
                    add_scaled(slopes[0, x, y], np.float32(-1), target)
                if x == nx - 1:
                    add_scaled(slopes[0, x, y], np.float32(1), target)
            if ny > 1:
                if y > 0:
                    add_scaled(slopes[1, x, y - 1], share(ny, y - 1), target)
                if y < ny - 1:
                    add_scaled(slopes[1, x, y + 1], -share(ny, y + 1), target)
                if y == 0:
                    add_scaled(slopes[1, x, y], np.float32(-1), target)
                if y == ny - 1:
                    add_scaled(slopes[1, x, y], np.float32(1), target)
            if nz > 1:
                row = slopes[2, x, y]
                half = np.float32(0.5)
                for z in range(2, nz - 1):
                    target[z] += half * row[z - 1]
                for z in range(1, nz - 2):
                    target[z] -= half * row[z + 1]
                target[0] -= row[0]
                target[1] += row[0]
                target[nz - 2] -= row[nz - 1]
                target[nz - 1] += row[nz - 1]
                if nz > 2:
                    target[nz - 1] += half * row[nz - 2]
                    target[0] -= half * row[1]


@helper
def edges_row(p, x, y, out):
    """Σ over neighbours of p(x) − p(neighbour), for row (x, y)."""
    nx, ny, nz = p.shape
    row = p[x, y]
    for z in range(nz):
        out[z] = np.float32(0)
    if x > 0:
        other = p[x - 1, y]
        for z in range(nz):
            out[z] += row[z] - other[z]
    if x < nx - 1:
        other = p[x + 1, y]
        for z in range(nz):
            out[z] += row[z] - other[z]
    if y > 0:
        other = p[x, y - 1]
        for z in range(nz):
            out[z] += row[z] - other[z]
    if y < ny - 1:
        other = p[x, y + 1]
        for z in range(nz):
            out[z] += row[z] - other[z]
    for z in range(1, nz):
        out[z] += row[z] - row[z - 1]
    for z in range(nz - 1):
        out[z] += row[z] - row[z + 1]


@helper
def product_row(matrix, p0, p1, p2, diffusion, q, x, y):
    """q ← A·p + diffusion·q, where q holds the sums over edges; returns p·q."""
    total = np.float32(0)
    xx, xy, xz = matrix[0, x, y], matrix[1, x, y], matrix[2, x, y]
    yy, yz, zz = matrix[3, x, y], matrix[4, x, y], matrix[5, x, y]
    q0, q1, q2 = q[0, x, y], q[1, x, y], q[2, x, y]
    for z in range(p0.shape[0]):
        a, b, c = p0[z], p1[z], p2[z]
        u = diffusion * q0[z] + xx[z] * a + xy[z] * b + xz[z] * c
        v = diffusion * q1[z] + xy[z] * a + yy[z] * b + yz[z] * c
        w = diffusion * q2[z] + xz[z] * a + yz[z] * b + zz[z] * c
        q0[z], q1[z], q2[z] = u, v, w
        total += a * u + b * v + c * w
    return total


@kernel
def normal_product(matrix, p, diffusion, q, partial, start, stop):
    """q = (A + diffusion·L)·p, L the graph Laplacian of the grid; partial (X,) = p·q."""
    for x in range(start, stop):
        total = 0.0
        for y in range(p.shape[2]):
            for d in range(3):
                edges_row(p[d], x, y, q[d, x, y])
            total += product_row(matrix, p[0, x, y], p[1, x, y], p[2, x, y], diffusion, q, x, y)
        partial[x] = total


@kernel
def laplacian(p, q, partial, start, stop):
    """q = L·p, L the graph Laplacian of the grid; partial (X,) = p·q."""
    for x in range(start, stop):
        total = 0.0
        for y in range(p.shape[2]):
            for d in range(3):
                pr, qr = p[d, x, y], q[d, x, y]
                edges_row(p[d], x, y, qr)
                part = np.float32(0)
                for z in range(p.shape[3]):
                    part += pr[z] * qr[z]
                total += part
        partial[x] = total


@helper
def precondition_row(matrix, r, z3, diffusion, edges, x, y):
    """z = block⁻¹·r at every voxel; returns r·z."""
    total = np.float32(0)
    for z in range(r.shape[3]):
        on = diffusion * (edges + (z > 0) + (z < r.shape[3] - 1))
        a00, a01, a02 = matrix[0, x, y, z] + on, matrix[1, x, y, z], matrix[2, x, y, z]
        a11, a12, a22 = matrix[3, x, y, z] + on, matrix[4, x, y, z], matrix[5, x, y, z] + on
        c00, c01, c02 = a11 * a22 - a12 * a12, a12 * a02 - a01 * a22, a01 * a12 - a11 * a02
        det = a00 * c00 + a01 * c01 + a02 * c02
        inv = np.float32(1) / max(det, np.float32(1e-30))
        b0, b1, b2 = r[0, x, y, z], r[1, x, y, z], r[2, x, y, z]
        s0 = inv * (c00 * b0 + c01 * b1 + c02 * b2)
        s1 = inv * (c01 * b0 + (a00 * a22 - a02 * a02) * b1 + (a01 * a02 - a00 * a12) * b2)
        s2 = inv * (c02 * b0 + (a01 * a02 - a00 * a12) * b1 + (a00 * a11 - a01 * a01) * b2)
        z3[0, x, y, z], z3[1, x, y, z], z3[2, x, y, z] = s0, s1, s2
        total += b0 * s0 + b1 * s1 + b2 * s2
    return total


@kernel
def normal_descend(matrix, diffusion, alpha, p, q, solution, residual, z3, partial, start, stop):
    """solution += α·p, residual −= α·q, z = block diagonal⁻¹·residual; partial (X,) = residual·z."""
    nx, ny = p.shape[1], p.shape[2]
    for x in range(start, stop):
        total = 0.0
        for y in range(ny):
            for d in range(3):
                pr, qr, sr, rr = p[d, x, y], q[d, x, y], solution[d, x, y], residual[d, x, y]
                for z in range(p.shape[3]):
                    sr[z] += alpha * pr[z]
                    rr[z] -= alpha * qr[z]
            edges = np.float32((x > 0) + (x < nx - 1) + (y > 0) + (y < ny - 1))
            total += precondition_row(matrix, residual, z3, diffusion, edges, x, y)
        partial[x] = total
