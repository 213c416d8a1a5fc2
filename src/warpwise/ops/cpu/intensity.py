"""Pointwise similarities: squared difference and global correlation. Sums by row in float32, over rows in float64."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel


@helper
def moment_row(f, w, g, out):
    s0 = s1 = s2 = s3 = s4 = s5 = np.float32(0)
    for z in range(f.shape[0]):
        gf = g[z] * f[z]
        gw = g[z] * w[z]
        s0 += g[z]
        s1 += gf
        s2 += gw
        s3 += gf * f[z]
        s4 += gw * w[z]
        s5 += gf * w[z]
    out[0] += s0
    out[1] += s1
    out[2] += s2
    out[3] += s3
    out[4] += s4
    out[5] += s5


@kernel
def moments(fixed, warped, weight, partial, start, stop):
    """partial (N, X, 6) = weighted sums over slab x of 1, f, w, f², w², fw; weight (N or 1, X, Y, Z) or empty."""
    number, _, ny, nz = fixed.shape
    given = weight.shape[1] > 0
    ones = np.ones(nz, np.float32)
    for n in range(number):
        for x in range(start, stop):
            partial[n, x] = 0.0
            for y in range(ny):
                if given:
                    moment_row(fixed[n, x, y], warped[n, x, y], weight[n % weight.shape[0], x, y], partial[n, x])
                else:
                    moment_row(fixed[n, x, y], warped[n, x, y], ones, partial[n, x])


@helper
def difference_row(f, w, g, scale, out):
    total = np.float32(0)
    for z in range(f.shape[0]):
        d = w[z] - f[z]
        t = g[z] * d
        total += t * d
        out[z] = scale * t
    return total


@kernel
def squared_difference(fixed, warped, weight, scale, gradient, partial, start, stop):
    """gradient = scale[n]·weight·(w − f); partial (N, X) = Σ weight·(w − f)²."""
    number, _, ny, nz = fixed.shape
    given = weight.shape[1] > 0
    ones = np.ones(nz, np.float32)
    for n in range(number):
        for x in range(start, stop):
            total = 0.0
            for y in range(ny):
                f, w, t = fixed[n, x, y], warped[n, x, y], gradient[n, x, y]
                if given:
                    total += difference_row(f, w, weight[n % weight.shape[0], x, y], scale[n], t)
                else:
                    total += difference_row(f, w, ones, scale[n], t)
            partial[n, x] = total


@helper
def blend_row(f, w, g, a, b, c, out):
    for z in range(f.shape[0]):
        out[z] = g[z] * (a * f[z] + b * w[z] + c)


@kernel
def blend(fixed, warped, weight, coefficients, out, start, stop):
    """out = weight·(a·f + b·w + c), coefficients (N, 3): the gradient of a function of the moments."""
    number, _, ny, nz = fixed.shape
    given = weight.shape[1] > 0
    ones = np.ones(nz, np.float32)
    for n in range(number):
        a, b, c = coefficients[n, 0], coefficients[n, 1], coefficients[n, 2]
        for x in range(start, stop):
            for y in range(ny):
                f, w, t = fixed[n, x, y], warped[n, x, y], out[n, x, y]
                if given:
                    blend_row(f, w, weight[n % weight.shape[0], x, y], a, b, c, t)
                else:
                    blend_row(f, w, ones, a, b, c, t)
