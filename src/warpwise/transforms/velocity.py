"""Stationary velocity fields."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.ops import kernels
from warpwise.shapes import Points, VectorField
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField, vectors_on_nodes


def exponential(velocity: VectorField, *, squarings: int = 7) -> VectorField:
    """Displacement (3, X, Y, Z) of exp(v), voxels, by scaling and squaring (Arsigny et al., MICCAI 2006)."""
    out = velocity * np.float32(0.5**squarings)
    spare = np.empty_like(out)
    for _ in range(squarings):
        kernels.compose(out, out, out=spare)
        out, spare = spare, out
    return out


def logarithm(displacement: VectorField, *, iterations: int = 8) -> VectorField:
    """A velocity (3, X, Y, Z) whose exponential comes near a displacement, voxels; not every deformation has one.

    v ← v + smooth(exp(−v)∘φ − id), the first terms of the Baker-Campbell-Hausdorff series (Bossa et al., MICCAI 2007).
    The Gaussian keeps what no velocity explains from piling up.
    """
    v = displacement.astype(np.float32, copy=True)
    sigma = [0.7 if n > 1 else 0.0 for n in v.shape[1:]]
    for _ in range(iterations):
        left = kernels.compose(exponential(-v), displacement)
        v += kernels.gaussian(left, sigma)
    return v


@dataclass(frozen=True, eq=False)
class VelocityField(Transform):
    """x ↦ exp(v)(x); v (dim, *space) in mm along world axes. The inverse is exp(−v).

    Raises:
        InputError: velocity and grid do not agree.
    """

    velocity: NDArray[np.floating]
    grid: Grid
    squarings: int = 7

    def __post_init__(self) -> None:
        if self.velocity.shape != (self.grid.dim, *self.grid.shape):
            raise InputError(f"A velocity of shape {self.velocity.shape} does not fit a grid of {self.grid.shape}.")

    def __repr__(self) -> str:
        return f"VelocityField({vectors_on_nodes(self.velocity, self.grid)}, {self.squarings} squarings)"

    @property
    def dim(self) -> int:
        return self.grid.dim

    @cached_property
    def field(self) -> DisplacementField:
        """exp(v) as a displacement field on the same grid."""
        affine = self.grid.embedded().affine[:3, :3]
        v = np.zeros((3, *self.grid.embedded().shape), np.float32)
        v[: self.dim] = self.velocity.reshape(self.dim, *v.shape[1:])
        u = exponential(kernels.map_vectors(v, np.linalg.inv(affine)), squarings=self.squarings)
        mm = kernels.map_vectors(u, affine)
        return DisplacementField(mm[: self.dim].reshape(self.velocity.shape), self.grid)

    def points(self, xyz_mm: Points) -> Points:
        return self.field.points(xyz_mm)

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        return self.field.displacement(grid)

    def inverse(self) -> "VelocityField":
        return VelocityField(-self.velocity, self.grid, self.squarings)
