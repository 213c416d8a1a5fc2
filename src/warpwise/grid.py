"""Where voxels are: shape and affine, in NumPy float64. No tensors, no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.shapes import Matrix

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape (X, Y[, Z]) and the affine from voxel index to RAS+ mm ((D+1) × (D+1), D = 2 or 3).

    Raises:
        InputError: the affine is singular, not finite, or of the wrong size.

    Example:
        >>> Grid((4, 4, 2), np.diag([1.0, 1.0, 3.0, 1.0])).spacing_mm
        (1.0, 1.0, 3.0)
    """

    shape: tuple[int, ...]
    affine: Matrix

    def __post_init__(self) -> None:
        affine = np.array(self.affine, np.float64)
        size = len(self.shape) + 1
        if len(self.shape) not in (2, 3) or affine.shape != (size, size):
            raise InputError(f"A grid has 2 or 3 axes and an affine one larger; got {self.shape} and {affine.shape}.")
        if any(n < 1 for n in self.shape):
            raise InputError(f"A grid needs at least one voxel an axis; got {self.shape}.")
        if not np.isfinite(affine).all():
            raise InputError("affine holds values that are not finite.", hint="Fix the image header.")
        determinant = float(np.linalg.det(affine[:-1, :-1]))
        lengths = np.linalg.norm(affine[:-1, :-1], axis=0)
        if not lengths.all() or abs(determinant) < 1e-6 * float(np.prod(lengths)):
            raise InputError(f"affine is singular (determinant {determinant:g}).", hint="Fix the image header.")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    def __repr__(self) -> str:
        first = ", ".join(f"{v:.5g}" for v in self.affine[:-1, -1])
        return f"Grid({self.described()}, axes {self.axes}, first voxel at ({first}) mm)"

    def described(self) -> str:
        """Shape and spacing in words.

        Example:
            >>> Grid((4, 4, 2), np.diag([1.0, 1.0, 3.0, 1.0])).described()
            '4×4×2 voxels of 1×1×3 mm'
        """
        shape = "×".join(str(n) for n in self.shape)
        return f"{shape} voxels of {'×'.join(f'{s:.4g}' for s in self.spacing_mm)} mm"

    @property
    def axes(self) -> str:
        """Towards which side of the body each axis runs, as far as one letter can say.

        Example:
            >>> Grid((4, 4, 2), np.diag([-1.0, -1.0, 3.0, 1.0])).axes
            'LPS'
        """
        letters = [""] * self.dim
        for (ahead, back), axis, turned in zip(("RL", "AP", "SI"), *self.towards_ras(), strict=False):
            letters[axis] = back if turned else ahead
        return "".join(letters)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis, mm."""
        return tuple(float(n) for n in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def anisotropy(self) -> float:
        """Largest over smallest distance of voxels along axes that have several."""
        several = [s for s, n in zip(self.spacing_mm, self.shape, strict=True) if n > 1]
        return max(several) / min(several) if several else 1.0

    @property
    def diagonal_mm(self) -> float:
        """From corner to corner, as if axes were at right angles."""
        return float(np.linalg.norm([s * n for s, n in zip(self.spacing_mm, self.shape, strict=True)]))

    @property
    def inverse_affine(self) -> Matrix:
        """RAS+ mm to voxel index."""
        return np.linalg.inv(self.affine).astype(np.float64)

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> "Grid":
        """The part of `shape` voxels that begins at voxel `start`."""
        shift = np.eye(self.dim + 1)
        shift[:-1, -1] = start
        return Grid(tuple(shape), self.affine @ shift)

    def strided(self, factors: Sequence[int]) -> "Grid":
        """Every `factors`-th voxel, beginning with voxel 0: what `image[::f]` has."""
        shape = tuple(-(-n // f) for n, f in zip(self.shape, factors, strict=True))
        return Grid(shape, self.affine @ np.diag([*[float(f) for f in factors], 1.0]))

    def nodes(self, factors: Sequence[int]) -> "Grid":
        """The nodes of a field on this grid: every `factors`-th voxel, and one more where the last would fall short."""
        shape = tuple(-(-(n - 1) // f) + 1 for n, f in zip(self.shape, factors, strict=True))
        return Grid(shape, self.affine @ np.diag([*[float(f) for f in factors], 1.0]))

    def respaced(self, step: Sequence[float] | NDArray[np.float64]) -> "Grid":
        """The grid that begins at the same voxel with voxels `step` times as large, as far as its last voxel allows."""
        shape = tuple(int((n - 1) / s + 1e-6) + 1 for n, s in zip(self.shape, step, strict=True))
        return Grid(shape, self.affine @ np.diag([*step, 1.0]))

    def towards_ras(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """For each world axis, the voxel axis nearest to it, and whether that one runs the other way.

        Example:
            >>> Grid((4, 5, 6), np.array([[0, 0, 2, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])).towards_ras()
            ((2, 0, 1), (False, True, False))
        """
        cosines = self.affine[:-1, :-1] / np.array(self.spacing_mm)
        left = np.abs(cosines)
        order, turned = [0] * self.dim, [False] * self.dim
        for _ in range(self.dim):
            world, axis = np.unravel_index(int(np.argmax(left)), left.shape)
            order[int(world)], turned[int(world)] = int(axis), bool(cosines[world, axis] < 0)
            left[world, :] = left[:, axis] = -1
        return tuple(order), tuple(turned)

    def same_as(self, other: "Grid") -> bool:
        """Equal shape, and affines equal to 1e-3 voxel at every corner."""
        if self.shape != other.shape:
            return False
        drift = np.abs(self.inverse_affine @ other.affine - np.eye(self.dim + 1))
        return bool((drift @ np.array([*self.shape, 1.0])).max() < 1e-3)

    def embedded(self) -> "Grid":
        """The same grid in three dimensions: a 2-D one (X, Y) becomes a slice (X, 1, Y), 1 mm thick along world z.

        The thin axis is in the middle because loops split the first axis among threads and vectorise along the last.
        """
        if self.dim == 3:
            return self
        affine = np.eye(4)
        affine[:2, [0, 2]] = self.affine[:2, :2]
        affine[:3, 1] = 0, 0, 1
        affine[2, 2] = 0
        affine[:2, 3] = self.affine[:2, 2]
        return Grid((self.shape[0], 1, self.shape[1]), affine)

    def flat(self) -> "Grid":
        """The plane (X, Y) that a slice (X, 1, Y) stands for: what `embedded` makes of it, undone."""
        return Grid((self.shape[0], self.shape[2]), self.affine[np.ix_([0, 1, 3], [0, 2, 3])])


def occupied(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index along each axis where anything is marked; (0, 0) where nothing is.

    Example:
        >>> occupied(np.array([[0, 1, 1, 0], [0, 0, 1, 0]], bool))
        [(0, 1), (1, 2)]
    """
    out: list[tuple[int, int]] = []
    for axis, n in enumerate(mask.shape):
        used = np.flatnonzero(np.moveaxis(mask, axis, 0).reshape(n, -1).any(1))
        out.append((int(used[0]), int(used[-1])) if used.size else (0, 0))
    return out
