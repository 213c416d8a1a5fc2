"""Displacement fields, and their exact inverses, evaluated where they are asked for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.ops import kernels
from warpwise.shapes import Points
from warpwise.transforms.base import Transform


def interpolated(vectors: NDArray[np.floating], index: Points) -> Points:
    """Vectors (dim, *space) at points (n, dim) in voxels, linear between nodes, the border's values beyond."""
    last = np.array(vectors.shape[1:]) - 1
    at = np.clip(index, 0, last)
    base = np.minimum(at.astype(np.int64), np.maximum(last - 1, 0))
    t = at - base
    total = np.zeros_like(at)
    for corner in np.ndindex(*[2] * len(last)):
        where = np.minimum(base + corner, last)
        weight = np.prod(np.where(np.array(corner) == 1, t, 1 - t), axis=1)
        total += weight[:, None] * vectors[(slice(None), *where.T)].T
    return total


def vectors_on_nodes(vectors: NDArray[np.floating], grid: Grid) -> str:
    """What a repr says of vectors (dim, *space) in mm."""
    longest = float(np.sqrt(np.einsum("d...,d...->...", vectors, vectors).max()))
    return f"{grid.dim}-D, {grid.described().replace('voxels', 'nodes')}, up to {longest:.3g} mm"


@dataclass(frozen=True, eq=False)
class DisplacementField(Transform):
    """x ↦ x + u(x); u (dim, *space) in mm along world axes, linear between nodes, 0 outside the grid.

    Attributes:
        vectors: float32 or float64.
        grid: where the nodes are.

    Raises:
        InputError: vectors and grid do not agree, or vectors are not finite.
    """

    vectors: NDArray[np.floating]
    grid: Grid

    def __post_init__(self) -> None:
        if self.vectors.shape != (self.grid.dim, *self.grid.shape):
            raise InputError(f"A field of shape {self.vectors.shape} does not fit a grid of {self.grid.shape}.")
        if not np.isfinite(self.vectors).all():
            raise InputError("The displacement field holds values that are not finite.")

    def __repr__(self) -> str:
        return f"DisplacementField({vectors_on_nodes(self.vectors, self.grid)})"

    @property
    def dim(self) -> int:
        return self.grid.dim

    def points(self, xyz_mm: Points) -> Points:
        back = self.grid.inverse_affine
        index = xyz_mm @ back[:-1, :-1].T + back[:-1, -1]
        last = np.array(self.grid.shape, np.float64) - 1
        inside = ((index >= -1e-6) & (index <= last + 1e-6)).all(1)
        return xyz_mm + interpolated(self.vectors, index) * np.reshape(inside, (-1, 1))

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        # The usual case, nodes on voxels of the wanted grid, costs a linear upsampling and no positions.
        factors = self._node_factors(grid)
        if factors is None:
            return super().displacement(grid)
        vectors = self.vectors if self.dim == 3 else self.vectors[:, :, None]
        shape = grid.embedded().shape
        out = kernels.upsample(np.ascontiguousarray(vectors, np.float32), shape, factors)
        return out.reshape(self.dim, *grid.shape)

    def _node_factors(self, grid: Grid) -> tuple[int, int, int] | None:
        """Voxels of `grid` a node, where this field's nodes are that grid's voxels 0, f, 2f, … to the end."""
        steps = np.array(self.grid.spacing_mm) / np.array(grid.spacing_mm)
        whole = tuple(max(1, int(s)) for s in np.rint(steps))
        if not self.grid.same_as(grid.nodes(whole)):
            return None
        return (whole[0], whole[1], whole[2]) if self.dim == 3 else (whole[0], 1, whole[1])

    def inverse(self) -> Transform:
        return InverseField(self)


@dataclass(frozen=True, eq=False)
class InverseField(Transform):
    """x ↦ (id + u)⁻¹(x) by Newton steps on the field's own linear interpolation.

    A field of inverse displacements on voxels would be interpolated linearly too, which misses the true inverse by
    about a tenth of a voxel where a deformation is strong; this one is as exact as the tolerance (1e-4 voxel).
    """

    forward: DisplacementField

    def __repr__(self) -> str:
        return f"InverseField({self.forward!r})"

    @property
    def dim(self) -> int:
        return self.forward.dim

    def inverse(self) -> DisplacementField:
        return self.forward

    def points(self, xyz_mm: Points) -> Points:
        grid = self.forward.grid.embedded()
        at = np.zeros((len(xyz_mm), 3))
        at[:, : self.dim] = xyz_mm
        index = (at - grid.affine[:3, 3]) @ grid.inverse_affine[:3, :3].T
        # The points themselves are the displacement of a row of voxels at 0.
        row = np.ascontiguousarray(index.T, np.float32).reshape(3, 1, 1, -1)
        row[2] -= np.arange(len(xyz_mm), dtype=np.float32)
        w, _ = kernels.invert(self._nodes(), factors=(1, 1, 1), shape=(1, 1, len(xyz_mm)), inner=row)
        moved = w.reshape(3, -1).T.astype(np.float64) @ grid.affine[:3, :3].T
        return xyz_mm + moved[:, : self.dim]

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        wanted, mine = grid.embedded(), self.forward.grid.embedded()
        matrix = mine.inverse_affine @ wanted.affine
        x, y, z = wanted.shape
        w, _ = kernels.invert(self._nodes(), factors=(1, 1, 1), shape=(x, y, z), matrix=matrix)
        mm = kernels.map_vectors(w, mine.affine[:3, :3])
        return mm[: self.dim].reshape(self.dim, *grid.shape)

    def _nodes(self) -> NDArray[np.float32]:
        """The forward field in voxels of its own grid, (3, X, Y, Z)."""
        grid = self.forward.grid.embedded()
        vectors = np.zeros((3, *grid.shape), np.float32)
        vectors[: self.dim] = self.forward.vectors.reshape(self.dim, *grid.shape)
        return kernels.map_vectors(vectors, grid.inverse_affine[:3, :3])
