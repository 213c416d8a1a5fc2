"""What every transform can do, and transforms one after the other."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.shapes import Matrix, Points

_SHOWN = 6  # parts of a chain that its repr names


class Transform(ABC):
    """An immutable map of points (mm, RAS+) from fixed to moving space."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Number of axes, 2 or 3."""

    @abstractmethod
    def points(self, xyz_mm: Points) -> Points:
        """Where points (n, dim) go."""

    @abstractmethod
    def inverse(self) -> "Transform":
        """The map back.

        Raises:
            InputError: the transform has no inverse, or none that is known.
        """

    def as_matrix(self) -> Matrix | None:
        """The matrix (dim+1, dim+1) of a map that is one, mm; None of all others."""
        return None

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        """Displacement (dim, *space), mm along world axes, at every voxel of a grid."""
        out = np.empty((grid.dim, *grid.shape), np.float32)
        affine = grid.affine
        rest = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape[1:]], indexing="ij"), -1).reshape(-1, grid.dim - 1)
        # A slab at a time: float64 points of a whole image would take eight times its memory.
        for x in range(grid.shape[0]):
            index = np.concatenate([np.full((len(rest), 1), float(x)), rest], 1)
            world = index @ affine[:-1, :-1].T + affine[:-1, -1]
            out[:, x] = (self.points(world) - world).T.reshape(grid.dim, *grid.shape[1:])
        return out

    def then(self, later: "Transform") -> "Transform":
        """x ↦ later(self(x))."""
        return Composite((self, later))


@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """Transforms applied one after the other, the first of the tuple first.

    Raises:
        InputError: there is none, or they differ in dimension.
    """

    parts: tuple[Transform, ...]

    def __post_init__(self) -> None:
        flat: list[Transform] = []
        for part in self.parts:
            flat.extend(part.parts if isinstance(part, Composite) else (part,))
        if not flat or any(part.dim != flat[0].dim for part in flat):
            raise InputError("A chain needs at least one transform, all of one dimension.")
        object.__setattr__(self, "parts", tuple(flat))

    def __repr__(self) -> str:
        names = [type(part).__name__ for part in self.parts]
        more = f" → {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"Composite({' → '.join(names[:_SHOWN])}{more}, {self.dim}-D)"

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    def points(self, xyz_mm: Points) -> Points:
        return reduce(lambda at, part: part.points(at), self.parts, xyz_mm)

    def as_matrix(self) -> Matrix | None:
        return _product(self.parts)

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        first, rest = self.parts[0], self.parts[1:]
        if not rest:
            return first.displacement(grid)
        # First a field (if any), then only matrices: u + (A − 1)(x + u), without lists of points.
        matrix = _product(rest)
        if matrix is None:
            return super().displacement(grid)
        out = displacement_of_matrix(matrix, grid)
        u = first.displacement(grid)
        for d in range(self.dim):
            for e in range(self.dim):
                out[d] += np.float32(matrix[d, e]) * u[e]
        return out

    def inverse(self) -> "Composite":
        return Composite(tuple(part.inverse() for part in reversed(self.parts)))


def displacement_of_matrix(matrix: Matrix, grid: Grid) -> NDArray[np.float32]:
    """Displacement (dim, *space), mm, of x ↦ A·x + t at every voxel of a grid, from its matrix (dim+1, dim+1)."""
    motion = (matrix - np.eye(grid.dim + 1)) @ grid.affine
    out = np.empty((grid.dim, *grid.shape), np.float32)
    for d in range(grid.dim):
        rows = [motion[d, axis] * np.arange(n) for axis, n in enumerate(grid.shape)]
        rows[0] += motion[d, -1]
        # Sums of two axes in float64; the last is added in float32, good to 1e-5 mm at 200 mm.
        first = rows[0] if grid.dim == 2 else np.add.outer(rows[0], rows[1])
        np.add.outer(first.astype(np.float32), rows[-1].astype(np.float32), out=out[d])
    return out


def _product(parts: tuple[Transform, ...]) -> Matrix | None:
    """The matrix of transforms one after the other; None where one of them is none."""
    total = np.eye(parts[0].dim + 1)
    for part in parts:
        matrix = part.as_matrix()
        if matrix is None:
            return None
        total = matrix @ total
    return total
