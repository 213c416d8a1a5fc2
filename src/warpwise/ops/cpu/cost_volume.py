"""Cost volume of two feature maps: the product of each voxel's features with those of its neighbours.

Arrays come padded with zeros by the radius on every side, so a neighbour is a constant distance away and a whole plane
(y, z) is one long loop: rows of features are short, and a loop a row spends its time beginning (25 times slower).
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def add_products(out, a, b, c, d, e, f, g, h):
    """out += a·b + c·d + e·f + g·h: four a pass, because one is bound by the loads and stores of `out`."""
    for i in range(out.shape[0]):
        out[i] += (a[i] * b[i] + c[i] * d[i]) + (e[i] * f[i] + g[i] * h[i])


@helper
def add_product(out, a, b):
    """out += a·b."""
    for i in range(out.shape[0]):
        out[i] += a[i] * b[i]


@helper
def unpad(plane, width, scale, out):
    """out (ny, nz) = scale · the inner part of a padded plane that begins at its first voxel."""
    for y in range(out.shape[0]):
        row, start = out[y], plane[y * width :]
        for z in range(row.shape[0]):
            row[z] = scale * start[z]


@kernel
def cost_volume(fixed, moving, shifts, radius, width, scale, out, first, last):
    """out[k, x] = scale · Σ_c fixed[c, x]·moving[c, x + shifts[k]].

    fixed, moving: (C, nx + 2·radius[0], plane), padded; shifts (K, 2): planes, and places within one; out (K, nx, ny, nz).
    """
    channels = fixed.shape[0]
    base = radius[1] * width + radius[2]
    length = (out.shape[2] - 1) * width + out.shape[3]
    sums = np.empty(length, np.float32)
    for x in range(first, last):
        at = x + radius[0]
        for k in range(shifts.shape[0]):
            to, start = at + shifts[k, 0], base + shifts[k, 1]
            sums[:] = np.float32(0)
            c = 0
            while c + 3 < channels:
                add_products(
                    sums,
                    fixed[c, at, base:], moving[c, to, start:], fixed[c + 1, at, base:], moving[c + 1, to, start:],
                    fixed[c + 2, at, base:], moving[c + 2, to, start:], fixed[c + 3, at, base:], moving[c + 3, to, start:],
                )  # fmt: skip
                c += 4
            while c < channels:
                add_product(sums, fixed[c, at, base:], moving[c, to, start:])
                c += 1
            unpad(sums, width, scale, out[k, x])


@kernel
def cost_volume_gradient(derivative, other, shifts, both, radius, width, scale, out, first, last):
    """out[c, x] = scale · Σ_k derivative[k, x (+ shifts[k])]·other[c, x + shifts[k]], the first shifted if `both`.

    derivative (K, …) and other (C, …) are padded; with the opposite shifts and `both` it is the gradient by moving.
    """
    count = shifts.shape[0]
    base = radius[1] * width + radius[2]
    length = (out.shape[2] - 1) * width + out.shape[3]
    sums = np.empty(length, np.float32)
    for x in range(first, last):
        at = x + radius[0]
        for c in range(out.shape[0]):
            sums[:] = np.float32(0)
            k = 0
            while k + 3 < count:
                p, q, r, t = at + shifts[k, 0], at + shifts[k + 1, 0], at + shifts[k + 2, 0], at + shifts[k + 3, 0]
                i, j = base + shifts[k, 1], base + shifts[k + 1, 1]
                m, n = base + shifts[k + 2, 1], base + shifts[k + 3, 1]
                if both:
                    add_products(
                        sums,
                        derivative[k, p, i:], other[c, p, i:], derivative[k + 1, q, j:], other[c, q, j:],
                        derivative[k + 2, r, m:], other[c, r, m:], derivative[k + 3, t, n:], other[c, t, n:],
                    )  # fmt: skip
                else:
                    add_products(
                        sums,
                        derivative[k, at, base:], other[c, p, i:], derivative[k + 1, at, base:], other[c, q, j:],
                        derivative[k + 2, at, base:], other[c, r, m:], derivative[k + 3, at, base:], other[c, t, n:],
                    )  # fmt: skip
                k += 4
            while k < count:
                p, i = at + shifts[k, 0], base + shifts[k, 1]
                if both:
                    add_product(sums, derivative[k, p, i:], other[c, p, i:])
                else:
                    add_product(sums, derivative[k, at, base:], other[c, p, i:])
                k += 1
            unpad(sums, width, scale, out[c, x])
