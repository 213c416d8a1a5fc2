"""Jacobian determinants of x + u(x): central, and the ten of digital diffeomorphisms (%NDV); counts and minima.

Source of the ten: Liu, Chen, Wei, Carass and Prince, "On finite difference Jacobian computation in deformable image
registration", IJCV 2024: eight one-sided combinations plus the two extra tetrahedra of a cube's diagonals.
"""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def determinant_row(a, b, c, out):
    """out[z] = det of the columns a, b, c (3, Z)."""
    a0, a1, a2 = a[0], a[1], a[2]
    b0, b1, b2 = b[0], b[1], b[2]
    c0, c1, c2 = c[0], c[1], c[2]
    for z in range(out.shape[0]):
        out[z] = (
            a0[z] * (b1[z] * c2[z] - b2[z] * c1[z])
            - a1[z] * (b0[z] * c2[z] - b2[z] * c0[z])
            + a2[z] * (b0[z] * c1[z] - b1[z] * c0[z])
        )


@helper
def difference_rows(high, low, axis, scale, out):
    """out (3, Z) = scale·(high − low) + unit vector of `axis`."""
    for d in range(3):
        h, m, o = high[d], low[d], out[d]
        one = np.float32(1) if d == axis else np.float32(0)
        for z in range(o.shape[0]):
            o[z] = scale * (h[z] - m[z]) + one


@kernel
def determinant(field, out, start, stop):
    """out (X, Y, Z) = det of the Jacobian of x + u, field (3, X, Y, Z): central differences, one-sided at the border."""
    _, nx, ny, nz = field.shape
    dx = np.empty((3, nz), np.float32)
    dy = np.empty((3, nz), np.float32)
    dz = np.empty((3, nz), np.float32)
    half = np.float32(0.5)
    for x in range(start, stop):
        xa, xb = max(x - 1, 0), min(x + 1, nx - 1)
        sx = np.float32(1) / np.float32(max(xb - xa, 1))
        for y in range(ny):
            ya, yb = max(y - 1, 0), min(y + 1, ny - 1)
            sy = np.float32(1) / np.float32(max(yb - ya, 1))
            difference_rows(field[:, xb, y], field[:, xa, y], 0, sx, dx)
            difference_rows(field[:, x, yb], field[:, x, ya], 1, sy, dy)
            for d in range(3):
                row, o = field[d, x, y], dz[d]
                one = np.float32(1) if d == 2 else np.float32(0)
                for z in range(1, nz - 1):
                    o[z] = half * (row[z + 1] - row[z - 1]) + one
                o[0] = row[min(1, nz - 1)] - row[0] + one
                o[nz - 1] = row[nz - 1] - row[max(nz - 2, 0)] + one
            determinant_row(dx, dy, dz, out[x, y])


@helper
def lower_to(row, lowest, volume, sign):
    """Fold a row of determinants (times sign) into the smallest one and into the folded volume of each cell."""
    zero = np.float32(0)
    for z in range(lowest.shape[0]):
        value = sign * row[z]
        lowest[z] = min(lowest[z], value)
        volume[z] -= min(value, zero)


@kernel
def digital(field, lowest, partial, start, stop):
    """lowest (X−1, Y−1, Z−1) = smallest of the ten determinants of each cell; partial (X, 2): cells ≤ 0, and
    Σ −min(J, 0)/12 (the volume of the non-diffeomorphic part)."""
    _, _, ny, nz = field.shape
    cells = nz - 1
    x_edges = np.empty((2, 2, 3, cells), np.float32)
    y_edges = np.empty((2, 2, 3, cells), np.float32)
    z_edges = np.empty((2, 2, 3, cells), np.float32)
    one = np.float32(1)
    row = np.empty(cells, np.float32)
    volume = np.empty(cells, np.float32)
    a = np.empty((3, cells), np.float32)
    b = np.empty((3, cells), np.float32)
    c = np.empty((3, cells), np.float32)
    for x in range(start, stop):
        count = 0
        total = 0.0
        for y in range(ny - 1):
            for j in range(2):
                for k in range(2):
                    x_high, x_low = field[:, x + 1, y + j, k:], field[:, x, y + j, k:]
                    difference_rows(x_high, x_low, 0, one, x_edges[j, k])
                    y_high, y_low = field[:, x + j, y + 1, k:], field[:, x + j, y, k:]
                    difference_rows(y_high, y_low, 1, one, y_edges[j, k])
                    z_row = field[:, x + j, y + k]
                    difference_rows(z_row[:, 1:], z_row, 2, one, z_edges[j, k])
            low = lowest[x, y]
            low[:] = np.float32(np.inf)
            volume[:] = np.float32(0)
            for i in range(2):
                for j in range(2):
                    for k in range(2):
                        determinant_row(x_edges[j, k], y_edges[i, k], z_edges[i, j], row)
                        lower_to(row, low, volume, one)
            # Corners 000, 110, 101, 011, and their mirror image: -det and det of the edges from 000 and from 111.
            for d in range(3):
                a[d] = x_edges[0, 0, d] + y_edges[1, 0, d]
                b[d] = x_edges[0, 0, d] + z_edges[1, 0, d]
                c[d] = y_edges[0, 0, d] + z_edges[0, 1, d]
            determinant_row(a, b, c, row)
            lower_to(row, low, volume, -one)
            for d in range(3):
                a[d] = x_edges[1, 1, d] + y_edges[0, 1, d]
                b[d] = x_edges[1, 1, d] + z_edges[0, 1, d]
                c[d] = y_edges[1, 1, d] + z_edges[1, 0, d]
            determinant_row(a, b, c, row)
            lower_to(row, low, volume, -one)
            for z in range(cells):
                if low[z] <= np.float32(0):
                    count += 1
                total += volume[z]
        partial[x, 0] = count
        partial[x, 1] = total / 12.0
