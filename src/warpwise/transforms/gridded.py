"""Transforms as files can hold them: affines and displacement fields."""

from functools import reduce

import numpy as np

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.displacement import DisplacementField, InverseField
from warpwise.transforms.velocity import VelocityField


def gridded(transform: Transform) -> Transform:
    """The same map with every exact inverse and every velocity replaced by displacements on the nodes of its own field.

    Linear interpolation between those nodes then misses the exact map by up to a tenth of a voxel or so.

    Raises:
        InputError: a part is of a kind that has no nodes.
    """
    if isinstance(transform, Composite):
        return Composite(tuple(gridded(part) for part in transform.parts))
    if isinstance(transform, (Affine, DisplacementField)):
        return transform
    if isinstance(transform, VelocityField):
        return transform.field
    if isinstance(transform, InverseField):
        grid = transform.forward.grid
        return DisplacementField(transform.displacement(grid), grid)
    raise InputError(f"A {type(transform).__name__} cannot be written to a file.", hint="Write its displacement field.")


def dense(transform: Transform, grid: Grid) -> DisplacementField:
    """The whole map as one displacement field on a grid."""
    return DisplacementField(transform.displacement(grid), grid)


def only_affine(transform: Transform) -> Affine:
    """The one matrix of a chain of affines.

    Raises:
        InputError: the transform also deforms.
    """
    parts = transform.parts if isinstance(transform, Composite) else (transform,)
    matrices = [part.matrix for part in parts if isinstance(part, Affine)]
    if len(matrices) != len(parts):
        raise InputError("This format holds a matrix; the transform also deforms.", hint="Choose a format for fields.")
    return Affine(reduce(lambda first, later: later @ first, matrices))


def split(transform: Transform, grid: Grid) -> tuple[DisplacementField, Affine]:
    """A field, and the affine that follows it: the form of most programs, (fixed) → field → affine → (moving).

    A chain of any other form becomes one field on `grid`, followed by no motion.
    """
    parts = transform.parts if isinstance(transform, Composite) else (transform,)
    deforming = [n for n, part in enumerate(parts) if not isinstance(part, Affine)]
    if not deforming:
        return DisplacementField(np.zeros((grid.dim, *grid.shape), np.float32), grid), only_affine(transform)
    if deforming == [0] and len(parts) > 1:
        return dense(parts[0], grid), only_affine(Composite(parts[1:]))
    return dense(transform, grid), Affine(np.eye(transform.dim + 1))
