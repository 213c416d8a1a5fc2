"""From voxels back to the world: transforms in mm, certified, and the warped image."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.scan import Scans
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import Solution
from warpwise.registration.certificate import Certificate, certify
from warpwise.registration.prepare import Prepared
from warpwise.resampling import resample
from warpwise.shapes import Triple
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


@dataclass(frozen=True, eq=False)
class Delivered:
    """What a registration comes to, in the world; see `Result`."""

    transform: Transform
    inverse: Transform
    inverse_on_grid: Transform
    warped: Image
    displacement_mm: NDArray[np.float32]
    affine_only: NDArray[np.float64]
    certificate: Certificate
    velocity: VelocityField | None = None
    uncertainty: Image | None = None
    feature_uncertainty: Image | None = None
    passed: tuple[tuple[str, Transform, float | None], ...] = ()


def deliver(scans: Scans, prepared: Prepared, pair: Pair, solution: Solution | None, clock: Clock) -> Delivered:
    """Transforms in mm, certified, and the warped image.

    Args:
        scans: fixed and moving, as they are stored.
        prepared: what was made of them; pair: the same under the linear map that was found.
        solution: what deforms, or None where nothing does.
        clock: told when the parts are done.
    """
    fixed, moving = (scan.image for scan in scans)
    grid = fixed.grid
    keep = [*range(grid.dim), 3]
    linear = Affine(pair.world[np.ix_(keep, keep)])
    after: tuple[Transform, ...] = (linear,) if prepared.applied is None else (linear, prepared.applied)
    certificate, velocity, maps = Certificate(), None, {}
    passed: list[tuple[str, Transform, float | None]] = []
    if solution is None:
        transform: Transform = linear if prepared.applied is None else Composite(after)
        inverse = on_grid = transform.inverse()
    else:
        voxels = pair.fixed.grid
        sound = certify(solution.field, (1, 1, 1), pair.fixed.shape)
        certificate = sound.certificate
        forward = on_image(in_mm(sound.field, voxels), prepared.factors, grid)
        inverse_grid = voxels.cropped(sound.start, sound.inverse.shape[1:])
        backward = in_plane(in_mm(sound.inverse, voxels), inverse_grid, grid.dim)
        transform = Composite((forward, *after))
        inverse = transform.inverse()
        undo = tuple(part.inverse() for part in reversed(after))
        on_grid = Composite((*undo, backward))
        if solution.velocity is not None:
            v = on_image(in_mm(solution.velocity, voxels), prepared.factors, grid)
            velocity = VelocityField(v.vectors, v.grid)
        for name in ("uncertainty", "feature_uncertainty"):
            maps[name] = on_fixed(name.replace("_", " "), getattr(solution, name), voxels, grid)
        for one in solution.passed:
            way = in_plane(in_mm(one.field, one.nodes), one.nodes, grid.dim)
            passed.append((one.name, Composite((way, *after)), one.energy))
    clock.lap("inverse and certificate")
    displacement = transform.displacement(grid)
    warped = resample(moving, grid, transform, displacement=displacement)
    clock.lap("resampling")
    return Delivered(
        transform,
        inverse,
        on_grid,
        warped,
        displacement,
        linear.matrix,
        certificate,
        velocity,
        **maps,
        passed=tuple(passed),
    )


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
