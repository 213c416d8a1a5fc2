"""From voxels back to the world: transforms in mm, certified, and the warped image."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops import kernels
from warpwise.pair import Pair, Triple
from warpwise.registrars.base import Solution
from warpwise.registration.certificate import Certificate, certify
from warpwise.registration.prepare import Prepared
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.velocity import VelocityField


class Clock:
    """Seconds of each stage since the last lap."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._since, 4)
        self._since = now


def deliver(
    images: tuple[Image, Image],
    ready: Prepared,
    pair: Pair,
    solution: Solution | None,
    clock: Clock,
    *,
    initial: Transform | None,
) -> dict[str, Any]:
    """Transforms in mm, certified, and the warped image."""
    fixed, moving = images
    dim = fixed.grid.dim
    keep = [*range(dim), 3]
    matrix = pair.moving_grid.affine @ pair.to_moving @ pair.grid.inverse_affine
    linear = Affine(matrix[np.ix_(keep, keep)])
    after: tuple[Transform, ...] = (linear,) if initial is None else (linear, initial)
    if solution is None:
        transform: Transform = linear if initial is None else Composite(after)
        inverse = on_grid = transform.inverse()
        certificate, velocity = Certificate(), None
    else:
        x, y, z = pair.grid.shape
        sound = certify(solution.field, (1, 1, 1), (x, y, z))
        certificate = sound.certificate
        forward = on_image(in_mm(sound.field, pair.grid), ready.factors, fixed.grid)
        inverse_grid = pair.grid.cropped(sound.start, sound.inverse.shape[1:])
        backward = in_plane(in_mm(sound.inverse, pair.grid), inverse_grid, fixed.grid.dim)
        transform = Composite((forward, *after))
        inverse = transform.inverse()
        undo = tuple(part.inverse() for part in reversed(after))
        on_grid = Composite((*undo, backward))
        velocity = None
        if solution.velocity is not None:
            v = on_image(in_mm(solution.velocity, pair.grid), ready.factors, fixed.grid)
            velocity = VelocityField(v.vectors, v.grid)
    clock.lap("inverse and certificate")
    displacement = transform.displacement(fixed.grid)
    warped = resample(moving, fixed.grid, transform, displacement=displacement)
    clock.lap("resampling")
    return {
        "transform": transform,
        "inverse": inverse,
        "inverse_on_grid": on_grid,
        "warped": warped,
        "displacement_mm": displacement,
        "affine_only": linear.matrix,
        "certificate": certificate,
        "velocity": velocity,
        "uncertainty": on_fixed("uncertainty", None if solution is None else solution.uncertainty, pair.grid, fixed.grid),
        "feature_uncertainty": on_fixed(
            "feature uncertainty", None if solution is None else solution.feature_uncertainty, pair.grid, fixed.grid
        ),
    }


def on_fixed(name: str, values: NDArray[np.float32] | None, voxels: Grid, grid: Grid) -> Image | None:
    """A map (X, Y, Z) on the solvers' voxels as an image on the fixed grid; None where there is none."""
    if values is None:
        return None
    three = grid.dim == 3
    image = Image(values[None] if three else values[None, :, 0], voxels if three else voxels.flat(), name=name)
    return resample(image, grid, Affine(np.eye(grid.dim + 1)))


def in_mm(field: NDArray[np.float32], voxels: Grid) -> NDArray[np.float32]:
    """A field in voxels of a 3-D grid as world mm."""
    return kernels.map_vectors(field, voxels.affine[:3, :3])


def in_plane(mm: NDArray[np.float32], nodes: Grid, dim: int) -> DisplacementField:
    """A displacement on a 3-D grid in as many dimensions as its image has."""
    if dim == 3:
        return DisplacementField(mm, nodes)
    return DisplacementField(np.ascontiguousarray(mm[:2, :, 0]), nodes.flat())


def on_image(mm: NDArray[np.float32], factors: Triple, grid: Grid) -> DisplacementField:
    """A displacement on the solvers' voxels, upright and perhaps thinned out, on those of the image as it is stored."""
    order, turned = grid.towards_ras()
    upright = tuple(grid.shape[axis] for axis in order)
    shape = upright if grid.dim == 3 else (upright[0], 1, upright[1])
    if factors != (1, 1, 1):
        wanted = kernels.coarse_shape(shape, factors)
        missing = [max(w - n, 0) for w, n in zip(wanted, mm.shape[1:], strict=True)]
        mm = np.pad(mm, [(0, 0), *[(0, m) for m in missing]], mode="edge")
        mm = kernels.upsample(np.ascontiguousarray(mm), shape, factors)
    vectors = mm if grid.dim == 3 else mm[:2, :, 0]
    vectors = vectors[(slice(None), *[slice(None, None, -1 if back else 1) for back in turned])]
    vectors = vectors.transpose(0, *[order.index(axis) + 1 for axis in range(grid.dim)])
    return DisplacementField(np.ascontiguousarray(vectors), grid)
