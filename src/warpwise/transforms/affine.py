"""Affine transforms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.transforms.base import Points, Transform


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """x ↦ A·x + t, as one matrix (dim+1, dim+1), mm RAS+.

    Raises:
        InputError: the matrix is not square, not finite or singular.

    Example:
        >>> Affine(np.diag([2.0, 1.0, 1.0, 1.0])).points(np.array([[1.0, 2.0, 3.0]]))
        array([[2., 2., 3.]])
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
            raise InputError(f"An affine needs a finite 3×3 or 4×4 matrix; got shape {matrix.shape}.")
        if abs(float(np.linalg.det(matrix))) < 1e-9:
            raise InputError("The affine is singular: it flattens space.", hint="Check the transform file.")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def dim(self) -> int:
        return len(self.matrix) - 1

    def points(self, xyz_mm: Points) -> Points:
        return xyz_mm @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        motion = (self.matrix - np.eye(self.dim + 1)) @ grid.affine
        out = np.empty((self.dim, *grid.shape), np.float32)
        for d in range(self.dim):
            rows = [motion[d, axis] * np.arange(n) for axis, n in enumerate(grid.shape)]
            rows[0] += motion[d, -1]
            # Sums of two axes in float64; the last is added in float32, good to 1e-5 mm at 200 mm.
            first = rows[0] if self.dim == 2 else np.add.outer(rows[0], rows[1])
            np.add.outer(first.astype(np.float32), rows[-1].astype(np.float32), out=out[d])
        return out

    def inverse(self) -> "Affine":
        return Affine(np.linalg.inv(self.matrix).astype(np.float64))
