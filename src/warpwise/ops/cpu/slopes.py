"""Warping with derivatives: value and spatial gradient in one pass, and the two halves of a warp's backward."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel
from warpwise.ops.cpu.warp import locate_row, steps


@helper
def place_row(field, x, y, p0, p1, p2):
    """Positions x + u(x) of row (x, y)."""
    g0, g1, g2 = field[0, x, y], field[1, x, y], field[2, x, y]
    fx, fy = np.float32(x), np.float32(y)
    for z in range(p0.shape[0]):
        p0[z] = fx + g0[z]
        p1[z] = fy + g1[z]
        p2[z] = np.float32(z) + g2[z]


@helper
def inside_row(p, size, out):
    """1 where a position lies on the grid, 0 beyond, where the border is replicated and the slope is 0."""
    last = np.float32(size - 1)
    zero, one = np.float32(0), np.float32(1)
    for z in range(p.shape[0]):
        out[z] = one if (p[z] >= zero) & (p[z] <= last) else zero


@helper
def sample_slopes_row(flat, shape, cells, u, v, w, value, s0, s1, s2):
    """Trilinear value and its three slopes."""
    sx, sy, sz = steps(shape)
    for z in range(value.shape[0]):
        o = np.uint64(cells[z])
        c000 = flat[o]
        e00 = flat[o + sz] - c000
        c010 = flat[o + sy]
        e01 = flat[o + sy + sz] - c010
        o = o + sx
        c100 = flat[o]
        e10 = flat[o + sz] - c100
        c110 = flat[o + sy]
        e11 = flat[o + sy + sz] - c110
        t, r, q = w[z], v[z], u[z]
        b00 = c000 + t * e00
        d0 = c010 + t * e01 - b00
        b10 = c100 + t * e10
        d1 = c110 + t * e11 - b10
        a0 = b00 + r * d0
        rise = b10 + r * d1 - a0
        value[z] = a0 + q * rise
        s0[z] = rise
        s1[z] = d0 + q * (d1 - d0)
        f0 = e00 + r * (e01 - e00)
        f1 = e10 + r * (e11 - e10)
        s2[z] = f0 + q * (f1 - f0)


@helper
def multiply_row(target, factor):
    for z in range(target.shape[0]):
        target[z] *= factor[z]


@helper
def add_product_row(target, a, b):
    for z in range(target.shape[0]):
        target[z] += a[z] * b[z]


@kernel
def warp_with_gradient(image, field, out, slopes, start, stop):
    """out (N, X, Y, Z) = image at x + u(x), slopes (N, 3, X, Y, Z) its gradient there; border replicated."""
    number, _, ny, nz = out.shape
    shape = image.shape[1:]
    p = np.empty((3, nz), np.float32)
    within = np.empty((3, nz), np.float32)
    cells = np.empty(nz, np.int32)
    for x in range(start, stop):
        for y in range(ny):
            place_row(field, x, y, p[0], p[1], p[2])
            for d in range(3):
                inside_row(p[d], shape[d], within[d])
            locate_row(p[0], p[1], p[2], shape, cells)
            for n in range(number):
                s = slopes[n]
                s0, s1, s2 = s[0, x, y], s[1, x, y], s[2, x, y]
                sample_slopes_row(image[n].reshape(-1), shape, cells, p[0], p[1], p[2], out[n, x, y], s0, s1, s2)
                multiply_row(s0, within[0])
                multiply_row(s1, within[1])
                multiply_row(s2, within[2])


@kernel
def warp_gradient(image, field, derivative, out, start, stop):
    """out (3, X, Y, Z) = Σ_n derivative[n] · gradient of image[n] at x + u(x)."""
    number, _, ny, nz = derivative.shape
    shape = image.shape[1:]
    p = np.empty((3, nz), np.float32)
    within = np.empty((3, nz), np.float32)
    s = np.empty((3, nz), np.float32)
    value = np.empty(nz, np.float32)
    cells = np.empty(nz, np.int32)
    for x in range(start, stop):
        for y in range(ny):
            place_row(field, x, y, p[0], p[1], p[2])
            for d in range(3):
                inside_row(p[d], shape[d], within[d])
            locate_row(p[0], p[1], p[2], shape, cells)
            for d in range(3):
                out[d, x, y, :] = np.float32(0)
            for n in range(number):
                sample_slopes_row(image[n].reshape(-1), shape, cells, p[0], p[1], p[2], value, s[0], s[1], s[2])
                for d in range(3):
                    add_product_row(out[d, x, y], derivative[n, x, y], s[d])
            for d in range(3):
                multiply_row(out[d, x, y], within[d])


@kernel
def warp_adjoint(field, derivative, out, start, stop):
    """out (N, x, y, z) += derivative spread to the eight voxels that each sample was made of.

    Slabs are images, not slices: voxels of one image are added to in one order whatever the thread count.
    """
    _, nx, ny, nz = derivative.shape
    shape = out.shape[1:]
    sx, sy, sz = steps(shape)
    p = np.empty((3, nz), np.float32)
    cells = np.empty(nz, np.int32)
    one = np.float32(1)
    for n in range(start, stop):
        flat = out[n].reshape(-1)
        for x in range(nx):
            for y in range(ny):
                place_row(field, x, y, p[0], p[1], p[2])
                locate_row(p[0], p[1], p[2], shape, cells)
                g = derivative[n, x, y]
                for z in range(nz):
                    o = np.uint64(cells[z])
                    u, v, w = p[0, z], p[1, z], p[2, z]
                    a, b = g[z] * (one - u), g[z] * u
                    flat[o] += a * (one - v) * (one - w)
                    flat[o + sz] += a * (one - v) * w
                    flat[o + sy] += a * v * (one - w)
                    flat[o + sy + sz] += a * v * w
                    o = o + sx
                    flat[o] += b * (one - v) * (one - w)
                    flat[o + sz] += b * (one - v) * w
                    flat[o + sy] += b * v * (one - w)
                    flat[o + sy + sz] += b * v * w
