"""Invert x + u(x) voxel by voxel: Newton steps on the trilinear field, begun at the neighbour's answer."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def locate(position, size):
    """Cell and fraction of a position clamped to the grid, and whether it was inside (else the slope is 0)."""
    zero = np.float32(0)
    q = min(max(position, zero), np.float32(size - 1))
    i = min(np.int64(q), max(size - 2, 0))
    inside = np.float32(1) if (position >= zero and position <= np.float32(size - 1) and size > 1) else zero
    return i, q - np.float32(i), inside


@helper
def value_and_slopes(flat, o, sx, sy, sz, u, v, w):
    """Trilinear value and its three slopes at fractions (u, v, w) of the cell at o."""
    c000, c001 = flat[o], flat[o + sz]
    c010, c011 = flat[o + sy], flat[o + sy + sz]
    p = o + sx
    c100, c101 = flat[p], flat[p + sz]
    c110, c111 = flat[p + sy], flat[p + sy + sz]
    b00, b01 = c000 + w * (c001 - c000), c010 + w * (c011 - c010)
    b10, b11 = c100 + w * (c101 - c100), c110 + w * (c111 - c110)
    a0, a1 = b00 + v * (b01 - b00), b10 + v * (b11 - b10)
    d0 = a1 - a0
    d1 = (b01 - b00) + u * ((b11 - b10) - (b01 - b00))
    e0 = (c001 - c000) + v * ((c011 - c010) - (c001 - c000))
    e1 = (c101 - c100) + v * ((c111 - c110) - (c101 - c100))
    return a0 + u * d0, d0, d1, e0 + u * (e1 - e0)


@helper
def newton(f0, f1, f2, size, inverse, y0, y1, y2, w0, w1, w2, tolerance, iterations):
    """Smallest squared residual of w + u(y + w) found from a start, and its w; u in f0, f1, f2 (flat)."""
    sx = np.uint64(size[1] * size[2]) if size[0] > 1 else np.uint64(0)
    sy = np.uint64(size[2]) if size[1] > 1 else np.uint64(0)
    sz = np.uint64(1) if size[2] > 1 else np.uint64(0)
    ix, iy, iz = inverse[0], inverse[1], inverse[2]
    one = np.float32(1)
    best = np.float32(np.inf)
    b0, b1, b2 = w0, w1, w2
    damping = one
    s0 = s1 = s2 = np.float32(0)
    for _ in range(iterations):
        i, u, in0 = locate((y0 + w0) * ix, size[0])
        j, v, in1 = locate((y1 + w1) * iy, size[1])
        k, t, in2 = locate((y2 + w2) * iz, size[2])
        o = np.uint64(i * size[1] * size[2] + j * size[2] + k)
        u0, a00, a01, a02 = value_and_slopes(f0, o, sx, sy, sz, u, v, t)
        u1, a10, a11, a12 = value_and_slopes(f1, o, sx, sy, sz, u, v, t)
        u2, a20, a21, a22 = value_and_slopes(f2, o, sx, sy, sz, u, v, t)
        r0, r1, r2 = w0 + u0, w1 + u1, w2 + u2
        now = r0 * r0 + r1 * r1 + r2 * r2
        if now < best:
            best = now
            b0, b1, b2 = w0, w1, w2
            damping = min(one, damping * np.float32(2))
            if now <= tolerance * tolerance:
                break
            in0 *= ix
            in1 *= iy
            in2 *= iz
            a00, a01, a02 = one + a00 * in0, a01 * in1, a02 * in2
            a10, a11, a12 = a10 * in0, one + a11 * in1, a12 * in2
            a20, a21, a22 = a20 * in0, a21 * in1, one + a22 * in2
            c0 = a11 * a22 - a12 * a21
            c1 = a12 * a20 - a10 * a22
            c2 = a10 * a21 - a11 * a20
            det = a00 * c0 + a01 * c1 + a02 * c2
            if det > np.float32(0.02):
                d = one / det
                s0 = d * (c0 * r0 + (a02 * a21 - a01 * a22) * r1 + (a01 * a12 - a02 * a11) * r2)
                s1 = d * (c1 * r0 + (a00 * a22 - a02 * a20) * r1 + (a02 * a10 - a00 * a12) * r2)
                s2 = d * (c2 * r0 + (a01 * a20 - a00 * a21) * r1 + (a00 * a11 - a01 * a10) * r2)
            else:
                s0, s1, s2 = r0, r1, r2
            length = np.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
            bound = min(one, np.float32(2) / max(length, np.float32(1e-20)))
            s0 *= bound
            s1 *= bound
            s2 *= bound
        else:
            damping *= np.float32(0.5)
        w0 = b0 - damping * s0
        w1 = b1 - damping * s1
        w2 = b2 - damping * s2
    return best, b0, b1, b2


@kernel
def invert(field, inner, matrix, factors, tolerance, iterations, out, worst, start, stop):
    """out (3, X, Y, Z) = w with w + u(y + w) = 0 at y = matrix·(x + inner(x)); worst (X,) = largest residual of a slab.

    u (3, x, y, z) has nodes at factors·c of the space that y lies in; inner (3, X, Y, Z) may be empty.
    """
    _, nx, ny, nz = out.shape
    size = field.shape[1:]
    inverse = (np.float32(1) / factors[0], np.float32(1) / factors[1], np.float32(1) / factors[2])
    f0, f1, f2 = field[0].reshape(-1), field[1].reshape(-1), field[2].reshape(-1)
    half = np.float32(0.5)
    limit = np.float32(4) * tolerance * tolerance
    given = inner.shape[1] > 0
    for x in range(start, stop):
        largest = np.float32(0)
        for y in range(ny):
            w0 = w1 = w2 = np.float32(0)
            for z in range(nz):
                q0, q1, q2 = np.float32(x), np.float32(y), np.float32(z)
                if given:
                    q0 += inner[0, x, y, z]
                    q1 += inner[1, x, y, z]
                    q2 += inner[2, x, y, z]
                y0 = matrix[0, 0] * q0 + matrix[0, 1] * q1 + matrix[0, 2] * q2 + matrix[0, 3]
                y1 = matrix[1, 0] * q0 + matrix[1, 1] * q1 + matrix[1, 2] * q2 + matrix[1, 3]
                y2 = matrix[2, 0] * q0 + matrix[2, 1] * q1 + matrix[2, 2] * q2 + matrix[2, 3]
                best, w0, w1, w2 = newton(f0, f1, f2, size, inverse, y0, y1, y2, w0, w1, w2, tolerance, iterations)
                if best > limit:
                    # Newton's direction of one cell may not lead down in the next: begin elsewhere.
                    for attempt in range(8):
                        h0 = half if attempt & 4 else -half
                        h1 = half if attempt & 2 else -half
                        h2 = half if attempt & 1 else -half
                        found, a0, a1, a2 = newton(
                            f0, f1, f2, size, inverse, y0, y1, y2, w0 + h0, w1 + h1, w2 + h2, tolerance, iterations
                        )
                        if found < best:
                            best, w0, w1, w2 = found, a0, a1, a2
                        if best <= limit:
                            break
                out[0, x, y, z] = w0
                out[1, x, y, z] = w1
                out[2, x, y, z] = w2
                largest = max(largest, best)
        worst[x] = np.sqrt(largest)
