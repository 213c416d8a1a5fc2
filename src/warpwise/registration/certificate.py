"""What is measured on every result: folds by two measures, and how well forward and inverse undo each other."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from warpwise.errors import RunError
from warpwise.grid import occupied
from warpwise.ops import kernels
from warpwise.registrars.deformable import fold
from warpwise.shapes import Array, Map, Triple, VectorField, VectorFieldElsewhere


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


@dataclass(frozen=True, eq=False)
class Certified:
    """A field free of folds, and its inverse on the part of the grid where either is not 0.

    Attributes:
        field: (3, x, y, z) on the nodes of the full grid.
        inverse: (3, X, Y, Z) on voxels from `start` on; 0 beyond.
    """

    field: VectorField
    inverse: VectorFieldElsewhere
    start: Triple
    certificate: Certificate


def certify(field: VectorField, factors: Triple, shape: Triple, *, limit: float = 0.1) -> Certified:
    """A repaired field, its inverse, and the certificate of both. All in voxels of the full grid.

    Besides folds, nodes are softened where forward and inverse miss each other by more than `limit`.
    """
    repaired = 0
    for attempt in range(fold.ROUNDS):
        first, start, size = support(field, factors, shape)
        part = np.ascontiguousarray(field[(slice(None), *first)])
        full = kernels.upsample(part, size, factors)
        lowest, _, volume = kernels.digital(full)
        if lowest.size and lowest.min() < fold.FLOOR:
            field, count = fold.repair(field, factors, shape)
            repaired += count
            continue
        inverse, _ = kernels.invert(full, factors=(1, 1, 1), shape=size)
        # One buffer for three fields: fresh pages cost as much as the work.
        spare, _ = kernels.invert(full, factors=(1, 1, 1), shape=size, inner=full)
        spare += full
        missed = lengths(spare)
        again = lengths(kernels.compose(full, inverse, out=spare))
        bad = np.maximum(missed, again) > limit
        if not bad.any():
            break
        # A miss shows up where the map arrives; the cause lies round there or where it comes from.
        nodes = fold.nodes_round(bad, factors, part.shape[1:]) + np.array([n.start for n in first])
        field = field.copy()
        fold.calm(field, nodes, attempt)
    else:
        raise RunError("The deformation could not be made invertible.", hint="Please report this with the two images.")
    file = lengths(kernels.compose(inverse, full, out=spare))
    folded = int((kernels.determinant(full) <= 0).sum())
    voxels = float(np.prod(shape))
    cells = max(float(np.prod([max(n - 1, 1) for n in shape])), 1.0)

    def mean(values: Array) -> float:
        return float(values.sum(dtype=np.float64)) / voxels

    certificate = Certificate(
        percent_folded=100 * folded / voxels,
        percent_ndv=100 * abs(volume) / cells,
        forward_inverse_mean=mean(missed),
        forward_inverse_max=float(missed.max()),
        inverse_forward_mean=mean(again),
        inverse_forward_max=float(again.max()),
        inverse_file_mean=mean(file),
        inverse_file_max=float(file.max()),
        repaired_cells=repaired,
    )
    return Certified(field, inverse, start, certificate)


def support(field: VectorField, factors: Triple, shape: Triple) -> tuple[tuple[slice, ...], Triple, Triple]:
    """The nodes round all that is not 0, the first voxel they span, and how many voxels: the rest of the grid rests."""
    ends = occupied(np.asarray((field != 0).any(0)))
    nodes = [slice(max(low - 2, 0), min(high + 3, n)) for (low, high), n in zip(ends, field.shape[1:], strict=True)]
    start = [n.start * f for n, f in zip(nodes, factors, strict=True)]
    size = [min((n.stop - n.start - 1) * f + 1, t - s) for n, f, t, s in zip(nodes, factors, shape, start, strict=True)]
    return tuple(nodes), (start[0], start[1], start[2]), (size[0], size[1], size[2])


def lengths(field: VectorField) -> Map:
    """Euclidean length of every vector (X, Y, Z)."""
    return np.sqrt(np.einsum("dxyz,dxyz->xyz", field, field))
