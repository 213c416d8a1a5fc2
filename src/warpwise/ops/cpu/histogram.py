"""Joint histograms: Parzen windows (cubic B-spline) for mutual information, plain counts for many poses at once."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def spline_weights(t, out):
    """Cubic B-spline weights of the four bins round a fraction t of [0, 1)."""
    one = np.float32(1)
    sixth = np.float32(1 / 6)
    s = one - t
    t2 = t * t
    t3 = t2 * t
    out[0] = s * s * s * sixth
    out[1] = np.float32(2 / 3) - t2 + np.float32(0.5) * t3
    out[3] = t3 * sixth
    out[2] = one - out[0] - out[1] - out[3]


@helper
def spline_slopes(t, out):
    half = np.float32(0.5)
    s = np.float32(1) - t
    out[0] = -half * s * s
    out[1] = np.float32(1.5) * t * t - np.float32(2) * t
    out[3] = half * t * t
    out[2] = -(out[0] + out[1] + out[3])


@kernel
def joint_histogram(fixed, warped, weight, ranges, bins, tables, start, stop):
    """tables (X, bins, bins) += weight·B(fixed)⊗B(warped) over slab x; images (X, Y, Z), weight or empty.

    ranges: low and bins-per-unit of fixed, then of warped; intensities are clamped to the inner bins.
    """
    nx, ny, nz = fixed.shape
    given = weight.shape[0] > 0
    a, b = np.empty(4, np.float32), np.empty(4, np.float32)
    top = np.float32(bins - 3) - np.float32(1e-3)
    one = np.float32(1)
    zero = np.float32(0)
    for x in range(start, stop):
        table = tables[x]
        for y in range(ny):
            for z in range(nz):
                g = weight[x, y, z] if given else one
                if g > zero:
                    p = min(max((fixed[x, y, z] - ranges[0]) * ranges[1], zero), top)
                    q = min(max((warped[x, y, z] - ranges[2]) * ranges[3], zero), top)
                    i, j = np.uint32(p), np.uint32(q)
                    spline_weights(p - np.float32(i), a)
                    spline_weights(q - np.float32(j), b)
                    for k in range(4):
                        t = g * a[k]
                        row = table[i + np.uint32(k)]
                        for m in range(4):
                            row[j + np.uint32(m)] += t * b[m]


@kernel
def histogram_gradient(fixed, warped, weight, ranges, bins, potential, scale, out, start, stop):
    """out = scale·weight·Σ potential·B(fixed)·B′(warped): derivative of a function of the histogram by warped."""
    nx, ny, nz = fixed.shape
    given = weight.shape[0] > 0
    a, b = np.empty(4, np.float32), np.empty(4, np.float32)
    top = np.float32(bins - 3) - np.float32(1e-3)
    one = np.float32(1)
    zero = np.float32(0)
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                g = weight[x, y, z] if given else one
                value = zero
                raw = (warped[x, y, z] - ranges[2]) * ranges[3]
                if g > zero and raw >= zero and raw <= top:
                    p = min(max((fixed[x, y, z] - ranges[0]) * ranges[1], zero), top)
                    i, j = np.uint32(p), np.uint32(raw)
                    spline_weights(p - np.float32(i), a)
                    spline_slopes(raw - np.float32(j), b)
                    for k in range(4):
                        row = potential[i + np.uint32(k)]
                        t = zero
                        for m in range(4):
                            t += row[j + np.uint32(m)] * b[m]
                        value += a[k] * t
                    value *= g * scale
                out[x, y, z] = value


@kernel
def pose_histograms(binned, points, moving, matrices, counts, start, stop):
    """counts[k] (bins, bins) = joint histogram of the fixed points and the moving image at matrices[k]·x.

    binned (V,) holds the fixed bins, points (3, V) their voxels, moving (X, Y, Z) its bins; a point that maps outside
    meets bin 0, the background, and one that meets a value beyond the bins (a masked voxel) does not count. Nearest
    neighbour: poses are ranked here, not refined.
    """
    mx, my, mz = moving.shape
    flat = moving.reshape(-1)
    bins = counts.shape[1]
    half = np.float32(0.5)
    zero = np.float32(0)
    hx, hy, hz = np.float32(mx), np.float32(my), np.float32(mz)
    for k in range(start, stop):
        m = matrices[k]
        table = counts[k]
        for v in range(binned.shape[0]):
            x, y, z = points[0, v], points[1, v], points[2, v]
            p0 = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3] + half
            p1 = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3] + half
            p2 = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3] + half
            if p0 >= zero and p0 < hx and p1 >= zero and p1 < hy and p2 >= zero and p2 < hz:
                o = (np.uint32(p0) * np.uint32(my) + np.uint32(p1)) * np.uint32(mz) + np.uint32(p2)
                if flat[o] < bins:
                    table[binned[v], flat[o]] += 1
            else:
                table[binned[v], 0] += 1
