"""Everything about images, units and checks, once: what users give as the pair that solvers see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.guides import SCALE, LabelMaps, Landmarks, encoded
from warpwise.image import Image, normalised, upright
from warpwise.io.bias import without_bias
from warpwise.io.checks import whole
from warpwise.io.memory import free_memory
from warpwise.io.points import Points, inside, matched
from warpwise.ops import kernels
from warpwise.pair import Pair, Triple, level_factors, shrink
from warpwise.resampling import brought, resample
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform

Two = tuple[Image | None, Image | None]
NONE: Two = (None, None)
LIBRARIES_MB = 230  # that a process holds before it registers anything
FLAT = 0.85  # of neighbours within the object are equal: so alike are labels, not intensities


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a registration is given, as images and points, fixed first.

    Attributes:
        masks: only voxels > 0 count; exclude: voxels > 0 do not (lesions).
        labels: label maps that should overlap; landmarks: points that should meet.
        weights: of labels and landmarks against the similarity; those of weight 0 are only judged.
        initial: a transform to begin with.
        channel_weights: importance of the channels.
        percentiles: darkest and brightest intensity that is told apart; bias_field: remove it first (N4).
    """

    images: tuple[Image, Image]
    masks: Two = NONE
    exclude: Two = NONE
    labels: Two = NONE
    landmarks: tuple[Points, Points] | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: {"labels": 1.0, "landmarks": 1.0})
    initial: Transform | None = None
    channel_weights: Sequence[float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    bias_field: bool = False


@dataclass(frozen=True, eq=False)
class Prepared:
    """What solvers see.

    Attributes:
        pair: on grids whose axes run towards right, front and top, however the images are stored.
        factors: voxels of the fixed image a voxel of the pair, along the pair's axes.
        warped_first: whether the initial transform was already applied to the moving image.
        notes: what should be said.
    """

    pair: Pair
    factors: Triple
    warped_first: bool
    notes: tuple[str, ...]


def prepare(inputs: Inputs, *, reduction: int = 1) -> Prepared:
    """Checked, normalised arrays.

    An affine initial transform becomes the pair's starting matrix. Any other is applied by resampling the moving
    image for the solver's eyes; what is delivered is still resampled once, through the whole chain.

    Args:
        inputs: what was given.
        reduction: every so many voxels of each image are used, to save memory.

    Raises:
        InputError: something given cannot be used.
    """
    check(inputs)
    notes = [*inputs.images[0].notes, *inputs.images[1].notes, *oddities(inputs)]
    # The same image stored with other axes must give the same answer: levels begin at voxel 0, wherever that is.
    inputs = replace(inputs, images=(upright(inputs.images[0]), upright(inputs.images[1])))
    factors = level_factors(inputs.images[0].grid.embedded(), int(np.log2(reduction)))
    inputs = smaller(inputs, reduction)
    initial = inputs.initial
    deforming = initial is not None and not isinstance(initial, Affine)
    if initial is not None and deforming:
        inputs = through(inputs, initial)
    fixed, moving = inputs.images
    world = np.eye(4)
    if isinstance(initial, Affine):
        dim = initial.dim
        world[:dim, :dim], world[:dim, 3] = initial.matrix[:dim, :dim], initial.matrix[:dim, dim]
    grid, moving_grid = fixed.grid.embedded(), moving.grid.embedded()
    seen = [counted(inputs, n) for n in range(2)]
    channels = [
        filled(normalised_channels(inputs, n, seen[n]), on_grid(inputs.exclude[n], inputs.images[n])) for n in range(2)
    ]
    pair = Pair(
        channels[0],
        channels[1],
        grid,
        moving_grid,
        moving_grid.inverse_affine @ world @ grid.affine,
        seen[0],
        seen[1],
        weights_of(inputs),
        landmarks_of(inputs),
        labels_of(inputs, notes),
    )
    return Prepared(pair, factors, deforming, tuple(notes))


def check(inputs: Inputs) -> None:
    """Refuse images that cannot be registered with each other, and guides that do not fit them."""
    fixed, moving = inputs.images
    if fixed.grid.dim != moving.grid.dim:
        raise InputError(f"{fixed.name} is {fixed.grid.dim}-D and {moving.name} is {moving.grid.dim}-D.")
    if len(fixed.data) != len(moving.data):
        raise InputError(f"{fixed.name} has {len(fixed.data)} channels and {moving.name} has {len(moving.data)}.")
    for image in inputs.images:
        if sum(n >= 4 for n in image.grid.shape) < 2:
            raise InputError(f"{image.name}: {image.grid.shape} voxels are too few to register.")
        for channel in image.data:
            if channel.min() == channel.max():
                raise InputError(f"{image.name}: every voxel is {channel.flat[0]}; there is nothing to register.")
    if inputs.initial is not None and inputs.initial.dim != fixed.grid.dim:
        raise InputError(f"The initial transform is {inputs.initial.dim}-D, the images are {fixed.grid.dim}-D.")
    for name, weight in inputs.weights.items():
        if name not in ("labels", "landmarks") or not (np.isfinite(weight) and weight >= 0):
            raise InputError(f"weights: {name} = {weight}; weights ≥ 0 of labels and landmarks are known.")
    low, high = inputs.percentiles
    if not 0 <= low < high <= 100:
        raise InputError(f"percentiles {inputs.percentiles}: two numbers, 0 ≤ low < high ≤ 100, are needed.")
    if (inputs.labels[0] is None) != (inputs.labels[1] is None):
        raise InputError("Labels of both images are needed, or of neither.")
    if inputs.landmarks is not None:
        first, second, names = matched(*inputs.landmarks)
        for n, (mm, image) in enumerate(zip((first, second), inputs.images, strict=True)):
            if mm.shape[1] != image.grid.dim:
                raise InputError(f"{inputs.landmarks[n].name}: {mm.shape[1]}-D landmarks for a {image.grid.dim}-D image.")
            inside(mm, image.grid, names, inputs.landmarks[n].name)


def oddities(inputs: Inputs) -> list[str]:
    """What looks like a mistake but may be meant."""
    out = [f"{image.name}: looks like a label map, not an image." for image in inputs.images if looks_like_labels(image)]
    for mask in (*inputs.masks, *inputs.exclude):
        if mask is not None and not np.isin(np.unique(mask.data), (0, 1)).all():
            out.append(f"{mask.name}: the mask is not binary; voxels above 0 are taken.")
    return out


def looks_like_labels(image: Image) -> bool:
    """Whether whole numbers above 0 nearly always have equal neighbours: so flat are labels, not intensities."""
    data = image.data[0]
    if data.dtype.kind not in "ui" or data.size > 2**31:
        return False
    middle = data[tuple(slice(n // 4, n - n // 4) for n in data.shape)]
    a, b = middle[:-1].ravel(), middle[1:].ravel()
    object_ = (a != 0) & (b != 0)
    return bool(object_.sum() > 100 and np.unique(middle).size > 1 and float((a == b)[object_].mean()) > FLAT)


def smaller(inputs: Inputs, reduction: int) -> Inputs:
    """The same on every `reduction`-th voxel, images smoothed first."""
    if reduction == 1:
        return inputs
    fixed, moving = inputs.images

    def thinned(image: Image | None) -> Image | None:
        return None if image is None else coarser(image, reduction)

    return replace(
        inputs,
        images=(coarser(fixed, reduction), coarser(moving, reduction)),
        masks=(thinned(inputs.masks[0]), thinned(inputs.masks[1])),
        exclude=(thinned(inputs.exclude[0]), thinned(inputs.exclude[1])),
        labels=(thinned(inputs.labels[0]), thinned(inputs.labels[1])),
    )


def coarser(image: Image, reduction: int) -> Image:
    """Every `reduction`-th voxel of an image (a power of two), fewer along thick slices."""
    grid = image.grid.embedded()
    factors = level_factors(grid, int(np.log2(reduction)))
    data = image.data.reshape(len(image.data), *grid.shape)
    if image.kind == "intensity":
        data = np.stack([shrink(channel[None].astype(np.float32), factors)[0] for channel in data])
    else:
        data = np.ascontiguousarray(data[:, :: factors[0], :: factors[1], :: factors[2]])
    own = factors if image.grid.dim == 3 else (factors[0], factors[2])
    shape = tuple(-(-n // f) for n, f in zip(image.grid.shape, own, strict=True))
    affine = image.grid.affine @ np.diag([*[float(f) for f in own], 1.0])
    return Image(data.reshape(len(data), *shape), Grid(shape, affine), image.kind, image.name, image.notes)


def through(inputs: Inputs, initial: Transform) -> Inputs:
    """Everything that belongs to the moving image, brought onto the fixed grid through the initial transform."""
    grid = inputs.images[0].grid

    def there(image: Image | None, how: str) -> Image | None:
        return None if image is None else resample(image, grid, initial, interpolation=how)

    landmarks = inputs.landmarks
    if landmarks is not None:
        landmarks = landmarks[0], landmarks[1].moved(initial.inverse().points(landmarks[1].mm))
    return replace(
        inputs,
        images=(inputs.images[0], resample(inputs.images[1], grid, initial)),
        masks=(inputs.masks[0], there(inputs.masks[1], "nearest")),
        exclude=(inputs.exclude[0], there(inputs.exclude[1], "nearest")),
        labels=(inputs.labels[0], there(inputs.labels[1], "label")),
        landmarks=landmarks,
    )


def counted(inputs: Inputs, n: int) -> NDArray[np.float32] | None:
    """Weights 0 or 1 of an image's voxels, from its mask and from what is excluded; None where all count."""
    image = inputs.images[n]
    mask, lesion = on_grid(inputs.masks[n], image), on_grid(inputs.exclude[n], image)
    if mask is not None and not mask.any():
        raise InputError(f"{named(inputs.masks[n])}: the mask is empty on the grid of {image.name}.")
    if lesion is None:
        return mask
    out = 1 - lesion if mask is None else mask * (1 - lesion)
    if not out.any():
        raise InputError(f"{named(inputs.exclude[n])}: excludes every voxel of {image.name} that counts.")
    return out.astype(np.float32)


def named(image: Image | None) -> str:
    """An image's name."""
    return "image" if image is None else image.name


def on_grid(mask: Image | None, image: Image) -> NDArray[np.float32] | None:
    """A mask as 0 or 1 on an image's grid, through the world where it lies on another."""
    if mask is None:
        return None
    return (brought(mask, image).data[0] > 0).astype(np.float32).reshape(image.grid.embedded().shape)


def normalised_channels(inputs: Inputs, n: int, mask: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Channels (C, X, Y, Z) with intensities 0 … 1.2, by the range inside the mask."""
    image = inputs.images[n]
    shape = (len(image.data), *image.grid.embedded().shape)
    inside = None if mask is None else mask.reshape(image.grid.shape) > 0
    channels = [without_bias(channel, image.grid) for channel in image.data] if inputs.bias_field else image.data
    return np.stack([normalised(channel, inside, inputs.percentiles) for channel in channels]).reshape(shape)


def filled(channels: NDArray[np.float32], hole: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Channels (C, X, Y, Z) with what is excluded filled in smoothly from round about, nearest first.

    Leaving voxels out of the similarity is not enough: their rim stays in the windows of their neighbours, and pulls at
    them. On phantoms with a lesion, the error round it is 0.37 voxel filled, 0.81 left out, 0.92 with the lesion, 0.30
    without one.
    """
    if hole is None or not hole.any():
        return channels
    out, known = channels.copy(), (1 - hole).astype(np.float32)
    for sigma in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        axes = [sigma if n > 1 else 0.0 for n in hole.shape]
        weight = kernels.gaussian(known[None], axes)[0]
        values = kernels.gaussian(out * known, axes)
        new = (known < 0.5) & (weight > 0.02)
        out[:, new] = values[:, new] / weight[new]
        known[new] = 1
    return out


def weights_of(inputs: Inputs) -> NDArray[np.float32] | None:
    """Channel weights, adding up to 1."""
    if inputs.channel_weights is None:
        return None
    weights = np.asarray(inputs.channel_weights, np.float32)
    if weights.shape != (len(inputs.images[0].data),) or not (weights > 0).all():
        raise InputError(f"{len(inputs.images[0].data)} positive channel weights are needed; got {inputs.channel_weights}.")
    return (weights / weights.sum()).astype(np.float32)


def landmarks_of(inputs: Inputs) -> Landmarks | None:
    """Corresponding points in voxels of both 3-D grids."""
    weight = inputs.weights.get("landmarks", 1.0)
    if inputs.landmarks is None or weight == 0:
        return None
    found: list[NDArray[np.float64]] = []
    for mm, image in zip(matched(*inputs.landmarks)[:2], inputs.images, strict=True):
        grid = image.grid.embedded()
        world = np.zeros((len(mm), 3))
        world[:, : mm.shape[1]] = mm
        found.append((world - grid.affine[:3, 3]) @ grid.inverse_affine[:3, :3].T)
    grid = inputs.images[0].grid
    half = 0.5 * float(np.linalg.norm([s * n for s, n in zip(grid.spacing_mm, grid.shape, strict=True)]))
    return Landmarks(found[0], found[1], weight, SCALE * half)


def labels_of(inputs: Inputs, notes: list[str]) -> LabelMaps | None:
    """Both label maps as channels on the images' grids; labels that one image lacks are noted and left out."""
    weight = inputs.weights.get("labels", 1.0)
    if inputs.labels[0] is None or inputs.labels[1] is None or weight == 0:
        return None
    maps: list[NDArray[np.integer]] = []
    for labels, image in zip(inputs.labels, inputs.images, strict=True):
        assert labels is not None
        maps.append(whole(brought(labels, image).data[0], name=labels.name).reshape(image.grid.embedded().shape))
    values = [set(np.unique(found).tolist()) - {0} for found in maps]
    if not values[0] & values[1]:
        raise InputError(f"{named(inputs.labels[0])} and {named(inputs.labels[1])} share no label but 0.")
    odd = sorted(values[0] ^ values[1])
    if odd:
        shown = ", ".join(map(str, odd[:10])) + (" …" if len(odd) > 10 else "")
        notes.append(f"Labels in one map only do not guide the registration: {shown}.")
    return LabelMaps(*encoded(*maps), weight)


def predicted_memory_mb(fixed: Grid, moving: Grid, channels: int, *, reduction: int = 1) -> float:
    """Peak memory of a registration, from measured use: a base for Python and its libraries, and bytes a voxel."""
    voxels = [float(np.prod(grid.shape)) for grid in (fixed, moving)]
    used = [
        float(np.prod([-(-n // f) for n, f in zip(g.shape, level_factors(g, int(np.log2(reduction))), strict=True)]))
        for g in (fixed.embedded(), moving.embedded())
    ]
    whole_grids = 0.0 if reduction == 1 else voxels[0] * 40 + voxels[1] * 8 * channels
    return round(LIBRARIES_MB + (used[0] * (100 + 14 * channels) + used[1] * 12 * channels + whole_grids) / 1e6, 1)


def affordable(fixed: Grid, moving: Grid, channels: int, *, fit: bool) -> int:
    """By how much the images must be thinned out so that memory suffices: 1, or 2 or 4 where `fit` allows it.

    Raises:
        InputError: memory does not suffice.
    """
    free = free_memory() / 1e6
    more = {
        r: predicted_memory_mb(fixed, moving, channels, reduction=r) - LIBRARIES_MB for r in ((1, 2, 4) if fit else (1,))
    }
    for reduction, need in more.items():
        if need <= free:
            return reduction
    raise InputError(
        f"About {min(more.values()):.0f} MB more are needed and {free:.0f} MB are free.",
        hint="Resample the images to a coarser grid." if fit else "Pass --fit-memory to work on every second voxel.",
    )
