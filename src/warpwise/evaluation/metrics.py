"""Dice, HD95 and Jacobian statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops import kernels
from warpwise.resampling import resample
from warpwise.transforms.base import Transform


@dataclass(frozen=True)
class Regularity:
    """How a transform deforms: spread of log det J inside a mask, and folds over the whole grid by two measures."""

    sd_log_jacobian: float
    percent_folded: float
    percent_ndv: float


@dataclass(frozen=True)
class Evaluation:
    """Dice and HD95 (mm) of every label but 0, and the transform's regularity where one was given."""

    dice: dict[int, float]
    hd95_mm: dict[int, float]
    regularity: Regularity | None = None

    @property
    def mean_dice(self) -> float:
        """Mean over labels; NaN without any."""
        return float(np.mean([*self.dice.values()])) if self.dice else float("nan")

    @property
    def mean_hd95_mm(self) -> float:
        """Mean over the labels that both images hold; NaN without any."""
        finite = [v for v in self.hd95_mm.values() if np.isfinite(v)]
        return float(np.mean(finite)) if finite else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a distance that is not defined is null."""
        return {
            "mean_dice": self.mean_dice,
            "mean_hd95_mm": self.mean_hd95_mm if np.isfinite(self.mean_hd95_mm) else None,
            **(vars(self.regularity) if self.regularity else {}),
            "dice": {str(k): v for k, v in self.dice.items()},
            "hd95_mm": {str(k): v if np.isfinite(v) else None for k, v in self.hd95_mm.items()},
        }


def dice(fixed: NDArray[Any], warped: NDArray[Any], *, labels: Sequence[int] | None = None) -> dict[int, float]:
    """2·|A ∩ B| / (|A| + |B|) of each label; by default all that occur in either map, but 0.

    Example:
        >>> dice(np.array([1, 1, 2]), np.array([1, 2, 2]))
        {1: 0.6666666666666666, 2: 0.6666666666666666}
    """
    values_a, counts_a = np.unique(fixed, return_counts=True)
    values_b, counts_b = np.unique(warped, return_counts=True)
    values_c, counts_c = np.unique(fixed[fixed == warped], return_counts=True)
    a, b, c = (
        dict(zip(v.tolist(), n.tolist(), strict=True))
        for v, n in ((values_a, counts_a), (values_b, counts_b), (values_c, counts_c))
    )
    wanted = sorted({*a, *b} - {0}) if labels is None else list(labels)
    return {int(k): 2 * c.get(k, 0) / max(a.get(k, 0) + b.get(k, 0), 1) for k in wanted}


def shared_labels(fixed: NDArray[Any], moving: NDArray[Any], wanted: Sequence[int] = ()) -> list[int]:
    """Labels but 0 that both maps hold, of those wanted where any are named.

    Example:
        >>> shared_labels(np.array([0, 1, 2]), np.array([0, 2, 3]))
        [2]
    """
    both = np.intersect1d(np.unique(fixed), np.unique(moving)).tolist()
    return [int(k) for k in (wanted or both) if k and k in both]


def label_overlap(fixed: Image, moving: Image, transform: Transform, *, labels: Sequence[int] = ()) -> dict[int, float]:
    """Dice after a registration, by the one protocol of this package.

    The moving map is brought onto the fixed one's grid once, from its native voxels, nearest neighbour, through the
    whole transform; labels count that both native maps hold (of those given, where any are).

    Args:
        fixed, moving: label maps.
        transform: fixed mm → moving mm.
        labels: over which overlap is measured.
    """
    warped = resample(moving, fixed.grid, transform, interpolation="nearest")
    wanted = shared_labels(fixed.data, moving.data, labels)
    return dice(fixed.data[0], warped.data[0], labels=wanted)


def hd95(fixed: NDArray[np.bool_], warped: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """95th percentile of the distance between two surfaces, mm: the larger of both directions; NaN if one is empty."""
    either = fixed | warped
    if not fixed.any() or not warped.any():
        return float("nan")
    box = tuple(slice(max(int(at.min()) - 1, 0), int(at.max()) + 2) for at in np.nonzero(either))
    a, b = (np.pad(mask[box], 1) for mask in (fixed, warped))
    edge_a, edge_b = (mask & ~np.asarray(ndimage.binary_erosion(mask), np.bool_) for mask in (a, b))
    to_b = np.asarray(ndimage.distance_transform_edt(~edge_b, sampling=spacing_mm))[edge_a]
    to_a = np.asarray(ndimage.distance_transform_edt(~edge_a, sampling=spacing_mm))[edge_b]
    return float(max(np.percentile(to_b, 95), np.percentile(to_a, 95)))


def target_errors(transform: Transform, fixed: NDArray[np.float64], moving: NDArray[np.float64]) -> NDArray[np.float64]:
    """Target registration error of each point: |transform(fixed) − moving|, mm.

    Args:
        transform: fixed mm → moving mm.
        fixed, moving: corresponding points (n, dim), mm RAS+.

    Raises:
        InputError: their shapes or dimensions differ.
    """
    if fixed.shape != moving.shape or fixed.ndim != 2 or fixed.shape[1] != transform.dim:
        raise InputError(f"Landmarks of shape {fixed.shape} and {moving.shape} for a {transform.dim}-D transform.")
    return np.linalg.norm(transform.points(fixed) - moving, axis=1)


def jacobian_map(transform: Transform, grid: Grid, *, log: bool = False) -> NDArray[np.float32]:
    """Determinant of the Jacobian (central differences) at every voxel of a grid; its logarithm from 1e-6 up if wanted.

    Where it is above 1 the moving image is larger than the fixed one.
    """
    values = kernels.determinant(_in_voxels(transform, grid)).reshape(grid.shape)
    return np.log(np.maximum(values, np.float32(1e-6))) if log else values


def _in_voxels(transform: Transform, grid: Grid) -> NDArray[np.float32]:
    full = grid.embedded()
    field = np.zeros((3, *full.shape), np.float32)
    field[: grid.dim] = transform.displacement(grid).reshape(grid.dim, *full.shape)
    return kernels.map_vectors(field, full.inverse_affine[:3, :3])


def percent_ndv(field: NDArray[np.float32]) -> float:
    """Non-diffeomorphic volume of a displacement (3, X, Y, Z) in voxels, % of that of its cells."""
    cells = max(float(np.prod([max(n - 1, 1) for n in field.shape[1:]])), 1.0)
    return 100 * abs(float(kernels.digital(field)[2])) / cells


def regularity(transform: Transform, grid: Grid, mask: NDArray[np.bool_] | None = None) -> Regularity:
    """Jacobian statistics of a transform at the voxels of a grid; the spread is that inside the mask."""
    full = grid.embedded()
    field = _in_voxels(transform, grid)
    determinant = kernels.determinant(field)
    inside = determinant if mask is None else determinant[mask.reshape(full.shape)]
    return Regularity(
        float(np.log(np.maximum(inside, 1e-9)).std(dtype=np.float64)),
        100 * float((determinant <= 0).mean()),
        percent_ndv(field),
    )


def evaluate(
    fixed_labels: Image, warped_labels: Image, *, transform: Transform | None = None, mask: Image | None = None
) -> Evaluation:
    """Compare two label maps on one grid, inside a mask where one is given.

    Raises:
        InputError: the grids differ, or a label map holds nothing but 0.
    """
    grid = fixed_labels.grid
    for other in (warped_labels, *([mask] if mask else [])):
        if not grid.same_as(other.grid):
            raise InputError(
                f"{other.name} lies on another grid ({other.grid.shape}) than {fixed_labels.name} ({grid.shape}).",
                hint="Bring it there with: warpwise apply TRANSFORM LABELS --like FIXED --interpolation label",
            )
    a, b = fixed_labels.data[0], warped_labels.data[0]
    inside = None if mask is None else mask.data[0] > 0
    if inside is not None:
        a, b = np.where(inside, a, 0), np.where(inside, b, 0)
    scores = dice(a, b)
    if not scores:
        raise InputError(f"{fixed_labels.name} and {warped_labels.name} hold no label but 0.")
    distances = {label: hd95(a == label, b == label, grid.spacing_mm) for label in scores}
    region = a > 0 if inside is None else inside
    return Evaluation(scores, distances, None if transform is None else regularity(transform, grid, region))
