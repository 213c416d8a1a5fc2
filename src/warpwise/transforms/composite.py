"""Chains of transforms."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Points, Transform


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

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    def points(self, xyz_mm: Points) -> Points:
        return reduce(lambda at, part: part.points(at), self.parts, xyz_mm)

    def displacement(self, grid: Grid) -> NDArray[np.float32]:
        # First a field (if any), then only affines: u + (A − 1)(x + u), without lists of points.
        first, rest = self.parts[0], self.parts[1:]
        if not rest or not all(isinstance(part, Affine) for part in rest):
            return first.displacement(grid) if not rest else super().displacement(grid)
        matrix = reduce(
            lambda total, part: part.matrix @ total, [p for p in rest if isinstance(p, Affine)], np.eye(self.dim + 1)
        )
        out = Affine(matrix).displacement(grid)
        u = first.displacement(grid)
        for d in range(self.dim):
            for e in range(self.dim):
                out[d] += np.float32(matrix[d, e]) * u[e]
        return out

    def inverse(self) -> "Composite":
        return Composite(tuple(part.inverse() for part in reversed(self.parts)))
