"""Arrays that kernels may be given: their shapes, and the check that stands between callers and unchecked loops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError

Array = NDArray[np.float32]
Triple = tuple[int, int, int]

# Kernels take an empty array where there is no weight.
NONE3 = np.empty((0, 0, 0), np.float32)
NONE4 = np.empty((1, 0, 0, 0), np.float32)


def check(name: str, array: NDArray[Any], shape: Sequence[int] | None = None, *, axes: int = 4) -> Array:
    """`array` as contiguous float32, or an error that names it."""
    if array.ndim != axes or (shape is not None and array.shape != tuple(shape)):
        raise InputError(f"{name}: shape {array.shape}, expected {tuple(shape) if shape else f'{axes} axes'}.")
    return np.ascontiguousarray(array, np.float32)


def coarse_shape(shape: Sequence[int], factors: Sequence[int]) -> Triple:
    """Nodes of a field that spans `shape` voxels with one node every `factors` voxels."""
    x, y, z = (-(-(n - 1) // f) + 1 for n, f in zip(shape, factors, strict=True))
    return x, y, z
