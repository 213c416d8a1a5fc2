"""How much memory a registration takes, and how it can do with less."""

import numpy as np

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.memory import free_memory
from warpwise.io.scan import ReadScan, Scans
from warpwise.methods import Method
from warpwise.volume import scale_factors, shrink

LINEAR = 100  # bytes a voxel of the fixed image, of the linear stage and of what is delivered
LIBRARIES_MB = 230  # that a process holds before it registers anything


def predicted_memory_mb(scans: Scans, method: Method, *, reduction: int = 1) -> float:
    """Peak memory of a registration, from measured use: a base for Python and its libraries, and bytes a voxel; those of
    networks' weights and activations are not in it."""
    fixed, moving = (scan.image.grid for scan in scans)
    channels = len(scans[0].image.data)
    voxels = [float(np.prod(grid.shape)) for grid in (fixed, moving)]
    bytes_a_voxel: int = getattr(method.registrar, "bytes_a_voxel", LINEAR)
    used = [_voxels_left(grid.embedded(), reduction) for grid in (fixed, moving)]
    whole_grids = 0.0 if reduction == 1 else voxels[0] * 40 + voxels[1] * 8 * channels
    return round(
        LIBRARIES_MB + (used[0] * (bytes_a_voxel + 14 * channels) + used[1] * 12 * channels + whole_grids) / 1e6, 1
    )


def _voxels_left(grid: Grid, reduction: int) -> float:
    factors = scale_factors(grid, int(np.log2(reduction)))
    return float(np.prod(grid.strided(factors).shape))


def affordable(scans: Scans, method: Method) -> int:
    """By how much the images must be thinned out so that memory suffices: 1, or 2 or 4 where the method allows it.

    Raises:
        InputError: memory does not suffice.
    """
    fit = method.images.fit_memory
    free = free_memory() / 1e6
    more = {r: predicted_memory_mb(scans, method, reduction=r) - LIBRARIES_MB for r in ((1, 2, 4) if fit else (1,))}
    for reduction, need in more.items():
        if need <= free:
            return reduction
    raise InputError(
        f"About {min(more.values()):.0f} MB more are needed and {free:.0f} MB are free.",
        hint="Resample the images to a coarser grid." if fit else "Pass --fit-memory to work on every second voxel.",
    )


def thinned(scan: ReadScan, reduction: int) -> ReadScan:
    """The same on every `reduction`-th voxel, images smoothed first."""
    if reduction == 1:
        return scan
    names = ("image", "mask", "exclude", "labels", "stiffness")
    members = {name: getattr(scan, name) for name in names}
    return scan.replaced(**{k: v if v is None else coarser(v, reduction) for k, v in members.items()})


def coarser(image: Image, reduction: int) -> Image:
    """Every `reduction`-th voxel of an image (a power of two), fewer along thick slices."""
    grid = image.grid.embedded()
    factors = scale_factors(grid, int(np.log2(reduction)))
    data = image.data.reshape(len(image.data), *grid.shape)
    if image.kind == "intensity":
        data = np.stack([shrink(channel[None].astype(np.float32), factors)[0] for channel in data])
    else:
        data = np.ascontiguousarray(data[:, :: factors[0], :: factors[1], :: factors[2]])
    own = image.grid.strided(factors if image.grid.dim == 3 else (factors[0], factors[2]))
    return Image(data.reshape(len(data), *own.shape), own, image.kind, image.name, image.notes)


def words(reduction: int) -> tuple[str, ...]:
    """A warning about voxels that were left out."""
    if reduction == 1:
        return ()
    return (f"Memory is short: the registration saw one voxel in {reduction} along each axis, so it is less accurate.",)
