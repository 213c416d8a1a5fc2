"""From a smoothed force to a bounded step: its typical length, momentum, the cap, the taper at a cut border."""

import numpy as np

from warpwise.ops.cpu.parallel import helper, kernel

BINS = 4096  # of float32's upper 13 bits: sixteen bins an octave
_SHIFT = 19


@helper
def length_row(g0, g1, g2, out):
    for z in range(out.shape[0]):
        out[z] = np.sqrt(g0[z] * g0[z] + g1[z] * g1[z] + g2[z] * g2[z])


@kernel
def length_histogram(field, counts, start, stop):
    """counts (X, BINS): how often each length occurs in slab x of a field (3, X, Y, Z), by the bits of a float32."""
    ny, nz = field.shape[2], field.shape[3]
    row = np.empty(nz, np.float32)
    bits = row.view(np.uint32)
    for x in range(start, stop):
        table = counts[x]
        for y in range(ny):
            length_row(field[0, x, y], field[1, x, y], field[2, x, y], row)
            for z in range(nz):
                table[bits[z] >> np.uint32(_SHIFT)] += 1


@helper
def momentum_row(m0, m1, m2, g0, g1, g2, keep, gain, cap, taper, weight, o0, o1, o2):
    one = np.float32(1)
    for z in range(m0.shape[0]):
        a = keep * m0[z] + gain * g0[z]
        b = keep * m1[z] + gain * g1[z]
        c = keep * m2[z] + gain * g2[z]
        m0[z] = a
        m1[z] = b
        m2[z] = c
        length = np.sqrt(a * a + b * b + c * c)
        s = weight * taper[z] * min(one, cap / max(length, np.float32(1e-20)))
        o0[z] = s * a
        o1[z] = s * b
        o2[z] = s * c


@kernel
def momentum_step(force, momentum, keep, gain, cap, tx, ty, tz, out, start, stop):
    """momentum = keep·momentum + gain·force; out = momentum, at most `cap` long, times the taper tx·ty·tz."""
    ny = force.shape[2]
    for x in range(start, stop):
        for y in range(ny):
            momentum_row(
                momentum[0, x, y], momentum[1, x, y], momentum[2, x, y],
                force[0, x, y], force[1, x, y], force[2, x, y],
                keep, gain, cap, tz, tx[x] * ty[y],
                out[0, x, y], out[1, x, y], out[2, x, y],
            )  # fmt: skip
