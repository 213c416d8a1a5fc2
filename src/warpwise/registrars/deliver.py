"""From voxels back to the world: transforms in mm, certified, and the warped image."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops.cpu import launch
from warpwise.pair import Pair
from warpwise.registrars.base import Solution
from warpwise.registrars.certificate import Certificate, certify
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.composite import Composite
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
    images: tuple[Image, Image], pair: Pair, solution: Solution | None, initial: Transform | None, clock: Clock
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
        sound = certify(solution.field, solution.factors, (x, y, z))
        certificate = sound.certificate
        node_grid = pair.grid.coarser(solution.factors)
        forward = in_mm(sound.field, node_grid, pair.grid, fixed.grid)
        backward = in_mm(sound.inverse, pair.grid.cropped(sound.start, sound.inverse.shape[1:]), pair.grid, fixed.grid)
        transform = Composite((forward, *after))
        inverse = transform.inverse()
        undo = tuple(part.inverse() for part in reversed(after))
        on_grid = Composite((*undo, backward))
        velocity = None
        if solution.velocity is not None:
            v = in_mm(solution.velocity, node_grid, pair.grid, fixed.grid)
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
    }


def in_mm(field: NDArray[np.float32], nodes: Grid, voxels: Grid, original: Grid) -> DisplacementField:
    """A field in voxels of a 3-D grid as a displacement in world mm, in as many dimensions as the original."""
    mm = launch.map_vectors(field, voxels.affine[:3, :3])
    if original.dim == 3:
        return DisplacementField(mm, nodes)
    plane = nodes.affine[np.ix_([0, 1, 3], [0, 2, 3])]
    return DisplacementField(np.ascontiguousarray(mm[:2, :, 0]), Grid((nodes.shape[0], nodes.shape[2]), plane))
