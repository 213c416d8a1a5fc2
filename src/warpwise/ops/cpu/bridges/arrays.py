"""Arrays as kernels like them: three axes each, batches and channels where a kernel wants them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from warpwise.ops.cpu.launch.arrays import Array

Number = TypeVar("Number", int, float)


def volumes(image: Array) -> Array:
    """(B, C, *space) as (B, C, X, Y, Z); a plane as (X, 1, Y)."""
    return image if image.ndim == 5 else image[:, :, :, None]


def vectors(field: Array) -> Array:
    """(B, D, *space) as (B, 3, X, Y, Z)."""
    if field.ndim == 5:
        return field
    return np.stack([field[:, 0], np.zeros_like(field[:, 0]), field[:, 1]], 1)[:, :, :, None]


def components(field: Array, shape: Sequence[int]) -> Array:
    """(B, 3, X, Y, Z) as (B, D, *space), the inverse of `vectors`."""
    return (field if len(shape) == 5 else field[:, [0, 2]]).reshape(shape)


def stacked(image: Array) -> Array:
    """(B, C, *space) as (B·C, X, Y, Z)."""
    v = volumes(image)
    return v.reshape(-1, *v.shape[2:])


def triple(values: Sequence[Number], fill: Number) -> tuple[Number, Number, Number]:
    """Per-axis numbers for three axes; `fill` for the axis that a plane lacks."""
    if len(values) == 3:
        return values[0], values[1], values[2]
    return values[0], fill, values[1]


def unsound(field: Array) -> bool:
    """Whether a field is not finite everywhere: such a position must not reach a kernel, which would leave its arrays."""
    return not np.isfinite(field.sum(dtype=np.float32)) and not bool(np.isfinite(field).all())


def nowhere(*shape: int) -> Array:
    """The values at positions that are not finite."""
    return np.full(shape, np.nan, np.float32)


def per_image(weight: Array | None, fixed: Array) -> Array | None:
    """Weight (B or 1, 1, *space) for each image of the stack (B·C, X, Y, Z), or one for all."""
    if weight is None:
        return None
    if len(weight) == 1:
        return stacked(weight)
    return stacked(np.ascontiguousarray(np.broadcast_to(weight, fixed.shape)))


def per_item(weight: Array | None, batch: int) -> Sequence[Array | None]:
    """Weight (1, X, Y, Z), or None, of each item of a batch."""
    return [None] * batch if weight is None else [*volumes(np.broadcast_to(weight, (batch, *weight.shape[1:])))]
