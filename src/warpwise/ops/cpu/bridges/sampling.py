"""Images where a displacement points."""

from collections.abc import Sequence

import numpy as np

from warpwise.ops.cpu import launch
from warpwise.ops.cpu.bridges.arrays import components, nowhere, unsound, vectors, volumes
from warpwise.ops.cpu.launch.arrays import Array


class Warp:
    """Linear, nearest or cubic warp; `backward` is of the linear one."""

    @staticmethod
    def forward(image: Array, displacement: Array, *, interpolation: str) -> tuple[Array, None]:
        space = displacement.shape[2:]
        if unsound(displacement):
            return nowhere(*image.shape[:2], *space), None
        images, fields = volumes(image), vectors(displacement)
        out = np.empty((*image.shape[:2], *fields.shape[2:]), np.float32)
        for moving, field, warped in zip(images, fields, out, strict=True):
            if interpolation == "linear":
                launch.warp(moving, field, np.eye(4), out=warped)
            else:
                warped[:] = launch.resample(moving, clamped(field, moving.shape[1:]), np.eye(4), method=interpolation)
        return out.reshape(*image.shape[:2], *space), None

    @staticmethod
    def backward(
        image: Array, displacement: Array, *, gradient: Array, needs: Sequence[bool], **_: object
    ) -> tuple[Array | None, Array | None]:
        by_image = by_displacement = None
        if unsound(displacement):
            by_image, by_displacement = nowhere(*image.shape), nowhere(*displacement.shape)
            return by_image if needs[0] else None, by_displacement if needs[1] else None
        images, fields, derivative = volumes(image), vectors(displacement), volumes(gradient)
        if needs[0]:
            adjoint = [launch.warp_adjoint(f, d, images.shape[2:]) for f, d in zip(fields, derivative, strict=True)]
            by_image = np.stack(adjoint).reshape(image.shape)
        if needs[1]:
            slopes = [launch.warp_gradient(i, f, d) for i, f, d in zip(images, fields, derivative, strict=True)]
            by_displacement = components(np.stack(slopes), displacement.shape)
        return by_image, by_displacement


class WarpWithGradient:
    """Linear warp, and its slopes (B, C, D, *space)."""

    @staticmethod
    def forward(image: Array, displacement: Array) -> tuple[tuple[Array, Array], None]:
        leading, dim, space = image.shape[:2], displacement.shape[1], displacement.shape[2:]
        if unsound(displacement):
            return (nowhere(*leading, *space), nowhere(*leading, dim, *space)), None
        pairs = zip(volumes(image), vectors(displacement), strict=True)
        values, slopes = zip(*[launch.warp_with_gradient(i, f) for i, f in pairs], strict=True)
        every = np.concatenate(slopes)
        flat = components(every, (len(every), dim, *space))
        return (np.stack(values).reshape(*leading, *space), flat.reshape(*leading, dim, *space)), None


def clamped(field: Array, shape: Sequence[int]) -> Array:
    """A displacement (3, X, Y, Z) that never points beyond an image of this shape."""
    out = np.empty_like(field)
    for d, n in enumerate(shape):
        at = np.arange(field.shape[d + 1], dtype=np.float32).reshape([-1 if a == d else 1 for a in range(3)])
        out[d] = np.clip(field[d] + at, 0, n - 1) - at
    return out
