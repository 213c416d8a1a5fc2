"""What every transform can do."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid

Points = NDArray[np.float64]


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
        from warpwise.transforms.composite import Composite  # noqa: PLC0415 - it is built of this class

        return Composite((self, later))
