"""Comparison of feature maps."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import correlation as _correlation
from warpwise.ops.cpu.launch.arrays import Array, Triple, check
from warpwise.ops.cpu.parallel import run


def offsets(radius: Triple) -> NDArray[np.int64]:
    """Every neighbour (K, 3) within a box, the last axis running fastest."""
    return np.array([*product(*[range(-r, r + 1) for r in radius])], np.int64)


def correlate(fixed: Array, moving: Array, *, radius: Triple) -> Array:
    """Mean over channels of fixed(x)·moving(x + d), for every d in the box: (K, X, Y, Z)."""
    if fixed.shape != moving.shape:
        raise InputError(f"correlate: features of shapes {fixed.shape} and {moving.shape}.")
    fixed, moving, around = check("fixed", fixed), check("moving", moving), offsets(radius)
    out = np.empty((len(around), *fixed.shape[1:]), np.float32)
    run(_correlation.correlate, fixed.shape[1], fixed, moving, around, np.float32(1 / len(fixed)), out)
    return out


def correlate_gradient(derivative: Array, other: Array, *, radius: Triple, by_fixed: bool) -> Array:
    """Derivative of Σ derivative · correlate(fixed, moving) by fixed (`other` is moving) or by moving (it is fixed)."""
    around = offsets(radius)
    other = check("other", other)
    derivative = check("derivative", derivative, (len(around), *other.shape[1:]))
    out = np.empty_like(other)
    loop = _correlation.correlate_fixed_gradient if by_fixed else _correlation.correlate_moving_gradient
    run(loop, other.shape[1], derivative, other, around, np.float32(1 / len(other)), out)
    return out
