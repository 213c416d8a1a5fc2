"""Comparison of feature maps."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import cost_volume as _cost_volume
from warpwise.ops.cpu.launch.arrays import Array, Triple, check
from warpwise.ops.cpu.parallel import run


def padded(features: Array, radius: Triple) -> tuple[Array, int]:
    """(N, X, Y, Z) with zeros all round as (N, planes, places), and how many places a row of a plane takes."""
    wide = np.pad(features, [(0, 0), *[(r, r) for r in radius]])
    return wide.reshape(*wide.shape[:2], -1), wide.shape[3]


def shifts(radius: Triple, width: int, *, sign: int = 1) -> NDArray[np.int64]:
    """Every neighbour within a box (K, 2), the last axis running fastest: planes, and places within a plane."""
    around = product(*[range(-r, r + 1) for r in radius])
    return np.array([(sign * x, sign * (y * width + z)) for x, y, z in around], np.int64)


def cost_volume(fixed: Array, moving: Array, *, radius: Triple) -> Array:
    """Mean over channels of fixed(x)·moving(x + d), for every d in the box: (K, X, Y, Z)."""
    if fixed.shape != moving.shape:
        raise InputError(f"cost_volume: features of shapes {fixed.shape} and {moving.shape}.")
    channels, x, y, z = check("fixed", fixed).shape
    (a, width), (b, _) = padded(fixed, radius), padded(moving, radius)
    around = shifts(radius, width)
    out = np.empty((len(around), x, y, z), np.float32)
    run(_cost_volume.cost_volume, x, a, b, around, np.array(radius), width, np.float32(1 / channels), out)
    return out


def cost_volume_gradient(derivative: Array, other: Array, *, radius: Triple, by_fixed: bool) -> Array:
    """Derivative of Σ derivative · cost_volume(fixed, moving) by fixed (`other` is moving) or by moving (it is fixed)."""
    other = check("other", other)
    (b, width), scale = padded(other, radius), np.float32(1 / len(other))
    around = shifts(radius, width, sign=1 if by_fixed else -1)
    a, _ = padded(check("derivative", derivative, (len(around), *other.shape[1:])), radius)
    out = np.empty_like(other)
    run(
        _cost_volume.cost_volume_gradient, out.shape[1], a, b, around, not by_fixed, np.array(radius), width, scale, out
    )  # fmt: skip
    return out
