"""Affine transforms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.shapes import Matrix, Points
from warpwise.transforms.base import Transform, displacement_of_matrix


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """x ↦ A·x + t, as one matrix (dim+1, dim+1), mm RAS+.

    Raises:
        InputError: the matrix is not square, not finite or singular.

    Example:
        >>> Affine(np.diag([2.0, 1.0, 1.0, 1.0])).points(np.array([[1.0, 2.0, 3.0]]))
        array([[2., 2., 3.]])
    """

    matrix: Matrix

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
            raise InputError(f"An affine needs a finite 3×3 or 4×4 matrix; got shape {matrix.shape}.")
        if abs(float(np.linalg.det(matrix))) < 1e-9:
            raise InputError("The affine is singular: it flattens space.", hint="Check the transform file.")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        rows = [", ".join(f"{v:.5g}" for v in row) for row in self.matrix[:-1]]
        return "Affine(" + ",\n       ".join(f"[{row}]" for row in rows) + ")"

    @property
    def dim(self) -> int:
        return len(self.matrix) - 1

    def points(self, xyz_mm: Points) -> Points:
        return xyz_mm @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        return displacement_of_matrix(self.matrix, grid)

    def as_matrix(self) -> Matrix:
        return self.matrix

    def inverse(self) -> "Affine":
        return Affine(np.linalg.inv(self.matrix).astype(np.float64))
