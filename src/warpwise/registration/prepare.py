"""Everything about images, units and checks, once: two scans as the pair that solvers see."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.image import Image, blank, normalised, upright, windowed, without_padding
from warpwise.io.bias import without_bias
from warpwise.io.checks import whole
from warpwise.io.points import matched
from warpwise.io.scan import ReadScan, Scans
from warpwise.methods import ImageSettings
from warpwise.objective import SolverTerms
from warpwise.pair import Pair
from warpwise.registration.inputs import check, named, oddities
from warpwise.registration.memory import thinned
from warpwise.resampling import brought, resample
from warpwise.shapes import Map, Shares, Triple
from warpwise.similarity.codes import encoded
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.volume import Volume, filled, scale_factors


@dataclass(frozen=True, eq=False)
class Prepared:
    """What solvers see.

    Attributes:
        pair: on grids whose axes run towards right, front and top, however the images are stored.
        factors: voxels of the fixed image a voxel of the pair, along the pair's axes.
        applied: the initial transform, where it was already applied to the moving image.
        notes: what should be said.
    """

    pair: Pair
    factors: Triple
    applied: Transform | None
    notes: tuple[str, ...]


def prepare(
    scans: Scans,
    settings: ImageSettings,
    terms: SolverTerms | None = None,
    *,
    initial: Transform | None = None,
    reduction: int = 1,
) -> Prepared:
    """Checked, normalised arrays.

    An affine initial transform becomes the pair's starting matrix. Any other is applied by resampling the moving
    image for the solver's eyes; what is delivered is still resampled once, through the whole chain.

    Args:
        scans: fixed and moving.
        settings: how images are made comparable.
        terms: what guides the solver besides images; labels and landmarks are brought to the pair for those alone.
        initial: a transform to begin with, fixed mm → moving mm.
        reduction: every so many voxels of each image are used, to save memory.

    Raises:
        InputError: something given cannot be used.
    """
    check(scans, settings, initial)
    notes = [*scans[0].image.notes, *scans[1].image.notes, *oddities(scans)]
    # The same image stored with other axes must give the same answer: scales begin at voxel 0, wherever that is.
    fixed, moving = (scan.replaced(image=upright(scan.image)) for scan in scans)
    factors = scale_factors(fixed.image.grid.embedded(), int(np.log2(reduction)))
    fixed, moving = thinned(fixed, reduction), thinned(moving, reduction)
    applied = None if initial is None or isinstance(initial, Affine) else initial
    if applied is not None:
        moving = through(moving, fixed.image, applied)
    world = np.eye(4)
    if isinstance(initial, Affine):
        dim = initial.dim
        world[:dim, :dim], world[:dim, 3] = initial.matrix[:dim, :dim], initial.matrix[:dim, dim]
    volumes = volume_of(fixed, settings, notes), volume_of(moving, settings, notes)
    pair = Pair(
        *volumes,
        volumes[1].grid.inverse_affine @ world @ volumes[0].grid.affine,
        channel_weights(settings),
        0.5 * fixed.image.grid.diagonal_mm,
    )
    if terms is not None and terms.landmarks is not None:
        pair = with_points(pair, (fixed, moving))
    if terms is not None and terms.labels is not None:
        pair = with_codes(pair, (fixed, moving), notes)
    return Prepared(pair, factors, applied, tuple(notes))


def through(moving: ReadScan, fixed: Image, initial: Transform) -> ReadScan:
    """Everything that belongs to the moving image, brought onto the fixed grid through the initial transform."""

    def there(image: Image | None, how: str) -> Image | None:
        return None if image is None else resample(image, fixed.grid, initial, interpolation=how)

    landmarks = moving.landmarks
    if landmarks is not None:
        landmarks = landmarks.moved(initial.inverse().points(landmarks.mm))
    return moving.replaced(
        image=resample(moving.image, fixed.grid, initial),
        mask=there(moving.mask, "nearest"),
        exclude=there(moving.exclude, "nearest"),
        labels=there(moving.labels, "label"),
        landmarks=landmarks,
    )


def volume_of(scan: ReadScan, settings: ImageSettings, notes: list[str]) -> Volume:
    """An upright image as an array of intensities 0 … 1.2, and which of its voxels count; notes are added to."""
    image, grid = scan.image, scan.image.grid.embedded()
    mask = counted(scan)
    shape = (len(image.data), *grid.shape)
    inside = None if mask is None else mask.reshape(image.grid.shape) > 0
    data = np.stack([intensities(channel, image, inside, settings, notes) for channel in image.data]).reshape(shape)
    cut_out = settings.window is None and all(blank(channel) for channel in image.data)
    return Volume(
        filled(data, on_grid(scan.exclude, image)), grid, mask, cut_out=cut_out, dim=image.grid.dim, name=image.name
    )


def intensities(
    channel: NDArray[Any], image: Image, inside: NDArray[np.bool_] | None, settings: ImageSettings, notes: list[str]
) -> NDArray[np.float32]:
    """One channel as solvers see it."""
    measured, padding = without_padding(channel)
    if padding is not None:
        notes.append(f"{image.name}: voxels of {padding:g} lie far below all others and count as air.")
    if settings.bias_field:
        measured = without_bias(measured, image.grid)
    if settings.window is not None:
        return windowed(measured, settings.window)
    return normalised(measured, inside, settings.percentiles)


def counted(scan: ReadScan) -> Map | None:
    """Weights 0 or 1 of an image's voxels, from its mask and from what is excluded; None where all count."""
    image = scan.image
    mask, lesion = on_grid(scan.mask, image), on_grid(scan.exclude, image)
    if mask is not None and not mask.any():
        raise InputError(f"{named(scan.mask)}: the mask is empty on the grid of {image.name}.")
    if lesion is None:
        return mask
    out = 1 - lesion if mask is None else mask * (1 - lesion)
    if not out.any():
        raise InputError(f"{named(scan.exclude)}: excludes every voxel of {image.name} that counts.")
    return out.astype(np.float32)


def on_grid(mask: Image | None, image: Image) -> Map | None:
    """A mask as 0 or 1 on an image's grid, through the world where it lies on another."""
    if mask is None:
        return None
    return (brought(mask, image).data[0] > 0).astype(np.float32).reshape(image.grid.embedded().shape)


def channel_weights(settings: ImageSettings) -> Shares | None:
    """Adding up to 1."""
    if settings.channel_weights is None:
        return None
    weights = np.asarray(settings.channel_weights, np.float32)
    return (weights / weights.sum()).astype(np.float32)


def with_points(pair: Pair, scans: Scans) -> Pair:
    """The pair with corresponding landmarks in voxels of both grids; itself where there are none."""
    if scans[0].landmarks is None or scans[1].landmarks is None:
        return pair
    volumes: list[Volume] = []
    for mm, volume in zip(matched(scans[0].landmarks, scans[1].landmarks)[:2], (pair.fixed, pair.moving), strict=True):
        world = np.zeros((len(mm), 3))
        world[:, : mm.shape[1]] = mm
        points = (world - volume.grid.affine[:3, 3]) @ volume.grid.inverse_affine[:3, :3].T
        volumes.append(replace(volume, points=points))
    return replace(pair, fixed=volumes[0], moving=volumes[1])


def with_codes(pair: Pair, scans: Scans, notes: list[str]) -> Pair:
    """The pair with both label maps as channels on its grids; labels that one image lacks are noted and left out."""
    maps: list[NDArray[np.integer]] = []
    for scan, volume in zip(scans, (pair.fixed, pair.moving), strict=True):
        if scan.labels is None:
            return pair
        maps.append(whole(brought(scan.labels, scan.image).data[0], name=scan.labels.name).reshape(volume.shape))
    values = [set(np.unique(map_).tolist()) - {0} for map_ in maps]
    if not values[0] & values[1]:
        raise InputError(f"{named(scans[0].labels)} and {named(scans[1].labels)} share no label but 0.")
    odd = sorted(values[0] ^ values[1])
    if odd:
        shown = ", ".join(map(str, odd[:10])) + (" …" if len(odd) > 10 else "")
        notes.append(f"Labels in one map only do not guide the registration: {shown}.")
    codes = encoded(*maps)
    return replace(pair, fixed=replace(pair.fixed, codes=codes[0]), moving=replace(pair.moving, codes=codes[1]))
