"""What is measured on every result: folds by two measures, and how well forward and inverse undo each other."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.ops.cpu import launch
from warpwise.pair import Triple
from warpwise.registrars import fold

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Certificate:
    """Folds over the whole fixed grid; forward–inverse errors in voxels of it.

    Attributes:
        percent_folded: share of voxels whose central Jacobian determinant is ≤ 0, in %.
        percent_ndv: non-diffeomorphic volume (ten determinants a cell), in % of the volume.
        forward_inverse: |φ⁻¹(φ(x)) − x| over the voxels, mean and maximum.
        inverse_forward: |φ(φ⁻¹(x)) − x| likewise.
        inverse_file: |φ⁻¹(φ(x)) − x| with the inverse as a field on voxels, as `inverse.h5` holds it for programs
            that interpolate linearly.
        repaired_cells: cells that had to be repaired at the end.
    """

    percent_folded: float = 0.0
    percent_ndv: float = 0.0
    forward_inverse_mean: float = 0.0
    forward_inverse_max: float = 0.0
    inverse_forward_mean: float = 0.0
    inverse_forward_max: float = 0.0
    inverse_file_mean: float = 0.0
    inverse_file_max: float = 0.0
    repaired_cells: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for result.json."""
        return asdict(self)


def certify(field: Array, factors: Triple, shape: Triple, *, limit: float = 0.1) -> tuple[Array, Array, Certificate]:
    """A repaired field, its inverse (3, *shape) on the full grid, and the certificate of both. All in voxels.

    Besides folds, nodes are softened where forward and inverse miss each other by more than `limit`.
    """
    repaired = 0
    for attempt in range(8):
        field, count = fold.repair(field, factors, shape)
        repaired += count
        full = launch.upsample(field, shape, factors)
        inverse, _ = launch.invert(field, factors=factors, shape=shape)
        back, _ = launch.invert(field, factors=factors, shape=shape, inner=full)
        back += full
        missed = lengths(back)
        again = lengths(launch.compose(full, inverse))
        bad = np.maximum(missed, again) > limit
        if not bad.any():
            break
        # A miss shows up where the map arrives; the cause lies round there or where it comes from.
        field = fold.soften(field, fold.nodes_of(bad, factors, field.shape[1:]), width=1.0 + 0.5 * attempt)
    file = lengths(launch.compose(inverse, full))
    _, _, volume = launch.digital(full)
    folded = int((launch.determinant(full) <= 0).sum())
    voxels = float(np.prod(shape))
    certificate = Certificate(
        100 * folded / voxels,
        100 * volume / max(float(np.prod([max(n - 1, 1) for n in shape])), 1.0),
        float(missed.mean(dtype=np.float64)),
        float(missed.max()),
        float(again.mean(dtype=np.float64)),
        float(again.max()),
        float(file.mean(dtype=np.float64)),
        float(file.max()),
        repaired,
    )
    return field, inverse, certificate


def lengths(field: Array) -> Array:
    """Euclidean length of every vector (X, Y, Z)."""
    return np.sqrt(np.einsum("dxyz,dxyz->xyz", field, field))
